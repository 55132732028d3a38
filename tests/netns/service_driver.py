"""Runs the odd service of the agents' tests on a lab's machine until it is told to stop; then says what it
was told.

    python service_driver.py PORT REPORT
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app"))

from agents import odd_service


def main() -> None:
    port, report = int(sys.argv[1]), Path(sys.argv[2])
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with odd_service(port) as service:
        print("listening", flush=True)
        stopped.wait()
    said = {"requests": service.requests, "answers": service.answers, "refused": service.refused}
    report.write_text(json.dumps(said), "utf-8")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures how long commands take that do nothing but start, beside an empty Python, in turns.

scripts/bench/cold_start.py                  20 rounds of this Python
scripts/bench/cold_start.py --python PYTHON  of another one, such as an installed package's

What others do on the machine moves all times alike: read the ratio, and the least of each.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import typer'": ["-c", "import typer"],
    "meshpeer --version": ["-m", "meshpeer", "--version"],
    "meshpeer status": ["-m", "meshpeer", "status"],
    "meshpeer jobs list": ["-m", "meshpeer", "jobs", "list"],
    "meshpeer --help": ["-m", "meshpeer", "--help"],
}
"""Those that ask an agent find none: what an answer takes is the agent's."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures how long commands take to start.")
    parser.add_argument("--rounds", type=int, default=20, metavar="N")
    parser.add_argument("--python", default=sys.executable, metavar="PYTHON")
    asked = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for name, arguments in COMMANDS.items():
                times[name].append(took_s([asked.python, *arguments], Path(folder)))
    base_s = min(times["python -c pass"])
    for name, found in times.items():
        least_s = min(found)
        print(
            f"{name:26}  {least_s * 1e3:6.0f} ms at best  {statistics.median(found) * 1e3:6.0f} ms median"
            f"  {least_s / base_s:5.1f} x an empty Python"
        )


def took_s(command: list[str], folder: Path) -> float:
    """Runs it where no agent is; returns the seconds from its start to its end."""
    began_s = time.perf_counter()
    subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "MESHPEER_STATE_DIR": str(folder), "MESHPEER_RUN_DIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return time.perf_counter() - began_s


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How long a person waits: from typing `meshpeer join` to the first answered ping through the tunnel, beside
a bare ping.

Makes a lab of two nodes, five times, with the commands that a user types. Needs root.

    .venv/bin/python scripts/bench/first_ping.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab

LAB = Path(__file__).resolve().parents[1] / "netns" / "labs" / "two-nodes.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    ready: list[float] = []
    answered: list[float] = []
    for _ in range(rounds):
        with Lab.from_toml(LAB) as lab:
            first, second = (lab.node(name) for name in sorted(lab.nodes))
            first.run(["meshpeer", "init", "--name", "first", "--detach", "--quiet"])
            invite = first.run(["meshpeer", "invite", "--quiet"]).stdout.strip()
            begun = time.monotonic()
            second.run(["meshpeer", "join", invite, "--name", "second", "--detach", "--quiet"])
            ready.append(time.monotonic() - begun)
            while second.run(["ping", "-c", "1", "-W", "1", "10.10.0.1"], check=False).returncode != 0:
                if time.monotonic() - begun > 30:
                    raise SystemExit("no ping was answered within 30 s")
            answered.append(time.monotonic() - begun)
    for what, waits in (("ready", ready), ("first ping", answered)):
        print(
            f"join to {what}: median {statistics.median(waits):.2f} s, worst {max(waits):.2f} s of {rounds}"
        )


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures how long commands take that do nothing but start, beside an empty Python, in turns.

scripts/bench/cold_start.py                  20 rounds of this Python
scripts/bench/cold_start.py --python PYTHON  of another one, such as an installed package's

The least of each is printed. Others on the machine make all of them longer: read the ratios.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time

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
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for name, arguments in COMMANDS.items():
                times[name].append(took_s([asked.python, *arguments], folder))
    base_s = min(busy_s for _, busy_s in times["python -c pass"])
    for name, found in times.items():
        least_s, busy_s = (min(column) for column in zip(*found, strict=True))
        print(
            f"{name:26}  {least_s * 1e3:6.0f} ms  {busy_s * 1e3:6.0f} ms of a processor"
            f"  {busy_s / base_s:5.1f} x an empty Python"
        )


def took_s(command: list[str], folder: str) -> tuple[float, float]:
    """Runs it where no agent is; returns the seconds from its start to its end, and those of a processor."""
    variables = {"PATH": "/usr/bin:/bin", "MESHPEER_STATE_DIR": folder, "MESHPEER_RUN_DIR": folder}
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    began_s = time.perf_counter()
    _, _, used = os.wait4(os.posix_spawnp(command[0], command, variables, file_actions=nowhere), 0)
    return time.perf_counter() - began_s, used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

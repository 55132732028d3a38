#!/usr/bin/env python3
"""What the scheduler costs: 1,000 `true` and a chain of 100 on one agent of two slots, beside `make -j2` in
the same run.

The agent runs without an interface on loopback; the journal is on. Absolute times move from machine to
machine: read the ratios.

    .venv/bin/python scripts/bench/jobs.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path

FLAT = "name: flat\ntasks:\n  t: {array: 0-999, run: ['true']}\n"
CHAIN = "name: chain\ntasks:\n  c0: {run: ['true']}\n" + "".join(
    f"  c{number}: {{run: ['true'], needs: [c{number - 1}]}}\n" for number in range(1, 100)
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="mp-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "meshpeer.toml").write_text("[mesh]\nmdns = false\n[jobs]\nslots = 2\n")
        environment = {
            **os.environ,
            "MESHPEER_STATE_DIR": str(folder / "state"),
            "MESHPEER_RUN_DIR": str(folder / "run"),
            "MESHPEER_CONFIG": str(folder / "meshpeer.toml"),
        }
        meshpeer = str(Path(__file__).resolve().parents[2] / ".venv" / "bin" / "meshpeer")

        def run(*words: str, text: str = "") -> str:
            done = subprocess.run(
                [meshpeer, *words], env=environment, input=text, capture_output=True, text=True, check=True
            )
            return done.stdout

        run("init", "--name", "solo", "--backend", "none", "--control-port", "0", "--detach", "--quiet")
        try:
            figures = {
                "1,000 `true`": [
                    job_s(run("jobs", "submit", "-", "--wait", "--json", text=FLAT)) for _ in range(rounds)
                ],
                "chain of 100": [
                    job_s(run("jobs", "submit", "-", "--wait", "--json", text=CHAIN)) for _ in range(rounds)
                ],
            }
            pid = int((folder / "state" / "state.lock").read_text().split()[0])
            figures["idle CPU, % of a core"] = [idle_percent(pid)]
            figures["RSS, MiB"] = [rss_mib(pid)]
        finally:
            run("down", "--quiet")
    make = {
        "1,000 `true`": [make_s(1_000, chain=False) for _ in range(rounds)],
        "chain of 100": [make_s(100, chain=True) for _ in range(rounds)],
    }
    for what, values in figures.items():
        line = f"{what:24} median {statistics.median(values):.2f}"
        if what in make:
            beside = statistics.median(make[what])
            line += f" s, make -j2 {beside:.2f} s, ratio {statistics.median(values) / beside:.1f}"
        print(line)


def job_s(document: str) -> float:
    job = json.loads(document)
    begun, ended = (datetime.fromisoformat(job[key]) for key in ("submitted_at", "finished_at"))
    return (ended - begun).total_seconds()


def make_s(count: int, *, chain: bool) -> float:
    with tempfile.TemporaryDirectory() as name:
        rules = [
            f"t{number}:{f' t{number - 1}' if chain and number else ''}\n\t@/usr/bin/true\n"
            for number in range(count)
        ]
        goals = " ".join(f"t{number}" for number in range(count))
        (Path(name) / "Makefile").write_text(f"SHELL=/bin/sh\nall: {goals}\n" + "".join(rules))
        begun = time.monotonic()
        subprocess.run(["make", "-s", "-j2", "-C", name, "all"], check=True)
        return time.monotonic() - begun


def idle_percent(pid: int, seconds: float = 10.0) -> float:
    before = cpu_s(pid)
    time.sleep(seconds)
    return (cpu_s(pid) - before) / seconds * 100


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()

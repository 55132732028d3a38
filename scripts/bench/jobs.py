#!/usr/bin/env python3
"""What the scheduler costs: 1,000 `true`, a graph of ten layers, a chain of 100 and one task alone, on one
agent of two slots and on two agents of one slot, beside `make -j2` and other schedulers in the same run.

Agents run without an interface on loopback; the journal is on. Absolute times move from machine to machine:
read the ratios. Every row is run beside `make` in turn, and its ratio is the median over the rounds.

    .venv/bin/python scripts/bench/jobs.py [--rounds 3] [--agents 1] [--agents 2]
    .venv/bin/python scripts/bench/jobs.py --beside PYTHON hyperqueue dask ray    # a Python that has them
    .venv/bin/python scripts/bench/jobs.py --many 100000    # what 10,000 tasks cost, again and again
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from jobs_shapes import SHAPES, Shape, job_text, makefile, many_text

PROJECT = Path(__file__).resolve().parents[2]
LOOK_S = 3.0
"""How often a large job is looked at."""
LATENCY_ROUNDS = 5


class Agent:
    """One agent of its own folder, and commands to it."""

    def __init__(self, folder: Path, slots: int) -> None:
        self._folder = folder
        folder.mkdir(mode=0o711)
        (folder / "meshpeer.toml").write_text(f"[mesh]\nmdns = false\n[jobs]\nslots = {slots}\n")
        self._environment = {
            **os.environ,
            "MESHPEER_STATE_DIR": str(folder / "state"),
            "MESHPEER_RUN_DIR": str(folder / "run"),
            "MESHPEER_CONFIG": str(folder / "meshpeer.toml"),
        }

    def run(self, *words: str, text: str = "") -> str:
        done = subprocess.run(
            [str(PROJECT / ".venv" / "bin" / "meshpeer"), *words],
            env=self._environment,
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def start(self, *words: str) -> None:
        common = ("--backend", "none", "--control-port", "0", "--web-port", "0", "--detach", "--quiet")
        self.run(*words, *common)

    @property
    def pid(self) -> int:
        return int((self._folder / "state" / "state.lock").read_text().split()[0])


@contextlib.contextmanager
def mesh(agents: int) -> Iterator[list[Agent]]:
    """Runs agents of two slots together."""
    with tempfile.TemporaryDirectory(prefix="mp-bench-") as name:
        Path(name).chmod(0o711)
        made = [Agent(Path(name) / str(number), 2 // agents) for number in range(agents)]
        started: list[Agent] = []
        try:
            for number, agent in enumerate(made):
                if number:
                    invite = made[0].run("invite", "--quiet").strip()
                    agent.start("join", invite, "--name", f"n{number}")
                else:
                    agent.start("init", "--name", "n0")
                started.append(agent)
            yield made
        finally:
            for agent in started:
                agent.run("down", "--quiet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agents", type=int, action="append", choices=(1, 2))
    parser.add_argument("--beside", nargs="+", metavar="PYTHON ENGINE", default=[])
    parser.add_argument("--many", type=int, default=0, metavar="TASKS")
    asked = parser.parse_args()
    if asked.many:
        run_many(asked.many)
        return
    for agents in asked.agents or [1]:
        run_rows(agents, asked.rounds)
    for engine in asked.beside[1:]:
        show_engine(asked.beside[0], engine, asked.rounds)


def run_rows(agents: int, rounds: int) -> None:
    print(f"{agents} agent{'s' if agents > 1 else ''}, {2 // agents} slot{'s' if agents == 1 else ''} each")
    with mesh(agents) as made:
        first = made[0]
        job_s(first, SHAPES["chain of 100"])
        for name, shape in SHAPES.items():
            beside: list[float] = []
            took: list[float] = []
            for _ in range(rounds * (LATENCY_ROUNDS if len(shape) == 1 else 1)):
                beside.append(make_s(shape))
                took.append(job_s(first, shape))
            show(name, took, beside)
        print(f"  {'idle CPU, % of a core':32} {idle_percent([one.pid for one in made]):.2f} an agent")
        print(f"  {'RSS, MiB':32} {rss_mib(first.pid):.1f}")


def show(name: str, took: list[float], beside: list[float]) -> None:
    line = f"  {name:32} median {statistics.median(took):.3f} s, best {min(took):.3f}"
    if len(took) == len(beside):
        ratio = statistics.median(mine / other for mine, other in zip(took, beside, strict=True))
        line += f"; make -j2 {statistics.median(beside):.3f}, ratio {ratio:.1f}"
    print(line, flush=True)


def show_engine(python: str, engine: str, rounds: int) -> None:
    beside = {name: [make_s(shape) for _ in range(rounds)] for name, shape in SHAPES.items()}
    done = subprocess.run(
        [python, str(Path(__file__).with_name("jobs_engines.py")), engine, str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    print(engine)
    for name, took in json.loads(done.stdout.splitlines()[-1]).items():
        show(name, took, beside[name])


def run_many(count: int) -> None:
    """Runs one large job, and prints what each 10,000 of its tasks took of time, of the agent's processor,
    and of its memory."""
    with mesh(1) as made:
        agent = made[0]
        pid = agent.pid
        begun_mib, begun = rss_mib(pid), time.monotonic()
        agent.run("jobs", "submit", "-", "--quiet", text=many_text(count))
        print(f"submitted in {time.monotonic() - begun:.1f} s, RSS {begun_mib:.0f} -> {rss_mib(pid):.0f} MiB")
        last = (0, time.monotonic(), cpu_s(pid))
        state = "running"
        while state == "running":
            time.sleep(LOOK_S)
            job = json.loads(agent.run("jobs", "status", "many", "--json"))
            state, done = job["state"], job["tasks"]["succeeded"]
            if done - last[0] < 10_000 and state == "running":
                continue
            now = (done, time.monotonic(), cpu_s(pid))
            if parts := (now[0] - last[0]) / 10_000:
                took_s, used_s = (now[1] - last[1]) / parts, (now[2] - last[2]) / parts
                cost = f"{took_s:5.1f} s and {used_s:5.1f} s of CPU per 10,000"
                print(f"  {done:7} done: {cost}, RSS {rss_mib(pid):.0f} MiB", flush=True)
            last = now
        print(f"{state} in {time.monotonic() - begun:.1f} s, RSS +{rss_mib(pid) - begun_mib:.0f} MiB")


def job_s(agent: Agent, shape: Shape) -> float:
    job = json.loads(agent.run("jobs", "submit", "-", "--wait", "--json", text=job_text(shape)))
    begun, ended = (datetime.fromisoformat(job[key]) for key in ("submitted_at", "finished_at"))
    return (ended - begun).total_seconds()


def make_s(shape: Shape) -> float:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "Makefile").write_text(makefile(shape))
        begun = time.monotonic()
        subprocess.run(["make", "-s", "-j2", "-C", name, "all"], check=True)
        return time.monotonic() - begun


def idle_percent(pids: list[int], seconds: float = 60.0) -> float:
    before = sum(map(cpu_s, pids))
    time.sleep(seconds)
    return (sum(map(cpu_s, pids)) - before) / seconds / len(pids) * 100


def cpu_s(pid: int) -> float:
    """Returns what a process had of a processor, threads that have ended included, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()

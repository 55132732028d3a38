"""Runs plans on a mesh of five, several at once, and says what did not hold.

scripts/chaos --seeds 20              seeds 1 to 20, four at a time
scripts/chaos --seed 17 --seeds 1     this one alone
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import chaosplan
import meshkit
import pytest
from chaoscheck import SETTLED_S, Ledger, Mark, left_over, oversubscribed, read_marks, said_badly
from chaoslab import Harm, Mesh, mesh_of_five
from chaosplan import NAMES, Plan

from meshpeer.runtime.control import Job, Task

TOGETHER = 4
END_S = 240.0
LOOK_EVERY_S, LAST_LOOKS_S = 2.0, 0.3
SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of plans that ran together."""

    plans: tuple[Plan, ...]
    problems: tuple[str, ...]
    done: tuple[str, ...]
    """The faults, as they came."""
    took_s: float
    again: int
    """Attempts beyond the first that began, of all tasks."""
    looks: int

    def words(self) -> str:
        seeds = ", ".join(str(plan.seed) for plan in self.plans)
        head = f"seeds {seeds}: {len(self.done)} faults' begins and ends, {self.again} tasks begun again, "
        return f"{head}{self.looks} looks, {self.took_s:.0f} s: {'ok' if not self.problems else 'FAILED'}"

    def story(self) -> str:
        problems = self.problems[:SHOWN_MAX]
        if len(self.problems) > SHOWN_MAX:
            problems += (f"and {len(self.problems) - SHOWN_MAX} more",)
        return "\n".join([*(plan.words() for plan in self.plans), "as it came:", *self.done, *problems])


def run(mesh: Mesh, plans: Sequence[Plan]) -> Outcome:
    """Runs the jobs of these plans at once under all their faults; returns when all is whole and judged."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="meshpeer-chaos-marks-"))
    folder.chmod(0o755)
    try:
        for name in (
            "marks",
            *(f"slot.{host}.{n}" for host in NAMES for n in (*range(chaosplan.SLOTS), "none")),
        ):
            (folder / name).touch()
            (folder / name).chmod(0o666)
        ledgers = [
            Ledger(meshkit.submit(mesh.node(plan.submitter), chaosplan.job_of(plan, str(folder))), plan)
            for plan in plans
        ]
        harm = Harm(mesh, chaosplan.laid_over(plans))
        try:
            problems = _see_through(mesh, harm, ledgers)
        finally:
            harm.undo_all()
        marks = read_marks(folder)
    finally:
        shutil.rmtree(folder)
    try:
        problems = problems or _judge(mesh, ledgers, marks)
    except pytest.fail.Exception as error:
        problems = [str(error)]
    problems += oversubscribed(marks) + said_badly(mesh.logs())
    tasks = len({one.key for one in marks if one.kind == "begun"})
    begun = sum(one.kind == "begun" for one in marks)
    looks = sum(ledger.looks for ledger in ledgers)
    took_s = time.monotonic() - began
    return Outcome(tuple(plans), tuple(problems), tuple(harm.done), took_s, begun - tasks, looks)


def _see_through(mesh: Mesh, harm: Harm, ledgers: Sequence[Ledger]) -> list[str]:
    """Does harm until all of it is over and every job has ended; returns what has not.

    Meanwhile others are asked about the jobs, in a thread: who can't reach an owner takes its time.
    """
    deadline = time.monotonic() + END_S
    over = threading.Event()
    watch = threading.Thread(target=_look_on, args=(mesh, harm, ledgers, over))
    watch.start()
    try:
        while not harm.over or not all(ledger.ended for ledger in ledgers):
            harm.step()
            if time.monotonic() > deadline:
                return [f"{one.job} has not ended in {END_S} s" for one in ledgers if not one.ended]
            time.sleep(0.05)
    finally:
        over.set()
        watch.join()
    return []


def _look_on(mesh: Mesh, harm: Harm, ledgers: Sequence[Ledger], over: threading.Event) -> None:
    for turn in itertools.count():
        open_jobs = [ledger for ledger in ledgers if not ledger.ended]
        steady = harm.steadies()
        if open_jobs and steady:
            ledger = open_jobs[turn % len(open_jobs)]
            ledger.look(mesh.node(steady[turn % len(steady)]))
            if ledger.ended:
                harm.note(f"{ledger.job} (seed {ledger.plan.seed}) has ended")
        if over.wait(LOOK_EVERY_S if not harm.over else LAST_LOOKS_S):
            return


def _judge(mesh: Mesh, ledgers: Sequence[Ledger], marks: Sequence[Mark]) -> list[str]:
    mesh.wait_until_whole()
    for ledger in ledgers:
        # By now all know the same: the submitter and any other are asked.
        others = [name for name in NAMES if name != ledger.plan.submitter]
        for name in (ledger.plan.submitter, others[ledger.plan.seed % len(others)]):
            node = mesh.node(name)
            job = meshkit.ask(node, Job, "jobs", "status", ledger.job)
            ledger.judge(meshkit.ask(node, list[Task], "jobs", "tasks", ledger.job), job, marks)
            ledger.look(node)
    plans = [ledger.plan for ledger in ledgers]
    deadline = time.monotonic() + SETTLED_S
    while (rest := left_over(mesh, plans)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return [*(problem for ledger in ledgers for problem in ledger.problems), *rest]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos", description="Runs jobs of 500 tasks under faults by seed."
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--together", type=int, default=TOGETHER, help="how many at a time, in one lab")
    parser.add_argument("--keep", type=Path, help="where logs of a failure stay")
    asked = parser.parse_args()
    keep = asked.keep or Path(tempfile.mkdtemp(prefix="meshpeer-chaos-"))
    keep.mkdir(parents=True, exist_ok=True)
    seeds = list(range(asked.seed, asked.seed + asked.seeds))
    began = time.monotonic()
    with mesh_of_five(keep) as mesh:
        print(f"the mesh is whole after {time.monotonic() - began:.0f} s", flush=True)
        for first in range(0, len(seeds), asked.together):
            outcome = run(mesh, [chaosplan.draw(seed) for seed in seeds[first : first + asked.together]])
            print(outcome.words(), flush=True)
            if outcome.problems:
                print(outcome.story())
                print(f"logs of the agents: {keep}")
                return 1
    print(f"{len(seeds)} seeds, {time.monotonic() - began:.0f} s: every job ended, one result for each task")
    shutil.rmtree(keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Kills an agent of a virtual mesh at a write of its journal, counted over all nodes, and lets it come back.

What the world checks as it runs holds then, too: nothing is acknowledged that is not on two disks, and no
task has two results. What must hold at the end is here. At every write, one after another:

    .venv/bin/python tests/core/scheduler/crashes.py [--tasks N] [--seed S]
"""

from __future__ import annotations

import argparse
import enum
import sys
import time

from world import Node, World, array, diamond

from meshpeer.core.effects import Delete, Persist, Put, Table
from meshpeer.core.jobs.model import JobSpec
from meshpeer.core.scheduler.tables import TaskState

NODES, SLOTS = 4, 2
AWAY_S = (0.3, 8.0)
"""Back at once, and after another replica took over."""


class When(enum.Enum):
    """Which side of a write an agent dies on."""

    BEFORE = "before"
    """It is not on disk."""
    AFTER = "after"
    """It is on disk, and nobody has heard."""


class CrashWorld(World):
    """A world in which the agent that makes the ``number``-th write dies at it; 0 for none that does."""

    def __init__(self, seed: int, number: int, when: When, away_s: float, *, wipe: bool = False) -> None:
        self.writes = 0
        self.died: list[tuple[Table, ...]] = []
        """What was written when somebody died."""
        self._number, self._when, self._away_s, self._wipe = number, when, away_s, wipe
        super().__init__(seed, [SLOTS] * NODES, replicated=True)

    def _written(self, node: Node, persist: Persist) -> None:
        self.writes += 1
        if self.writes != self._number:
            super()._written(node, persist)
            return
        self.died.append(tuple(dict.fromkeys(change.table for change in persist.changes)))
        if self._when is When.AFTER:
            for change in persist.changes:
                if isinstance(change, Put):
                    node.journal[change.table][change.key] = change.value
                elif isinstance(change, Delete):
                    node.journal[change.table].pop(change.key, None)
        self.crash(node.name)
        if self._wipe:
            self.wipe(node.name)
        self.after(self._away_s, lambda: self.start(node.name))


def see_through(
    number: int, when: When, away_s: float, job: JobSpec, *, seed: int, wipe: bool = False
) -> int:
    """Runs the job with a crash at one write; returns how many writes there were until it had ended and all
    was told."""
    world = CrashWorld(seed, number, when, away_s, wipe=wipe)
    world.run_for(0.5)
    submitted = world.submit(job)
    world.run_for(1.0)
    if world.died and not any(node.journal[Table.JOBS] for node in world.nodes.values()):
        # Nobody was told that the job is there: with the first write it is gone, whole.
        assert not world.committed
        return world.writes
    world.run_until(lambda: world.finished(submitted) and all(one.up for one in world.nodes.values()), 200.0)
    world.run_for(60.0)
    world.check()
    assert world.finished(submitted)
    results = world.owner(submitted).results
    assert [row.state for row in results.values()] == ["succeeded"] * len(results)
    for task, row in results.items():
        before = world.committed.get((submitted, task, row.round))
        assert before in (None, row), f"another result was acknowledged: {before}, now {row}"
    acknowledged = {key[1] for key in world.committed if key[0] == submitted}
    assert acknowledged <= set(results), "an acknowledged result is gone"
    assert world.owner(submitted).counts[TaskState.SUCCEEDED] == len(world.owner(submitted).graph)
    for node in world.nodes.values():
        assert not node.running, "something runs for nobody"
        assert not node.journal[Table.RESULTS], "results are offered for ever"
        assert not [key for key in node.journal[Table.GRANTS] if key.startswith("given/")]
    return world.writes


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills an agent of a virtual mesh at every write.")
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    failed = 0
    for name, job in (("array", array(asked.tasks)), ("diamond", diamond(asked.tasks // 2))):
        for away_s in AWAY_S:
            for wipe in (False, True):
                began, writes, runs = time.monotonic(), 10**9, 0
                number = 0
                while number < writes:
                    for when in When:
                        try:
                            made = see_through(number, when, away_s, job, seed=asked.seed, wipe=wipe)
                        except AssertionError as error:
                            failed += 1
                            print(
                                f"{name}, {when.value} write {number}, {away_s} s, wiped {wipe}: {error}"[
                                    :400
                                ]
                            )
                            made = 0
                        if not number:
                            writes = made
                        runs += 1
                    number += 1
                took_s = time.monotonic() - began
                what = "its disk is lost" if wipe else "its disk is kept"
                print(
                    f"{name}: {writes} writes, {runs} crashes, away {away_s} s, {what}: {took_s:.0f} s",
                    flush=True,
                )
    print("all held" if not failed else f"{failed} did NOT hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

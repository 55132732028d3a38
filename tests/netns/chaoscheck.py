"""What must hold of jobs that were worked on under chaos: told by the product's documents, and by marks.

A mark is a line that a task wrote itself, where the agents have no say: who began and ended what, where, in
which slot.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import chaosplan
import meshkit
from chaoslab import Mesh
from chaosplan import NAMES, Plan, host_of
from meshlab import CommandFailed, Node

from meshpeer.core.ids import key_text
from meshpeer.runtime.control import Job, Task

SETTLED_S = 60.0
BAD_WORDS = ("Traceback (most recent call last)", "InvariantBroken")
Winner = tuple[str, int]
"""The machine that an acknowledged result is of, and the number of its attempt."""


@dataclass(slots=True)
class Ledger:
    """What was seen acknowledged of a job, at any time: none of it may change, nor go."""

    job: str
    plan: Plan
    seen: dict[str, Winner] = field(default_factory=dict)
    looks: int = 0
    ended: bool = False
    problems: list[str] = field(default_factory=list)

    def look(self, node: Node) -> None:
        """Asks a node what it knows of the job, and notes what it says otherwise than before."""
        try:
            state = meshkit.ask(node, Job, "jobs", "status", self.job).state
            tasks = meshkit.ask(node, list[Task], "jobs", "tasks", self.job)
        except CommandFailed:
            return
        self.looks += 1
        for task in tasks:
            winner = winner_of(task)
            if winner is None:
                continue
            before = self.seen.setdefault(task.id, winner)
            if before != winner:
                # With a machine's disk the files on it are gone, and what made them runs in a new round.
                if self.plan.shape != "files":
                    self._say(f"{task.id}: {before} was acknowledged, and now {winner} is, says {node.name}")
                self.seen[task.id] = winner
        self.ended = state in ("succeeded", "failed", "cancelled")

    def judge(self, documents: Sequence[Task], job: Job, marks: Sequence[Mark]) -> None:
        """Holds the job's end against what was seen before, and against the marks."""
        if (job.state, job.tasks.succeeded, job.tasks.total) != (
            "succeeded",
            chaosplan.TASKS,
            chaosplan.TASKS,
        ):
            self._say(f"{job.state}: {job.tasks}")
        ended = {(one.key, one.attempt, one.host) for one in marks if one.kind == "ended"}
        for task in documents:
            winner = winner_of(task)
            wins = [one for one in task.attempts if one.state == "succeeded"]
            if winner is None or (len(wins) != 1 and self.plan.shape != "files"):
                self._say(
                    f"{task.id}: {task.state}, attempts {[(o.n, o.node, o.state) for o in task.attempts]}"
                )
                continue
            node, number = winner
            if (f"{self.job}:{task.id}", number, node) not in ended:
                self._say(f"{task.id}: attempt {number} on {node} is acknowledged, but never ended")

    def _say(self, what: str) -> None:
        self.problems.append(f"seed {self.plan.seed}, {self.job}: {what}")


@dataclass(frozen=True, slots=True)
class Mark:
    kind: str
    key: str
    attempt: int
    host: str
    slot: str


def winner_of(task: Task) -> Winner | None:
    wins = [one for one in task.attempts if one.state == "succeeded"]
    return (host_of(wins[-1].node), wins[-1].n) if task.state == "succeeded" and wins else None


def read_marks(folder: Path) -> list[Mark]:
    lines = [line.split() for line in (folder / "marks").read_text().splitlines()]
    return [Mark(kind, key, int(attempt), host, slot) for kind, key, attempt, host, slot in lines]


def oversubscribed(marks: Sequence[Mark]) -> list[str]:
    """Returns what began on a node all of whose slots were taken."""
    return [f"{one.host} ran {one.key} beside as many as it has slots" for one in marks if one.slot == "none"]


def left_over(mesh: Mesh, plans: Sequence[Plan]) -> list[str]:
    """Returns the processes of tasks that run on, and the results that are offered for ever."""
    found = []
    for name in NAMES:
        node = mesh.node(name)
        for nap in sorted({chaosplan.nap_of(plan) for plan in plans}):
            found += [f"{name}: `sleep {nap}` runs on as {pid}" for pid in node.pgrep(f"sleep {nap}")]
        for (job, owner), count in sorted(offered(node).items()):
            found.append(f"{name} still offers {owner} {count} results of {job}")
    return found


def offered(node: Node) -> collections.Counter[tuple[str, str]]:
    """Returns how many results rest in a machine's journal, by their job and whom they are for."""
    return collections.Counter((row.offer.job, key_text(row.owner)[:10]) for row in meshkit.results(node))


def said_badly(logs: Sequence[Path]) -> list[str]:
    """Returns what no agent may say, whatever befalls it."""
    counted: collections.Counter[str] = collections.Counter()
    for log in logs:
        text = log.read_text(errors="replace")
        counted.update({f"{log.name} says {word}": text.count(word) for word in BAD_WORDS if word in text})
    return sorted(counted)

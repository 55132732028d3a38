"""What of one job waits to be granted: in line, until a retry is due, until workers have spoken, or for
somebody who could run it.

There is a line for each kind of task, which is what it asks for and the group that it counts in: a task that
finds no room stands in the way of its own kind alone. Entries are never searched: a task that stopped being
READY is dropped when it is met. An entry carries the write that it waits for, the newest when its task became
ready, which is not older than those of all its needs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from meshpeer.core.deadline import Deadline
from meshpeer.core.ids import NodeId, TaskIndex, Ticket
from meshpeer.core.scheduler.fitting import PLAIN, Demand
from meshpeer.core.scheduler.ranked import Arrivals, Ranked

Entry = tuple[TaskIndex, Ticket | None]
Kind = tuple[Demand, str]
"""What a task asks for, and its concurrency group (empty for none)."""
PLAIN_KIND: Kind = (PLAIN, "")


@dataclass(slots=True, eq=False)
class Line:
    """The tasks of one kind, by priority."""

    demand: Demand
    group: str
    queue: Ranked[Entry]
    aside: bool = False
    """Nobody who is known could run these."""
    overtaken: int = 0
    """Tasks of later lines that were granted since the first of this one last found no room."""


class Backlog:
    """The READY tasks of one job."""

    __slots__ = (
        "_arrivals",
        "_is_ready",
        "_kind_of",
        "_lines",
        "_listen_until_s",
        "_priority_of",
        "_retries",
        "_suspects",
        "_withheld",
    )

    def __init__(
        self,
        is_ready: Callable[[TaskIndex], bool],
        kind_of: Callable[[TaskIndex], Kind] = lambda task: PLAIN_KIND,
        priority_of: Callable[[TaskIndex], int] = lambda task: 0,
    ) -> None:
        self._is_ready = is_ready
        self._kind_of = kind_of
        self._priority_of = priority_of
        self._lines: dict[Kind, Line] = {}
        self._arrivals = Arrivals()
        self._retries: list[tuple[float, TaskIndex]] = []
        self._withheld: list[TaskIndex] = []
        """After a restart: what may be held by workers that have not spoken yet."""
        self._suspects: set[NodeId] = set()
        self._listen_until_s = 0.0

    def __len__(self) -> int:
        return sum(len(line.queue) for line in self._lines.values() if not line.aside)

    def next_line(self, without: Collection[Line] = ()) -> Line | None:
        """Returns the line whose first is the next task to grant; of equal priority, who came first."""
        best: Line | None = None
        best_order: tuple[tuple[int, ...], int] | None = None
        for line in self._lines.values():
            if line.aside or line in without:
                continue
            order = line.queue.order()
            if order is not None and (best_order is None or order < best_order):
                best, best_order = line, order
        return best

    def first(self) -> Entry | None:
        """Returns the next task to grant, without taking it."""
        line = self.next_line()
        return line.queue.first() if line is not None else None

    def pop(self) -> None:
        line = self.next_line()
        if line is not None:
            line.queue.pop()

    def add(self, tasks: Iterable[TaskIndex], after: Ticket | None) -> None:
        for task in tasks:
            self._line(task).queue.add((task, after), (self._priority_of(task),))

    def add_first(self, task: TaskIndex, after: Ticket | None) -> None:
        self._line(task).queue.add_first((task, after), (self._priority_of(task),))

    def add_later(self, task: TaskIndex, at_s: float) -> None:
        """Keeps a failed task until its next attempt is due."""
        heapq.heappush(self._retries, (at_s, task))

    def look_again(self) -> None:
        """Takes up what nobody could run: a worker came, or has changed."""
        for line in self._lines.values():
            line.aside = False

    def withhold(self, tasks: Iterable[TaskIndex], suspects: Iterable[NodeId], until_s: float) -> None:
        """Keeps back what may be held already, until all suspects have spoken."""
        self._withheld = list(tasks)
        self._suspects = set(suspects)
        self._listen_until_s = until_s
        self._free_if_heard()

    def heard(self, node: NodeId) -> None:
        """Notes that a worker has said all that it holds."""
        if node in self._suspects:
            self._suspects.discard(node)
            self._free_if_heard()

    def tick(self, now_s: float, after: Ticket | None) -> None:
        while self._retries and self._retries[0][0] <= now_s:
            self.add((heapq.heappop(self._retries)[1],), after)
        if self._withheld and now_s >= self._listen_until_s:
            self._suspects.clear()
            self._free_if_heard()

    def next_deadline(self) -> Deadline | None:
        waits: list[Deadline] = []
        if self._retries:
            waits.append(Deadline(self._retries[0][0], "try a task again"))
        if self._withheld:
            waits.append(Deadline(self._listen_until_s, "stop listening for workers after a restart"))
        return min(waits, key=lambda one: one.at_s, default=None)

    def clear(self) -> None:
        self._lines.clear()
        self._retries.clear()
        self._withheld.clear()

    @property
    def suspects(self) -> tuple[NodeId, ...]:
        """Workers that are waited for after a restart, while anything is held back."""
        return tuple(sorted(self._suspects)) if self._withheld else ()

    def retry_at_s(self, task: TaskIndex) -> float | None:
        return next((at_s for at_s, one in self._retries if one == task), None)

    def tasks(self) -> set[TaskIndex]:
        """Returns everything that waits here."""
        in_line = {task for line in self._lines.values() for task, _ in line.queue.items()}
        return in_line | {task for _, task in self._retries} | set(self._withheld)

    def _free_if_heard(self) -> None:
        if not self._suspects:
            self.add((task for task in self._withheld if self._is_ready(task)), None)
            self._withheld.clear()

    def _line(self, task: TaskIndex) -> Line:
        kind = self._kind_of(task)
        line = self._lines.get(kind)
        if line is None:
            queue: Ranked[Entry] = Ranked(lambda entry: self._is_ready(entry[0]), self._arrivals)
            line = self._lines[kind] = Line(*kind, queue)
        return line

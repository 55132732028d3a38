"""What of one job waits to be granted: in line, until a retry is due, until workers have spoken, or for
width.

Entries are never searched: a task that stopped being READY is dropped when it is met. An entry carries the
write that it waits for, the newest when its task became ready, which is not older than those of all its
needs.
"""

from __future__ import annotations

import collections
import heapq
from collections.abc import Callable, Iterable

from meshpeer.core.deadline import Deadline
from meshpeer.core.ids import NodeId, TaskIndex, Ticket

Entry = tuple[TaskIndex, Ticket | None]


class Backlog:
    """The READY tasks of one job."""

    __slots__ = ("_is_ready", "_line", "_listen_until_s", "_retries", "_suspects", "_wide", "_withheld")

    def __init__(self, is_ready: Callable[[TaskIndex], bool]) -> None:
        self._is_ready = is_ready
        self._line: collections.deque[Entry] = collections.deque()
        self._retries: list[tuple[float, TaskIndex]] = []
        self._wide: list[Entry] = []
        """Wider than any worker with a link."""
        self._withheld: list[TaskIndex] = []
        """After a restart: what may be held by workers that have not spoken yet."""
        self._suspects: set[NodeId] = set()
        self._listen_until_s = 0.0

    def __len__(self) -> int:
        return len(self._line)

    def first(self) -> Entry | None:
        """Returns the next task to grant, without taking it."""
        while self._line:
            if self._is_ready(self._line[0][0]):
                return self._line[0]
            self._line.popleft()
        return None

    def pop(self) -> None:
        self._line.popleft()

    def add(self, tasks: Iterable[TaskIndex], after: Ticket | None) -> None:
        self._line.extend((task, after) for task in tasks)

    def add_first(self, task: TaskIndex, after: Ticket | None) -> None:
        self._line.appendleft((task, after))

    def add_later(self, task: TaskIndex, at_s: float) -> None:
        """Keeps a failed task until its next attempt is due."""
        heapq.heappush(self._retries, (at_s, task))

    def set_aside(self) -> None:
        """Takes the first out of the line: nobody is wide enough."""
        self._wide.append(self._line.popleft())

    def try_wide_again(self) -> None:
        """Puts wide tasks first in line: a worker came or grew."""
        self._line.extendleft(reversed(self._wide))
        self._wide.clear()

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
        self._line.clear()
        self._retries.clear()
        self._wide.clear()
        self._withheld.clear()

    @property
    def suspects(self) -> tuple[NodeId, ...]:
        """Workers that are waited for after a restart, while anything is held back."""
        return tuple(sorted(self._suspects)) if self._withheld else ()

    def retry_at_s(self, task: TaskIndex) -> float | None:
        return next((at_s for at_s, one in self._retries if one == task), None)

    def tasks(self) -> set[TaskIndex]:
        """Returns everything that waits here."""
        line = {task for task, _ in (*self._line, *self._wide)}
        return line | {task for _, task in self._retries} | set(self._withheld)

    def _free_if_heard(self) -> None:
        if not self._suspects:
            self.add((task for task in self._withheld if self._is_ready(task)), None)
            self._withheld.clear()

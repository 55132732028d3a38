"""The leases of one job: who holds which attempt, in the order in which it was granted, and when that runs
out.

A renewal only moves a number; when a lease comes due the heap looks whether it was renewed and, if so, files
it again. So renewing costs nothing per lease, and each lease is looked at once in ``LEASE_S``.
"""

from __future__ import annotations

import collections
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from meshpeer.core.deadline import Instant
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import JobId, NodeId, TaskIndex
from meshpeer.core.scheduler.fitting import Amounts
from meshpeer.core.scheduler.messages import Attempt
from meshpeer.core.scheduler.seats import Seats

LEASE_S = 15.0
"""A worker that does not name an attempt for this long has lost it; so long a restarted owner listens."""


@dataclass(slots=True)
class Lease:
    """A granted attempt."""

    attempt: Attempt
    node: NodeId
    amounts: Amounts
    """What its task takes (``fitting``)."""
    renewed_at_s: float
    running: bool = False
    stolen_from: NodeId | None = None
    started_us: int = 0
    running_since_s: float = 0.0
    """When its owner heard that it runs."""
    group: str = ""
    """The concurrency group that it counts in; empty for none."""
    token: bytes | None = None
    """The seal of the grant (``seals``); None where it is not known: taken up after a restart."""

    @property
    def task(self) -> TaskIndex:
        return TaskIndex(self.attempt.task)


class Leases:
    """All leases of one job, and what they weigh on the workers' seats."""

    __slots__ = (
        "_by_node",
        "_expiries",
        "_filed",
        "_job",
        "_seats",
        "by_task",
        "in_group",
        "running",
        "spared_until_s",
    )

    def __init__(self, job: JobId, seats: Seats) -> None:
        self.by_task: dict[TaskIndex, Lease] = {}
        self.in_group: collections.Counter[str] = collections.Counter()
        """Leases by concurrency group; those without one count under the empty name."""
        self.running = 0
        self.spared_until_s = -1e9
        """Until then no lease runs out."""
        self._job = job
        self._seats = seats
        self._by_node: dict[NodeId, dict[TaskIndex, Lease]] = {}
        self._expiries: list[tuple[float, int, TaskIndex, Attempt]] = []
        self._filed = 0

    def of_node(self, node: NodeId) -> list[Lease]:
        """Returns a worker's leases, oldest grant first."""
        return list(self._by_node.get(node, {}).values())

    def holders(self) -> list[NodeId]:
        """Returns the workers that have leases, in the order in which they first had one."""
        return [node for node, leases in self._by_node.items() if leases]

    def add(self, lease: Lease) -> None:
        self.by_task[lease.task] = lease
        self._by_node.setdefault(lease.node, {})[lease.task] = lease
        self._seats.take(lease.node, lease.amounts)
        self.in_group[lease.group] += 1
        self.running += lease.running
        self._file(lease)

    def release(self, lease: Lease) -> None:
        del self.by_task[lease.task]
        del self._by_node[lease.node][lease.task]
        self._seats.give_back(lease.node, lease.amounts)
        self.in_group[lease.group] -= 1
        self.running -= lease.running

    def hand_over(self, lease: Lease, node: NodeId) -> None:
        """Moves a lease from its victim to its thief."""
        del self._by_node[lease.node][lease.task]
        self._seats.give_back(lease.node, lease.amounts)
        lease.stolen_from, lease.node = lease.node, node
        self._by_node.setdefault(node, {})[lease.task] = lease
        self._seats.take(node, lease.amounts)

    def mark_running(self, lease: Lease, now: Instant) -> None:
        lease.running, lease.started_us = True, int(now.unix_s * 1e6)
        lease.running_since_s = now.mono_s
        self.running += 1

    def expired(self, now_s: float) -> Iterable[list[Lease]]:
        """Returns what ran out, per worker, oldest grant first; the caller releases it."""
        if now_s < self.spared_until_s:
            return []
        over: dict[NodeId, set[TaskIndex]] = {}
        while self._expiries and self._expiries[0][0] <= now_s:
            _, _, task, attempt = heapq.heappop(self._expiries)
            lease = self.by_task.get(task)
            if lease is None or lease.attempt != attempt:
                continue
            if lease.renewed_at_s + LEASE_S > now_s:
                self._file(lease)
            else:
                over.setdefault(lease.node, set()).add(task)
        return [[one for one in self.of_node(node) if one.task in tasks] for node, tasks in over.items()]

    def next_expiry_s(self) -> float | None:
        """Returns when to look next; None where there are no leases."""
        while self._expiries:
            at_s, _, task, attempt = self._expiries[0]
            lease = self.by_task.get(task)
            if lease is not None and lease.attempt == attempt:
                return max(at_s, self.spared_until_s)
            heapq.heappop(self._expiries)
        return None

    def _file(self, lease: Lease) -> None:
        self._filed += 1
        entry = (lease.renewed_at_s + LEASE_S, self._filed, lease.task, lease.attempt)
        heapq.heappush(self._expiries, entry)

    def check(self) -> None:
        """Raises ``InvariantBroken`` where the tables disagree, or a lease would never run out."""
        spread = {task: node for node, leases in self._by_node.items() for task in leases}
        if spread != {task: lease.node for task, lease in self.by_task.items()}:
            raise InvariantBroken(f"{self._job}: leases by node {spread} are not the leases")
        if self.running != sum(lease.running for lease in self.by_task.values()):
            raise InvariantBroken(f"{self._job}: {self.running} running tasks counted, leases say otherwise")
        if +self.in_group != collections.Counter(one.group for one in self.by_task.values()):
            raise InvariantBroken(f"{self._job}: leases by group are not {self.in_group}")
        filed = {(task, attempt) for _, _, task, attempt in self._expiries}
        if unfiled := [one for one in self.by_task.values() if (one.task, one.attempt) not in filed]:
            raise InvariantBroken(f"{self._job}: leases that never run out: {unfiled}")

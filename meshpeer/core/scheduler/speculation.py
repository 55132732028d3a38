"""Speculation: a second attempt beside one that takes far longer than its like, while slots stand idle.

Only at the tail, where nothing waits to be granted: before that a free slot has better work. Like are the
tasks of one row of the job's graph, and far longer is twice the median of those that have ended
(Dean, Ghemawat, "MapReduce", OSDI 2004, section 3.6, gives backup tasks to whatever is left). The first
result counts and the other attempt is stopped. If the first attempt fails or is lost, the second takes its
place.
"""

from __future__ import annotations

import collections
import statistics
from collections.abc import Collection

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import JobId, NodeId, TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.scheduler.leases import Lease, Leases
from meshpeer.core.scheduler.messages import Attempt, Offer
from meshpeer.core.scheduler.seats import Seats

SLOW_FACTOR = 2.0
SLOW_LEAST_S = 2.0
"""No attempt is taken for slow before this: a second one takes time to get going, too."""
SAMPLES_MIN, SAMPLES_MAX = 3, 33
"""Ended tasks of a row: from how many on their median counts, and of how many of the last it is taken."""
LOOK_S = 1.0
LOOKED_AT_MAX = 256
"""Attempts that are looked at each time."""


class Speculation:
    """The second attempts of one job. Which task gets one is decided here; granting it is the owner's."""

    def __init__(self, job: JobId, graph: Graph, seats: Seats) -> None:
        self.leases = Leases(job, seats)
        """Of second attempts; each has a first beside it."""
        self._graph = graph
        self._took_s: dict[int, collections.deque[float]] = {}
        self._look_at_s = 0.0

    def learn(self, offer: Offer) -> None:
        """Notes how long a task took that succeeded."""
        if offer.succeeded and offer.started_us:
            row = self._graph.row_of(TaskIndex(offer.attempt.task))
            took = self._took_s.setdefault(row, collections.deque(maxlen=SAMPLES_MAX))
            took.append(max(0, offer.finished_us - offer.started_us) / 1e6)

    def of(self, task: TaskIndex) -> Lease | None:
        return self.leases.by_task.get(task)

    def slow(self, first: Leases, now: Instant, *, idle: bool) -> list[Lease]:
        """Returns the attempts that take too long and have none beside them, the oldest grants first;
        nothing before it is time to look again, and nothing where the owner could not grant it, which is not
        to look again at once either."""
        if now.mono_s < self._look_at_s:
            return []
        self._look_at_s = now.mono_s + LOOK_S
        if not idle:
            return []
        looked_at = list(first.by_task.values())[:LOOKED_AT_MAX]
        return [one for one in looked_at if self.of(one.task) is None and self._is_slow(one, now.mono_s)]

    def next_deadline(self, first: Leases) -> Deadline | None:
        """Returns when to look, as long as attempts run whose like have ended."""
        if not first.running or not self._took_s:
            return None
        return Deadline(self._look_at_s, "look for attempts that take too long")

    def drop(self, node: NodeId, but: Collection[Attempt] = ()) -> list[Lease]:
        """Takes back what a worker has, but what it names; returns it."""
        dropped = [one for one in self.leases.of_node(node) if one.attempt not in but]
        for lease in dropped:
            self.leases.release(lease)
        return dropped

    def expire(self, now_s: float) -> list[Lease]:
        """Takes back what ran out; returns it."""
        dropped = [lease for part in self.leases.expired(now_s) for lease in part]
        for lease in dropped:
            self.leases.release(lease)
        return dropped

    def take(self, task: TaskIndex) -> Lease | None:
        """Releases the second attempt of a task, if there is one, and returns it."""
        lease = self.of(task)
        if lease is not None:
            self.leases.release(lease)
        return lease

    def _is_slow(self, lease: Lease, now_s: float) -> bool:
        spec = self._graph.spec_of(lease.task)
        # A service may be at it in good order for long, and a second call costs it as much again. A group
        # bounds how many run at once.
        if not lease.running or not spec.speculate or spec.webhook is not None or spec.group:
            return False
        took_s = self._took_s.get(self._graph.row_of(lease.task), ())
        if len(took_s) < SAMPLES_MIN:
            return False
        return now_s - lease.running_since_s > max(SLOW_LEAST_S, SLOW_FACTOR * statistics.median(took_s))

    def check(self, first: Leases) -> None:
        """Raises ``InvariantBroken`` where a second attempt has no first beside it, on another node."""
        self.leases.check()
        for task, lease in self.leases.by_task.items():
            other = first.by_task.get(task)
            if other is None or other.attempt == lease.attempt:
                raise InvariantBroken(f"{lease} is second to {other}")

"""Turns: which of an owner's jobs is granted from next, where several wait.

Submitters in turn by what was granted to each; of one submitter the job of the highest priority, and among
equal ones whoever was granted least. One turn in ``ELDEST_EVERY`` goes to the job that came first.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.scheduler.fairness import Shares
from meshpeer.core.scheduler.messages import SchedulerEffect
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.ranked import ELDEST_EVERY

QUANTUM = 16
"""Slots' worth of tasks that a job is granted in one turn."""


class Turns:
    """Of one owner."""

    __slots__ = ("_count", "_jobs", "_submitters")

    def __init__(self) -> None:
        self._submitters: Shares[NodeId] = Shares()
        self._jobs: Shares[JobId] = Shares()
        self._count = 0

    def come(self, owner: JobOwner) -> None:
        """Notes a new job."""
        self._submitters.come(owner.record.submitter)
        self._jobs.come(owner.job)

    def dispatch(self, owners: Iterable[JobOwner], now: Instant) -> list[SchedulerEffect]:
        """Grants what there is room for, to the jobs in turn; ``owners`` come in order of age."""
        effects: list[SchedulerEffect] = []
        waiting = [owner for owner in owners if owner.backlog]
        while waiting:
            owner = self._next(waiting)
            before = owner.granting.granted
            effects += owner.dispatch(now, most=QUANTUM)
            granted = owner.granting.granted - before
            if granted:
                self._count += 1
                self._submitters.serve(owner.record.submitter, granted)
                self._jobs.serve(owner.job, granted)
            if not granted or not owner.backlog:
                waiting.remove(owner)
        return effects

    def _next(self, waiting: list[JobOwner]) -> JobOwner:
        if self._count % ELDEST_EVERY == ELDEST_EVERY - 1:
            return waiting[0]
        return min(
            waiting,
            key=lambda one: (
                self._submitters.time_of(one.record.submitter),
                -one.priority,
                self._jobs.time_of(one.job),
            ),
        )

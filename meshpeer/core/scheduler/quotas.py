"""Quotas: what a node gives to the jobs of one submitter, by its own settings.

Three bounds, each for one submitter on this node: slots at once, open tasks of jobs that this node owns or
keeps, and bytes of the files that came with those. Nobody adds up what a submitter has of the whole mesh:
each node gives what is its own to give. An owner that is to have fewer slots here is told of these alone
(``Capacity``): its tasks wait, and say why, as for a smaller node. Tasks of a submitter whose job another
node owns are held back where they are started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.jobs.check import tasks_after_expansion
from meshpeer.core.jobs.model import JobSpec
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.replicas import Copy
from meshpeer.core.scheduler.tables import COMMITTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one submitter may have of this node; 0 for no bound."""

    slots: int = 0
    """At once."""
    tasks: int = 0
    """That have not ended."""
    bytes: int = 0
    """Of the files that its open jobs brought along."""

    def cap(self, slots: int) -> int:
        """Returns how many of a node's slots that are."""
        return min(slots, self.slots) if self.slots else slots


BOUNDLESS = Quota()
QuotaOf = Callable[[NodeId], Quota]


def boundless(submitter: NodeId) -> Quota:
    """Bounds nobody."""
    return BOUNDLESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """What a job would bring a submitter above its quota by."""

    what: str
    """``tasks`` or ``bytes``."""
    most: int
    there: int
    more: int


def excess_of(
    submitter: NodeId,
    spec: JobSpec,
    quota: Quota,
    owned: Mapping[JobId, JobOwner],
    copies: Mapping[JobId, Copy],
) -> Excess | None:
    """Returns what a new job would exceed, by the jobs that this node owns and keeps; None where it fits."""
    if not (quota.tasks or quota.bytes):
        return None
    tasks = size = 0
    for owner in owned.values():
        if owner.record.submitter == submitter and not owner.finished:
            tasks += len(owner.states) - sum(owner.counts[state] for state in COMMITTED)
            size += size_of(owner.record.spec)
    for job, copy in copies.items():
        if copy.record.submitter == submitter and not copy.over and not copy.is_let_go and job not in owned:
            decided = sum(row.decided for row in copy.acceptor.rows.values())
            tasks += max(0, tasks_after_expansion(copy.record.spec.tasks) - decided)
            size += size_of(copy.record.spec)
    for what, most, there, more in (
        ("tasks", quota.tasks, tasks, tasks_after_expansion(spec.tasks)),
        ("bytes", quota.bytes, size, size_of(spec)),
    ):
        if most and there + more > most:
            return Excess(what=what, most=most, there=there, more=more)
    return None


def size_of(spec: JobSpec) -> int:
    """Returns the bytes of a job's files, each content once."""
    return sum({file.digest: file.size for file in spec.files}.values())

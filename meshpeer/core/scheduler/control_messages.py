"""What people ask of a job, or of this node, while it works."""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.ids import JobId, NodeId, TaskIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseAsked:
    """A person wants nothing more of this owned job started, or (``paused`` false) that it goes on."""

    job: JobId
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityAsked:
    """A person gives this owned job another priority."""

    job: JobId
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAsked:
    """A person wants failed tasks of this owned job run again, and what was skipped because of them."""

    job: JobId
    tasks: tuple[TaskIndex, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainAsked:
    """A person wants that this node takes no work, or (``drained`` false) that it does again."""

    drained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkWanted:
    """A person asks this member something: a link to it is opened where there is none."""

    peer: NodeId


ControlEvent = PauseAsked | PriorityAsked | RetryAsked | DrainAsked | LinkWanted

"""What a node keeps of the files of jobs, and what goes when it holds more than it may.

A file is *pinned* as long as anybody may need it from here: the inputs of an attempt that is staged or runs,
what was made for a job that is open, results of a job that is over for as long as the settings say. The rest
is a cache, and the least recently used goes first. Pinned files never go: where they alone are more than the
cap, the plan says by how much, and the disk's own end is what bounds them then (``StoreFailed``).

Pure: who pins, where files stand and when one was used is the caller's to know.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from meshpeer.core.ids import Digest, JobId, NodeId

LOW_WATER = 7 / 8
"""Down to this part of the cap where it takes no more than small files, so that not every further one makes
room anew."""


class Use(enum.Enum):
    """What a job has a file for. Values are what stands in the lists of a job's files."""

    WORK = "work"
    """Inputs, and outputs that other tasks of the job need: until the job is over."""
    RESULT = "result"
    """What people come for, outputs that no task needs and logs: for a while after that, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedFile:
    """One file as it stands there, or the beginning of one (``partial``)."""

    digest: Digest
    size: int
    used_s: float
    """When it was last used, in Unix seconds."""
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """What is to go, and what that comes to."""

    drop: tuple[CachedFile, ...]
    """The least recently used first."""
    bytes_left: int
    bytes_pinned: int
    short_bytes: int
    """What is wanting still, since the rest is pinned."""


@dataclass(slots=True)
class JobFiles:
    """What this node holds for one job."""

    job: JobId
    owner: NodeId
    over_s: float | None = None
    """When it ended, in Unix seconds; None as long as its owner has not said so."""
    files: dict[Digest, Use] = field(default_factory=dict)
    keep_s: int = 0
    """How long the job wants its results to stay; 0 for as long as the node says."""

    def needed(self, now_s: float, results_s: float) -> Iterable[Digest]:
        """Yields what is pinned for the job; ``results_s`` is how long results stay when it is over."""
        if self.over_s is None:
            yield from self.files
        elif now_s < self.over_s + results_s:
            yield from (digest for digest, use in self.files.items() if use is Use.RESULT)

    def is_done_with(self, now_s: float, results_s: float) -> bool:
        """Says whether nothing is pinned for it any more, nor will be."""
        return self.over_s is not None and now_s >= self.over_s + results_s


def plan_eviction(
    files: Iterable[CachedFile],
    is_pinned: Callable[[Digest], bool],
    *,
    bytes_max: int,
    bytes_wanted: int = 0,
) -> Eviction:
    """Returns what is to go so that files of ``bytes_wanted`` more fit below the cap of ``bytes_max``."""
    free: list[CachedFile] = []
    pinned = left = 0
    for one in files:
        left += one.size
        if is_pinned(one.digest):
            pinned += one.size
        else:
            free.append(one)
    most = bytes_max - bytes_wanted
    drop: list[CachedFile] = []
    if left > most:
        free.sort(key=lambda one: (one.used_s, one.digest, one.partial))
        goal = most * LOW_WATER
        for one in free:
            if left <= goal or (left <= most and left - one.size < goal):
                break
            drop.append(one)
            left -= one.size
    return Eviction(drop=tuple(drop), bytes_left=left, bytes_pinned=pinned, short_bytes=max(0, left - most))


def owners_to_ask(jobs: Iterable[JobFiles], me: NodeId) -> Mapping[NodeId, tuple[JobId, ...]]:
    """Returns whom to ask whether which jobs are over."""
    asked: dict[NodeId, list[JobId]] = {}
    for one in jobs:
        if one.over_s is None and one.owner != me:
            asked.setdefault(one.owner, []).append(one.job)
    return {owner: tuple(ids) for owner, ids in asked.items()}

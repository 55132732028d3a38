"""What replicas say to each other besides votes (``consensus.messages``): who has a job's record, and who
owns it now."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.consensus.messages import FRAMES as CONSENSUS_FRAMES
from meshpeer.core.scheduler.consensus.values import Ballot


class RecordWanted(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.wanted"):
    """A replica was written to and has neither the job's record nor its files."""

    job: JobId


class RecordShown(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.record"):
    """The owner's answer: the signed record, by content."""

    job: JobId
    digest: Digest
    size: int


class ReplicaReady(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.ready"):
    """A replica has the record and the job's files on disk, and votes from here on."""

    job: JobId


class ReplicaRefused(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.refused"):
    """The sender is to be a replica and will not, or can't for now."""

    job: JobId
    reason: str


class Owns(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.owns"):
    """The sender owns this job now: whoever has anything of it is to say so."""

    job: JobId
    generation: int
    ballot: Ballot
    digest: Digest = Digest(b"")
    """The job's signed record, by content: the job may have got replicas since it was granted from. Empty
    from an earlier version."""
    size: int = 0


FRAMES = (*CONSENSUS_FRAMES, RecordWanted, RecordShown, ReplicaReady, ReplicaRefused, Owns)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchReplica:
    """Get a job's signed record and all its files from a node, check the record, and report
    ``ReplicaFetched`` once they are on disk, else ``ReplicaUnfetched``."""

    job: JobId
    digest: Digest
    size: int
    holder: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFetched:
    """A job's record, which holds, and its files are on this node's disk."""

    record: JobRecord
    signed: bytes
    digest: Digest
    holder: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaUnfetched:
    """The record or a file can't be had, or does not hold."""

    job: JobId
    reason: str
    refused: bool = False
    """It was judged, by this node's rules or anybody's: asked again at once, it would be the same."""

"""What owners, workers and thieves say to each other, what happens to them, and what they want done.

An attempt is named by job, task, round, number and node. The number tells attempts of a round apart; the
round tells results apart
after outputs were lost. Grants name a job by the digest of its signed record; a worker that does not hold it
fetches it once.

Inputs: a grant lists, for each needed task, the *manifest* of its outputs (a blob holding ``list[FileRef]``
in CBOR) and who
holds manifest and files. More than ``INPUTS_INLINE_MAX`` of them travel as a blob that the owner holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from meshpeer.core.effects import Note, Persist, Persisted, Send, Tick
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.model import JobRecord

INPUTS_INLINE_MAX = 64
GRANT_BYTES_MAX = 40 * 1024


class Epoch(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A fence: a counter and who raised it. The higher epoch is the job's present owner."""

    counter: int
    node: NodeId


class Blob(msgspec.Struct, frozen=True, array_like=True):
    digest: Digest
    size: int


class Input(msgspec.Struct, frozen=True, array_like=True):
    """One needed task's outputs: their manifest, where they go, and who holds them."""

    task: int
    manifest: Blob
    holder: NodeId
    into: str = ""


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """An attempt within a job, without its node."""

    task: int
    round: int
    number: int


class Granted(msgspec.Struct, frozen=True, array_like=True):
    attempt: Attempt
    inputs: tuple[Input, ...] = ()
    inputs_blob: Blob | None = None
    """Where there are too many to list: a blob of ``list[Input]``, held by the owner."""


# --- frames -------------------------------------------------------------------------------------------------


class Capacity(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.capacity"):
    """Said on every new link: how many tasks the sender runs at once, and which run of its agent this is."""

    slots: int
    accepting: bool
    boot: bytes


class Grant(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.grant"):
    """The owner (or, handed over, a victim) gives attempts to a worker."""

    job: JobId
    owner: NodeId
    epoch: Epoch
    record: Blob
    tasks: tuple[Granted, ...]
    stolen_from: NodeId | None = None


class Renew(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.renew"):
    """One message per (worker, owner) renews all leases: what the worker holds of this job."""

    job: JobId
    held: tuple[Attempt, ...]
    running: tuple[Attempt, ...]
    stolen_from: tuple[tuple[Attempt, NodeId], ...] = ()


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.stop"):
    """The owner has no use for these attempts any more; empty: for any of the job."""

    job: JobId
    attempts: tuple[Attempt, ...]
    reason: str


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.lost"):
    """The worker will not bring these attempts to an end: declined, unstageable, or given away in vain."""

    job: JobId
    attempts: tuple[Attempt, ...]
    reason: str
    missing: tuple[int, ...] = ()
    """Needed tasks whose outputs nobody could give."""


class Offer(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.offer"):
    """A stored result, offered until it is acknowledged."""

    job: JobId
    attempt: Attempt
    succeeded: bool
    exit_code: int | None
    error: str
    started_us: int
    finished_us: int
    stdout: Blob
    stderr: Blob
    manifest: Blob
    outputs: int
    """How many files the manifest lists."""


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.ack"):
    """The owner has this result, or another one, on disk for good: forget it."""

    job: JobId
    attempt: Attempt


class StealRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.steal"):
    """The sender has idle slots. ``wait``: push when there is more (a lifeline), where there is nothing
    now."""

    slots: int
    wait: bool


class StealNone(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.none"):
    """Nothing to spare."""


class Taken(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.taken"):
    """The thief has these attempts now."""

    job: JobId
    attempts: tuple[Attempt, ...]


FRAMES = (Capacity, Grant, Renew, Stop, Lost, Offer, Ack, StealRequest, StealNone, Taken)

# --- events -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerView:
    node: NodeId
    alive: bool
    linked: bool
    region: str
    dead: bool = False
    """Not merely suspected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersChanged:
    peers: tuple[PeerView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerUp:
    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDown:
    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived:
    peer: NodeId
    message: msgspec.Struct


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmitted:
    """A client's job: checked, signed, its files and its record stored as blobs here."""

    record: JobRecord
    signed: bytes
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAsked:
    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLearned:
    """The job's record came and its signature and its submitter's right hold."""

    job: JobId
    record: JobRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRefused:
    """The record can't be had or does not hold, or this node's own rules say no."""

    job: JobId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRunning:
    job: JobId
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    offer: Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptUnstageable:
    """The attempt never ran: an input could not be had, or this machine can't run it."""

    job: JobId
    attempt: Attempt
    reason: str
    missing: tuple[int, ...] = ()


SchedulerEvent = (
    Tick
    | Persisted
    | PeersChanged
    | PeerUp
    | PeerDown
    | MessageReceived
    | JobSubmitted
    | CancelAsked
    | JobLearned
    | JobRefused
    | AttemptRunning
    | AttemptFinished
    | AttemptUnstageable
)

# --- effects ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchJob:
    """Get the signed record from one of the holders, check it, and report ``JobLearned`` or
    ``JobRefused``."""

    job: JobId
    record: Blob
    holders: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAttempt:
    """Stage the inputs, run, store the outputs, and report."""

    job: JobId
    record: JobRecord
    owner: NodeId
    granted: Granted


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAttempt:
    """End it: SIGTERM, after a grace SIGKILL. No report is expected."""

    job: JobId
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBlob:
    """Keep this content; grants name it."""

    digest: Digest
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanged:
    """Somebody who watches this job should look again."""

    job: JobId


SchedulerEffect = Send | Persist | Note | FetchJob | StartAttempt | StopAttempt | StoreBlob | JobChanged

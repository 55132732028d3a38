"""What owners, workers and thieves say to each other, what happens to them, and what they want done.

An attempt is named by job, task, round, number and node. The number tells attempts of a round apart; the
round tells results apart after outputs were lost; the node is whoever holds it, and changes when it is
stolen. Every word about a job carries the job's generation and the epoch of its owner: a lower pair is out of
date. ``Epoch`` names the owner, so a message never says who owns a job in two ways.

Inputs: a grant lists, for each needed task with outputs, the *manifest* of its outputs (a blob that holds
``tuple[FileRef, ...]`` in canonical CBOR), the folder they go to, and who holds manifest and files. More than
``INPUTS_INLINE_MAX`` of them travel as a blob of ``tuple[Input, ...]`` that the owner holds. Who stages
fetches that blob from the owner, each manifest from its holder, each file from the same holder, and the job's
own files from the owner. Two inputs that end at one path are a failure of the attempt (``AttemptFinished``),
not of this machine; what can't be fetched is ``AttemptUnstageable`` with the needed task in ``missing``, and
what this machine can't do (disk full) is ``AttemptUnstageable`` with none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.effects import Note, Persist, Send, Tick
from meshpeer.core.ids import Digest, JobId, NodeId, Ticket
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler import replica_messages
from meshpeer.core.scheduler.control_messages import ControlEvent
from meshpeer.core.scheduler.replica_messages import FetchReplica, ReplicaFetched, ReplicaUnfetched
from meshpeer.core.scheduler.webhook_messages import WebhookEffect, WebhookEvent

INPUTS_INLINE_MAX = 64
"""Inputs of one task that a grant lists itself."""
GRANT_BYTES_MAX = 40 * 1024
"""What the tasks of one grant may take, estimated; a frame holds 64 KiB."""
RENEW_BYTES_MAX = 40 * 1024
"""What one renewal may take, estimated."""
ATTEMPTS_MAX = 4_000
"""Attempts that one ``Lost`` names, at 11 bytes each at most."""
REASON_LENGTH_MAX = 300
SLOTS_MAX = 4_096
"""Slots that a worker is taken to have at most, whatever it says."""


class Epoch(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A fence: a counter and who raised it. The higher epoch is the job's present owner."""

    counter: int
    node: NodeId


class Blob(msgspec.Struct, frozen=True, array_like=True):
    """A blob by content."""

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
    """One attempt as it is granted."""

    attempt: Attempt
    inputs: tuple[Input, ...] = ()
    inputs_blob: Blob | None = None
    """Where there are too many to list: a blob of ``tuple[Input, ...]``, held by the owner."""
    seal: bytes = b""
    """The owner's signature on all of the above (``seals``): a thief takes nothing without it."""
    input_bytes: int = 0
    """What its inputs come to; a hint for those who move it, which the seal does not cover."""


class Stolen(msgspec.Struct, frozen=True, array_like=True):
    """An attempt and whom its holder took it from."""

    attempt: Attempt
    victim: NodeId
    seal: bytes = b""
    """Of the grant: who shows it was given the attempt by somebody who had it."""


class Held(msgspec.Struct, frozen=True, array_like=True):
    """What a worker has of one job."""

    job: JobId
    generation: int
    epoch: Epoch
    open: tuple[Attempt, ...] = ()
    """Queued, staging, running, or handed over to a thief that has not confirmed."""
    running: tuple[Attempt, ...] = ()
    """Those of ``open`` that run."""
    offered: tuple[Attempt, ...] = ()
    """Ended, stored, and not acknowledged yet."""
    stolen: tuple[Stolen, ...] = ()


# --- frames ----------------------------------------------------------------------------------------------


class Capacity(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.capacity"):
    """Said on every new link: what the sender has for tasks, and which run of its agent this is."""

    slots: int
    accepting: bool
    boot: bytes
    drained: bool = False
    """It takes no work because somebody said so."""
    memory_bytes: int = 0
    """Of all tasks together; 0 where it doesn't say."""
    resources: tuple[tuple[str, int], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    python: str = ""
    """What runs functions there (``fitting.Profile.python``)."""
    store: bytes = b""
    """The id of the sender's journal: what it votes from as a replica. Empty for one that is none."""


class Grant(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.grant"):
    """The owner (or, handing over, a victim) gives attempts to a worker."""

    job: JobId
    generation: int
    epoch: Epoch
    record: Blob
    tasks: tuple[Granted, ...]
    stolen_from: NodeId | None = None

    @property
    def owner(self) -> NodeId:
        return self.epoch.node


class Renew(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.renew"):
    """One message per worker and owner renews every lease: what the worker has of the owner's jobs."""

    jobs: tuple[Held, ...]
    boot: bytes
    whole: bool
    """All that the worker has of this owner: what it does not name, it has not. Said first on every link."""
    of: JobId | None = None
    """All of this job alone, said when its owner is a new one. None: of all jobs of this owner."""


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.stop"):
    """The owner has no use for these attempts; none named: for any of the job. Stored results stay."""

    job: JobId
    generation: int
    epoch: Epoch
    attempts: tuple[Attempt, ...]
    reason: str


class Recall(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.recall"):
    """The owner wants back what waits at a worker; what runs there goes on.

    A frame of its own rather than a kind of ``Stop``: a worker of an earlier version skips it and starts what
    it had queued, where it would have ended what runs.
    """

    job: JobId
    generation: int
    epoch: Epoch
    attempts: tuple[Attempt, ...]


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.lost"):
    """The worker will not bring these attempts to an end."""

    job: JobId
    generation: int
    epoch: Epoch
    attempts: tuple[Attempt, ...]
    reason: str
    declined: bool = False
    """It takes nothing of this job; else it could not run these."""
    missing: tuple[int, ...] = ()
    """Needed tasks whose outputs it could get from nobody."""
    recalled: bool = False
    """The owner asked for them."""


class Offer(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.offer"):
    """A stored result, offered until it is acknowledged.

    Who performs the attempt fills in what came of it; the worker adds generation, epoch and node.
    """

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
    output_bytes: int = 0
    """What these come to; 0 where it isn't said."""
    generation: int = 1
    epoch: Epoch | None = None
    """The owner's epoch as the worker knew it."""
    node: NodeId | None = None
    """Who ran it and holds the blobs."""
    seal: bytes = b""
    """Of the grant, where the attempt was stolen: its owner may not have heard of that yet."""


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.ack"):
    """The owner has this result, or another one, on disk for good: forget it."""

    job: JobId
    generation: int
    epoch: Epoch
    attempt: Attempt
    superseded: bool = False
    """Another result was first, or the round is over."""


class Unknown(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.unknown"):
    """The sender does not own this job (any more)."""

    job: JobId
    ended: bool = False
    """A replica that knows its end says so: nobody takes a result of it any more."""


class StealRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.steal"):
    """The sender has idle slots."""

    idle: int
    width: int
    """Its slots in all: wider tasks are of no use to it."""
    wait: bool
    """Push when there is more (a lifeline), where there is nothing now."""
    free: tuple[tuple[str, int], ...] = ()
    """What is idle of everything but slots."""
    without: tuple[NodeId, ...] = ()
    """Submitters of whose tasks the sender has as many as it may run at once."""


class StealNone(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.none"):
    """Nothing to spare."""


class Taken(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.taken"):
    """The thief has these attempts now."""

    job: JobId
    attempts: tuple[Attempt, ...]


FRAMES = (
    Capacity,
    Grant,
    Renew,
    Stop,
    Recall,
    Lost,
    Offer,
    Ack,
    Unknown,
    StealRequest,
    StealNone,
    Taken,
    *replica_messages.FRAMES,
)

# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerView:
    """What membership holds of a peer."""

    node: NodeId
    alive: bool
    linked: bool
    region: str
    dead: bool = False
    """Not merely suspected."""
    name: str = ""
    roles: tuple[str, ...] = ()
    rtt_s: float = 0.0
    """How long a message there and back takes; 0 where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersChanged:
    """All peers, as they are now."""

    peers: tuple[PeerView, ...]
    name: str = ""
    """What this node is called; empty where that is as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerUp:
    """A link to this peer opened (or took the place of another)."""

    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDown:
    """There is no link to this peer any more."""

    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRevoked:
    """This peer is shut out for good: what it runs runs elsewhere, what runs for it is of no use. This node
    itself: all others are out of its reach."""

    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived:
    """One of ``FRAMES`` came, from a peer or from this node itself."""

    peer: NodeId
    message: msgspec.Struct


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmitted:
    """A client's job: checked, signed, its files and its record stored as blobs here."""

    record: JobRecord
    signed: bytes
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSignedAnew:
    """An open job has another record, signed and stored here: with replicas, or of the next generation."""

    record: JobRecord
    signed: bytes
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAsked:
    """A person wants this owned job ended."""

    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLearned:
    """The job's record came, and its signature and its submitter's right hold."""

    job: JobId
    record: JobRecord
    blob: Blob | None = None
    """What was fetched. None: what was asked for last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRefused:
    """The record can't be had or does not hold, or this node's own rules say no."""

    job: JobId
    reason: str
    blob: Blob | None = None
    """What was to be fetched. None: what was asked for last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRunning:
    """Its inputs are staged, its process runs."""

    job: JobId
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """It ended, well or badly, and what it made is stored."""

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
    | PeersChanged
    | PeerUp
    | PeerDown
    | PeerRevoked
    | MessageReceived
    | JobSubmitted
    | JobSignedAnew
    | CancelAsked
    | JobLearned
    | JobRefused
    | AttemptRunning
    | AttemptFinished
    | AttemptUnstageable
    | ReplicaFetched
    | ReplicaUnfetched
    | ControlEvent
    | WebhookEvent
)

# --- effects ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchJob:
    """Get the signed record from one of the holders, check it, report ``JobLearned`` or ``JobRefused``."""

    job: JobId
    record: Blob
    holders: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAttempt:
    """Stage the inputs, run, store the outputs, and report."""

    job: JobId
    record: JobRecord
    graph: Graph = field(compare=False, repr=False)
    """Of the record: made once where the worker learnt it."""
    owner: NodeId
    granted: Granted


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAttempt:
    """End it: SIGTERM, after a grace SIGKILL. No report is expected; one that comes is ignored."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SignJob:
    """Sign the record of a job of this node's anew, store it, and report ``JobSignedAnew``."""

    record: JobRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class JobForgotten:
    """A job that is long over is forgotten here, once that is on disk: its files may go."""

    job: JobId
    after: Ticket


SchedulerEffect = (
    Send
    | Persist
    | Note
    | FetchJob
    | StartAttempt
    | StopAttempt
    | StoreBlob
    | JobChanged
    | JobForgotten
    | SignJob
    | FetchReplica
    | WebhookEffect
)


def recalls(record: JobRecord, epoch: Epoch, attempts: tuple[Attempt, ...]) -> Iterator[Recall]:
    """Yields what calls attempts back, as many to a frame as may be."""
    for first in range(0, len(attempts), ATTEMPTS_MAX):
        part = attempts[first : first + ATTEMPTS_MAX]
        yield Recall(job=record.job, generation=record.generation, epoch=epoch, attempts=part)


def batches(tasks: Iterable[Granted]) -> Iterator[tuple[Granted, ...]]:
    """Splits what is granted into what one frame holds: an input takes about 90 bytes plus its folder."""
    batch: list[Granted] = []
    size = 0
    for granted in tasks:
        cost = 160 + sum(100 + 4 * len(one.into) for one in granted.inputs)
        if batch and size + cost > GRANT_BYTES_MAX:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(granted)
        size += cost
    if batch:
        yield tuple(batch)

"""What leaders and replicas say to each other, and what they want done.

Every answer names the replica that gives it; a leader counts no others. A question about rows is answered in
pages, since all rows of a large job do not fit a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from meshpeer.core.ids import JobId, NodeId, Ticket
from meshpeer.core.scheduler.consensus.values import Ballot, Key, Membership, Replica, Row, Vote, Written

PAGE_BYTES_MAX = 40 * 1024
"""Rows of one message, estimated; a frame holds 64 KiB."""
ROW_OVERHEAD_BYTES = 112
"""What a row takes besides its value: its stamp, above all."""
FIRST: Key = (-2, 0)
"""Where the first page begins: no register comes before it, so that a promise shows them all."""


class Prepare(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.prepare"):
    """A candidate asks for a replica's promise, and for the rows from ``start`` on."""

    job: JobId
    generation: int
    ballot: Ballot
    membership: Membership
    """As the candidate knows it: a replica that missed its own admission learns it here."""
    told_by: Ballot
    start: Key = FIRST


class Promise(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.promise"):
    """A replica will answer no lower ballot; one page of its rows."""

    job: JobId
    generation: int
    ballot: Ballot
    replica: Replica
    membership: Membership
    told_by: Ballot
    start: Key
    rows: tuple[Written, ...]
    next: Key | None
    """Where the next page begins; None behind the last."""


class Accept(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.accept"):
    """A leader writes a batch of rows, or, with none, says that it is there."""

    job: JobId
    generation: int
    ballot: Ballot
    membership: Membership
    sequence: int
    """Which batch; 0 for a mere sign of life."""
    beat: int
    """Which sign of life this is, for the answer to name."""
    rows: tuple[Row, ...] = ()


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.accepted"):
    """A replica has a batch on disk, and the membership that came with it."""

    job: JobId
    generation: int
    ballot: Ballot
    replica: Replica
    sequence: int
    beat: int
    membership: int
    """The number of the membership that the replica goes by."""


class Denied(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.denied"):
    """A replica has promised a higher ballot, or knows of a later generation."""

    job: JobId
    generation: int
    ballot: Ballot
    """The one that was refused."""
    promised: Ballot
    promised_generation: int


ConsensusFrame = Prepare | Promise | Accept | Accepted | Denied
FRAMES = (Prepare, Promise, Accept, Accepted, Denied)

# --- effects ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Writes a replica's promise and rows in one transaction, under this ticket."""

    ticket: Ticket
    vote: Vote
    rows: tuple[Written, ...] = ()
    gone: tuple[Key, ...] = ()
    """Rows of an older generation, to be deleted first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Sends a message, to this very node too, once the ticket is on disk."""

    to: NodeId
    message: ConsensusFrame
    after: Ticket | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Elected:
    """The leader has read a quorum: these are all rows, the newest of each register."""

    ballot: Ballot
    rows: tuple[Written, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """All batches up to this one are on the disks of a quorum: what rests on them may be told."""

    ballot: Ballot
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposed:
    """Somebody has a higher ballot: this leader tells and grants nothing any more."""

    ballot: Ballot
    by: Ballot


ConsensusEffect = Keep | Say | Elected | Chosen | Deposed

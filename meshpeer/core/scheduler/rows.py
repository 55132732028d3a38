"""What the scheduler keeps in the journal, as shapes and keys. Fields are only ever added, with defaults.

JOBS holds a row per owned job, TASKS one per task with a history worth keeping (a commit, a failure, a lost
worker, a round), RESULTS one per stored result until it is acknowledged. GRANTS holds what was handed to
somebody: ``seat/`` names a worker that was given attempts of a job (whom a restarted owner waits for),
``given/`` an attempt that a victim handed over and that its thief has not confirmed, ``webhook/`` an attempt
that a service works on, ``outbox/`` what the end of a job is told to, ``gone/`` a job that was forgotten
(``collecting``), ``drained`` that this node takes no work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from meshpeer.core.effects import Delete, Put, Table
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex, key_text
from meshpeer.core.scheduler.messages import Attempt, Blob, Epoch, Granted, Offer
from meshpeer.core.scheduler.tables import TaskState
from meshpeer.core.wire import cbor

ROW_BYTES_MAX = 64 * 1024 * 1024
_SEAT, _GIVEN, _WEBHOOK, _OUTBOX = "seat/", "given/", "webhook/", "outbox/"
_DRAINED = "drained"


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job at its owner."""

    signed: bytes
    """The signed ``JobRecord``."""
    epoch: Epoch
    accepted_at_us: int
    cancelled: bool = False
    finished_at_us: int = 0
    """0 while it runs."""
    replicated: bool = False
    """The truth is in the registers of its replicas; this row has but the record."""
    paused: bool = False
    priority: int | None = None
    """What a person gave it after it was submitted; None: what its file says."""
    untold: bool = False
    """Of a job with replicas: its end is to be told to somebody (``outbox``), and has not been yet."""
    told: bool = False
    """Of a job with replicas: an end of it was told; after a retry none is told again."""


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as its owner remembers it: ended, lost with its worker, or under way."""

    number: int
    node: NodeId
    state: str
    """``succeeded``, ``failed``, ``lost``; of an open lease ``running`` or ``granted``, which never rests."""
    exit_code: int | None = None
    started_us: int = 0
    finished_us: int = 0
    stolen_from: NodeId | None = None
    error: str = ""
    round: int = 1


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """The register of one (task, round). ``state`` is ``ready`` until something is committed."""

    round: int
    state: str
    node: NodeId
    tries: tuple[Try, ...]
    exit_code: int | None
    error: str
    stdout: Blob
    stderr: Blob
    manifest: Blob
    outputs: int
    retried: int = 0
    """Rounds that a person asked for."""
    output_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPut(Put):
    """The write of a task's row, and what it takes to write it as a register."""

    task: TaskIndex
    round: int
    decided: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPut(Put):
    """The write of a replicated job's record: no register, each replica has it for itself."""


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """A result at its worker, kept until the owner acknowledges it."""

    owner: NodeId
    offer: Offer
    owners: tuple[NodeId, ...] = ()
    """Who may own the job by its record, which is not kept."""


class SeatRow(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that was given attempts of a job."""

    job: JobId
    node: NodeId


class GivenRow(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt on its way from victim to thief."""

    job: JobId
    generation: int
    epoch: Epoch
    record: Blob
    granted: Granted
    thief: NodeId
    stolen_from: NodeId | None = None
    """Whom the victim had it from, where it was a thief itself."""


class WebhookRow(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that a service works on, or worked on within the last day."""

    job: JobId
    generation: int
    epoch: Epoch
    record: Blob
    owner: NodeId
    granted: Granted
    cpu: int
    state: str
    """A ``WebhookState``."""
    started_us: int
    ends_us: int = 0
    """When its time is up, by the wall clock; 0 for never."""
    tokens: tuple[Digest, ...] = ()
    """SHA-256 of each token that its call-back may name."""
    succeeded: bool = False
    error: str = ""
    result: bytes = b""
    settled_us: int = 0
    stolen_from: NodeId | None = None
    amounts: tuple[tuple[str, int], ...] = ()
    """What it takes of the node; empty for ``cpu`` alone."""


class OutboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """A message about the end of a job, and how far it is."""

    job: JobId
    event: str
    """``on_complete`` or ``on_failure``."""
    url: str
    body: bytes
    """Empty once nobody is to have it any more."""
    made_us: int
    state: str = "waiting"
    trouble: str = ""


def put_job(job: JobId, row: JobRow) -> Put:
    return Put(table=Table.JOBS, key=job, value=cbor.encode(row))


def put_record(job: JobId, row: JobRow) -> RecordPut:
    """Writes what a replica has of a job besides registers: its record."""
    return RecordPut(table=Table.JOBS, key=job, value=cbor.encode(row))


def put_task(job: JobId, task: TaskIndex, row: TaskRow) -> TaskPut:
    return TaskPut(
        table=Table.TASKS,
        key=f"{job}/{task:06d}",
        value=cbor.encode(row),
        task=task,
        round=row.round,
        decided=row.state != TaskState.READY.value,
    )


def put_result(row: ResultRow) -> Put:
    key = _attempt_key(row.offer.job, row.offer.attempt)
    return Put(table=Table.RESULTS, key=key, value=cbor.encode(row))


def delete_result(job: JobId, attempt: Attempt) -> Delete:
    return Delete(table=Table.RESULTS, key=_attempt_key(job, attempt))


def put_seat(job: JobId, node: NodeId) -> Put:
    return Put(table=Table.GRANTS, key=_seat_key(job, node), value=cbor.encode(SeatRow(job=job, node=node)))


def delete_seat(job: JobId, node: NodeId) -> Delete:
    return Delete(table=Table.GRANTS, key=_seat_key(job, node))


def put_given(row: GivenRow) -> Put:
    key = _GIVEN + _attempt_key(row.job, row.granted.attempt)
    return Put(table=Table.GRANTS, key=key, value=cbor.encode(row))


def delete_given(job: JobId, attempt: Attempt) -> Delete:
    return Delete(table=Table.GRANTS, key=_GIVEN + _attempt_key(job, attempt))


def put_webhook(row: WebhookRow) -> Put:
    return Put(table=Table.GRANTS, key=_webhook_key(row), value=cbor.encode(row))


def delete_webhook(row: WebhookRow) -> Delete:
    return Delete(table=Table.GRANTS, key=_webhook_key(row))


def put_outbox(row: OutboxRow) -> Put:
    return Put(table=Table.GRANTS, key=outbox_key(row.job, row.event), value=cbor.encode(row))


def outbox_key(job: JobId, event: str) -> str:
    return f"{_OUTBOX}{job}/{event}"


def put_drained(drained: bool) -> Put | Delete:
    if not drained:
        return Delete(table=Table.GRANTS, key=_DRAINED)
    return Put(table=Table.GRANTS, key=_DRAINED, value=b"")


def read_drained(rows: Iterable[tuple[str, bytes]]) -> bool:
    """Says whether this node takes no work, by the table GRANTS."""
    return any(key == _DRAINED for key, _ in rows)


def read_outbox(rows: Iterable[tuple[str, bytes]]) -> list[OutboxRow]:
    """Reads the outbox from the table GRANTS."""
    return [
        cbor.decode(value, OutboxRow, bytes_max=ROW_BYTES_MAX)
        for key, value in rows
        if key.startswith(_OUTBOX)
    ]


def read_webhooks(rows: Iterable[tuple[str, bytes]]) -> list[WebhookRow]:
    """Reads what services work on from the table GRANTS."""
    return [
        cbor.decode(value, WebhookRow, bytes_max=ROW_BYTES_MAX)
        for key, value in rows
        if key.startswith(_WEBHOOK)
    ]


def read_grants(rows: Iterable[tuple[str, bytes]]) -> tuple[dict[JobId, list[NodeId]], list[GivenRow]]:
    """Reads the table GRANTS: the workers of each job, and what was handed over unconfirmed."""
    seats: dict[JobId, list[NodeId]] = {}
    given: list[GivenRow] = []
    for key, value in rows:
        if key.startswith(_SEAT):
            seat = cbor.decode(value, SeatRow, bytes_max=ROW_BYTES_MAX)
            seats.setdefault(seat.job, []).append(seat.node)
        elif key.startswith(_GIVEN):
            given.append(cbor.decode(value, GivenRow, bytes_max=ROW_BYTES_MAX))
    return seats, given


def seat_of(key: str, value: bytes) -> NodeId | None:
    """Returns the worker that a row of the table GRANTS names; None where it is a row of another kind."""
    if not key.startswith(_SEAT):
        return None
    return cbor.decode(value, SeatRow, bytes_max=ROW_BYTES_MAX).node


def _seat_key(job: JobId, node: NodeId) -> str:
    return f"{_SEAT}{job}/{key_text(node)}"


def _webhook_key(row: WebhookRow) -> str:
    return _WEBHOOK + _attempt_key(row.job, row.granted.attempt)


def _attempt_key(job: JobId, attempt: Attempt) -> str:
    return f"{job}/{attempt.task:06d}.{attempt.round}.{attempt.number}"

"""What the scheduler keeps in the journal, as shapes and keys. Fields are only ever added, with defaults."""

from __future__ import annotations

import msgspec

from meshpeer.core.effects import Delete, Put, Table
from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.scheduler.messages import Attempt, Blob, Epoch, Offer
from meshpeer.core.wire import cbor

ROW_BYTES_MAX = 64 * 1024 * 1024


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job at its owner."""

    signed: bytes
    """The signed ``JobRecord``."""
    epoch: Epoch
    accepted_at_us: int
    cancelled: bool = False
    finished_at_us: int = 0
    """0 while it runs."""


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as its owner remembers it."""

    number: int
    node: NodeId
    state: str
    exit_code: int | None = None
    started_us: int = 0
    finished_us: int = 0
    stolen_from: NodeId | None = None
    error: str = ""


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """A committed result: the register of one (task, round)."""

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


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """A result at its worker, kept until the owner acknowledges it."""

    owner: NodeId
    offer: Offer


def put_job(job: JobId, row: JobRow) -> Put:
    return Put(table=Table.JOBS, key=job, value=cbor.encode(row))


def put_task(job: JobId, task: int, row: TaskRow) -> Put:
    return Put(table=Table.TASKS, key=f"{job}/{task:06d}", value=cbor.encode(row))


def delete_task(job: JobId, task: int) -> Delete:
    return Delete(table=Table.TASKS, key=f"{job}/{task:06d}")


def put_result(row: ResultRow) -> Put:
    return Put(table=Table.RESULTS, key=_result_key(row.offer.job, row.offer.attempt), value=cbor.encode(row))


def delete_result(job: JobId, attempt: Attempt) -> Delete:
    return Delete(table=Table.RESULTS, key=_result_key(job, attempt))


def _result_key(job: JobId, attempt: Attempt) -> str:
    return f"{job}/{attempt.task:06d}.{attempt.round}.{attempt.number}"

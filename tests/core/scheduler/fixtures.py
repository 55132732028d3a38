"""Values that the scheduler's unit tests share."""

from __future__ import annotations

import hashlib

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import TicketCounter
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.model import Array, JobRecord, JobSpec, TaskSpec
from meshpeer.core.scheduler.book import NOTHING
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    Attempt,
    Blob,
    Capacity,
    Epoch,
    Grant,
    Granted,
    JobSubmitted,
    MessageReceived,
    Offer,
    SchedulerEffect,
)
from meshpeer.core.wire import cbor

ME, ALICE, BOB = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))
JOB = JobId("jaaaaaaaaaaaaaaaaaaa")
NOW = Instant(mono_s=1_000.0, unix_s=1_800_000_000.0)


class NoSeals:
    """Seals that everybody has: for tests that are about something else."""

    def make(self, counter: int, body: bytes) -> bytes:
        return b""

    def counter_of(self, owner: NodeId, body: bytes, seal: bytes) -> int | None:
        return 1


class FairDice:
    """Chance that always shows its middle."""

    def random(self) -> float:
        return 0.5


def later(seconds: float) -> Instant:
    return Instant(mono_s=NOW.mono_s + seconds, unix_s=NOW.unix_s + seconds)


def spec(count: int, *, retries: int = 0, cpu: int = 1) -> JobSpec:
    task = TaskSpec(name="t", argv=("true",), array=Array(size=count), retries=retries, cpu=cpu)
    return JobSpec(name="job", tasks=(task,))


def record(of: JobSpec, submitter: NodeId = ME, generation: int = 1) -> JobRecord:
    return JobRecord(job=JOB, submitter=submitter, submitted_at_us=1, spec=of, generation=generation)


def submitted(of: JobRecord) -> JobSubmitted:
    signed = cbor.encode(of)
    return JobSubmitted(record=of, signed=signed, digest=Digest(hashlib.sha256(signed).digest()))


def record_blob(of: JobRecord) -> Blob:
    signed = cbor.encode(of)
    return Blob(Digest(hashlib.sha256(signed).digest()), len(signed))


def scheduler(slots: int = 2, *, me: NodeId = ME, accepting: bool = True) -> Scheduler:
    return Scheduler(
        me=me,
        slots=slots,
        accepting=accepting,
        boot=b"boot",
        region="",
        tickets=TicketCounter(),
        dice=FairDice(),
        seals=NoSeals(),
    )


def hear(machine: Scheduler, peer: NodeId, message: object, now: Instant = NOW) -> list[SchedulerEffect]:
    return machine.handle(MessageReceived(peer=peer, message=message), now)  # type: ignore[arg-type]


def capacity(slots: int, boot: bytes = b"1") -> Capacity:
    return Capacity(slots=slots, accepting=True, boot=boot)


def grant(
    of: JobRecord, *tasks: int, epoch: Epoch | None = None, number: int = 1, stolen_from: NodeId | None = None
) -> Grant:
    return Grant(
        job=JOB,
        generation=of.generation,
        epoch=epoch or Epoch(1, of.submitter),
        record=record_blob(of),
        tasks=tuple(Granted(Attempt(task, 1, number)) for task in tasks),
        stolen_from=stolen_from,
    )


def result(
    task: int, *, node: NodeId | None, number: int = 1, succeeded: bool = True, epoch: Epoch | None = None
) -> Offer:
    return Offer(
        job=JOB,
        attempt=Attempt(task, 1, number),
        succeeded=succeeded,
        exit_code=0 if succeeded else 1,
        error="" if succeeded else "exit code 1",
        started_us=1,
        finished_us=2,
        stdout=NOTHING,
        stderr=NOTHING,
        manifest=NOTHING,
        outputs=0,
        epoch=epoch,
        node=node,
    )

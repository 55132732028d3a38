"""A watch tells the end of a job, whenever it comes."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import trio

from meshpeer.app.agent import Agent
from meshpeer.app.api_jobs import JobAnswers
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import TicketCounter
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import Digest, JobId, MeshId, NodeId, Ticket
from meshpeer.core.jobs.model import JobRecord, JobSpec, TaskSpec
from meshpeer.core.node.roster import Roster
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import CancelAsked, JobSubmitted
from meshpeer.core.scheduler.seals import KeySeals

ME = NodeId(bytes(32))
JOB = JobId("j" + "a" * 19)
NOW = Instant(1.0, 1_800_000_000.0)


async def test_job_that_ends_while_the_reader_has_the_floor_is_told() -> None:
    scheduler = scheduler_with_a_job()
    answers = JobAnswers(cast(Agent, agent_of(scheduler)))
    seen: list[str] = []
    with trio.fail_after(5):
        async for job in answers.watch(JOB):
            seen.append(job.state)
            if len(seen) == 1:
                # The generator stands at its yield now, as it does while a slow reader is written to.
                scheduler.handle(CancelAsked(job=JOB), NOW)
                answers.on_job_changed(JOB)
    assert seen == ["pending", "cancelled"]


async def test_job_that_had_ended_before_is_told_once() -> None:
    scheduler = scheduler_with_a_job()
    scheduler.handle(CancelAsked(job=JOB), NOW)
    answers = JobAnswers(cast(Agent, agent_of(scheduler)))
    with trio.fail_after(5):
        assert [job.state async for job in answers.watch(JOB)] == ["cancelled"]


def scheduler_with_a_job() -> Scheduler:
    scheduler = Scheduler(
        me=ME,
        slots=1,
        accepting=True,
        boot=b"b",
        region="",
        tickets=TicketCounter(),
        dice=random.Random(0),
        seals=KeySeals(SigningKey(bytes(32)), MeshId(bytes(16))),
    )
    spec = JobSpec(name="one", tasks=(TaskSpec(name="t", argv=("true",)),))
    record = JobRecord(job=JOB, submitter=ME, submitted_at_us=1, spec=spec)
    scheduler.handle(JobSubmitted(record=record, signed=b"s", digest=Digest(bytes(32))), NOW)
    return scheduler


def agent_of(scheduler: Scheduler) -> SimpleNamespace:
    """What a watch asks of its agent; every write is on disk at once."""

    def once_written(_: Ticket | None, go_on: Callable[[], None], __: Callable[[], None]) -> None:
        go_on()

    return SimpleNamespace(
        node=SimpleNamespace(me=ME, roster=Roster((), {}), scheduler=scheduler),
        performer=SimpleNamespace(once_written=once_written),
        clock=SimpleNamespace(now=lambda: NOW),
    )

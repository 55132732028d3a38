"""Tries of a hostile member with jobs: results, leases, grants and submitters that are not its own."""

from __future__ import annotations

import hashlib
import time

from hostile_member import Member, Voice
from hostile_mesh import until
from hostile_stage import Stage, attempt

from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.model import JobRecord, JobSpec, TaskSpec
from meshpeer.core.records import envelope
from meshpeer.core.scheduler.book import NOTHING
from meshpeer.core.scheduler.messages import (
    Ack,
    Attempt,
    Blob,
    Capacity,
    Epoch,
    Grant,
    Granted,
    Held,
    Lost,
    Offer,
    Renew,
    StealNone,
    StealRequest,
    Stolen,
    Stop,
    Unknown,
)

RESULTS = "Results and leases"
GRANTS = "Grants, and jobs of others"
SLOW = ("sleep", "0.4")
NO_SUCH_SEAL = bytes(72)


# --- to an owner --------------------------------------------------------------------------------------------


@attempt(
    RESULTS,
    "results of tasks that it was never given",
    "the tasks run where they were given, and the job ends well",
)
async def foreign_results(stage: Stage) -> None:
    job = JobId((await stage.mesh.submit(SLOW)).id)
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(*(offer(job, task, stage.liar.id) for task in range(4)))
        # An acknowledgement waits for the journal.
        await voice.until(lambda: len(voice.of(Ack)) == 4)
        assert all(one.superseded for one in voice.of(Ack))  # type: ignore[attr-defined]
        await stage.see(voice)
    assert (await stage.mesh.ended(job)).state == "succeeded"
    tasks = await stage.mesh.alpha.api.tasks(job)
    assert {one.node for one in tasks} <= {"alpha", "beta"}


@attempt(
    RESULTS,
    "leases, by saying that it stole them, or that it has them",
    "each stays with its worker; the job ends well",
)
async def foreign_leases(stage: Stage) -> None:
    job = JobId((await stage.mesh.submit(SLOW, 8)).id)
    epoch = Epoch(1, stage.mesh.alpha.node.me)
    attempts = tuple(Attempt(task, 1, 1) for task in range(8))
    async with stage.liar.linked(stage.mesh.port) as voice:
        for seal in (b"", NO_SUCH_SEAL):
            stolen = tuple(Stolen(one, stage.mesh.beta.node.me, seal) for one in attempts)
            held = Held(job=job, generation=1, epoch=epoch, open=attempts, running=attempts, stolen=stolen)
            voice.say(Renew(jobs=(held,), boot=b"liar", whole=False))
        await voice.until(lambda: bool(voice.of(Stop)))
        await stage.see(voice)
        owner = stage.mesh.alpha.node.scheduler.owned[job]
        assert stage.liar.id not in {one.node for one in owner.leases.values()}
    assert (await stage.mesh.ended(job)).state == "succeeded"


@attempt(RESULTS, "results of a job that was cancelled", "its tasks stay cancelled")
async def results_of_the_cancelled(stage: Stage) -> None:
    job = JobId((await stage.mesh.submit(("sleep", "30"))).id)
    await stage.mesh.alpha.api.cancel(job)
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(*(offer(job, task, stage.liar.id) for task in range(4)))
        await stage.see(voice)
    assert {one.state for one in await stage.mesh.alpha.api.tasks(job)} == {"cancelled"}


@attempt(
    RESULTS,
    "a result of a task that it was given, with files of 2^62 bytes",
    "the result is not taken; the task runs elsewhere, and the job ends well",
)
async def huge_outputs(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        job, given = await given_a_task(stage, voice)
        huge = Blob(Digest(bytes(32)), 2**62)
        for granted in given.tasks:
            voice.say(
                offer(job, granted.attempt.task, stage.liar.id, granted.attempt, manifest=huge, outputs=2**40)
            )
        await stage.see(voice)
    async with stage.liar.linked(stage.mesh.port) as voice:
        # What it says to have no more need not wait for its leases.
        voice.say(Renew(jobs=(), boot=b"liar", whole=True), Capacity(slots=0, accepting=False, boot=b"liar"))
        await voice.settled()
    assert (await stage.mesh.ended(job)).state == "succeeded"


@attempt(RESULTS, "slots for 2^62 tasks, without the right to run any", "it is given none; the job ends well")
async def slots_without_the_right(stage: Stage) -> None:
    stage.liar = stage.mesh.member(without=frozenset({Capability.WORK}))
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(Capacity(slots=2**62, accepting=True, boot=b"liar"))
        voice.say(StealRequest(idle=2**62, width=2**62, wait=True))
        await voice.settled()
        await stage.mesh.runs_a_job()
        await stage.see(voice)
        assert not voice.of(Grant)
        assert voice.of(StealNone)


# --- to a worker --------------------------------------------------------------------------------------------


@attempt(GRANTS, "tasks of another's job, given out as its owner", "no worker runs them")
async def foreign_grant(stage: Stage) -> None:
    job = JobId((await stage.mesh.submit(SLOW)).id)
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(grant(job, Epoch(9, stage.liar.id), Blob(Digest(bytes(32)), 10)))
        await stage.see(voice)
    assert (await stage.mesh.ended(job)).state == "succeeded"


@attempt(GRANTS, "tasks of another's job, handed on as if it had stolen them", "no worker runs them")
async def foreign_booty(stage: Stage) -> None:
    job = JobId((await stage.mesh.submit(SLOW)).id)
    owner = stage.mesh.alpha.node.scheduler.owned[job]
    record = Blob(owner.digest, len(owner.signed))
    async with stage.liar.linked(stage.mesh.beta.transport.port) as voice:
        epoch = Epoch(1, stage.mesh.alpha.node.me)
        voice.say(grant(job, epoch, record, stolen_from=stage.liar.id, seal=NO_SUCH_SEAL))
        await stage.see(voice)
    assert (await stage.mesh.ended(job)).state == "succeeded"


@attempt(
    GRANTS, "that a job is over, or of another generation now", "what runs of it goes on; the job ends well"
)
async def usurped(stage: Stage) -> None:
    job = JobId((await stage.mesh.submit(SLOW, 8)).id)
    await until(lambda: bool(stage.mesh.alpha.node.scheduler.owned[job].running))
    mine = Epoch(2**62, stage.liar.id)
    for agent in stage.mesh.honest:
        async with stage.liar.linked(agent.transport.port) as voice:
            for generation in (1, 2, 2**62):
                voice.say(Stop(job=job, generation=generation, epoch=mine, attempts=(), reason="mine"))
                voice.say(Ack(job=job, generation=generation, epoch=mine, attempt=Attempt(0, 1, 1)))
            voice.say(Unknown(job=job))
            await stage.see(voice)
    ended = await stage.mesh.ended(job)
    assert ended.state == "succeeded"
    assert all(len(one.attempts) == 1 for one in await stage.mesh.alpha.api.tasks(job))


@attempt(GRANTS, "a job that it signed itself, in another member's name", "no worker runs it")
async def forged_job(stage: Stage) -> None:
    other = stage.mesh.beta.node.me
    async with stage.liar.linked(stage.mesh.port) as voice:
        assert await offered(stage.liar, voice, submitter=other) == "signature does not verify"
        await stage.see(voice)


@attempt(GRANTS, "a job of its own, without the right to submit any", "no worker runs it")
async def unallowed_job(stage: Stage) -> None:
    stage.liar = stage.mesh.member(without=frozenset({Capability.SUBMIT}))
    async with stage.liar.linked(stage.mesh.port) as voice:
        said = await offered(stage.liar, voice, submitter=stage.liar.id)
        assert said == "the job's submitter may not submit jobs"
        await stage.see(voice)


@attempt(GRANTS, "the files of a job with other content than their digest says", "the job is given back")
async def wrong_file(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        said = await offered(stage.liar, voice, submitter=stage.liar.id, spoil=True)
        assert "does not have the content that was announced" in said
        await stage.see(voice)


# --- helpers ------------------------------------------------------------------------------------------------


def offer(
    job: JobId,
    task: int,
    node: NodeId,
    attempt: Attempt | None = None,
    manifest: Blob = NOTHING,
    outputs: int = 0,
) -> Offer:
    return Offer(
        job=job,
        attempt=attempt or Attempt(task, 1, 1),
        succeeded=True,
        exit_code=0,
        error="",
        started_us=1,
        finished_us=2,
        stdout=NOTHING,
        stderr=NOTHING,
        manifest=manifest,
        outputs=outputs,
        node=node,
    )


def grant(
    job: JobId, epoch: Epoch, record: Blob, *, stolen_from: NodeId | None = None, seal: bytes = b""
) -> Grant:
    tasks = tuple(Granted(Attempt(task, 1, 1), (), None, seal) for task in range(2))
    return Grant(job=job, generation=1, epoch=epoch, record=record, tasks=tasks, stolen_from=stolen_from)


async def given_a_task(stage: Stage, voice: Voice) -> tuple[JobId, Grant]:
    """Returns what an owner gives to the liar, who says that it works."""
    voice.say(Capacity(slots=2, accepting=True, boot=b"liar"))
    await voice.settled()
    job = JobId((await stage.mesh.submit(SLOW, 12)).id)
    await voice.until(lambda: bool(voice.of(Grant)))
    return job, voice.of(Grant)[0]  # type: ignore[return-value]


async def offered(liar: Member, voice: Voice, *, submitter: NodeId, spoil: bool = False) -> str:
    """Gives a job of the liar's own making to an agent; returns why that gave it back."""
    job = JobId(
        "j"
        + "liar".ljust(15, "x")
        + f"{time.monotonic_ns() % 7_776:04d}".translate(str.maketrans("0189", "abcd"))
    )
    spec = JobSpec(name="evil", tasks=(TaskSpec(name="t", argv=("touch", "/tmp/meshpeer-was-here")),))
    record = JobRecord(
        job=job, submitter=submitter, submitted_at_us=1, spec=spec, replicas=(submitter, liar.id)
    )
    signed = envelope.sign(liar.key, liar.mesh, record, context=envelope.JOB_CONTEXT)
    digest = Digest(hashlib.sha256(signed).digest())
    voice.files[digest] = bytes(len(signed)) if spoil else signed
    voice.say(grant(job, Epoch(1, liar.id), Blob(digest, len(signed))))
    await voice.until(lambda: bool(voice.of(Lost)))
    return voice.of(Lost)[0].reason  # type: ignore[attr-defined, no-any-return]

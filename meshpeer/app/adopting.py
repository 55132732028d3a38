"""Signs records of jobs, the first time and anew: for replicas that a job gets later, and where one is taken
by force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshpeer.app.views import name_of
from meshpeer.core.errors import LocalFault, MeshpeerError, Refused
from meshpeer.core.ids import Digest, JobId
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.records import envelope
from meshpeer.core.scheduler.messages import JobSignedAnew
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.tables import TaskState

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent


async def sign_job(agent: Agent, record: JobRecord) -> tuple[bytes, Digest]:
    """Signs a job's record, and keeps it with the job's files; raises ``StoreFailed``."""
    signed = envelope.sign(agent.state.key, agent.state.mesh, record, context=envelope.JOB_CONTEXT)
    stored = await agent.blobs.add_bytes(signed)
    kept = [stored.digest, *(file.digest for file in record.spec.files)]
    await agent.files.note_submitted(record.job, kept, record.spec.keep_s)
    return signed, Digest(stored.digest)


async def sign_anew(agent: Agent, record: JobRecord) -> None:
    """Performs ``SignJob``. What fails is asked for again."""
    try:
        signed, digest = await sign_job(agent, record)
    except MeshpeerError as fault:
        agent.log.write("warning", fault.what, (("job", record.job), ("hint", fault.hint)))
        return
    agent.driver.post(JobSignedAnew(record=record, signed=signed, digest=digest))


def check_adoptable(agent: Agent, job: JobId, force: bool) -> JobRecord:
    """Returns the record by which this node takes a job by force; raises ``LocalFault`` or ``Refused`` where
    that makes no sense, or nobody said ``force``."""
    scheduler, me = agent.node.scheduler, agent.node.me
    copy, now = scheduler.replicas.copies.get(job), agent.clock.now()
    if copy is None:
        raise LocalFault(
            "this node owns the job already: it has no other replicas",
            f"see `meshpeer jobs why {job}` for what it waits for",
        )
    if copy.over:
        raise LocalFault("the job has ended: there is nothing to adopt", f"see `meshpeer jobs status {job}`")
    names = ", ".join(name_of(agent.node, one) for one in dict.fromkeys(copy.names))
    if me not in copy.names:
        raise Refused("workers believe no word of this node about the job", f"adopt it on one of {names}")
    if scheduler.replicas.durability(job, now) != "blocked":
        who = name_of(agent.node, copy.acceptor.vote.promised.replica.node)
        raise LocalFault(
            f"the job needs no force: {who} owns it, or another replica takes it over within seconds",
            "adopt is for jobs that show `blocked: no quorum`, and whose other replicas are gone for good",
        )
    if not force:
        seen = scheduler.seen(job)
        raise LocalFault(
            f"two of {names} are needed, and are not there; {_risk(seen)}",
            f"if they are gone for good: meshpeer jobs adopt {job} --force",
        )
    return msgspec.structs.replace(
        copy.record,
        generation=copy.record.generation + 1,
        submitter=me,
        replicas=scheduler.choose_replicas(job),
    )


def _risk(seen: JobOwner | None) -> str:
    """Says what may be run twice."""
    if seen is None:
        return "its tasks may run again, and results may differ"
    done = seen.counts[TaskState.SUCCEEDED] + seen.counts[TaskState.FAILED]
    rest = len(seen.states) - done - seen.counts[TaskState.SKIPPED]
    return (
        f"{done} results are known here and stay, the other {rest} tasks may run again though they have run, "
        "and results may differ"
    )

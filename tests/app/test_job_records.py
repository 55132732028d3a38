"""A job from elsewhere is judged whole before anything reads it: who signed it, and what it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from meshpeer.app.agent import Agent
from meshpeer.app.api_jobs import JobAnswers
from meshpeer.core.errors import LocalFault, PeerFault, Refused
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import JobId, MeshId
from meshpeer.core.jobs.model import Array, JobRecord, JobSpec, Need, TaskSpec
from meshpeer.core.records import envelope
from meshpeer.core.wire import cbor
from meshpeer.runtime.control import Submission

MESH = MeshId(bytes(16))
KEY = SigningKey(bytes([7]) * 32)
JOB = JobId("j" + "a" * 19)
GOOD = JobSpec(name="good", tasks=(TaskSpec(name="a", argv=("true",)),))
BAD = {
    "a need that names no task": JobSpec(
        name="x", tasks=(TaskSpec(name="a", argv=("true",), needs=(Need(task="gone"),)),)
    ),
    "a cycle": JobSpec(name="x", tasks=(TaskSpec(name="a", argv=("true",), needs=(Need(task="a"),)),)),
    "an array of less than nothing": JobSpec(
        name="x", tasks=(TaskSpec(name="a", argv=("true",), array=Array(size=-1)),)
    ),
    "an output outside the folder": JobSpec(
        name="x", tasks=(TaskSpec(name="a", argv=("true",), outputs=("../../etc/shadow",)),)
    ),
    "no tasks": JobSpec(name="x", tasks=()),
}


def test_signed_job_of_a_member_who_may_submit_is_taken() -> None:
    assert Agent.check_job(agent(), signed(GOOD)).spec == GOOD


@pytest.mark.parametrize("what", BAD)
def test_signed_job_that_makes_no_sense_is_the_peers_fault(what: str) -> None:
    with pytest.raises(PeerFault):
        Agent.check_job(agent(), signed(BAD[what]))


@pytest.mark.parametrize("what", BAD)
async def test_submitted_job_that_makes_no_sense_is_refused(what: str) -> None:
    with pytest.raises(LocalFault):
        await JobAnswers(agent()).submit(Submission(job=JOB, spec=cbor.encode(BAD[what])))


async def test_person_at_a_node_that_may_not_submit_is_refused_with_exit_code_4() -> None:
    with pytest.raises(Refused, match="may not submit jobs") as refused:
        await JobAnswers(agent(may=frozenset())).submit(Submission(job=JOB, spec=cbor.encode(GOOD)))
    assert refused.value.exit_code == 4


def test_signed_job_of_a_member_who_may_not_submit_is_the_peers_fault() -> None:
    with pytest.raises(PeerFault, match="may not submit jobs"):
        Agent.check_job(agent(may=frozenset()), signed(GOOD))


def test_signed_job_of_who_is_not_in_the_nodes_settings_is_refused() -> None:
    with pytest.raises(PeerFault, match="take no jobs from that submitter"):
        Agent.check_job(agent(from_=("bravo",)), signed(GOOD))


def signed(spec: JobSpec) -> bytes:
    record = JobRecord(job=JOB, submitter=KEY.public, submitted_at_us=1, spec=spec)
    return envelope.sign(KEY, MESH, record, context=envelope.JOB_CONTEXT)


def agent(
    may: frozenset[Capability] = frozenset({Capability.SUBMIT}), from_: tuple[str, ...] = ("*",)
) -> Agent:
    """What judging a job asks of its agent: a ledger with one member who may submit, as a rule."""
    allowed = may
    best = SimpleNamespace(identity=SimpleNamespace(capabilities=allowed))
    node = SimpleNamespace(
        me=KEY.public,
        ledger=SimpleNamespace(
            get=lambda _: SimpleNamespace(best=best), may=lambda _, capability: capability in allowed
        ),
        roster=SimpleNamespace(get=lambda _: None),
        scheduler=SimpleNamespace(
            owned={}, replicas=SimpleNamespace(copies={}), collector=SimpleNamespace(gone={})
        ),
    )
    settings = SimpleNamespace(file=SimpleNamespace(jobs=SimpleNamespace(from_=from_)))
    return cast(
        Agent,
        SimpleNamespace(
            node=node,
            state=SimpleNamespace(mesh=MESH),
            settings=settings,
            names_of=lambda _: {"alpha"},
        ),
    )

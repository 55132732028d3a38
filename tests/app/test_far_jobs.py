"""Jobs of other nodes: who is asked, whose word counts, and who may what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
import trio

from meshpeer.app.agent import Agent
from meshpeer.app.asked import Asked
from meshpeer.app.far_jobs import FarJobs
from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError, PeerFault, Refused
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.opinions import State
from meshpeer.core.scheduler.messages import Attempt
from meshpeer.runtime.asking import NotOwned, Question, encode_fault
from meshpeer.runtime.job_docs import Drain, JobHit

ME, BETA, GAMMA, DELTA = (NodeId(bytes([number]) * 32) for number in range(4))
NAMES = {ME: "alpha", BETA: "beta", GAMMA: "gamma", DELTA: "delta"}
STATUS = Question(what="drain_of", job="film")
ATTEMPT = Attempt(0, 1, 1)
ANSWER = Drain(node="x", drained=False, running=0, waiting=0, results=0)


def hit(job: str, name: str = "film", at: str = "1", as_of: str | None = None) -> JobHit:
    return JobHit(id=job, name=name, submitted_at=at, as_of=as_of)


@pytest.mark.parametrize(
    ("hits", "asked", "job"),
    [
        ({BETA: [hit("ja")], GAMMA: []}, BETA, "ja"),
        ({BETA: [hit("ja", at="1")], GAMMA: [hit("jb", at="2")]}, GAMMA, "jb"),
        ({BETA: [hit("ja", as_of="9")], GAMMA: [hit("ja")]}, GAMMA, "ja"),
        ({BETA: [hit("ja", as_of="9")], GAMMA: [hit("ja", as_of="8")]}, BETA, "ja"),
        ({BETA: [hit("film", "other", at="1")], GAMMA: [hit("jb", at="2")]}, BETA, "film"),
        ({BETA: [hit("filmx", "other")], GAMMA: []}, BETA, "filmx"),
    ],
    ids=["one", "newest of a name", "owner before replica", "latest replica", "id before name", "beginning"],
)
async def test_who_knows_a_job_best_is_asked(
    hits: dict[NodeId, list[JobHit]], asked: NodeId, job: str
) -> None:
    mesh = Mesh(hits)
    far = FarJobs(cast(Agent, mesh))
    assert await far.ask(STATUS, Drain) == ANSWER
    assert mesh.asked[-1] == (asked, job)
    assert far.home_of("film") == asked
    before = len(mesh.asked)
    await far.ask(STATUS, Drain)
    assert len(mesh.asked) == before + 1, "nobody is looked for twice within a while"


async def test_job_that_moved_is_looked_for_again() -> None:
    mesh = Mesh({BETA: [hit("ja")], GAMMA: []})
    far = FarJobs(cast(Agent, mesh))
    await far.ask(STATUS, Drain)
    mesh.hits = {BETA: [], GAMMA: [hit("ja")]}
    await far.ask(STATUS, Drain)
    assert mesh.asked[-1] == (GAMMA, "ja")


async def test_who_can_not_own_a_job_that_is_kept_here_is_not_believed() -> None:
    mesh = Mesh({BETA: [hit("film", "film")], GAMMA: [hit("film", "film", as_of="9")]})
    mesh.node.scheduler.replicas.copies = {"film": SimpleNamespace(names=(GAMMA,))}
    await FarJobs(cast(Agent, mesh)).ask(STATUS, Drain)
    assert mesh.asked[-1] == (GAMMA, "film")


async def test_name_that_could_be_several_is_refused() -> None:
    mesh = Mesh({BETA: [hit("filma", "x")], GAMMA: [hit("filmb", "y")]})
    with pytest.raises(LocalFault, match="fits 2 jobs"):
        await FarJobs(cast(Agent, mesh)).ask(STATUS, Drain)


async def test_nobody_knows_a_job_and_who_is_silent_or_away_is_named() -> None:
    mesh = Mesh({BETA: []}, silent={GAMMA}, away={DELTA})
    with pytest.raises(LocalFault, match="no node that can be asked") as caught:
        await FarJobs(cast(Agent, mesh)).ask(STATUS, Drain)
    assert caught.value.hint.startswith("delta is away since 08:00:00 UTC, gamma does not answer: ")


async def test_fault_of_the_owner_comes_as_it_is() -> None:
    mesh = Mesh({BETA: [hit("ja")]}, fault=Refused("no", "ask"))
    with pytest.raises(Refused, match="no"):
        await FarJobs(cast(Agent, mesh)).ask(STATUS, Drain)


async def test_answer_of_another_shape_is_the_peers_fault() -> None:
    mesh = Mesh({BETA: [hit("ja")]})
    with pytest.raises(PeerFault, match="beta can't be read"):
        await FarJobs(cast(Agent, mesh)).ask(STATUS, JobHit)


# --- rights -----------------------------------------------------------------------------------------------

SUBMITTER, ADMIN, WORKER = {Capability.SUBMIT}, {Capability.ADMIN}, {Capability.WORK}


@pytest.mark.parametrize(
    ("what", "capabilities", "own", "may"),
    [
        ("job", SUBMITTER, False, True),
        ("log", ADMIN, False, True),
        ("tasks", WORKER, False, False),
        ("cancel", SUBMITTER, False, False),
        ("cancel", SUBMITTER, True, True),
        ("pause", ADMIN, False, True),
        ("retry", WORKER, False, False),
        ("prioritise", SUBMITTER, False, False),
        ("drain", SUBMITTER, True, False),
        ("drain", ADMIN, False, True),
        ("drain_of", SUBMITTER, False, True),
        ("drain_of", WORKER, False, False),
    ],
)
def test_who_may_ask_what(what: str, capabilities: set[Capability], own: bool, may: bool) -> None:
    asked = Asked(cast(Agent, owner_agent(capabilities, BETA if own else ME)))
    if may:
        asked._check(BETA, what, "film")
        return
    with pytest.raises(Refused) as refused:
        asked._check(BETA, what, "film")
    assert refused.value.hint


def test_what_this_version_does_not_know_is_answered_as_that() -> None:
    with pytest.raises(PeerFault, match="can't answer 'dance'"):
        Asked(cast(Agent, owner_agent(ADMIN, ME)))._check(BETA, "dance", "film")


async def test_running_output_is_told_to_its_owner_alone() -> None:
    agent = owner_agent(ADMIN, ME)
    agent.node.scheduler = SimpleNamespace(worker=SimpleNamespace(owner_of=lambda job, attempt: GAMMA))
    data, fault = await Asked(cast(Agent, agent)).answer(
        BETA, Question(what="live", job="j", stream="stdout", attempt=ATTEMPT)
    )
    assert fault
    assert b"nothing like that" in data


# --- helpers ----------------------------------------------------------------------------------------------


class Mesh:
    """An agent whose members answer from memory."""

    def __init__(
        self,
        hits: dict[NodeId, list[JobHit]],
        *,
        silent: set[NodeId] | None = None,
        away: set[NodeId] | None = None,
        fault: MeshpeerError | None = None,
    ) -> None:
        self.hits = hits
        self.silent, self.away, self.fault = silent or set(), away or set(), fault
        self.asked: list[tuple[NodeId, str]] = []
        members = [ME, *hits, *self.silent, *self.away]
        self.node = SimpleNamespace(
            me=ME,
            roster=SimpleNamespace(
                members=[SimpleNamespace(node=one, name=NAMES[one]) for one in members],
                get=lambda node: SimpleNamespace(name=NAMES[node]),
            ),
            detector=SimpleNamespace(
                opinion=lambda node: SimpleNamespace(
                    state=State.DEAD if node in self.away else State.ALIVE, since_unix_s=8 * 3600
                )
            ),
            links=SimpleNamespace(link_to=lambda node: 1),
            scheduler=SimpleNamespace(
                replicas=SimpleNamespace(copies={}), collector=SimpleNamespace(gone={})
            ),
        )
        self.asking = self

    async def ask(self, node: NodeId, question: Question) -> tuple[bytes, bool]:
        await trio.lowlevel.checkpoint()
        if node in self.silent:
            raise EnvironmentFault("it does not answer")
        if question.what == "find":
            return msgspec.json.encode(self.hits[node]), False
        self.asked.append((node, question.job))
        if question.job not in {one.id for one in self.hits[node]}:
            return encode_fault(NotOwned("not here", "")), True
        if self.fault is not None:
            return encode_fault(self.fault), True
        return msgspec.json.encode(ANSWER), False


def owner_agent(capabilities: set[Capability], submitter: NodeId) -> SimpleNamespace:
    """An agent that owns a job, asked by a member with these capabilities."""
    job = SimpleNamespace(record=SimpleNamespace(submitter=submitter))
    return SimpleNamespace(
        node=SimpleNamespace(
            me=ME,
            ledger=SimpleNamespace(may=lambda _, capability: capability in capabilities),
            roster=SimpleNamespace(get=lambda node: SimpleNamespace(name=NAMES[node])),
        ),
        api=SimpleNamespace(owns=lambda _: job),
    )

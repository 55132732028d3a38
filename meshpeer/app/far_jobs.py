"""Asks other members about their jobs: finds out who owns one, and brings its answers here.

A job is known at its owner. Which node that is comes out by asking all members that live; a link is opened to
those that this node has none to. What was found out is kept for a while.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from meshpeer.app import views
from meshpeer.app.forgotten import check_not_forgotten
from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError, PeerFault
from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.membership.opinions import State
from meshpeer.core.scheduler.control_messages import LinkWanted
from meshpeer.core.wire.unreadable import UNREADABLE
from meshpeer.runtime.asking import NotOwned, Question, decode_fault
from meshpeer.runtime.control import Job, rfc3339
from meshpeer.runtime.job_docs import JobHit

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

FIND_S = 5.0
"""How long a member has to say which jobs it owns."""
LINK_S = 5.0
LINK_LOOK_S = 0.05
LINKS_WANTED_MAX = 64
"""Members without a link that are asked at all."""
HOME_S = 30.0
HOMES_MAX = 256

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Home:
    node: NodeId
    job: str
    until_s: float


class FarJobs:
    """What this node knows of jobs that others own."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._homes: dict[str, _Home] = {}

    async def ask(self, question: Question, kind: type[Answer]) -> Answer:
        """Asks the owner of the job that the question names; raises what it raises, ``LocalFault`` where
        nobody knows the job."""
        home = self._homes.get(question.job)
        if home is not None and time.monotonic() < home.until_s:
            try:
                return await self.ask_node(home.node, self._about(home, question), kind)
            except (NotOwned, EnvironmentFault):
                del self._homes[question.job]
        home = await self._find(question.job)
        if len(self._homes) >= HOMES_MAX:
            self._homes.clear()
        self._homes[question.job] = home
        return await self.ask_node(home.node, self._about(home, question), kind)

    def home_of(self, job: str) -> NodeId | None:
        """Returns who owned a job when it was asked for last."""
        home = self._homes.get(job)
        return home.node if home is not None else None

    async def ask_node(self, node: NodeId, question: Question, kind: type[Answer]) -> Answer:
        """Asks one member; opens a link where there is none."""
        name = views.name_of(self._agent.node, node)
        await self._link([node])
        try:
            data, fault = await self._agent.asking.ask(node, question)
        except EnvironmentFault as error:
            raise EnvironmentFault(
                f"{name} can't be asked: {error.what}", f"is {name} up? see `meshpeer peers`"
            ) from error
        if fault:
            raise decode_fault(data)
        try:
            return msgspec.json.decode(data, type=kind)
        except UNREADABLE as error:
            raise PeerFault(f"the answer of {name} can't be read", "compare `meshpeer version`") from error

    async def everywhere(self) -> tuple[list[Job], list[str]]:
        """Returns the jobs of all members, each as who knows it best tells it, and the names of those that
        are in and did not answer."""
        found, silent = await self._ask_all(Question(what="list"), list[Job])
        best: dict[str, Job] = {}
        told = [(node, job) for node, jobs in found.items() for job in jobs]
        for job in [job for node, job in told if self._may_own(node, job.id, job.as_of)]:
            if job.id not in best or _rank(job.as_of) > _rank(best[job.id].as_of):
                best[job.id] = job
        return list(best.values()), silent

    # --- finding --------------------------------------------------------------------------------------------

    async def _find(self, job: str) -> _Home:
        found, silent = await self._ask_all(Question(what="find", job=job), list[JobHit])
        best: dict[str, tuple[JobHit, NodeId]] = {}
        for node, some in found.items():
            for hit in some:
                if not self._may_own(node, hit.id, hit.as_of):
                    continue
                if hit.id not in best or _rank(hit.as_of) > _rank(best[hit.id][0].as_of):
                    best[hit.id] = hit, node
        hits = sorted(best.values(), key=lambda one: one[0].submitted_at)
        exact = [one for one in hits if one[0].id == job]
        named = [one for one in hits if one[0].name == job]
        chosen = exact or named[-1:] or hits
        if len(chosen) > 1:
            what = f"{job!r} fits {len(chosen)} jobs"
            raise LocalFault(what, "give more of the id: see `meshpeer jobs list`")
        if not chosen:
            check_not_forgotten(self._agent, job)
            raise LocalFault(f"no node that can be asked knows a job {job!r}", self._absence(silent))
        ((hit, node),) = chosen
        # A replica is asked while nobody owns the job, which ends soon.
        return _Home(node, hit.id, time.monotonic() + HOME_S * (hit.as_of is None))

    def _may_own(self, node: NodeId, job: str, as_of: str | None) -> bool:
        """Says whether a member's word counts: of a job that is kept here, who may own it is known."""
        copy = self._agent.node.scheduler.replicas.copies.get(JobId(job))
        return as_of is not None or copy is None or node in copy.names

    def _absence(self, silent: list[str]) -> str:
        """Says who might know more, and is away or silent."""
        node = self._agent.node
        away = [
            one for one in node.roster.members if node.detector.opinion(one.node).state is not State.ALIVE
        ]
        away = [one for one in away if one.node != node.me]
        told = []
        for one in away[:3]:
            since = node.detector.opinion(one.node).since_unix_s
            told.append(f"{one.name} is away" + (f" since {rfc3339(since)[11:19]} UTC" if since else ""))
        told += [f"{name} does not answer" for name in silent[:3] if name not in {one.name for one in away}]
        if not told:
            return "see `meshpeer jobs list`"
        return f"{', '.join(told)}: a job is known at its owner; see `meshpeer jobs list`"

    async def _ask_all(
        self, question: Question, kind: type[Answer]
    ) -> tuple[dict[NodeId, Answer], list[str]]:
        """Asks every member that lives, each with a bound; returns answers, and names of the silent."""
        node = self._agent.node
        members = [one.node for one in node.roster.members if one.node != node.me]
        alive = [one for one in members if node.detector.opinion(one).state is State.ALIVE]
        linked = [one for one in alive if node.links.link_to(one) is not None]
        others = [one for one in alive if one not in set(linked)][:LINKS_WANTED_MAX]
        found: dict[NodeId, Answer] = {}

        async def ask(member: NodeId) -> None:
            with trio.move_on_after(FIND_S):
                try:
                    found[member] = await self.ask_node(member, question, kind)
                except MeshpeerError:
                    return

        async with trio.open_nursery() as nursery:
            for member in (*linked, *others):
                nursery.start_soon(ask, member)
        silent = [views.name_of(node, one) for one in members if one not in found]
        return {one: found[one] for one in members if one in found}, silent

    async def _link(self, nodes: list[NodeId]) -> None:
        """Waits a while for links to these members, which are opened where there are none."""
        agent = self._agent
        missing = [one for one in nodes if agent.node.links.link_to(one) is None]
        for one in missing:
            agent.driver.post(LinkWanted(peer=one))
        with trio.move_on_after(LINK_S):
            while any(agent.node.links.link_to(one) is None for one in missing):  # noqa: ASYNC110
                await trio.sleep(LINK_LOOK_S)

    @staticmethod
    def _about(home: _Home, question: Question) -> Question:
        return msgspec.structs.replace(question, job=home.job)


def _rank(as_of: str | None) -> tuple[bool, str]:
    """Puts an owner's word before a replica's, and of replicas' the latest."""
    return (as_of is None, as_of or "")

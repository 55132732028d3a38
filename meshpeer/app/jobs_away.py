"""Jobs that another node owns: finds who knows best, and asks there.

Every linked member is asked who has a job; its owner's word counts, else that of the replica that heard its
owner last. What a question means to the node that is asked stands in ``api_jobs``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import trio

from meshpeer.core.errors import LocalFault, MeshpeerError
from meshpeer.core.ids import NodeId
from meshpeer.runtime.control import Job
from meshpeer.runtime.job_questions import ANSWER_WAIT_S

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

Shape = TypeVar("Shape")
FIND_WAIT_S = 3.0


@dataclass(frozen=True, slots=True)
class Found:
    """A job, as the peer that knows it best tells it."""

    job: Job
    peer: NodeId


class JobsAway:
    """What this node can learn of others' jobs."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def find(self, job: str) -> Found | None:
        """Returns who owns a job (an id, the beginning of one, or a name), or else knows it best; None where
        nobody does. Raises ``LocalFault`` where several jobs fit."""
        found = [Found(one, peer) for peer, jobs in await self._all("job", (job,), Job) for one in [jobs]]
        if len({one.job.id for one in found}) > 1 and len({one.job.name for one in found} - {job}):
            count = len({one.job.id for one in found})
            raise LocalFault(f"{job!r} fits {count} jobs", "give more of the id: see `meshpeer jobs list`")
        return max(found, key=lambda one: (one.job.submitted_at, _rank(one.job)), default=None)

    async def jobs(self) -> dict[str, Job]:
        """Returns all jobs that linked members know of, by id."""
        best: dict[str, Job] = {}
        for _, jobs in await self._all("jobs", (), list[Job]):
            for job in jobs:
                if job.id not in best or _rank(job) > _rank(best[job.id]):
                    best[job.id] = job
        return best

    async def ask(
        self,
        peer: NodeId,
        what: str,
        arguments: Iterable[str],
        shape: type[Shape],
        *,
        wait_s: float = ANSWER_WAIT_S,
    ) -> Shape:
        return await self._agent.questions.ask(peer, what, arguments, shape, wait_s=wait_s)

    async def _all(
        self, what: str, arguments: tuple[str, ...], shape: type[Shape]
    ) -> list[tuple[NodeId, Shape]]:
        """Asks every linked member at once; who does not know, or answer in time, is left out."""
        answers: dict[NodeId, Shape] = {}

        async def one(peer: NodeId) -> None:
            try:
                answers[peer] = await self._agent.questions.ask(
                    peer, what, arguments, shape, wait_s=FIND_WAIT_S
                )
            except MeshpeerError:
                return

        peers = sorted(self._agent.node.links.peers)
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(one, peer)
        return [(peer, answers[peer]) for peer in peers if peer in answers]


def _rank(job: Job) -> tuple[bool, str]:
    """An owner's word before a replica's, of replicas' the latest."""
    return (job.as_of is None, job.as_of or "")

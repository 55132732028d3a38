"""Answers what other members ask about jobs that this node owns, tasks that it runs, and its work.

Who may submit may look, as may admins; who submitted a job, and admins, may change it; admins may drain. What
a running task prints is told to its owner alone, who tells it to whoever may look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from meshpeer.app import views
from meshpeer.app.api_job_work import JobWork
from meshpeer.app.api_jobs import LOG_PIECE_BYTES
from meshpeer.core.errors import LocalFault, MeshpeerError, PeerFault, Refused
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.scheduler.messages import Attempt
from meshpeer.runtime.asking import NEWS_S, NotOwned, Question, encode_fault
from meshpeer.runtime.control import LogPiece

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

LISTED_MAX = 500
"""Jobs that one node tells of, the newest."""
COPY_LOOK_S = 1.0
"""After which a replica says how a job is that somebody watches: its owner may be back, or another one."""
LOOK_S = 0.1
"""Between two looks at what a task has printed."""
_LOOKS = ("find", "list", "job", "news", "tasks", "outputs", "output", "log", "why", "graph", "drain_of")
_OF_COPIES = ("job", "news", "tasks", "outputs", "output", "log")
"""What a replica answers, too: it may know less than the owner."""
_CHANGES = ("cancel", "pause", "prioritise", "retry")
_HEAVY = ("list", "tasks", "outputs", "why", "graph")


def is_heavy(question: Question) -> bool:
    """Says whether an answer may take megabytes."""
    return question.what in _HEAVY


class Asked:
    """What this node answers to members."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def answer(self, peer: NodeId, question: Question) -> tuple[bytes, bool]:
        """Returns a document, or a fault and True, in JSON."""
        try:
            document = await self._answered(peer, question)
        except MeshpeerError as fault:
            return encode_fault(fault), True
        except Exception as bug:  # noqa: BLE001  a member's question must not end this agent
            fields = (("question", question.what), ("error", repr(bug)[:200]))
            self._agent.log.write("error", "a question could not be answered", fields)
            return encode_fault(PeerFault("it failed at that question", "its log says more")), True
        return msgspec.json.encode(document), False

    async def _answered(self, peer: NodeId, question: Question) -> object:
        what = question.what
        if what == "live":
            return await self._live(peer, question)
        self._check(peer, what, question.job)
        if what in ("find", "list", "drain", "drain_of"):
            return await self._of_this_node(question)
        if self._own.owns(question.job) is None and not (
            what in _OF_COPIES and self._own.keeps(question.job)
        ):
            raise NotOwned(f"{self._name(self._agent.node.me)} owns no job {question.job!r}", "")
        if what in _CHANGES:
            return await self._change(question)
        return await self._look(question)

    @property
    def _own(self) -> JobWork:
        return self._agent.api

    def _name(self, node: NodeId) -> str:
        return views.name_of(self._agent.node, node)

    # --- rights ---------------------------------------------------------------------------------------------

    def _check(self, peer: NodeId, what: str, job: str) -> None:
        """Raises ``Refused`` where this member may not ask that, ``PeerFault`` for what nobody can."""
        may = self._agent.node.ledger.may
        admin = may(peer, Capability.ADMIN)
        if what in _LOOKS:
            if not (admin or may(peer, Capability.SUBMIT)):
                raise Refused(
                    f"{self._name(peer)} may not look at jobs of other nodes",
                    "its invite was made with --deny submit; ask at the job's owner",
                )
        elif what in _CHANGES:
            owner = self._own.owns(job)
            if not admin and owner is not None and owner.record.submitter != peer:
                raise Refused(
                    f"{self._name(peer)} may not change a job of {self._name(owner.record.submitter)}",
                    f"do it at {self._name(owner.record.submitter)}, or at a node with the capability admin",
                )
        elif what == "drain":
            if not admin:
                me = self._name(self._agent.node.me)
                raise Refused(
                    f"{self._name(peer)} may not drain {me}",
                    f"do it at {me} itself, or at a node with the capability admin",
                )
        else:
            raise PeerFault(f"this node can't answer {what!r}", "is it of an earlier version?")

    # --- answers --------------------------------------------------------------------------------------------

    async def _of_this_node(self, question: Question) -> object:
        own = self._own
        match question.what:
            case "find":
                return own.hits(question.job)
            case "list":
                return own.jobs_here()[:LISTED_MAX]
            case "drain":
                return await own.drain_here(question.on)
            case _:
                return own.drained_here()

    async def _look(self, question: Question) -> object:
        own, job = self._own, question.job
        match question.what:
            case "job":
                return await JobWork.job(own, job)
            case "news" if own.owns(job) is None:
                await trio.sleep(COPY_LOOK_S)
                return await JobWork.job(own, job)
            case "news":
                return await own.news(job, question.seen)
            case "tasks":
                return await JobWork.tasks(own, job)
            case "outputs":
                return await JobWork.outputs(own, job, question.task)
            case "output":
                return await own.placed_output(
                    job, question.task, question.tasks[0] if question.tasks else ""
                )
            case "log":
                return await JobWork.log(
                    own, job, question.task, question.stream, question.offset, question.wait, question.number
                )
            case "why":
                return await JobWork.why_task(own, job, question.task)
            case _:
                return await JobWork.graph(own, job)

    async def _change(self, question: Question) -> object:
        own, job = self._own, question.job
        match question.what:
            case "cancel":
                return await JobWork.cancel(own, job)
            case "pause":
                return await JobWork.pause(own, job, question.on)
            case "prioritise":
                return await JobWork.prioritise(own, job, question.number)
            case _:
                return await JobWork.retry(own, job, question.tasks)

    # --- what runs here -------------------------------------------------------------------------------------

    async def _live(self, peer: NodeId, question: Question) -> LogPiece:
        """Tells an owner what its task prints here, as far as it has; with ``wait`` once there is more, or it
        has ended."""
        worker = self._agent.node.scheduler.worker
        attempt, job = question.attempt, JobId(question.job)
        if attempt is None or question.stream not in ("stdout", "stderr"):
            raise LocalFault("it is not said which output", "streams are stdout and stderr")
        if worker.owner_of(job, attempt) != peer:
            raise Refused("this node runs nothing like that for who asks", "ask at the job's owner")
        with trio.move_on_after(NEWS_S if question.wait else 0):
            while not (data := self._printed(job, attempt, question)):
                if worker.owner_of(job, attempt) != peer:
                    break
                await trio.sleep(LOOK_S)
        data = self._printed(job, attempt, question)
        ended = worker.owner_of(job, attempt) != peer
        return LogPiece(data=data, offset=question.offset + len(data), finished=ended)

    def _printed(self, job: JobId, attempt: Attempt, question: Question) -> bytes:
        agent = self._agent
        key = agent.attempts.key_of(job, attempt)
        return agent.executor.log(key, question.stream, question.offset, LOG_PIECE_BYTES) or b""

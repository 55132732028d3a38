"""Answers about jobs at any node: those that this node owns here, those of others by asking their owners."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import trio

from meshpeer.app.api_job_work import JobWork
from meshpeer.app.api_jobs import TakenOver, digest_of
from meshpeer.app.far_jobs import FarJobs
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.ids import Digest, NodeId
from meshpeer.runtime.asking import OutputPlace, Question
from meshpeer.runtime.control import Job, LogPiece, OutputFile, OutputState, Task
from meshpeer.runtime.job_docs import Drain, JobGraph, JobList, JobWhy
from meshpeer.runtime.ports import BlobRef

Answer = TypeVar("Answer")
AGAIN_S = 2.0
"""Before an owner that went away is looked for again, by whoever watches its job."""
NEWS_PAUSE_S = 0.5
AWAY_MAX_S = 600.0
"""How long a watch waits for an owner that went away."""


class AnywhereAnswers(JobWork):
    """The part of the control API that is about jobs, whoever owns them."""

    @property
    def far(self) -> FarJobs:
        if self._far is None:
            self._far = FarJobs(self._agent)
        return self._far

    _far: FarJobs | None = None

    async def all_jobs(self) -> JobList:
        others, silent = await self.far.everywhere()
        known = {one.id: one for one in others}
        for one in self.jobs_here():
            if one.as_of is None or one.id not in known:
                known[one.id] = one
        newest_first = sorted(known.values(), key=lambda one: one.submitted_at, reverse=True)
        return JobList(jobs=tuple(newest_first), silent=tuple(silent))

    # --- looking --------------------------------------------------------------------------------------------

    async def job(self, job: str) -> Job:
        here = super().job
        return await self._look(Question(what="job", job=job), Job, lambda: here(job))

    async def tasks(self, job: str) -> list[Task]:
        here = super().tasks
        return await self._look(Question(what="tasks", job=job), list[Task], lambda: here(job))

    async def outputs(self, job: str, task: str) -> list[OutputFile]:
        here = super().outputs
        question = Question(what="outputs", job=job, task=task)
        return await self._look(question, list[OutputFile], lambda: here(job, task))

    async def log(
        self, job: str, task: str, stream: str, offset: int, wait: bool, attempt: int = 0
    ) -> LogPiece:
        here = super().log
        question = Question(
            what="log", job=job, task=task, stream=stream, offset=offset, wait=wait, number=attempt
        )
        return await self._look(question, LogPiece, lambda: here(job, task, stream, offset, wait, attempt))

    async def _look(
        self, question: Question, kind: type[Answer], here: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """Answers from this node where it owns the job, else from whoever knows it best; and from the replica
        here, where nobody else can be asked."""
        if self._is_own(question.job):
            return await here()
        try:
            return await self.far.ask(question, kind)
        except (LocalFault, EnvironmentFault):
            if not self.keeps(question.job):
                raise
        return await here()

    async def ready_output(self, job: str, task: str, path: str) -> OutputState:
        if self._is_own(job):
            return await super().ready_output(job, task, path)
        ref, holders = await self._placed(job, task, path)
        return await self._state_of(ref, lambda: self._agent.files.transfers.fetch(ref, holders))

    async def get_output(self, job: str, task: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        if self._is_own(job):
            pieces = super().get_output(job, task, path, offset)
        else:
            ref, holders = await self._placed(job, task, path)
            pieces = self._pieces_of(ref, lambda: self._agent.files.transfers.fetch(ref, holders), offset)
        async for piece in pieces:
            yield piece

    async def _placed(self, job: str, task: str, path: str) -> tuple[BlobRef, tuple[NodeId, ...]]:
        """Returns what an output of another node's job is, and who may have it: its maker, then its owner."""
        here = super().placed_output
        question = Question(what="output", job=job, task=task, tasks=(path,))
        place = await self._look(question, OutputPlace, lambda: here(job, task, path))
        home = self.far.home_of(job)
        holders = (*(NodeId(bytes.fromhex(one)) for one in place.holders), *([home] if home else []))
        return BlobRef(digest=Digest(bytes.fromhex(place.file.sha256)), size=place.file.size), holders

    async def watch(self, job: str) -> AsyncIterator[Job]:
        present: Job | None = None
        while present is None or present.finished_at is None:
            if self._is_own(job):
                with contextlib.suppress(TakenOver):
                    async for present in super().watch(job):
                        # From here on by id: a name may come to mean a newer job.
                        job = present.id
                        yield present
                    return
            if present is None:
                present = await self.job(job)
                job = present.id
            else:
                present = await self._news(job, digest_of(present))
            yield present

    async def _news(self, job: str, seen: bytes) -> Job:
        """Returns a job of another node once it is not as it was seen, or this node's own; waits for an owner
        that is away."""
        with trio.move_on_after(AWAY_MAX_S) as patience:
            while True:
                if self._is_own(job):
                    return await super().job(job)
                with contextlib.suppress(EnvironmentFault, LocalFault):
                    present = await self.far.ask(Question(what="news", job=job, seen=seen), Job)
                    if digest_of(present) != seen:
                        return present
                    patience.deadline = trio.current_time() + AWAY_MAX_S
                    # An owner of another version may have told the very same at once.
                    await trio.sleep(NEWS_PAUSE_S)
                    continue
                await trio.sleep(AGAIN_S)
        raise EnvironmentFault(
            f"the owner of {job} has been away for {AWAY_MAX_S / 60:.0f} min",
            "the job goes on when it is back; see `meshpeer peers`",
        )

    async def why_task(self, job: str, task: str) -> JobWhy:
        if self._is_own(job):
            return await super().why_task(job, task)
        return await self.far.ask(Question(what="why", job=job, task=task), JobWhy)

    async def graph(self, job: str) -> JobGraph:
        if self._is_own(job):
            return await super().graph(job)
        return await self.far.ask(Question(what="graph", job=job), JobGraph)

    # --- changing -------------------------------------------------------------------------------------------

    async def cancel(self, job: str) -> Job:
        if self._is_own(job):
            return await super().cancel(job)
        return await self.far.ask(Question(what="cancel", job=job), Job)

    async def pause(self, job: str, paused: bool) -> Job:
        if self._is_own(job):
            return await super().pause(job, paused)
        return await self.far.ask(Question(what="pause", job=job, on=paused), Job)

    async def prioritise(self, job: str, priority: int) -> Job:
        if self._is_own(job):
            return await super().prioritise(job, priority)
        return await self.far.ask(Question(what="prioritise", job=job, number=priority), Job)

    async def retry(self, job: str, tasks: tuple[str, ...]) -> Job:
        if self._is_own(job):
            return await super().retry(job, tasks)
        return await self.far.ask(Question(what="retry", job=job, tasks=tasks), Job)

    # --- nodes ----------------------------------------------------------------------------------------------

    async def drain_of(self, node: str) -> Drain:
        member = self._named_node(node)
        if member is None:
            return self.drained_here()
        return await self.far.ask_node(member, Question(what="drain_of"), Drain)

    async def drain(self, node: str, drained: bool) -> Drain:
        member = self._named_node(node)
        if member is None:
            return await self.drain_here(drained)
        return await self.far.ask_node(member, Question(what="drain", on=drained), Drain)

    def _named_node(self, name: str) -> NodeId | None:
        """Returns a member by name; None for this node itself."""
        node = self._agent.node
        listed = node.roster.named(name) if name else None
        if name and listed is None:
            known = ", ".join(one.name for one in node.roster.members)
            raise LocalFault(f"there is no member {name!r}", f"members are: {known}")
        return None if listed is None or listed.node == node.me else listed.node

    def _is_own(self, job: str) -> bool:
        return self.owns(job) is not None

"""Answers about jobs at any node: those that this node owns here, those of others by asking their owners."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator

import msgspec
import trio

from meshpeer.app.api_job_work import JobWork
from meshpeer.app.api_jobs import LOG_PIECE_BYTES
from meshpeer.app.far_jobs import FarJobs
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.ids import Digest, NodeId
from meshpeer.runtime.asking import Question
from meshpeer.runtime.control import Job, LogPiece, OutputFile, Task
from meshpeer.runtime.job_docs import Drain, JobGraph, JobList, JobWhy
from meshpeer.runtime.ports import BlobRef

AGAIN_S = 2.0
"""Before an owner that went away is looked for again, by whoever watches its job."""
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
        own = await super().jobs()
        others, silent = await self.far.everywhere()
        here = {one.id for one in own}
        all_of_them = [*own, *(one for one in others if one.id not in here)]
        newest_first = sorted(all_of_them, key=lambda one: one.submitted_at, reverse=True)
        return JobList(jobs=tuple(newest_first), silent=tuple(silent))

    # --- looking --------------------------------------------------------------------------------------------

    async def job(self, job: str) -> Job:
        if self._is_own(job):
            return await super().job(job)
        return await self.far.ask(Question(what="job", job=job), Job)

    async def tasks(self, job: str) -> list[Task]:
        if self._is_own(job):
            return await super().tasks(job)
        return await self.far.ask(Question(what="tasks", job=job), list[Task])

    async def outputs(self, job: str, task: str) -> list[OutputFile]:
        if self._is_own(job):
            return await super().outputs(job, task)
        return await self.far.ask(Question(what="outputs", job=job, task=task), list[OutputFile])

    async def get_output(self, job: str, task: str, path: str) -> AsyncIterator[bytes]:
        if self._is_own(job):
            async for piece in super().get_output(job, task, path):
                yield piece
            return
        file = await self.far.ask(Question(what="output", job=job, task=task, tasks=(path,)), OutputFile)
        home = self.far.home_of(job)
        digest = Digest(bytes.fromhex(file.sha256))
        if home is not None:
            await self._agent.exchange.fetch(BlobRef(digest=digest, size=file.size), home)
        offset = 0
        while offset < file.size:
            data = await self._agent.blobs.read(digest, offset, LOG_PIECE_BYTES)
            if not data:
                raise EnvironmentFault(f"{path} of {task} is gone from the cache", "fetch it again")
            offset += len(data)
            yield data

    async def log(
        self, job: str, task: str, stream: str, offset: int, wait: bool, attempt: int = 0
    ) -> LogPiece:
        if self._is_own(job):
            return await super().log(job, task, stream, offset, wait, attempt)
        question = Question(
            what="log", job=job, task=task, stream=stream, offset=offset, wait=wait, number=attempt
        )
        return await self.far.ask(question, LogPiece)

    async def watch(self, job: str) -> AsyncIterator[Job]:
        if self._is_own(job):
            async for one in super().watch(job):
                yield one
            return
        present = await self.far.ask(Question(what="job", job=job), Job)
        # From here on by id: a name may come to mean a newer job.
        job = present.id
        while True:
            yield present
            if present.finished_at is not None:
                return
            seen = hashlib.sha256(msgspec.json.encode(present)).digest()
            present = await self._news(job, seen)

    async def _news(self, job: str, seen: bytes) -> Job:
        """Returns a job of another node once it is not as it was seen; waits for an owner that is away."""
        with trio.move_on_after(AWAY_MAX_S):
            while True:
                with contextlib.suppress(EnvironmentFault, LocalFault):
                    present = await self.far.ask(Question(what="news", job=job, seen=seen), Job)
                    if hashlib.sha256(msgspec.json.encode(present)).digest() != seen:
                        return present
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
        return bool(self.fitting(job))

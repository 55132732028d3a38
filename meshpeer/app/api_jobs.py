"""Answers what is asked about jobs and their files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import trio

from meshpeer.app import views
from meshpeer.app.jobs_away import Found, JobsAway
from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError, Refused, StoreFailed
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex, Ticket
from meshpeer.core.jobs.check import require_valid
from meshpeer.core.jobs.model import FileRef, JobRecord, JobSpec
from meshpeer.core.records import envelope
from meshpeer.core.scheduler.asking import JobAsked
from meshpeer.core.scheduler.messages import CancelAsked, JobSubmitted
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.wire import cbor
from meshpeer.runtime.control import (
    Job,
    LogPiece,
    OutputFile,
    Submission,
    Task,
)
from meshpeer.runtime.job_questions import LONG_WAIT_S, NotHere
from meshpeer.runtime.ports import BlobRef

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

LOG_PIECE_BYTES = 256 * 1024
LOG_WAIT_S = 20.0
MANIFEST_BYTES_MAX = 32 * 1024 * 1024
SPEC_BYTES_MAX = 64 * 1024 * 1024
JOB_ID = re.compile(r"j[a-z2-7]{19}")
DRIFT_SHOWN_S = 600.0
REPLICAS_WAIT_S = 15.0
"""How long `submit` waits for a second replica."""
HOLD_WAIT_S = 120.0
"""An owner may have to fetch an output from its worker first."""
AWAY_LOOK_S = 0.5
"""How often a job that another node owns is looked at while it is watched."""
AWAY_MISSES_MAX = 10
"""Looks in vain until a watch gives up."""


class JobAnswers:
    """The part of the control API that is about jobs."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._watchers: dict[str, trio.Event] = {}
        self._failure: StoreFailed | None = None
        self._away = JobsAway(agent)

    # --- called by the agent --------------------------------------------------------------------------------

    def on_job_changed(self, job: JobId) -> None:
        """Wakes whoever watches the job."""
        event = self._watchers.pop(job, None)
        if event is not None:
            event.set()

    def fail(self, error: StoreFailed) -> None:
        """Nothing can be written any more: whoever waits is told why."""
        self._failure = error
        for event in self._watchers.values():
            event.set()
        self._watchers.clear()

    # --- files ----------------------------------------------------------------------------------------------

    async def has_blob(self, digest: str) -> bool:
        return self._agent.blobs.path(_digest(digest)) is not None

    async def put_blob(self, digest: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        async with self._agent.blobs.receive(BlobRef(digest=_digest(digest), size=size)) as writer:
            async for piece in pieces:
                if piece:
                    await writer.write(piece)
            await writer.finish()

    async def get_output(self, job: str, task: str, path: str) -> AsyncIterator[bytes]:
        found = await self._find(job)
        if isinstance(found, Found):
            async for data in self._output_away(found, task, path):
                yield data
            return
        owner, index = self._task(found, task)
        for file in await self._manifest(owner, index):
            if file.path == path:
                await self._have(BlobRef(digest=file.digest, size=file.size), owner, index)
                offset = 0
                while offset < file.size:
                    data = await self._agent.blobs.read(file.digest, offset, LOG_PIECE_BYTES)
                    offset += len(data)
                    yield data
                return
        raise LocalFault(f"{task} has no output {path!r}", f"see `meshpeer jobs tasks {job}`")

    # --- jobs -----------------------------------------------------------------------------------------------

    async def submit(self, submission: Submission) -> Job:
        agent, node = self._agent, self._agent.node
        if not JOB_ID.fullmatch(submission.job):
            raise LocalFault(
                f"{submission.job!r} is not a job id", "a job id is j and 19 letters or digits 2 to 7"
            )
        job = JobId(submission.job)
        owner = node.scheduler.owned.get(job)
        if owner is None and job in node.scheduler.replicas.copies:
            # Submitted before, and taken over since.
            return await self.job(job)
        if owner is None:
            self._check_may_submit()
            spec = cbor.decode(submission.spec, JobSpec, bytes_max=SPEC_BYTES_MAX)
            require_valid(spec)
            missing = [file.path for file in spec.files if agent.blobs.path(file.digest) is None]
            if missing:
                raise LocalFault(
                    f"the job's file {missing[0]} was not uploaded",
                    "submit again with `meshpeer jobs submit`",
                )
            record = JobRecord(
                job=job,
                submitter=node.me,
                submitted_at_us=int(agent.clock.now().unix_s * 1e6),
                spec=spec,
                replicas=node.scheduler.choose_replicas(job),
            )
            signed = envelope.sign(agent.state.key, agent.state.mesh, record, context=envelope.JOB_CONTEXT)
            stored = await agent.blobs.add_bytes(signed)
            agent.driver.step_now(JobSubmitted(record=record, signed=signed, digest=Digest(stored.digest)))
            owner = node.scheduler.owned[job]
        with trio.move_on_after(REPLICAS_WAIT_S):
            await self._settled(owner, owner.accept_ticket)
            return self._view(owner)
        raise EnvironmentFault(
            "the job is on this node's disk alone: none of its other replicas answers",
            f"it begins when one does; see `meshpeer peers` and `meshpeer jobs status {job}`",
        )

    async def jobs(self) -> list[Job]:
        jobs = await self._away.jobs()
        for one in self.jobs_here():
            if one.as_of is None or one.id not in jobs:
                jobs[one.id] = one
        return sorted(jobs.values(), key=lambda one: one.submitted_at, reverse=True)

    def jobs_here(self) -> list[Job]:
        """Returns the jobs that this node owns, or keeps a replica of."""
        scheduler = self._agent.node.scheduler
        here = dict(scheduler.owned)
        for job in scheduler.replicas.copies:
            if job not in here and (seen := scheduler.seen(job)) is not None:
                here[job] = seen
        jobs = [self._view(one) for one in here.values()]
        return sorted(jobs, key=lambda one: one.submitted_at, reverse=True)

    async def job(self, job: str) -> Job:
        found = await self._find(job)
        return found.job if isinstance(found, Found) else self._view(found)

    async def tasks(self, job: str) -> list[Task]:
        found = await self._find(job)
        if isinstance(found, Found):
            return await self._away.ask(found.peer, "tasks", (found.job.id,), list[Task], wait_s=LONG_WAIT_S)
        return await self._tasks_of(found)

    async def _tasks_of(self, owner: JobOwner) -> list[Task]:
        tasks: list[Task] = []
        for number in range(len(owner.graph)):
            index = TaskIndex(number)
            row = owner.results.get(index)
            outputs: tuple[str, ...] = ()
            if row is not None and row.outputs and self._agent.blobs.path(row.manifest.digest) is not None:
                outputs = tuple(file.path for file in await self._manifest(owner, index))
            tasks.append(views.task_view(self._agent.node, owner, index, outputs))
        return tasks

    async def outputs(self, job: str, task: str) -> list[OutputFile]:
        found = await self._find(job)
        if isinstance(found, Found):
            arguments = (found.job.id, task)
            return await self._away.ask(
                found.peer, "outputs", arguments, list[OutputFile], wait_s=LONG_WAIT_S
            )
        return await self._outputs_of(found, task)

    async def _outputs_of(self, owner: JobOwner, task: str) -> list[OutputFile]:
        owner, index = self._task(owner, task)
        files = await self._manifest(owner, index)
        return [
            OutputFile(path=one.path, sha256=one.digest.hex(), size=one.size, executable=one.executable)
            for one in files
        ]

    async def log(self, job: str, task: str, stream: str, offset: int, wait: bool) -> LogPiece:
        if stream not in ("stdout", "stderr"):
            raise LocalFault(f"{stream!r} is not a stream", "streams are stdout and stderr")
        found = await self._find(job)
        if isinstance(found, Found):
            arguments = (found.job.id, task, stream, str(offset), "wait" if wait else "")
            return await self._away.ask(found.peer, "log", arguments, LogPiece, wait_s=LONG_WAIT_S)
        return await self._log_of(found, task, stream, offset, wait)

    async def _log_of(self, owner: JobOwner, task: str, stream: str, offset: int, wait: bool) -> LogPiece:
        owner, index = self._task(owner, task)
        deadline = trio.current_time() + (LOG_WAIT_S if wait else 0.0)
        while True:
            row = owner.results.get(index)
            if row is not None:
                blob = row.stdout if stream == "stdout" else row.stderr
                if not blob.size:
                    return LogPiece(data=b"", offset=offset, finished=True)
                await self._have(BlobRef(digest=blob.digest, size=blob.size), owner, index)
                data = await self._agent.blobs.read(blob.digest, offset, LOG_PIECE_BYTES)
                return LogPiece(
                    data=data, offset=offset + len(data), finished=offset + len(data) >= blob.size
                )
            lease = owner.leases.get(index)
            if lease is not None and lease.node == self._agent.node.me:
                live = self._agent.executor.log(
                    self._agent.attempts.key_of(owner.job, lease.attempt), stream, offset, LOG_PIECE_BYTES
                )
                if live:
                    return LogPiece(data=live, offset=offset + len(live), finished=False)
            if owner.finished or trio.current_time() >= deadline:
                return LogPiece(data=b"", offset=offset, finished=owner.finished)
            await trio.sleep(0.1)

    async def watch(self, job: str) -> AsyncIterator[Job]:
        found = await self._find(job)
        if isinstance(found, Found):
            async for present in self._watch_away(found):
                yield present
            return
        owner = found
        last: Job | None = None
        while True:
            event = self._watchers.setdefault(owner.job, trio.Event())
            # Looked at once a round: the job may end while the reader has the floor, and that must be told,
            # too.
            ended = owner.finished
            if ended:
                # The end is told once it is on disk: a crash must not take it back.
                await self._settled(owner, owner.last_ticket)
            present = self._view(owner)
            if present != last:
                yield present
                last = present
            if ended:
                return
            await event.wait()
            if self._failure is not None:
                raise self._failure
            await trio.sleep(0.05)
            if not owner.finished and self._agent.node.scheduler.owned.get(owner.job) is not owner:
                # Another node owns it now.
                async for present in self.watch(owner.job):
                    yield present
                return

    async def cancel(self, job: str) -> Job:
        found = await self._find(job)
        if isinstance(found, Found):
            return await self._away.ask(found.peer, "cancel", (found.job.id,), Job, wait_s=LONG_WAIT_S)
        return await self._cancel_here(found)

    async def _cancel_here(self, owner: JobOwner) -> Job:
        if owner.job not in self._agent.node.scheduler.owned:
            raise EnvironmentFault(
                "the job's owner is away: nobody can cancel it now",
                "a replica takes it over within seconds, where two of three are there",
            )
        self._agent.driver.step_now(CancelAsked(job=owner.job))
        await self._settled(owner, owner.last_ticket)
        return self._view(owner)

    # --- other nodes ----------------------------------------------------------------------------------------

    async def answer(self, peer: NodeId, asked: JobAsked) -> object:
        """Returns what answers a peer's question, from what this node has itself; raises where it has
        nothing."""
        match asked.what, asked.arguments:
            case "jobs", ():
                return self.jobs_here()
            case "job", (job,):
                return self._view(self._here(job))
            case "tasks", (job,):
                return await self._tasks_of(self._here(job))
            case "outputs", (job, task):
                return await self._outputs_of(self._here(job), task)
            case "log", (job, task, ("stdout" | "stderr") as stream, offset, wait) if offset.isdecimal():
                return await self._log_of(self._here(job), task, stream, int(offset), bool(wait))
            case "hold", (job, task, path):
                return await self._hold(self._here(job), task, path)
            case "cancel", (job,):
                if not self._agent.node.ledger.may(peer, Capability.SUBMIT):
                    raise Refused("that node may not submit jobs, nor cancel any", "")
                return await self._cancel_here(self._here(job))
        raise LocalFault(f"this version knows no question {asked.what!r} like that", "run one version")

    async def _hold(self, owner: JobOwner, task: str, path: str) -> OutputFile:
        """Makes an output of a task present here, for a peer to fetch."""
        owner, index = self._task(owner, task)
        for file in await self._manifest(owner, index):
            if file.path == path:
                await self._have(BlobRef(digest=file.digest, size=file.size), owner, index)
                return OutputFile(
                    path=path, sha256=file.digest.hex(), size=file.size, executable=file.executable
                )
        raise LocalFault(f"{task} has no output {path!r}", f"see `meshpeer jobs tasks {owner.job}`")

    async def _output_away(self, found: Found, task: str, path: str) -> AsyncIterator[bytes]:
        arguments = (found.job.id, task, path)
        file = await self._away.ask(found.peer, "hold", arguments, OutputFile, wait_s=HOLD_WAIT_S)
        ref = BlobRef(digest=_digest(file.sha256), size=file.size)
        if self._agent.blobs.path(ref.digest) is None:
            await self._agent.exchange.fetch(ref, found.peer)
        offset = 0
        while offset < file.size:
            data = await self._agent.blobs.read(ref.digest, offset, LOG_PIECE_BYTES)
            offset += len(data)
            yield data

    async def _watch_away(self, found: Found) -> AsyncIterator[Job]:
        """Looks again and again; its owner may change meanwhile, and be away for some seconds."""
        last: Job | None = None
        missed = 0
        present: Job | None = found.job
        while True:
            if present is not None and present != last:
                yield present
                last = present
            if present is not None and present.finished_at is not None:
                return
            await trio.sleep(AWAY_LOOK_S)
            try:
                present, missed = await self.job(found.job.id), 0
            except MeshpeerError:
                present, missed = None, missed + 1
                if missed >= AWAY_MISSES_MAX:
                    raise

    def _view(self, owner: JobOwner) -> Job:
        return views.job_view(self._agent.node, owner, self._agent.clock.now())

    # --- helpers --------------------------------------------------------------------------------------------

    def _check_may_submit(self) -> None:
        if not self._agent.node.ledger.may(self._agent.node.me, Capability.SUBMIT):
            raise Refused(
                "this node may not submit jobs",
                "its invite was made with --deny submit; submit at another node",
            )

    async def _settled(self, owner: JobOwner, ticket: Ticket | None) -> None:
        """Returns once a write is on disk, on those of a quorum where the job has replicas; raises
        ``EnvironmentFault`` where another node has taken the job over meanwhile."""
        await self._on_disk(ticket)
        scheduler = self._agent.node.scheduler
        while not scheduler.replicas.is_settled(ticket):
            event = self._watchers.setdefault(owner.job, trio.Event())
            await event.wait()
            if self._failure is not None:
                raise self._failure
        if scheduler.owned.get(owner.job) is not owner:
            raise EnvironmentFault(
                "another node has taken the job over", f"see `meshpeer jobs status {owner.job}`"
            )

    async def _on_disk(self, ticket: Ticket | None) -> None:
        """Returns once the ticket is on disk; raises ``StoreFailed`` where it can't be."""
        done = trio.Event()
        self._agent.performer.once_written(ticket, done.set, done.set)
        await done.wait()
        if self._failure is not None:
            raise self._failure

    async def _find(self, job: str) -> JobOwner | Found:
        """Returns a job that this node owns; else who owns it, or knows it best, this node's replica
        included. Raises ``LocalFault`` where nobody does, or several jobs fit."""
        owner = self._owned(job)
        if owner is not None:
            return owner
        found = await self._away.find(job)
        seen = self._seen(job)
        if found is None and seen is None:
            raise LocalFault(
                f"no member that this node is linked with knows a job {job!r}",
                "see `meshpeer jobs list` and `meshpeer peers`",
            )
        if found is None or (seen is not None and found.job.as_of is not None):
            assert seen is not None
            return seen
        return found

    def _here(self, job: str) -> JobOwner:
        """Returns a job that this node owns or keeps a replica of."""
        owner = self._owned(job) or self._seen(job)
        if owner is None:
            raise NotHere(f"this node knows no job {job!r}", "see `meshpeer jobs list`")
        return owner

    def _owned(self, job: str) -> JobOwner | None:
        owned = self._agent.node.scheduler.owned
        chosen = _fitting(job, {one: owner.record for one, owner in owned.items()})
        return owned[chosen] if chosen is not None else None

    def _seen(self, job: str) -> JobOwner | None:
        scheduler = self._agent.node.scheduler
        copies = {one: copy.record for one, copy in scheduler.replicas.copies.items()}
        chosen = _fitting(job, copies)
        return scheduler.seen(chosen) if chosen is not None else None

    def _task(self, owner: JobOwner, task: str) -> tuple[JobOwner, TaskIndex]:
        if not task and len(owner.graph) == 1:
            return owner, TaskIndex(0)
        return owner, owner.graph.find(task)

    async def _manifest(self, owner: JobOwner, index: TaskIndex) -> tuple[FileRef, ...]:
        row = owner.results.get(index)
        if row is None or not row.outputs:
            return ()
        await self._have(BlobRef(digest=row.manifest.digest, size=row.manifest.size), owner, index)
        data = await self._agent.blobs.read(row.manifest.digest, 0, row.manifest.size)
        return cbor.decode(data, tuple[FileRef, ...], bytes_max=MANIFEST_BYTES_MAX)

    async def _have(self, ref: BlobRef, owner: JobOwner, index: TaskIndex) -> None:
        if self._agent.blobs.path(ref.digest) is not None:
            return
        holder = owner.results[index].node
        try:
            await self._agent.exchange.fetch(ref, holder)
        except MeshpeerError as error:
            name = views.name_of(self._agent.node, holder)
            raise EnvironmentFault(
                f"{name}, which holds this file, can't give it: {error.what}",
                f"is {name} up? see `meshpeer peers`",
            ) from error


def _fitting(job: str, records: Mapping[JobId, JobRecord]) -> JobId | None:
    """Returns the job that an id, the beginning of one, or a name means; the newest of one name."""
    if job in records:
        return JobId(job)
    matches = [one for one in records.values() if one.job.startswith(job) or one.spec.name == job]
    if not matches:
        return None
    if len(matches) > 1 and any(one.spec.name != job for one in matches):
        raise LocalFault(f"{job!r} fits {len(matches)} jobs", "give more of the id: see `meshpeer jobs list`")
    return max(matches, key=lambda one: one.submitted_at_us).job


def _digest(text: str) -> Digest:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise LocalFault(f"{text!r} is not a SHA-256", "give 64 hexadecimal digits")
    return Digest(raw)

"""Answers what is asked about jobs and their files."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import msgspec
import trio

from meshpeer.app import views
from meshpeer.app.files import holders_of
from meshpeer.app.forgotten import check_not_forgotten
from meshpeer.app.moves import Moves
from meshpeer.app.pythons import check_pythons
from meshpeer.app.quotas import check_quota
from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError, PeerFault, Refused, StoreFailed
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import Digest, JobId, TaskIndex, Ticket
from meshpeer.core.jobs.check import require_valid
from meshpeer.core.jobs.model import FileRef, JobRecord, JobSpec
from meshpeer.core.jobs.rules import JOB_ID
from meshpeer.core.records import envelope
from meshpeer.core.scheduler.leases import Lease
from meshpeer.core.scheduler.messages import CancelAsked, JobSubmitted
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.rows import TaskRow
from meshpeer.core.wire import cbor
from meshpeer.core.wire.unreadable import UNREADABLE
from meshpeer.runtime.asking import NEWS_S, OutputPlace, Question
from meshpeer.runtime.control import (
    Job,
    LogPiece,
    OutputFile,
    OutputState,
    Submission,
    Task,
    rfc3339,
)
from meshpeer.runtime.job_docs import JobHit
from meshpeer.runtime.ports import BlobRef

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

LOG_PIECE_BYTES = 256 * 1024
LOG_WAIT_S = 20.0
OUTPUT_LOOK_S = 2.0
"""How long an answer about a file that is moved here is held back for more of it to come."""
LOG_LOOK_S = 0.1
ROUND_SPAN = 1_000_000
LIVE_S = 5.0
"""How long a worker has to say what a task of its has printed so far."""
MANIFEST_BYTES_MAX = 32 * 1024 * 1024
SPEC_BYTES_MAX = 64 * 1024 * 1024
DRIFT_SHOWN_S = 600.0
REPLICAS_WAIT_S = 15.0
"""How long `submit` waits for a second replica."""


class TakenOver(EnvironmentFault):
    """Another node owns the job now."""


class JobAnswers:
    """The part of the control API that is about jobs."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._watchers: dict[str, trio.Event] = {}
        self._moves = Moves(lambda work: agent.spawn(work))
        self._failure: StoreFailed | None = None

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
        self._agent.files.keeper.hold_for_a_while(_digest(digest))
        return self._agent.blobs.path(_digest(digest)) is not None

    async def put_blob(self, digest: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        self._agent.files.keeper.hold_for_a_while(_digest(digest))
        async with self._agent.blobs.receive(BlobRef(digest=_digest(digest), size=size)) as writer:
            async for piece in pieces:
                if piece:
                    await writer.write(piece)
            await writer.finish()

    async def ready_output(self, job: str, task: str, path: str) -> OutputState:
        owner, index, file = await self._output(job, task, path)
        ref = BlobRef(digest=file.digest, size=file.size)
        return await self._state_of(ref, lambda: self._have(ref, owner, index))

    async def get_output(self, job: str, task: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        owner, index, file = await self._output(job, task, path)
        ref = BlobRef(digest=file.digest, size=file.size)
        async for piece in self._pieces_of(ref, lambda: self._have(ref, owner, index), offset):
            yield piece

    async def placed_output(self, job: str, task: str, path: str) -> OutputPlace:
        """Returns what an output is, and who should have it: for a member that fetches it there."""
        owner, index, file = await self._output(job, task, path)
        shown = OutputFile(
            path=file.path, sha256=file.digest.hex(), size=file.size, executable=file.executable
        )
        return OutputPlace(file=shown, holders=tuple(node.hex() for node in holders_of(owner, index)))

    async def _state_of(self, ref: BlobRef, move: Callable[[], Awaitable[None]]) -> OutputState:
        """Has a file moved here, and says after a while how far that is."""
        files = self._agent.files
        with trio.move_on_after(OUTPUT_LOOK_S):
            await self._moves.have(ref, move)
        ready = self._agent.blobs.path(ref.digest) is not None
        if ready:
            files.keeper.hold_for_a_while(ref.digest)
        return OutputState(size=ref.size, here_bytes=files.transfers.received(ref), ready=ready)

    async def _pieces_of(
        self, ref: BlobRef, move: Callable[[], Awaitable[None]], offset: int
    ) -> AsyncIterator[bytes]:
        with self._agent.files.keeper.pinning(ref.digest):
            await move()
            while offset < ref.size:
                data = await self._agent.blobs.read(ref.digest, offset, LOG_PIECE_BYTES)
                if not data:
                    raise PeerFault("a file is shorter than was announced", "run its task again")
                offset += len(data)
                yield data

    async def _output(self, job: str, task: str, path: str) -> tuple[JobOwner, TaskIndex, FileRef]:
        owner, index = self._task(job, task)
        for file in await self._manifest(owner, index):
            if file.path == path:
                return owner, index, file
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
            check_not_forgotten(self._agent, job)
            self._check_may_submit()
            spec = cbor.decode(submission.spec, JobSpec, bytes_max=SPEC_BYTES_MAX)
            require_valid(spec)
            check_pythons(node.scheduler, spec)
            check_quota(agent, node.me, spec)
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
            kept = [stored.digest, *(file.digest for file in spec.files)]
            await agent.files.note_submitted(job, kept, spec.keep_s)
            agent.driver.step_now(JobSubmitted(record=record, signed=signed, digest=Digest(stored.digest)))
            owner = node.scheduler.owned[job]
        with trio.move_on_after(REPLICAS_WAIT_S):
            await self._settled(owner, owner.accept_ticket)
            return self._view(owner)
        copy = node.scheduler.replicas.copies.get(job)
        for node_id, reason in copy.refused_by.items() if copy is not None else ():
            raise Refused(
                f"{views.name_of(node, node_id)} does not keep the job: {reason}",
                f"it begins when two of three nodes do; see `meshpeer jobs status {job}`",
            )
        raise EnvironmentFault(
            "the job is on this node's disk alone: none of its other replicas answers",
            f"it begins when one does; see `meshpeer peers` and `meshpeer jobs status {job}`",
        )

    async def jobs(self) -> list[Job]:
        return self.owned_jobs()

    def owned_jobs(self) -> list[Job]:
        """Returns the jobs that this node owns, newest first."""
        jobs = [self._view(one) for one in self._agent.node.scheduler.owned.values()]
        return sorted(jobs, key=lambda one: one.submitted_at, reverse=True)

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
        return self._view(self._known(job))

    async def tasks(self, job: str) -> list[Task]:
        owner = self._known(job)
        tasks: list[Task] = []
        unchosen = self._agent.node.scheduler.replicas.unchosen(owner.job)
        for number in range(len(owner.graph)):
            index = TaskIndex(number)
            row = owner.results.get(index)
            outputs: tuple[str, ...] = ()
            if row is not None and row.outputs and self._agent.blobs.path(row.manifest.digest) is not None:
                outputs = tuple(file.path for file in await self._manifest(owner, index))
            task = views.task_view(self._agent.node, owner, index, outputs)
            if index in unchosen:
                task = views.until_chosen(task)
            tasks.append(self._agent.files.with_staging(owner, index, task))
        return tasks

    async def outputs(self, job: str, task: str) -> list[OutputFile]:
        owner, index = self._task(job, task)
        files = await self._manifest(owner, index)
        return [
            OutputFile(path=one.path, sha256=one.digest.hex(), size=one.size, executable=one.executable)
            for one in files
        ]

    async def log(
        self, job: str, task: str, stream: str, offset: int, wait: bool, attempt: int = 0
    ) -> LogPiece:
        if stream not in ("stdout", "stderr"):
            raise LocalFault(f"{stream!r} is not a stream", "streams are stdout and stderr")
        owner, index = self._task(job, task)
        deadline = trio.current_time() + (LOG_WAIT_S if wait else 0.0)
        while True:
            row, lease, over = owner.results.get(index), owner.leases.get(index), owner.finished
            latest = _attempt_shown(row, lease)
            start = 0 if attempt and latest and attempt != latest else offset
            if row is not None:
                blob = row.stdout if stream == "stdout" else row.stderr
                piece = await self._stored(BlobRef(digest=blob.digest, size=blob.size), owner, index, start)
                return msgspec.structs.replace(
                    piece, attempt=latest, node=views.name_of(self._agent.node, row.node)
                )
            pause_s = LOG_LOOK_S
            if lease is not None and lease.running:
                left_s = max(LIVE_S, deadline - trio.current_time())
                live = await self._live(owner.job, lease, stream, start, left_s if wait else LIVE_S)
                pause_s = LOG_LOOK_S if live is not None else LIVE_S / 5
                if live:
                    name = views.name_of(self._agent.node, lease.node)
                    return LogPiece(
                        data=live, offset=start + len(live), finished=False, attempt=latest, node=name
                    )
            # As it was before the worker was asked: its result may have come meanwhile.
            if over or trio.current_time() >= deadline:
                return LogPiece(data=b"", offset=start, finished=over, attempt=attempt)
            await trio.sleep(pause_s)

    async def _stored(self, blob: BlobRef, owner: JobOwner, index: TaskIndex, offset: int) -> LogPiece:
        """Reads what a task that has ended had printed."""
        if not blob.size:
            return LogPiece(data=b"", offset=offset, finished=True)
        await self._have(blob, owner, index)
        data = await self._agent.blobs.read(blob.digest, offset, LOG_PIECE_BYTES)
        finished = not data or offset + len(data) >= blob.size
        return LogPiece(data=data, offset=offset + len(data), finished=finished)

    async def _live(self, job: JobId, lease: Lease, stream: str, offset: int, wait_s: float) -> bytes | None:
        """Reads what a running task has printed: here, or by asking the worker that runs it, which answers
        once there is more, or it has ended. None where that worker can't be asked."""
        agent = self._agent
        if lease.node == agent.node.me:
            key = agent.attempts.key_of(job, lease.attempt)
            return agent.executor.log(key, stream, offset, LOG_PIECE_BYTES) or b""
        question = Question(
            what="live",
            job=job,
            attempt=lease.attempt,
            stream=stream,
            offset=offset,
            wait=wait_s > LIVE_S,
        )
        with trio.move_on_after(wait_s):
            try:
                data, fault = await agent.asking.ask(lease.node, question)
                return None if fault else msgspec.json.decode(data, type=LogPiece).data
            except (MeshpeerError, *UNREADABLE):
                return None
        return None

    async def watch(self, job: str) -> AsyncIterator[Job]:
        owner = self._owner(job)
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
                raise TakenOver("another node owns the job now", f"watch {owner.job} again")

    async def news(self, job: str, seen: bytes) -> Job:
        """Returns the job once it is not as it was seen (the SHA-256 of its document), or has ended, or after
        ``NEWS_S``."""
        owner = self._owner(job)
        with trio.move_on_after(NEWS_S):
            while not owner.finished and digest_of(self._view(owner)) == seen:
                event = self._watchers.setdefault(owner.job, trio.Event())
                await event.wait()
                if self._failure is not None:
                    raise self._failure
                await trio.sleep(0.05)
        if owner.finished:
            await self._settled(owner, owner.last_ticket)
        return self._view(owner)

    async def cancel(self, job: str) -> Job:
        owner = self._owner(job)
        self._agent.driver.step_now(CancelAsked(job=owner.job))
        await self._settled(owner, owner.last_ticket)
        return self._view(owner)

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
            raise TakenOver("another node has taken the job over", f"see `meshpeer jobs status {owner.job}`")

    async def _on_disk(self, ticket: Ticket | None) -> None:
        """Returns once the ticket is on disk; raises ``StoreFailed`` where it can't be."""
        done = trio.Event()
        self._agent.performer.once_written(ticket, done.set, done.set)
        await done.wait()
        if self._failure is not None:
            raise self._failure

    def _known(self, job: str) -> JobOwner:
        """Returns a job that this node owns, or (for reading alone) keeps a replica of."""
        scheduler = self._agent.node.scheduler
        chosen = self._meant(job)
        known = scheduler.owned.get(chosen) or scheduler.seen(chosen)
        assert known is not None
        return known

    def _meant(self, job: str) -> JobId:
        """Returns the job that is meant: of one name the newest, owned or not."""
        scheduler = self._agent.node.scheduler
        records = {one: copy.record for one, copy in scheduler.replicas.copies.items()}
        chosen = _fitting(job, records | {one: owner.record for one, owner in scheduler.owned.items()})
        if chosen is None:
            check_not_forgotten(self._agent, job)
            raise LocalFault(f"this node knows no job {job!r}", "see `meshpeer jobs list`")
        return chosen

    def keeps(self, job: str) -> bool:
        """Says whether this node owns the job that is meant, or keeps a replica of it."""
        try:
            self._meant(job)
        except LocalFault:
            return False
        return True

    def hits(self, job: str) -> list[JobHit]:
        """Returns the jobs that this node owns, or keeps a replica of, which may be meant."""
        scheduler, now = self._agent.node.scheduler, self._agent.clock.now()
        owned = {one: (owner.record, None) for one, owner in scheduler.owned.items()}
        kept = {
            one: (copy.record, views.heard_at(copy, now))
            for one, copy in scheduler.replicas.copies.items()
            if one not in owned
        }
        return [
            JobHit(
                id=record.job,
                name=record.spec.name,
                submitted_at=rfc3339(record.submitted_at_us / 1e6),
                as_of=as_of,
            )
            for record, as_of in (*owned.values(), *kept.values())
            if job and _may_mean(job, record)
        ]

    def owns(self, job: str) -> JobOwner | None:
        """Returns the job of this node that is meant; None where there is none, or it could be several."""
        try:
            return self._owner(job)
        except (LocalFault, EnvironmentFault):
            return None

    def _owner(self, job: str) -> JobOwner:
        """Returns a job that this node owns."""
        owner = self._agent.node.scheduler.owned.get(self._meant(job))
        if owner is None:
            raise EnvironmentFault(
                "the job's owner is away: nobody can change it now",
                "a replica takes it over within seconds, where two of three are there",
            )
        return owner

    def _task(self, job: str, task: str) -> tuple[JobOwner, TaskIndex]:
        owner = self._known(job)
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
        holder, *_ = holders = holders_of(owner, index)
        try:
            await self._agent.files.transfers.fetch(ref, holders)
        except StoreFailed:
            raise
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
    matches = [one for one in records.values() if _may_mean(job, one)]
    if not matches:
        return None
    if len(matches) > 1 and any(one.spec.name != job for one in matches):
        raise LocalFault(f"{job!r} fits {len(matches)} jobs", "give more of the id: see `meshpeer jobs list`")
    return max(matches, key=lambda one: one.submitted_at_us).job


def _may_mean(job: str, record: JobRecord) -> bool:
    """Says whether an id, the beginning of one, or a name may mean a job."""
    return record.job.startswith(job) or record.spec.name == job


def _attempt_shown(row: TaskRow | None, lease: Lease | None) -> int:
    """Returns a number that tells the attempt whose output is shown from others of its task; 0 for none."""
    shown = row.tries[-1] if row is not None and row.tries else lease.attempt if lease is not None else None
    return (shown.round - 1) * ROUND_SPAN + shown.number if shown is not None else 0


def digest_of(job: Job) -> bytes:
    """Returns what tells a job's document from the same one after a change."""
    return hashlib.sha256(msgspec.json.encode(job)).digest()


def _digest(text: str) -> Digest:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise LocalFault(f"{text!r} is not a SHA-256", "give 64 hexadecimal digits")
    return Digest(raw)

"""Performs what the scheduler wants done: fetch a job's record, stage an attempt's inputs, run it, store what
it made, report.

One task per attempt, in one nursery; stopping an attempt cancels its task. A file that can't be had from its
holder is reported
with the needed task's index, so that the owner can run that task again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

import trio

from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError, PeerFault, StoreFailed
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex
from meshpeer.core.jobs.cache import Use
from meshpeer.core.jobs.expand import argv_of, env_of
from meshpeer.core.jobs.model import FileRef, JobRecord
from meshpeer.core.jobs.python import calls_paths
from meshpeer.core.jobs.rules import NO_NETWORK
from meshpeer.core.scheduler.book import NOTHING
from meshpeer.core.scheduler.messages import (
    Attempt,
    AttemptFinished,
    AttemptRunning,
    AttemptUnstageable,
    Blob,
    FetchJob,
    Input,
    JobLearned,
    JobRefused,
    Offer,
    StartAttempt,
    StopAttempt,
)
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import DOCUMENT_BYTES_MAX
from meshpeer.runtime.files import FileKeeper
from meshpeer.runtime.ports import (
    AttemptOutcome,
    AttemptPlan,
    BlobRef,
    Blobs,
    Executor,
    Limits,
    Secrets,
    StagedFile,
)
from meshpeer.runtime.python_calls import PythonCalls

MANIFEST_BYTES_MAX = 32 * 1024 * 1024

CheckJob = Callable[[bytes], JobRecord]
"""Checks a signed job record: signature, and its submitter's right to submit; raises ``PeerFault``."""


class _Missing(EnvironmentFault):
    """An input can't be had; ``task`` is the needed task, None where the job's own files are missing."""

    def __init__(self, task: int | None, reason: str) -> None:
        super().__init__(reason)
        self.task = task


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One file that is to stand in the scratch folder."""

    file: FileRef
    into: str
    task: int | None
    holders: tuple[NodeId, ...]

    @property
    def ref(self) -> BlobRef:
        return BlobRef(digest=self.file.digest, size=self.file.size)


@dataclass(slots=True)
class Attempts:
    """Runs attempts of this node."""

    me: NodeId
    blobs: Blobs
    executor: Executor
    fetch: Callable[[BlobRef, tuple[NodeId, ...]], Awaitable[None]]
    """Makes a blob present, from whichever of these has it."""
    files: FileKeeper
    check_job: CheckJob
    secrets: Secrets
    python: PythonCalls
    names_of: Callable[[NodeId], Collection[str]]
    """What a submitter goes by in this node's own settings."""
    post: Callable[[object], None]
    nursery: trio.Nursery
    own_record: Callable[[JobId, Digest], bytes | None] = lambda job, digest: None
    """The signed record of a job that this node owns, where it has this digest: it is not read from disk."""
    _running: dict[tuple[JobId, Attempt], trio.CancelScope] = field(default_factory=dict)
    _staging: dict[tuple[JobId, Attempt], tuple[NodeId, list[BlobRef]]] = field(default_factory=dict)

    # --- effects --------------------------------------------------------------------------------------------

    def fetch_job(self, effect: FetchJob) -> None:
        self.nursery.start_soon(self._fetch_job, effect)

    def start(self, effect: StartAttempt) -> None:
        # Made here, not in the task: a stop may follow before the task's first step.
        scope = self._running[effect.job, effect.granted.attempt] = trio.CancelScope()
        self.nursery.start_soon(self._attempt, effect, scope)

    def stop(self, effect: StopAttempt) -> None:
        scope = self._running.get((effect.job, effect.attempt))
        if scope is not None:
            scope.cancel()

    def key_of(self, job: JobId, attempt: Attempt) -> str:
        """Returns the executor's key of an attempt that runs here."""
        return f"{job}-{attempt.task}-{attempt.round}-{attempt.number}"

    def staging(self) -> list[tuple[JobId, Attempt, NodeId, tuple[BlobRef, ...]]]:
        """Returns the attempts whose inputs are on their way, with their jobs' owners, and these inputs."""
        return [
            (job, attempt, owner, tuple(refs))
            for (job, attempt), (owner, refs) in self._staging.items()
            if refs
        ]

    # --- tasks ----------------------------------------------------------------------------------------------

    async def record_of(self, job: JobId, blob: Blob, holders: tuple[NodeId, ...]) -> JobRecord:
        """Returns a job's record, checked; raises ``EnvironmentFault`` or ``PeerFault`` where there is none
        to be had, or it does not hold."""
        signed = self.own_record(job, blob.digest)
        if signed is None:
            signed = await self._content(blob, holders, None)
        record = self.check_job(signed)
        if record.job != job:
            raise PeerFault("the record is of another job")
        return record

    async def _fetch_job(self, effect: FetchJob) -> None:
        try:
            record = await self.record_of(effect.job, effect.record, effect.holders)
        except MeshpeerError as fault:
            self.post(JobRefused(job=effect.job, reason=fault.what, blob=effect.record))
            return
        self.post(JobLearned(job=effect.job, record=record, blob=effect.record))

    async def _attempt(self, effect: StartAttempt, scope: trio.CancelScope) -> None:
        attempt = effect.granted.attempt
        with scope, self.files.holding() as held:
            try:
                plan = await self._stage(effect, held)
                self.post(AttemptRunning(job=effect.job, attempt=attempt))
                outcome = await self.python.told(plan, await self.executor.run(plan))
                self.post(AttemptFinished(offer=await self._store(effect, outcome)))
            except _Missing as missing:
                needed = () if missing.task is None else (missing.task,)
                self.post(
                    AttemptUnstageable(job=effect.job, attempt=attempt, reason=missing.what, missing=needed)
                )
            except EnvironmentFault as fault:
                self.post(AttemptUnstageable(job=effect.job, attempt=attempt, reason=fault.what))
            except (LocalFault, PeerFault) as fault:
                self.post(AttemptFinished(offer=self._failed(effect, fault.what)))
            finally:
                del self._running[effect.job, attempt]
                self._staging.pop((effect.job, attempt), None)

    async def _stage(self, effect: StartAttempt, held: set[Digest]) -> AttemptPlan:
        graph = effect.graph
        task = TaskIndex(effect.granted.attempt.task)
        spec, element = graph.spec_of(task), graph.element_of(task)
        staged: dict[str, StagedFile] = {}
        files, calls = effect.record.spec.files, calls_paths(effect.record.spec)
        inputs = [_Wanted(file, "", None, (effect.owner,)) for file in files if file.path not in calls]
        # Read from the cache where it is, and not a file of the task's.
        called = [
            _Wanted(file, "", None, (effect.owner,))
            for file in files
            if spec.python is not None and file.path == spec.python.calls
        ]
        for needed in await self._inputs(effect):
            inputs += [
                _Wanted(file, needed.into, needed.task, (needed.holder, effect.owner))
                for file in await self._manifest(needed, effect.owner)
            ]
        # From before the first of them is here: what is here already may go as well as what comes.
        everything = [*called, *inputs]
        held.update(one.file.digest for one in everything)
        self._staging[effect.job, effect.granted.attempt] = (effect.owner, [one.ref for one in everything])
        for one in called:
            await self._have(one.ref, one.holders, one.task)
        for one in inputs:
            await self._stage_file(one, staged)
        del self._staging[effect.job, effect.granted.attempt]
        # They are to stand in the scratch folder, too.
        if inputs:
            await self.files.make_room(sum(one.file.size for one in inputs))
        secrets: tuple[tuple[str, str], ...] = ()
        if spec.secrets:
            secrets = self.secrets.read(spec.secrets, self.names_of(effect.record.submitter))
        number = effect.granted.attempt.number
        task_id = graph.id_of(task)
        plan = AttemptPlan(
            key=self.key_of(effect.job, effect.granted.attempt),
            argv=argv_of(spec, element, effect.job, task_id, number),
            env=env_of(spec, element, effect.job, task_id, number),
            cwd=spec.cwd,
            staged=tuple(staged.values()),
            outputs=spec.outputs,
            timeout_s=spec.timeout_ms / 1000,
            limits=Limits(
                memory_bytes=spec.memory_bytes, processes=spec.processes, output_bytes=spec.output_bytes
            ),
            network=spec.network != NO_NETWORK,
            secrets=secrets,
        )
        return plan if spec.python is None else await self.python.plan(effect, plan)

    async def _inputs(self, effect: StartAttempt) -> tuple[Input, ...]:
        blob = effect.granted.inputs_blob
        if blob is None:
            return effect.granted.inputs
        data = await self._content(blob, (effect.owner,), None)
        return cbor.decode(data, tuple[Input, ...], bytes_max=MANIFEST_BYTES_MAX)

    async def _manifest(self, needed: Input, owner: NodeId) -> tuple[FileRef, ...]:
        data = await self._content(needed.manifest, (needed.holder, owner), needed.task)
        return cbor.decode(data, tuple[FileRef, ...], bytes_max=MANIFEST_BYTES_MAX)

    async def _stage_file(self, wanted: _Wanted, staged: dict[str, StagedFile]) -> None:
        file, task = wanted.file, wanted.task
        path = f"{wanted.into.rstrip('/')}/{file.path}" if wanted.into else file.path
        if path in staged:
            raise LocalFault(
                f"two inputs have the path {path!r}",
                "give one of the needs a folder of its own: {task: NAME, into: DIR}",
            )
        await self._have(wanted.ref, wanted.holders, task)
        source = self.blobs.path(file.digest)
        if source is None:
            raise _Missing(task, f"the file {path} vanished from the cache")
        staged[path] = StagedFile(path=path, source=source, executable=file.executable)

    async def _content(self, blob: Blob, holders: tuple[NodeId, ...], task: int | None) -> bytes:
        """Reads a blob that is a document, wherever it is."""
        if blob.size > DOCUMENT_BYTES_MAX:
            raise PeerFault(f"a document of {blob.size} bytes exceeds {DOCUMENT_BYTES_MAX}")
        with self.files.pinning(blob.digest):
            await self._have(BlobRef(digest=blob.digest, size=blob.size), holders, task)
            return await self.blobs.read(blob.digest, 0, blob.size)

    async def have(self, ref: BlobRef, holders: tuple[NodeId, ...]) -> None:
        """Makes a blob present, from whichever holder gives it; raises ``EnvironmentFault`` for none."""
        await self._have(ref, holders)

    async def _have(self, ref: BlobRef, holders: tuple[NodeId, ...], task: int | None = None) -> None:
        """Makes a blob present, from whichever holder gives it; raises ``_Missing`` where none does, and
        ``StoreFailed`` where this machine has no room for it."""
        try:
            await self.fetch(ref, holders)
        except StoreFailed:
            raise
        except (EnvironmentFault, PeerFault) as fault:
            raise _Missing(task, f"a needed file can't be had: {fault.what}") from fault

    async def _store(self, effect: StartAttempt, outcome: AttemptOutcome) -> Offer:
        manifest = await self.blobs.add_bytes(cbor.encode(outcome.outputs) if outcome.outputs else b"")
        # Before anybody hears of it: what is offered must not go.
        made, keep_s = _made(effect, outcome, manifest), effect.record.spec.keep_s
        await self.files.note(effect.job, effect.owner, made, keep_s)
        return Offer(
            job=effect.job,
            attempt=effect.granted.attempt,
            succeeded=not outcome.error,
            exit_code=outcome.exit_code,
            error=outcome.error,
            started_us=int(outcome.started_at_unix_s * 1e6),
            finished_us=int(outcome.finished_at_unix_s * 1e6),
            stdout=Blob(outcome.stdout.digest, outcome.stdout.size),
            stderr=Blob(outcome.stderr.digest, outcome.stderr.size),
            manifest=Blob(manifest.digest, manifest.size),
            outputs=len(outcome.outputs),
            output_bytes=sum(one.size for one in outcome.outputs),
        )

    def _failed(self, effect: StartAttempt, error: str) -> Offer:
        return Offer(
            job=effect.job,
            attempt=effect.granted.attempt,
            succeeded=False,
            exit_code=None,
            error=error,
            started_us=0,
            finished_us=0,
            stdout=NOTHING,
            stderr=NOTHING,
            manifest=NOTHING,
            outputs=0,
        )


def _made(effect: StartAttempt, outcome: AttemptOutcome, manifest: BlobRef) -> list[tuple[Digest, Use]]:
    """Returns the files that an attempt made, but for empty ones, and what its job has them for."""
    made = Use.RESULT if effect.graph.is_sink(TaskIndex(effect.granted.attempt.task)) else Use.WORK
    files = [(one.digest, made) for one in outcome.outputs]
    if files:
        files.append((manifest.digest, made))
    logs = [(one.digest, Use.RESULT) for one in (outcome.stdout, outcome.stderr) if one.size]
    return [*files, *logs]

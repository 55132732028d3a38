"""Attempts with an executor and blobs in memory: what stands in the scratch folder, and what is reported."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from meshpeer.adapters.interpreter import TaskInterpreter
from meshpeer.adapters.secrets import FileSecrets
from meshpeer.core.errors import EnvironmentFault, PeerFault, StoreFailed
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex
from meshpeer.core.jobs.cache import CachedFile, Use
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import Array, Element, FileRef, JobRecord, JobSpec, TaskSpec
from meshpeer.core.jobs.search import PAUSE_S, ROUNDS_MAX
from meshpeer.core.scheduler.messages import (
    Attempt,
    AttemptFinished,
    AttemptRunning,
    AttemptUnstageable,
    Blob,
    FetchJob,
    Granted,
    Input,
    JobLearned,
    JobRefused,
    StartAttempt,
    StopAttempt,
)
from meshpeer.core.wire import cbor
from meshpeer.runtime.attempts import Attempts
from meshpeer.runtime.files import FileKeeper
from meshpeer.runtime.ports import BlobRef, Limits
from meshpeer.runtime.python_calls import PythonCalls
from meshpeer.runtime.transfers import Transfers
from meshpeer.sim.executor import MemoryExecutor, MemoryProcess
from meshpeer.sim.store import MemoryBlobs, MemoryLists

Clock = trio.testing.MockClock
ME, OWNER, HOLDER = (NodeId(letter * 32) for letter in (b"m", b"o", b"h"))
JOB = JobId("jtest")
POLL_S = 0.1


async def test_files_of_the_job_and_outputs_of_needed_tasks_stand_where_they_belong(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with bench(tmp_path, files={"tools/draw": b"#!"}) as it:
        made = await it.output_of(3, {"frame.ppm": b"pixels"})
        plain = await it.output_of(4, {"notes.txt": b"note"})
        it.start(inputs=(Input(3, made, HOLDER, into="frames/"), Input(4, plain, HOLDER)))
        await it.end()
    del it.process.files["out.txt"]
    assert it.process.files == {"tools/draw": b"#!", "frames/frame.ppm": b"pixels", "notes.txt": b"note"}
    assert it.process.executable == {"tools/draw"}


async def test_what_an_attempt_made_is_noted_before_anybody_is_told(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with bench(tmp_path) as it:
        it.start()
        await it.end()
    (noted,) = await it.lists.read()
    (finished,) = [one for one in it.posted if isinstance(one, AttemptFinished)]
    assert (noted.job, noted.owner, noted.over_s) == (JOB, OWNER, None)
    assert noted.files == dict.fromkeys(
        (blob_of(b"painted").digest, finished.offer.manifest.digest, finished.offer.stdout.digest), Use.RESULT
    )


async def test_a_full_disk_of_this_node_is_not_the_holders_fault(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Else its task would run again, for an output that is there."""
    async with bench(tmp_path) as it:
        made = await it.output_of(3, {"frame.ppm": b"pixels"})
        it.full = True
        it.start(inputs=(Input(3, made, HOLDER),))
        await it.end()
    (report,) = it.posted
    assert report == AttemptUnstageable(job=JOB, attempt=Attempt(0, 1, 1), reason="the disk is full")
    assert it.asked == [HOLDER]


async def test_what_runs_is_what_the_spec_says(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path) as it:
        it.start(task=1, number=4)
        await it.end()
    assert it.process.argv == ("work", "b.txt")
    env = dict(it.process.env)
    assert (env["COLOUR"], env["MESHPEER_ATTEMPT"]) == ("red", "4")
    assert env["MESHPEER_IDEMPOTENCY_KEY"] == "jtest:paint[1]"


async def test_what_confines_a_task_reaches_the_executor(tmp_path: Path, autojump_clock: Clock) -> None:
    (tmp_path / "secrets.toml").write_text(f'TOKEN = {{value = "open sesame", from = ["{"o" * 32}"]}}')
    (tmp_path / "secrets.toml").chmod(0o600)
    async with bench(tmp_path) as it:
        it.hold(FileSecrets(tmp_path / "secrets.toml"))
        it.confinement = {"memory_bytes": 2**26, "processes": 7, "network": "none", "secrets": ("TOKEN",)}
        it.start()
        await it.end()
    assert it.process.limits == Limits(memory_bytes=2**26, processes=7)
    assert not it.process.network
    assert dict(it.process.env)["TOKEN"] == "open sesame"
    assert "open sesame" not in repr(it.posted)


async def test_secret_that_is_not_for_the_submitter_fails_the_attempt(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    (tmp_path / "secrets.toml").write_text('TOKEN = {value = "open sesame", from = ["alpha"]}')
    (tmp_path / "secrets.toml").chmod(0o600)
    async with bench(tmp_path) as it:
        it.hold(FileSecrets(tmp_path / "secrets.toml"))
        it.confinement = {"secrets": ("TOKEN",)}
        it.start()
        await it.end()
    (finished,) = it.posted
    assert isinstance(finished, AttemptFinished)
    assert finished.offer.error == "this node has no secret 'TOKEN' for jobs of this submitter"
    assert not it.ran


async def test_attempt_is_reported_running_and_then_finished_with_all_that_it_made(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with bench(tmp_path) as it:
        it.start()
        await it.end()
        running, finished = it.posted
        assert running == AttemptRunning(job=JOB, attempt=Attempt(0, 1, 1))
        assert isinstance(finished, AttemptFinished)
        offer = finished.offer
        assert (offer.job, offer.attempt, offer.succeeded, offer.exit_code) == (
            JOB,
            Attempt(0, 1, 1),
            True,
            0,
        )
        assert offer.outputs == 1
        manifest = await it.local.read(offer.manifest.digest, 0, offer.manifest.size)
        (file,) = cbor.decode(manifest, tuple[FileRef, ...], bytes_max=10_000)
        assert (file.path, await it.local.read(file.digest, 0, file.size)) == ("out.txt", b"painted")
        assert await it.local.read(offer.stdout.digest, 0, offer.stdout.size) == b"hello"


async def test_failure_is_a_result_too(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path) as it:
        it.exit_code = 3
        it.start()
        await it.end()
    finished = it.posted[-1]
    assert isinstance(finished, AttemptFinished)
    assert (finished.offer.succeeded, finished.offer.exit_code, finished.offer.error) == (
        False,
        3,
        "exit code 3",
    )
    assert finished.offer.outputs == 0


async def test_many_inputs_come_as_a_blob_of_their_own(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path) as it:
        made = [await it.output_of(number, {f"{number}.ppm": b"x"}) for number in range(5)]
        inputs = tuple(Input(number, one, HOLDER) for number, one in enumerate(made))
        it.start(inputs_blob=await it.far(cbor.encode(inputs), OWNER))
        await it.end()
    assert sorted(it.process.files) == [f"{number}.ppm" for number in range(5)] + ["out.txt"]


async def test_owner_is_asked_where_the_holder_has_nothing(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path) as it:
        made = await it.output_of(3, {"a": b"a"}, at=OWNER)
        it.start(inputs=(Input(3, made, HOLDER),))
        await it.end()
    assert it.process.files["a"] == b"a"
    assert it.asked[:2] == [HOLDER, OWNER]


async def test_input_that_nobody_has_is_reported_with_the_task_that_made_it(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with bench(tmp_path) as it:
        began = trio.current_time()
        it.start(inputs=(Input(3, blob_of(b"gone"), HOLDER),))
        await it.end()
        assert trio.current_time() - began == pytest.approx((ROUNDS_MAX - 1) * PAUSE_S, abs=POLL_S)
    assert it.posted == [
        AttemptUnstageable(
            job=JOB,
            attempt=Attempt(0, 1, 1),
            reason="a needed file can't be had: nobody gives it",
            missing=(3,),
        )
    ]
    assert it.asked == [HOLDER, OWNER] * ROUNDS_MAX


async def test_one_lost_file_of_an_output_names_the_same_task(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path) as it:
        manifest = await it.far(cbor.encode((ref("lost.ppm", b"lost"),)), HOLDER)
        it.start(inputs=(Input(7, manifest, HOLDER),))
        await it.end()
    (report,) = it.posted
    assert isinstance(report, AttemptUnstageable)
    assert report.missing == (7,)


async def test_lost_file_of_the_job_itself_names_no_task(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path, files={"tools/draw": b"#!"}) as it:
        it.remote.clear()
        it.start()
        await it.end()
    (report,) = it.posted
    assert isinstance(report, AttemptUnstageable)
    assert report.missing == ()
    assert set(it.asked) == {OWNER}


async def test_liar_is_passed_over_for_the_next_holder(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path) as it:
        made = await it.output_of(3, {"a": b"a"}, at=OWNER)
        it.liars.add(HOLDER)
        it.start(inputs=(Input(3, made, HOLDER),))
        await it.end()
    assert it.process.files["a"] == b"a"


async def test_this_node_never_asks_itself(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path) as it:
        it.start(inputs=(Input(3, blob_of(b"gone"), ME),), owner=ME)
        await it.end()
    (report,) = it.posted
    assert isinstance(report, AttemptUnstageable)
    assert report.reason == "a needed file can't be had: nobody holds it"
    assert it.asked == []


async def test_two_inputs_of_one_path_fail_the_task_and_say_what_to_do(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with bench(tmp_path) as it:
        left, right = [await it.output_of(number, {"same": bytes([number])}) for number in (3, 4)]
        it.start(inputs=(Input(3, left, HOLDER), Input(4, right, HOLDER)))
        await it.end()
    (report,) = it.posted
    assert isinstance(report, AttemptFinished)
    assert (report.offer.succeeded, report.offer.exit_code) == (False, None)
    assert report.offer.error == "two inputs have the path 'same'"


@pytest.mark.parametrize("when", ["at once", "while it stages", "while it runs"])
async def test_stopped_attempt_reports_no_end(tmp_path: Path, autojump_clock: Clock, when: str) -> None:
    async with bench(tmp_path) as it:
        it.forever = True
        it.start(inputs=(Input(3, blob_of(b"gone"), HOLDER),) if when == "while it stages" else ())
        if when != "at once":
            await trio.testing.wait_all_tasks_blocked()
        it.attempts.stop(StopAttempt(job=JOB, attempt=Attempt(0, 1, 1)))
        await it.end()
    assert not [one for one in it.posted if not isinstance(one, AttemptRunning)]
    assert it.ran == (when == "while it runs")
    it.attempts.stop(StopAttempt(job=JOB, attempt=Attempt(0, 1, 1)))


async def test_stopping_one_attempt_leaves_the_others_alone(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path) as it:
        for task in (0, 1):
            it.start(task=task)
        it.attempts.stop(StopAttempt(job=JOB, attempt=Attempt(0, 1, 1)))
        await it.end()
    finished = [one.offer.attempt.task for one in it.posted if isinstance(one, AttemptFinished)]
    assert finished == [1]


async def test_machine_that_can_not_run_it_gives_the_attempt_back(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with bench(tmp_path) as it:
        it.broken = EnvironmentFault("the disk is full")
        it.start()
        await it.end()
    report = it.posted[-1]
    assert report == AttemptUnstageable(job=JOB, attempt=Attempt(0, 1, 1), reason="the disk is full")


# --- records of jobs ----------------------------------------------------------------------------------------


async def test_record_of_a_job_is_fetched_checked_and_learned(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path) as it:
        record = it.record()
        blob = await it.far(cbor.encode(record), OWNER)
        it.attempts.fetch_job(FetchJob(job=JOB, record=blob, holders=(HOLDER, OWNER)))
        await it.end()
    assert it.posted == [JobLearned(job=JOB, record=record, blob=blob)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"job": JobId("jother")}, "the record is of another job"),
        ({"submitter": HOLDER}, "signature does not verify"),
    ],
)
async def test_record_that_does_not_hold_is_refused(
    tmp_path: Path, autojump_clock: Clock, change: dict[str, object], reason: str
) -> None:
    async with bench(tmp_path) as it:
        record = msgspec.structs.replace(it.record(), **change)
        blob = await it.far(cbor.encode(record), OWNER)
        it.attempts.fetch_job(FetchJob(job=JOB, record=blob, holders=(OWNER,)))
        await it.end()
    assert it.posted == [JobRefused(job=JOB, reason=reason, blob=blob)]


async def test_record_of_an_own_job_is_read_from_no_disk_and_judged_like_any(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with bench(tmp_path) as it:
        record = it.record()
        mine = cbor.encode(record)
        strange = cbor.encode(msgspec.structs.replace(record, submitter=HOLDER))
        owned = {blob_of(one).digest: one for one in (mine, strange)}
        it.attempts.own_record = lambda job, digest: owned.get(digest) if job == JOB else None
        for one in (mine, strange, b"gone"):
            it.attempts.fetch_job(FetchJob(job=JOB, record=blob_of(one), holders=(OWNER,)))
        await it.end()
    assert sorted(it.posted, key=repr) == [
        JobLearned(job=JOB, record=record, blob=blob_of(mine)),
        JobRefused(job=JOB, reason="a needed file can't be had: nobody gives it", blob=blob_of(b"gone")),
        JobRefused(job=JOB, reason="signature does not verify", blob=blob_of(strange)),
    ]


async def test_record_that_nobody_has_is_refused(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bench(tmp_path) as it:
        it.attempts.fetch_job(FetchJob(job=JOB, record=blob_of(b"gone"), holders=(OWNER,)))
        await it.end()
    (report,) = it.posted
    assert isinstance(report, JobRefused)
    assert report.reason == "a needed file can't be had: nobody gives it"


# --- a bench ------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Attempts of one node; what others hold is a table, and who was asked is written down."""

    local: MemoryBlobs
    files: tuple[FileRef, ...]
    attempts: Attempts = field(init=False)
    remote: dict[tuple[NodeId, Digest], bytes] = field(default_factory=dict)
    liars: set[NodeId] = field(default_factory=set)
    asked: list[NodeId] = field(default_factory=list)
    full: bool = False
    lists: MemoryLists = field(default_factory=MemoryLists)
    posted: list[object] = field(default_factory=list)
    confinement: dict[str, Any] = field(default_factory=dict)
    held: FileSecrets = field(default_factory=lambda: FileSecrets(Path("/nonexistent")))
    ran: bool = False
    forever: bool = False
    exit_code: int = 0
    broken: EnvironmentFault | None = None
    close: Callable[[], None] = lambda: None

    def hold(self, secrets: FileSecrets) -> None:
        self.attempts.secrets = secrets

    def record(self) -> JobRecord:
        elements = tuple(Element(fields=(("file", name),)) for name in ("a.txt", "b.txt"))
        paint = TaskSpec(
            name="paint",
            argv=("work", "${file}"),
            array=Array(size=2, elements=elements),
            env=(("COLOUR", "red"),),
            outputs=("out.txt",),
            **self.confinement,
        )
        return JobRecord(
            job=JOB,
            submitter=OWNER,
            submitted_at_us=0,
            spec=JobSpec(name="picture", tasks=(paint,), files=self.files),
        )

    def start(
        self,
        *,
        task: int = 0,
        number: int = 1,
        inputs: tuple[Input, ...] = (),
        inputs_blob: Blob | None = None,
        owner: NodeId = OWNER,
    ) -> None:
        record = self.record()
        granted = Granted(Attempt(TaskIndex(task), 1, number), inputs, inputs_blob)
        self.attempts.start(
            StartAttempt(job=JOB, record=record, graph=Graph.of(record.spec), owner=owner, granted=granted)
        )

    async def end(self) -> None:
        """Waits until no attempt is under way."""
        with trio.fail_after(60):
            # In virtual time; the nursery itself can't be awaited from within.
            while self.attempts.nursery.child_tasks:  # noqa: ASYNC110
                await trio.sleep(POLL_S)

    async def far(self, data: bytes, at: NodeId) -> Blob:
        """Puts a blob on another node."""
        blob = blob_of(data)
        self.remote[at, blob.digest] = data
        return blob

    async def output_of(self, task: int, files: dict[str, bytes], at: NodeId = HOLDER) -> Blob:
        for data in files.values():
            await self.far(data, at)
        return await self.far(cbor.encode(tuple(ref(path, data) for path, data in files.items())), at)

    async def fetch(self, wanted: BlobRef, holder: NodeId, note: Callable[[int], None]) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append(holder)
        if self.full:
            raise StoreFailed("the disk is full")
        if holder in self.liars:
            raise PeerFault("a file does not have the content that was announced")
        data = self.remote.get((holder, wanted.digest))
        if data is None:
            raise EnvironmentFault("nobody gives it")
        await self.local.add_bytes(data)

    async def work(self, process: MemoryProcess) -> int:
        self.process, self.ran = process, True
        if self.broken is not None:
            raise self.broken
        if self.forever:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        process.stdout += b"hello"
        process.files["out.txt"] = b"painted"
        return self.exit_code

    def check_job(self, signed: bytes) -> JobRecord:
        record = cbor.decode(signed, JobRecord, bytes_max=10_000)
        if record.submitter != OWNER:
            raise PeerFault("signature does not verify")
        return record


@contextlib.asynccontextmanager
async def bench(tmp_path: Path, *, files: dict[str, bytes] | None = None) -> AsyncIterator[Bench]:
    local = MemoryBlobs(tmp_path)
    shared = tuple(
        msgspec.structs.replace(ref(path, data), executable=True) for path, data in (files or {}).items()
    )
    it = Bench(local, shared)
    it.keeper = keeper_of(it.lists)
    for data in (files or {}).values():
        await it.far(data, OWNER)
    executor = MemoryExecutor(slots=2, blobs=local, programs={"work": it.work}, unix_s=trio.current_time)
    async with trio.open_nursery() as nursery:
        it.attempts = Attempts(
            me=ME,
            blobs=local,
            executor=executor,
            fetch=Transfers(ME, local, it.fetch).fetch,
            files=it.keeper,
            check_job=it.check_job,
            secrets=it.held,
            python=PythonCalls(local, TaskInterpreter("", "/nonexistent")),
            names_of=lambda node: {bytes(node).decode()},
            post=it.posted.append,
            nursery=nursery,
        )
        yield it
        nursery.cancel_scope.cancel()


class NoStock:
    """Blobs that nothing is ever dropped of."""

    added_bytes = 0
    on_naming: Callable[[Digest], None]
    make_room: Callable[[int], Awaitable[None]]

    async def survey(self) -> list[CachedFile]:
        return []

    def drop_soon(self, digest: Digest, *, partial: bool = False) -> Path | None:
        raise AssertionError("something was dropped")

    async def unlink(self, gone: Path) -> None: ...

    def room_bytes(self) -> int:
        return 10**12


def keeper_of(lists: MemoryLists) -> FileKeeper:
    async def ask_nobody(owner: NodeId, jobs: Sequence[JobId]) -> None: ...

    return FileKeeper(
        me=ME,
        stock=NoStock(),
        lists=lists,
        bytes_max=10**12,
        results_s=0.0,
        ended=lambda job: None,
        ask_ends=ask_nobody,
        write=lambda level, fact, fields: None,
    )


def blob_of(data: bytes) -> Blob:
    return Blob(Digest(hashlib.sha256(data).digest()), len(data))


def ref(path: str, data: bytes) -> FileRef:
    return FileRef(path=path, digest=blob_of(data).digest, size=len(data))

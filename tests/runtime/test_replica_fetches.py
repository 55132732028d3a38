"""What a replica fetches before it votes: whose record it takes, and that no file goes while others come."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import trio

from meshpeer.adapters.interpreter import TaskInterpreter
from meshpeer.adapters.secrets import FileSecrets
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.model import FileRef, JobRecord, JobSpec, TaskSpec
from meshpeer.core.scheduler.replica_messages import FetchReplica, ReplicaFetched, ReplicaUnfetched
from meshpeer.core.wire import cbor
from meshpeer.runtime.attempts import Attempts
from meshpeer.runtime.files import FileKeeper
from meshpeer.runtime.ports import BlobRef
from meshpeer.runtime.python_calls import PythonCalls
from meshpeer.runtime.replicas import ReplicaFetcher
from meshpeer.sim.executor import MemoryExecutor
from meshpeer.sim.store import MemoryBlobs, MemoryLists

ME, OWNER, LIAR = (NodeId(letter * 32) for letter in (b"m", b"o", b"l"))
JOB = JobId("jtest")
DATA = (b"first", b"second")


async def test_files_are_held_until_the_list_of_the_job_names_them(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    (fetched,) = await it.fetch(OWNER)

    assert isinstance(fetched, ReplicaFetched)
    # Each time a file was asked for, all were held, those that stood here before too.
    assert it.held_at
    assert all(it.held_at)
    assert not it.is_held()
    (noted,) = await it.lists.read()
    assert set(noted.files) == {it.digest, *(digest_of(one) for one in DATA)}


async def test_a_record_shown_by_who_cant_own_the_job_brings_no_files(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    (unfetched,) = await it.fetch(LIAR)

    assert isinstance(unfetched, ReplicaUnfetched)
    assert not it.held_at
    assert await it.lists.read() == []


# --- helpers ------------------------------------------------------------------------------------------------


class Bench:
    """A node that is to be a replica, and a job that others have."""

    def __init__(self, tmp_path: Path) -> None:
        files = tuple(FileRef(path=f"f{len(one)}", digest=digest_of(one), size=len(one)) for one in DATA)
        spec = JobSpec(name="job", tasks=(TaskSpec(name="t", argv=("true",)),), files=files)
        self.record = JobRecord(job=JOB, submitter=OWNER, submitted_at_us=0, spec=spec)
        self.signed = cbor.encode(self.record)
        self.digest = digest_of(self.signed)
        self.blobs, self.lists = MemoryBlobs(tmp_path), MemoryLists()
        self.keeper = keeper_of(self.lists)
        self.held_at: list[bool] = []
        self.posted: list[object] = []

    async def fetch(self, holder: NodeId) -> list[object]:
        async with trio.open_nursery() as nursery:
            attempts = Attempts(
                me=ME,
                blobs=self.blobs,
                executor=MemoryExecutor(slots=1, blobs=self.blobs, programs={}, unix_s=trio.current_time),
                fetch=self.bring,
                files=self.keeper,
                check_job=lambda signed: cbor.decode(signed, JobRecord, bytes_max=10_000),
                secrets=FileSecrets(Path("/nonexistent")),
                python=PythonCalls(self.blobs, TaskInterpreter("", "/nonexistent")),
                names_of=lambda node: set(),
                post=self.posted.append,
                nursery=nursery,
            )
            fetcher = ReplicaFetcher(attempts, self.posted.append, nursery)
            fetcher.fetch(FetchReplica(job=JOB, digest=self.digest, size=len(self.signed), holder=holder))
        return self.posted

    async def bring(self, wanted: BlobRef, holders: tuple[NodeId, ...]) -> None:
        await trio.lowlevel.checkpoint()
        data = {digest_of(one): one for one in (*DATA, self.signed)}.get(wanted.digest)
        if data is None:
            raise EnvironmentFault("nobody gives it")
        if wanted.digest != self.digest:
            self.held_at.append(self.is_held())
        await self.blobs.add_bytes(data)

    def is_held(self) -> bool:
        return all(self.keeper._is_held(digest_of(one)) for one in (*DATA, self.signed))


class NoStock:
    """Blobs that nothing is dropped of."""

    added_bytes = 0


def keeper_of(lists: MemoryLists) -> FileKeeper:
    async def ask_nobody(owner: NodeId, jobs: Sequence[JobId]) -> None: ...

    return FileKeeper(
        me=ME,
        stock=NoStock(),  # type: ignore[arg-type]
        lists=lists,
        bytes_max=10**12,
        results_s=0.0,
        ended=lambda job: None,
        ask_ends=ask_nobody,
        write=lambda level, fact, fields: None,
    )


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).digest())

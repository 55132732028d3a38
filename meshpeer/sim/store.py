"""The journal and the blobs in memory, for tests and simulations; both pass the contract suites of the
real ones.

``MemoryDisk`` is what outlives a crash. A ``MemoryStore`` is one opening of it: ``hold`` keeps commits
waiting until ``release``, ``fail_next`` makes the next one fail as a full disk does, and ``crash`` loses
what was not committed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from meshpeer.core.effects import Change, Put, Table
from meshpeer.core.errors import EnvironmentFault, InvariantBroken, LocalFault, PeerFault, StoreFailed
from meshpeer.core.ids import Digest, JobId, NodeId, Ticket
from meshpeer.core.jobs.cache import JobFiles, Use
from meshpeer.core.wire.limits import BLOB_BYTES_MAX, DOCUMENT_BYTES_MAX
from meshpeer.runtime.ports import BlobRef, CommitFailed, Committed

_DISKS = itertools.count(1)


@dataclass(slots=True)
class MemoryDisk:
    """Committed rows, and the id of the store that they make."""

    rows: dict[Table, dict[str, bytes]] = field(default_factory=lambda: {table: {} for table in Table})
    store_id: bytes = field(default_factory=lambda: next(_DISKS).to_bytes(16, "big"))


@contextlib.asynccontextmanager
async def open_memory_store(disk: MemoryDisk) -> AsyncIterator[MemoryStore]:
    """Opens a store over a disk; leaving commits what is held and ends ``outcomes``."""
    store = MemoryStore(disk)
    try:
        yield store
    finally:
        store.close()


class MemoryStore:
    """Implements ``runtime.ports.Store`` without a thread: a commit that is not held is reported at once."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk
        self._send, self._receive = trio.open_memory_channel[Committed | CommitFailed](float("inf"))
        self._queue: list[tuple[Ticket, tuple[Change, ...]]] = []
        self._holding = False
        self._failing: StoreFailed | None = None
        self._failed: StoreFailed | None = None
        self._closed = False

    @property
    def store_id(self) -> bytes:
        return self._disk.store_id

    @property
    def outcomes(self) -> trio.MemoryReceiveChannel[Committed | CommitFailed]:
        return self._receive

    def load(self, table: Table, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        return sorted(row for row in self._disk.rows[table].items() if row[0].startswith(prefix))

    def commit_soon(self, ticket: Ticket, changes: Sequence[Change]) -> None:
        if self._closed:
            raise InvariantBroken(f"ticket {ticket} was given to a journal that is closed")
        for change in changes:
            change.key.encode()
        self._queue.append((ticket, tuple(changes)))
        if not self._holding:
            self._drain()

    # --- what tests do to it -------------------------------------------------------------------------------

    def hold(self) -> None:
        """Lets commits wait from now on."""
        self._holding = True

    def release(self) -> None:
        """Commits what waits as one batch, and what comes from now on at once."""
        self._holding = False
        self._drain()

    def fail_next(self, error: StoreFailed | None = None) -> None:
        """Makes the next batch fail, and with it every later one until the disk is opened anew."""
        self._failing = error or StoreFailed("the disk under state.db is full", "free some space (df -h)")

    def crash(self) -> None:
        """Ends this opening as a power cut does: what was not committed is gone, and nobody is told."""
        self._queue.clear()
        self.close()

    def close(self) -> None:
        """Commits what waits, reports it and ends ``outcomes``; idempotent."""
        if not self._closed:
            self.release()
            self._closed = True
            self._send.close()

    def _drain(self) -> None:
        batch, self._queue = self._queue, []
        if not batch:
            return
        tickets = tuple(ticket for ticket, _ in batch)
        self._failed = self._failed or self._failing
        if self._failed is not None:
            self._report(CommitFailed(tickets=tickets, error=self._failed))
            return
        for change in itertools.chain.from_iterable(changes for _, changes in batch):
            if isinstance(change, Put):
                self._disk.rows[change.table][change.key] = change.value
            else:
                self._disk.rows[change.table].pop(change.key, None)
        self._report(Committed(tickets=tickets))

    def _report(self, outcome: Committed | CommitFailed) -> None:
        # Nobody listens any more: a node that ends.
        with contextlib.suppress(trio.BrokenResourceError):
            self._send.send_nowait(outcome)


# --- blobs ------------------------------------------------------------------------------------------------


class MemoryBlobs:
    """Implements ``runtime.ports.Blobs``; writes a file into ``folder`` only for who asks for its path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs: dict[Digest, bytes] = {}
        self._partial: dict[Digest, bytearray] = {}
        self._put(b"")

    def path(self, digest: Digest) -> Path | None:
        data = self._blobs.get(digest)
        if data is None:
            return None
        place = self._folder / digest.hex()
        if not place.exists():
            place.write_bytes(data)
        return place

    async def add_bytes(self, data: bytes) -> BlobRef:
        await trio.lowlevel.checkpoint()
        if len(data) > DOCUMENT_BYTES_MAX:
            raise LocalFault(f"a document of {len(data)} bytes exceeds {DOCUMENT_BYTES_MAX >> 20} MiB")
        return self._put(data)

    async def add_file(self, source: Path) -> BlobRef:
        await trio.lowlevel.checkpoint()
        return self._put(_content(source))

    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        data = self._blobs.get(digest)
        if data is None:
            raise LocalFault(f"blob {digest.hex()[:16]} is not here")
        return data[offset : offset + length]

    @contextlib.asynccontextmanager
    async def receive(self, ref: BlobRef, *, resume: bool = False) -> AsyncIterator[MemoryReceiver]:
        if not 0 <= ref.size <= BLOB_BYTES_MAX:
            raise PeerFault(f"a blob of {ref.size} bytes was announced; {BLOB_BYTES_MAX} is the most")
        here = self._partial.pop(ref.digest, bytearray()) if resume else bytearray()
        receiver = MemoryReceiver(ref, self._put, here if len(here) <= ref.size else bytearray())
        try:
            yield receiver
        finally:
            if resume and not receiver.wrong and ref.digest not in self._blobs:
                self._partial[ref.digest] = receiver.data

    def used(self, digest: Digest) -> None:
        """Nothing goes here."""

    async def remove(self, digest: Digest) -> bool:
        await trio.lowlevel.checkpoint()
        if not self._blobs.get(digest):
            return False
        del self._blobs[digest]
        (self._folder / digest.hex()).unlink(missing_ok=True)
        return True

    async def total_bytes(self) -> int:
        await trio.lowlevel.checkpoint()
        return sum(map(len, self._blobs.values()))

    def _put(self, data: bytes) -> BlobRef:
        ref = BlobRef(digest=Digest(hashlib.sha256(data).digest()), size=len(data))
        self._blobs[ref.digest] = data
        return ref


class MemoryReceiver:
    """Implements ``runtime.ports.BlobWriter``."""

    def __init__(self, ref: BlobRef, put: Callable[[bytes], BlobRef], data: bytearray) -> None:
        self._ref = ref
        self._put = put
        self.data = data
        self.wrong = False

    @property
    def received(self) -> int:
        return len(self.data)

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if len(self.data) + len(data) > self._ref.size:
            self.wrong = True
            raise PeerFault("a file is longer than was announced")
        self.data += data

    async def finish(self) -> BlobRef:
        await trio.lowlevel.checkpoint()
        data = bytes(self.data)
        if BlobRef(digest=Digest(hashlib.sha256(data).digest()), size=len(data)) != self._ref:
            self.wrong = len(data) == self._ref.size
            raise PeerFault("a file does not have the content that was announced")
        return self._put(data)


def _content(source: Path) -> bytes:
    try:
        if source.exists() and not source.is_file():
            raise LocalFault("only regular files can be stored", "archive a folder first (tar)")
        _check_size(source.stat().st_size)
        return source.read_bytes()
    except OSError as error:
        raise EnvironmentFault(f"{source} can't be read: {error.strerror}", "is it there?") from error


def _check_size(size: int) -> None:
    if size > BLOB_BYTES_MAX:
        raise LocalFault(f"a file of {size} bytes exceeds {BLOB_BYTES_MAX >> 40} TiB", "split it")


class MemoryLists:
    """Implements ``runtime.ports.JobLists``."""

    def __init__(self) -> None:
        self._lists: dict[JobId, JobFiles] = {}

    async def add(
        self, job: JobId, owner: NodeId, files: Sequence[tuple[Digest, Use]], keep_s: int = 0
    ) -> None:
        await trio.lowlevel.checkpoint()
        found = self._lists.setdefault(job, JobFiles(job, owner))
        found.keep_s = keep_s or found.keep_s
        found.owner = owner
        for digest, use in files:
            if found.files.get(digest) is not Use.RESULT:
                found.files[digest] = use

    async def note_over(self, job: JobId, over_s: int) -> None:
        await trio.lowlevel.checkpoint()
        self._lists[job].over_s = float(over_s)

    async def forget(self, job: JobId) -> None:
        await trio.lowlevel.checkpoint()
        self._lists.pop(job, None)

    async def read(self) -> list[JobFiles]:
        await trio.lowlevel.checkpoint()
        return [
            JobFiles(one.job, one.owner, one.over_s, dict(one.files), one.keep_s)
            for _, one in sorted(self._lists.items())
        ]

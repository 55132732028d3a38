"""Blobs: files by SHA-256, complete or absent, in ``blobs/ab/cdef...``.

A blob is written under ``incoming``, synced, moved to its place, and the folder is synced. So a crash or a
power cut leaves all of it or nothing, a name that is there never lies, and **a blob is durable when adding it
returns**: a result that names it may be journalled, offered and acknowledged at once. All of that happens on
worker threads: the event loop waits for no disk, and the bulk of one task holds up no commit of the journal,
which has a thread of its own.

The empty blob is known without a disk: most tasks print nothing. What comes from elsewhere is verified before
it gets its name; what is copied here is hashed as it is copied. Nothing is verified again on reading:
receivers do that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar, TypeVarTuple, Unpack

import trio

from meshpeer.adapters.store.faults import folder_fault
from meshpeer.adapters.store.opening import sync_folder
from meshpeer.core.errors import EnvironmentFault, InvariantBroken, LocalFault, PeerFault
from meshpeer.core.ids import Digest
from meshpeer.core.wire.limits import BLOB_BYTES_MAX
from meshpeer.runtime.ports import BlobRef

EMPTY = BlobRef(digest=Digest(hashlib.sha256(b"").digest()), size=0)
DISK_THREADS_MAX = 8
"""Adds, reads and receives that touch the disk at once; the others wait their turn."""
RECEIVE_BUFFER_BYTES = 1024 * 1024
"""Received bytes held back until one visit to a worker thread hashes and writes them."""

_COPY_BYTES = 1024 * 1024
_FICLONE = 0x40049409
"""ioctl_ficlonerange(2): the same extents under another inode, on file systems that share them."""

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


def open_blobs(folder: Path) -> FileBlobs:
    """Opens (or makes) the folder, and drops what a crash left half-written; raises ``EnvironmentFault``."""
    with _translated(folder):
        incoming = folder / "incoming"
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # tasks pass through the folder above, and have no business here
        for leftover in incoming.iterdir():
            leftover.unlink()
        _make_shelves(folder)
        blobs = FileBlobs(folder)
        with _drafted(incoming / "empty") as draft:
            blobs.publish(draft, EMPTY.digest)
    return blobs


class FileBlobs:
    """Implements ``runtime.ports.Blobs``; one at a time per folder, which the lock on the state folder sees
    to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drafts = (folder / "incoming" / str(number) for number in itertools.count())
        self._threads = trio.CapacityLimiter(DISK_THREADS_MAX)
        self._settling: set[Digest] = set()
        """Blobs that have their name but not durably so: who adds one again may not rely on it yet."""

    def place(self, digest: Digest) -> Path:
        """Returns where a blob stands, or would stand."""
        name = digest.hex()
        return self._folder / name[:2] / name[2:]

    def path(self, digest: Digest) -> Path | None:
        place = self.place(digest)
        return place if place.exists() else None

    async def add_bytes(self, data: bytes) -> BlobRef:
        """Stores bytes; raises ``StoreFailed`` where the disk fails, ``LocalFault`` beyond
        ``BLOB_BYTES_MAX``."""
        if not data:
            return EMPTY
        _check_size(len(data))
        return await self._on_thread(self._add_bytes, data, next(self._drafts))

    async def add_file(self, source: Path) -> BlobRef:
        """Copies (or reflinks) a file in.

        Raises ``EnvironmentFault`` where it can't be read or stored, ``LocalFault`` where it is no regular
        file or larger than ``BLOB_BYTES_MAX``.
        """
        return await self._on_thread(self._add_path, source, next(self._drafts))

    async def add_open(self, file: BinaryIO) -> BlobRef:
        """Copies an open file in, from its start: for callers that opened it with care; raises as
        ``add_file``."""
        return await self._on_thread(self._add_descriptor, file.fileno(), next(self._drafts))

    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        """Returns up to ``length`` bytes, fewer only at the end of the blob.

        What the page cache holds is read at once; the rest on a worker thread.
        """
        if digest == EMPTY.digest:
            return b""
        try:
            descriptor = os.open(self.place(digest), os.O_RDONLY)
        except FileNotFoundError as error:
            raise LocalFault(f"blob {digest.hex()[:16]} is not here") from error
        except OSError as error:
            raise _unreadable(f"blob {digest.hex()[:16]}", error) from error
        try:
            wanted = max(0, min(length, os.fstat(descriptor).st_size - offset))
            data = _read_cached(descriptor, offset, wanted)
            if len(data) < wanted:
                data = await self._on_thread(_read_all, descriptor, offset, wanted)
            return data
        except OSError as error:
            raise _unreadable(f"blob {digest.hex()[:16]}", error) from error
        finally:
            os.close(descriptor)

    @contextlib.asynccontextmanager
    async def receive(self, ref: BlobRef) -> AsyncIterator[BlobReceiver]:
        """Opens a writer; raises ``PeerFault`` where more is announced than a blob may hold."""
        if not 0 <= ref.size <= BLOB_BYTES_MAX:
            raise PeerFault(f"a blob of {ref.size} bytes was announced; {BLOB_BYTES_MAX} is the most")
        with _translated(self._folder):
            draft = _Draft(next(self._drafts))
        try:
            yield BlobReceiver(self, ref, draft, self._on_thread)
        finally:
            draft.discard()

    async def remove(self, digest: Digest) -> bool:
        """Removes a blob and says whether it was there; the empty blob stays."""
        if digest == EMPTY.digest:
            return False
        return await self._on_thread(self._remove, digest)

    async def total_bytes(self) -> int:
        """Returns the sum of the sizes of all blobs, by looking."""
        return await self._on_thread(self._total_bytes)

    def publish(self, draft: _Draft, digest: Digest) -> None:
        """Gives a verified draft its name, unless the blob is there already; blocks."""
        if not self._is_settled(digest):
            self._settling.add(digest)
            draft.publish(self.place(digest))
            self._settling.discard(digest)

    def _is_settled(self, digest: Digest) -> bool:
        return digest not in self._settling and self.place(digest).exists()

    # --- on worker threads ----------------------------------------------------------------------------------

    async def _on_thread(self, work: Callable[[Unpack[Arguments]], Result], *arguments: *Arguments) -> Result:
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._threads)

    def _add_bytes(self, data: bytes, where: Path) -> BlobRef:
        ref = BlobRef(digest=Digest(hashlib.sha256(data).digest()), size=len(data))
        if not self._is_settled(ref.digest):
            with _translated(where), _drafted(where) as draft:
                draft.write(data)
                self.publish(draft, ref.digest)
        return ref

    def _add_path(self, source: Path, where: Path) -> BlobRef:
        try:
            # Not to hang on a pipe that nobody writes to.
            descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise _unreadable(str(source), error) from error
        try:
            return self._add_descriptor(descriptor, where)
        finally:
            os.close(descriptor)

    def _add_descriptor(self, source: int, where: Path) -> BlobRef:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise LocalFault("only regular files can be stored", "archive a folder first (tar)")
        _check_size(status.st_size)
        with _translated(where), _drafted(where) as draft:
            # The copy is hashed, never the source, which may be written to meanwhile.
            if not draft.clone(source):
                draft.copy(source)
            ref = draft.ref()
            self.publish(draft, ref.digest)
        return ref

    def _remove(self, digest: Digest) -> bool:
        try:
            self.place(digest).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise folder_fault(self._folder, error) from error
        return True

    def _total_bytes(self) -> int:
        total = 0
        with os.scandir(self._folder) as shelves:
            for shelf in shelves:
                if len(shelf.name) == 2:
                    with os.scandir(shelf) as files:
                        for file in files:
                            # A blob that is removed meanwhile counts for nothing.
                            with contextlib.suppress(FileNotFoundError):
                                total += file.stat().st_size
        return total


class BlobReceiver:
    """Implements ``runtime.ports.BlobWriter``."""

    def __init__(
        self,
        blobs: FileBlobs,
        ref: BlobRef,
        draft: _Draft,
        on_thread: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> None:
        self._blobs = blobs
        self._ref = ref
        self._draft = draft
        self._on_thread = on_thread
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._received = 0
        self._finished = False

    @property
    def received(self) -> int:
        return self._received

    async def write(self, data: bytes) -> None:
        if self._received + len(data) > self._ref.size:
            raise PeerFault("a file is longer than was announced")
        self._received += len(data)
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= RECEIVE_BUFFER_BYTES:
            await self._on_thread(self._flush)
        else:
            await trio.lowlevel.checkpoint()

    async def finish(self) -> BlobRef:
        if self._finished:
            raise InvariantBroken("a received blob was finished twice")
        if self._received != self._ref.size:
            raise PeerFault(f"a file of {self._ref.size} bytes was announced, {self._received} came")
        self._finished = True
        await self._on_thread(self._verify_and_publish)
        return self._ref

    def _flush(self) -> None:
        pieces, self._buffer, self._buffered = self._buffer, [], 0
        with _translated(self._draft.path):
            self._draft.write(b"".join(pieces))

    def _verify_and_publish(self) -> None:
        self._flush()
        if self._draft.ref() != self._ref:
            raise PeerFault("a file does not have the content that was announced")
        with _translated(self._draft.path):
            self._blobs.publish(self._draft, self._ref.digest)


class _Draft:
    """A file under ``incoming`` that becomes a blob, or goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hash = hashlib.sha256()
        self._size = 0
        # Read-only once it has its name: the content of a blob never changes.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o400)

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def clone(self, source: int) -> bool:
        """Shares the source's extents; False where the file system can't.

        copy_file_range(2) is no step between: the bytes have to be read anyway, to hash them.
        """
        try:
            fcntl.ioctl(self._file, _FICLONE, source)
        except OSError:
            return False
        while piece := os.pread(self._file, _COPY_BYTES, self._size):
            self._hash.update(piece)
            self._size += len(piece)
            _check_size(self._size)
        return True

    def copy(self, source: int) -> None:
        while piece := os.pread(source, _COPY_BYTES, self._size):
            self.write(piece)
            _check_size(self._size)

    def ref(self) -> BlobRef:
        return BlobRef(digest=Digest(self._hash.digest()), size=self._size)

    def publish(self, place: Path) -> None:
        """Makes the content durable, then the name."""
        os.fdatasync(self._file)
        os.rename(self.path, place)
        sync_folder(place.parent)

    def discard(self) -> None:
        """Closes it, and removes it where it did not become a blob."""
        os.close(self._file)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def _make_shelves(folder: Path) -> None:
    """Makes all 256 at once: made one by one, each would need a sync of its own before its first blob."""
    missing = [folder / f"{number:02x}" for number in range(256) if not (folder / f"{number:02x}").is_dir()]
    for shelf in missing:
        shelf.mkdir(mode=0o700)
    if missing:
        sync_folder(folder)


@contextlib.contextmanager
def _drafted(path: Path) -> Iterator[_Draft]:
    draft = _Draft(path)
    try:
        yield draft
    finally:
        draft.discard()


@contextlib.contextmanager
def _translated(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise folder_fault(place, error) from error


def _check_size(size: int) -> None:
    if size > BLOB_BYTES_MAX:
        raise LocalFault(
            f"a file of {size} bytes exceeds {BLOB_BYTES_MAX >> 20} MiB",
            "split it, or leave it on shared storage",
        )


def _unreadable(what: str, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"{what} can't be read: {error.strerror}", "is it there, and may the agent read it?"
    )


def _read_cached(descriptor: int, offset: int, length: int) -> bytes:
    """Reads what is in the page cache (preadv2(2), RWF_NOWAIT); nothing where the file system can't tell."""
    buffer = bytearray(length)
    try:
        count = os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
    except OSError:
        return b""
    return bytes(memoryview(buffer)[:count])


def _read_all(descriptor: int, offset: int, length: int) -> bytes:
    pieces: list[bytes] = []
    while length and (piece := os.pread(descriptor, length, offset)):
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)

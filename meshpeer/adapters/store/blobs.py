"""Blobs: files by SHA-256, complete or absent, in ``blobs/ab/cdef...``.

A blob is written under ``incoming``, synced, moved to its place, and the folder is synced. So a crash or a
power cut leaves all of it or nothing, a name that is there never lies, and **a blob is durable when adding it
returns**: a result that names it may be journalled, offered and acknowledged at once. All of that happens on
worker threads: the event loop waits for no disk, and the bulk of one task holds up no commit of the journal,
which has a thread of its own.

The empty blob is known without a disk: most tasks print nothing. What comes from elsewhere is verified before
it gets its name; what is copied here is hashed as it is copied. Nothing is verified again on reading:
receivers do that.

What came in part is kept under ``incoming/DIGEST.part`` where whoever receives it means to go on: after a
cut, and after a restart. It is hashed from its start then, and found out at the end where a crash damaged it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import stat
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar, TypeVarTuple, Unpack

import trio

from meshpeer.adapters.store.drafts import (
    LARGE_BYTES,
    RESERVE_BYTES,
    SYNC_BYTES,
    Draft,
    check_size,
    drafted,
    no_room,
    room_bytes,
    translated,
)
from meshpeer.adapters.store.faults import folder_fault
from meshpeer.adapters.store.opening import sync_folder
from meshpeer.adapters.store.receiving import BlobReceiver
from meshpeer.core.errors import EnvironmentFault, LocalFault, PeerFault
from meshpeer.core.ids import Digest
from meshpeer.core.jobs.cache import CachedFile
from meshpeer.core.wire.limits import BLOB_BYTES_MAX, DOCUMENT_BYTES_MAX
from meshpeer.runtime.ports import BlobRef

EMPTY = BlobRef(digest=Digest(hashlib.sha256(b"").digest()), size=0)
DISK_THREADS_MAX = 8
"""Adds, reads and receives that touch the disk at once; the others wait their turn."""
PARTIAL_KEPT_S = 7 * 86_400.0
"""A file that came in part is dropped when an agent starts so long after the last of it."""
SUSPENDED_MAX = 8
"""Cut transfers that are gone on with without hashing what is here anew."""
_PARTIAL = re.compile(r"[0-9a-f]{64}\.part")

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


def open_blobs(folder: Path, *, reserve_bytes: int = RESERVE_BYTES) -> FileBlobs:
    """Opens (or makes) the folder, and drops what a crash left half-written, but for what came in part and
    may be gone on with; raises ``EnvironmentFault``.

    ``reserve_bytes`` of the disk are left alone by files that are not small.
    """
    with translated(folder):
        incoming = folder / "incoming"
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # tasks pass through the folder above, and have no business here
        for leftover in incoming.iterdir():
            fresh = time.time() - leftover.stat().st_mtime < PARTIAL_KEPT_S
            if not (_PARTIAL.fullmatch(leftover.name) and fresh):
                leftover.unlink()
        _make_shelves(folder)
        blobs = FileBlobs(folder, reserve_bytes)
        with drafted(incoming / "empty") as draft:
            blobs.publish(draft, EMPTY.digest)
    return blobs


class FileBlobs:
    """Implements ``runtime.ports.Blobs``; one at a time per folder, which the lock on the state folder sees
    to."""

    def __init__(self, folder: Path, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._drafts = (folder / "incoming" / str(number) for number in itertools.count())
        self._threads = trio.CapacityLimiter(DISK_THREADS_MAX)
        self._settling: set[Digest] = set()
        """Blobs that have their name but not durably so: who adds one again may not rely on it yet."""
        self._suspended: dict[Digest, Draft] = {}
        self._receiving: set[Digest] = set()
        self._added_bytes = 0
        self._counting = threading.Lock()
        self.on_naming: Callable[[Digest], None] = lambda digest: None
        """Called, on any thread, before a blob gets its name or is found to have it."""
        self.make_room: Callable[[int], Awaitable[None]] = _make_none
        """Frees so many bytes, as far as it can: asked before a file is taken in that has no room."""

    @property
    def added_bytes(self) -> int:
        """Bytes of blobs that were added since the agent started."""
        return self._added_bytes

    def place(self, digest: Digest) -> Path:
        """Returns where a blob stands, or would stand."""
        name = digest.hex()
        return self._folder / name[:2] / name[2:]

    def path(self, digest: Digest) -> Path | None:
        place = self.place(digest)
        return place if place.exists() else None

    async def add_bytes(self, data: bytes) -> BlobRef:
        """Stores bytes; raises ``StoreFailed`` where the disk fails, ``LocalFault`` beyond
        ``DOCUMENT_BYTES_MAX``."""
        if not data:
            return EMPTY
        if len(data) > DOCUMENT_BYTES_MAX:
            raise LocalFault(
                f"a document of {len(data)} bytes exceeds {DOCUMENT_BYTES_MAX >> 20} MiB", "split the job"
            )
        return await self._on_thread(self._add_bytes, data, next(self._drafts))

    async def add_file(self, source: Path) -> BlobRef:
        """Copies (or reflinks) a file in.

        Raises ``EnvironmentFault`` where it can't be read or stored, ``LocalFault`` where it is no regular
        file or larger than ``BLOB_BYTES_MAX``.
        """
        await self._ensure_room(_size_of(source))
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
    async def receive(self, ref: BlobRef, *, resume: bool = False) -> AsyncIterator[BlobReceiver]:
        """Opens a writer; raises ``PeerFault`` where more is announced than a blob may hold, ``StoreFailed``
        where there is no room for it.

        With ``resume`` it goes on where an earlier one stopped, and leaves what came for the next one, unless
        that was wrong. Of one blob there is one such writer at a time.
        """
        if not 0 <= ref.size <= BLOB_BYTES_MAX:
            raise PeerFault(f"a blob of {ref.size} bytes was announced; {BLOB_BYTES_MAX} is the most")
        resume = resume and ref.digest not in self._receiving
        draft = await self._resumed(ref) if resume else None
        if draft is None:
            await self._ensure_room(ref.size)
            with translated(self._folder):
                draft = Draft(next(self._drafts))
        receiver = BlobReceiver(ref, draft, self.publish, self._on_thread, self._reserve_bytes)
        try:
            yield receiver
        finally:
            if not resume:
                draft.close()
            else:
                self._receiving.discard(ref.digest)
                with trio.CancelScope(shield=True):
                    await self._suspend(ref.digest, draft, receiver)

    async def _resumed(self, ref: BlobRef) -> Draft:
        self._receiving.add(ref.digest)
        try:
            draft = self._suspended.pop(ref.digest, None)
            if draft is None:
                with translated(self._folder):
                    draft = Draft(self._partial(ref.digest), resumed=True)
            try:
                with translated(self._folder):
                    while not draft.caught_up:
                        await self._on_thread(draft.catch_up, SYNC_BYTES)
                if draft.size > ref.size:
                    draft.start_over()
                await self._ensure_room(ref.size - draft.size)
            except BaseException:
                draft.close(keep=True)
                raise
        except BaseException:
            self._receiving.discard(ref.digest)
            raise
        return draft

    async def _suspend(self, digest: Digest, draft: Draft, receiver: BlobReceiver) -> None:
        """Keeps what came for whoever goes on; what was wrong, or is a blob by now, is closed for good."""
        keep = not receiver.wrong and self.path(digest) is None
        if keep:
            with contextlib.suppress(EnvironmentFault):  # a full disk: as much as there is
                await receiver.settle()
        keep = keep and 0 < draft.size <= receiver.received
        if not keep:
            draft.close()
            return
        while len(self._suspended) >= SUSPENDED_MAX:
            self._suspended.pop(next(iter(self._suspended))).close(keep=True)
        self._suspended[digest] = draft

    async def _ensure_room(self, size: int) -> None:
        """Raises ``StoreFailed`` where a file that is not small would take the last of the disk."""
        if size < LARGE_BYTES:
            return
        with translated(self._folder):
            if size > room_bytes(self._folder, self._reserve_bytes):
                await self.make_room(size)
            room = room_bytes(self._folder, self._reserve_bytes)
        if size > room:
            raise no_room(self._folder, size, room)

    def used(self, digest: Digest) -> None:
        """Notes that a blob is of use now, for who decides what goes."""
        with contextlib.suppress(OSError):
            os.utime(self.place(digest))

    def drop_soon(self, digest: Digest, *, partial: bool = False) -> Path | None:
        """Takes a blob's name away, at once; returns what ``unlink`` is to remove, or None for one that is
        not there, or is being received."""
        if partial:
            if digest in self._receiving:
                return None
            suspended = self._suspended.pop(digest, None)
            if suspended is not None:
                suspended.close(keep=True)
        place = self._partial(digest) if partial else self.place(digest)
        gone = next(self._drafts)
        try:
            os.rename(place, gone)
        except OSError:
            return None
        return gone

    async def unlink(self, gone: Path) -> None:
        """Gives back the space of what ``drop_soon`` returned."""
        await self._on_thread(_unlink, gone)

    async def survey(self) -> list[CachedFile]:
        """Returns all that is here, by looking."""
        return await self._on_thread(self._survey)

    def room_bytes(self) -> int:
        """Returns what files may still take of the disk."""
        with translated(self._folder):
            return room_bytes(self._folder, self._reserve_bytes)

    async def remove(self, digest: Digest) -> bool:
        """Removes a blob and says whether it was there; the empty blob stays."""
        if digest == EMPTY.digest:
            return False
        return await self._on_thread(self._remove, digest)

    async def total_bytes(self) -> int:
        """Returns the sum of the sizes of all blobs, by looking."""
        return await self._on_thread(self._total_bytes)

    def publish(self, draft: Draft, digest: Digest) -> None:
        """Gives a verified draft its name, unless the blob is there already; blocks."""
        self.on_naming(digest)
        if not self._is_settled(digest):
            self._settling.add(digest)
            draft.publish(self.place(digest))
            self._settling.discard(digest)
            with self._counting:
                self._added_bytes += draft.size

    def _partial(self, digest: Digest) -> Path:
        return self._folder / "incoming" / f"{digest.hex()}.part"

    def _is_settled(self, digest: Digest) -> bool:
        return digest not in self._settling and self.place(digest).exists()

    # --- on worker threads ----------------------------------------------------------------------------------

    async def _on_thread(self, work: Callable[[Unpack[Arguments]], Result], *arguments: *Arguments) -> Result:
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._threads)

    def _add_bytes(self, data: bytes, where: Path) -> BlobRef:
        ref = BlobRef(digest=Digest(hashlib.sha256(data).digest()), size=len(data))
        self.on_naming(ref.digest)
        if not self._is_settled(ref.digest):
            with translated(where), drafted(where) as draft:
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
        check_size(status.st_size)
        with translated(where), drafted(where) as draft:
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
        return sum(one.size for one in self._survey() if not one.partial)

    def _survey(self) -> list[CachedFile]:
        found: list[CachedFile] = []
        with os.scandir(self._folder) as shelves:
            for shelf in shelves:
                if len(shelf.name) == 2 or shelf.name == "incoming":
                    with os.scandir(shelf) as files:
                        for file in files:
                            # One that is removed meanwhile counts for nothing.
                            with contextlib.suppress(FileNotFoundError, ValueError):
                                found += _cached(shelf.name, file)
        return found


def _cached(shelf: str, file: os.DirEntry[str]) -> Iterator[CachedFile]:
    partial = shelf == "incoming"
    if partial and not _PARTIAL.fullmatch(file.name):
        return
    digest = Digest(bytes.fromhex(file.name[:64] if partial else shelf + file.name))
    status = file.stat()
    yield CachedFile(digest=digest, size=status.st_size, used_s=status.st_mtime, partial=partial)


def _size_of(source: Path) -> int:
    """Returns the size of what may be taken in; 0 for what may not: taking it in says why."""
    try:
        status = source.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_size <= BLOB_BYTES_MAX else 0


async def _make_none(size: int) -> None:
    """Frees nothing: nobody decides here what may go."""


def _unlink(gone: Path) -> None:
    with contextlib.suppress(OSError):
        gone.unlink()


def _make_shelves(folder: Path) -> None:
    """Makes all 256 at once: made one by one, each would need a sync of its own before its first blob."""
    missing = [folder / f"{number:02x}" for number in range(256) if not (folder / f"{number:02x}").is_dir()]
    for shelf in missing:
        shelf.mkdir(mode=0o700)
    if missing:
        sync_folder(folder)


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

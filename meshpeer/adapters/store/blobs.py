"""Blobs: files by SHA-256, complete or absent, in ``blobs/ab/cdef...``.

A blob is written beside its place, synced and renamed, so a crash leaves either all of it or nothing. The empty blob is known without a
disk: most tasks print nothing on stderr. Content is verified when it comes from elsewhere, and hashed as it is copied when it comes from here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import trio

from meshpeer.core.errors import EnvironmentFault, LocalFault, PeerFault, StoreFailed
from meshpeer.core.ids import Digest
from meshpeer.core.wire.limits import BLOB_BYTES_MAX
from meshpeer.runtime.ports import BlobRef

EMPTY = BlobRef(digest=Digest(hashlib.sha256(b"").digest()), size=0)
INLINE_BYTES_MAX = 64 * 1024
"""Up to this size a write is done in the calling task: a thread costs more."""
_COPY_BYTES = 1024 * 1024

Result = TypeVar("Result")


def open_blobs(folder: Path) -> FileBlobs:
    """Opens (or makes) the folder, and drops what a crash left half-written; raises ``EnvironmentFault``."""
    try:
        incoming = folder / "incoming"
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in incoming.iterdir():
            leftover.unlink()
        (folder / EMPTY.digest.hex()).touch()
    except OSError as error:
        raise EnvironmentFault(f"{folder} can't be used: {error.strerror}", "run as the owner of the state folder, and see df -h") from error
    return FileBlobs(folder)


class FileBlobs:
    """Implements ``runtime.ports.Blobs``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"

    def path(self, digest: Digest) -> Path | None:
        place = self._place(digest)
        return place if place.exists() else None

    async def add_bytes(self, data: bytes) -> BlobRef:
        if not data:
            return EMPTY
        if len(data) <= INLINE_BYTES_MAX:
            return self._add_bytes(data)
        return await self._in_thread(self._add_bytes, data)

    async def add_file(self, source: Path) -> BlobRef:
        """Copies a file in; raises ``EnvironmentFault`` where it can't be read or stored, ``LocalFault`` where it is too large."""
        try:
            file = source.open("rb")
        except OSError as error:
            raise EnvironmentFault(f"{source} can't be read: {error.strerror}") from error
        with file:
            return await self.add_open(file)

    async def add_open(self, file: BinaryIO) -> BlobRef:
        """Copies an open file in, from its present position."""
        size = os.fstat(file.fileno()).st_size
        if size > BLOB_BYTES_MAX:
            raise LocalFault(f"a file of {size} bytes exceeds {BLOB_BYTES_MAX >> 20} MiB", "split it, or leave it on shared storage")
        if size <= INLINE_BYTES_MAX:
            return await self.add_bytes(file.read(BLOB_BYTES_MAX + 1))
        return await self._in_thread(self._add_open, file)

    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        if digest == EMPTY.digest:
            return b""
        try:
            with self._place(digest).open("rb") as file:
                return os.pread(file.fileno(), length, offset)
        except FileNotFoundError as error:
            raise LocalFault(f"blob {digest.hex()[:16]} is not here") from error
        except OSError as error:
            raise EnvironmentFault(f"blob {digest.hex()[:16]} can't be read: {error.strerror}") from error

    @contextlib.asynccontextmanager
    async def receive(self, ref: BlobRef) -> AsyncIterator[_Writer]:
        with _translated(self._folder):
            descriptor, name = tempfile.mkstemp(dir=self._incoming)
        writer = _Writer(self, ref, descriptor, Path(name))
        try:
            yield writer
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)

    def publish(self, incoming: Path, digest: Digest) -> None:
        """Moves a complete, synced file to its place."""
        place = self._place(digest)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        os.rename(incoming, place)
        _sync_folder(place.parent)

    def _place(self, digest: Digest) -> Path:
        name = digest.hex()
        return self._folder / name if digest == EMPTY.digest else self._folder / name[:2] / name[2:]

    def _add_bytes(self, data: bytes) -> BlobRef:
        ref = BlobRef(digest=Digest(hashlib.sha256(data).digest()), size=len(data))
        if self.path(ref.digest) is None:
            with _translated(self._folder):
                descriptor, name = tempfile.mkstemp(dir=self._incoming)
                self._fill(descriptor, Path(name), ref.digest, lambda: _write_all(descriptor, data))
        return ref

    def _add_open(self, file: BinaryIO) -> BlobRef:
        hasher, size = hashlib.sha256(), 0
        with _translated(self._folder):
            descriptor, name = tempfile.mkstemp(dir=self._incoming)
            try:
                while piece := file.read(_COPY_BYTES):
                    hasher.update(piece)
                    size += len(piece)
                    if size > BLOB_BYTES_MAX:
                        raise LocalFault(f"a file grew beyond {BLOB_BYTES_MAX >> 20} MiB while it was read")
                    _write_all(descriptor, piece)
                ref = BlobRef(digest=Digest(hasher.digest()), size=size)
                self._fill(descriptor, Path(name), ref.digest, lambda: None)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
                raise
        return ref

    def _fill(self, descriptor: int, incoming: Path, digest: Digest, write: Callable[[], None]) -> None:
        try:
            write()
            os.fsync(descriptor)
            self.publish(incoming, digest)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(incoming)
            raise
        finally:
            os.close(descriptor)

    @staticmethod
    async def _in_thread(work: Callable[..., Result], *arguments: object) -> Result:
        return await trio.to_thread.run_sync(work, *arguments)


class _Writer:
    """Implements ``runtime.ports.BlobWriter``."""

    def __init__(self, blobs: FileBlobs, ref: BlobRef, descriptor: int, incoming: Path) -> None:
        self._blobs = blobs
        self._ref = ref
        self._descriptor = descriptor
        self._incoming = incoming
        self._hasher = hashlib.sha256()
        self.received = 0

    async def write(self, data: bytes) -> None:
        if self.received + len(data) > min(self._ref.size, BLOB_BYTES_MAX):
            raise PeerFault("a file is longer than was announced")
        with _translated(self._incoming):
            _write_all(self._descriptor, data)
        self._hasher.update(data)
        self.received += len(data)

    async def finish(self) -> BlobRef:
        if self.received != self._ref.size or self._hasher.digest() != self._ref.digest:
            raise PeerFault("a file does not have the content that was announced")
        if self._ref.digest != EMPTY.digest:
            with _translated(self._incoming):
                await trio.to_thread.run_sync(os.fsync, self._descriptor)
                self._blobs.publish(self._incoming, self._ref.digest)
        return self._ref


@contextlib.contextmanager
def _translated(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreFailed(f"a file can't be stored under {place}: {error.strerror}", f"free some space (df -h {place})") from error


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""A file on its way to becoming a blob: written and hashed block by block, synced, then named.

What was written is synced every ``SYNC_BYTES``: one sync of gigabytes would hold up the journal, which shares
the disk, for as long as that takes. A draft that is received piece by piece may be kept half done
(``resumed``): what stands there is hashed again before anything is added, and judged as a whole at the end.

All of it blocks, and runs on worker threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import trio

from meshpeer.adapters.store.faults import folder_fault
from meshpeer.adapters.store.opening import sync_folder
from meshpeer.core.errors import LocalFault, StoreFailed
from meshpeer.core.ids import Digest
from meshpeer.core.jobs.rules import size_text
from meshpeer.core.wire.limits import BLOB_BYTES_MAX
from meshpeer.runtime.ports import BlobRef

SYNC_BYTES = 64 * 1024 * 1024
RESERVE_BYTES = 256 * 1024 * 1024
"""The last of the disk is the journal's: an agent that can't write that stops."""
LARGE_BYTES = 1024 * 1024
"""What is smaller is not held to the reserve: logs of tasks must find room."""
_COPY_BYTES = 1024 * 1024
_FICLONE = 0x40049409
"""ioctl_ficlonerange(2): the same extents under another inode, on file systems that share them."""
_FRESH = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_KEPT = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


class Draft:
    """An open file under ``incoming``."""

    def __init__(self, path: Path, *, resumed: bool = False) -> None:
        self.path = path
        self._hash = hashlib.sha256()
        self.size = 0
        self._synced = 0
        self._named = False
        self._file = os.open(path, _KEPT if resumed else _FRESH, 0o600)
        self._found = os.fstat(self._file).st_size

    @property
    def caught_up(self) -> bool:
        """Says whether all that stood there was hashed."""
        return self.size >= self._found

    def catch_up(self, bytes_max: int) -> None:
        """Hashes so much more of what stood there; a file that has become shorter meanwhile ends there."""
        until = min(self._found, self.size + bytes_max)
        while self.size < until:
            piece = os.pread(self._file, min(_COPY_BYTES, until - self.size), self.size)
            if not piece:
                self._found = self.size
                return
            self._hash.update(piece)
            self.size += len(piece)
        os.lseek(self._file, self.size, os.SEEK_SET)

    def start_over(self) -> None:
        """Forgets all that stood there."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._hash, self.size, self._found, self._synced = hashlib.sha256(), 0, 0, 0

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            # Counted as far as it stands there: a disk may be full in the middle.
            written = os.write(self._file, view)
            self._hash.update(view[:written])
            self.size += written
            view = view[written:]
        if self.size - self._synced >= SYNC_BYTES:
            os.fdatasync(self._file)
            self._synced = self.size

    def clone(self, source: int) -> bool:
        """Shares the source's extents; False where the file system can't.

        copy_file_range(2) is no step between: the bytes have to be read anyway, to hash them.
        """
        try:
            fcntl.ioctl(self._file, _FICLONE, source)
        except OSError:
            return False
        while piece := os.pread(self._file, _COPY_BYTES, self.size):
            self._hash.update(piece)
            self.size += len(piece)
            check_size(self.size)
            _let_go()
        return True

    def copy(self, source: int) -> None:
        while piece := os.pread(source, _COPY_BYTES, self.size):
            self.write(piece)
            check_size(self.size)
            _let_go()

    def ref(self) -> BlobRef:
        return BlobRef(digest=Digest(self._hash.digest()), size=self.size)

    def publish(self, place: Path) -> None:
        """Makes the content durable, then the name."""
        os.fdatasync(self._file)
        # Read-only once it has its name: the content of a blob never changes.
        os.fchmod(self._file, 0o400)
        os.rename(self.path, place)
        self._named = True
        sync_folder(place.parent)

    def close(self, *, keep: bool = False) -> None:
        """Closes it, and removes it where it did not become a blob and is not to be kept."""
        os.close(self._file)
        if not keep and not self._named:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[Draft]:
    draft = Draft(path)
    try:
        yield draft
    finally:
        draft.close()


@contextlib.contextmanager
def translated(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise folder_fault(place, error) from error


def check_size(size: int) -> None:
    if size > BLOB_BYTES_MAX:
        raise LocalFault(
            f"a file of {size} bytes exceeds {size_text(BLOB_BYTES_MAX, ' ')}",
            "split it, or leave it on shared storage",
        )


def room_bytes(folder: Path, reserve_bytes: int) -> int:
    """Returns what files may still take of the disk: less than nothing where the reserve is in use."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize - reserve_bytes


def no_room(folder: Path, wanted_bytes: int, room: int) -> StoreFailed:
    """Returns the fault of a file that the disk has no room for. Nothing is lost by it."""
    return StoreFailed(
        f"the disk under {folder} is full: a file of {_shown(wanted_bytes)} is to come, and there is room "
        f"for {_shown(max(0, room))}",
        f"free some space (df -h {folder}), or lower cache_bytes_max under [jobs]",
    )


def _shown(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _let_go() -> None:
    """Ends a long copy whose task was cancelled: raises ``trio.Cancelled`` then."""
    with contextlib.suppress(RuntimeError):  # no thread of trio's: a test, or the event loop's own
        trio.from_thread.check_cancelled()

"""The scratch folder of one slot: made, filled with inputs, handed to a task, and made clean again.

    scratch_root/         0711 the agent's, locked: one agent at a time
      slot-0/             0710 the agent's, group of the slot: other slots can't pass
        work/             0700 the slot's: HOME and working folder of the task
        tmp/              0700 the slot's: TMPDIR
        stdout, stderr    0600 the slot's, under names that it can't change
        trash/            0700 the agent's: what a task left, on its way out

A folder that a task left untouched serves the next one; anything else is moved to ``trash`` in one rename and
emptied there. The agent may be root and the content hostile, so nothing here resolves a path through a task's
folders: it opens name by name, refusing symbolic links (openat(2), O_NOFOLLOW).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from meshpeer.adapters.executor.clearing import clear_folder
from meshpeer.adapters.executor.usage import RESERVE_BYTES
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.jobs.rules import Fault, relative_path
from meshpeer.core.wire.limits import BLOB_BYTES_MAX
from meshpeer.runtime.ports import StagedFile

STREAMS = ("stdout", "stderr")
INLINE_FILES_MAX = 16
INLINE_BYTES_MAX = 1024 * 1024
"""Up to these an attempt's inputs are copied in the calling task: a thread costs more."""
MARK_NS = 3_000_000_000
"""A change may leave the time of the one before in a folder's marks where both are closer than this: file
systems count in ticks of the kernel, in seconds, or (FAT) in two of these."""
COPY_BYTES = 16 * 1024 * 1024
"""Copied at a time: what the agent stops is looked at in between."""
_FICLONE = 0x40049409
"""ioctl_ficlone(2): shares the extents of a file instead of copying them."""
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_STREAM = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BadPlan(Exception):
    """What the plan asks for can't be: the text is the attempt's error."""


@contextlib.contextmanager
def locked_root(root: Path) -> Iterator[None]:
    """Makes the root of all slots and holds it for this process; raises ``EnvironmentFault``."""
    with translated(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(root, _FOLDER)
    try:
        with translated(root):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise EnvironmentFault(
                    f"another agent runs tasks in {root}", "give each agent a state folder of its own"
                ) from error
            os.fchmod(descriptor, 0o711)
        yield
    finally:
        os.close(descriptor)


class Scratch:
    """One slot's folders. ``uid`` is the slot's own user, or None for the agent's."""

    def __init__(self, root: Path, index: int, uid: int | None) -> None:
        self.folder = root / f"slot-{index}"
        self.work = self.folder / "work"
        self.tmp = self.folder / "tmp"
        self._trash = self.folder / "trash"
        self._owner = -1 if uid is None else uid
        self._pristine: dict[Path, tuple[int, int, int, int]] = {}
        self._settled: set[Path] = set()
        """Pristine folders that were seen empty long after they last changed: what changes them after that
        shows in their marks."""
        self._streams = {stream: str(self.folder / stream) for stream in STREAMS}
        self._kept: dict[str, int] = {}
        self._cleaned = False

    def read(self, stream: str, offset: int, length: int) -> bytes:
        """Reads ``stdout`` or ``stderr`` of the present attempt."""
        return os.pread(self._kept[stream], length, offset)

    def descriptor(self, stream: str) -> int:
        return self._kept[stream]

    def size(self, stream: str) -> int:
        return os.fstat(self._kept[stream]).st_size

    def add(self, stream: str, text: bytes) -> None:
        """Appends a word of the executor's own, where there is room for it."""
        size = self.size(stream)
        if size + len(text) <= BLOB_BYTES_MAX:
            with translated(self.folder):
                os.pwrite(self._kept[stream], text, size)

    async def prepare(self) -> None:
        """Makes whatever is not there in the state in which a task may find it; raises
        ``EnvironmentFault``."""
        with translated(self.folder):
            if len(self._kept) < len(STREAMS):
                self._make()
            for stream in self._kept:
                if self.size(stream):
                    os.truncate(self._kept[stream], 0)
            if not self._cleaned:
                await self._renew()
            self._cleaned = False

    def writer(self, stream: str) -> int:
        """Returns a descriptor for the task to write to; the caller closes it."""
        with translated(self.folder):
            return os.open(self._streams[stream], os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)

    async def stage(self, files: Sequence[StagedFile], cwd: str) -> Path:
        """Copies the inputs in and returns the folder to run in; raises ``BadPlan`` or
        ``EnvironmentFault``."""
        if not files and cwd in ("", "."):
            return self.work
        places = [(_checked(file.path, "input"), file) for file in files]
        folder = _checked(cwd, "cwd") if cwd else ""
        if len(files) <= INLINE_FILES_MAX and sum(map(_size, files)) <= INLINE_BYTES_MAX:
            self._stage(places, folder)
        else:
            await trio.to_thread.run_sync(self._stage, places, folder)
        return self.work / folder

    def open_work(self) -> int:
        """Opens the task's folder, for collecting; the caller closes it."""
        return os.open(self.work, _FOLDER)

    async def clean(self) -> None:
        """Removes what an attempt left. What can't be removed now is tried again by ``prepare``, and fails
        there."""
        with contextlib.suppress(OSError):
            await self._renew()
            self._cleaned = True

    async def remove(self) -> None:
        """Removes all of the slot's folders; raises ``OSError``."""
        self._close_streams()
        self._pristine.clear()
        self._settled.clear()
        if self.folder.exists():
            await clear_folder(self.folder)
            self.folder.rmdir()

    def _make(self) -> None:
        self._close_streams()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(self.folder, -1, self._owner)
        self.folder.chmod(0o710)
        self._trash.mkdir(mode=0o700, exist_ok=True)
        for stream in STREAMS:
            self._kept[stream] = os.open(self._streams[stream], _STREAM, 0o600)
            os.fchown(self._kept[stream], self._owner, self._owner)  # so that it may open /dev/stdout

    def _close_streams(self) -> None:
        for descriptor in self._kept.values():
            os.close(descriptor)
        self._kept.clear()

    async def _renew(self) -> None:
        stale = [folder for folder in (self.work, self.tmp) if not self._is_pristine(folder)]
        for folder in stale:
            self._pristine.pop(folder, None)
            self._settled.discard(folder)
            with contextlib.suppress(FileNotFoundError):
                if os.geteuid() != 0:  # moving a folder writes to it: its `..` changes
                    folder.chmod(0o700)
                folder.rename(self._trash / os.urandom(8).hex())
        if stale:
            await clear_folder(self._trash)
        for folder in stale:
            folder.mkdir(mode=0o700)
            os.chown(folder, self._owner, self._owner)
            self._pristine[folder] = _marks(os.lstat(folder))

    def _is_pristine(self, folder: Path) -> bool:
        marks = self._pristine.get(folder)
        try:
            if marks is None or marks != _marks(os.lstat(folder)):
                return False
            if folder in self._settled:
                return True
            now_ns = time.time_ns()
            if os.listdir(folder):
                return False
        except OSError:
            return False
        if now_ns - marks[-1] > MARK_NS:
            self._settled.add(folder)
        return True

    def _stage(self, places: Sequence[tuple[str, StagedFile]], folder: str) -> None:
        with translated(self.folder):
            work = os.open(self.work, _FOLDER)
            try:
                if folder:
                    os.close(self._make_folders(work, folder))
                for path, file in places:
                    parent, _, name = path.rpartition("/")
                    here = self._make_folders(work, parent)
                    try:
                        self._copy(file, name, here)
                    finally:
                        os.close(here)
            except (FileExistsError, NotADirectoryError) as error:
                raise BadPlan(f"two inputs stand in each other's way at {error.filename!r}") from error
            finally:
                os.close(work)

    def _make_folders(self, work: int, path: str) -> int:
        here = os.dup(work)
        for name in path.split("/") if path else ():
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=here)
                    os.chown(name, self._owner, self._owner, dir_fd=here, follow_symlinks=False)
                inner = os.open(name, _FOLDER, dir_fd=here)
            finally:
                os.close(here)
            here = inner
        return here

    def _copy(self, file: StagedFile, name: str, folder: int) -> None:
        with _opened(file) as source:
            target = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
            try:
                if isinstance(source, bytes):
                    _write(source, target)
                else:
                    _copy_content(source, target)
                os.fchmod(target, 0o755 if file.executable else 0o644)
                os.fchown(target, self._owner, self._owner)
            finally:
                os.close(target)


@contextlib.contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turns an ``OSError`` about the scratch folders into an ``EnvironmentFault``."""
    try:
        yield
    except OSError as error:
        hint = f"free some space (df -h {folder})" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise EnvironmentFault(
            f"the scratch folder {folder} can't be used: {error.strerror}", hint
        ) from error


@contextlib.contextmanager
def _opened(file: StagedFile) -> Iterator[int | bytes]:
    if isinstance(file.source, bytes):
        yield file.source
        return
    try:
        source = os.open(file.source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EnvironmentFault(f"the input {file.path} is not here any more: {error.strerror}") from error
    try:
        yield source
    finally:
        os.close(source)


def _write(content: bytes, target: int) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(target, rest) :]


def _copy_content(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        size, status = os.fstat(source).st_size, os.fstatvfs(target)
        if size > INLINE_BYTES_MAX and status.f_bavail * status.f_frsize < size + RESERVE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        while copied := os.sendfile(target, source, None, COPY_BYTES):
            if copied == COPY_BYTES:
                # So much is copied on a thread of trio's alone: who stops an attempt waits for no copy.
                trio.from_thread.check_cancelled()


def _checked(path: str, what: str) -> str:
    checked = relative_path(path)
    if isinstance(checked, Fault):
        raise BadPlan(f"{what}: {checked.what}")
    if not checked and what == "input":
        raise BadPlan(f"{what}: {path!r} is the scratch folder itself")
    return checked


def _size(file: StagedFile) -> int:
    if isinstance(file.source, bytes):
        return len(file.source)
    try:
        return file.source.stat().st_size
    except OSError:
        return 0  # opening it will say why


def _marks(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_mode, status.st_uid, status.st_ctime_ns

"""Takes a task's output files out of its scratch folder and into the blobs.

The agent may be root and the task hostile: a symbolic link named ``frame-1.ppm`` must not make the agent read
``/etc/shadow``. So every name is opened relative to its folder's descriptor, links are refused and not
followed, only regular files count, and they must belong to the slot's user (a hard link to another's file
does not). By then nothing of the task runs any more.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from meshpeer.adapters.executor.masking import holds_secret
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.jobs.model import FileRef
from meshpeer.core.jobs.outputs import (
    count_error,
    file_error,
    has_wildcard,
    missing_error,
    name_selected,
    secret_error,
)
from meshpeer.core.jobs.rules import shown
from meshpeer.runtime.ports import BlobRef, Blobs

READ_INLINE_BYTES_MAX = 64 * 1024
"""Up to this size a file is read in the calling task."""
ENTRIES_MAX = 1_000_000
"""Names that one attempt's patterns may pass over."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OutputFault(Exception):
    """An output is missing or unfit: the text is the attempt's error."""


async def collect_outputs(
    work: int,
    patterns: Sequence[str],
    uid: int | None,
    blobs: Blobs,
    secrets: Sequence[tuple[str, bytes]] = (),
) -> tuple[FileRef, ...]:
    """Stores the files that the patterns select in the open folder, and returns them sorted by path.

    Nothing is stored unless every pattern selects a file, and none of these holds the value of a secret.
    Raises ``OutputFault``; ``StoreFailed`` where the disk fails.
    """
    if all("/" not in pattern and not has_wildcard(pattern) for pattern in patterns):
        paths = _select(work, patterns)
    else:  # a task may have filled a folder with a million names
        paths = await trio.to_thread.run_sync(_select, work, patterns)
    for path in paths:
        descriptor, _ = _open_file(work, path, uid)
        try:
            name = await trio.to_thread.run_sync(holds_secret, descriptor, secrets) if secrets else ""
        finally:
            os.close(descriptor)
        if name:
            raise OutputFault(secret_error(path, name))
    return tuple([await _store(work, path, uid, blobs) for path in paths])


async def store_file(descriptor: int, size: int, blobs: Blobs) -> BlobRef:
    """Stores an open file; raises ``StoreFailed``."""
    if size <= READ_INLINE_BYTES_MAX:
        return await blobs.add_bytes(os.pread(descriptor, READ_INLINE_BYTES_MAX, 0) if size else b"")
    # The path leads to this very file, whatever its name has come to mean.
    return await blobs.add_file(Path(f"/proc/self/fd/{descriptor}"))


async def _store(work: int, path: str, uid: int | None, blobs: Blobs) -> FileRef:
    descriptor, status = _open_file(work, path, uid)
    try:
        ref = await store_file(descriptor, status.st_size, blobs)
    finally:
        os.close(descriptor)
    return FileRef(
        path=path, digest=ref.digest, size=ref.size, executable=bool(status.st_mode & stat.S_IXUSR)
    )


def _select(work: int, patterns: Sequence[str]) -> list[str]:
    entries = iter(range(ENTRIES_MAX))
    paths: set[str] = set()
    for pattern in patterns:
        found = list(_selected(work, pattern, entries))
        if not found:
            raise OutputFault(missing_error(pattern))
        paths.update(found)
        if fault := count_error(len(paths)):
            raise OutputFault(fault)
    return sorted(paths)


def _selected(work: int, pattern: str, entries: Iterator[int]) -> Iterator[str]:
    """Yields the paths that are selected, fit or not: one that is no file is an error later, not a silent
    gap."""
    whole_folder = pattern.endswith("/")
    parts = pattern.rstrip("/").split("/")
    named = not has_wildcard(pattern)
    folders = [""]
    for part in parts if whole_folder else parts[:-1]:
        folders = [
            inner for folder in folders for inner in _inner_folders(work, folder, part, named, entries)
        ]
    if whole_folder:
        yield from _all_files(work, folders, entries)
        return
    for folder in folders:
        for name, mode in _names(work, folder, parts[-1], entries):
            if named or not stat.S_ISDIR(mode):
                yield _joined(folder, name)


def _inner_folders(work: int, folder: str, part: str, named: bool, entries: Iterator[int]) -> Iterator[str]:
    """Yields the folders that one part of a pattern selects. What else it selects is a fault where the task
    named it in full, and passed over where a wildcard led there."""
    for name, mode in _names(work, folder, part, entries):
        if stat.S_ISDIR(mode):
            yield _joined(folder, name)
        elif named:
            raise OutputFault(_unfit(_joined(folder, name), mode))


def _all_files(work: int, folders: Sequence[str], entries: Iterator[int]) -> Iterator[str]:
    waiting = list(folders)
    while waiting:
        folder = waiting.pop()
        for name, mode in _names(work, folder, None, entries):
            if stat.S_ISDIR(mode):
                waiting.append(_joined(folder, name))
            else:
                yield _joined(folder, name)


def _names(work: int, folder: str, part: str | None, entries: Iterator[int]) -> list[tuple[str, int]]:
    """Returns the names in a folder that one part of a pattern selects (None: all), with their modes."""
    here = _open_folder(work, folder)
    try:
        if part is not None and not has_wildcard(part):
            candidates = [part]
        else:
            with os.scandir(here) as listing:
                candidates = [
                    entry.name
                    for entry in listing
                    if _counted(entries) and (part is None or name_selected(part, entry.name))
                ]
        return [(name, mode) for name in candidates if (mode := _mode(here, name))]
    finally:
        os.close(here)


def _counted(entries: Iterator[int]) -> bool:
    if next(entries, None) is None:
        raise OutputFault(f"the outputs can't be searched: the folders hold more than {ENTRIES_MAX:,} names")
    return True


def _mode(folder: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _open_file(work: int, path: str, uid: int | None) -> tuple[int, os.stat_result]:
    folder, _, name = path.rpartition("/")
    here = _open_folder(work, folder)
    try:
        mode = _mode(here, name)
        if not stat.S_ISREG(mode):
            raise OutputFault(_unfit(path, mode))
        descriptor = _open(name, _FILE, here, path)
    finally:
        os.close(here)
    status = os.fstat(descriptor)
    fault = "" if stat.S_ISREG(status.st_mode) else _unfit(path, status.st_mode)
    if uid is not None and status.st_uid != uid:
        fault = f"output {shown(path)} belongs to another user"
    fault = fault or file_error(path, status.st_size)
    if fault:
        os.close(descriptor)
        raise OutputFault(fault)
    return descriptor, status


def _open_folder(work: int, path: str) -> int:
    here = os.dup(work)
    for name in path.split("/") if path else ():
        try:
            inner = _open(name, _FOLDER, here, path)
        finally:
            os.close(here)
        here = inner
    return here


def _open(name: str, flags: int, folder: int, path: str) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO):
            raise EnvironmentFault(f"the output {shown(path)} can't be read: {error.strerror}") from error
        raise OutputFault(f"output {shown(path)} can't be read: {error.strerror}") from error


def _unfit(path: str, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return f"output {shown(path)} is a symbolic link"
    if stat.S_ISDIR(mode):
        return f"output {shown(path)} is a folder: write {shown(path + '/')}"
    return f"output {shown(path)} is not a regular file"


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name

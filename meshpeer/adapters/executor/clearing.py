"""Empties a folder that somebody else has filled, whatever stands in it.

The usual recursion has three weaknesses when a task made the tree: it nests as deep as the task pleased,
holds a descriptor for each level, and trusts modes. Here every folder that is found moves to the top, so the
work is flat: two descriptors at a time, no path resolved through a folder of the task's, no symbolic link
followed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import trio

INLINE_ENTRIES_MAX = 64
"""Up to this many entries are cleared in the calling task: a thread costs more."""
_BATCH = 64


async def clear_folder(folder: Path) -> None:
    """Removes all that is in ``folder``, and not itself; raises ``OSError``."""
    if not _clear(folder, INLINE_ENTRIES_MAX):
        await trio.to_thread.run_sync(_clear, folder, None)


def remove_folder(folder: Path) -> None:
    """Removes a folder with all that is in it, however long that takes; raises ``OSError``."""
    _clear(folder, None)
    folder.rmdir()


def _clear(folder: Path, entries_max: int | None) -> bool:
    token = os.urandom(8).hex()
    fresh = (f".{token}-{number}" for number in itertools.count())
    handled = 0
    with _opened(folder, None) as top:
        while batch := _batch(top):
            for name, is_folder in batch:
                if is_folder:
                    handled += _clear_some(top, name, fresh)
                else:
                    os.unlink(name, dir_fd=top)
                handled += 1
                if entries_max is not None and handled > entries_max:
                    return False
    return True


def _clear_some(top: int, folder: str, fresh: Iterator[str]) -> int:
    """Handles a batch of a folder's entries, removes it if it is empty then, and returns how many it
    handled."""
    _open_up(folder, top)
    with _opened(folder, top) as here:
        batch = _batch(here)
        for name, is_folder in batch:
            if is_folder:
                _open_up(name, here)
                os.rename(name, next(fresh), src_dir_fd=here, dst_dir_fd=top)
            else:
                os.unlink(name, dir_fd=here)
    try:
        os.rmdir(folder, dir_fd=top)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    return len(batch)


def _open_up(folder: str, parent: int) -> None:
    """Lets its owner read and empty a folder. Root needs no mode, and must not follow where a name may be
    swapped."""
    if os.geteuid() != 0:
        os.chmod(folder, 0o700, dir_fd=parent)


def _batch(folder: int) -> list[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        return [
            (entry.name, entry.is_dir(follow_symlinks=False)) for entry in itertools.islice(entries, _BATCH)
        ]


@contextlib.contextmanager
def _opened(folder: str | Path, parent: int | None) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

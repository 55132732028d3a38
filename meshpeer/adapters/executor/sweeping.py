"""Removes files that a slot's user left outside of its scratch folder: for the next task of that slot is the
same user, and may be another job's.

Everybody may write to the machine's folders for temporary files and shared memory. Nothing of the user runs
any more when this does, and these folders are sticky, so nobody else can put something in an entry's place.
A folder in which no name has come or gone since the last look is not read again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import trio

from meshpeer.adapters.executor.clearing import remove_folder

SHARED_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/dev/mqueue"), Path("/run/lock"))


class Sweeper:
    """Keeps shared folders free of one user's files."""

    def __init__(self, uid: int, folders: Sequence[Path] = SHARED_FOLDERS) -> None:
        self._uid = uid
        self._seen: dict[Path, int] = dict.fromkeys(folders, -1)

    async def sweep(self) -> None:
        """Removes what there is; what can't be removed stays."""
        changed = [folder for folder, seen in self._seen.items() if _changed_ns(folder) != seen]
        if changed:
            await trio.to_thread.run_sync(self._sweep, changed)

    def _sweep(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            seen = _changed_ns(folder)
            found = _names_of(folder, self._uid)
            for name in found:
                _remove(folder / name)
            if not found:
                self._seen[folder] = seen


def _changed_ns(folder: str | Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _names_of(folder: Path, uid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == uid:
                    found.append(entry.name)
    return found


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            remove_folder(path)
        else:
            path.unlink()

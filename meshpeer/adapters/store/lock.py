"""The lock on a state folder: two agents on one folder would sign two bodies for one precedence.

A lock of flock(2) ends with its process, however that ends, so there is nothing to clean up. The file keeps
the process id for the error text only; it stays when the lock is gone, since removing it would let two in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meshpeer.core.errors import EnvironmentFault

LOCK_FILE = "state.lock"
_PID_BYTES_MAX = 32


@dataclass(frozen=True, slots=True)
class StateLock:
    """A lock that is held."""

    path: Path


@contextlib.contextmanager
def lock_state(folder: Path) -> Iterator[StateLock]:
    """Holds the folder's lock; raises ``EnvironmentFault`` naming the process that has it."""
    path = folder / LOCK_FILE
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EnvironmentFault(
            f"{path} can't be opened: {error.strerror}",
            "run as the owner of the state folder, or name another with --state-dir",
        ) from error
    try:
        _take(file, folder)
        try:
            yield StateLock(path)
        finally:
            os.ftruncate(file, 0)
    finally:
        os.close(file)


def is_locked(folder: Path) -> bool:
    """Says whether an agent holds the folder now."""
    try:
        file = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _take(file: int, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode("ascii"), 0)
    except BlockingIOError as error:
        holder = os.pread(file, _PID_BYTES_MAX, 0).decode("ascii", "replace").strip()
        who = f" (process {holder})" if holder.isdigit() else ""
        raise EnvironmentFault(
            f"an agent{who} is already running on {folder}",
            "see `meshpeer status`; stop that agent first, or name another folder with --state-dir",
        ) from error
    except OSError as error:
        raise EnvironmentFault(
            f"{folder / LOCK_FILE} can't be locked: {error.strerror}",
            "keep the state folder on a local disk with space left (df -h)",
        ) from error

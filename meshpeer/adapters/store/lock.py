"""The lock on a state folder: two agents on one folder would sign two bodies for one precedence."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meshpeer.core.errors import EnvironmentFault


@dataclass(frozen=True, slots=True)
class StateLock:
    path: Path


@contextlib.contextmanager
def lock_state(folder: Path) -> Iterator[StateLock]:
    """Holds the folder's lock; raises ``EnvironmentFault`` naming the process that has it."""
    path = folder / "state.lock"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFault(f"{path} can't be opened: {error.strerror}", "run as the owner of the state folder, or name another with --state-dir") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(file, 32).decode("ascii", "replace").strip() or "unknown"
            raise EnvironmentFault(
                f"an agent (process {holder}) is already running on {folder}", "see `meshpeer status`, or stop it first"
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield StateLock(path)
    finally:
        os.close(file)

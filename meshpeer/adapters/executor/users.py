"""Claims the users that tasks run as: one per slot, and each by one executor of this machine only.

At the end of an attempt everything that runs as its user is killed. Two agents that used one user would kill
each other's tasks, so each user is held by a lock, and the first free ones of the configured range are taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from meshpeer.core.errors import EnvironmentFault, LocalFault

LOCKS = Path("/run/meshpeer-users")
"""Locks of this machine (and, like the users' processes, of one container): gone with a reboot."""


@contextlib.contextmanager
def claimed_users(slots: int, uids: range | None) -> Iterator[list[int | None]]:
    """Holds one user per slot; None per slot where this process is not root.

    Raises ``LocalFault`` for root without enough uids (tasks never run as root), ``EnvironmentFault`` where
    other agents hold too many of them.
    """
    if os.geteuid() != 0:
        yield [None] * slots
        return
    if uids is None:
        raise LocalFault(
            "tasks never run as root", "give the executor users of their own, such as 61000-61063"
        )
    if len(uids) < slots or 0 in uids:
        raise LocalFault(f"{slots} slots need {slots} users other than root, and there are {len(uids)}")
    with contextlib.ExitStack() as stack:
        held: list[int | None] = []
        for uid in uids:
            if len(held) == slots:
                break
            if _lock(uid, stack):
                held.append(uid)
        if len(held) < slots:
            raise EnvironmentFault(
                f"other agents here hold the users {uids[0]}-{uids[-1]}: {len(held)} of {slots} free",
                "give this one a range of its own: uids under [jobs] in meshpeer.toml",
            )
        yield held


def _lock(uid: int, stack: contextlib.ExitStack) -> bool:
    try:
        LOCKS.mkdir(mode=0o700, exist_ok=True)
        file = os.open(LOCKS / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise EnvironmentFault(
            f"users for tasks can't be claimed in {LOCKS}: {error.strerror}", "is /run writable?"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    stack.callback(os.close, file)
    return True

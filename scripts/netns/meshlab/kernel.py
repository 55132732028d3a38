"""The three system calls that the standard library of Python 3.11 doesn't offer: setns, unshare, and their
undoing.

Starting a process *in* a PID namespace needs no helper process: a thread may point at the namespace that its
next child is born in (pid_namespaces(7), /proc/self/ns/pid_for_children), fork, and point back. So a lab's
processes are plain children, with real exit codes, and signals reach them by their ordinary PID.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

CLONE_NEWPID = 0x20000000

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def children_born_in(init_pid: int | None) -> Iterator[None]:
    """Makes the children that this thread forks inside the block members of a PID namespace.

    ``init_pid`` names it by one of its processes; None makes a new one, whose PID 1 is the first child.
    Other threads are not touched. Raises OSError.
    """
    if init_pid is None:
        _checked(_libc.unshare(CLONE_NEWPID))
    else:
        _enter(f"/proc/{init_pid}/ns/pid")
    try:
        yield
    finally:
        _enter("/proc/thread-self/ns/pid")


def _enter(namespace: str) -> None:
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(descriptor, CLONE_NEWPID))
    finally:
        os.close(descriptor)


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

"""What an agent's process is to the machine: nothing that holds keys is dumped, or read by its own user.

The agent's memory holds the node's keys, and for moments the secrets of tasks. A core file would write them
to a disk, and a tracer of the agent's user would read them; the kernel lets neither happen to a process that
is not dumpable (prctl(2), PR_SET_DUMPABLE; ptrace(2)). Who may trace everything (root) still may. What the
agent starts is dumpable again, and decides for itself.
"""

from __future__ import annotations

import ctypes
import resource

DESCRIPTORS = 8_192
"""As many as this machine's limits allow: links, tasks and strangers at the door each hold some."""
_PR_SET_DUMPABLE = 4


def prepare_process() -> None:
    """Does it to this process, for good; what the kernel refuses is left as it is."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A dump that goes to a program (core_pattern with a pipe) knows no limit of size; this prevents it, too.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard < 0 else min(DESCRIPTORS, hard)
    if 0 <= soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

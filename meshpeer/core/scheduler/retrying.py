"""How long a task that failed waits before it is tried again."""

from __future__ import annotations

from meshpeer.core.jobs.model import TaskSpec

RETRY_FIRST_S, RETRY_MAX_S = 0.5, 60.0
"""The usual pauses: the first, which doubles with each failure, and the longest."""


def retry_wait_s(spec: TaskSpec, failures: int) -> float:
    """Returns the pause after this many failures (1 or more), by the task's own back-off or the usual one."""
    first_s = spec.backoff_ms / 1000 or RETRY_FIRST_S
    longest_s = spec.backoff_max_ms / 1000 or max(RETRY_MAX_S, first_s)
    # Beyond 64 doublings a pause is the longest one, whatever the first was.
    return min(longest_s, first_s * 2.0 ** min(failures - 1, 64))

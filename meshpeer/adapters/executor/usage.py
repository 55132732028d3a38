"""How much of the disk an attempt takes, looked at while it runs.

Quotas would be exact, and few file systems have them switched on. So the folders of a slot are measured, in a
thread, as seldom as is safe: when the file system has lost a part of what the attempt may still write, and
every few seconds. What a look misses the next one sees, and a reserve of the file system is never given away.

The tree is a task's, and changes while it is walked: every folder is opened name by name from the top, no
link is followed, and a look ends after so many steps.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import trio

LOOK_S = 0.25
"""Between two looks at the file system's free space, which cost nothing."""
MEASURE_S = 5.0
"""The folders are measured as often at least."""
SHARE_OF_TIME = 20
"""Measuring takes a twentieth of the time at most."""
STEPS_MAX = 2_000_000
RESERVE_BYTES = 256 * 1024 * 1024
"""An agent that can't write its journal stops, so a task may not fill the last of its disk."""
SMALL_BYTES = 32 * 1024 * 1024
"""Whoever has taken less is not to blame for a full disk."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Usage:
    """Watches one attempt."""

    def __init__(
        self, folder: Path, trees: Sequence[Path], streams: Sequence[int], bytes_max: int, reserve_bytes: int
    ) -> None:
        self._folder = folder
        self._trees = trees
        self._streams = streams
        self._bytes_max = bytes_max
        self._reserve_bytes = reserve_bytes
        self._trees_bytes = 0
        self._free_then = self.free_bytes()
        self._measured_at = -math.inf
        self._took_s = 0.0

    def free_bytes(self) -> int:
        """Returns what others than root may still write to the file system of the slot."""
        status = os.statvfs(self._folder)
        return status.f_bavail * status.f_frsize

    async def exceeds(self) -> bool:
        """Says whether stdout, stderr and the folders hold more than they may."""
        written = sum(os.fstat(descriptor).st_size for descriptor in self._streams)
        if written > self._bytes_max:
            return True
        if self._is_due(written):
            await self._measure()
        return written + self._trees_bytes > self._bytes_max

    async def fills_the_disk(self) -> bool:
        """Says whether little is left of the disk, and this attempt has taken a good part of it."""
        if self.free_bytes() >= self._reserve_bytes:
            return False
        await self._measure()
        written = sum(os.fstat(descriptor).st_blocks * 512 for descriptor in self._streams)
        return written + self._trees_bytes > SMALL_BYTES

    def _is_due(self, written: int) -> bool:
        past_s = time.monotonic() - self._measured_at
        if past_s < self._took_s * SHARE_OF_TIME:
            return False
        left = max(0, self._bytes_max - written - self._trees_bytes)
        return past_s >= MEASURE_S or self._free_then - self.free_bytes() >= left // 4

    async def _measure(self) -> None:
        free, began = self.free_bytes(), time.monotonic()
        self._trees_bytes = await trio.to_thread.run_sync(_bytes_in, self._trees)
        self._free_then, self._measured_at = free, time.monotonic()
        self._took_s = self._measured_at - began


def _bytes_in(trees: Sequence[Path]) -> int:
    """Returns what the files below some folders take on disk."""
    steps = 0
    total = 0
    for tree in trees:
        waiting: list[tuple[str, ...]] = [()]
        while waiting and steps < STEPS_MAX:
            parts = waiting.pop()
            try:
                here = _open(tree, parts)
            except OSError:  # gone meanwhile, or closed even to its owner
                continue
            try:
                with os.scandir(here) as entries:
                    for entry in entries:
                        steps += 1 + len(parts)
                        try:
                            status = entry.stat(follow_symlinks=False)
                            if entry.is_dir(follow_symlinks=False):
                                waiting.append((*parts, entry.name))
                        except OSError:
                            continue
                        total += status.st_blocks * 512
            except OSError:
                continue
            finally:
                os.close(here)
    return total


def _open(tree: Path, parts: Sequence[str]) -> int:
    here = os.open(tree, _FOLDER)
    for name in parts:
        try:
            inner = os.open(name, _FOLDER, dir_fd=here)
        finally:
            os.close(here)
        here = inner
    return here

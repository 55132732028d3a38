"""The trace: one line per event, the same bytes for the same seed.

A line is the virtual time, the host, what happened, and how many effects it had. Two traces that differ
show in
their first differing line where two runs parted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TextIO

from meshpeer.core.node.messages import FrameReceived
from meshpeer.sim.host import Host
from meshpeer.sim.meter import kind_of
from meshpeer.sim.world import World

DIGEST_DIGITS = 8


class Trace:
    """Writes a world's steps to a file."""

    def __init__(self, world: World, file: TextIO) -> None:
        self._world = world
        self._file = file
        world.watchers.append(self._step)

    def _step(self, host: Host, event: object, effects: Sequence[object]) -> None:
        if isinstance(event, FrameReceived):
            told = f"frame {kind_of(event.frame)} {len(event.frame)} {_digest(event.frame)} link {event.link}"
        else:
            told = f"{type(event).__name__} {_digest(repr(event).encode())}"
        self._file.write(f"{self._world.now_s:.6f} {host.name} {told} -> {len(effects)}\n")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS]

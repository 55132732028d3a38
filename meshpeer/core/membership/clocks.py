"""Clocks: how far those of linked members are from this node's, as their greetings told.

A greeting names its sender's wall clock. It is held against this node's monotonic clock, so that setting the
wall clock right shows at once; what a member sets at its end shows with its next greeting. The way of the
greeting counts into the figure: it is good to a second or so, where minutes matter.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId

CLOCKS_MAX = 256
"""More than a node has links; the one that greeted first gives way."""


class Clocks:
    """Of those that greeted this node."""

    def __init__(self) -> None:
        self._at_zero_s: dict[NodeId, float] = {}
        """What each one's clock showed when this node's monotonic clock was 0."""

    def greeted(self, peer: NodeId, clock_ms: int, now: Instant) -> None:
        self._at_zero_s.pop(peer, None)
        if len(self._at_zero_s) >= CLOCKS_MAX:
            del self._at_zero_s[next(iter(self._at_zero_s))]
        self._at_zero_s[peer] = clock_ms / 1000 - now.mono_s

    def ahead_s(self, peers: Iterable[NodeId], now: Instant) -> list[tuple[NodeId, float]]:
        """Returns how many seconds the clock of each of these is ahead of this node's; negative: behind."""
        return [
            (peer, self._at_zero_s[peer] + now.mono_s - now.unix_s)
            for peer in peers
            if peer in self._at_zero_s
        ]

"""Back-off: for how long who failed or refused is passed over, twice as long each time in a row."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId

FIRST_S, MAX_S = 10.0, 60.0
"""A pair that no relay carries may be without any way: asking again costs one message."""
FORGOTTEN_S = 300.0
"""One that was left alone for so long begins anew."""


@dataclass(slots=True)
class _Held:
    until_s: float
    times: int


@dataclass(slots=True)
class BackOffs:
    """Of several members. Who did well, or was left alone for long, begins anew."""

    _held: dict[NodeId, _Held] = field(default_factory=dict)

    def fail(self, node: NodeId, now: Instant, first_s: float = FIRST_S) -> None:
        self._held = {
            one: held for one, held in self._held.items() if now.mono_s < held.until_s + FORGOTTEN_S
        }
        times = self._held[node].times + 1 if node in self._held else 0
        until_s = now.mono_s + min(MAX_S, first_s * 2.0 ** min(times, 8))
        self._held[node] = _Held(until_s, times)

    def succeed(self, node: NodeId) -> None:
        self._held.pop(node, None)

    def passes_over(self, node: NodeId, now: Instant) -> bool:
        held = self._held.get(node)
        return held is not None and now.mono_s < held.until_s

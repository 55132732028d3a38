"""The health of a relay in use, as one end sees it: its link, its answers, what comes through the tunnel."""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.relayed_look import PairLook

SILENT_S = 2.5
"""A relay that answers nothing for so long, while nothing comes through the tunnel, is gone: two words of
this end in a row had no answer."""
LINK_DOWN_S = 1.0
"""So is one whose link is down for so long."""
STALE_RX_S = 30.0
"""More than a keepalive of 25 s."""


@dataclass(slots=True)
class RelayHealth:
    """Of one end of a pair."""

    _received: int = -1
    """Bytes that had come in through the tunnel."""
    _received_at_s: float = 0.0
    """When that changed last."""
    _down_since_s: float | None = None

    def note_traffic(self, look: PairLook, now: Instant) -> None:
        received = look.held.rx_bytes if look.held else 0
        if received != self._received:
            self._received, self._received_at_s = received, now.mono_s

    def begin(self) -> None:
        """Another relay is in use, or none."""
        self._down_since_s = None

    def nothing_came_for(self, for_s: float, now: Instant) -> bool:
        return now.mono_s >= self._received_at_s + for_s

    def is_faulty(self, relay: NodeId, heard_s: float, look: PairLook, now: Instant) -> bool:
        """Says whether the relay in use has to be replaced. ``heard_s``: when it answered last."""
        if relay in look.linked:
            self._down_since_s = None
        elif self._down_since_s is None:
            self._down_since_s = now.mono_s
        if self._down_since_s is not None:
            return now.mono_s >= self._down_since_s + LINK_DOWN_S
        silent = look.mute or now.mono_s >= heard_s + SILENT_S
        return silent and self.nothing_came_for(SILENT_S, now)

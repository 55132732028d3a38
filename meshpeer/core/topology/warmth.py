"""Warmth: when a hub, or one that stands by, says in its record that it has the tunnels of its place.

Traffic is moved to a hub by all others at once, when the facts say so; a hub whose tunnels have no handshake
yet would swallow it until they have, 5 s or more (REKEY_TIMEOUT; WireGuard whitepaper, section 6.1). Only the
hub itself sees all its tunnels, so it says that it has them, and takes over from a warm one only then.

Whoever carries traffic already says so as soon as it is true. One that stands by waits longer, so that a node
which comes and goes does not move everybody's traffic each time, and waits for its hub to be warm: of two
that got their places at one moment, the one in charge speaks first.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from meshpeer.core.deadline import Deadline, Instant

HOLD_S = 30.0
"""How long one stands by before it says that it could take over."""
LOOK_EVERY_S = 1.0
PATIENCE_S = 60.0
"""After this long half of the tunnels are enough: some members can't be reached, or are off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What this node is to others, as its plan has it."""

    active: bool
    """It carries traffic; else it stands by."""
    hubs_are_warm: bool
    """All that carry this cell's traffic say that they have their tunnels."""


@dataclass(slots=True)
class Warmth:
    """Remembers since when this node has its place. Sans-IO."""

    warm: bool = False
    _since_s: float | None = None

    def update(self, place: Place | None, tunnels: Collection[bool], now: Instant) -> bool:
        """Returns what to say, given this node's place (None: no hub) and, for each tunnel that it needs to
        members that are not said to be gone, whether it works."""
        if place is None:
            self.warm, self._since_s = False, None
            return False
        if self._since_s is None:
            self._since_s = now.mono_s
        for_s = now.mono_s - self._since_s
        working = sum(tunnels)
        made = working == len(tunnels) or (for_s >= PATIENCE_S and 2 * working >= len(tunnels))
        turn = place.active or (for_s >= HOLD_S and (place.hubs_are_warm or for_s >= PATIENCE_S))
        self.warm = self.warm or (made and turn)
        return self.warm

    def next_deadline(self, now: Instant) -> Deadline | None:
        """Returns when to look again; None where nothing is to come."""
        if self._since_s is None or self.warm:
            return None
        return Deadline(now.mono_s + LOOK_EVERY_S, "a hub waits for its tunnels")

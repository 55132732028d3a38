"""Trials: when a pair that goes by a relay tries to meet directly, by agreement of both ends.

WireGuard has one endpoint per peer and sends no probes, so a trial takes the tunnel away from its relay for
some seconds: it is made when nothing but this mesh's own links passes through, when the records do not say
that it is in vain, and a few times only, until they say something new. Both ends drop the session at about
the same moment, so nothing that is still on its way by the relay can move the tunnel back.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from meshpeer.core.deadline import Instant
from meshpeer.core.wgconf.model import ObservedPeer

IDLE_S = 30.0
IDLE_BYTES_MAX = 16_384
"""What a control link through the tunnel takes in that time, several times over."""
TRIAL_AFTER_S = (60.0, 300.0, 1_500.0)
"""How long after a relay was taken into use, and after each trial that failed. There are no more."""
TRIAL_S = 7.0
"""How long a trial lasts: two initiations of each end."""
AHEAD_S = 1.5
"""How long after the agreement it begins."""


class TrialMeant(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="trial"):
    """The sender is about to leave the relay of its pair with the receiver, for a trial. The end with the
    lower id says so first; the other one says it back where it takes part."""


@dataclass(slots=True)
class Trials:
    """Of one pair, at one end."""

    first: bool
    """This end has the lower id: it proposes."""
    count: int = 0
    begins_at_s: float | None = None
    _ready_at_s: float = 0.0
    _facts: object = None
    _bytes: int = 0
    _quiet_since_s: float = 0.0
    _window_s: float = 0.0
    _proposed_s: float = float("-inf")

    def on_relayed(self, facts: object, now: Instant) -> None:
        """A relay was taken into use, or a trial failed."""
        if facts != self._facts:
            self._facts, self.count = facts, 0
        place = min(self.count, len(TRIAL_AFTER_S) - 1)
        self._ready_at_s = now.mono_s + TRIAL_AFTER_S[place]
        self._quiet_since_s = self._window_s = now.mono_s
        self.begins_at_s = None

    def watch(self, facts: object, held: ObservedPeer | None, now: Instant) -> None:
        """Looks at what passes through the tunnel, and at what is known of the pair."""
        if facts != self._facts:
            self._facts, self.count = facts, 0
            self._ready_at_s = now.mono_s + IDLE_S
        if now.mono_s < self._window_s + IDLE_S:
            return
        passed = (held.rx_bytes + held.tx_bytes) if held else 0
        if not 0 <= passed - self._bytes <= IDLE_BYTES_MAX:
            self._quiet_since_s = now.mono_s
        self._bytes, self._window_s = passed, now.mono_s

    def proposes(self, now: Instant) -> bool:
        """Says whether to propose a trial now."""
        if not self.first or not self._may(now) or now.mono_s < self._proposed_s + IDLE_S:
            return False
        self._proposed_s = now.mono_s
        return True

    def on_meant(self, now: Instant) -> bool:
        """The other end means a trial; says whether to say so, too."""
        if self.first:
            if now.mono_s < self._proposed_s + AHEAD_S and self.begins_at_s is None:
                self._begin(now)
            return False
        if not self._may(now):
            return False
        self._begin(now)
        return True

    def take_due(self, now: Instant) -> bool:
        """Says whether a trial begins now, once."""
        due = self.begins_at_s is not None and now.mono_s >= self.begins_at_s
        self.begins_at_s = None if due else self.begins_at_s
        return due

    def _begin(self, now: Instant) -> None:
        self.count += 1
        # Whoever answered has half a round trip behind it.
        self.begins_at_s = now.mono_s + AHEAD_S

    def _may(self, now: Instant) -> bool:
        quiet = now.mono_s >= self._quiet_since_s + IDLE_S
        left = self.count < len(TRIAL_AFTER_S) and self.begins_at_s is None
        return quiet and left and now.mono_s >= self._ready_at_s

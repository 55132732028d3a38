"""The upgrade of a pair from its relay to a way of its own, at one end: when it is ready, when it moves, when
it turns back.

The way is proved first: probes from WireGuard's own port went both ways. Then each end says to the relay that
it is ready; once both said so, the relay lets nothing cross from an instant on, and both move their endpoint
at that instant. WireGuard roams to where the last authenticated packet came from, so that a packet that is
still on its way by the relay would undo the move: a frozen relay delivers none.

The reservation is kept for a while. Where the way stops being proved in that time, the relay is woken, and
both move back. What failed is tried again, three times, and then seldom.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.deadline import Instant
from meshpeer.core.paths.relayed_look import PairLook

SETTLED_S = 1.0
"""How long a relay carries the pair before the pair leaves it."""
LATE_S = 9.0
"""A way that answers no probe for so long is lost: two in a row were."""
MUTE_S = 3.0
"""A tunnel that answers nothing counts from so long after its move on: what was asked before says nothing."""
AGAIN_S = (10.0, 30.0, 300.0, 1_500.0)
"""After how long what failed is tried again. The first two follow the first try closely."""
FORGIVEN_S = 600.0
"""A way that held for so long did not fail."""
MOVES_AGAIN_S = 1.0
"""A move that is not seen to be made is made again after this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointMove:
    """The peer's endpoint is to change at an instant, under a session that goes on."""

    endpoint: str
    at_s: float
    """CLOCK_BOOTTIME seconds; may be past."""


@dataclass(slots=True)
class Upgrade:
    """Of one end of a pair. Sans-IO."""

    way: str = ""
    """Where this end moves, or moved; empty while no way is proved."""
    failures: int = 0
    _relayed_s: float = float("-inf")
    """When the pair went to a relay last: what was proved before may be why it did."""
    _ready_at_s: float = 0.0
    _facts: object = None
    _move: EndpointMove | None = None
    _moved_s: float = float("-inf")
    _held_since_s: float | None = None
    """When the pair left its relay for good, last."""

    def on_relayed(self, look: PairLook, now: Instant) -> None:
        """A relay was taken into use."""
        self._relayed_s = now.mono_s
        if self._held_since_s is not None and now.mono_s < self._held_since_s + FORGIVEN_S:
            self._held_since_s = None
            self.fail(now)
        self._ready_at_s = max(self._ready_at_s, now.mono_s + SETTLED_S)
        self._facts = look.facts

    def on_hopped(self, now: Instant) -> None:
        """The pair went from one relay to another: what was proved before is proved anew first."""
        self._relayed_s = now.mono_s
        self._ready_at_s = max(self._ready_at_s, now.mono_s + SETTLED_S)

    def is_ready(self, look: PairLook, now: Instant) -> bool:
        """Says whether this end may leave the relay for the best way that is proved."""
        if look.facts != self._facts and self.failures > len(AGAIN_S) - 2:
            # What is new may be tried soon, once.
            self._ready_at_s = min(self._ready_at_s, now.mono_s + AGAIN_S[0])
        self._facts = look.facts
        self.way = next((way for way, answered_s in look.proved if answered_s >= self._relayed_s), "")
        return bool(self.way) and now.mono_s >= self._ready_at_s

    def leave(self, at_s: float, now: Instant) -> bool:
        """The relay told when nothing crosses any more; says whether this end goes along."""
        if not self.way:
            return False
        self._move_to(self.way, at_s, now)
        return True

    def is_lost(self, look: PairLook, now: Instant, *, mute: bool) -> bool:
        """Says whether the way that this end moved to is not proved any more. ``mute``: the tunnel answers
        nothing, and nothing comes in."""
        if mute and now.mono_s >= self._moved_s + MUTE_S:
            return True
        answered_s = dict(look.proved).get(self.way, 0.0)
        return now.mono_s >= max(answered_s, self._moved_s) + LATE_S

    def hold(self, *, undone: bool, now: Instant) -> None:
        """Looks after the move. ``undone``: the interface sends to the relay, which delivers nothing."""
        if undone and now.mono_s >= self._moved_s + MOVES_AGAIN_S:
            self._move_to(self.way, now.mono_s, now)

    def turn_back(self, end: str, now: Instant) -> None:
        """The relay was woken: this end goes back there."""
        self._relayed_s = now.mono_s
        self._move_to(end, now.mono_s, now)
        self.fail(now)

    def succeed(self, now: Instant) -> None:
        """The way held; the relay is given back."""
        self._held_since_s = now.mono_s

    def fail(self, now: Instant) -> None:
        again_s = AGAIN_S[min(self.failures, len(AGAIN_S) - 1)]
        self.failures += 1
        self._ready_at_s = now.mono_s + again_s

    def is_over(self, now: Instant) -> bool:
        """Says whether nothing of it has to be remembered."""
        since_s = self._held_since_s
        if since_s is None:
            return self.failures == 0
        if now.mono_s >= since_s + FORGIVEN_S:
            self.failures, self._held_since_s = 0, None
            return True
        return False

    def take_move(self) -> EndpointMove | None:
        """Returns a move that has to be made, once."""
        move, self._move = self._move, None
        return move

    def _move_to(self, endpoint: str, at_s: float, now: Instant) -> None:
        self._move, self._moved_s = EndpointMove(endpoint=endpoint, at_s=at_s), max(at_s, now.mono_s)

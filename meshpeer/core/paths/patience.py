"""Patience: for how long a pair tries to meet directly before it asks for a relay.

Its clock runs while direct tries fail and a relay could help. It stands still while this node has no link at
all, or holds the peer dead: what goes out then says nothing of the ways of this pair. What was lost meanwhile
WireGuard repeats every REKEY_TIMEOUT (5 s, section 6.1 of its paper). So a pair that comes back, and met
directly before, is given the time of one more initiation of each end before its session is given up for that
of a relay; a pair that just met is not, since nobody knows yet whether it can. A pair whose session just ran
out is given it, too: where both ends begin the next one within one way's delay, neither takes the other's
answer (each holds one handshake at a time), and both repeat theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.deadline import Instant
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.relayed_look import PairLook
from meshpeer.core.wgconf.model import handshake_is_fresh

DIRECT_FIRST_S = {
    Outlook.HOPELESS: 0.0,
    Outlook.OPEN: 0.0,
    Outlook.UNKNOWN: 1.8,
    Outlook.LIKELY: 3.0,
}
"""How long direct tries may be in vain. Where nobody can tell, two that just met get a moment: a link between
them, or what others see of them, says more."""
DIRECT_FIRST_S_MAX = 5.0
"""News of where the peer may be found gives direct tries their time anew, but not beyond this."""
DIRECT_AGAIN_S = 8.0
"""The same for a pair that met directly, is likely to meet again, and has no session any more: one initiation
of WireGuard's, with its jitter, and a try of another endpoint before it."""


@dataclass(slots=True)
class Patience:
    """Of one end of a pair."""

    _failing_since_s: float | None = None
    _trying_since_s: float = 0.0
    """When there was last something new to try, while direct tries failed."""
    _patience_s: float = 0.0
    _ways: tuple[str, ...] = ()
    _again: bool = True
    """The tunnel worked directly last, or the two were cut off from each other since, and no relay failed. A
    pair without a relay is remembered by its interface alone."""
    _relayed: bool = False
    """When it worked last, it did so by a relay."""

    def follow(self, look: PairLook, *, direct: bool, relayed: bool, now: Instant) -> None:
        """Takes a look. ``direct``: the tunnel works directly; ``relayed``: a relay is in use."""
        self._patience_s = DIRECT_FIRST_S[look.outlook]
        if direct or relayed:
            self._failing_since_s, self._again, self._relayed = None, not relayed, relayed
        elif look.alone:
            self.part()
        elif not (look.tries or look.outlook is not Outlook.LIKELY):
            # Where direct is likely, it has its time from its first packet on.
            self._failing_since_s = None
        elif self._failing_since_s is None:
            self._failing_since_s = self._trying_since_s = now.mono_s
        elif look.ways != self._ways:
            self._trying_since_s = now.mono_s
        self._ways = look.ways
        if self._again and look.outlook is Outlook.LIKELY and self._met_directly(look, now):
            self._patience_s = DIRECT_AGAIN_S

    def part(self) -> None:
        """Nothing of this end gets to the other one, and no relay could help: tries count from when that is
        over."""
        self._failing_since_s, self._again = None, True

    def lose(self, now: Instant) -> None:
        """A relay failed: direct tries had their time before."""
        self._failing_since_s = self._trying_since_s = now.mono_s - DIRECT_FIRST_S_MAX
        self._again = False

    def reset(self) -> None:
        self._failing_since_s = None

    @property
    def over_at_s(self) -> float | None:
        """When direct tries have failed for long enough; None while they do not fail."""
        if self._failing_since_s is None:
            return None
        at_s = self._trying_since_s + self._patience_s
        return min(at_s, self._failing_since_s + max(self._patience_s, DIRECT_FIRST_S_MAX))

    def _met_directly(self, look: PairLook, now: Instant) -> bool:
        """Says whether the tunnel worked without a relay, for as long as the interface has known the peer,
        and its session is over."""
        shaken_s = look.held.latest_handshake_unix_s if look.held else 0
        by_relay = self._relayed or look.through is not None
        return shaken_s > 0 and not by_relay and not handshake_is_fresh(shaken_s, now.unix_s)

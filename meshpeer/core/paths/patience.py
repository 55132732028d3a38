"""Patience: for how long a pair tries to meet directly before it asks for a relay."""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.deadline import Instant
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.relayed_look import PairLook

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


@dataclass(slots=True)
class Patience:
    """Of one end of a pair."""

    _failing_since_s: float | None = None
    _trying_since_s: float = 0.0
    """When there was last something new to try, while direct tries failed."""
    _patience_s: float = 0.0
    _ways: tuple[str, ...] = ()

    def follow(self, look: PairLook, *, served: bool, now: Instant) -> None:
        """Takes a look. ``served``: the tunnel works directly, or a relay is in use."""
        self._patience_s = DIRECT_FIRST_S[look.outlook]
        # Where direct is likely, it has its time from its first packet on.
        if served or not (look.tries or look.outlook is not Outlook.LIKELY):
            self._failing_since_s = None
        elif self._failing_since_s is None:
            self._failing_since_s = self._trying_since_s = now.mono_s
        elif look.ways != self._ways:
            self._trying_since_s = now.mono_s
        self._ways = look.ways

    def lose(self, now: Instant) -> None:
        """A relay failed: direct tries had their time before."""
        self._failing_since_s = self._trying_since_s = now.mono_s - DIRECT_FIRST_S_MAX

    def reset(self) -> None:
        self._failing_since_s = None

    @property
    def over_at_s(self) -> float | None:
        """When direct tries have failed for long enough; None while they do not fail."""
        if self._failing_since_s is None:
            return None
        at_s = self._trying_since_s + self._patience_s
        return min(at_s, self._failing_since_s + max(self._patience_s, DIRECT_FIRST_S_MAX))

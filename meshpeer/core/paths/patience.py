"""Patience: for how long a pair tries to meet directly before it asks for a relay."""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.deadline import Instant
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.relayed_look import PairLook

DIRECT_FIRST_S = {Outlook.HOPELESS: 0.0, Outlook.OPEN: 4.0, Outlook.LIKELY: 7.0}
"""How long direct tries may be in vain. Where they are likely to lead somewhere, two initiations that crossed
each other get their second chance (REKEY_TIMEOUT of 5 s; whitepaper, section 6.1)."""
DIRECT_FIRST_S_MAX = 15.0
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
        if served or not (look.tries or look.outlook is Outlook.HOPELESS):
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

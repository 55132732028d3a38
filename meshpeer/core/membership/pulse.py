"""Pulse: how a linked peer answers, and when it is to be pinged next.

Any frame proves life. Of a linked pair the lower id pings after 4 s of silence and the higher after 6 s; how
long an answer may take follows the round trips that were measured.
"""

from __future__ import annotations

from dataclasses import dataclass

PING_AFTER_LOWER_S = 4.0
PING_AFTER_HIGHER_S = 6.0
PING_IN_DOUBT_S = 1.0
TIMEOUT_MIN_S = 0.5
TIMEOUT_MAX_S = 3.0
"""Longer than any path takes; a round trip that was measured while this node or the other was starved is not
the path's. How well this node is, counts by itself."""
TIMEOUT_FIRST_S = 1.0
"""Time-out before the first round trip is measured (RFC 6298, section 2.1)."""
TELL_PAUSE_S = 1.0
"""Between two times that a suspected peer is told: it refutes at most once a second."""


@dataclass(slots=True)
class Pulse:
    """A linked peer, and how it answers."""

    since_unix_s: float
    heard_at_s: float
    ping_at_s: float = 0.0
    """When the ping was sent that has no answer yet; 0 for none."""
    ping_number: int = 0
    srtt_s: float = 0.0
    rttvar_s: float = 0.0
    in_doubt: bool = False
    told_at_s: float = float("-inf")

    @property
    def timeout_s(self) -> float:
        if not self.srtt_s:
            return TIMEOUT_FIRST_S
        return min(TIMEOUT_MAX_S, max(TIMEOUT_MIN_S, self.srtt_s + 4 * self.rttvar_s))

    @property
    def awaited(self) -> bool:
        """Nothing at all was heard since the ping: under a bulk transfer its answer comes late, other frames
        don't."""
        return self.ping_at_s > 0 and self.ping_at_s >= self.heard_at_s

    def look_at_s(self, *, lower: bool, factor: float) -> float:
        """Returns when to ping it, or when its answer is late; ``lower``: this node has the lower id."""
        if self.awaited:
            return self.ping_at_s + self.timeout_s * factor
        after_s = PING_AFTER_LOWER_S if lower else PING_AFTER_HIGHER_S
        if self.in_doubt:
            after_s = PING_IN_DOUBT_S
        return max(self.heard_at_s, self.ping_at_s) + after_s * factor

    def answered(self, number: int, now_s: float) -> bool:
        """Takes an answer; says whether it is that of the last ping. Smooths the round trip as RFC 6298,
        section 2 does."""
        if number != self.ping_number or not self.ping_at_s:
            return False
        sample_s = max(now_s - self.ping_at_s, 1e-6)
        self.ping_at_s = 0.0
        if not self.srtt_s:
            self.srtt_s, self.rttvar_s = sample_s, sample_s / 2
        else:
            self.rttvar_s += (abs(self.srtt_s - sample_s) - self.rttvar_s) / 4
            self.srtt_s += (sample_s - self.srtt_s) / 8
        return True

    def may_tell(self, now_s: float) -> bool:
        """Says whether the peer may be told again what is said of it, and notes that it is."""
        if now_s < self.told_at_s + TELL_PAUSE_S:
            return False
        self.told_at_s = now_s
        return True

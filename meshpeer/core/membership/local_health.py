"""Local health: how far this node should trust its own eyes.

Lifeguard (A. Dadgar, J. Phillips, J. Currey, "Lifeguard: Local Health Awareness for More Accurate Failure
Detection", DSN-W 2018) found that most false suspicions come from observers that are slow themselves. So
what speaks against this node raises a score, what speaks for it lowers it, and every interval and time-out
is multiplied by it."""

from __future__ import annotations

from dataclasses import dataclass

SCORE_MAX = 7
LAG_STEPS = ((2.0, 4), (0.5, 2), (0.1, 1))
"""How much a lag of the event loop (seconds) adds: it is measured, not guessed."""
CALM_S = 2.0
"""Between two steps back to health, and after anything that speaks against it."""
RESTART_LAG_S = 0.5
"""After a lag of this much, what came meanwhile is still unread: whatever is awaited is awaited anew."""


@dataclass(slots=True)
class LocalHealth:
    """A score from 0 (well) to 7."""

    score: int = 0
    calm_at_s: float = float("-inf")
    """When the score may fall next: what is heard in time, with nothing against this node, speaks for it."""

    @property
    def factor(self) -> float:
        """What intervals and time-outs are multiplied by."""
        return 1.0 + self.score

    def worse(self, now_s: float, by: int = 1) -> None:
        self.score = min(SCORE_MAX, self.score + by)
        self.calm_at_s = now_s + CALM_S

    def on_heard(self, now_s: float) -> bool:
        """Takes any frame of a member; says whether that changed anything. Pings alone, which a low health
        makes rare, would leave it low for a minute."""
        if not self.score or now_s < self.calm_at_s:
            return False
        self.calm_at_s = now_s + CALM_S
        return self.better()

    def better(self) -> bool:
        """Says whether that changed anything."""
        before, self.score = self.score, max(0, self.score - 1)
        return self.score != before

    def on_lag(self, lag_s: float, now_s: float) -> bool:
        """Takes a measured lag; says whether it was so long that what is awaited must be awaited anew."""
        for at_least_s, steps in LAG_STEPS:
            if lag_s >= at_least_s:
                self.worse(now_s, steps)
                break
        return lag_s >= RESTART_LAG_S

"""A token bucket (the leaky bucket as a meter, ITU-T I.371) for one name, small enough for every packet."""

from __future__ import annotations


class Bucket:
    """``burst`` at once, ``per_s`` in the long run."""

    __slots__ = ("_at_s", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at_s = burst, 0.0

    def holds(self, amount: float, now_s: float) -> bool:
        """Says whether so much could be taken now."""
        self._left = min(self._burst, self._left + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._left >= amount

    def take(self, amount: float, now_s: float) -> bool:
        """Takes ``amount`` where the bucket holds it; says whether it did."""
        if not self.holds(amount, now_s):
            return False
        self._left -= amount
        return True

    def is_full(self, now_s: float) -> bool:
        return self.holds(self._burst, now_s)

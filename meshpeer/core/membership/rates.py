"""How often somebody may: token buckets (the leaky bucket as a meter, ITU-T I.371), one per name, kept only
while they are not full."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from meshpeer.core.deadline import Instant

Name = TypeVar("Name", bound=Hashable)
SWEEP_EVERY = 1_024
"""Buckets that have filled up again are dropped after so many takings."""


@dataclass(slots=True)
class Buckets(Generic[Name]):
    """One bucket per name: ``burst`` at once, ``per_s`` in the long run."""

    per_s: float
    burst: float
    _left: dict[Name, tuple[float, float]] = field(default_factory=dict)
    """What a bucket held, and when."""
    _takings: int = 0

    def take(self, name: Name, now: Instant, amount: float = 1.0) -> bool:
        """Takes ``amount`` tokens where the bucket holds them; says whether it did."""
        left = self._held(name, now.mono_s)
        if left < amount:
            self._left[name] = (left, now.mono_s)
            return False
        self._left[name] = (left - amount, now.mono_s)
        self._takings += 1
        if self._takings >= SWEEP_EVERY:
            self._takings = 0
            self._sweep(now.mono_s)
        return True

    def forget(self, name: Name) -> None:
        self._left.pop(name, None)

    def __len__(self) -> int:
        return len(self._left)

    def _held(self, name: Name, now_s: float) -> float:
        held, at_s = self._left.get(name, (self.burst, now_s))
        return min(self.burst, held + (now_s - at_s) * self.per_s)

    def _sweep(self, now_s: float) -> None:
        self._left = {name: one for name, one in self._left.items() if self._held(name, now_s) < self.burst}

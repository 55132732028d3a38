"""When suspicions make a member dead: how many observers, or how long.

SWIM (A. Das, I. Gupta, A. Motivala, 2002) suspects before it confirms; Lifeguard shortens the time as
independent observers confirm. Here observers sign, and only the subject's ring observers count, so a count
can't be forged."""

from __future__ import annotations

import math
from dataclasses import dataclass

from meshpeer.core.ids import NodeId

QUORUM_MAX = 3
QUORUM_FACTOR_MAX = 2.0
CLOSED_FULL_S = 3.0
"""How long a member lives on under suspicion where its host refused a link: the agent is gone."""
SILENT_FULL_S = 8.0
"""The same where it just fell silent."""
CLOSED_FLOOR_S = 1.0
SILENT_FLOOR_S = 2.0
"""The least that it has to refute, however many observers there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspicionSeen:
    """One observer's word about the record that its subject shows now."""

    observer: NodeId
    closed: bool
    issued_at: int


@dataclass(slots=True)
class Case:
    """What is said of one member at present, and since when this node knows."""

    opened_at_s: float
    observers: tuple[NodeId, ...] = ()
    closed: bool = False
    dead_at_s: float = float("inf")
    """When the suspicions held now make the member dead."""

    def update(self, seen: list[SuspicionSeen]) -> None:
        self.observers = tuple(sorted(one.observer for one in seen))
        self.closed = 2 * sum(one.closed for one in seen) >= len(seen)

    def weigh(self, needed: int, factor: float) -> None:
        """Says anew when it is dead, ``needed`` observers ending the wait; ``factor``: this node's health.

        Where a quorum of others agrees, this node's own health matters only for when it hears of a
        refutation: that bounds the factor, or the sickest of fifty would hold a dead member alive for eight
        times as long as the rest.
        """
        if len(self.observers) >= needed >= QUORUM_MAX:
            factor = min(factor, QUORUM_FACTOR_MAX)
        self.dead_at_s = self.opened_at_s + factor * timeout_s(
            len(self.observers), needed, closed=self.closed
        )


def needed_observers(others_alive: int) -> int:
    """Returns how many distinct observers end the waiting, of so many that live and may observe."""
    return max(1, min(QUORUM_MAX, others_alive))


def timeout_s(observers: int, needed: int, *, closed: bool) -> float:
    """Returns how long a suspicion lasts (Lifeguard, section 4.2): from the full time with one observer
    down to the floor with ``needed``, by the logarithm of those that confirm."""
    full, floor = (CLOSED_FULL_S, CLOSED_FLOOR_S) if closed else (SILENT_FULL_S, SILENT_FLOOR_S)
    if needed <= 1:
        return full
    confirmed = min(observers, needed)
    return full - (full - floor) * math.log(confirmed) / math.log(needed)

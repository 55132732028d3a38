"""Rounds: with whom to reconcile, and when: on every new link, one at a time, and with a neighbour regularly.

Who boots opens ten links at once, and each of ten peers would send it all that the others do; so the next
round waits until the one before has ended, or is late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.ids import NodeId

RECONCILE_INTERVAL_S = 10.0
ROUND_MAX_S = 3.0
"""A round that has not ended by then lets the next begin."""
ROUNDS_AT_ONCE_MAX = 16
"""Rounds that are opened because one before was cut, between two that are due: enough for the largest ledger,
and an end with a peer that says so for ever."""


class Jitter(Protocol):
    def random(self) -> float: ...


class Rounds:
    """Keeps one node's rounds. Sans-IO; whoever is returned is to be compared with now."""

    def __init__(self, linked: Callable[[], list[NodeId]], jitter: Jitter) -> None:
        self._linked = linked
        self._jitter = jitter
        self._with: NodeId | None = None
        self._since_s = 0.0
        self._due: dict[NodeId, None] = {}
        self._regular_at_s = 0.0
        self._cut_left = ROUNDS_AT_ONCE_MAX

    def on_up(self, peer: NodeId, now: Instant) -> NodeId | None:
        """A link came up, on which this end begins."""
        if self._with == peer:
            self._with = None
        self._due[peer] = None
        return self.next(now)

    def on_down(self, peer: NodeId, now: Instant) -> NodeId | None:
        self._due.pop(peer, None)
        return self.on_ended(peer, now)

    def on_ended(self, peer: NodeId, now: Instant) -> NodeId | None:
        """The round with a peer found the two in sync, or can't go on."""
        if self._with != peer:
            return None
        self._with = None
        return self.next(now)

    def on_cut(self) -> bool:
        """A round did not hold all; says whether to go on at once. What is refused every time waits."""
        if self._cut_left <= 0:
            return False
        self._cut_left -= 1
        return True

    def next(self, now: Instant) -> NodeId | None:
        """Returns who is next of those whose link came up."""
        late_s = self._since_s + ROUND_MAX_S
        if not self._due or (self._with is not None and now.mono_s < late_s):
            return None
        self._with, self._since_s = next(iter(self._due)), now.mono_s
        del self._due[self._with]
        return self._with

    def regular(self, now: Instant) -> NodeId | None:
        """Returns a neighbour by lot where a round is due, whatever else is under way."""
        if now.mono_s < self._regular_at_s:
            return None
        self._regular_at_s = now.mono_s + RECONCILE_INTERVAL_S * (0.75 + 0.5 * self._jitter.random())
        self._cut_left = ROUNDS_AT_ONCE_MAX
        linked = self._linked()
        return linked[int(self._jitter.random() * len(linked))] if linked else None

    def next_deadline(self) -> Deadline | None:
        return earliest(
            Deadline(self._regular_at_s, "reconcile with a neighbour"),
            Deadline(self._since_s + ROUND_MAX_S, "a round is late") if self._due else None,
        )

"""Pushes: news that waits to leave together. The first goes at once; in a storm the waits grow.

A single change must not wait, and a storm of joins must not cost a frame per join on every link. So the pause
between two pushes doubles while news keeps coming, and is short again after a quiet moment.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshpeer.core.antientropy.facts import Group, in_frames
from meshpeer.core.antientropy.messages import Facts
from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId

PUSH_PAUSE_MIN_S = 0.02
PUSH_PAUSE_MAX_S = 0.32
PUSH_PAUSE_PER_MEMBER_S = 0.00003


class Pushes:
    """News by whom it goes to. Sans-IO."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[NodeId, ...], list[Group]] = {}
        self._at_s = float("-inf")
        self._pause_s = 0.0

    def add(self, group: Group, peers: tuple[NodeId, ...]) -> None:
        self._waiting.setdefault(peers, []).append(group)

    def is_due(self, now: Instant) -> bool:
        return bool(self._waiting) and now.mono_s >= self._at_s

    def next_deadline(self) -> Deadline | None:
        return Deadline(self._at_s, "push news") if self._waiting else None

    def take(self, members: int, now: Instant) -> Iterator[tuple[list[NodeId], Facts]]:
        """Empties what waits: to each peer all of it together, in frames that are made once for all who get
        the same."""
        waiting, self._waiting = self._waiting, {}
        self._pause(members, now)
        batches: dict[NodeId, list[tuple[NodeId, ...]]] = {}
        for eager in waiting:
            for peer in eager:
                batches.setdefault(peer, []).append(eager)
        alike: dict[tuple[tuple[NodeId, ...], ...], list[NodeId]] = {}
        for peer, keys in batches.items():
            alike.setdefault(tuple(keys), []).append(peer)
        for batch, peers in alike.items():
            for frame in in_frames([group for key in batch for group in waiting[key]], push=True):
                yield peers, frame

    def _pause(self, members: int, now: Instant) -> None:
        least_s = max(PUSH_PAUSE_MIN_S, PUSH_PAUSE_PER_MEMBER_S * members)
        most_s = max(least_s, PUSH_PAUSE_MAX_S)
        storm = now.mono_s < self._at_s + self._pause_s
        self._pause_s = min(most_s, 2.0 * self._pause_s) if storm else least_s
        self._at_s = now.mono_s + self._pause_s

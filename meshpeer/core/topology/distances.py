"""Distances between regions: what a node says of them, and which region is nearest. Pure.

A figure is coarse, a power of two of milliseconds, and it has to be left by half a step before it changes: so
records change seldom, and whoever derives from them changes its mind only where another region is clearly
nearer.
"""

from __future__ import annotations

import functools
import hashlib
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence

from meshpeer.core.records.bounds import DISTANCES_MAX, LEVEL_MAX
from meshpeer.core.records.kinds import RegionDistance
from meshpeer.core.topology.view import MemberView
from meshpeer.core.wire.limits import MEMBERS_MAX

SLACK = 0.5
"""How far beyond its step, in steps, a round trip must lie before the figure follows it."""
MEASURE_EVERY_S = 60.0
"""How often a node may say something new of distances."""
REGION_BYTES_MAX = 160
"""Of all names of regions that one record lists: it has other things to say."""


def level_of(rtt_s: float, before: int | None = None) -> int:
    """Returns the step of a round trip; ``before`` is the step that it was in."""
    exact = math.log2(max(rtt_s * 1_000, 1.0))
    if before is not None and before - SLACK <= exact < before + 1 + SLACK:
        return before
    return min(int(exact), LEVEL_MAX)


class Distances:
    """What one node says of other regions."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self.shown: tuple[RegionDistance, ...] = ()

    def update(self, rtts_s: Mapping[str, Sequence[float]], regions: Collection[str]) -> None:
        """Takes the round trips to members of each region as links show them now. A region that no link
        reaches any more keeps its figure for as long as it is there."""
        for region in [region for region in self._levels if region not in regions]:
            del self._levels[region]
        for region, samples in rtts_s.items():
            if samples and region in regions:
                self._levels[region] = level_of(statistics.median(samples), self._levels.get(region))
        self.shown = _fitting(self._levels)

    def hide(self) -> None:
        """This node is one of those that need not say anything."""
        self.shown = ()


def nearest(region: str, others: Collection[str], members: Iterable[MemberView]) -> str:
    """Returns which of the other regions is nearest, as members of both say: the lowest median. Ties, and
    regions of which nobody says anything, are settled by a hash."""
    said: dict[str, list[int]] = {}
    for member in members:
        for one in member.distances:
            if member.region == region and one.region in others:
                said.setdefault(one.region, []).append(one.level)
            elif one.region == region and member.region in others:
                said.setdefault(member.region, []).append(one.level)
    return min(
        others,
        key=lambda other: (
            statistics.median_low(said[other]) if other in said else LEVEL_MAX + 1,
            draw(region.encode(), other.encode()),
        ),
    )


@functools.lru_cache(maxsize=2 * MEMBERS_MAX)
def weight(of: bytes, candidate: bytes) -> bytes:
    """Returns a candidate's weight in the eyes of one that chooses; the highest is chosen (rendezvous
    hashing)."""
    return hashlib.sha256(len(of).to_bytes(2) + of + candidate).digest()


def draw(of: bytes, candidate: bytes) -> int:
    """Returns the same as a number of which the lowest is chosen, to come last in an order."""
    return -int.from_bytes(weight(of, candidate))


def _fitting(levels: Mapping[str, int]) -> tuple[RegionDistance, ...]:
    """Returns the nearest regions that a record has room for, by name."""
    kept: list[RegionDistance] = []
    room = REGION_BYTES_MAX
    for region, level in sorted(levels.items(), key=lambda one: (one[1], one[0])):
        if len(kept) < DISTANCES_MAX and len(region) <= room:
            kept.append(RegionDistance(region, level))
            room -= len(region)
    return tuple(sorted(kept, key=lambda one: one.region))

"""Spoils: what of a victim's queue is of use to a thief, and worth its way there.

An attempt is handed over only if it would wait longer here than it takes to move: two round trips (the theft,
and the thief's word to its owner), and its inputs over the line between. How long it would wait is known once
a task of its submitter has run here, and is never less than it has waited already; until then everything is
worth it.
"""

from __future__ import annotations

from dataclasses import replace

from meshpeer.core.scheduler.fitting import CPU, MEMORY, Load, Profile, can_run, fits_beside
from meshpeer.core.scheduler.holdings import Holding, Known
from meshpeer.core.scheduler.messages import StealRequest

BANDWIDTH_BYTES_S = 12_500_000.0
"""What a line is taken to carry: 100 megabits a second."""
ROUND_TRIPS = 2


def worth_moving(wait_s: float | None, rtt_s: float, size: int) -> bool:
    """Tells whether waiting for so long (None: nobody knows) takes more time than moving ``size`` bytes."""
    return wait_s is None or wait_s > ROUND_TRIPS * rtt_s + size / BANDWIDTH_BYTES_S


class Appetite:
    """What one thief can still take, as its victim judges: where it may run things, what it has idle, and
    what is worth moving to it."""

    __slots__ = ("_free", "_load", "_now_s", "_profile", "_rtt_s", "_wait_s", "_without")

    def __init__(
        self,
        profile: Profile,
        request: StealRequest,
        *,
        wait_s: float | None = None,
        rtt_s: float = 0.0,
        now_s: float = 0.0,
    ) -> None:
        """``wait_s`` is how long the last in the victim's line would wait, ``rtt_s`` the round trip to the
        thief (0 where it is not known)."""
        self._profile = replace(profile, slots=request.width)
        free = dict(request.free)
        # Slots are not counted: it queues what it can't run at once, and others steal it from there.
        self._free = replace(
            profile,
            slots=request.width,
            # 0 would say that nobody knows.
            memory_bytes=max(1, free.get(MEMORY, profile.memory_bytes)) if profile.memory_bytes else 0,
            resources=tuple((name, free.get(name, count)) for name, count in profile.resources),
        )
        self._wait_s = wait_s
        self._now_s = now_s
        self._rtt_s = rtt_s
        self._load = Load()
        self._without = request.without

    def takes(self, holding: Holding, known: Known) -> bool:
        """Tells whether one more attempt is of use and worth it; if so, counts it."""
        if holding.submitter in self._without:
            return False
        demand = holding.demand
        others = tuple((name, count) for name, count in demand.amounts if name != CPU)
        if not can_run(demand, self._profile) or not fits_beside(others, self._free, self._load):
            return False
        wait_s = self._wait_s
        if wait_s is not None:
            # What has waited for long waits longer than tasks took so far.
            wait_s = max(wait_s, self._now_s - holding.since_s)
        if not worth_moving(wait_s, self._rtt_s, bytes_to_move(holding, known)):
            return False
        self._load.add(others)
        return True


def bytes_to_move(holding: Holding, known: Known) -> int:
    """Returns what a thief has to fetch for an attempt, as far as its grant and its job say: it may have some
    of that already."""
    files = sum(file.size for file in known.record.spec.files) if known.record is not None else 0
    return files + holding.granted.input_bytes

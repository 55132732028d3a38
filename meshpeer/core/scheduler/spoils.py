"""Spoils: what of a victim's queue is of use to a thief."""

from __future__ import annotations

from dataclasses import replace

from meshpeer.core.scheduler.fitting import CPU, Load, Profile, can_run, fits_beside
from meshpeer.core.scheduler.holdings import Holding, Known
from meshpeer.core.scheduler.messages import StealRequest


class Appetite:
    """What one thief can still take, as its victim judges: where it may run things, and what it has idle."""

    __slots__ = ("_free", "_load", "_profile")

    def __init__(self, profile: Profile, request: StealRequest) -> None:
        self._profile = replace(profile, slots=request.width)
        free = dict(request.free)
        # Slots are not counted: it queues what it can't run at once, and others steal it from there.
        self._free = replace(
            profile,
            slots=request.width,
            memory_bytes=free.get("memory", profile.memory_bytes),
            resources=tuple((name, free.get(name, count)) for name, count in profile.resources),
        )
        self._load = Load()

    def takes(self, holding: Holding, known: Known) -> bool:
        """Tells whether one more attempt is of use; if so, counts it. One whose job is not known here is
        as good as any."""
        demand = holding.demand
        others = tuple((name, count) for name, count in demand.amounts if name != CPU)
        if not can_run(demand, self._profile) or not fits_beside(others, self._free, self._load):
            return False
        self._load.add(others)
        return True

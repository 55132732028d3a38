"""Fairness: between submitters by what ran for each lately, within one by priority, and nobody starves.

Start-time fair queueing (Goyal, Vin, Cheng, "Start-time fair queueing", SIGCOMM 1996): each submitter has a
virtual time that grows with what it is served; who has the least is next. Who was away comes back at the
present virtual time, so that nobody saves up, and nobody is held to what it used long ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import NodeId
from meshpeer.core.scheduler.fitting import Demand
from meshpeer.core.scheduler.holdings import Holding
from meshpeer.core.scheduler.ranked import Rank, Ranked

Who = TypeVar("Who")
SHARERS_MAX = 256
"""Submitters (or jobs) whose use is remembered; beyond, those of the least virtual time are forgotten."""
LOOK_MAX = 64
"""Queued attempts of one submitter that are looked at for one that fits what is free."""
PACE_FIRST_S = 1.0
"""How long a task of a submitter is taken to run, before any has."""
PACE_LEAST_S = 0.001
PACE_WEIGHT = 0.2
"""Weight of the newest task in the moving average."""


class Shares(Generic[Who]):
    """Virtual times of whoever shares something. Amounts are seconds of a slot, or whatever is shared."""

    __slots__ = ("_present", "_times")

    def __init__(self) -> None:
        self._times: dict[Who, float] = {}
        self._present = 0.0
        """The virtual time of whoever was served last."""

    def time_of(self, who: Who) -> float:
        return self._times.get(who, self._present)

    def come(self, who: Who) -> None:
        """Notes that somebody who was not waiting begins to: what it did not use is gone."""
        self._times[who] = max(self.time_of(who), self._present)
        if len(self._times) > SHARERS_MAX:
            least = min((one for one in self._times if one != who), key=self._times.__getitem__)
            del self._times[least]

    def serve(self, who: Who, amount: float) -> None:
        """Serves somebody whose turn it was."""
        self._present = max(self._present, self.time_of(who))
        self.charge(who, amount)

    def charge(self, who: Who, amount: float) -> None:
        """Adds to what somebody has used; a negative amount corrects what was charged too much."""
        self._times[who] = self.time_of(who) + amount


class Lineup:
    """What waits at a worker for a slot.

    Attempts are started by submitter (the least served first), then by rank. One that does not fit what is
    free is overtaken by those that do, as often as ``overtakes_max`` says; then these have to leave it what
    it needs, so that it starts once what runs has made room.
    """

    __slots__ = ("_first", "_is_queued", "_overtakes_max", "_pace_s", "_queues", "_shares")

    def __init__(self, is_queued: Callable[[Holding], bool], overtakes_max: int) -> None:
        self._is_queued = is_queued
        self._overtakes_max = overtakes_max
        self._queues: dict[NodeId, Ranked[Holding]] = {}
        self._shares: Shares[NodeId] = Shares()
        self._pace_s: dict[NodeId, float] = {}
        self._first: Holding | None = None
        """What was overtaken so often that its room is kept until it starts; one at a time."""

    @property
    def holdings(self) -> Iterator[Holding]:
        """Yields everything in line, queued or not any more."""
        for queue in self._queues.values():
            yield from queue.items()

    def add(self, holding: Holding, submitter: NodeId, rank: Rank) -> None:
        queue = self._queues.get(submitter)
        if queue is None:
            self._shares.come(submitter)
            queue = self._queues[submitter] = Ranked(self._is_queued)
        holding.submitter = submitter
        queue.add(holding, rank)

    def take(
        self,
        fits: Callable[[Demand, Demand | None], bool],
        may: Callable[[NodeId, Demand], bool] = lambda submitter, demand: True,
    ) -> Holding | None:
        """Takes the next attempt to start; ``fits`` says whether a demand fits what is free, and leaves what
        another needs, ``may`` whether its submitter is within its quota. What is held back by that overtakes
        nobody, and no room is kept for it."""
        first = self._first
        if first is not None and not (
            self._is_queued(first) and may(self._submitter_of(first), first.demand)
        ):
            first = self._first = None
        if first is not None and fits(first.demand, None):
            self._first = None
            self._queues[self._submitter_of(first)].pass_turn()
            return self._serve(first)
        kept = first.demand if first is not None else None
        for submitter in self._by_turn():
            queue = self._queues[submitter]
            for rank, place, holding in queue.waiting(LOOK_MAX):
                if not may(submitter, holding.demand):
                    continue
                if fits(holding.demand, kept):
                    if first is not None:
                        first.overtaken += 1
                    queue.take(rank, place)
                    return self._serve(holding)
                if first is None:
                    first = holding
                    if first.overtaken >= self._overtakes_max:
                        self._first, kept = first, first.demand
        return None

    def latest(self, most: int) -> Iterator[Holding]:
        """Yields up to ``most`` attempts, who would start last first; from the longest lines first."""
        lines = {submitter: queue.latest() for submitter, queue in self._queues.items()}
        left = {submitter: len(queue) for submitter, queue in self._queues.items()}
        while lines and most > 0:
            longest = max(lines, key=lambda one: left[one])
            holding = next(lines[longest], None)
            if holding is None:
                del lines[longest]
                continue
            left[longest] -= 1
            most -= 1
            yield holding

    def settle(self, holding: Holding, took_s: float) -> None:
        """Charges what an attempt has really used, in place of what was expected."""
        submitter = holding.submitter
        if submitter is None:
            return
        took_s = max(PACE_LEAST_S, took_s)
        self._shares.charge(submitter, took_s * holding.demand.cpu - holding.charged)
        pace_s = self._pace_s.get(submitter, took_s)
        self._pace_s[submitter] = pace_s + PACE_WEIGHT * (took_s - pace_s)
        while len(self._pace_s) > SHARERS_MAX:
            del self._pace_s[next(iter(self._pace_s))]

    def wait_s(self, slots: int) -> float | None:
        """Returns how long the last in line will wait, by how long tasks took so far; None while that is not
        known."""
        known = [self._pace_s[one] for one in self._queues if one in self._pace_s]
        return max(known) * sum(map(len, self._queues.values())) / max(1, slots) if known else None

    def _by_turn(self) -> Iterable[NodeId]:
        for submitter in [one for one, queue in self._queues.items() if queue.first() is None]:
            del self._queues[submitter]
        if len(self._queues) < 2:
            return list(self._queues)
        return sorted(self._queues, key=self._shares.time_of)

    def _serve(self, holding: Holding) -> Holding:
        submitter = self._submitter_of(holding)
        holding.charged = self._pace_s.get(submitter, PACE_FIRST_S) * holding.demand.cpu
        self._shares.serve(submitter, holding.charged)
        return holding

    def _submitter_of(self, holding: Holding) -> NodeId:
        if holding.submitter is None:
            raise InvariantBroken(f"{holding.key} is in line for nobody")
        return holding.submitter

"""The workers that an owner can grant to: what they have, how much of it they hold, who has the least to do.

One book for all jobs of this node. ``least`` answers from a heap with lazy deletion: every change of a load
pushes a fresh entry and stale ones are dropped when they surface, so a grant costs O(log workers) where any
worker will do. ``candidates`` serves tasks that ask for more than a slot.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import NodeId, key_text
from meshpeer.core.scheduler.fitting import (
    NO_PROFILE,
    PLAIN,
    Amounts,
    Demand,
    Load,
    Profile,
    can_run,
    fits_beside,
)

_HEAP_SLACK = 64
"""Stale entries beyond four per worker and this many cause a rebuild."""


@dataclass(slots=True)
class Seat:
    """One worker."""

    node: NodeId
    order: int
    profile: Profile = NO_PROFILE
    linked: bool = False
    taken: Load = field(default_factory=Load)
    """What the attempts take that it has from this owner, of all jobs, running and queued."""
    boot: bytes = b""
    """Which run of its agent was heard last."""
    store: bytes = b""
    """The id of its journal; empty for a node that is no replica of any job."""
    heard_at_s: float = -1e9
    drained: bool = False
    """It takes no work because somebody said so."""
    silent: bool = False
    """It let a lease run out without a word: it is granted nothing until it speaks."""
    down_since_s: float | None = None
    """When its link was lost; None where there was none since this agent started."""

    @property
    def slots(self) -> int:
        """0 for a node that takes no work."""
        return self.profile.slots

    @property
    def held(self) -> int:
        """Slots' worth of attempts that it has from this owner."""
        return self.taken.cpu

    @property
    def load(self) -> float:
        return self.held / self.slots if self.slots else 0.0

    @property
    def open(self) -> bool:
        """Tells whether it can be given anything at all."""
        return self.linked and not self.silent and self.slots > 0

    def has_room(self, demand: Demand, depth: int, kept: Demand | None = None) -> bool:
        """Tells whether it may be given one more task, at ``depth`` tasks per slot, and still has room for
        ``kept`` then, if it could run that."""
        if not self.open or not can_run(demand, self.profile):
            return False
        reserved = dict(kept.amounts) if kept is not None and can_run(kept, self.profile) else None
        return fits_beside(demand.amounts, self.profile, self.taken, depth=depth, reserved=reserved)


class Seats:
    """All workers that this node ever heard of, itself included."""

    __slots__ = ("_heap", "_me", "_seats", "started_at_s")

    def __init__(self, me: NodeId, profile: Profile) -> None:
        self._me = me
        self.started_at_s: float | None = None
        """When this agent began to listen: before that it can't tell who was there."""
        self._seats: dict[NodeId, Seat] = {}
        self._heap: list[tuple[float, int, NodeId]] = []
        self.offer(me, profile)

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats.values())

    def get(self, node: NodeId) -> Seat | None:
        return self._seats.get(node)

    def of(self, node: NodeId) -> Seat:
        """Returns the worker's seat, a new one where it was never heard of."""
        seat = self._seats.get(node)
        if seat is None:
            seat = self._seats[node] = Seat(node, len(self._seats))
        return seat

    def offer(self, node: NodeId, profile: Profile) -> None:
        """Notes that a worker is there and what it has; where it stands is known from membership alone."""
        seat = self.of(node)
        seat.linked, seat.silent = True, False
        if node != self._me:
            place = seat.profile
            profile = replace(profile, name=place.name, region=place.region, roles=place.roles)
        seat.profile = profile
        self._push(seat)

    def place(self, node: NodeId, name: str, region: str, roles: tuple[str, ...]) -> bool:
        """Notes where a node stands and what it is called; returns whether that is news of a worker."""
        seat = self.of(node)
        known = seat.profile
        if (known.name, known.region, known.roles) == (name, region, roles):
            return False
        seat.profile = replace(known, name=name, region=region, roles=roles)
        return seat.slots > 0

    def close(self, node: NodeId) -> None:
        """Notes that a node may not run anything any more."""
        seat = self.of(node)
        seat.profile = replace(seat.profile, slots=0)

    def heard(self, node: NodeId, now_s: float) -> bool:
        """Notes a word from a worker; returns whether it had been silent."""
        seat = self.of(node)
        seat.heard_at_s = now_s
        was_silent, seat.silent = seat.silent, False
        if was_silent:
            self._push(seat)
        return was_silent

    def down(self, node: NodeId, now_s: float) -> None:
        """Notes that there is no link to a worker: it is granted nothing until it is back."""
        seat = self._seats.get(node)
        if seat is not None and node != self._me:
            seat.linked, seat.down_since_s = False, now_s

    def take(self, node: NodeId, amounts: Amounts) -> None:
        seat = self.of(node)
        seat.taken.add(amounts)
        self._push(seat)

    def give_back(self, node: NodeId, amounts: Amounts) -> None:
        seat = self.of(node)
        seat.taken.add(amounts, -1)
        if seat.held < 0:
            raise InvariantBroken(f"worker {key_text(node)[:10]} gave back more than it held: {seat.held}")
        self._push(seat)

    def profiles(self, without: Collection[NodeId] = ()) -> list[Profile]:
        """Returns what is known of everybody with a link, for ``why_waiting``."""
        return [one.profile for one in self if one.linked and one.node not in without]

    def could_run(self, demand: Demand) -> bool:
        """Tells whether any worker ever heard of could run a task, with a link or without one now."""
        return any(can_run(demand, one.profile) for one in self)

    def least(self, depth: int) -> Seat | None:
        """Returns the worker with the least to do per slot that has room for a plain task; this node wins
        ties.
        """
        heap = self._heap
        while heap:
            load, _, node = heap[0]
            seat = self._seats[node]
            if seat.open and seat.load == load:
                return seat if seat.has_room(PLAIN, depth) else None
            heapq.heappop(heap)
        return None

    def candidates(
        self, demand: Demand, without: Collection[NodeId] = (), only: NodeId | None = None
    ) -> Candidates:
        """Returns the workers that a task can be granted to, for as long as one round of granting lasts."""
        seats: Iterable[Seat] = self if only is None else (self.of(only),)
        return Candidates(
            demand,
            [one for one in seats if one.open and one.node not in without and can_run(demand, one.profile)],
        )

    def gone_for_s(self, node: NodeId, now_s: float) -> float:
        """Returns for how long there has been no link to this node; 0 while there is one."""
        seat = self._seats.get(node)
        if seat is not None and seat.linked:
            return 0.0
        since_s = seat.down_since_s if seat is not None else None
        since_s = self.started_at_s if since_s is None else since_s
        return 0.0 if since_s is None else now_s - since_s

    def _push(self, seat: Seat) -> None:
        if not seat.open:
            return
        if len(self._heap) > 4 * len(self._seats) + _HEAP_SLACK:
            self._heap = [(one.load, one.order, one.node) for one in self if one.open]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (seat.load, seat.order, seat.node))


class Candidates:
    """The workers that could run one kind of task, by how much they have to do."""

    __slots__ = ("_demand", "_heap")

    def __init__(self, demand: Demand, seats: Iterable[Seat]) -> None:
        self._demand = demand
        self._heap = [(one.load, one.order, one) for one in seats]
        heapq.heapify(self._heap)

    def least(self, depth: int, kept: Demand | None = None) -> Seat | None:
        """Returns the one with the least to do per slot that has room, and forgets those that have none."""
        heap = self._heap
        while heap:
            load, order, seat = heap[0]
            if seat.load != load:
                heapq.heapreplace(heap, (seat.load, order, seat))
            elif seat.has_room(self._demand, depth, kept):
                return seat
            else:
                heapq.heappop(heap)
        return None

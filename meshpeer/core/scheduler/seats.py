"""The workers that an owner can grant to: how wide they are, how much they hold, who has the least to do.

One book for all jobs of this node. ``least`` answers from a heap with lazy deletion: every change of a load
pushes a fresh entry and stale ones are dropped when they surface, so a grant costs O(log workers).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import NodeId, key_text

_HEAP_SLACK = 64
"""Stale entries beyond four per worker and this many cause a rebuild."""


@dataclass(slots=True)
class Seat:
    """One worker."""

    node: NodeId
    order: int
    slots: int = 0
    """0 for a node that takes no work."""
    linked: bool = False
    held: int = 0
    """Slots' worth of attempts that it has from this owner, of all jobs, running and queued."""
    boot: bytes = b""
    """Which run of its agent was heard last."""
    heard_at_s: float = -1e9
    drained: bool = False
    """It takes no work because somebody said so."""
    silent: bool = False
    """It let a lease run out without a word: it is granted nothing until it speaks."""
    down_since_s: float | None = None
    """When its link was lost; None where there was none since this agent started."""

    @property
    def load(self) -> float:
        return self.held / self.slots if self.slots else 0.0

    @property
    def open(self) -> bool:
        """Tells whether it can be given anything at all."""
        return self.linked and not self.silent and self.slots > 0

    def has_room(self, cpu: int, depth: int) -> bool:
        """Tells whether it may be given ``cpu`` more slots' worth, at ``depth`` tasks per slot."""
        return self.open and cpu <= self.slots and self.held + cpu <= max(self.slots * depth, cpu)


class Seats:
    """All workers that this node ever heard of, itself included."""

    __slots__ = ("_heap", "_me", "_narrowest", "_seats", "started_at_s")

    def __init__(self, me: NodeId, slots: int) -> None:
        self._me = me
        self.started_at_s: float | None = None
        """When this agent began to listen: before that it can't tell who was there."""
        self._seats: dict[NodeId, Seat] = {}
        self._heap: list[tuple[float, int, NodeId]] = []
        self._narrowest = 0
        mine = self.of(me)
        mine.linked = True
        self.offer(me, slots)

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

    def offer(self, node: NodeId, slots: int) -> None:
        """Notes that a worker is there and how wide it is."""
        seat = self.of(node)
        seat.linked, seat.silent, seat.slots = True, False, slots
        self._narrowest = min((one.slots for one in self._seats.values() if one.slots), default=0)
        self._push(seat)

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

    def take(self, node: NodeId, cpu: int) -> None:
        seat = self.of(node)
        seat.held += cpu
        self._push(seat)

    def give_back(self, node: NodeId, cpu: int) -> None:
        seat = self.of(node)
        seat.held -= cpu
        if seat.held < 0:
            raise InvariantBroken(f"worker {key_text(node)[:10]} gave back more than it held: {seat.held}")
        self._push(seat)

    def widest(self, without: Collection[NodeId] = ()) -> int:
        """Returns the slots of the widest worker that can be given anything."""
        return max((one.slots for one in self if one.open and one.node not in without), default=0)

    def least(self, cpu: int, depth: int, without: Collection[NodeId] = ()) -> Seat | None:
        """Returns the worker with the least to do per slot that has room for ``cpu`` more; this node wins
        ties.
        """
        if without or cpu > self._narrowest:
            fit = [one for one in self if one.node not in without and one.has_room(cpu, depth)]
            return min(fit, key=lambda one: (one.load, one.order), default=None)
        heap = self._heap
        while heap:
            load, _, node = heap[0]
            seat = self._seats[node]
            if seat.open and seat.load == load:
                return seat if seat.has_room(cpu, depth) else None
            heapq.heappop(heap)
        return None

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

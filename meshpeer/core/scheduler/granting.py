"""Granting: ready tasks go to the workers with the least to do per slot, as far as each has room and may run
them.

With every worker idle that makes the first share even. A worker is given some seconds' work at most, once the
job's own tasks have shown how long they take, so that what is left goes to whoever turns out to be fast;
stealing evens out the rest. Refills come when a quarter of what a worker may hold is done: several tasks to a
frame, and nobody waits for a round trip.

Tasks of different kinds (``backlog``) overtake each other where the first finds no room. After
``OVERTAKEN_MAX`` of them what is given to a worker that could run the first has to leave it its room.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Send
from meshpeer.core.ids import Digest, NodeId, TaskIndex, Ticket
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.backlog import Backlog, Kind, Line
from meshpeer.core.scheduler.book import TaskBook
from meshpeer.core.scheduler.fitting import Demand, Demands
from meshpeer.core.scheduler.leases import Lease, Leases
from meshpeer.core.scheduler.messages import (
    INPUTS_INLINE_MAX,
    Attempt,
    Blob,
    Epoch,
    Grant,
    Granted,
    Input,
    Offer,
    SchedulerEffect,
    StoreBlob,
    batches,
)
from meshpeer.core.scheduler.seals import Seals, sealed_body
from meshpeer.core.scheduler.seats import Candidates, Seat, Seats
from meshpeer.core.scheduler.tables import TaskState
from meshpeer.core.wire import cbor

DEPTH_MIN, DEPTH_FIRST, DEPTH_MAX = 2, 8, 64
"""Tasks per slot that a worker may hold: at least, while nobody knows how long they take, and at most."""
SUPPLY_S = 2.0
"""How much work a worker should hold, between the bounds above: enough to hide a round trip and a restart."""
REFILL_BELOW = 0.75
"""A worker is given more once it holds less than this part of what it may."""
PACE_WEIGHT = 0.2
"""Weight of the newest task in the moving average of task times."""
OVERTAKEN_MAX = 32
"""Tasks of other kinds that are granted before one that finds no room, until room is kept for it."""
UNABLE_S, DECLINED_S = 10.0, 60.0
"""How long a worker gets none of the job after it could not run a task (disk full, say), or declined it."""


@dataclass(slots=True)
class _Round:
    """What one call of ``grant`` has found out."""

    only: NodeId | None
    closed: list[Line] = field(default_factory=list)
    """Lines of which nothing more can be granted now."""
    roomless: list[Line] = field(default_factory=list)
    """Those of them whose first would fit somewhere, if there were room."""
    candidates: dict[Demand, Candidates] = field(default_factory=dict)


class Granting:
    """Who is given which ready task of one job."""

    def __init__(
        self, record: JobRecord, blob: Blob, book: TaskBook, leases: Leases, seats: Seats, seals: Seals
    ) -> None:
        self.backlog = Backlog(
            lambda task: book.states[task] is TaskState.READY,
            self._kind_of,
            lambda task: book.graph.spec_of(task).priority,
        )
        self._demands = Demands(book.graph)
        self._groups = dict(record.spec.groups)
        self._record = record
        self._blob = blob
        self._book = book
        self._leases = leases
        self._seats = seats
        self._seals = seals
        self.granted = 0
        """Slots' worth of attempts that were ever granted."""
        self._pace_s: float | None = None
        self._resting: dict[NodeId, float] = {}
        """Workers that are granted nothing of this job, and until when."""

    # --- who takes part -------------------------------------------------------------------------------------

    def rest(self, node: NodeId, now: Instant, *, declined: bool) -> None:
        """Grants nothing to a worker that declined the job, or could not run a task, for a while."""
        self._resting[node] = now.mono_s + (DECLINED_S if declined else UNABLE_S)

    def rests(self, node: NodeId) -> bool:
        return node in self._resting

    def welcome(self, node: NodeId) -> None:
        """Lets a worker that comes back be asked again: its settings may have changed."""
        self._resting.pop(node, None)
        self.backlog.look_again()

    def learn_pace(self, offer: Offer) -> None:
        if not offer.started_us:
            return
        took_s = max(0, offer.finished_us - offer.started_us) / 1e6
        self._pace_s = (
            took_s if self._pace_s is None else self._pace_s + PACE_WEIGHT * (took_s - self._pace_s)
        )

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, now: Instant, after: Ticket | None) -> None:
        self.backlog.tick(now.mono_s, after)
        rested = [node for node, until_s in self._resting.items() if until_s <= now.mono_s]
        for node in rested:
            del self._resting[node]
        if rested:
            self.backlog.look_again()

    def next_deadline(self) -> Deadline | None:
        rest = Deadline(min(self._resting.values()), "ask a worker again") if self._resting else None
        return earliest(rest, self.backlog.next_deadline())

    # --- granting -------------------------------------------------------------------------------------------

    def is_low(self, node: NodeId) -> bool:
        """Tells whether a worker holds so little that it should be given more."""
        seat = self._seats.get(node)
        return seat is not None and seat.held <= REFILL_BELOW * seat.slots * self._depth()

    def grant(
        self,
        now: Instant,
        epoch: Epoch,
        after: Ticket | None,
        *,
        only: NodeId | None = None,
        most: int | None = None,
    ) -> tuple[list[SchedulerEffect], list[NodeId]]:
        """Leases what is ready to whoever has room; returns the effects, and who was given something.

        ``only`` names the one worker that has come to have room, where nothing else has changed; ``most`` is
        how many slots' worth is granted now.
        """
        effects: list[SchedulerEffect] = []
        shares: dict[NodeId, list[Granted]] = {}
        round_ = _Round(only)
        while (most is None or most > 0) and (line := self.backlog.next_line(round_.closed)) is not None:
            if line.group and self.is_full(line.group):
                round_.closed.append(line)
                continue
            seat = self._seat_for(line, round_)
            if seat is None:
                round_.closed.append(line)
                if self._seats.could_run(line.demand):
                    round_.roomless.append(line)
                else:
                    line.aside = True
                continue
            task, ticket = line.queue.pop()
            line.overtaken = 0
            for other in round_.roomless:
                other.overtaken += 1
            granted, stored = self._lease(task, seat, epoch, now)
            self.granted += line.demand.cpu
            most = None if most is None else most - line.demand.cpu
            effects += stored
            shares.setdefault(seat.node, []).append(granted)
            after = _later(after, ticket)
        for node, share in shares.items():
            for batch in batches(share):
                effects.append(Send(peer=node, message=self._frame(batch, epoch), after=after))
        return effects, list(shares)

    def second(
        self, lease: Lease, epoch: Epoch, after: Ticket | None, now: Instant
    ) -> tuple[Lease, list[SchedulerEffect]] | None:
        """Seals another attempt of a task that is leased, for a worker with idle slots; None where there is
        none. The caller keeps the lease."""
        demand, _ = self._kind_of(lease.task)
        seat = self._seats.candidates(demand, (*self._resting, lease.node)).least(1)
        if seat is None:
            return None
        history = self._book.history(lease.task)
        history.number += 1
        attempt = Attempt(lease.task, history.round, history.number)
        granted, stored = self._unsealed(lease.task, attempt)
        seal = self._seals.make(epoch.counter, self._body(granted))
        frame = self._frame((msgspec.structs.replace(granted, seal=seal),), epoch)
        other = self.new_lease(attempt, seat.node, now, token=seal)
        return other, [*stored, Send(peer=seat.node, message=frame, after=after)]

    def _seat_for(self, line: Line, round_: _Round) -> Seat | None:
        """Returns the worker for the first of a line. Whoever has any room will do for a plain one, unless
        somebody rests, or room is kept for another."""
        kept = next((one.demand for one in round_.roomless if one.overtaken >= OVERTAKEN_MAX), None)
        if line.demand.is_plain and not self._resting and kept is None:
            return self._seats.least(self._depth())
        found = round_.candidates.get(line.demand)
        if found is None:
            found = self._seats.candidates(line.demand, self._resting, round_.only)
            round_.candidates[line.demand] = found
        return found.least(self._depth(), kept)

    def is_full(self, group: str) -> bool:
        """Tells whether as many tasks of a concurrency group are granted as may be at once."""
        return self._leases.in_group[group] >= self._groups.get(group, 1)

    def new_lease(self, attempt: Attempt, node: NodeId, now: Instant, token: bytes | None = None) -> Lease:
        """Returns a lease with what its task takes."""
        demand, group = self._kind_of(TaskIndex(attempt.task))
        return Lease(attempt, node, demand.amounts, now.mono_s, group=group, token=token)

    def _kind_of(self, task: TaskIndex) -> Kind:
        return self._demands.of(task), self._book.graph.spec_of(task).group

    def _lease(
        self, task: TaskIndex, seat: Seat, epoch: Epoch, now: Instant
    ) -> tuple[Granted, tuple[SchedulerEffect, ...]]:
        history = self._book.history(task)
        history.number += 1
        attempt = Attempt(task, history.round, history.number)
        self._book.move(task, TaskState.LEASED)
        granted, effects = self._unsealed(task, attempt)
        seal = self._seals.make(epoch.counter, self._body(granted))
        self._leases.add(self.new_lease(attempt, seat.node, now, token=seal))
        return msgspec.structs.replace(granted, seal=seal), effects

    def _unsealed(self, task: TaskIndex, attempt: Attempt) -> tuple[Granted, tuple[SchedulerEffect, ...]]:
        inputs = tuple(self._book.inputs_of(task))
        size = self._book.input_bytes(task) if inputs else 0
        if len(inputs) <= INPUTS_INLINE_MAX:
            return Granted(attempt, inputs, input_bytes=size), ()
        blob, stored = _blob_of(inputs)
        return Granted(attempt, (), blob, input_bytes=size), (stored,)

    def _body(self, granted: Granted) -> bytes:
        return sealed_body(self._record.job, self._record.generation, self._blob, granted)

    def gave(self, task: TaskIndex, attempt: Attempt, me: NodeId, seal: bytes) -> bool:
        """Says whether this owner once sealed an attempt of a task that can run: for what was granted before
        a restart, and stolen during it. Costs a signature."""
        if not seal or not self._book.needs_met(task):
            return False
        return self._seals.counter_of(me, self._body(self._unsealed(task, attempt)[0]), seal) is not None

    def _depth(self) -> int:
        """Returns how many tasks per slot a worker may hold."""
        if self._pace_s is None:
            return DEPTH_FIRST
        return max(DEPTH_MIN, min(DEPTH_MAX, int(SUPPLY_S / max(self._pace_s, 1e-4))))

    def _frame(self, batch: tuple[Granted, ...], epoch: Epoch) -> Grant:
        return Grant(
            job=self._record.job,
            generation=self._record.generation,
            epoch=epoch,
            record=self._blob,
            tasks=batch,
        )


def _later(one: Ticket | None, other: Ticket | None) -> Ticket | None:
    return other if one is None or (other is not None and other > one) else one


def _blob_of(inputs: tuple[Input, ...]) -> tuple[Blob, StoreBlob]:
    data = cbor.encode(inputs)
    digest = Digest(hashlib.sha256(data).digest())
    return Blob(digest, len(data)), StoreBlob(digest=digest, data=data)

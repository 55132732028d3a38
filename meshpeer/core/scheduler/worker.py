"""The worker: a deque of granted attempts, as many running as there are slots, results offered until
acknowledged.

New work goes to the deque's end and is started from its front; thieves take from the end (the deque of
Blumofe and Leiserson's
work stealing, with the owner's order kept for what runs here). A result for another node's job is journalled
before it is offered and
forgotten once acknowledged, however often links, owner or this agent are restarted in between. A result for
this node's own job is
committed by the owner part in the same journal, so it is not written twice.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Persist, Send, TicketCounter
from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.messages import (
    Ack,
    Attempt,
    AttemptUnstageable,
    Blob,
    Epoch,
    FetchJob,
    Grant,
    Granted,
    Lost,
    Offer,
    Renew,
    SchedulerEffect,
    StartAttempt,
    Stop,
    StopAttempt,
)
from meshpeer.core.scheduler.rows import ResultRow, delete_result, put_result
from meshpeer.core.scheduler.tables import AttemptState, move_attempt

RENEW_S = 5.0
OFFER_FIRST_S = 1.0
OFFER_MAX_S = 30.0
"""An offer that is not acknowledged is repeated after 1 s, 2 s, 4 s and so on up to this, with jitter; and on
every new link."""

Key = tuple[JobId, Attempt]


class Jitter(Protocol):
    def random(self) -> float: ...


@dataclass(slots=True)
class Holding:
    """One attempt that this worker has."""

    job: JobId
    owner: NodeId
    granted: Granted
    cpu: int = 1
    state: AttemptState = AttemptState.GRANTED
    stolen_from: NodeId | None = None

    @property
    def key(self) -> Key:
        return (self.job, self.granted.attempt)


@dataclass(slots=True)
class _Offering:
    row: ResultRow
    next_at_s: float
    tries: int = 0


@dataclass(slots=True)
class _Known:
    """A job whose attempts this worker has had."""

    owner: NodeId
    epoch: Epoch
    blob: Blob
    record: JobRecord | None = None


class JobWorker:
    """Everything that this node runs for anybody. Sans-IO."""

    def __init__(
        self, *, me: NodeId, slots: int, accepting: bool, tickets: TicketCounter, jitter: Jitter
    ) -> None:
        self.me = me
        self.slots = slots
        self.accepting = accepting
        self._tickets = tickets
        self._jitter = jitter
        self._deque: collections.deque[Holding] = collections.deque()
        self._held: dict[Key, Holding] = {}
        self._offering: dict[Key, _Offering] = {}
        self._jobs: dict[JobId, _Known] = {}
        self._busy = 0
        self._renew_at_s = 0.0

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def idle_slots(self) -> int:
        """Slots that neither run nor have queued work to run."""
        return max(0, self.slots - self._busy - sum(holding.cpu for holding in self._deque))

    @property
    def queued(self) -> int:
        return len(self._deque)

    @property
    def running(self) -> int:
        return sum(
            1
            for holding in self._held.values()
            if holding.state in (AttemptState.STAGING, AttemptState.RUNNING)
        )

    @property
    def unacknowledged(self) -> int:
        return len(self._offering)

    def owner_of(self, job: JobId) -> NodeId | None:
        known = self._jobs.get(job)
        if known is not None:
            return known.owner
        return next((one.row.owner for (held, _), one in self._offering.items() if held == job), None)

    # --- grants ---------------------------------------------------------------------------------------------

    def on_grant(self, grant: Grant, now: Instant) -> list[SchedulerEffect]:
        """Queues what is new; what is held or finished already is answered as it stands."""
        if not self.accepting or not self.slots:
            attempts = tuple(granted.attempt for granted in grant.tasks)
            return [
                Send(
                    peer=grant.owner,
                    message=Lost(job=grant.job, attempts=attempts, reason="this node takes no work"),
                )
            ]
        effects: list[SchedulerEffect] = []
        known = self._jobs.get(grant.job)
        if known is None or known.blob != grant.record:
            known = self._jobs[grant.job] = _Known(grant.owner, grant.epoch, grant.record)
            holders = (grant.owner, *((grant.stolen_from,) if grant.stolen_from else ()))
            effects.append(FetchJob(job=grant.job, record=grant.record, holders=holders))
        known.owner, known.epoch = grant.owner, grant.epoch
        for granted in grant.tasks:
            key = (grant.job, granted.attempt)
            if key in self._held:
                continue
            if key in self._offering:
                effects.append(self._offer(self._offering[key], now))
                continue
            holding = Holding(grant.job, grant.owner, granted, stolen_from=grant.stolen_from)
            if known.record is not None:
                holding.cpu = min(
                    self.slots, known.record.spec.tasks[self._row(known.record, granted.attempt)].cpu
                )
            self._held[key] = holding
            self._deque.append(holding)
        return [*effects, *self._start(now)]

    def on_job_learned(self, job: JobId, record: JobRecord, now: Instant) -> list[SchedulerEffect]:
        known = self._jobs.get(job)
        if known is None:
            return []
        known.record = record
        for holding in self._deque:
            if holding.job == job:
                holding.cpu = min(
                    self.slots, record.spec.tasks[self._row(record, holding.granted.attempt)].cpu
                )
        return self._start(now)

    def on_job_refused(self, job: JobId, reason: str, now: Instant) -> list[SchedulerEffect]:
        """Gives everything of the job back."""
        known = self._jobs.pop(job, None)
        mine = [holding for holding in self._deque if holding.job == job]
        for holding in mine:
            self._drop(holding, AttemptState.LOST)
        if known is None or not mine:
            return []
        attempts = tuple(holding.granted.attempt for holding in mine)
        return [
            Send(peer=known.owner, message=Lost(job=job, attempts=attempts, reason=reason)),
            *self._start(now),
        ]

    def give(self, count: int) -> list[Grant]:
        """Takes up to ``count`` queued attempts off the deque's end, as grants for a thief (the caller sends
        them)."""
        given: dict[JobId, list[Granted]] = {}
        owners: dict[JobId, NodeId] = {}
        for holding in list(reversed(self._deque)):
            known = self._jobs.get(holding.job)
            if count <= 0:
                break
            if known is None or known.record is None:
                continue
            self._deque.remove(holding)
            del self._held[holding.key]
            given.setdefault(holding.job, []).append(holding.granted)
            owners[holding.job] = holding.owner
            count -= 1
        return [
            Grant(
                job=job,
                owner=owners[job],
                epoch=self._jobs[job].epoch,
                record=self._jobs[job].blob,
                tasks=tuple(tasks),
                stolen_from=self.me,
            )
            for job, tasks in given.items()
        ]

    def claim(self, grant: Grant) -> SchedulerEffect:
        """Tells the owner who has the attempts now."""
        return self._renewal(grant.job, grant.owner)

    def take_back(self, grant: Grant, now: Instant) -> list[SchedulerEffect]:
        """Queues again what a thief did not take up."""
        for granted in grant.tasks:
            holding = Holding(grant.job, grant.owner, granted)
            if holding.key not in self._held and holding.key not in self._offering:
                self._held[holding.key] = holding
                self._deque.append(holding)
        return self._start(now)

    # --- running --------------------------------------------------------------------------------------------

    def on_running(self, job: JobId, attempt: Attempt) -> list[SchedulerEffect]:
        holding = self._held.get((job, attempt))
        if holding is None or holding.state is not AttemptState.STAGING:
            return []
        self._move(holding, AttemptState.RUNNING)
        return [self._renewal(job, holding.owner)]

    def on_finished(self, offer: Offer, now: Instant) -> list[SchedulerEffect]:
        holding = self._held.pop((offer.job, offer.attempt), None)
        if holding is None:
            return []
        self._busy -= holding.cpu
        self._move(holding, AttemptState.STORED)
        effects: list[SchedulerEffect] = []
        row = ResultRow(owner=holding.owner, offer=offer)
        offering = self._offering[offer.job, offer.attempt] = _Offering(row, now.mono_s)
        if holding.owner == self.me:
            effects.append(self._offer(offering, now))
        else:
            ticket = self._tickets.take()
            effects.append(Persist(ticket=ticket, changes=(put_result(row),)))
            self._schedule(offering, now)
            effects.append(Send(peer=holding.owner, message=offer, after=ticket))
        return [*effects, *self._start(now)]

    def on_unstageable(self, event: AttemptUnstageable, now: Instant) -> list[SchedulerEffect]:
        holding = self._held.pop((event.job, event.attempt), None)
        if holding is None:
            return []
        self._busy -= holding.cpu
        lost = Lost(job=event.job, attempts=(event.attempt,), reason=event.reason, missing=event.missing)
        return [Send(peer=holding.owner, message=lost), *self._start(now)]

    def on_stop(self, message: Stop, now: Instant) -> list[SchedulerEffect]:
        """Drops what is queued, ends what runs, forgets results that nobody wants."""
        wanted = set(message.attempts)
        effects: list[SchedulerEffect] = []
        for holding in list(self._held.values()):
            if holding.job != message.job or (wanted and holding.granted.attempt not in wanted):
                continue
            if holding.state is AttemptState.GRANTED:
                self._drop(holding, AttemptState.STOPPED)
            else:
                del self._held[holding.key]
                self._busy -= holding.cpu
                effects.append(StopAttempt(job=holding.job, attempt=holding.granted.attempt))
        return [*effects, *self._start(now)]

    def on_ack(self, message: Ack) -> list[SchedulerEffect]:
        """Forgets the result: its owner has it, or another, for good."""
        offering = self._offering.pop((message.job, message.attempt), None)
        if offering is None or offering.row.owner == self.me:
            return []
        return [Persist(ticket=self._tickets.take(), changes=(delete_result(message.job, message.attempt),))]

    # --- links and time -------------------------------------------------------------------------------------

    def restore(self, rows: Iterable[ResultRow], now: Instant) -> None:
        """Takes up the results that were not acknowledged when the agent stopped."""
        for row in rows:
            self._offering[row.offer.job, row.offer.attempt] = _Offering(row, now.mono_s)

    def on_peer_up(self, peer: NodeId, now: Instant) -> list[SchedulerEffect]:
        """Offers first, then says what is held: the peer commits results before it counts leases."""
        offers: list[SchedulerEffect] = [
            self._offer(one, now) for one in self._offering.values() if one.row.owner == peer
        ]
        jobs = sorted({holding.job for holding in self._held.values() if holding.owner == peer})
        return [*offers, *(self._renewal(job, peer) for job in jobs)]

    def tick(self, now: Instant) -> list[SchedulerEffect]:
        effects: list[SchedulerEffect] = [
            self._offer(one, now) for one in self._offering.values() if one.next_at_s <= now.mono_s
        ]
        if now.mono_s >= self._renew_at_s:
            self._renew_at_s = now.mono_s + RENEW_S
            owned = sorted({(holding.job, holding.owner) for holding in self._held.values()})
            effects += [self._renewal(job, owner) for job, owner in owned]
        return effects

    def next_deadline(self) -> Deadline | None:
        waits = [Deadline(one.next_at_s, "offer a result again") for one in self._offering.values()]
        if self._held:
            waits.append(Deadline(self._renew_at_s, "renew leases"))
        return min(waits, key=lambda one: one.at_s, default=None)

    # --- rules ----------------------------------------------------------------------------------------------

    def _start(self, now: Instant) -> list[SchedulerEffect]:
        """Starts from the front as long as the next one fits; a wide task is not overtaken, so it is not
        starved."""
        effects: list[SchedulerEffect] = []
        while self._deque:
            holding = self._deque[0]
            known = self._jobs.get(holding.job)
            if known is None or known.record is None:
                if not self._rotate_to_known():
                    break
                continue
            if self._busy + holding.cpu > self.slots:
                break
            self._deque.popleft()
            self._busy += holding.cpu
            self._move(holding, AttemptState.STAGING)
            effects.append(
                StartAttempt(
                    job=holding.job, record=known.record, owner=holding.owner, granted=holding.granted
                )
            )
        return effects

    def _rotate_to_known(self) -> bool:
        """Brings an attempt of a job whose record is here to the front; False where there is none."""
        for position, holding in enumerate(self._deque):
            known = self._jobs.get(holding.job)
            if known is not None and known.record is not None:
                self._deque.rotate(-position)
                return True
        return False

    def _offer(self, offering: _Offering, now: Instant) -> SchedulerEffect:
        self._schedule(offering, now)
        return Send(peer=offering.row.owner, message=offering.row.offer)

    def _schedule(self, offering: _Offering, now: Instant) -> None:
        wait = min(OFFER_MAX_S, OFFER_FIRST_S * 2.0 ** min(offering.tries, 10))
        offering.tries += 1
        offering.next_at_s = now.mono_s + wait * (0.75 + 0.5 * self._jitter.random())

    def _renewal(self, job: JobId, owner: NodeId) -> SchedulerEffect:
        mine = [holding for holding in self._held.values() if holding.job == job and holding.owner == owner]
        return Send(
            peer=owner,
            message=Renew(
                job=job,
                held=tuple(holding.granted.attempt for holding in mine),
                running=tuple(
                    holding.granted.attempt for holding in mine if holding.state is AttemptState.RUNNING
                ),
                stolen_from=tuple(
                    (holding.granted.attempt, holding.stolen_from) for holding in mine if holding.stolen_from
                ),
            ),
        )

    def _drop(self, holding: Holding, state: AttemptState) -> None:
        self._deque.remove(holding)
        del self._held[holding.key]
        self._move(holding, state)

    @staticmethod
    def _row(record: JobRecord, attempt: Attempt) -> int:
        """Returns the row of the task in the spec: tasks count in file order, elements in theirs."""
        position = attempt.task
        for row, spec in enumerate(record.spec.tasks):
            size = spec.array.size if spec.array else 1
            if position < size:
                return row
            position -= size
        return 0

    @staticmethod
    def _move(holding: Holding, state: AttemptState) -> None:
        holding.state = move_attempt(f"{holding.job} {holding.granted.attempt}", holding.state, state)

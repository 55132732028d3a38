"""The scheduler's door: one machine for what this node owns, runs and steals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Persisted, Send, Tick, TicketCounter
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.messages import (
    Ack,
    AttemptFinished,
    AttemptRunning,
    AttemptUnstageable,
    CancelAsked,
    Capacity,
    Epoch,
    Grant,
    JobLearned,
    JobRefused,
    JobSubmitted,
    Lost,
    MessageReceived,
    Offer,
    PeerDown,
    PeersChanged,
    PeerUp,
    PeerView,
    Renew,
    SchedulerEffect,
    SchedulerEvent,
    StealNone,
    StealRequest,
    Stop,
    Taken,
)
from meshpeer.core.scheduler.owner import JobOwner, Worker
from meshpeer.core.scheduler.rows import JobRow, ResultRow, TaskRow
from meshpeer.core.scheduler.stealing import Stealing
from meshpeer.core.scheduler.worker import Jitter, JobWorker


class Scheduler:
    """Owner, worker and thief of one node. Sans-IO."""

    def __init__(
        self,
        *,
        me: NodeId,
        slots: int,
        accepting: bool,
        boot: bytes,
        region: str,
        tickets: TicketCounter,
        dice: Jitter,
    ) -> None:
        self.me = me
        self._boot = boot
        self._tickets = tickets
        self.owned: dict[JobId, JobOwner] = {}
        self.worker = JobWorker(me=me, slots=slots, accepting=accepting, tickets=tickets, jitter=dice)
        self.stealing = Stealing(self.worker, dice, region)
        self.workers: dict[NodeId, Worker] = {me: Worker(me, slots if accepting else 0, linked=True)}
        self._boots: dict[NodeId, bytes] = {}
        self._peers: tuple[PeerView, ...] = ()
        self._dead: set[NodeId] = set()

    # --- start ----------------------------------------------------------------------------------------------

    def restore(
        self,
        jobs: Iterable[tuple[JobRecord, Digest, JobRow]],
        tasks: Mapping[JobId, dict[int, TaskRow]],
        results: Iterable[ResultRow],
        now: Instant,
    ) -> list[SchedulerEffect]:
        """Takes up what the journal held; the caller performs the effects before any event."""
        effects: list[SchedulerEffect] = []
        self.worker.restore(results, now)
        for record, digest, row in jobs:
            owner = self._own(record, row.signed, digest, row.epoch, row.accepted_at_us)
            effects += owner.restore(dict(tasks.get(record.job, {})), row, now)
        return effects

    # --- two doors ------------------------------------------------------------------------------------------

    def handle(self, event: SchedulerEvent, now: Instant) -> list[SchedulerEffect]:
        match event:
            case Tick():
                return self._on_tick(now)
            case Persisted():
                return []
            case MessageReceived(peer=peer, message=message):
                return self._on_message(peer, message, now)
            case AttemptRunning(job=job, attempt=attempt):
                return self.worker.on_running(job, attempt)
            case AttemptFinished(offer=offer):
                effects = self.worker.on_finished(offer, now)
                self.stealing.work_ended(now)
                return effects + self.stealing.seek(self._peers, now)
            case AttemptUnstageable():
                return self.worker.on_unstageable(event, now)
            case JobSubmitted(record=record, signed=signed, digest=digest):
                if record.job in self.owned:
                    return []
                owner = self._own(record, signed, digest, Epoch(1, self.me), int(now.unix_s * 1e6))
                return [*owner.accept(), *owner.dispatch(self.workers, now)]
            case JobLearned(job=job, record=record):
                return [*self.worker.on_job_learned(job, record, now), *self.stealing.feed(now)]
            case JobRefused(job=job, reason=reason):
                return self.worker.on_job_refused(job, reason, now)
            case CancelAsked(job=job):
                owned = self.owned.get(job)
                return owned.cancel(self.workers, now) if owned else []
            case PeersChanged(peers=peers):
                return self._on_peers(peers, now)
            case PeerUp(peer=peer):
                offers = self.worker.on_peer_up(peer, now)
                capacity = Capacity(slots=self.worker.slots, accepting=self.worker.accepting, boot=self._boot)
                return [*offers, Send(peer=peer, message=capacity)]
            case PeerDown(peer=peer):
                if peer in self.workers:
                    self.workers[peer].linked = False
                self.stealing.forget(peer)
                return []

    def next_deadline(self) -> Deadline | None:
        return earliest(
            self.worker.next_deadline(),
            self.stealing.next_deadline(any(peer.linked for peer in self._peers)),
            *(owner.next_deadline() for owner in self.owned.values() if not owner.finished),
        )

    def check(self) -> None:
        """Raises ``InvariantBroken`` where tables disagree."""
        for owner in self.owned.values():
            owner.check()

    # --- messages -------------------------------------------------------------------------------------------

    def _on_message(self, peer: NodeId, message: msgspec.Struct, now: Instant) -> list[SchedulerEffect]:
        match message:
            case Capacity():
                return self._on_capacity(peer, message, now)
            case Grant(stolen_from=stolen_from):
                if stolen_from is None and peer != message.owner:
                    return []
                taken = self.stealing.on_booty(peer, message, now) if stolen_from is not None else []
                effects = [*taken, *self.worker.on_grant(message, now)]
                if stolen_from is not None:
                    effects.append(self.worker.claim(message))
                return [*effects, *self.stealing.feed(now)]
            case Stop(job=job):
                return self.worker.on_stop(message, now) if self._speaks_for(peer, job) else []
            case Ack(job=job):
                return self.worker.on_ack(message) if self._speaks_for(peer, job) else []
            case StealRequest():
                return self.stealing.on_request(peer, message, now)
            case StealNone():
                self.stealing.on_none(peer, now)
                return self.stealing.seek(self._peers, now)
            case Taken():
                self.stealing.on_taken(message)
                return []
            case Renew(job=job) | Lost(job=job) | Offer(job=job):
                return self._on_worker_word(peer, job, message, now)
        return []

    def _on_worker_word(
        self, peer: NodeId, job: JobId, message: Renew | Lost | Offer, now: Instant
    ) -> list[SchedulerEffect]:
        owner = self.owned.get(job)
        if owner is None:
            # Nobody here knows the job: it was dropped, so its results and leases are of no use.
            if isinstance(message, Offer):
                return [Send(peer=peer, message=Ack(job=job, attempt=message.attempt))]
            return [
                Send(peer=peer, message=Stop(job=job, attempts=(), reason="this node does not own the job"))
            ]
        match message:
            case Renew():
                return owner.on_renew(peer, message, self.workers, now)
            case Lost():
                return owner.on_lost(peer, message, self.workers, now)
            case Offer():
                return [*owner.on_offer(peer, message, self.workers, now), *self._dispatch_others(owner, now)]

    def _on_capacity(self, peer: NodeId, message: Capacity, now: Instant) -> list[SchedulerEffect]:
        worker = self.workers.setdefault(peer, Worker(peer, 0, linked=True))
        worker.linked = True
        worker.slots = message.slots if message.accepting else 0
        effects: list[SchedulerEffect] = []
        if self._boots.get(peer, message.boot) != message.boot:
            for owner in self.owned.values():
                if not owner.finished:
                    effects += owner.on_boot(peer, self.workers, now)
        self._boots[peer] = message.boot
        for owner in self.owned.values():
            effects += owner.dispatch(self.workers, now)
        return effects

    # --- rules ----------------------------------------------------------------------------------------------

    def _on_tick(self, now: Instant) -> list[SchedulerEffect]:
        effects = [*self.worker.tick(now), *self.stealing.tick(now)]
        for owner in self.owned.values():
            effects += owner.tick(self.workers, now)
        return [*effects, *self.stealing.feed(now), *self.stealing.seek(self._peers, now)]

    def _on_peers(self, peers: tuple[PeerView, ...], now: Instant) -> list[SchedulerEffect]:
        self._peers = peers
        dead = {peer.node for peer in peers if peer.dead and not peer.linked}
        effects: list[SchedulerEffect] = []
        for node in sorted(dead - self._dead):
            for owner in self.owned.values():
                if not owner.finished:
                    effects += owner.on_dead(node, self.workers, now)
        self._dead = dead
        return [*effects, *self.stealing.seek(peers, now)]

    def _dispatch_others(self, done: JobOwner, now: Instant) -> list[SchedulerEffect]:
        """Room that one job left may serve another."""
        effects: list[SchedulerEffect] = []
        for owner in self.owned.values():
            if owner is not done and owner.backlog:
                effects += owner.dispatch(self.workers, now)
        return effects

    def _own(
        self, record: JobRecord, signed: bytes, digest: Digest, epoch: Epoch, accepted_at_us: int
    ) -> JobOwner:
        owner = JobOwner(
            me=self.me,
            record=record,
            signed=signed,
            digest=digest,
            epoch=epoch,
            tickets=self._tickets,
            accepted_at_us=accepted_at_us,
        )
        self.owned[record.job] = owner
        return owner

    def _speaks_for(self, peer: NodeId, job: JobId) -> bool:
        """Only a job's owner may stop its attempts or acknowledge its results."""
        owner = self.worker.owner_of(job)
        return owner is None or owner == peer

"""The scheduler's door: one machine for what this node owns, runs and steals.

It routes: words about owned jobs to their owners, grants and owners' words to the worker, steals to thief and
victim. It keeps no state of its own but who there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import assert_never

import msgspec

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Delete, Note, Persist, Send, Table, Tick, TicketCounter
from meshpeer.core.errors import InvariantBroken, PeerFault
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex, Ticket, key_text
from meshpeer.core.jobs.model import JobRecord, JobSpec
from meshpeer.core.scheduler.claims import bounded_offer, capacity_of, profile_of
from meshpeer.core.scheduler.collecting import Collector, Terms
from meshpeer.core.scheduler.consensus.messages import (
    Accept,
    Accepted,
    Chosen,
    Denied,
    Deposed,
    Elected,
    Prepare,
    Promise,
)
from meshpeer.core.scheduler.control_messages import (
    ControlEvent,
    DrainAsked,
    LinkWanted,
    PauseAsked,
    PriorityAsked,
    RetryAsked,
)
from meshpeer.core.scheduler.fitting import Load, Profile
from meshpeer.core.scheduler.leases import LEASE_S
from meshpeer.core.scheduler.messages import (
    Ack,
    AttemptFinished,
    AttemptRunning,
    AttemptUnstageable,
    Blob,
    CancelAsked,
    Capacity,
    Epoch,
    Grant,
    Held,
    JobChanged,
    JobLearned,
    JobRefused,
    JobSignedAnew,
    JobSubmitted,
    Lost,
    MessageReceived,
    Offer,
    PeerDown,
    PeerRevoked,
    PeersChanged,
    PeerUp,
    PeerView,
    Recall,
    Renew,
    SchedulerEffect,
    SchedulerEvent,
    StealNone,
    StealRequest,
    Stop,
    Taken,
    Unknown,
)
from meshpeer.core.scheduler.offers import Dice
from meshpeer.core.scheduler.outbox import Outbox
from meshpeer.core.scheduler.owner import CRASH_LIMIT, JobOwner
from meshpeer.core.scheduler.quotas import Excess, QuotaOf, boundless, excess_of
from meshpeer.core.scheduler.refounding import Growth, base_of_copy, base_of_owner, denial_of, is_outdated
from meshpeer.core.scheduler.replica_choice import REPLICAS_WANTED
from meshpeer.core.scheduler.replica_messages import (
    Owns,
    RecordShown,
    RecordWanted,
    ReplicaFetched,
    ReplicaReady,
    ReplicaRefused,
    ReplicaUnfetched,
)
from meshpeer.core.scheduler.replica_rows import read_replicas, takeover_of
from meshpeer.core.scheduler.replicas import Copy, Replicas, names_of
from meshpeer.core.scheduler.rows import (
    JobRow,
    ResultRow,
    TaskRow,
    put_drained,
    read_drained,
    read_grants,
    read_outbox,
    read_webhooks,
)
from meshpeer.core.scheduler.seals import Seals, counter_of_grant
from meshpeer.core.scheduler.seats import Seats
from meshpeer.core.scheduler.stealing import Stealing
from meshpeer.core.scheduler.turns import Turns
from meshpeer.core.scheduler.webhook_messages import (
    CallbackReceived,
    Delivered,
    WebhookAnswered,
    WebhookReady,
)
from meshpeer.core.scheduler.webhooks import Webhooks
from meshpeer.core.scheduler.worker import DRAINED, JobWorker

STORE_BYTES_MAX = 32
"""The id of a journal, as a peer names it."""
SLEPT_S = 5.0
"""A deadline that is met this late means that this machine slept: leases are not judged by the time it
missed.
"""


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
        profile: Profile | None = None,
        tickets: TicketCounter,
        dice: Dice,
        seals: Seals,
        store: bytes = b"",
        may_work: Callable[[NodeId], bool] = lambda node: True,
        may_submit: Callable[[NodeId], bool] = lambda node: True,
        is_revoked: Callable[[NodeId], bool] = lambda node: False,
        crash_limit: int = CRASH_LIMIT,
        terms: Terms | None = None,
        quota_of: QuotaOf = boundless,
    ) -> None:
        """``may_work`` and ``may_submit`` say what a node's certificate allows at this moment, ``is_revoked``
        who was shut out by name; ``profile`` says more of this node than its slots and region; ``store`` is
        the id of this node's journal, empty where it is to be no replica of any job."""
        self.me = me
        profile = profile or Profile(slots=slots, region=region)
        self.owned: dict[JobId, JobOwner] = {}
        """Every job that this node owns, finished ones included."""
        self.worker = JobWorker(
            me=me,
            profile=profile,
            accepting=accepting and may_work(me),
            boot=boot,
            tickets=tickets,
            dice=dice,
            quota_of=quota_of,
        )
        self.quota_of = quota_of
        self.stealing = Stealing(
            worker=self.worker,
            region=region,
            tickets=tickets,
            dice=dice,
            profile_of=lambda node: self.seats.of(node).profile,
        )
        self.outbox = Outbox(tickets=tickets, dice=dice)
        self.webhooks = Webhooks(worker=self.worker, tickets=tickets, dice=dice)
        self.seats = Seats(me, self._own_profile())
        self._turns = Turns()
        self.replicas = Replicas(
            me=me, store=store, region=region, seats=self.seats, tickets=tickets, dice=dice
        )
        self.growth = Growth(me)
        self.collector = Collector(
            terms=terms or Terms(),
            tickets=tickets,
            owned=self.owned,
            replicas=self.replicas,
            worker=self.worker,
            outbox=self.outbox,
        )
        self.drain_ticket: Ticket | None = None
        """The write of the last order to drain, or to take work again."""
        self._boot = boot
        self._seals = seals
        self._may_work = may_work
        self._may_submit = may_submit
        self._is_revoked = is_revoked
        self._shut_out: set[NodeId] = set()
        """Who was shut out since the agent started, be it with an invite or an issuer."""
        self._accepting = accepting and profile.slots > 0
        """What this node's own settings say."""
        self._tickets = tickets
        self._crash_limit = crash_limit
        self._open: dict[JobId, JobOwner] = {}
        """Owned jobs that are not finished."""
        self._peers: tuple[PeerView, ...] = ()
        self._linked: dict[NodeId, None] = {}
        """Peers with a link, the longest-lived first: ``_peers`` follows with a pause."""
        self._dead: set[NodeId] = set()
        self._asked_for_s: float | None = None
        """The deadline last returned."""
        self._handled_at_s = float("-inf")

    @property
    def owns_open_jobs(self) -> bool:
        """Whether this node has work to give away."""
        return bool(self._open)

    @property
    def knows_all_workers(self) -> bool:
        """Whether every member that lives has a link, and so has said what it has for tasks."""
        return all(one.linked for one in self._peers if one.alive)

    # --- start --------------------------------------------------------------------------------------------

    def restore(
        self,
        jobs: Iterable[tuple[JobRecord, Digest, JobRow]],
        tasks: Mapping[JobId, Mapping[int, TaskRow]],
        results: Iterable[ResultRow],
        now: Instant,
        grants: Iterable[tuple[str, bytes]] = (),
        replicas: Iterable[tuple[str, bytes]] = (),
    ) -> list[SchedulerEffect]:
        """Takes up what the journal held; the caller performs the effects before any event, and carries
        the messages among them like any others: some are for this very node.

        ``grants`` and ``replicas`` are the rows of these tables as they were read.
        """
        grants = tuple(grants)
        if read_drained(grants):
            self._drain(True)
            self._follow_rights(now)
        self.seats.started_at_s = now.mono_s
        seats, given = read_grants(grants)
        effects: list[SchedulerEffect] = []
        self.worker.restore(results, now)
        self.stealing.restore(given, now)
        effects += self.webhooks.restore(read_webhooks(grants), now)
        self.outbox.restore(read_outbox(grants), now)
        copies = read_replicas(replicas)
        effects += self.collector.restore(grants, tasks, copies, now)
        for record, digest, row in jobs:
            if row.replicated:
                held_here = copies.get(record.job)
                effects += self.replicas.restore(record, row.signed, digest, held_here, now)
                continue
            owner = self._own(record, row.signed, digest, row.epoch, row.accepted_at_us)
            rows = [(TaskIndex(task), one) for task, one in tasks.get(record.job, {}).items()]
            effects += owner.restore(rows, row, seats.get(record.job, ()), now)
            held = self.worker.held_of(record.job)
            if held is not None and not owner.finished:
                effects += owner.on_held(self.me, held, now)
            effects += owner.dispatch(now)
            self._close_if_finished(owner)
        effects += self._take_turns(now)
        effects = self._replicate(effects, now)
        return self._words_to_self_last([*effects, *self._replicate(self._tell_ends(now), now)])

    # --- two doors ----------------------------------------------------------------------------------------

    def handle(self, event: SchedulerEvent, now: Instant) -> list[SchedulerEffect]:
        """Takes one event; returns all that is to be done, in order."""
        if self.seats.started_at_s is None:
            self.seats.started_at_s = now.mono_s
            self.collector.begin(now)
        if self._asked_for_s is not None and now.mono_s > self._asked_for_s + SLEPT_S:
            for owner in self._open.values():
                owner.spare(now)
            self.replicas.spare(now)
        self._asked_for_s, self._handled_at_s = None, now.mono_s
        effects = self._dispatch(event, now)
        effects += self._take_turns(now)
        if self.webhooks:
            effects += self.webhooks.follow(effects, now)
        if self.worker.queued:
            effects += self.stealing.feed(now)
        if self.worker.idle_slots:
            effects += self.stealing.seek(now)
        effects = self._replicate(effects, now)
        if self.outbox.has_news:
            effects += self._replicate(self._tell_ends(now), now)
        return self._words_to_self_last(effects)

    def next_deadline(self) -> Deadline | None:
        deadline = earliest(
            self.worker.next_deadline(),
            self.stealing.next_deadline(),
            self.webhooks.next_deadline(),
            self.outbox.next_deadline(),
            self.replicas.next_deadline(),
            self.collector.next_deadline(),
            self.growth.next_deadline(self._open.values()) if self._may_grow else None,
            *(owner.next_deadline() for owner in self._open.values()),
        )
        # One that is past by now was none before: this machine did not sleep meanwhile.
        self._asked_for_s = max(deadline.at_s, self._handled_at_s) if deadline else None
        return deadline

    def check(self) -> None:
        """Raises ``InvariantBroken`` where tables disagree; for tests and ``debug``: it reads everything."""
        self.worker.check()
        self.webhooks.check()
        for owner in self.owned.values():
            owner.check()
            if owner.finished == (owner.job in self._open):
                raise InvariantBroken(f"{owner.job}: finished is {owner.finished}, and filed otherwise")
        for seat in self.seats:
            held = Load()
            for owner in self._open.values():
                for lease in (*owner.leases.values(), *owner.speculation.leases.by_task.values()):
                    if lease.node == seat.node:
                        held.add(lease.amounts)
            if held != seat.taken:
                raise InvariantBroken(f"worker {key_text(seat.node)[:10]} holds {held}, counted {seat.taken}")

    # --- events -------------------------------------------------------------------------------------------

    def _dispatch(self, event: SchedulerEvent, now: Instant) -> list[SchedulerEffect]:
        match event:
            case MessageReceived(peer=peer, message=message):
                return self._on_message(peer, message, now)
            case AttemptRunning(job=job, attempt=attempt):
                self.worker.on_running(job, attempt, now)
                return []
            case AttemptFinished(offer=offer):
                stored = self.worker.on_finished(offer, now)
                return [*stored, *self.webhooks.on_ended(offer.job, offer.attempt)]
            case AttemptUnstageable(job=job, attempt=attempt):
                return [*self.worker.on_unstageable(event), *self.webhooks.on_ended(job, attempt)]
            case WebhookReady():
                return self.webhooks.on_ready(event, now)
            case WebhookAnswered():
                return self.webhooks.on_answered(event, now)
            case Delivered():
                return [*self.outbox.on_delivered(event, now), *self._note_told()]
            case CallbackReceived():
                return self.webhooks.on_callback(event, now)
            case JobSignedAnew():
                return self._on_signed_anew(event, now)
            case JobSubmitted():
                return self._on_submitted(event, now)
            case ReplicaFetched():
                return self.replicas.on_fetched(event, now)
            case ReplicaUnfetched():
                return self.replicas.on_unfetched(event, now)
            case JobLearned():
                return self.worker.on_job_learned(event, now)
            case JobRefused():
                return self.worker.on_job_refused(event)
            case CancelAsked(job=job):
                return self._on_cancel_asked(job, now)
            case PauseAsked() | PriorityAsked() | RetryAsked() | DrainAsked() | LinkWanted():
                return self._on_control(event, now)
            case PeersChanged(peers=peers, name=name):
                return [*self._on_peers_changed(peers, now), *self._on_places(peers, name, now)]
            case PeerUp(peer=peer):
                return self._on_peer_up(peer, now)
            case PeerDown(peer=peer):
                self._linked.pop(peer, None)
                self.seats.down(peer, now.mono_s)
                self._choose_victims()
                return []
            case PeerRevoked(peer=peer):
                return self._on_revoked(peer, now)
            case Tick():
                return self._on_tick(now)
        assert_never(event)

    def _on_submitted(self, event: JobSubmitted, now: Instant) -> list[SchedulerEffect]:
        """Owns a new job; the same id again is the same job, whatever came with it."""
        job = event.record.job
        if job in self.owned or job in self.replicas.copies or job in self.collector.gone:
            return []
        accepted_at_us = int(now.unix_s * 1e6)
        founded: list[SchedulerEffect] = []
        if len(event.record.replicas) > 1:
            founded = self.replicas.found(event.record, event.signed, event.digest, now)
        owner = self._own(event.record, event.signed, event.digest, Epoch(1, self.me), accepted_at_us)
        return [*founded, *owner.accept(), *owner.dispatch(now)]

    def _on_cancel_asked(self, job: JobId, now: Instant) -> list[SchedulerEffect]:
        owner = self._open.get(job)
        if owner is None:
            return []
        effects = owner.cancel(now)
        self._close_if_finished(owner)
        return [*effects, *self._dispatch_all(now)]

    def _on_control(self, event: ControlEvent, now: Instant) -> list[SchedulerEffect]:
        """Does what a person asks for; what is not owned here, or has ended, stays as it is."""
        match event:
            case PauseAsked(job=job, paused=paused):
                owner = self._open.get(job)
                return owner.pause(paused, now) if owner is not None else []
            case PriorityAsked(job=job, priority=priority):
                owner = self._open.get(job)
                return owner.prioritise(priority) if owner is not None else []
            case RetryAsked(job=job, tasks=tasks):
                owner = self.owned.get(job)
                effects = owner.retry(tasks, now) if owner is not None else []
                if owner is not None:
                    if not owner.finished:
                        self._open[job] = owner
                        self._share_turns()
                    self._close_if_finished(owner)
                return effects
            case DrainAsked(drained=drained):
                if drained == self.worker.drained:
                    return []
                self._drain(drained)
                self.drain_ticket = self._tickets.take()
                persist = Persist(ticket=self.drain_ticket, changes=(put_drained(drained),))
                return [persist, *self._follow_rights(now)]
            case LinkWanted(peer=peer):
                return [self._capacity(peer)]
        assert_never(event)

    def _drain(self, drained: bool) -> None:
        self.worker.drained = self.seats.of(self.me).drained = drained

    def _on_peers_changed(self, peers: tuple[PeerView, ...], now: Instant) -> list[SchedulerEffect]:
        """Gives away what the newly dead had; waiting for their leases would be right too, and slower."""
        self._peers = peers
        effects = self._follow_rights(now)
        self._choose_victims()
        dead = {peer.node for peer in peers if peer.dead and not peer.linked}
        for node in sorted(dead - self._dead):
            for owner in list(self._open.values()):
                effects += owner.on_dead(node, now)
                self._close_if_finished(owner)
        self._dead = dead
        return effects

    def _follow_rights(self, now: Instant) -> list[SchedulerEffect]:
        """Takes back what was granted to who may not run tasks any more, this very node included."""
        effects: list[SchedulerEffect] = []
        for seat in [one for one in self.seats if one.slots and not self._may_work(one.node)]:
            self.seats.close(seat.node)
            for owner in list(self._open.values()):
                effects += owner.on_revoked(seat.node, now)
                self._close_if_finished(owner)
        drained = self.worker.drained
        accepting = self._accepting and not drained and self._may_work(self.me)
        if accepting == self.worker.accepting:
            return effects
        self.worker.accepting = accepting
        self.seats.offer(self.me, self._own_profile())
        for owner in self._open.values() if accepting else ():
            # What nobody could run, or this node has declined, is looked at again.
            owner.granting.welcome(self.me)
        why = DRAINED if drained else "this node may not run tasks any more"
        effects += [] if accepting else self.worker.decline_queued(why)
        effects += [self._capacity(peer.node) for peer in self._peers if peer.linked]
        return [*effects, *(self._dispatch_all(now) if accepting else ())]

    def _capacity(self, peer: NodeId) -> Send:
        worker = self.worker
        profile = replace(worker.profile, slots=self.quota_of(peer).cap(worker.profile.slots))
        capacity = capacity_of(
            profile, accepting=worker.accepting, boot=self._boot, store=self.replicas.me.store
        )
        return Send(peer=peer, message=msgspec.structs.replace(capacity, drained=worker.drained))

    def _own_profile(self) -> Profile:
        slots = self.quota_of(self.me).cap(self.worker.profile.slots) if self.worker.accepting else 0
        return replace(self.worker.profile, slots=slots)

    def excess_of(self, submitter: NodeId, spec: JobSpec) -> Excess | None:
        """Returns what a new job would bring its submitter above its quota on this node by."""
        return excess_of(submitter, spec, self.quota_of(submitter), self.owned, self.replicas.copies)

    def _on_places(self, peers: tuple[PeerView, ...], name: str, now: Instant) -> list[SchedulerEffect]:
        """Takes note of what nodes are called and where they stand: tasks may ask for that."""
        mine = self.worker.profile
        news = False
        if name and name != mine.name:
            self.worker.profile = replace(mine, name=name)
            news = self.seats.place(self.me, name, mine.region, mine.roles)
        for peer in (one for one in peers if one.linked):
            news |= self.seats.place(peer.node, peer.name, peer.region, peer.roles)
        if not news:
            return []
        for owner in self._open.values():
            owner.backlog.look_again()
        return self._dispatch_all(now)

    def _on_revoked(self, node: NodeId, now: Instant) -> list[SchedulerEffect]:
        """Leases of a node that was shut out are void both ways: what it runs, and what runs for it."""
        self.seats.down(node, now.mono_s)
        self._choose_victims()
        effects = self.worker.on_revoked(node)
        if node == self.me:
            return effects
        self._shut_out.add(node)
        for owner in list(self._open.values()):
            effects += self._end_if_shut_out(owner, now)
            effects += owner.on_revoked(node, now)
            self._close_if_finished(owner)
        return effects

    def _end_if_shut_out(self, owner: JobOwner, now: Instant) -> list[SchedulerEffect]:
        """Cancels a job whose submitter was shut out: nobody is to run what a stolen machine asked for. One
        whose submitter is merely gone goes on."""
        who = owner.record.submitter
        if who == self.me or owner.finished:
            return []
        # Who was shut out with an invite or an issuer may be a member again.
        if not (self._is_revoked(who) or (who in self._shut_out and not self._may_submit(who))):
            return []
        fields = (("job", owner.job), ("submitter", key_text(who)[:10]))
        note = Note(level="warning", fact="a job is cancelled: its submitter was revoked", fields=fields)
        return [note, *owner.cancel(now, "the job's submitter was revoked")]

    def _on_peer_up(self, peer: NodeId, now: Instant) -> list[SchedulerEffect]:
        """Says what this node holds for the peer, then what it can take: grants come only after that."""
        self._linked[peer] = None
        held = self.worker.on_peer_up(peer, now)
        owned = [
            one
            for job in self._open
            if (copy := self.replicas.copies.get(job)) is not None and copy.leads
            for one in self.replicas.announce(copy, [peer])
        ]
        return [*held, self._capacity(peer), *self.replicas.on_peer_up(peer, now), *owned]

    def _on_tick(self, now: Instant) -> list[SchedulerEffect]:
        effects = [
            *self.worker.tick(now),
            *self.stealing.tick(now),
            *self.webhooks.tick(now),
            *self.outbox.tick(now),
            *self.replicas.tick(now),
        ]
        for owner in list(self._open.values()):
            effects += owner.tick(now)
            self._close_if_finished(owner)
        grown = self.growth.tick(self._open.values(), self.choose_replicas, now) if self._may_grow else []
        return [*effects, *grown, *self.collector.tick(now)]

    @property
    def _may_grow(self) -> bool:
        """Whether there may be replicas for a job that has none."""
        return bool(self.replicas.me.store) and len(self._linked) >= REPLICAS_WANTED - 1

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, peer: NodeId, message: msgspec.Struct, now: Instant) -> list[SchedulerEffect]:
        match message:
            case Grant():
                return self._on_grant(peer, message, now)
            case Offer(job=job):
                return self._on_offer(peer, job, message, now)
            case Ack():
                return self.worker.on_ack(peer, message)
            case Renew():
                return self._on_renew(peer, message, now)
            case Lost(job=job):
                return self._on_lost(peer, job, message, now)
            case Stop():
                return self.worker.on_stop(peer, message)
            case Recall():
                return self.worker.on_recall(peer, message)
            case Unknown(job=job):
                forgotten = message.ended and self.replicas.is_forgotten_elsewhere(peer, job)
                away = self._forget(job, now) if forgotten else []
                return [*self.worker.on_unknown(peer, message), *away]
            case Capacity():
                return self._on_capacity(peer, message, now)
            case StealRequest():
                if not self._may_work(peer):
                    return [Send(peer=peer, message=StealNone())]
                return self.stealing.on_request(peer, message, now)
            case StealNone():
                return self.stealing.on_none(peer, now)
            case Taken():
                return self.stealing.on_taken(peer, message)
            case Owns(job=job, generation=generation, ballot=ballot, digest=digest, size=size):
                if ballot.replica.node != peer:
                    return []
                epoch, blob = Epoch(ballot.counter, peer), Blob(digest, size) if digest else None
                return self.worker.on_owner(peer, job, generation, epoch, now, blob)
            case (
                Prepare()
                | Promise()
                | Accept()
                | Accepted()
                | Denied()
                | RecordWanted()
                | RecordShown()
                | ReplicaReady()
                | ReplicaRefused()
            ):
                copy = self.replicas.copies.get(message.job)
                denial = denial_of(message, self.owned.get(message.job), copy, self.replicas.me)
                if denial is not None:
                    after = copy.acceptor.last_ticket if copy is not None else None
                    return [Send(peer=peer, message=denial, after=after)]
                outdated = is_outdated(copy, peer, message)
                dropped = self._drop_generation(message.job) if outdated else []
                if message.job in self.collector.gone:
                    # To who leads, or wants to: others know themselves, or are told by it.
                    asks = isinstance(message, Prepare | Accept) and peer != self.me
                    return [Send(peer=peer, message=Unknown(job=message.job, ended=True))] if asks else []
                if isinstance(message, Prepare) and self.replicas.is_over_for(peer, message):
                    return [Send(peer=peer, message=Unknown(job=message.job, ended=True))]
                return [*dropped, *self.replicas.on_message(peer, message, now)]
        raise InvariantBroken(f"the scheduler was given a message of another room: {message}")

    def _on_grant(self, peer: NodeId, grant: Grant, now: Instant) -> list[SchedulerEffect]:
        """Takes attempts from the owner that the epoch names, or from a victim that says it is one."""
        if grant.stolen_from is None:
            if peer != grant.owner:
                return []
            if self.worker.knows_unallowed(grant.job, self._may_submit):
                return self.worker.decline(grant, "the job's submitter may not submit jobs")
            return self.worker.on_grant(grant, now)
        if grant.stolen_from != peer or self.worker.knows_unallowed(grant.job, self._may_submit):
            return []
        counter = counter_of_grant(self._seals, grant)
        if counter is None:
            if all(not one.seal for one in grant.tasks):
                # Of an earlier version, which had none: it takes them back.
                return []
            raise PeerFault("it hands on attempts that their owner never granted")
        # A fence is raised by its owner's word alone.
        epoch = self.worker.epoch_of(grant.job, Epoch(counter, grant.owner))
        grant = msgspec.structs.replace(grant, epoch=epoch)
        queued = self.worker.on_grant(grant, now)
        return [*queued, *self.stealing.on_booty(peer, grant, now), *self.worker.claim(grant)]

    def _on_offer(self, peer: NodeId, job: JobId, offer: Offer, now: Instant) -> list[SchedulerEffect]:
        owner = self._owner_for(job, offer.generation, offer.epoch)
        if owner is None:
            return self._refuse(peer, job, offer.generation)
        if offer.node != peer:
            return []
        if not self._may_work(peer):
            # Unanswered, it would be offered for ever.
            return owner.dismiss(peer, offer)
        self.seats.heard(peer, now.mono_s)
        effects = owner.on_offer(peer, bounded_offer(offer, now), now)
        self._close_if_finished(owner)
        for other in self._open.values() if len(self._open) > 1 else ():
            if other is not owner:
                effects += other.refill(peer, now)
        return effects

    def _on_renew(self, peer: NodeId, renew: Renew, now: Instant) -> list[SchedulerEffect]:
        seat = self.seats.of(peer)
        rebooted = bool(seat.boot) and seat.boot != renew.boot
        effects = self._dispatch_all(now) if self.seats.heard(peer, now.mono_s) else []
        named: dict[JobId, Held] = {}
        for held in renew.jobs if self._may_work(peer) else ():
            owner = self._owner_for(held.job, held.generation, held.epoch)
            if owner is not None:
                named[held.job] = held
                effects += owner.on_held(peer, held, now)
            else:
                effects += self._refuse(peer, held.job, held.generation)
        if not renew.whole:
            return effects
        if renew.of is None:
            seat.boot = renew.boot
        for owner in [one for one in self._open.values() if renew.of in (None, one.job)]:
            effects += owner.on_whole(peer, named.get(owner.job), rebooted, now)
            self._close_if_finished(owner)
        return effects

    def _on_lost(self, peer: NodeId, job: JobId, lost: Lost, now: Instant) -> list[SchedulerEffect]:
        owner = self._owner_for(job, lost.generation, lost.epoch)
        if owner is None or owner.finished:
            return []
        effects = owner.on_lost(peer, lost, now)
        self._close_if_finished(owner)
        return [*effects, *(self._dispatch_all(now) if lost.recalled else ())]

    def _on_capacity(self, peer: NodeId, message: Capacity, now: Instant) -> list[SchedulerEffect]:
        self.seats.heard(peer, now.mono_s)
        seat = self.seats.of(peer)
        if not seat.boot:
            seat.boot = message.boot
        seat.store = message.store[:STORE_BYTES_MAX]
        seat.drained = message.drained
        profile = profile_of(message)
        self.seats.offer(peer, profile if self._may_work(peer) else replace(profile, slots=0))
        self._choose_victims()
        for owner in self._open.values():
            owner.granting.welcome(peer)
        return self._dispatch_all(now)

    def _words_to_self_last(self, effects: list[SchedulerEffect]) -> list[SchedulerEffect]:
        """Orders effects so that none is overtaken by what a word to this very node brings about.

        Such a word may be handled at once, in the middle of the list; a stop in answer to it must not come
        before the start that it ends.
        """
        words: list[SchedulerEffect] = []
        others: list[SchedulerEffect] = []
        for effect in effects:
            own = isinstance(effect, Send) and effect.peer == self.me and effect.after is None
            (words if own else others).append(effect)
        return others + words

    # --- rules --------------------------------------------------------------------------------------------

    def _owner_for(self, job: JobId, generation: int, epoch: Epoch | None) -> JobOwner | None:
        """Returns the job's owner here, unless the word is of another generation or a later owner."""
        owner = self.owned.get(job)
        if owner is None or generation != owner.record.generation:
            return None
        return None if epoch is not None and epoch > owner.epoch else owner

    def _refuse(self, peer: NodeId, job: JobId, generation: int) -> list[SchedulerEffect]:
        """Answers a worker whose job is not owned here, or was adopted by force since; says nothing to newer
        words.
        """
        owner = self.owned.get(job)
        if job in self.collector.gone:
            return [Send(peer=peer, message=Unknown(job=job, ended=True))]
        if owner is None and (copy := self.replicas.copies.get(job)) is not None:
            # Another replica owns it, or will, unless it has ended: nobody needs to own it then.
            return [Send(peer=peer, message=Unknown(job=job, ended=True))] if copy.ended else []
        if owner is None:
            return [Send(peer=peer, message=Unknown(job=job))]
        return owner.refuse(peer) if generation < owner.record.generation else []

    def _own(
        self, record: JobRecord, signed: bytes, digest: Digest, epoch: Epoch, accepted_at_us: int
    ) -> JobOwner:
        owner = self._make_owner(record, signed, digest, epoch, accepted_at_us)
        self.owned[record.job] = self._open[record.job] = owner
        self._turns.come(owner)
        self._share_turns()
        return owner

    def _make_owner(
        self, record: JobRecord, signed: bytes, digest: Digest, epoch: Epoch, accepted_at_us: int
    ) -> JobOwner:
        return JobOwner(
            me=self.me,
            record=record,
            signed=signed,
            digest=digest,
            epoch=epoch,
            tickets=self._tickets,
            seats=self.seats,
            seals=self._seals,
            accepted_at_us=accepted_at_us,
            crash_limit=self._crash_limit,
            may_grant=lambda now: self.replicas.may_grant(record.job, now),
            replicated=record.job in self.replicas.copies,
        )

    # --- replicas -----------------------------------------------------------------------------------------

    def choose_replicas(self, job: JobId) -> tuple[NodeId, ...]:
        """Returns whom the record of a new job is to name as its replicas, this node first."""
        alive = {one.node: one.region for one in self._peers if one.alive and one.node in self._linked}
        return self.replicas.choose(job, alive)

    def _replicate(self, effects: list[SchedulerEffect], now: Instant) -> list[SchedulerEffect]:
        """Lets what replicated jobs want wait for their replicas, and takes up what these bring about."""
        if not self.replicas.copies:
            return effects
        done = self.replicas.translate(effects, now)
        while self.replicas.news:
            copy, news = self.replicas.news.popleft()
            match news:
                case Elected():
                    more = self._take_over(copy, news, now)
                case Deposed():
                    more = self._give_way(copy.job)
                case Chosen():
                    owner = self._open.get(copy.job)
                    more = owner.dispatch(now) if owner is not None else []
                case _:
                    assert_never(news)
            done += self.replicas.translate([*more, *self._take_turns(now)], now)
        self.replicas.forget_void()
        return done

    def _tell_ends(self, now: Instant) -> list[SchedulerEffect]:
        """Tells of jobs that ended, those with replicas once these have the end."""
        told = self.outbox.take_news(
            now,
            owns=lambda owner: self.owned.get(owner.job) is owner,
            is_chosen=self.replicas.is_all_chosen,
        )
        return [*told, *self._note_told()]

    def _note_told(self) -> list[SchedulerEffect]:
        told = [owner for job in self.outbox.take_told() if (owner := self.owned.get(job)) is not None]
        return [effect for owner in told for effect in owner.note_told()]

    def _take_over(self, copy: Copy, elected: Elected, now: Instant) -> list[SchedulerEffect]:
        """Owns a job by what its registers say, as after a restart."""
        taken = takeover_of(copy.record, elected.rows)
        counter = elected.ballot.counter
        row = msgspec.structs.replace(taken.row, epoch=Epoch(counter - 1, self.me))
        effects: list[SchedulerEffect] = self._give_way(copy.job)
        owner = self._own(copy.record, copy.signed, copy.digest, Epoch(counter, self.me), row.accepted_at_us)
        copy.workers = taken.workers
        return [*effects, *self._begin(owner, taken.tasks, row, taken.workers, now)]

    def _begin(
        self,
        owner: JobOwner,
        tasks: Mapping[TaskIndex, TaskRow],
        row: JobRow,
        known: Iterable[NodeId],
        now: Instant,
        *,
        after: Ticket | None = None,
    ) -> list[SchedulerEffect]:
        """Lets an owner begin with what was known of its job, and tells everybody of it once the ticket is
        on disk."""
        # Nobody remembers what owners gave themselves.
        workers = [node for node in (*known, *names_of(owner.record)) if node != self.me]
        effects = owner.restore(tasks.items(), row, workers, now)
        if not owner.finished:
            linked = list(self._linked)
            if now.mono_s - (self.seats.started_at_s or now.mono_s) >= LEASE_S:
                # Who has no link now, the last owner above all, is not waited for; its results are welcome.
                for node in workers:
                    if node not in linked:
                        owner.backlog.heard(node)
            effects += self.replicas.announce_as(
                owner.record, owner.blob, owner.epoch.counter, [*linked, self.me], after=after
            )
            held = self.worker.held_of(owner.job)
            effects += owner.on_held(self.me, held, now) if held is not None else []
            effects += self._end_if_shut_out(owner, now)
            effects += owner.dispatch(now)
            note = Note(
                level="info",
                fact="this node owns a job now",
                fields=(("job", owner.job), ("epoch", str(owner.epoch.counter))),
            )
            effects.append(note)
        self._close_if_finished(owner)
        return [*effects, JobChanged(job=owner.job)]

    def _on_signed_anew(self, event: JobSignedAnew, now: Instant) -> list[SchedulerEffect]:
        """Goes on with an open job under another record: with replicas, or taken by force."""
        record, job = event.record, event.record.job
        owner, copy = self.owned.get(job), self.replicas.copies.get(job)
        if copy is not None and not copy.over and record.generation == copy.record.generation + 1:
            base = base_of_copy(copy)
        elif copy is None and owner is not None and not owner.finished and len(record.replicas) > 1:
            if record.generation != owner.record.generation:
                return []
            base = base_of_owner(owner)
        else:
            return []
        effects = self._give_way(job)
        self.replicas.forget(job)
        counter = base.row.epoch.counter + 1
        if len(record.replicas) > 1:
            rows, workers = base.registers(job)
            effects += self.replicas.found(
                record,
                event.signed,
                event.digest,
                now,
                counter=counter,
                rows=rows,
                workers=workers,
                gone=base.gone,
            )
        else:
            written = (*base.gone, *base.written(job, event.signed))
            effects.append(Persist(ticket=self._tickets.take(), changes=written))
        row = msgspec.structs.replace(base.row, epoch=Epoch(counter - 1, self.me))
        owner = self._own(record, event.signed, event.digest, Epoch(counter, self.me), row.accepted_at_us)
        # Workers go by the new record from here on: who else may own the job, only that one says.
        (ticket, *_) = [one.ticket for one in effects if isinstance(one, Persist)]
        return [*effects, *self._begin(owner, base.tasks, row, base.workers, now, after=ticket)]

    def _drop_generation(self, job: JobId) -> list[SchedulerEffect]:
        """Drops what this node has of a job that was taken by force since."""
        copy = self.replicas.copies[job]
        given = self._give_way(job)
        base = base_of_copy(copy)
        self.replicas.forget(job)
        gone = (Delete(table=Table.JOBS, key=job), *base.gone)
        note = Note(level="warning", fact="a job was taken by force elsewhere", fields=(("job", job),))
        return [*given, Persist(ticket=self._tickets.take(), changes=gone), note]

    def seen(self, job: JobId) -> JobOwner | None:
        """Returns a job as this node's replica has it, for reading alone: its owner may know more. None where
        this node is no replica of it."""
        copy = self.replicas.copies.get(job)
        if copy is None:
            return None
        taken = takeover_of(copy.record, copy.acceptor.rows.values())
        ballot = copy.acceptor.vote.promised
        epoch = Epoch(ballot.counter, ballot.replica.node)
        owner = self._make_owner(copy.record, copy.signed, copy.digest, epoch, taken.row.accepted_at_us)
        owner.recall(taken.tasks.items(), taken.row)
        return owner

    def _give_way(self, job: JobId) -> list[SchedulerEffect]:
        """Stops owning a job. One whose end a quorum never heard of has not ended."""
        owner = self._open.pop(job, None) or self.owned.get(job)
        if owner is None:
            return []
        owner.abandon()
        del self.owned[job]
        self._share_turns()
        return [JobChanged(job=job)]

    def _forget(self, job: JobId, now: Instant) -> list[SchedulerEffect]:
        """Forgets a job that ended while this node was away, by the word of its other replicas."""
        given = self._give_way(job)
        return [*given, *self.collector.forget(job, int(now.unix_s * 1e6), now)]

    def _close_if_finished(self, owner: JobOwner) -> None:
        if owner.finished and self._open.pop(owner.job, None) is not None:
            self._share_turns()
            self.outbox.note_end(owner)

    def _share_turns(self) -> None:
        for owner in self._open.values():
            owner.in_turn = len(self._open) > 1

    def _take_turns(self, now: Instant) -> list[SchedulerEffect]:
        """Grants from all jobs, where one has asked for it that can't decide by itself."""
        if not any(owner.wants_turn for owner in self._open.values()):
            return []
        for owner in self._open.values():
            owner.wants_turn = False
        return self._turns.dispatch(self._open.values(), now)

    def _dispatch_all(self, now: Instant) -> list[SchedulerEffect]:
        return [effect for owner in self._open.values() for effect in owner.dispatch(now)]

    def _choose_victims(self) -> None:
        self.stealing.may_rob(
            one
            for one in self._peers
            if one.linked and (seat := self.seats.get(one.node)) is not None and seat.linked and seat.slots
        )

"""The worker: a line of granted attempts, as many running as this node's resources allow, results offered
until acknowledged.

Granted attempts are started from the front of the line and stolen from its end (the deque of Blumofe and
Leiserson, "Scheduling multithreaded computations by work stealing", JACM 1999, in breadth-first order here:
the graph is the owner's). ``fairness`` says who is in front.

A result for another node's job is journalled before it is offered, and forgotten once acknowledged, however
often links, owner or this agent are started again in between. A result for this node's own job is not written
twice: its owner's commit is in the same journal. The worker goes on when the owner is out of reach, and
believes a word about a job only from the node that its (generation, epoch) names, and only if no later pair
was heard.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable

import msgspec

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Change, Note, Persist, Send, TicketCounter
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import JobId, NodeId, key_text
from meshpeer.core.scheduler.fairness import LOOK_MAX, Lineup
from meshpeer.core.scheduler.fitting import (
    CPU,
    MEMORY,
    PLAIN,
    Amounts,
    Demand,
    Load,
    Profile,
    can_run,
    fits_beside,
    oversubscribed,
)
from meshpeer.core.scheduler.holdings import Holding, Known, held_of, owners_of, renewals, webhook_row
from meshpeer.core.scheduler.messages import (
    ATTEMPTS_MAX,
    REASON_LENGTH_MAX,
    SLOTS_MAX,
    Ack,
    Attempt,
    AttemptUnstageable,
    Blob,
    Epoch,
    FetchJob,
    Grant,
    Held,
    JobLearned,
    JobRefused,
    Lost,
    Offer,
    Recall,
    SchedulerEffect,
    StartAttempt,
    Stop,
    StopAttempt,
    Unknown,
)
from meshpeer.core.scheduler.offers import Dice, Key, Offering, Offers
from meshpeer.core.scheduler.quotas import QuotaOf, boundless
from meshpeer.core.scheduler.rows import ResultRow, WebhookRow, delete_result, put_result
from meshpeer.core.scheduler.tables import AttemptState

RENEW_S = 5.0
"""A third of a lease: two renewals may be lost."""
TELL_S = 0.25
"""An attempt that runs this long is told to its owner, for people who watch; shorter ones never cost a
message.
"""
OVERTAKES_LEAST = 4
"""How often an attempt that does not fit is overtaken, before its room is kept for it: once per slot, or this
often."""
UNFIT = "this node can't run it, or may not: it asks for more, or for another place"
HOLDINGS_MAX = 10_000
"""Attempts that a worker has at once, of all owners; more are declined."""
DRAINED = "this node is drained"
SATED_MAX = 64
"""Submitters that a thief names which are to bring it nothing."""
JOBS_KNOWN_MAX = 256
"""Jobs whose records are kept for the next grant while nothing of them is held."""


class JobWorker:
    """Everything that this node runs for anybody. Sans-IO."""

    def __init__(
        self,
        *,
        me: NodeId,
        profile: Profile,
        accepting: bool,
        boot: bytes,
        tickets: TicketCounter,
        dice: Dice,
        quota_of: QuotaOf = boundless,
    ) -> None:
        self.me = me
        self._quota_of = quota_of
        self._slots_of: collections.Counter[NodeId] = collections.Counter()
        """Slots that attempts of each submitter take."""
        self.profile = profile
        """What this node has, is called, and where it stands."""
        self.accepting = accepting and profile.slots > 0
        self.drained = False
        """It takes no work because somebody said so; what it has goes on."""
        self.offers = Offers(dice)
        self._boot = boot
        self._tickets = tickets
        self._line = Lineup(self._is_queued, max(OVERTAKES_LEAST, profile.slots))
        """Queued attempts of known jobs."""
        self._unlearned: dict[JobId, list[Holding]] = {}
        self._held: dict[Key, Holding] = {}
        self._jobs: dict[JobId, Known] = {}
        self._used = Load()
        """What running attempts take."""
        self._queued = 0
        self._queued_cpu = 0
        """Slots that those of the queued will take that ask for nothing else: none of them waits while a slot
        is idle."""
        self._renew_at_s: float | None = None
        self._tell_at_s: float | None = None

    # --- reading ------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        return self.profile.slots

    @property
    def idle_slots(self) -> int:
        """Slots that neither run nor have queued work to run."""
        return max(0, self.slots - self._used.cpu - self._queued_cpu + self._held_back())

    @property
    def sated(self) -> tuple[NodeId, ...]:
        """Submitters of whose tasks this node has as many as it may run at once, or more."""
        return tuple(
            submitter
            for submitter, cpu in sorted(self._cpu_by_submitter().items())
            if cpu >= self._quota_of(submitter).cap(SLOTS_MAX)
        )[:SATED_MAX]

    def _held_back(self) -> int:
        """Returns the slots that queued attempts will not take by now, since their submitters have what they
        may have of this node."""
        taken = self._cpu_by_submitter() if self._queued_cpu else {}
        return sum(
            max(0, min(self._queued_cpu, cpu - self._quota_of(submitter).cap(cpu)))
            for submitter, cpu in taken.items()
        )

    def _cpu_by_submitter(self) -> dict[NodeId, int]:
        """Returns what runs and is queued of each submitter, in slots; nothing where there are no quotas."""
        if self._quota_of is boundless:
            return {}
        taken = collections.Counter(self._slots_of)
        for one in self._held.values():
            if one.submitter is not None and self._is_queued(one):
                taken[one.submitter] += one.demand.cpu
        return taken

    @property
    def free(self) -> Amounts:
        """What is idle of everything but slots."""
        names = (
            *((MEMORY,) if self.profile.memory_bytes else ()),
            *(name for name, _ in self.profile.resources),
        )
        return tuple((name, (self.profile.total(name) or 0) - self._used.taken(name)) for name in names)

    @property
    def queued(self) -> int:
        """Attempts that wait here for a slot."""
        return self._queued

    @property
    def busy(self) -> int:
        """Slots in use."""
        return self._used.cpu

    @property
    def wait_s(self) -> float | None:
        """How long the last in line will wait for a slot; None while nobody knows how long tasks take."""
        return self._line.wait_s(self.slots)

    @property
    def active(self) -> int:
        """Attempts that are staged or run."""
        return sum(one.state in (AttemptState.STAGING, AttemptState.RUNNING) for one in self._held.values())

    @property
    def unacknowledged(self) -> int:
        return len(self.offers)

    # --- grants -------------------------------------------------------------------------------------------

    def on_grant(self, grant: Grant, now: Instant) -> list[SchedulerEffect]:
        """Queues what is new; what is held or finished already stands as it is."""
        effects = self._hear(grant.job, grant.generation, grant.epoch)
        if effects is None:
            return self._contest(grant)
        known = self._jobs[grant.job]
        if known.blob is None:
            known.blob = grant.record
        if known.blob != grant.record:
            if grant.stolen_from is not None:
                return effects
            # Its owner has the record signed anew: with replicas, as members came.
            if known.record is None:
                known.blob = grant.record
            else:
                effects += self._seek(grant.job, known, grant.record, (grant.epoch.node,))
        refusal = "" if self.accepting else DRAINED if self.drained else "this node takes no work"
        if not refusal and len(self._held) + len(grant.tasks) > HOLDINGS_MAX:
            refusal = f"this node has {HOLDINGS_MAX} attempts already"
        if refusal:
            return [*effects, *self.decline(grant, refusal)]
        unfit: list[Attempt] = []
        for granted in grant.tasks:
            key = (grant.job, granted.attempt)
            if key in self._held or key in self.offers:
                continue
            if known.record is not None and not self._can_run(known, granted.attempt):
                unfit.append(granted.attempt)
                continue
            holding = Holding(
                grant.job,
                grant.epoch.node,
                granted,
                stolen_from=grant.stolen_from,
                since_s=now.mono_s,
            )
            self._queue(holding, known)
        if unfit:
            effects += self._lost(grant.job, tuple(unfit), UNFIT)
        if known.record is None:
            holders = (grant.epoch.node, *((grant.stolen_from,) if grant.stolen_from else ()))
            effects += self._seek(grant.job, known, grant.record, holders)
        if self._held and self._renew_at_s is None:
            self._renew_at_s = now.mono_s + RENEW_S
        return [*effects, *self._start()]

    def _seek(
        self, job: JobId, known: Known, blob: Blob, holders: tuple[NodeId, ...]
    ) -> list[SchedulerEffect]:
        """Fetches a record, unless it is known or on its way; the answer to any other is ignored then."""
        if blob == known.sought or (known.record is not None and blob == known.blob):
            return []
        known.sought, known.claim = blob, None
        return [FetchJob(job=job, record=blob, holders=holders)]

    def _examine(self, job: JobId, generation: int, epoch: Epoch, blob: Blob | None) -> list[SchedulerEffect]:
        """Fetches the record of who owns a job by his own word, where the one that is known does not name
        him: it may have been signed anew. What its owner shows goes first."""
        known = self._jobs.get(job)
        if known is None or known.record is None or known.sought is not None or blob in (None, known.blob):
            return []
        if generation != known.generation or epoch <= known.epoch or epoch.node in known.possible_owners:
            return []
        assert blob is not None
        effects = self._seek(job, known, blob, (epoch.node,))
        known.claim = (generation, epoch)
        return effects

    def on_job_learned(self, event: JobLearned, now: Instant) -> list[SchedulerEffect]:
        """Queues what waited for the record; gives back what this node can't or may not run."""
        job, record = event.job, event.record
        known = self._jobs.get(job)
        if known is not None and event.blob is not None and event.blob != known.sought:
            # Another is on its way in its place.
            return []
        waiting = self._unlearned.pop(job, [])
        if known is None:
            return []
        if known.learn(job, record):
            known.blob = known.sought or known.blob
        elif known.claim is not None:
            known.sought = known.claim = None
            return []
        else:
            self._unlearned[job] = waiting
            fields = (("job", job), ("node", key_text(known.epoch.node)[:10]))
            usurped = Note(level="warning", fact="a node gives away a job that is not its own", fields=fields)
            reason = "the record is not of this job, owner and generation"
            return [usurped, *self.on_job_refused(JobRefused(job=job, reason=reason))]
        claim, known.sought, known.claim = known.claim, None, None
        unfit: list[Attempt] = []
        for holding in waiting:
            if self._held.get(holding.key) is not holding:
                continue
            self._unqueue(holding)
            if self._can_run(known, holding.granted.attempt):
                self._line_up(holding, known)
            else:
                self._forget(holding, AttemptState.LOST)
                unfit.append(holding.granted.attempt)
        effects: list[SchedulerEffect] = []
        if unfit:
            effects += self._lost(job, tuple(unfit), UNFIT)
        if claim is not None:
            effects += self.on_owner(claim[1].node, job, *claim, now)
        return [*effects, *self._start()]

    def on_job_refused(self, event: JobRefused) -> list[SchedulerEffect]:
        """Gives all of the job back that waits for its record; the next grant, or word of its owner, asks for
        that again, since rules change."""
        job, reason = event.job, event.reason
        known = self._jobs.get(job)
        if known is not None and event.blob is not None and event.blob != known.sought:
            return []
        waiting = [one for one in self._unlearned.pop(job, []) if self._held.get(one.key) is one]
        if known is None:
            return []
        known.sought = known.claim = None
        for holding in waiting:
            self._unqueue(holding)
            self._forget(holding, AttemptState.LOST)
        declined = tuple(one.granted.attempt for one in waiting)
        effects = self._lost(job, declined, reason, declined=True) if declined else []
        if known.record is None and not known.held and not self.offers.has_any_of(job):
            # Nor does its fence stand: whoever made it up must not keep the job's owner out.
            del self._jobs[job]
        return effects

    def decline(self, grant: Grant, reason: str) -> list[SchedulerEffect]:
        """Gives a whole grant back, and takes no more of its job for a while."""
        attempts = tuple(granted.attempt for granted in grant.tasks)
        return self._lost(grant.job, attempts, reason, declined=True)

    def decline_queued(self, reason: str) -> list[SchedulerEffect]:
        """Gives back all that waits here for a slot; what runs goes on."""
        queued = self._unqueue_all(list(self._held.values()))
        self._unlearned.clear()
        return [
            effect
            for job, attempts in queued.items()
            for effect in self._lost(job, tuple(attempts), reason, declined=True)
        ]

    def _unqueue_all(self, holdings: Iterable[Holding]) -> dict[JobId, list[Attempt]]:
        """Forgets those that wait here for a slot; returns them by job."""
        queued: dict[JobId, list[Attempt]] = {}
        for holding in holdings:
            if self._is_queued(holding):
                self._unqueue(holding)
                self._forget(holding, AttemptState.LOST)
                queued.setdefault(holding.job, []).append(holding.granted.attempt)
        return queued

    def knows_unallowed(self, job: JobId, may_submit: Callable[[NodeId], bool]) -> bool:
        """Says whether a job is known here whose submitter may not submit any more."""
        known = self._jobs.get(job)
        return known is not None and known.record is not None and not may_submit(known.record.submitter)

    def epoch_of(self, job: JobId, told: Epoch) -> Epoch:
        """Returns the epoch that a word about a job counts in, where not its owner but another brings it:
        never a higher one than its owner said itself."""
        known = self._jobs.get(job)
        return known.epoch if known is not None and known.epoch.node == told.node else told

    def _contest(self, grant: Grant) -> list[SchedulerEffect]:
        """Answers a grant whose job somebody else calls his, as long as the record does not tell whose it
        is, or another one is shown: this worker is asked again when it is known."""
        known = self._jobs.get(grant.job)
        if known is None or known.epoch.node == grant.owner:
            return []
        effects: list[SchedulerEffect] = []
        if known.record is not None:
            effects += self._examine(
                grant.job,
                grant.generation,
                grant.epoch,
                grant.record if grant.stolen_from is None else None,
            )
            if known.claim != (grant.generation, grant.epoch):
                return []
        attempts = tuple(granted.attempt for granted in grant.tasks)
        lost = Lost(
            job=grant.job,
            generation=grant.generation,
            epoch=grant.epoch,
            attempts=attempts,
            reason="another node says that it owns this job",
        )
        return [*effects, Send(peer=grant.owner, message=lost)]

    def has(self, job: JobId, attempt: Attempt) -> bool:
        return (job, attempt) in self._held or (job, attempt) in self.offers

    def has_any_of(self, job: JobId) -> bool:
        """Says whether this worker has attempts, or unacknowledged results, of a job."""
        known = self._jobs.get(job)
        return self.offers.has_any_of(job) or (known is not None and known.held > 0)

    def owner_of(self, job: JobId, attempt: Attempt) -> NodeId | None:
        """Returns whom an attempt runs, or waits, here for; None where this worker has it no more."""
        holding = self._held.get((job, attempt))
        return holding.owner if holding is not None else None

    # --- thieves ------------------------------------------------------------------------------------------

    def give(self, count: int, wanted: Callable[[Holding, Known], bool]) -> list[tuple[Holding, Known]]:
        """Takes up to ``count`` queued attempts that are ``wanted`` off the end of the line for a thief.

        They stay with this worker, unqueued, until ``given_up`` or ``take_back``.
        """
        given: list[tuple[Holding, Known]] = []
        for holding in self._line.latest(count + LOOK_MAX):
            known = self._jobs[holding.job]
            if not holding.given and not holding.inherited and wanted(holding, known):
                self._unqueue(holding)
                holding.given = True
                given.append((holding, known))
                if len(given) >= count:
                    break
        given.reverse()
        return given

    def given_up(self, key: Key) -> None:
        """The thief has it: it is this worker's no more."""
        holding = self._held.get(key)
        if holding is not None and holding.given:
            self._forget(holding, AttemptState.LOST)

    def take_back(self, key: Key) -> list[SchedulerEffect]:
        """Queues again what a thief did not take up."""
        holding = self._held.get(key)
        if holding is None or not holding.given:
            return []
        holding.given = False
        known = self._jobs[holding.job]
        if known.record is None:
            self._wait_for_record(holding)
            if known.blob is None or known.sought is not None:
                return []
            return self._seek(holding.job, known, known.blob, (holding.owner,))
        self._line_up(holding, known)
        return self._start()

    def claim(self, grant: Grant) -> list[SchedulerEffect]:
        """Tells the owner who has stolen attempts now."""
        mine = [
            holding
            for granted in grant.tasks
            if (holding := self._held.get((grant.job, granted.attempt))) is not None
        ]
        return renewals(self._boot, grant.owner, mine, (), self._jobs) if mine else []

    # --- running ------------------------------------------------------------------------------------------

    def on_running(self, job: JobId, attempt: Attempt, now: Instant) -> None:
        holding = self._held.get((job, attempt))
        if holding is not None and holding.state is AttemptState.STAGING:
            holding.move(AttemptState.RUNNING)
            if self._tell_at_s is None:
                self._tell_at_s = now.mono_s + TELL_S

    def on_finished(self, offer: Offer, now: Instant) -> list[SchedulerEffect]:
        """Stores the result, then offers it; the slot is free at once."""
        holding = self._held.get((offer.job, offer.attempt))
        if holding is None or holding.state not in (AttemptState.STAGING, AttemptState.RUNNING):
            return []
        self._use(holding, -1)
        self._line.settle(holding, max(0, offer.finished_us - offer.started_us) / 1e6)
        self._forget(holding, AttemptState.STORED)
        known = self._jobs[offer.job]
        offer = msgspec.structs.replace(
            offer,
            error=offer.error[:REASON_LENGTH_MAX],
            generation=known.generation,
            epoch=known.epoch,
            node=self.me,
            seal=holding.granted.seal if holding.stolen_from else b"",
        )
        record = self._jobs[holding.job].record
        owners = owners_of(record) if record is not None and record.replicas else ()
        row = ResultRow(owner=holding.owner, offer=offer, owners=owners)
        self.offers.add(row, now.mono_s)
        started = self._start()
        if holding.owner == self.me:
            return [*started, Send(peer=self.me, message=offer)]
        ticket = self._tickets.take()
        persist = Persist(ticket=ticket, changes=(put_result(row),))
        return [*started, persist, Send(peer=holding.owner, message=offer, after=ticket)]

    def on_unstageable(self, event: AttemptUnstageable) -> list[SchedulerEffect]:
        holding = self._held.get((event.job, event.attempt))
        if holding is None or holding.state not in (AttemptState.STAGING, AttemptState.RUNNING):
            return []
        self._use(holding, -1)
        self._forget(holding, AttemptState.LOST)
        lost = self._lost(event.job, (event.attempt,), event.reason, missing=event.missing)
        return [*lost, *self._start()]

    def on_stop(self, peer: NodeId, message: Stop) -> list[SchedulerEffect]:
        """Drops what is queued and ends what runs. Stored results stay: only an acknowledgement ends them."""
        effects = self._hear(message.job, message.generation, message.epoch, only_from=peer)
        if effects is None:
            return []
        if message.attempts:
            found = [self._held.get((message.job, attempt)) for attempt in message.attempts]
            stopped = [one for one in found if one is not None]
        else:
            stopped = [one for one in self._held.values() if one.job == message.job]
        return [*effects, *self._stop_all(stopped), *self._start()]

    def on_recall(self, peer: NodeId, message: Recall) -> list[SchedulerEffect]:
        """Gives back what still waits here for a slot."""
        effects = self._hear(message.job, message.generation, message.epoch, only_from=peer)
        if effects is None:
            return []
        found = [self._held.get((message.job, attempt)) for attempt in message.attempts]
        back = self._unqueue_all([one for one in found if one is not None])
        for job, attempts in back.items():
            effects += self._lost(job, tuple(attempts), "recalled", recalled=True)
        return [*effects, *self._start()]

    def on_ack(self, peer: NodeId, message: Ack) -> list[SchedulerEffect]:
        """Forgets the result: its owner has it, or another, for good."""
        effects = self._hear(message.job, message.generation, message.epoch, only_from=peer)
        if effects is None:
            return []
        offering = self.offers.forget((message.job, message.attempt))
        if offering is None:
            return effects
        self._forget_old_jobs()
        return [*effects, *self._delete([offering])]

    def on_unknown(self, peer: NodeId, message: Unknown) -> list[SchedulerEffect]:
        """Ends everything of a job that its owner does not know, with one replica nobody else can, or whose
        end a replica knows."""
        known = self._jobs.get(message.job)
        if known is None:
            return []
        if message.ended and peer in known.possible_owners:
            if not self.has_any_of(message.job):
                return []
            return [*self._drop_job(message.job, "a job has ended without this node"), *self._start()]
        # With replicas its disk was wiped, perhaps; another one takes the job over and asks.
        if known.epoch.node != peer or (known.record is not None and len(known.record.replicas) > 1):
            return []
        return [*self._drop_job(message.job, "a job's owner does not know it any more"), *self._start()]

    def on_revoked(self, node: NodeId) -> list[SchedulerEffect]:
        """Ends everything of the jobs that a node owned or submitted which was shut out; of all but its own
        where this is that node."""
        effects: list[SchedulerEffect] = []
        for job, known in self._jobs.items():
            gone = known.epoch.node != self.me if node == self.me else known.epoch.node == node
            record = known.record
            theirs = node != self.me and record is not None and record.submitter == node
            # Another replica takes over what has some, if only to end it where its submitter was shut out.
            kept = node != self.me and record is not None and len(record.replicas) > 1
            if (theirs or (gone and not kept)) and (known.held or self.offers.has_any_of(job)):
                who = "submitter" if theirs else "owner"
                effects += self._drop_job(job, f"a job's {who} was revoked")
        return [*effects, *self._start()]

    def _drop_job(self, job: JobId, why: str) -> list[SchedulerEffect]:
        dropped = self.offers.forget_job(job)
        stopped = self._stop_all([one for one in self._held.values() if one.job == job])
        fields = (("job", job), ("results", str(len(dropped))))
        return [Note(level="warning", fact=why, fields=fields), *self._delete(dropped), *stopped]

    # --- links and time -----------------------------------------------------------------------------------

    def restore(self, rows: Iterable[ResultRow], now: Instant) -> None:
        """Takes up the results that were not acknowledged when the agent stopped."""
        for row in rows:
            offer = row.offer
            epoch = offer.epoch or Epoch(0, row.owner)
            self._jobs.setdefault(offer.job, Known(offer.generation, epoch, None, owners=row.owners))
            self.offers.add(row, now.mono_s)

    def restore_given(self, grant: Grant, now: Instant) -> None:
        """Takes up an attempt that was being handed over when the agent stopped; ``take_back`` or a thief
        ends it.
        """
        known = self._jobs.setdefault(grant.job, Known(grant.generation, grant.epoch, grant.record))
        known.blob = known.blob or grant.record
        for granted in grant.tasks:
            holding = Holding(grant.job, grant.owner, granted, given=True, stolen_from=grant.stolen_from)
            if holding.key not in self.offers:
                self._held[holding.key] = holding
                known.held += 1
        self._renew_at_s = now.mono_s + RENEW_S

    def describe(self, job: JobId, attempt: Attempt, now: Instant) -> WebhookRow | None:
        """Returns a running attempt as a row that says all it takes to have it again after a restart."""
        holding, known = self._held.get((job, attempt)), self._jobs.get(job)
        if holding is None or holding.state is not AttemptState.RUNNING or known is None or not known.blob:
            return None
        return webhook_row(holding, known, int(now.unix_s * 1e6))

    def restore_running(self, row: WebhookRow, now: Instant) -> bool:
        """Takes up an attempt that goes on without this agent; False where there is no slot for it."""
        demand = Demand(row.amounts or ((CPU, row.cpu),))
        if not (self.accepting or self.drained) or not fits_beside(demand.amounts, self.profile, self._used):
            return False
        known = self._jobs.setdefault(row.job, Known(row.generation, row.epoch, row.record))
        known.blob = known.blob or row.record
        holding = Holding(
            row.job,
            row.owner,
            row.granted,
            demand=demand,
            state=AttemptState.RUNNING,
            stolen_from=row.stolen_from,
        )
        self._held[holding.key] = holding
        known.held += 1
        self._used.add(demand.amounts)
        self._renew_at_s = now.mono_s + RENEW_S
        return True

    def held_of(self, job: JobId) -> Held | None:
        """Returns what this node has of one of its own jobs; None for nothing."""
        mine = [one for one in self._held.values() if one.job == job and one.owner == self.me]
        return held_of(job, self._jobs[job], mine) if mine else None

    def on_peer_up(self, peer: NodeId, now: Instant) -> list[SchedulerEffect]:
        """Offers first, then says all that is held: the peer commits results before it judges leases."""
        effects: list[SchedulerEffect] = [
            self._offer_again(one, now, peer) for one in list(self.offers.for_possible_owner(peer))
        ]
        mine = [one for one in self._held.values() if one.owner == peer]
        offered = list(self.offers.for_owner(peer))
        return [*effects, *renewals(self._boot, peer, mine, offered, self._jobs, whole=True)]

    def on_owner(
        self,
        peer: NodeId,
        job: JobId,
        generation: int,
        epoch: Epoch,
        now: Instant,
        blob: Blob | None = None,
    ) -> list[SchedulerEffect]:
        """Turns to a job's new owner: offers it what ended, and tells it all that is held of that job. Takes
        up the record that it goes by, which says who may own the job after it."""
        known = self._jobs.get(job)
        fence = known.fence if known is not None else None
        effects = self._hear(job, generation, epoch, only_from=peer) if known is not None else []
        if effects is None:
            return self._examine(job, generation, epoch, blob)
        if known is not None and blob is not None:
            effects += self._seek(job, known, blob, (peer,))
        if known is not None and known.fence == fence:
            # Told already, when the link came up.
            return effects
        effects += [
            self._offer_again(one, now)
            for one in list(self.offers.for_owner(peer))
            if one.row.offer.job == job
        ]
        mine = [one for one in self._held.values() if one.owner == peer and one.job == job]
        offered = [one for one in self.offers.for_owner(peer) if one.row.offer.job == job]
        return [*effects, *renewals(self._boot, peer, mine, offered, self._jobs, whole=True, of=job)]

    def tick(self, now: Instant) -> list[SchedulerEffect]:
        effects: list[SchedulerEffect] = [
            self._offer_again(one, now) for one in self.offers.take_due(now.mono_s)
        ]
        if self._renew_at_s is not None and now.mono_s >= self._renew_at_s:
            self._renew_at_s = now.mono_s + RENEW_S if self._held else None
            effects += self._renew(self._owners(lambda one: True))
        elif self._tell_at_s is not None and now.mono_s >= self._tell_at_s:
            self._tell_at_s = None
            effects += self._renew(
                self._owners(lambda one: one.state is AttemptState.RUNNING and not one.told)
            )
        return effects

    def next_deadline(self) -> Deadline | None:
        return earliest(
            self.offers.next_deadline(),
            Deadline(self._renew_at_s, "renew leases") if self._renew_at_s is not None else None,
            Deadline(self._tell_at_s, "tell owners what runs") if self._tell_at_s is not None else None,
        )

    # --- the fence ----------------------------------------------------------------------------------------

    def _hear(
        self, job: JobId, generation: int, epoch: Epoch, *, only_from: NodeId | None = None
    ) -> list[SchedulerEffect] | None:
        """Judges a word about a job: None for one to ignore, else what a newer owner brings about."""
        if only_from is not None and only_from != epoch.node:
            return None
        known = self._jobs.get(job)
        if known is None:
            if only_from is None:
                self._jobs[job] = Known(generation, epoch, None)
                self._forget_old_jobs()
            return []
        # Of a later generation only the fence may be known, from an owner of an earlier version, which shows
        # no record: whoever speaks next is as good as who spoke first.
        blank = known.is_blank and not self.offers.has_any_of(job) and (generation, epoch) > known.fence
        if not blank and not known.believes(generation, epoch):
            return None
        if (generation, epoch) == known.fence:
            return []
        effects: list[SchedulerEffect] = []
        if generation > known.generation:
            # Adopted by force: what ran and what was stored belongs to a job that is no more.
            effects += self._stop_all([one for one in self._held.values() if one.job == job])
            effects += self._delete(self.offers.forget_job(job))
            known.forget_record()
        if epoch.node != known.epoch.node:
            for holding in self._held.values():
                if holding.job == job:
                    holding.owner, holding.inherited = epoch.node, True
            self.offers.retarget(job, epoch.node)
        known.generation, known.epoch = generation, epoch
        return effects

    # --- rules --------------------------------------------------------------------------------------------

    def _start(self) -> list[SchedulerEffect]:
        """Starts who is in front, as long as anybody fits what is free."""
        effects: list[SchedulerEffect] = []
        while self._queued and self._used.cpu < self.slots:
            holding = self._line.take(self._fits, self._within_quota)
            if holding is None:
                break
            self._unqueue(holding)
            known = self._jobs[holding.job]
            if known.record is None or known.graph is None:
                raise InvariantBroken(f"{holding.key} is in line without its job's record")
            self._use(holding, 1)
            holding.move(AttemptState.STAGING)
            effects.append(
                StartAttempt(
                    job=holding.job,
                    record=known.record,
                    graph=known.graph,
                    owner=holding.owner,
                    granted=holding.granted,
                )
            )
        return effects

    def _fits(self, demand: Demand, kept: Demand | None) -> bool:
        reserved = dict(kept.amounts) if kept is not None else None
        return fits_beside(demand.amounts, self.profile, self._used, reserved=reserved)

    def _within_quota(self, submitter: NodeId, demand: Demand) -> bool:
        if self._quota_of is boundless:
            return True
        most = self._quota_of(submitter).slots
        return not most or self._slots_of[submitter] + demand.cpu <= most

    def _use(self, holding: Holding, sign: int) -> None:
        """Takes what an attempt runs with, or gives it back."""
        self._used.add(holding.demand.amounts, sign)
        if holding.submitter is not None:
            self._slots_of[holding.submitter] += sign * holding.demand.cpu
            if not self._slots_of[holding.submitter]:
                del self._slots_of[holding.submitter]

    def _can_run(self, known: Known, attempt: Attempt) -> bool:
        """Says whether this node, by its own settings, could and may run an attempt."""
        demand = known.demand_of(attempt)
        if demand is None or known.record is None or not can_run(demand, self.profile):
            return False
        return demand.cpu <= self._quota_of(known.record.submitter).cap(demand.cpu)

    def _queue(self, holding: Holding, known: Known) -> None:
        self._held[holding.key] = holding
        known.held += 1
        if known.record is None:
            self._wait_for_record(holding)
        else:
            self._line_up(holding, known)

    def _wait_for_record(self, holding: Holding) -> None:
        self._count(holding, 1)
        self._unlearned.setdefault(holding.job, []).append(holding)

    def _line_up(self, holding: Holding, known: Known) -> None:
        assert known.record is not None
        attempt = holding.granted.attempt
        holding.demand = known.demand_of(attempt) or PLAIN
        self._line.add(holding, known.record.submitter, known.rank_of(attempt))
        self._count(holding, 1)

    def _unqueue(self, holding: Holding) -> None:
        self._count(holding, -1)

    def _count(self, holding: Holding, sign: int) -> None:
        self._queued += sign
        self._queued_cpu += sign * _plain_cpu(holding)

    def _is_queued(self, holding: Holding) -> bool:
        return (
            holding.state is AttemptState.GRANTED
            and not holding.given
            and self._held.get(holding.key) is holding
        )

    def _forget(self, holding: Holding, state: AttemptState) -> None:
        del self._held[holding.key]
        self._jobs[holding.job].held -= 1
        holding.move(state)

    def _stop_all(self, stopped: list[Holding]) -> list[SchedulerEffect]:
        effects: list[SchedulerEffect] = []
        for holding in stopped:
            if holding.state in (AttemptState.STAGING, AttemptState.RUNNING):
                self._use(holding, -1)
                effects.append(StopAttempt(job=holding.job, attempt=holding.granted.attempt))
            elif not holding.given:
                self._unqueue(holding)
            self._forget(holding, AttemptState.STOPPED)
        return effects

    def _delete(self, dropped: list[Offering]) -> list[SchedulerEffect]:
        """Deletes stored results; those of this node's own jobs never had a row of their own."""
        changes: tuple[Change, ...] = tuple(
            delete_result(one.row.offer.job, one.row.offer.attempt)
            for one in dropped
            if one.row.owner != self.me or one.retargeted
        )
        return [Persist(ticket=self._tickets.take(), changes=changes)] if changes else []

    def _offer_again(self, offering: Offering, now: Instant, peer: NodeId | None = None) -> SchedulerEffect:
        to = peer or offering.addressee()
        self.offers.said(offering, now.mono_s)
        return Send(peer=to, message=offering.row.offer)

    def _owners(self, wanted: collections.abc.Callable[[Holding], bool]) -> list[NodeId]:
        return list(dict.fromkeys(one.owner for one in self._held.values() if wanted(one)))

    def _renew(self, owners: list[NodeId]) -> list[SchedulerEffect]:
        by_owner: dict[NodeId, list[Holding]] = {owner: [] for owner in owners}
        for holding in self._held.values():
            if holding.owner in by_owner:
                by_owner[holding.owner].append(holding)
        effects: list[SchedulerEffect] = []
        for owner, mine in by_owner.items():
            offered = [] if owner == self.me else list(self.offers.for_owner(owner))
            effects += renewals(self._boot, owner, mine, offered, self._jobs)
        return effects

    def _lost(
        self,
        job: JobId,
        attempts: tuple[Attempt, ...],
        reason: str,
        *,
        declined: bool = False,
        missing: tuple[int, ...] = (),
        recalled: bool = False,
    ) -> list[SchedulerEffect]:
        known = self._jobs[job]
        return [
            Send(
                peer=known.epoch.node,
                message=Lost(
                    job=job,
                    generation=known.generation,
                    epoch=known.epoch,
                    attempts=attempts[first : first + ATTEMPTS_MAX],
                    reason=reason[:REASON_LENGTH_MAX],
                    declined=declined,
                    missing=missing[:ATTEMPTS_MAX],
                    recalled=recalled,
                ),
            )
            for first in range(0, len(attempts), ATTEMPTS_MAX)
        ]

    def _forget_old_jobs(self) -> None:
        """Drops the records of jobs long done here, oldest first."""
        if len(self._jobs) <= JOBS_KNOWN_MAX:
            return
        idle = [
            job for job, known in self._jobs.items() if not known.held and not self.offers.has_any_of(job)
        ]
        for job in idle[: len(self._jobs) - JOBS_KNOWN_MAX]:
            del self._jobs[job]

    def check(self) -> None:
        """Raises ``InvariantBroken`` where counts and tables disagree or slots are oversubscribed."""
        active = [
            one for one in self._held.values() if one.state in (AttemptState.STAGING, AttemptState.RUNNING)
        ]
        queued = [one for one in self._held.values() if one.state is AttemptState.GRANTED and not one.given]
        used = Load()
        for one in active:
            used.add(one.demand.amounts)
        if used != self._used or oversubscribed(used, self.profile):
            raise InvariantBroken(f"{self._used} of {self.profile} is used by {active}")
        if (self._queued, self._queued_cpu) != (len(queued), sum(map(_plain_cpu, queued))):
            raise InvariantBroken(f"{self._queued} attempts counted as queued, there are {len(queued)}")
        in_line = {one.key for one in self._line.holdings} | {
            one.key for part in self._unlearned.values() for one in part
        }
        if not {one.key for one in queued} <= in_line:
            raise InvariantBroken("a queued attempt is in no line")
        for holding in self._held.values():
            if holding.key in self.offers:
                raise InvariantBroken(f"{holding.key} is held and offered")
        if self._held and self._renew_at_s is None:
            raise InvariantBroken("attempts are held that nobody renews")


def _plain_cpu(holding: Holding) -> int:
    """Returns the slots of an attempt that asks for nothing else."""
    return holding.demand.cpu if len(holding.demand.amounts) == 1 else 0

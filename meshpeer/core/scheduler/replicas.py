"""The replicas of jobs on this node: what each has promised, who leads, when to take over.

Between a job's owner and the world stands what is replicated. The owner writes and speaks as it would alone;
here its rows become registers, and what it says waits until a quorum has the rows that it rests on. A job
with one replica passes through untouched.

A replica that hears nothing from the owner for some seconds, whatever membership thinks, takes the job over;
the ranks of the replicas keep them from doing so at once. A leader replaces a replica that has not answered
for two minutes.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Change, Delete, Note, Persist, Send, Table, TicketCounter
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex, Ticket, key_text
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.consensus.acceptor import Acceptor
from meshpeer.core.scheduler.consensus.leader import WRITE_LEASE_S, Leader
from meshpeer.core.scheduler.consensus.messages import (
    Accept,
    Accepted,
    Chosen,
    ConsensusEffect,
    Denied,
    Deposed,
    Elected,
    Keep,
    Prepare,
    Promise,
    Say,
)
from meshpeer.core.scheduler.consensus.values import (
    REPLICAS_MAX,
    Ballot,
    Membership,
    Replica,
    Row,
    Vote,
)
from meshpeer.core.scheduler.messages import REASON_LENGTH_MAX, Blob, Epoch, JobChanged, SchedulerEffect
from meshpeer.core.scheduler.offers import Dice
from meshpeer.core.scheduler.replica_choice import choose_replicas
from meshpeer.core.scheduler.replica_messages import (
    FetchReplica,
    Owns,
    RecordShown,
    RecordWanted,
    ReplicaFetched,
    ReplicaReady,
    ReplicaRefused,
    ReplicaUnfetched,
)
from meshpeer.core.scheduler.replica_rows import (
    JOB_TASK,
    Journalled,
    Workers,
    changes_of,
    check_rows,
    job_row_of,
    registers_of,
)
from meshpeer.core.scheduler.rows import JobRow, RecordPut, put_record
from meshpeer.core.scheduler.seats import Seats

BEAT_S = 1.0
TAKEOVER_FIRST_S, TAKEOVER_RANK_S, TAKEOVER_JITTER_S = 4.0, 1.5, 0.5
CANDIDATE_S = 3.0
"""A candidate that has read no quorum by then asks again, with a higher ballot."""
REPLACE_S = 120.0
"""A replica that has not answered for this long is replaced, where there is somebody to take its place."""
GROW_AGAIN_S = 600.0
"""Replicas that would not keep a job, or did not answer, are asked again after this long."""
FETCHES_MAX = 64
"""Jobs whose records are fetched at once; more wait to be written to again."""
REFUSED_S = 30.0
"""How long a job that this node will not keep is not looked at again."""
WANTED_MAX = 256
"""Records that were asked for and not shown yet; of more the eldest are asked for again."""
JUDGED_COUNTER_MAX = 2**48
"""No ballot counts this far: who says so is no replica of ours."""

ConsensusMessage = (
    Prepare
    | Promise
    | Accept
    | Accepted
    | Denied
    | RecordWanted
    | RecordShown
    | ReplicaReady
    | ReplicaRefused
)


@dataclass(slots=True)
class Copy:
    """One job of which this node is a replica."""

    record: JobRecord
    signed: bytes
    digest: Digest
    acceptor: Acceptor
    heard_at_s: float
    """When the owner was heard last, or somebody who wants to be it."""
    patience_s: float
    leader: Leader | None = None
    asked_at_s: float = 0.0
    """When this node began to ask for votes."""
    beat_at_s: float = 0.0
    ended: bool = False
    """The job's end is known here."""
    ended_at_us: int = 0
    untold: bool = False
    """Its end is still to be told (``outbox``)."""
    workers: Workers = field(default_factory=dict)
    """Those that the registers name."""
    refused_by: dict[NodeId, str] = field(default_factory=dict)
    """Other replicas that will not keep it, and why."""
    grown_at_s: float = 0.0
    """When others were last to become replicas of a job that had one, or it went on without them."""
    forgotten_by: set[NodeId] = field(default_factory=set)
    """Other replicas that say that it has ended, and that they have forgotten it."""
    held: collections.deque[tuple[int, Send]] = field(default_factory=collections.deque)
    """What waits for a batch to be chosen, in order."""
    tickets: collections.deque[tuple[int, Ticket]] = field(default_factory=collections.deque)
    """Its owner's writes that are not chosen yet, in order."""

    @property
    def job(self) -> JobId:
        return self.record.job

    @property
    def leads(self) -> bool:
        return self.leader is not None and self.leader.is_leading

    @property
    def over(self) -> bool:
        """Whether nobody needs to own the job any more."""
        return self.ended and not self.untold

    @property
    def is_let_go(self) -> bool:
        """Whether this node knows that others are the replicas by now."""
        membership = self.acceptor.vote.membership
        return bool(membership.number) and self.acceptor.me not in membership.everybody

    @property
    def names(self) -> tuple[NodeId, ...]:
        return names_of(self.record)

    def learn_end(self) -> None:
        """Looks at what the job's own row says of its end."""
        row = job_row_of(self.acceptor.rows)
        self.ended_at_us = row.finished_at_us if row is not None else 0
        self.ended = bool(self.ended_at_us)
        self.untold = row is not None and row.untold


News = tuple[Copy, Elected | Deposed | Chosen]


def names_of(record: JobRecord) -> tuple[NodeId, ...]:
    """Returns who may own a job: workers believe nobody else."""
    return (record.submitter, *record.replicas)


class Replicas:
    """Every replica on this node. Sans-IO; ``machine.Scheduler`` calls it and builds the owners."""

    def __init__(
        self, *, me: NodeId, store: bytes, region: str, seats: Seats, tickets: TicketCounter, dice: Dice
    ) -> None:
        self.me = Replica(me, store)
        self.copies: dict[JobId, Copy] = {}
        self.news: collections.deque[News] = collections.deque()
        """What owners have to hear of."""
        self._region = region
        self._seats = seats
        self._tickets = tickets
        self._dice = dice
        self._sequences: dict[Ticket, tuple[Copy, int]] = {}
        """Tickets of owners' writes that are not chosen yet, and the batch that each waits for."""
        self._void: set[Ticket] = set()
        """Tickets of owners' writes that nobody has: what rests on them is never said."""
        self._wanted: dict[tuple[JobId, NodeId], None] = {}
        """Records that were asked for, and of whom, the eldest first: any other is unasked."""
        self._fetching: dict[JobId, NodeId] = {}
        self._refused: dict[JobId, float] = {}
        """Jobs that this node will not keep, and until when it does not look again; the eldest first."""
        self._active: dict[JobId, Copy] = {}
        """Those that have something to wait for: an ended job costs nothing until somebody speaks of it."""

    # --- reading ------------------------------------------------------------------------------------------

    def is_settled(self, ticket: Ticket | None) -> bool:
        """Says whether what was written under a ticket is chosen, as far as it has to be."""
        return ticket is None or ticket not in self._sequences

    def is_all_chosen(self, job: JobId) -> bool:
        """Says whether all that this node's owner of a job knows is chosen, what it took over included."""
        copy = self.copies.get(job)
        if copy is None:
            return True
        return copy.leads and copy.leader is not None and copy.leader.told >= copy.leader.sequence

    def is_idle(self, job: JobId) -> bool:
        """Says whether nothing of a job is under way here: what waits for a time, a quorum or a fetch."""
        copy = self.copies.get(job)
        return job not in self._fetching and (
            copy is None or (self._deadline(copy) is None and not copy.tickets and not copy.held)
        )

    def unchosen(self, job: JobId) -> frozenset[TaskIndex]:
        """Returns the tasks whose last row no quorum is known to have: to others they are as they were."""
        copy = self.copies.get(job)
        if copy is None or not copy.leads or copy.leader is None:
            return frozenset()
        return frozenset(TaskIndex(key[0]) for key in copy.leader.unchosen() if key[0] >= 0)

    def partners(self) -> list[NodeId]:
        """Returns the other replicas of jobs that have not ended: they are to be linked."""
        return sorted(
            {
                one.node
                for copy in self._active.values()
                if not copy.over
                for one in copy.acceptor.vote.membership.everybody
                if one != self.me
            }
        )

    def may_grant(self, job: JobId, now: Instant) -> bool:
        copy = self.copies.get(job)
        return copy is None or (copy.leader is not None and copy.leader.may_grant(now.mono_s))

    def durability(self, job: JobId, now: Instant) -> str:
        """Returns ``this_node``, ``replicated``, or ``blocked`` where a quorum is out of reach."""
        if job not in self.copies:
            return "this_node"
        copy = self.copies[job]
        if copy.leads and self._is_alone(copy):
            return "this_node"
        fine = copy.ended or self.may_grant(job, now)
        if not copy.leads:
            fine = fine or copy.heard_at_s + WRITE_LEASE_S > now.mono_s
        return "replicated" if fine else "blocked"

    def choose(self, job: JobId, alive: Mapping[NodeId, str]) -> tuple[NodeId, ...]:
        """Returns whom a new job's record is to name, this node first; it alone where there are too few.

        ``alive`` are the linked peers that are alive, and their regions.
        """
        if not self.me.store:
            return (self.me.node,)
        able = {node: region for node, region in alive.items() if self._store_of(node)}
        return choose_replicas(job, self.me.node, self._region, able)

    def _store_of(self, node: NodeId) -> bytes:
        seat = self._seats.get(node)
        return seat.store if seat is not None else b""

    # --- start --------------------------------------------------------------------------------------------

    def found(
        self,
        record: JobRecord,
        signed: bytes,
        digest: Digest,
        now: Instant,
        *,
        counter: int = 1,
        rows: Sequence[Row] | None = None,
        workers: Workers | None = None,
        gone: Sequence[Delete] = (),
    ) -> list[SchedulerEffect]:
        """Begins a job, or a generation of one, that was submitted here; its owner's first write is the next
        thing to come.

        ``rows`` is what is known of it here, None for a new one, and ``gone`` what they take the place of in
        this node's journal: all in one write. Where something is known, this node alone is the membership to
        begin with, and a joint change follows at once: no two others could own the job without the rows.
        """
        members = tuple(
            self.me if node == self.me.node else Replica(node, self._store_of(node))
            for node in record.replicas
        )
        ballot = Ballot(counter, self.me)
        membership = Membership(1, members if rows is None else (self.me,))
        copy = self._copy(record, signed, digest, now)
        copy.leader = Leader(
            job=record.job, generation=record.generation, ballot=ballot, membership=membership, told_by=ballot
        )
        copy.beat_at_s = now.mono_s + BEAT_S
        # In one write: of a record without a vote nobody would know after a crash who the replicas are.
        voted = copy.acceptor.found(record.generation, ballot, membership)
        said = copy.leader.found(now.mono_s)
        copy.workers = workers or {}
        if rows is not None:
            copy.grown_at_s = now.mono_s
            copy.leader.rows = {row.key: row.stamped(ballot, 0) for row in rows}
            for one in copy.leader.change(members):
                if isinstance(one, Say) and isinstance(one.message, Accept) and one.to == self.me.node:
                    voted += copy.acceptor.on_accept(self.me.node, one.message)
                else:
                    said.append(one)
        keeps = [one for one in voted if isinstance(one, Keep)]
        said += [one for one in voted if not isinstance(one, Keep)]
        changes = [one for keep in keeps for one in changes_of(copy.job, keep)]
        first = Persist(ticket=keeps[0].ticket, changes=(_put_record(copy), *gone, *changes))
        # What waits for a later one of these writes is answered after it: all that it holds is in the first.
        rest = [Persist(ticket=keep.ticket, changes=()) for keep in keeps[1:]]
        return [first, *rest, *self._perform(copy, said, now)]

    def restore(
        self, record: JobRecord, signed: bytes, digest: Digest, held: Journalled | None, now: Instant
    ) -> list[SchedulerEffect]:
        """Takes up a replica from the journal; leads on at once where it was the one that led.

        A record that was submitted here and that this node never voted for is dropped: nobody knows the
        replicas that it was to have, so it would wait for ever, and so would who submits it again.
        """
        if record.submitter == self.me.node and (held is None or (held.vote == Vote() and not held.rows)):
            gone = Delete(table=Table.JOBS, key=record.job)
            return [Persist(ticket=self._tickets.take(), changes=(gone,))]
        copy = self._copy(record, signed, digest, now, held)
        copy.learn_end()
        if copy.acceptor.vote.promised.replica == self.me:
            return self._campaign(copy, now)
        return []

    def _copy(
        self, record: JobRecord, signed: bytes, digest: Digest, now: Instant, held: Journalled | None = None
    ) -> Copy:
        held = held or Journalled()
        acceptor = Acceptor(job=record.job, me=self.me, tickets=self._tickets, vote=held.vote, rows=held.rows)
        copy = Copy(record, signed, digest, acceptor, now.mono_s, self._patience(acceptor))
        self.copies[record.job] = self._active[record.job] = copy
        return copy

    # --- what an owner wants --------------------------------------------------------------------------------

    def translate(self, effects: Iterable[SchedulerEffect], now: Instant) -> list[SchedulerEffect]:
        """Makes registers of what owners of replicated jobs write, and holds back what rests on them.

        An owner that leads no more writes nothing: its rows would stand in this node's journal as if the job
        had no replicas, and a restart would own it by them.
        """
        done: list[SchedulerEffect] = []
        for effect in effects:
            match effect:
                case Persist(ticket=ticket, changes=changes) if (copy := self._copy_of(changes)) is not None:
                    done.append(Persist(ticket=ticket, changes=()))
                    if copy.leader is None or not copy.leads:
                        self._void.add(ticket)
                        continue
                    rows = registers_of(copy.job, changes, copy.workers)
                    if rows:
                        said = copy.leader.propose(rows)
                        self._sequences[ticket] = (copy, copy.leader.sequence)
                        copy.tickets.append((copy.leader.sequence, ticket))
                        done += self._perform(copy, said, now)
                case Send(after=after) if after is not None and after in self._sequences:
                    copy, sequence = self._sequences[after]
                    copy.held.append((sequence, effect))
                case Send(after=after) if after in self._void:
                    continue
                case _:
                    done.append(effect)
        return done

    def forget_void(self) -> None:
        """All owners that lead no more were told so: none says anything that rests on their lost writes."""
        self._void.clear()

    def _copy_of(self, changes: tuple[Change, ...]) -> Copy | None:
        """Returns the replicated job that an owner here writes a row of."""
        for change in changes:
            if change.table not in (Table.JOBS, Table.TASKS, Table.GRANTS) or isinstance(change, RecordPut):
                return None
            key = change.key.split("/", 2)
            if change.table is Table.GRANTS:
                return self.copies.get(JobId(key[1])) if key[0] == "seat" and len(key) > 1 else None
            return self.copies.get(JobId(key[0]))
        return None

    # --- messages -----------------------------------------------------------------------------------------

    def on_message(self, peer: NodeId, message: ConsensusMessage, now: Instant) -> list[SchedulerEffect]:
        """Takes a word of another replica, or of this very node's."""
        copy = self.copies.get(message.job)
        if copy is not None:
            self._active[message.job] = copy
        said: list[ConsensusEffect] = []
        match message:
            case RecordWanted():
                return self._show(peer, copy)
            case RecordShown():
                return self._fetch(peer, message, copy)
            case Accept() | Prepare() if copy is None:
                if self.me not in message.membership.everybody or message.ballot.replica.node != peer:
                    return []
                return self._want(peer, message.job, now)
            case _ if copy is None or not self._is_party(peer, copy):
                return []
            case Prepare() | Accept():
                return self._on_asked(peer, message, copy, now)
            case ReplicaRefused(reason=reason):
                copy.refused_by[peer] = reason[:REASON_LENGTH_MAX]
                return self._go_back(copy, now)
            case ReplicaReady():
                copy.refused_by.pop(peer, None)
                said = copy.leader.admit(peer) if copy.leader is not None else []
            case Promise():
                check_rows(copy.record, message.rows if peer != self.me.node else ())
                said = self._on_promise(peer, message, copy, now)
            case Accepted():
                said = copy.leader.on_accepted(peer, message) if copy.leader is not None else []
            case Denied():
                said = copy.leader.on_denied(peer, message) if copy.leader is not None else []
        return self._perform(copy, said, now)

    def _on_promise(self, peer: NodeId, message: Promise, copy: Copy, now: Instant) -> list[ConsensusEffect]:
        leader = copy.leader
        if leader is None:
            return []
        before = leader.read
        said = leader.on_promise(peer, message, now.mono_s)
        if leader.read > before:
            # A large job has many pages: as long as they come, asking anew would only lose them.
            copy.asked_at_s = now.mono_s
        return said

    def _on_asked(
        self, peer: NodeId, message: Prepare | Accept, copy: Copy, now: Instant
    ) -> list[SchedulerEffect]:
        """Promises or accepts; gives way where somebody else leads with a higher ballot."""
        ballot = message.ballot
        sane = ballot.replica.node == peer and ballot.counter < JUDGED_COUNTER_MAX
        if not sane or len(message.membership.everybody) > 2 * REPLICAS_MAX:
            return []
        if isinstance(message, Accept) and peer != self.me.node:
            check_rows(copy.record, message.rows)
        before = copy.acceptor.vote
        if isinstance(message, Prepare):
            said = copy.acceptor.on_prepare(peer, message)
        else:
            said = copy.acceptor.on_accept(peer, message)
            if any(row.task == JOB_TASK for row in message.rows):
                copy.learn_end()
        vote = copy.acceptor.vote
        if vote.promised == ballot and peer != self.me.node:
            copy.heard_at_s = now.mono_s
        if vote.promised != before.promised:
            copy.patience_s = self._patience(copy.acceptor)
        effects = self._perform(copy, said, now)
        leader = copy.leader
        if leader is not None and leader.ballot < vote.promised:
            effects += self._perform(copy, leader.give_way(vote.promised), now)
        return effects

    def _is_party(self, peer: NodeId, copy: Copy) -> bool:
        members = copy.acceptor.vote.membership.everybody
        leads = copy.leader.membership.everybody if copy.leader is not None else ()
        return peer in copy.names or any(one.node == peer for one in (*members, *leads))

    def _show(self, peer: NodeId, copy: Copy | None) -> list[SchedulerEffect]:
        if copy is None or not self._is_party(peer, copy):
            return []
        shown = RecordShown(job=copy.job, digest=copy.digest, size=len(copy.signed))
        # Nobody votes without the record, so nobody has heard of a first ballot that a crash takes back.
        return [Send(peer=peer, message=shown, after=copy.acceptor.last_ticket)]

    def _want(self, peer: NodeId, job: JobId, now: Instant) -> list[SchedulerEffect]:
        """Asks who leads a job for its record."""
        if now.mono_s < self._refused.get(job, 0.0):
            return []
        self._wanted.pop((job, peer), None)
        self._wanted[job, peer] = None
        if len(self._wanted) > WANTED_MAX:
            del self._wanted[next(iter(self._wanted))]
        return [Send(peer=peer, message=RecordWanted(job=job))]

    def _fetch(self, peer: NodeId, message: RecordShown, copy: Copy | None) -> list[SchedulerEffect]:
        """Fetches a record that this node asked for: anything else would be kept for whoever wants it so."""
        if (message.job, peer) not in self._wanted:
            return []
        del self._wanted[message.job, peer]
        if copy is not None or message.job in self._fetching or len(self._fetching) >= FETCHES_MAX:
            return []
        self._fetching[message.job] = peer
        return [FetchReplica(job=message.job, digest=message.digest, size=message.size, holder=peer)]

    def on_fetched(self, event: ReplicaFetched, now: Instant) -> list[SchedulerEffect]:
        """Becomes a replica: votes once the record is on disk."""
        asked = self._fetching.pop(event.record.job, None)
        if event.record.job in self.copies or not self.me.store:
            return []
        # Either the record names this node, or who may own the job made it a replica when it wrote to it.
        if event.holder not in names_of(event.record) or (
            self.me.node not in event.record.replicas and asked != event.holder
        ):
            fields = (("job", event.record.job), ("peer", key_text(event.holder)[:10]))
            return [Note(level="warning", fact="a job is none of this node's to keep", fields=fields)]
        copy = self._copy(event.record, event.signed, event.digest, now)
        persist = Persist(ticket=self._tickets.take(), changes=(_put_record(copy),))
        ready = Send(peer=event.holder, message=ReplicaReady(job=copy.job), after=persist.ticket)
        return [persist, ready]

    def on_unfetched(self, event: ReplicaUnfetched, now: Instant) -> list[SchedulerEffect]:
        """Tells who asked why this node keeps no replica of a job."""
        asked = self._fetching.pop(event.job, None)
        fields = (("job", event.job), ("reason", event.reason))
        note = Note(level="warning", fact="a job can't be kept as a replica", fields=fields)
        if asked is None or not event.refused:
            return [note]
        self._refused.pop(event.job, None)
        self._refused[event.job] = now.mono_s + REFUSED_S
        if len(self._refused) > WANTED_MAX:
            del self._refused[next(iter(self._refused))]
        refused = ReplicaRefused(job=event.job, reason=event.reason[:REASON_LENGTH_MAX])
        return [note, Send(peer=asked, message=refused)]

    def on_peer_up(self, peer: NodeId, now: Instant) -> list[SchedulerEffect]:
        """Repeats what a replica may have missed while there was no link."""
        effects: list[SchedulerEffect] = []
        for copy in list(self.copies.values()):
            if copy.leader is None or not self._is_party(peer, copy):
                continue
            effects += self._perform(copy, copy.leader.ask_again(peer), now)
        return effects

    def is_over_for(self, peer: NodeId, message: Prepare) -> bool:
        """Says whether a job has ended whose replica somebody was before he was replaced, and wants to own.

        Told nothing, he would ask for ever: nobody answers him, and nobody writes to him any more.
        """
        copy = self.copies.get(message.job)
        if copy is None or not copy.over or not self._is_party(peer, copy):
            return False
        candidate = message.ballot.replica
        return candidate.node == peer and copy.acceptor.is_stranger(message.generation, candidate)

    def is_forgotten_elsewhere(self, peer: NodeId, job: JobId) -> bool:
        """Takes a replica's word that a job has ended, and is forgotten there or is none of this node's to
        keep any more; says whether that is so.

        It is where a majority says so: this node was away since before the end. One alone may have a clock
        that is far ahead, and a retry may have opened the job again since. Where its end is known here, this
        node's own settings say when it goes.
        """
        copy = self.copies.get(job)
        if copy is None or copy.leads or copy.over or not self._is_party(peer, copy):
            return False
        copy.forgotten_by.add(peer)
        members = copy.acceptor.vote.membership.members
        return sum(one.node in copy.forgotten_by for one in members) * 2 > len(members)

    def forget(self, job: JobId) -> Copy | None:
        """Forgets a job; returns what was known of it here."""
        copy = self.copies.pop(job, None)
        self._active.pop(job, None)
        self._fetching.pop(job, None)
        if copy is not None:
            self._forget_tickets(copy)
        return copy

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> list[SchedulerEffect]:
        effects: list[SchedulerEffect] = []
        for copy in list(self._active.values()):
            deadline = self._deadline(copy)
            if deadline is None and copy.over:
                del self._active[copy.job]
            if deadline is None or deadline.at_s > now.mono_s:
                continue
            if copy.leads and copy.leader is not None:
                copy.beat_at_s = now.mono_s + BEAT_S
                effects += self._perform(copy, copy.leader.beat(now.mono_s), now)
                effects += self._replace_the_silent(copy, now)
                effects += self._go_back(copy, now)
                effects += self._grow_again(copy, now)
            else:
                effects += self._campaign(copy, now)
        return effects

    def next_deadline(self) -> Deadline | None:
        return earliest(*(self._deadline(copy) for copy in self._active.values()))

    def spare(self, now: Instant) -> None:
        """This machine slept: the silence was its own."""
        for copy in self.copies.values():
            copy.heard_at_s = now.mono_s

    def _deadline(self, copy: Copy) -> Deadline | None:
        leader = copy.leader
        if copy.leads and leader is not None:
            # The end is told until all that rests on it is chosen.
            if copy.over and leader.told >= leader.sequence:
                return None
            return Deadline(copy.beat_at_s, "tell replicas that their owner is there")
        if copy.over or not self._may_lead(copy):
            return None
        if leader is not None:
            return Deadline(copy.asked_at_s + CANDIDATE_S, "ask replicas again")
        return Deadline(copy.heard_at_s + copy.patience_s, "take a job over")

    def _may_lead(self, copy: Copy) -> bool:
        """Only who the record names is believed by workers, and only a member gets promises."""
        return self.me.node in copy.names and self.me in copy.acceptor.vote.membership.everybody

    def _patience(self, acceptor: Acceptor) -> float:
        members = acceptor.vote.membership.members
        others = [one for one in members if one != acceptor.vote.promised.replica]
        rank = others.index(self.me) if self.me in others else len(others)
        return TAKEOVER_FIRST_S + TAKEOVER_RANK_S * rank + TAKEOVER_JITTER_S * self._dice.random()

    def _campaign(self, copy: Copy, now: Instant) -> list[SchedulerEffect]:
        vote = copy.acceptor.vote
        counter = max(vote.promised.counter, copy.leader.ballot.counter if copy.leader else 0)
        copy.leader = Leader(
            job=copy.job,
            generation=vote.generation,
            ballot=Ballot(counter + 1, self.me),
            membership=vote.membership,
            told_by=vote.told_by,
        )
        copy.asked_at_s = now.mono_s + TAKEOVER_JITTER_S * self._dice.random()
        return self._perform(copy, copy.leader.start(), now)

    def _replace_the_silent(self, copy: Copy, now: Instant) -> list[SchedulerEffect]:
        """Begins to replace a replica that has not answered for long, its store wiped or its node gone."""
        leader = copy.leader
        if leader is None or leader.membership.old or not leader.may_grant(now.mono_s):
            return []
        members = leader.membership.members
        silent = [
            one for one in members if one != self.me and leader.silent_for_s(one, now.mono_s) >= REPLACE_S
        ]
        kept = tuple(one for one in members if one not in silent[:1])
        linked = {
            seat.node: seat.store
            for seat in self._seats
            if seat.linked
            and seat.store
            # The silent one itself may be linked: in its own place it would be as silent.
            and Replica(seat.node, seat.store) not in members
            and all(one.node != seat.node for one in kept)
        }
        order = choose_replicas(copy.job, self.me.node, self._region, dict.fromkeys(linked, ""), least=1)[1:]
        if not silent or not order:
            return []
        fresh = Replica(order[0], linked[order[0]])
        fields = (
            ("job", copy.job),
            ("gone", key_text(silent[0].node)[:10]),
            ("new", key_text(fresh.node)[:10]),
        )
        note = Note(level="info", fact="a job's replica is replaced", fields=fields)
        return [note, *self._perform(copy, leader.change((*kept, fresh)), now)]

    def _is_alone(self, copy: Copy) -> bool:
        """Says whether a job's record names replicas, and this node is all of them: they would not be any."""
        leader = copy.leader
        return leader is not None and not leader.is_changing and leader.membership.members == (self.me,)

    def _go_back(self, copy: Copy, now: Instant) -> list[SchedulerEffect]:
        """Has a job alone again where too many will not keep it, or do not answer: it would wait for them for
        ever, and it was well before."""
        leader = copy.leader
        if leader is None or not leader.may_go_back:
            return []
        late = now.mono_s >= copy.grown_at_s + REPLACE_S
        members = leader.membership.members
        lost = [
            one
            for one in members
            if one != self.me
            and (one.node in copy.refused_by or (late and leader.silent_for_s(one, now.mono_s) >= REPLACE_S))
        ]
        if (len(members) - len(lost)) * 2 > len(members):
            return []
        copy.grown_at_s = now.mono_s
        note = Note(
            level="warning",
            fact="a job goes on with one replica: too few others keep it",
            fields=(("job", copy.job), *((key_text(one.node)[:10], _why(copy, one)) for one in lost)),
        )
        return [note, *self._perform(copy, leader.go_back(), now)]

    def _grow_again(self, copy: Copy, now: Instant) -> list[SchedulerEffect]:
        """Asks those again whom the record names: quotas have room again, and settings change."""
        leader, names = copy.leader, copy.record.replicas
        if leader is None or copy.over or not self._is_alone(copy) or self.me.node not in names:
            return []
        if now.mono_s < copy.grown_at_s + GROW_AGAIN_S or len(names) < 2:
            return []
        copy.grown_at_s = now.mono_s
        seats = [self._seats.get(node) for node in names if node != self.me.node]
        if any(seat is None or not seat.linked or not seat.store for seat in seats):
            return []
        copy.refused_by.clear()
        others = tuple(Replica(seat.node, seat.store) for seat in seats if seat is not None)
        return self._perform(copy, leader.change((self.me, *others)), now)

    # --- effects --------------------------------------------------------------------------------------------

    def _perform(self, copy: Copy, effects: Iterable[ConsensusEffect], now: Instant) -> list[SchedulerEffect]:
        done: list[SchedulerEffect] = []
        for effect in effects:
            match effect:
                case Keep(ticket=ticket):
                    done.append(Persist(ticket=ticket, changes=changes_of(copy.job, effect)))
                case Say(to=to, message=message, after=after):
                    done.append(Send(peer=to, message=message, after=after))
                case Chosen(sequence=sequence):
                    done += self._release(copy, sequence)
                    self.news.append((copy, effect))
                case Elected():
                    copy.beat_at_s = now.mono_s + BEAT_S
                    copy.workers = {}
                    self.news.append((copy, effect))
                case Deposed():
                    self._forget_tickets(copy)
                    copy.leader, copy.heard_at_s = None, now.mono_s
                    self.news.append((copy, effect))
        return done

    def _release(self, copy: Copy, sequence: int) -> list[SchedulerEffect]:
        """Lets out what waited for batches up to this one."""
        while copy.tickets and copy.tickets[0][0] <= sequence:
            del self._sequences[copy.tickets.popleft()[1]]
        done: list[SchedulerEffect] = []
        while copy.held and copy.held[0][0] <= sequence:
            done.append(replace(copy.held.popleft()[1], after=None))
        return [*done, JobChanged(job=copy.job)]

    def _forget_tickets(self, copy: Copy) -> None:
        copy.held.clear()
        while copy.tickets:
            ticket = copy.tickets.popleft()[1]
            del self._sequences[ticket]
            self._void.add(ticket)

    def announce(self, copy: Copy, peers: Iterable[NodeId]) -> list[SchedulerEffect]:
        """Tells everybody who owns the job now."""
        assert copy.leader is not None
        blob = Blob(copy.digest, len(copy.signed))
        return self.announce_as(copy.record, blob, copy.leader.ballot.counter, peers)

    def announce_as(
        self,
        record: JobRecord,
        blob: Blob,
        counter: int,
        peers: Iterable[NodeId],
        *,
        after: Ticket | None = None,
    ) -> list[SchedulerEffect]:
        """Tells everybody that this node owns a job, with an epoch of this counter, once the ticket is on
        disk."""
        owns = Owns(
            job=record.job,
            generation=record.generation,
            ballot=Ballot(counter, self.me),
            digest=blob.digest,
            size=blob.size,
        )
        return [Send(peer=peer, message=owns, after=after) for peer in peers]


def _why(copy: Copy, replica: Replica) -> str:
    return copy.refused_by.get(replica.node, "it does not answer")


def _put_record(copy: Copy) -> Change:
    row = JobRow(
        signed=copy.signed,
        epoch=Epoch(0, copy.record.submitter),
        accepted_at_us=copy.record.submitted_at_us,
        replicated=True,
    )
    return put_record(copy.job, row)

"""Many schedulers in one virtual world: links with latency, loss and reordering, disks, slots, crashes.

One seed fixes everything that happens. The world checks as it runs: every frame fits, no slot is taken twice,
one result per (task, round) reaches the disk, and nothing is acknowledged that is not there.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Delete, Note, Persist, Put, Send, Table, Tick, TicketCounter
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex
from meshpeer.core.jobs.model import Array, JobRecord, JobSpec, Need, TaskSpec
from meshpeer.core.scheduler.book import NOTHING
from meshpeer.core.scheduler.collecting import Terms
from meshpeer.core.scheduler.consensus.values import Written
from meshpeer.core.scheduler.fitting import Profile
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    FRAMES,
    Ack,
    Attempt,
    AttemptFinished,
    AttemptRunning,
    AttemptUnstageable,
    Blob,
    FetchJob,
    Grant,
    Input,
    JobChanged,
    JobForgotten,
    JobLearned,
    JobSignedAnew,
    JobSubmitted,
    MessageReceived,
    Offer,
    PeerDown,
    PeerRevoked,
    PeersChanged,
    PeerUp,
    PeerView,
    SchedulerEffect,
    SchedulerEvent,
    SignJob,
    StartAttempt,
    StopAttempt,
    StoreBlob,
)
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.quotas import Quota, boundless
from meshpeer.core.scheduler.replica_messages import FetchReplica, ReplicaFetched, ReplicaUnfetched
from meshpeer.core.scheduler.rows import ROW_BYTES_MAX, JobRow, ResultRow, TaskRow
from meshpeer.core.scheduler.webhook_messages import DeliverMessage
from meshpeer.core.wire import cbor
from meshpeer.core.wire.frames import Channel, Codec

CODEC = Codec(Channel.CONTROL, FRAMES)
FRAME_BYTES_MAX = 60 * 1024
UNIX_EPOCH_S = 1_800_000_000.0

Plan = Callable[[TaskIndex, Attempt, NodeId], tuple[float, bool]]
"""How long an attempt takes, and whether it succeeds."""


class HashSeals:
    """Seals that only look as if nobody else could make them: signatures take time."""

    def __init__(self, me: NodeId) -> None:
        self._me = me

    def make(self, counter: int, body: bytes) -> bytes:
        return _hash_seal(self._me, counter.to_bytes(8), body)

    def counter_of(self, owner: NodeId, body: bytes, seal: bytes) -> int | None:
        return int.from_bytes(seal[:8]) if seal == _hash_seal(owner, seal[:8], body) else None


def _hash_seal(owner: NodeId, head: bytes, body: bytes) -> bytes:
    return head + hashlib.sha256(owner + head + body).digest()


@dataclass(slots=True)
class Run:
    """One attempt as the world saw it."""

    job: JobId
    attempt: Attempt
    node: NodeId
    started_s: float
    ended_s: float | None = None
    """None for one that never came to its end: stopped, or its agent died."""


@dataclass(slots=True)
class Node:
    """One machine: what survives a crash (journal, blobs), and what does not."""

    name: NodeId
    slots: int
    region: str
    profile: Profile | None = None
    scheduler: Scheduler | None = None
    journal: dict[Table, dict[str, bytes]] = field(
        default_factory=lambda: {
            table: {} for table in (Table.JOBS, Table.TASKS, Table.RESULTS, Table.GRANTS, Table.REPLICAS)
        }
    )
    blobs: set[Digest] = field(default_factory=set)
    life: int = 0
    tickets: TicketCounter = field(default_factory=TicketCounter)
    handed_over: set[int] = field(default_factory=set)
    """Tickets of writes that the machine wanted in this life."""
    pending: set[int] = field(default_factory=set)
    contents: dict[Digest, bytes] = field(default_factory=dict)
    waiting: dict[int, list[Send]] = field(default_factory=dict)
    running: dict[tuple[JobId, Attempt], Run] = field(default_factory=dict)
    queue: list[StartAttempt] = field(default_factory=list)
    in_use: int = 0
    notes: list[Note] = field(default_factory=list)
    tick_at_s: float = float("inf")
    slept: bool = False
    store: bytes = b""
    """What it votes from; empty where it is no replica of any job."""

    @property
    def up(self) -> bool:
        return self.scheduler is not None


def node_name(number: int) -> NodeId:
    """Returns what the node of this place is called."""
    return NodeId(hashlib.sha256(f"node {number}".encode()).digest())


class World:
    """Virtual machines and what lies between them."""

    def __init__(
        self,
        seed: int,
        slots: list[int],
        *,
        latency_s: tuple[float, float] = (0.0005, 0.002),
        disk_s: tuple[float, float] = (0.0002, 0.002),
        loss: float = 0.0,
        plan: Plan | None = None,
        crash_limit: int = 3,
        regions: int = 1,
        reorder: bool = False,
        profiles: Sequence[Profile] = (),
        replicated: bool = False,
        terms: Terms | None = None,
        quota_of: Callable[[NodeId, NodeId], Quota] | None = None,
    ) -> None:
        """``quota_of`` says what a node (the first) gives a submitter."""
        self.rng = random.Random(seed)
        self.now_s = 100.0
        self.latency_s, self.disk_s, self.loss = latency_s, disk_s, loss
        self.plan: Plan = plan or (lambda task, attempt, node: (0.05, True))
        self.crash_limit, self.terms, self.quota_of = crash_limit, terms, quota_of
        self.reorder = reorder
        self.nodes = {
            name: Node(name, count, f"r{number % regions}", profiles[number] if profiles else None)
            for number, count in enumerate(slots)
            if (name := node_name(number))
        }
        self.names = list(self.nodes)
        for name in self.names if replicated else ():
            self.nodes[name].store = b"store" + name[:8]
        self.cut: set[frozenset[NodeId]] = set()
        self.dead: set[NodeId] = set()
        """Whom membership takes for dead."""
        self.revoked: set[NodeId] = set()
        self.records: dict[JobId, JobRecord] = {}
        self.runs: list[Run] = []
        self.messages: collections.Counter[str] = collections.Counter()
        self.changed: collections.Counter[JobId] = collections.Counter()
        self.committed: dict[tuple[JobId, int, int], TaskRow] = {}
        self.alone_until: dict[JobId, int] = {}
        """Of jobs whose record was signed anew: the last epoch before that."""
        self.forgotten: list[tuple[NodeId, JobId]] = []
        self.told: list[tuple[NodeId, DeliverMessage]] = []
        """What ends of jobs were told, by whom; nobody answers unless the test does."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self.steps = 0
        self._count = 0
        self._disk_queues: dict[tuple[NodeId, int], list[tuple[float, Persist]]] = {}
        self._last_arrival_s: dict[tuple[NodeId, NodeId], float] = {}
        for name in self.names:
            self.start(name)

    # --- what tests do ----------------------------------------------------------------------------------

    def submit(self, spec: JobSpec, at: int = 0) -> JobId:
        name = self.names[at]
        job = JobId(f"j{self._next():019d}")
        here = self.nodes[name].scheduler
        assert here is not None
        record = JobRecord(
            job=job,
            submitter=name,
            submitted_at_us=int(self.unix_s * 1e6),
            spec=spec,
            replicas=here.choose_replicas(job),
        )
        self.records[job] = record
        signed = cbor.encode(record)
        self.handle(
            name, JobSubmitted(record=record, signed=signed, digest=Digest(hashlib.sha256(signed).digest()))
        )
        return job

    def owner(self, job: JobId) -> JobOwner:
        owners = self.owners(job)
        if owners:
            return owners[-1]
        seen = [one.scheduler.seen(job) for one in self.nodes.values() if one.scheduler is not None]
        return max((one for one in seen if one is not None), key=lambda one: one.epoch)

    def owners(self, job: JobId) -> list[JobOwner]:
        """Returns who takes itself for the job's owner, by rising epoch."""
        owners = [
            node.scheduler.owned[job]
            for node in self.nodes.values()
            if node.scheduler is not None and job in node.scheduler.owned
        ]
        return sorted(owners, key=lambda one: one.epoch)

    def run_until(self, done: Callable[[], bool], limit_s: float = 600.0) -> float:
        """Runs until the condition holds; returns how long that took. Fails past the limit."""
        began_s = self.now_s
        while not done():
            if not self._heap or self.now_s > began_s + limit_s:
                raise AssertionError(f"not done after {self.now_s - began_s:.1f} s: {self.describe()}")
            self.step()
        return self.now_s - began_s

    def run_for(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self._heap and self._heap[0][0] <= until_s:
            self.step()
        self.now_s = until_s

    def finished(self, *jobs: JobId) -> bool:
        return all(
            (bool(owners := self.owners(job)) and owners[-1].finished) or self.ended(job)
            for job in jobs or self.records
        )

    def ended(self, job: JobId) -> bool:
        """Says whether a replica knows the job's end."""
        schedulers = [one.scheduler for one in self.nodes.values() if one.scheduler is not None]
        copies = [one.replicas.copies.get(job) for one in schedulers]
        return any(one is not None and one.ended for one in copies)

    def start(self, name: NodeId) -> None:
        """Starts an agent on what its journal holds."""
        node = self.nodes[name]
        node.life += 1
        self.dead.discard(name)
        node.tickets, node.handed_over = TicketCounter(), set()
        node.scheduler = scheduler = Scheduler(
            me=name,
            slots=node.slots,
            accepting=True,
            boot=node.life.to_bytes(8, "big"),
            region=node.region,
            profile=node.profile,
            tickets=node.tickets,
            dice=random.Random(self.rng.random()),
            seals=HashSeals(name),
            store=node.store,
            crash_limit=self.crash_limit,
            terms=self.terms,
            quota_of=functools.partial(self.quota_of, name) if self.quota_of else boundless,
            is_revoked=self.revoked.__contains__,
        )
        jobs = [
            cbor.decode(value, JobRow, bytes_max=ROW_BYTES_MAX) for value in node.journal[Table.JOBS].values()
        ]
        for row in jobs:
            record = cbor.decode(row.signed, JobRecord, bytes_max=ROW_BYTES_MAX)
            if record.submitter == name and record.generation == self.records[record.job].generation:
                # A crash may have taken back another record, which nobody was shown then.
                self.records[record.job] = record
        tasks: dict[JobId, dict[int, TaskRow]] = collections.defaultdict(dict)
        for key, value in node.journal[Table.TASKS].items():
            job, _, task = key.partition("/")
            tasks[JobId(job)][int(task)] = cbor.decode(value, TaskRow, bytes_max=ROW_BYTES_MAX)
        effects = scheduler.restore(
            [
                (
                    cbor.decode(row.signed, JobRecord, bytes_max=ROW_BYTES_MAX),
                    Digest(hashlib.sha256(row.signed).digest()),
                    row,
                )
                for row in jobs
            ],
            tasks,
            [
                cbor.decode(value, ResultRow, bytes_max=ROW_BYTES_MAX)
                for value in node.journal[Table.RESULTS].values()
            ],
            self.now,
            sorted(node.journal[Table.GRANTS].items()),
            sorted(node.journal[Table.REPLICAS].items()),
        )
        self._perform(node, effects)
        self._plan_tick(node)
        for other in self.names:
            if other != name and self.linked(name, other):
                self._link_up(name, other)

    def crash(self, name: NodeId) -> None:
        """Kills an agent and its tasks: what was not on disk is gone, links break."""
        node = self.nodes[name]
        if not node.up:
            return
        peers = [other for other in self.names if other != name and self.linked(name, other)]
        node.scheduler = None
        node.life += 1
        node.pending.clear()
        node.waiting.clear()
        node.running.clear()
        node.queue.clear()
        node.in_use = 0
        for peer in peers:
            self._tell_down(peer, name)

    def bury(self, name: NodeId) -> None:
        """Lets everybody take a node for dead."""
        self.dead.add(name)
        for here in self.names:
            self._tell_peers(here)

    def revoke(self, name: NodeId) -> None:
        """Shuts a node out for good: its links are closed, and everybody is told, the node itself too."""
        for other in self.names:
            if other != name:
                self.partition(name, other)
        self.revoked.add(name)
        for here in self.names:
            self.handle(here, PeerRevoked(peer=name))

    def wipe(self, name: NodeId) -> None:
        """Loses the disk of a crashed machine."""
        node = self.nodes[name]
        assert not node.up
        for table in node.journal.values():
            table.clear()
        node.store = node.store and node.store + b"*"
        node.blobs.clear()

    def partition(self, one: NodeId, other: NodeId) -> None:
        if self.linked(one, other):
            self.cut.add(frozenset((one, other)))
            self._tell_down(one, other)
            self._tell_down(other, one)
        self.cut.add(frozenset((one, other)))

    def heal(self, one: NodeId, other: NodeId) -> None:
        pair = frozenset((one, other))
        if pair in self.cut:
            self.cut.discard(pair)
            if self.linked(one, other):
                self._link_up(one, other)

    def linked(self, one: NodeId, other: NodeId) -> bool:
        return self.nodes[one].up and self.nodes[other].up and frozenset((one, other)) not in self.cut

    def check(self) -> None:
        """Checks every machine's invariants."""
        for node in self.nodes.values():
            if node.scheduler is not None:
                node.scheduler.check()
                # The journal ends an agent that takes many tickets after one that it never writes.
                leaked = set(range(1, node.tickets.last + 1)) - node.handed_over
                assert not leaked, f"tickets that were taken and never written: {sorted(leaked)[:5]}"

    def ends_of(self, job: JobId, task: int) -> list[Run]:
        """Returns the runs of a task that came to their end."""
        return [
            run
            for run in self.runs
            if run.job == job and run.attempt.task == task and run.ended_s is not None
        ]

    def describe(self) -> str:
        lines = []
        for job in self.records:
            owners = self.owners(job)
            if not owners:
                lines.append(f"{job}: its owner is down")
            else:
                owner = owners[-1]
                scheduler = self.nodes[owner.epoch.node].scheduler
                deadline = scheduler.next_deadline() if scheduler else None
                lines.append(
                    f"{job}: {dict(owner.counts)} leases {list(owner.leases.values())[:5]} next {deadline}"
                )
        return "; ".join(lines)

    # --- time -------------------------------------------------------------------------------------------

    @property
    def unix_s(self) -> float:
        return UNIX_EPOCH_S + self.now_s

    @property
    def now(self) -> Instant:
        return Instant(mono_s=self.now_s, unix_s=self.unix_s)

    def step(self) -> None:
        self.steps += 1
        at_s, _, action = heapq.heappop(self._heap)
        self.now_s = max(self.now_s, at_s)
        action()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_s + seconds, self._next(), action))

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _between(self, bounds: tuple[float, float]) -> float:
        return self.rng.uniform(*bounds)

    # --- events and effects -----------------------------------------------------------------------------

    def handle(self, name: NodeId, event: SchedulerEvent) -> None:
        node = self.nodes[name]
        if node.scheduler is None:
            return
        if node.slept:
            self.after(0.5, self._in_life(node, lambda: self.handle(name, event)))
            return
        self._perform(node, node.scheduler.handle(event, self.now))
        self._plan_tick(node)

    def _perform(self, node: Node, effects: Sequence[SchedulerEffect]) -> None:
        own = [isinstance(one, Send) and one.peer == node.name and one.after is None for one in effects]
        assert own == sorted(own), "a word to this very node could be overtaken by what follows from it"
        for effect in effects:
            match effect:
                case Send(peer=peer, message=message, after=None) if peer == node.name:
                    assert node.scheduler is not None
                    event = MessageReceived(peer=peer, message=message)
                    self._check_ack(node.name, message)
                    self._perform(node, node.scheduler.handle(event, self.now))
                case Send(after=after) if after in node.pending:
                    node.waiting.setdefault(after, []).append(effect)
                case Send():
                    self._send(node, effect)
                case Persist(ticket=ticket):
                    node.handed_over.add(ticket)
                    node.pending.add(ticket)
                    self._write(node, effect)
                case StartAttempt():
                    node.queue.append(effect)
                    self._start_queued(node)
                case StopAttempt(job=job, attempt=attempt):
                    self._stop(node, job, attempt)
                case FetchJob():
                    fetched = self._in_life(node, self._fetched(node, effect))
                    self.after(self._between(self.latency_s), fetched)
                case FetchReplica():
                    fetched = self._in_life(node, self._fetched_replica(node, effect))
                    self.after(self._between(self.latency_s), fetched)
                case StoreBlob(digest=digest, data=data):
                    assert hashlib.sha256(data).digest() == digest
                    node.contents[digest] = data
                case JobChanged(job=job):
                    self.changed[job] += 1
                case JobForgotten(job=job):
                    self.forgotten.append((node.name, job))
                case SignJob(record=record):
                    self.after(self.disk_s[1], self._in_life(node, self._signed_anew(node, record)))
                case DeliverMessage():
                    self.told.append((node.name, effect))
                case Note():
                    node.notes.append(effect)

    def _signed_anew(self, node: Node, record: JobRecord) -> Callable[[], None]:
        return lambda: self.sign_anew(node.name, record)

    def sign_anew(self, name: NodeId, record: JobRecord) -> None:
        """Gives an open job another record, which everybody who fetches one is shown from now on."""
        self.records[record.job] = record
        before = self.owners(record.job)
        self.alone_until[record.job] = before[-1].epoch.counter if before else 0
        signed = cbor.encode(record)
        digest = Digest(hashlib.sha256(signed).digest())
        self.handle(name, JobSignedAnew(record=record, signed=signed, digest=digest))

    def _plan_tick(self, node: Node) -> None:
        assert node.scheduler is not None
        deadline = node.scheduler.next_deadline()
        at_s = deadline.at_s if deadline else float("inf")
        if at_s == node.tick_at_s:
            return
        node.tick_at_s = at_s
        if deadline is not None:

            def tick() -> None:
                if node.tick_at_s == at_s:
                    node.tick_at_s = float("inf")
                    self.handle(node.name, Tick())

            self.after(max(0.0, at_s - self.now_s), self._in_life(node, tick))

    def _in_life(self, node: Node, action: Callable[[], None]) -> Callable[[], None]:
        """Binds an action to this run of the agent: it does not outlive a crash."""
        life = node.life
        return lambda: action() if node.life == life else None

    # --- disk -------------------------------------------------------------------------------------------

    def _write(self, node: Node, persist: Persist) -> None:
        """Commits in order, each some time after the one before."""
        earlier = max((at_s for at_s, _ in self._writes(node)), default=self.now_s)
        at_s = max(earlier, self.now_s + self._between(self.disk_s))
        self._writes(node).append((at_s, persist))
        self.after(at_s - self.now_s, self._in_life(node, lambda: self._written(node, persist)))

    def _writes(self, node: Node) -> list[tuple[float, Persist]]:
        return self._disk_queues.setdefault((node.name, node.life), [])

    def _written(self, node: Node, persist: Persist) -> None:
        self._writes(node).pop(0)
        for change in persist.changes:
            if isinstance(change, Put):
                node.journal[change.table][change.key] = change.value
                if change.table is Table.TASKS:
                    self._check_commit(change)
            elif isinstance(change, Delete):
                node.journal[change.table].pop(change.key, None)
        node.pending.discard(persist.ticket)
        for send in node.waiting.pop(persist.ticket, []):
            self._send(node, send)

    def _check_commit(self, put: Put) -> None:
        row = cbor.decode(put.value, TaskRow, bytes_max=ROW_BYTES_MAX)
        if row.state == "ready":
            return
        job, _, task = put.key.partition("/")
        key = (JobId(job), int(task), row.round)
        before = self.committed.setdefault(key, row)
        assert before == row, f"two results for {key}: {before} and {row}"

    # --- links ------------------------------------------------------------------------------------------

    def _send(self, node: Node, send: Send) -> None:
        message = send.message
        self.messages[str(message.__struct_config__.tag)] += 1
        if send.peer == node.name:
            self._check_ack(node.name, message)
            self.after(0.0, self._in_life(node, lambda: self._receive(node.name, node.name, message)))
            return
        frame = CODEC.encode(message)
        assert len(frame) <= FRAME_BYTES_MAX, f"{type(message).__name__} of {len(frame)} bytes"
        if isinstance(message, Grant) and message.stolen_from is not None:
            key = f"given/{message.job}/{message.tasks[0].attempt.task:06d}."
            assert any(one.startswith(key) for one in node.journal[Table.GRANTS]), "not journalled first"
        peer = self.nodes[send.peer]
        if not self.linked(node.name, send.peer) or self.rng.random() < self.loss:
            return
        lives = (node.life, peer.life)

        def arrive() -> None:
            if self.linked(node.name, send.peer) and lives == (node.life, peer.life):
                decoded = CODEC.decode(frame)
                assert decoded is not None
                self._check_ack(peer.name, decoded)
                self._receive(node.name, peer.name, decoded)

        at_s = self.now_s + self._between(self.latency_s)
        if not self.reorder:
            at_s = max(at_s, self._last_arrival_s.get((node.name, send.peer), 0.0))
            self._last_arrival_s[node.name, send.peer] = at_s
        self.after(at_s - self.now_s, arrive)

    def _receive(self, sender: NodeId, receiver: NodeId, message: msgspec.Struct) -> None:
        self.handle(receiver, MessageReceived(peer=sender, message=message))

    def _check_ack(self, worker: NodeId, message: msgspec.Struct) -> None:
        """Whatever is acknowledged is on its owner's disk: this attempt, or another that came first."""
        if not isinstance(message, Ack):
            return
        record = self.records.get(message.job)
        assert record is not None
        if message.epoch.counter <= self.alone_until.get(message.job, 0):
            # On one disk, which every quorum needs until others have what is on it.
            return
        if len(record.replicas) > 1:
            self._check_replicated_ack(message)
            return
        rows = self.nodes[record.submitter].journal[Table.TASKS]
        value = rows.get(f"{message.job}/{message.attempt.task:06d}")
        if value is None:
            owner = self.nodes[record.submitter].journal[Table.JOBS].get(message.job)
            assert owner is not None
            assert cbor.decode(owner, JobRow, bytes_max=ROW_BYTES_MAX).cancelled or message.superseded
            return
        row = cbor.decode(value, TaskRow, bytes_max=ROW_BYTES_MAX)
        if not message.superseded:
            tries = {(one.round, one.number, one.node) for one in row.tries}
            assert (message.attempt.round, message.attempt.number, worker) in tries, f"{message} but {row}"

    def _check_replicated_ack(self, ack: Ack) -> None:
        """Whatever is acknowledged is decided on the disks of two replicas at least, and alike for good."""
        key = f"row/{ack.job}/{ack.attempt.task:06d}.{ack.attempt.round}"
        rows = [
            cbor.decode(value, Written, bytes_max=ROW_BYTES_MAX)
            for node in self.nodes.values()
            if (value := node.journal[Table.REPLICAS].get(key)) is not None
        ]
        if ack.superseded:
            return
        owner = self.nodes[ack.epoch.node].scheduler
        alone = owner is not None and owner.replicas.durability(ack.job, self.now) == "this_node"
        assert len(rows) >= (1 if alone else 2), f"{ack} is on {len(rows)} disks"
        newest = max(rows, key=lambda one: one.stamp)
        if newest.decided:
            row = cbor.decode(newest.value, TaskRow, bytes_max=ROW_BYTES_MAX)
            known = self.committed.setdefault((ack.job, ack.attempt.task, ack.attempt.round), row)
            assert known == row, f"two results: {known} and {row}"

    def _fetched_replica(self, node: Node, effect: FetchReplica) -> Callable[[], None]:
        record = self.records[effect.job]

        def fetched() -> None:
            if self.linked(node.name, effect.holder):
                event = ReplicaFetched(
                    record=record, signed=cbor.encode(record), digest=effect.digest, holder=effect.holder
                )
                self.handle(node.name, event)
            else:
                self.handle(node.name, ReplicaUnfetched(job=effect.job, reason="no link"))

        return fetched

    def _link_up(self, one: NodeId, other: NodeId) -> None:
        for here, there in ((one, other), (other, one)):
            self._tell_peers(here)
            self.handle(here, PeerUp(peer=there))

    def _tell_down(self, here: NodeId, there: NodeId) -> None:
        if self.nodes[here].up:
            self.handle(here, PeerDown(peer=there))
            self._tell_peers(here)

    def _tell_peers(self, here: NodeId) -> None:
        views = tuple(
            PeerView(
                node=there,
                alive=self.nodes[there].up,
                linked=self.linked(here, there),
                region=profile.region if (profile := self.nodes[there].profile) else self.nodes[there].region,
                dead=there in self.dead,
                name=profile.name if profile else "",
                roles=profile.roles if profile else (),
            )
            for there in self.names
            if there != here
        )
        self.handle(here, PeersChanged(peers=views))

    def _fetched(self, node: Node, effect: FetchJob) -> Callable[[], None]:
        def fetched() -> None:
            # A holder that is away is tried again: what a performer does.
            if any(holder == node.name or self.linked(node.name, holder) for holder in effect.holders):
                self.handle(
                    node.name, JobLearned(job=effect.job, record=self.records[effect.job], blob=effect.record)
                )
            else:
                self.after(0.5, self._in_life(node, fetched))

        return fetched

    # --- slots ------------------------------------------------------------------------------------------

    def _start_queued(self, node: Node) -> None:
        while node.queue:
            start = node.queue[0]
            cpu = self._cpu(start)
            assert node.in_use + cpu <= node.slots, "a slot was taken twice"
            node.queue.pop(0)
            node.in_use += cpu
            run = Run(start.job, start.granted.attempt, node.name, self.now_s)
            node.running[start.job, start.granted.attempt] = run
            self.after(0.0, self._in_life(node, self._stage(node, start, run)))

    def _cpu(self, start: StartAttempt) -> int:
        position = start.granted.attempt.task
        for spec in start.record.spec.tasks:
            size = spec.array.size if spec.array else 1
            if position < size:
                return spec.cpu
            position -= size
        raise AssertionError(f"no task {start.granted.attempt}")

    def _stage(self, node: Node, start: StartAttempt, run: Run) -> Callable[[], None]:
        def staged() -> None:
            if node.running.get((start.job, start.granted.attempt)) is not run:
                return
            inputs = self._inputs(start)
            if inputs is None:
                self.after(0.5, self._in_life(node, staged))
                return
            missing = tuple(
                one.task
                for one in inputs
                if one.manifest.digest not in node.blobs
                and not (
                    self.linked(node.name, one.holder) and one.manifest.digest in self.nodes[one.holder].blobs
                )
            )
            attempt = start.granted.attempt
            if missing:
                self._free(node, start)
                event = AttemptUnstageable(job=start.job, attempt=attempt, reason="gone", missing=missing)
                self.handle(node.name, event)
                return
            node.blobs.update(one.manifest.digest for one in inputs)
            run.started_s = self.now_s
            self.runs.append(run)
            took_s, succeeds = self.plan(TaskIndex(attempt.task), attempt, node.name)
            self.handle(node.name, AttemptRunning(job=start.job, attempt=attempt))
            self.after(took_s, self._in_life(node, self._end(node, start, run, succeeds)))

        return staged

    def _inputs(self, start: StartAttempt) -> tuple[Input, ...] | None:
        """Returns what is to be staged; None while the owner, who has the list, is away."""
        blob = start.granted.inputs_blob
        if blob is None:
            return start.granted.inputs
        data = self.nodes[start.owner].contents.get(blob.digest)
        if data is None or not self.nodes[start.owner].up:
            return None
        assert len(data) == blob.size
        return cbor.decode(data, tuple[Input, ...], bytes_max=ROW_BYTES_MAX)

    def _end(self, node: Node, start: StartAttempt, run: Run, succeeds: bool) -> Callable[[], None]:
        def ended() -> None:
            if node.running.get((start.job, start.granted.attempt)) is not run:
                return
            run.ended_s = self.now_s
            self._free(node, start)
            attempt = start.granted.attempt
            digest = Digest(hashlib.sha256(f"{start.job} {attempt} {node.name.hex()}".encode()).digest())
            if succeeds:
                node.blobs.add(digest)
            offer = Offer(
                job=start.job,
                attempt=attempt,
                succeeded=succeeds,
                exit_code=0 if succeeds else 1,
                error="" if succeeds else "exit code 1",
                started_us=int((UNIX_EPOCH_S + run.started_s) * 1e6),
                finished_us=int(self.unix_s * 1e6),
                stdout=NOTHING,
                stderr=NOTHING,
                manifest=Blob(digest, 40) if succeeds else NOTHING,
                outputs=1 if succeeds else 0,
            )
            self.handle(node.name, AttemptFinished(offer=offer))

        return ended

    def _free(self, node: Node, start: StartAttempt) -> None:
        del node.running[start.job, start.granted.attempt]
        node.in_use -= self._cpu(start)

    def _stop(self, node: Node, job: JobId, attempt: Attempt) -> None:
        run = node.running.pop((job, attempt), None)
        if run is not None:
            node.in_use -= self._cpu_of(job, attempt)
        node.queue = [one for one in node.queue if (one.job, one.granted.attempt) != (job, attempt)]

    def _cpu_of(self, job: JobId, attempt: Attempt) -> int:
        position = attempt.task
        for spec in self.records[job].spec.tasks:
            size = spec.array.size if spec.array else 1
            if position < size:
                return spec.cpu
            position -= size
        raise AssertionError(f"no task {attempt}")


def array(count: int, *, retries: int = 0, cpu: int = 1) -> JobSpec:
    """Returns a job of equal tasks."""
    task = TaskSpec(name="t", argv=("true",), array=Array(size=count), retries=retries, cpu=cpu)
    return JobSpec(name="array", tasks=(task,))


def diamond(width: int) -> JobSpec:
    """Returns a job of one task, ``width`` that need it, one for each of those, and one that needs all."""
    each = (Need(task="work", same_index=True),)
    return JobSpec(
        name="diamond",
        tasks=(
            TaskSpec(name="split", argv=("true",)),
            TaskSpec(name="work", argv=("true",), array=Array(size=width), needs=(Need(task="split"),)),
            TaskSpec(name="check", argv=("true",), array=Array(size=width), needs=each),
            TaskSpec(name="join", argv=("true",), needs=(Need(task="check"),)),
        ),
    )

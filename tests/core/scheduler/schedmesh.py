"""A mesh of schedulers in virtual time: messages, disks, executions and crashes are simulated, decisions are
real."""

from __future__ import annotations

import collections
import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Delete, Note, Persist, Persisted, Put, Send, Table, Tick, TicketCounter
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex, Ticket
from meshpeer.core.jobs.model import Array, JobRecord, JobSpec, Need, TaskSpec
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    Ack,
    Attempt,
    AttemptFinished,
    AttemptRunning,
    Blob,
    FetchJob,
    JobChanged,
    JobLearned,
    JobSubmitted,
    MessageReceived,
    Offer,
    PeerDown,
    PeersChanged,
    PeerUp,
    PeerView,
    StartAttempt,
    StopAttempt,
    StoreBlob,
)
from meshpeer.core.scheduler.rows import ROW_BYTES_MAX, JobRow, ResultRow, TaskRow
from meshpeer.core.wire import cbor

NOTHING = Blob(Digest(hashlib.sha256(b"").digest()), 0)
UNIX_S = 1_800_000_000.0


@dataclass
class Box:
    """One node: its scheduler, what its disk holds, what runs on it."""

    name: str
    id: NodeId
    slots: int
    scheduler: Scheduler | None = None
    disk: dict[tuple[Table, str], bytes] = field(default_factory=dict)
    written: set[Ticket] = field(default_factory=set)
    waiting: list[tuple[Ticket, Callable[[], None]]] = field(default_factory=list)
    life: int = 0
    busy: dict[tuple[JobId, Attempt], int] = field(default_factory=dict)
    tick_at: float = float("inf")
    notes: list[Note] = field(default_factory=list)


class SchedMesh:
    def __init__(
        self, seed: int, slots: dict[str, int], *, latency_s: float = 0.005, task_s: float = 0.05
    ) -> None:
        self.random = random.Random(seed)
        self.latency_s, self.task_s = latency_s, task_s
        self.now_s = 0.0
        self.jobs: dict[JobId, JobRecord] = {}
        self.cuts: set[frozenset[str]] = set()
        self.runs: collections.Counter[int] = collections.Counter()
        """How often each task was brought to an end anywhere."""
        self.fails: Callable[[int, int], bool] = lambda task, number: False
        self.messages: collections.Counter[str] = collections.Counter()
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.boxes = {
            name: Box(name, NodeId(hashlib.sha256(name.encode()).digest()), count)
            for name, count in slots.items()
        }
        for box in self.boxes.values():
            self.start(box)

    # --- what tests do --------------------------------------------------------------------------------------

    def submit(self, box: Box, spec: JobSpec, job: str = "j" + "a" * 19) -> JobId:
        record = JobRecord(job=JobId(job), submitter=box.id, submitted_at_us=int(UNIX_S * 1e6), spec=spec)
        self.jobs[record.job] = record
        signed = cbor.encode(record)
        self.post(
            box, JobSubmitted(record=record, signed=signed, digest=Digest(hashlib.sha256(signed).digest()))
        )
        return record.job

    def start(self, box: Box) -> None:
        """Boots a box from its disk, and links it to all others that are up and not cut off."""
        box.life += 1
        box.written, box.waiting, box.busy = set(), [], {}
        box.scheduler = Scheduler(
            me=box.id,
            slots=box.slots,
            accepting=True,
            boot=self.random.randbytes(8),
            region="",
            tickets=TicketCounter(),
            dice=random.Random(self.random.random()),
        )
        effects = box.scheduler.restore(*self._restored(box))
        for effect in effects:
            self._perform(box, effect)
        for other in self.boxes.values():
            if other is not box and other.scheduler and frozenset((box.name, other.name)) not in self.cuts:
                self._link(box, other)
        self._tell_peers()
        self._schedule(box)

    def crash(self, box: Box) -> None:
        box.scheduler = None
        box.life += 1
        for other in self.boxes.values():
            if other.scheduler:
                self._later(self._delay(), other, PeerDown(peer=box.id))
        self._tell_peers()

    def cut(self, one: Box, other: Box) -> None:
        self.cuts.add(frozenset((one.name, other.name)))
        for here, there in ((one, other), (other, one)):
            self._later(self._delay(), here, PeerDown(peer=there.id))
        self._tell_peers()

    def heal(self) -> None:
        cuts, self.cuts = self.cuts, set()
        for pair in sorted(tuple(sorted(cut)) for cut in cuts):
            one, other = self.boxes[pair[0]], self.boxes[pair[1]]
            if one.scheduler and other.scheduler:
                self._link(one, other)
        self._tell_peers()

    def finished(self, box: Box, job: JobId) -> bool:
        """Says whether the job has ended, on disk."""
        row = box.disk.get((Table.JOBS, job))
        return row is not None and cbor.decode(row, JobRow, bytes_max=ROW_BYTES_MAX).finished_at_us > 0

    def run_until(self, condition: Callable[[], bool], within_s: float) -> bool:
        end = self.now_s + within_s
        while not condition():
            if not self._heap or self._heap[0][0] > end:
                self.now_s = end
                return condition()
            at, _, action = heapq.heappop(self._heap)
            self.now_s = max(self.now_s, at)
            self.steps += 1
            action()
        return True

    def run(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def check(self) -> None:
        for box in self.boxes.values():
            if box.scheduler:
                box.scheduler.check()
                assert len(box.busy) <= box.slots, f"{box.name} runs {len(box.busy)} on {box.slots} slots"

    def committed(self, box: Box, job: JobId) -> dict[int, TaskRow]:
        rows = {}
        for (table, key), value in box.disk.items():
            if table is Table.TASKS and key.startswith(job):
                rows[int(key.partition("/")[2])] = cbor.decode(value, TaskRow, bytes_max=ROW_BYTES_MAX)
        return rows

    def unacknowledged(self) -> int:
        return sum(1 for box in self.boxes.values() for table, _ in box.disk if table is Table.RESULTS)

    def instant(self) -> Instant:
        return Instant(self.now_s, UNIX_S + self.now_s)

    # --- events and effects ---------------------------------------------------------------------------------

    def post(self, box: Box, event: object) -> None:
        if box.scheduler is None:
            return
        for effect in box.scheduler.handle(event, self.instant()):  # type: ignore[arg-type]
            self._perform(box, effect)
        self._schedule(box)

    def _perform(self, box: Box, effect: object) -> None:
        match effect:
            case Send(peer=peer, message=message, after=after):
                self._when(box, after, lambda: self._deliver(box, peer, message))
            case Persist(ticket=ticket, changes=changes):
                life = box.life
                self._at(0.001, lambda: self._write(box, life, ticket, changes))
            case FetchJob(job=job):
                self._later(self._delay() * 2, box, JobLearned(job=job, record=self.jobs[job]))
            case StartAttempt(job=job, granted=granted):
                self._execute(box, job, granted.attempt)
            case StopAttempt(job=job, attempt=attempt):
                box.busy.pop((job, attempt), None)
            case Note():
                box.notes.append(effect)
            case JobChanged() | StoreBlob():
                pass
            case _:
                raise AssertionError(effect)

    def _execute(self, box: Box, job: JobId, attempt: Attempt) -> None:
        key, life = (job, attempt), box.life
        box.busy[key] = life
        assert len(box.busy) <= box.slots, f"{box.name} is oversubscribed"
        self._later(0.001, box, AttemptRunning(job=job, attempt=attempt))

        def finish() -> None:
            if box.life != life or box.busy.pop(key, None) is None:
                return
            self.runs[attempt.task] += 1
            failed = self.fails(attempt.task, attempt.number)
            offer = Offer(
                job=job,
                attempt=attempt,
                succeeded=not failed,
                exit_code=1 if failed else 0,
                error="exit code 1" if failed else "",
                started_us=0,
                finished_us=int((UNIX_S + self.now_s) * 1e6),
                stdout=NOTHING,
                stderr=NOTHING,
                manifest=NOTHING,
                outputs=0,
            )
            self.post(box, AttemptFinished(offer=offer))

        self._at(self.task_s * (0.5 + self.random.random()), finish)

    def _deliver(self, box: Box, peer: NodeId, message: object) -> None:
        other = next(one for one in self.boxes.values() if one.id == peer)
        if other is box:
            self._later(0.0, box, MessageReceived(peer=box.id, message=message))  # type: ignore[arg-type]
            return
        self.messages[type(message).__name__] += 1
        if other.scheduler is None or frozenset((box.name, other.name)) in self.cuts:
            return
        if isinstance(message, Ack):
            self._check_promise(box, message)
        self._later(self._delay(), other, MessageReceived(peer=box.id, message=message))  # type: ignore[arg-type]

    def _check_promise(self, owner: Box, ack: Ack) -> None:
        """What is acknowledged is on the owner's disk, or was a failure that is tried again, or of a job that
        has ended."""
        job = owner.scheduler.owned.get(ack.job) if owner.scheduler else None
        if job is None or job.cancelled:
            return
        on_disk = (Table.TASKS, f"{ack.job}/{ack.attempt.task:06d}") in owner.disk
        tried_again = any(one.state == "failed" for one in job.tries_of(TaskIndex(ack.attempt.task)))
        assert on_disk or tried_again, f"{ack} is acknowledged and not on disk"

    def _write(self, box: Box, life: int, ticket: Ticket, changes: tuple[Put | Delete, ...]) -> None:
        if box.life != life:
            return
        for change in changes:
            if isinstance(change, Put):
                box.disk[change.table, change.key] = change.value
            else:
                box.disk.pop((change.table, change.key), None)
        box.written.add(ticket)
        ready = [action for waited, action in box.waiting if waited == ticket]
        box.waiting = [one for one in box.waiting if one[0] != ticket]
        for action in ready:
            action()
        self.post(box, Persisted(ticket=ticket))

    def _when(self, box: Box, ticket: Ticket | None, action: Callable[[], None]) -> None:
        if ticket is None or ticket in box.written:
            action()
        else:
            box.waiting.append((ticket, action))

    # --- plumbing -------------------------------------------------------------------------------------------

    def _restored(self, box: Box):  # type: ignore[no-untyped-def]
        jobs, tasks, results = [], collections.defaultdict(dict), []
        for (table, key), value in sorted(box.disk.items()):
            if table is Table.JOBS:
                row = cbor.decode(value, JobRow, bytes_max=ROW_BYTES_MAX)
                jobs.append((self.jobs[JobId(key)], Digest(hashlib.sha256(row.signed).digest()), row))
            elif table is Table.TASKS:
                job, _, index = key.partition("/")
                tasks[JobId(job)][int(index)] = cbor.decode(value, TaskRow, bytes_max=ROW_BYTES_MAX)
            elif table is Table.RESULTS:
                results.append(cbor.decode(value, ResultRow, bytes_max=ROW_BYTES_MAX))
        grants = sorted((key, value) for (table, key), value in box.disk.items() if table is Table.GRANTS)
        return jobs, tasks, results, self.instant(), grants

    def _link(self, one: Box, other: Box) -> None:
        for here, there in ((one, other), (other, one)):
            self._later(self._delay(), here, PeerUp(peer=there.id))

    def _tell_peers(self) -> None:
        for box in self.boxes.values():
            views = tuple(
                PeerView(node=one.id, alive=up, linked=up, region="", dead=False)
                for one in self.boxes.values()
                if one is not box
                for up in (one.scheduler is not None and frozenset((box.name, one.name)) not in self.cuts,)
            )
            self._later(self._delay(), box, PeersChanged(peers=views))

    def _schedule(self, box: Box) -> None:
        deadline = box.scheduler.next_deadline() if box.scheduler else None
        if deadline is None:
            return
        at = max(deadline.at_s, self.now_s + 1e-6)
        if self.now_s < box.tick_at <= at:
            return
        box.tick_at, life = at, box.life

        def tick() -> None:
            if box.tick_at == at:
                box.tick_at = float("inf")
            if box.life == life:
                self.post(box, Tick())

        self._at(at - self.now_s, tick)

    def _later(self, delay_s: float, box: Box, event: object) -> None:
        life = box.life

        def deliver() -> None:
            if box.life == life:
                self.post(box, event)

        self._at(delay_s, deliver)

    def _at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._order), action))

    def _delay(self) -> float:
        return self.latency_s * (0.5 + self.random.random())


def flat(count: int, *, retries: int = 0, name: str = "flat") -> JobSpec:
    return JobSpec(
        name=name, tasks=(TaskSpec(name="t", argv=("true",), array=Array(size=count), retries=retries),)
    )


def diamond(width: int) -> JobSpec:
    return JobSpec(
        name="diamond",
        tasks=(
            TaskSpec(name="split", argv=("true",)),
            TaskSpec(name="work", argv=("true",), array=Array(size=width), needs=(Need(task="split"),)),
            TaskSpec(
                name="check",
                argv=("true",),
                array=Array(size=width),
                needs=(Need(task="work", same_index=True),),
            ),
            TaskSpec(name="join", argv=("true",), needs=(Need(task="check"),)),
        ),
    )

"""The owner of one job: which tasks are ready, who has a lease on which, and what is committed.

A task is granted to the worker with the least to do per slot, and each worker holds only so many at a time;
the rest waits here. A lease
lives as long as its worker names it in ``Renew``. The first valid result of a round is committed: written to
the journal, then
acknowledged; duplicates are acknowledged again, other attempts stopped. After a restart the owner takes a new
epoch and first
listens to what workers still hold, so that what runs is not run again.
"""

from __future__ import annotations

import collections
import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Note, Persist, Send, TicketCounter
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex, Ticket, key_text
from meshpeer.core.jobs.dag import Graph, Progress
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.messages import (
    GRANT_BYTES_MAX,
    INPUTS_INLINE_MAX,
    Ack,
    Attempt,
    Blob,
    Epoch,
    Grant,
    Granted,
    Input,
    JobChanged,
    Lost,
    Offer,
    Renew,
    SchedulerEffect,
    Stop,
    StoreBlob,
)
from meshpeer.core.scheduler.rows import JobRow, TaskRow, Try, delete_task, put_job, put_task
from meshpeer.core.scheduler.tables import COMMITTED, TaskState, move_task
from meshpeer.core.wire import cbor

LEASE_S = 15.0
"""A worker that does not name an attempt for this long has lost it."""
RECOVERY_S = 3.0
"""After a restart: how long workers have to say what they hold before it is granted anew."""
CRASH_LIMIT = 3
"""A task that took this many workers down with it is given up."""
HELD_PER_SLOT = 4
HELD_MIN = 8
"""What a worker holds at most, running and queued; the rest waits at the owner, where anyone can get it."""
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 60.0
_NOTHING = Blob(Digest(hashlib.sha256(b"").digest()), 0)


@dataclass(slots=True)
class Worker:
    """What an owner knows of a worker, shared by all jobs of this node."""

    node: NodeId
    slots: int
    linked: bool
    held: int = 0
    """Attempts that it holds, of all jobs."""

    @property
    def room(self) -> int:
        return (
            max(0, max(HELD_MIN, self.slots * HELD_PER_SLOT) - self.held) if self.linked and self.slots else 0
        )


@dataclass(slots=True)
class Lease:
    attempt: Attempt
    node: NodeId
    renewed_at_s: float
    running: bool = False
    stolen_from: NodeId | None = None
    started_us: int = 0


@dataclass(slots=True)
class _Task:
    """What is held of a task beyond its state, from its first grant on."""

    round: int = 1
    number: int = 0
    failures: int = 0
    crashes: int = 0
    tries: list[Try] = field(default_factory=list)


class JobOwner:
    """One owned job. Sans-IO; ``machine.Scheduler`` calls it."""

    def __init__(
        self,
        *,
        me: NodeId,
        record: JobRecord,
        signed: bytes,
        digest: Digest,
        epoch: Epoch,
        tickets: TicketCounter,
        accepted_at_us: int,
    ) -> None:
        self.record = record
        self.signed = signed
        self.digest = digest
        self.epoch = epoch
        self.accepted_at_us = accepted_at_us
        self.finished_at_us = 0
        self.cancelled = False
        self.graph = Graph.of(record.spec)
        self._me = me
        self._tickets = tickets
        self._progress = Progress(self.graph)
        self.states = [TaskState.WAITING] * len(self.graph)
        self.counts: collections.Counter[TaskState] = collections.Counter(
            {TaskState.WAITING: len(self.graph)}
        )
        self.running = 0
        self.done_on: collections.Counter[NodeId] = collections.Counter()
        """Results committed, by the node that brought them."""
        self._ready: collections.deque[TaskIndex] = collections.deque()
        self._tasks: dict[TaskIndex, _Task] = {}
        self.leases: dict[TaskIndex, Lease] = {}
        self.results: dict[TaskIndex, TaskRow] = {}
        self._retries: list[tuple[float, TaskIndex]] = []
        self._recovering_until_s: float | None = None
        self._last_ticket: Ticket | None = None
        self.accept_ticket: Ticket | None = None
        """The write that backs the submitter's answer; None after a restart, when it is long done."""
        self._lease_check_at_s = 0.0
        self._make_ready(self._progress.take_ready())

    # --- start and end --------------------------------------------------------------------------------------

    @property
    def job(self) -> JobId:
        return self.record.job

    @property
    def finished(self) -> bool:
        return bool(self.finished_at_us)

    def accept(self) -> list[SchedulerEffect]:
        """Writes the job down; what is granted from here on waits for that."""
        persist = self._persist_job()
        self.accept_ticket = persist.ticket
        return [persist, JobChanged(job=self.job)]

    def restore(self, rows: dict[int, TaskRow], row: JobRow, now: Instant) -> list[SchedulerEffect]:
        """Takes up a job from the journal: replays what was committed, raises the epoch, and listens before
        it grants."""
        for task, committed in sorted(rows.items()):
            index = TaskIndex(task)
            self._tasks[index] = _Task(
                round=committed.round,
                number=max((one.number for one in committed.tries), default=0),
                tries=list(committed.tries),
            )
            self.results[index] = committed
            self.done_on[committed.node] += 1
            self._settle(index, TaskState(committed.state))
        self.cancelled, self.finished_at_us = row.cancelled, row.finished_at_us
        if row.cancelled:
            self._cancel_open()
        if self.finished:
            return []
        self.epoch = Epoch(row.epoch.counter + 1, self._me)
        self._recovering_until_s = now.mono_s + RECOVERY_S
        return [self._persist_job(), *self._finish_if_done(now)]

    def cancel(self, workers: dict[NodeId, Worker], now: Instant) -> list[SchedulerEffect]:
        """Ends every open task as cancelled; running attempts are stopped. Results that were committed before
        stay."""
        if self.finished:
            return []
        self.cancelled = True
        effects: list[SchedulerEffect] = [
            Send(peer=node, message=Stop(job=self.job, attempts=(), reason="cancelled"))
            for node in self._holders()
        ]
        for task in list(self.leases):
            self._release(task, workers)
        self._cancel_open()
        return [*effects, *self._finish_if_done(now), self._persist_job(), JobChanged(job=self.job)]

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, workers: dict[NodeId, Worker], now: Instant) -> list[SchedulerEffect]:
        if self.finished:
            return []
        effects: list[SchedulerEffect] = []
        while self._retries and self._retries[0][0] <= now.mono_s:
            _, task = heapq.heappop(self._retries)
            if self.states[task] is TaskState.READY:
                self._ready.append(task)
        if self._recovering_until_s is not None and now.mono_s >= self._recovering_until_s:
            self._recovering_until_s = None
        if now.mono_s >= self._lease_check_at_s:
            self._lease_check_at_s = now.mono_s + LEASE_S / 3
            for task, lease in list(self.leases.items()):
                if now.mono_s > lease.renewed_at_s + LEASE_S:
                    effects += self._lose(
                        task,
                        lease,
                        "its worker was not heard of for a lease",
                        workers,
                        now,
                        crash=lease.running,
                    )
        return effects + self.dispatch(workers, now)

    def next_deadline(self) -> Deadline | None:
        if self.finished:
            return None
        waits = [Deadline(self._lease_check_at_s, "check leases")] if self.leases else []
        if self._retries:
            waits.append(Deadline(self._retries[0][0], "retry a task"))
        if self._recovering_until_s is not None:
            waits.append(Deadline(self._recovering_until_s, "stop waiting for workers after a restart"))
        return min(waits, key=lambda one: one.at_s, default=None)

    # --- granting -------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        return len(self._ready)

    def dispatch(self, workers: dict[NodeId, Worker], now: Instant) -> list[SchedulerEffect]:
        """Grants ready tasks to the workers with the least to do per slot, as far as they have room."""
        if self.finished or self._recovering_until_s is not None or not self._ready:
            return []
        effects: list[SchedulerEffect] = []
        shares: dict[NodeId, list[Granted]] = {}
        heap = [
            (worker.held / worker.slots, number, worker)
            for number, worker in enumerate(workers.values())
            if worker.room
        ]
        heapq.heapify(heap)
        while self._ready and heap:
            _, number, worker = heapq.heappop(heap)
            task = self._ready.popleft()
            if self.states[task] is not TaskState.READY:
                heapq.heappush(heap, (worker.held / worker.slots, number, worker))
                continue
            granted, stored = self._grant(task, worker, now)
            effects += stored
            shares.setdefault(worker.node, []).append(granted)
            if worker.room:
                heapq.heappush(heap, (worker.held / worker.slots, number, worker))
        for node, share in shares.items():
            effects += [
                Send(peer=node, message=grant, after=self._last_ticket) for grant in self._grants(share)
            ]
        return effects

    def _grant(self, task: TaskIndex, worker: Worker, now: Instant) -> tuple[Granted, list[SchedulerEffect]]:
        held = self._tasks.setdefault(task, _Task())
        held.number += 1
        attempt = Attempt(task, held.round, held.number)
        self._move(task, TaskState.LEASED)
        self.leases[task] = Lease(attempt, worker.node, now.mono_s)
        worker.held += 1
        inputs = tuple(self._inputs(task))
        if len(inputs) <= INPUTS_INLINE_MAX:
            return Granted(attempt, inputs), []
        data = cbor.encode(inputs)
        digest = Digest(hashlib.sha256(data).digest())
        return Granted(attempt, (), Blob(digest, len(data))), [StoreBlob(digest=digest, data=data)]

    def _inputs(self, task: TaskIndex) -> Iterator[Input]:
        for needed, need in self.graph.needs_of(task):
            row = self.results[needed]
            if row.outputs:
                yield Input(needed, row.manifest, row.node, need.into)

    def _grants(self, share: list[Granted]) -> Iterator[Grant]:
        """Splits a share into frames: an input takes about 110 bytes."""
        batch: list[Granted] = []
        size = 0
        for granted in share:
            cost = 24 + 120 * len(granted.inputs)
            if batch and size + cost > GRANT_BYTES_MAX:
                yield self._frame(batch)
                batch, size = [], 0
            batch.append(granted)
            size += cost
        yield self._frame(batch)

    def _frame(self, batch: list[Granted]) -> Grant:
        return Grant(
            job=self.job,
            owner=self._me,
            epoch=self.epoch,
            record=Blob(self.digest, len(self.signed)),
            tasks=tuple(batch),
        )

    # --- workers' words -------------------------------------------------------------------------------------

    def on_renew(
        self, node: NodeId, message: Renew, workers: dict[NodeId, Worker], now: Instant
    ) -> list[SchedulerEffect]:
        """Renews what the worker names; what it holds without a lease is adopted where the task is free, else
        stopped."""
        stolen = dict(message.stolen_from)
        running = set(message.running)
        useless: list[Attempt] = []
        changed = False
        for attempt in message.held:
            task = TaskIndex(attempt.task)
            if not 0 <= task < len(self.states):
                continue
            lease = self.leases.get(task)
            if lease is None and self.states[task] is TaskState.READY:
                lease = self._adopt(task, attempt, node, workers, now)
            if (
                lease is not None
                and lease.attempt == attempt
                and lease.node != node
                and stolen.get(attempt) == lease.node
            ):
                self._hand_over(lease, node, workers)
            if lease is None or lease.attempt != attempt or lease.node != node:
                useless.append(attempt)
                continue
            lease.renewed_at_s = now.mono_s
            lease.stolen_from = stolen.get(attempt, lease.stolen_from)
            if attempt in running and not lease.running:
                lease.running, lease.started_us = True, int(now.unix_s * 1e6)
                self.running += 1
                changed = True
        effects: list[SchedulerEffect] = [JobChanged(job=self.job)] if changed else []
        if useless:
            effects.append(
                Send(
                    peer=node,
                    message=Stop(
                        job=self.job, attempts=tuple(useless), reason="another attempt has this task"
                    ),
                )
            )
        return effects

    def on_lost(
        self, node: NodeId, message: Lost, workers: dict[NodeId, Worker], now: Instant
    ) -> list[SchedulerEffect]:
        effects: list[SchedulerEffect] = []
        for needed in message.missing:
            effects += self._new_round(TaskIndex(needed))
        for attempt in message.attempts:
            task = TaskIndex(attempt.task)
            lease = self.leases.get(task)
            if lease is not None and lease.node == node and lease.attempt == attempt:
                effects += self._lose(task, lease, message.reason, workers, now, crash=not message.missing)
        return effects + self.dispatch(workers, now)

    def on_boot(self, node: NodeId, workers: dict[NodeId, Worker], now: Instant) -> list[SchedulerEffect]:
        """The worker's agent was started anew: what it ran is gone (what it had finished, it has offered
        before)."""
        effects: list[SchedulerEffect] = []
        for task, lease in list(self.leases.items()):
            if lease.node == node:
                effects += self._lose(
                    task, lease, "its agent was restarted", workers, now, crash=lease.running
                )
        return effects

    def on_dead(self, node: NodeId, workers: dict[NodeId, Worker], now: Instant) -> list[SchedulerEffect]:
        """Membership takes the worker for dead: its tasks go elsewhere without waiting for the lease.

        Nothing is lost where that is wrong: attempts may overlap, and one result a task is committed.
        """
        effects: list[SchedulerEffect] = []
        for task, lease in list(self.leases.items()):
            if lease.node == node:
                effects += self._lose(
                    task, lease, "its node is taken for dead", workers, now, crash=lease.running
                )
        return effects + self.dispatch(workers, now)

    def on_offer(
        self, node: NodeId, offer: Offer, workers: dict[NodeId, Worker], now: Instant
    ) -> list[SchedulerEffect]:
        """Commits the first valid result of the round; acknowledges it once it is on disk, and any other at
        once."""
        task = TaskIndex(offer.attempt.task)
        ack = Ack(job=self.job, attempt=offer.attempt)
        if not 0 <= task < len(self.states):
            return [Send(peer=node, message=ack)]
        held = self._tasks.setdefault(task, _Task())
        if self.states[task] in COMMITTED or offer.attempt.round != held.round or self.cancelled:
            return [Send(peer=node, message=ack, after=self._last_ticket)]
        lease = self.leases.get(task)
        held.number = max(held.number, offer.attempt.number)
        stolen_from = lease.stolen_from if lease and lease.attempt == offer.attempt else None
        state = "succeeded" if offer.succeeded else "failed"
        held.tries.append(
            Try(
                number=offer.attempt.number,
                node=node,
                state=state,
                exit_code=offer.exit_code,
                started_us=offer.started_us,
                finished_us=offer.finished_us,
                stolen_from=stolen_from,
                error=offer.error,
            )
        )
        effects: list[SchedulerEffect] = []
        if lease is not None and (offer.succeeded or lease.attempt == offer.attempt):
            if lease.attempt != offer.attempt or lease.node != node:
                effects.append(
                    Send(
                        peer=lease.node,
                        message=Stop(
                            job=self.job, attempts=(lease.attempt,), reason="another attempt was first"
                        ),
                    )
                )
            self._release(task, workers)
        if not offer.succeeded:
            held.failures += 1
            if held.failures <= self.graph.spec_of(task).retries:
                if self.states[task] is TaskState.LEASED and task not in self.leases:
                    self._back_to_ready(task, held, now)
                return [
                    *effects,
                    Send(peer=node, message=ack),
                    JobChanged(job=self.job),
                    *self.dispatch(workers, now),
                ]
        return [
            *effects,
            *self._commit(task, node, offer, held, now),
            Send(peer=node, message=ack, after=self._last_ticket),
            *self.dispatch(workers, now),
        ]

    # --- rules ----------------------------------------------------------------------------------------------

    def _commit(
        self, task: TaskIndex, node: NodeId, offer: Offer, held: _Task, now: Instant
    ) -> list[SchedulerEffect]:
        state = TaskState.SUCCEEDED if offer.succeeded else TaskState.FAILED
        row = TaskRow(
            round=held.round,
            state=state.value,
            node=node,
            tries=tuple(held.tries),
            exit_code=offer.exit_code,
            error=offer.error,
            stdout=offer.stdout,
            stderr=offer.stderr,
            manifest=offer.manifest,
            outputs=offer.outputs,
        )
        return self._write_result(task, row, state, now)

    def _write_result(
        self, task: TaskIndex, row: TaskRow, state: TaskState, now: Instant
    ) -> list[SchedulerEffect]:
        self.results[task] = row
        self.done_on[row.node] += 1
        self._settle(task, state)
        self._last_ticket = self._tickets.take()
        effects: list[SchedulerEffect] = [
            Persist(ticket=self._last_ticket, changes=(put_task(self.job, task, row),))
        ]
        return [*effects, *self._finish_if_done(now), JobChanged(job=self.job)]

    def _settle(self, task: TaskIndex, state: TaskState) -> None:
        """Moves a task to its committed state, and those that hang on it along."""
        self._move(task, state)
        if state is TaskState.SUCCEEDED:
            self._progress.succeeded(task)
            self._make_ready(self._progress.take_ready())
        else:
            for skipped in self._progress.failed(task):
                self._move(skipped, TaskState.SKIPPED)

    def _lose(
        self,
        task: TaskIndex,
        lease: Lease,
        reason: str,
        workers: dict[NodeId, Worker],
        now: Instant,
        *,
        crash: bool,
    ) -> list[SchedulerEffect]:
        held = self._tasks[task]
        held.tries.append(
            Try(
                number=lease.attempt.number,
                node=lease.node,
                state="lost",
                started_us=lease.started_us,
                finished_us=int(now.unix_s * 1e6),
                stolen_from=lease.stolen_from,
                error=reason,
            )
        )
        self._release(task, workers)
        held.crashes += crash
        note = Note(
            level="warning",
            fact="an attempt was lost",
            fields=(
                ("job", self.job),
                ("task", self.graph.id_of(task)),
                ("node", key_text(lease.node)[:10]),
                ("reason", reason),
            ),
        )
        if held.crashes >= CRASH_LIMIT:
            error = f"given up: {held.crashes} workers were lost while they ran it (last: {reason})"
            row = TaskRow(
                round=held.round,
                state="failed",
                node=lease.node,
                tries=tuple(held.tries),
                exit_code=None,
                error=error,
                stdout=_NOTHING,
                stderr=_NOTHING,
                manifest=_NOTHING,
                outputs=0,
            )
            return [note, *self._write_result(task, row, TaskState.FAILED, now)]
        self._move(task, TaskState.READY)
        self._ready.appendleft(task)
        return [note, JobChanged(job=self.job)]

    def _new_round(self, task: TaskIndex) -> list[SchedulerEffect]:
        """Runs a task again whose outputs nobody can give any more."""
        row = self.results.get(task)
        held = self._tasks.get(task)
        if (
            row is None
            or held is None
            or self.states[task] is not TaskState.SUCCEEDED
            or held.round > CRASH_LIMIT
        ):
            return []
        held.round += 1
        held.number = 0
        self.done_on[row.node] -= 1
        del self.results[task]
        self._move(task, TaskState.READY)
        self._ready.appendleft(task)
        self._last_ticket = self._tickets.take()
        fields = (("job", self.job), ("task", self.graph.id_of(task)), ("round", str(held.round)))
        return [
            Persist(ticket=self._last_ticket, changes=(delete_task(self.job, task),)),
            Note(
                level="warning", fact="outputs were lost with their node: the task runs again", fields=fields
            ),
        ]

    def _adopt(
        self, task: TaskIndex, attempt: Attempt, node: NodeId, workers: dict[NodeId, Worker], now: Instant
    ) -> Lease | None:
        """Takes over an attempt that was granted before this owner restarted, or whose lease had run out."""
        held = self._tasks.setdefault(task, _Task())
        if attempt.round != held.round:
            return None
        held.number = max(held.number, attempt.number)
        self._move(task, TaskState.LEASED)
        lease = self.leases[task] = Lease(attempt, node, now.mono_s)
        if node in workers:
            workers[node].held += 1
        return lease

    def _hand_over(self, lease: Lease, node: NodeId, workers: dict[NodeId, Worker]) -> None:
        if lease.node in workers:
            workers[lease.node].held -= 1
        if node in workers:
            workers[node].held += 1
        lease.stolen_from, lease.node = lease.node, node

    def _release(self, task: TaskIndex, workers: dict[NodeId, Worker]) -> None:
        lease = self.leases.pop(task)
        self.running -= lease.running
        if lease.node in workers:
            workers[lease.node].held -= 1

    def _back_to_ready(self, task: TaskIndex, held: _Task, now: Instant) -> None:
        self._move(task, TaskState.READY)
        wait = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** (held.failures - 1))
        heapq.heappush(self._retries, (now.mono_s + wait, task))

    def _make_ready(self, tasks: tuple[TaskIndex, ...]) -> None:
        for task in tasks:
            self._move(task, TaskState.READY)
            self._ready.append(task)

    def _cancel_open(self) -> None:
        for number, state in enumerate(self.states):
            if state not in COMMITTED:
                self._move(TaskIndex(number), TaskState.CANCELLED)
        self._ready.clear()
        self._retries.clear()

    def _finish_if_done(self, now: Instant) -> list[SchedulerEffect]:
        if self.finished or sum(self.counts[state] for state in COMMITTED) < len(self.states):
            return []
        self.finished_at_us = int(now.unix_s * 1e6)
        return [self._persist_job()]

    def _persist_job(self) -> Persist:
        self._last_ticket = self._tickets.take()
        row = JobRow(
            signed=self.signed,
            epoch=self.epoch,
            accepted_at_us=self.accepted_at_us,
            cancelled=self.cancelled,
            finished_at_us=self.finished_at_us,
        )
        return Persist(ticket=self._last_ticket, changes=(put_job(self.job, row),))

    @property
    def last_ticket(self) -> Ticket | None:
        """The newest write of this job: whoever waits for it knows that all before it is on disk."""
        return self._last_ticket

    def _holders(self) -> list[NodeId]:
        return sorted({lease.node for lease in self.leases.values()})

    def tries_of(self, task: TaskIndex) -> list[Try]:
        """Returns the attempts so far, the present one included."""
        tries = list(self._tasks[task].tries) if task in self._tasks else []
        lease = self.leases.get(task)
        if lease is not None:
            state = "running" if lease.running else "granted"
            tries.append(
                Try(
                    number=lease.attempt.number,
                    node=lease.node,
                    state=state,
                    started_us=lease.started_us,
                    stolen_from=lease.stolen_from,
                )
            )
        return tries

    def _move(self, task: TaskIndex, after: TaskState) -> None:
        before = self.states[task]
        self.states[task] = move_task(f"{self.job} {task}", before, after)
        self.counts[before] -= 1
        self.counts[after] += 1

    def check(self) -> None:
        """Raises ``InvariantBroken`` where the tables disagree."""
        for task, lease in self.leases.items():
            if self.states[task] is not TaskState.LEASED or lease.attempt.task != task:
                raise InvariantBroken(
                    f"{self.job}: a lease on task {task} in state {self.states[task].value}"
                )
        if self.running != sum(lease.running for lease in self.leases.values()):
            raise InvariantBroken(f"{self.job}: {self.running} running tasks counted, leases say otherwise")
        if collections.Counter(self.states) != +self.counts:
            raise InvariantBroken(f"{self.job}: counts {self.counts} do not match")

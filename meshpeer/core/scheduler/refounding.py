"""Jobs whose record is signed anew while they are open: taken by force, or given replicas as members came.

A job that was submitted alone has one replica, which is all of its quorum; so it alone decides to have three
(``Growth``). Its submitter signs the record once more, with their names. Record, promise and all rows go to
disk in one write: before it the job is this node's alone, after it two of three count. Then workers are told
(``Owns`` names the new record): by the old one they would believe nobody but the submitter.

Where too many of the others will not keep it, or do not answer, it goes on with the one that it had, and asks
them again later (``Replicas``): until they have all rows no quorum is without it.

A job is taken by force where its quorum is gone for good, by a replica that has a part of it. It gets a
record of a new generation, signed by who took it, and begins with what that replica has. Whoever comes back
with the old generation hears of the new one, and drops what it has (``is_outdated``); workers end what they
run. What a quorum knew and this replica did not is run again.

Both begin as after a takeover: the owner takes a new epoch and hears what workers have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Change, Delete, Table
from meshpeer.core.ids import JobId, NodeId, TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.book import NEVER_RUN
from meshpeer.core.scheduler.consensus.messages import Accept, Denied, Prepare
from meshpeer.core.scheduler.consensus.values import Ballot, Replica, Row
from meshpeer.core.scheduler.messages import Epoch, SchedulerEffect, SignJob
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.replica_rows import Journalled, Workers, keys_of, registers_of, takeover_of
from meshpeer.core.scheduler.replicas import Copy
from meshpeer.core.scheduler.rows import JobRow, TaskRow, delete_seat, put_job, put_seat, put_task
from meshpeer.core.scheduler.tables import TaskState

GROW_LOOK_S = 10.0
"""Whom a job would have as replicas has to be the same for so long before it gets them."""
ROUNDS_SKIPPED = 100
"""Rounds of a task that somebody else may have opened without this replica's knowledge: fewer."""
GROW_AGAIN_S = 60.0
"""A record that was to be signed is asked for again after this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a job begins with under its new record."""

    row: JobRow
    tasks: Mapping[TaskIndex, TaskRow]
    workers: tuple[NodeId, ...]
    gone: tuple[Delete, ...]
    """Rows of the old kind, which the new ones take the place of."""

    def written(self, job: JobId, signed: bytes) -> tuple[Change, ...]:
        """Returns all of it as an owner writes it."""
        return (
            put_job(job, msgspec.structs.replace(self.row, signed=signed, replicated=False)),
            *(put_task(job, task, row) for task, row in sorted(self.tasks.items())),
            *(put_seat(job, node) for node in self.workers),
        )

    def registers(self, job: JobId) -> tuple[list[Row], Workers]:
        """Returns it as registers, and the numbers of its workers."""
        workers: Workers = {}
        return registers_of(job, self.written(job, b""), workers), workers


def base_of_owner(owner: JobOwner) -> Base:
    """Returns what the owner of an open job with one replica has in its journal."""
    book, job = owner.book, owner.job
    tasks = {task: book.noted_row(task, owner.epoch.node) for task in book.noted_tasks()}
    workers = tuple(sorted(owner.workers))
    gone = (
        *(Delete(table=Table.TASKS, key=f"{job}/{task:06d}") for task in book.noted_tasks()),
        *(delete_seat(job, node) for node in workers),
    )
    return Base(row=owner.row(), tasks=tasks, workers=workers, gone=gone)


def base_of_copy(copy: Copy) -> Base:
    """Returns what a replica has of a job, whatever others may know beyond.

    Every task that is open here begins a round that no attempt of the generation before had: workers may be
    ending one of the same name.
    """
    taken = takeover_of(copy.record, copy.acceptor.rows.values())
    graph = Graph.of(copy.record.spec)
    for task in map(TaskIndex, range(len(graph))):
        row = taken.tasks.get(task) or NEVER_RUN
        if row.state == TaskState.READY.value:
            fresh, retried = row.round + ROUNDS_SKIPPED, row.retried + ROUNDS_SKIPPED
            taken.tasks[task] = msgspec.structs.replace(row, round=fresh, retried=retried)
    counter = copy.acceptor.vote.promised.counter
    held = Journalled(copy.acceptor.vote, list(copy.acceptor.rows.values()))
    return Base(
        row=msgspec.structs.replace(taken.row, epoch=Epoch(counter, copy.record.submitter)),
        tasks=taken.tasks,
        workers=tuple(taken.workers),
        gone=tuple(Delete(table=Table.REPLICAS, key=key) for key in keys_of(copy.job, held)),
    )


def is_outdated(copy: Copy | None, peer: NodeId, message: msgspec.Struct) -> bool:
    """Says whether a word of who may own a job, or of a replica of it, is of a generation that came after."""
    if copy is None or not (
        peer in copy.names or any(one.node == peer for one in copy.acceptor.vote.membership.everybody)
    ):
        return False
    match message:
        case Prepare(generation=generation) | Accept(generation=generation):
            # Who takes a job by force is one of those that may own it.
            return peer in copy.names and generation > copy.record.generation
        case Denied(promised_generation=generation):
            return generation > copy.record.generation
    return False


def denial_of(
    message: msgspec.Struct, owner: JobOwner | None, copy: Copy | None, me: Replica
) -> Denied | None:
    """Returns what is said to who leads, or wants to lead, an older generation of a job that is owned or kept
    here: it may be no replica any more, and hears nothing else. None for any other word."""
    if not isinstance(message, Prepare | Accept):
        return None
    if copy is not None:
        generation, promised = copy.record.generation, copy.acceptor.vote.promised
    elif owner is not None:
        generation, promised = owner.record.generation, Ballot(owner.epoch.counter, me)
    else:
        return None
    if message.generation >= generation:
        return None
    return Denied(
        job=message.job,
        generation=message.generation,
        ballot=message.ballot,
        promised=promised,
        promised_generation=generation,
    )


class Growth:
    """Finds replicas for open jobs that were submitted alone. Sans-IO; ``machine.Scheduler`` calls it."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._look_at_s = 0.0
        self._chosen: dict[JobId, tuple[NodeId, ...]] = {}
        """Whom each would have, when it was looked at last."""
        self._asked_at_s: dict[JobId, float] = {}

    def next_deadline(self, owners: Iterable[JobOwner]) -> Deadline | None:
        if not any(self._is_alone(owner) for owner in owners):
            return None
        return Deadline(self._look_at_s, "find replicas for jobs that have none")

    def tick(
        self,
        owners: Collection[JobOwner],
        choose: Callable[[JobId], tuple[NodeId, ...]],
        now: Instant,
    ) -> list[SchedulerEffect]:
        """Wants the records of jobs signed anew that can have replicas by now."""
        if now.mono_s < self._look_at_s:
            return []
        self._look_at_s = now.mono_s + GROW_LOOK_S
        before, self._chosen = self._chosen, {}
        effects: list[SchedulerEffect] = []
        for owner in owners:
            if not self._is_alone(owner):
                continue
            chosen = self._chosen[owner.job] = choose(owner.job)
            asked_at_s = self._asked_at_s.get(owner.job)
            waits = asked_at_s is not None and now.mono_s < asked_at_s + GROW_AGAIN_S
            if len(chosen) > 1 and before.get(owner.job) == chosen and not waits:
                self._asked_at_s[owner.job] = now.mono_s
                record: JobRecord = msgspec.structs.replace(owner.record, replicas=chosen)
                effects.append(SignJob(record=record))
        self._asked_at_s = {job: at_s for job, at_s in self._asked_at_s.items() if job in self._chosen}
        return effects

    def _is_alone(self, owner: JobOwner) -> bool:
        return owner.record.submitter == self._me and len(owner.record.replicas) <= 1 and not owner.finished

"""What a replica keeps in the journal, and how an owner's rows become registers.

The table REPLICAS holds ``vote/`` and the job for a replica's promise, and ``row/``, job, task and round for
each row. The owner of a replicated job writes what any owner writes; the rows of tasks become registers of
(task, round), the job's own row the register (-1, 0) (without the record, that every replica has), and the
workers that were given attempts registers of (-2, number).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.effects import Change, Delete, Put, Table
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NODE_ID_BYTES, JobId, NodeId, TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.jobs.rules import FAIL_FAST
from meshpeer.core.scheduler.consensus.messages import Keep
from meshpeer.core.scheduler.consensus.values import Key, Row, Vote, Written
from meshpeer.core.scheduler.messages import Epoch
from meshpeer.core.scheduler.rows import ROW_BYTES_MAX, JobRow, TaskPut, TaskRow, seat_of
from meshpeer.core.scheduler.seals import NUMBER_MAX
from meshpeer.core.scheduler.tables import COMMITTED, TaskState
from meshpeer.core.wire import cbor

JOB_TASK, WORKER_TASK = -1, -2
_TASK_STATES = frozenset(one.value for one in (TaskState.READY, *COMMITTED))
"""What a task's row may say: the other states are its owner's alone."""
_VOTE, _ROW = "vote/", "row/"
WORKERS_MAX = 16_384

Workers = dict[NodeId, int]
"""Those that were given attempts, and the number of each one's register. Numbers may be missing: of batches
that were under way when an owner died, a later one may be all that a quorum has."""


@dataclass(slots=True)
class Journalled:
    """What the journal holds of one replica."""

    vote: Vote = field(default_factory=Vote)
    rows: list[Written] = field(default_factory=list)


@dataclass(slots=True)
class Takeover:
    """What registers say of a job, as its owner restores it."""

    row: JobRow
    tasks: dict[TaskIndex, TaskRow]
    workers: Workers


def changes_of(job: JobId, keep: Keep) -> tuple[Change, ...]:
    """Returns what a replica writes."""
    gone = tuple(Delete(table=Table.REPLICAS, key=_row_key(job, key)) for key in keep.gone)
    vote = Put(table=Table.REPLICAS, key=_VOTE + job, value=cbor.encode(keep.vote))
    rows = tuple(
        Put(table=Table.REPLICAS, key=_row_key(job, row.key), value=cbor.encode(row)) for row in keep.rows
    )
    return (*gone, vote, *rows)


def keys_of(job: JobId, held: Journalled) -> Iterator[str]:
    """Yields the keys of all that a replica has written."""
    yield _VOTE + job
    yield from (_row_key(job, row.key) for row in held.rows)


def read_replicas(rows: Iterable[tuple[str, bytes]]) -> dict[JobId, Journalled]:
    """Reads the table REPLICAS."""
    found: dict[JobId, Journalled] = {}
    for key, value in rows:
        kind, _, rest = key.partition("/")
        job = JobId(rest.partition("/")[0])
        if kind + "/" == _VOTE:
            found.setdefault(job, Journalled()).vote = cbor.decode(value, Vote, bytes_max=ROW_BYTES_MAX)
        elif kind + "/" == _ROW:
            row = cbor.decode(value, Written, bytes_max=ROW_BYTES_MAX)
            found.setdefault(job, Journalled()).rows.append(row)
    return found


def registers_of(job: JobId, changes: Iterable[Change], workers: Workers) -> list[Row]:
    """Returns what the owner of a replicated job writes, as registers; ``workers`` takes up new ones."""
    rows: list[Row] = []
    for change in changes:
        match change:
            case TaskPut(task=task, round=number, decided=decided, value=value):
                rows.append(Row(task, number, decided, value))
            case Put(table=Table.JOBS, value=value):
                own = cbor.decode(value, JobRow, bytes_max=ROW_BYTES_MAX)
                bare = msgspec.structs.replace(own, signed=b"")
                rows.append(Row(JOB_TASK, 0, False, cbor.encode(bare)))
            case Put(table=Table.GRANTS, key=key, value=value):
                node = seat_of(key, value)
                if node is not None and node not in workers and len(workers) < WORKERS_MAX:
                    workers[node] = max(workers.values(), default=-1) + 1
                    rows.append(Row(WORKER_TASK, workers[node], False, node))
            case _:
                continue
    return rows


def takeover_of(record: JobRecord, rows: Iterable[Written]) -> Takeover:
    """Returns what registers say: of each task its latest round, and the job's own row.

    Tasks that were cancelled come as open ones: a job that has one is cancelled, or has failed fast, and ends
    them again. Their rows keep the round, whose register is decided: a retry has to open the next.
    """
    epoch = Epoch(0, record.submitter)
    taken = Takeover(JobRow(signed=b"", epoch=epoch, accepted_at_us=record.submitted_at_us), {}, {})
    latest: dict[TaskIndex, TaskRow] = {}
    for row in sorted(rows, key=lambda one: one.key):
        if row.task == JOB_TASK:
            taken.row = cbor.decode(row.value, JobRow, bytes_max=ROW_BYTES_MAX)
        elif row.task == WORKER_TASK:
            taken.workers[NodeId(row.value)] = row.round
        else:
            latest[TaskIndex(row.task)] = cbor.decode(row.value, TaskRow, bytes_max=ROW_BYTES_MAX)
    graph = Graph(record.spec.tasks)
    cancelled = {task for task, row in latest.items() if row.state == TaskState.CANCELLED.value}
    taken.tasks.update(
        (task, msgspec.structs.replace(row, state=TaskState.READY.value) if task in cancelled else row)
        for task, row in latest.items()
    )
    ended = bool(cancelled) and not any(
        row.state == TaskState.FAILED.value and graph.spec_of(task).on_failure == FAIL_FAST
        for task, row in taken.tasks.items()
    )
    taken.row = msgspec.structs.replace(taken.row, cancelled=ended or taken.row.cancelled)
    return taken


def check_rows(record: JobRecord, rows: Iterable[Row | Written]) -> None:
    """Raises ``PeerFault`` where a row is none of this job: what is kept here is read after a takeover, when
    nobody knows any more who wrote it."""
    count = sum(spec.array.size if spec.array is not None else 1 for spec in record.spec.tasks)
    for row in rows:
        if not (WORKER_TASK <= row.task < count and 0 <= row.round < NUMBER_MAX):
            raise PeerFault(f"a row is of task {row.task}, which the job does not have")
        if row.task == WORKER_TASK:
            if len(row.value) != NODE_ID_BYTES:
                raise PeerFault("a row names a worker that can be none")
        elif row.task == JOB_TASK:
            cbor.decode(row.value, JobRow, bytes_max=ROW_BYTES_MAX)
        else:
            task = cbor.decode(row.value, TaskRow, bytes_max=ROW_BYTES_MAX)
            if task.round != row.round:
                raise PeerFault("a row says another round than its register")
            if task.state not in _TASK_STATES:
                raise PeerFault("a row says a state that no row has")


def job_row_of(rows: dict[Key, Written]) -> JobRow | None:
    """Returns the job's own row, where it is known."""
    row = rows.get((JOB_TASK, 0))
    return cbor.decode(row.value, JobRow, bytes_max=ROW_BYTES_MAX) if row is not None else None


def _row_key(job: JobId, key: Key) -> str:
    return f"{_ROW}{job}/{key[0]:06d}.{key[1]}"

"""What became of each task of one job: its state, its tries, its committed result, and which tasks are ready.

The book knows no workers, leases or time. A task's history is kept from its first try on and moves into its
row once something is committed, so an untouched task costs its state alone and a finished one its row.

A *new round* takes a success back because its outputs are gone. ``Progress`` only ever counts forward, so the
book then counts anew from what is left: O(tasks), for an event that a lost disk causes.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.progress import Progress, meets_exit
from meshpeer.core.jobs.rules import ENDED, EXIT, FAIL_FAST
from meshpeer.core.scheduler.messages import Attempt, Blob, Input, Offer
from meshpeer.core.scheduler.rows import TaskRow, Try
from meshpeer.core.scheduler.tables import COMMITTED, TASK_MOVES, TaskState

NOTHING = Blob(Digest(hashlib.sha256(b"").digest()), 0)
"""The blob of no bytes: what an attempt that never ran has printed."""
NEVER_RUN = TaskRow(
    round=1,
    state=TaskState.READY.value,
    node=NodeId(b""),
    tries=(),
    exit_code=None,
    error="",
    stdout=NOTHING,
    stderr=NOTHING,
    manifest=NOTHING,
    outputs=0,
)
"""What every row of a task without a result is made of."""

SUCCEEDED, FAILED, LOST = "succeeded", "failed", "lost"
_ENDED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED})
_MEETS = {SUCCEEDED: frozenset({TaskState.SUCCEEDED}), FAILED: _ENDED, ENDED: _ENDED}
"""The states in which one task does not stand in the way of a need."""


@dataclass(slots=True)
class History:
    """What is known of a task that was granted and has no committed result.

    A task that is skipped or cancelled keeps it: should it be opened again, its round must not be one that a
    register was decided for.
    """

    round: int = 1
    number: int = 0
    """The highest attempt number given in this round."""
    unstaged: int = 0
    """How often inputs could not be had since the last new round of a need."""
    retried: int = 0
    """Rounds that a person asked for, of this task or of one that had ended it fast."""
    tries: list[Try] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """Counts against ``retries``."""
        return sum(1 for one in self.tries if one.state == FAILED and one.round == self.round)

    @property
    def losses(self) -> int:
        """Counts against the crash limit: workers that were lost while this may have run there."""
        return sum(1 for one in self.tries if one.state == LOST and one.round == self.round)

    def has_ended(self, attempt: Attempt, node: NodeId) -> bool:
        """Tells whether this very attempt's end is already among the tries."""
        return any(
            one.number == attempt.number
            and one.node == node
            and one.round == attempt.round
            and one.state != LOST
            for one in self.tries
        )


class TaskBook:
    """All tasks of one job."""

    __slots__ = (
        "_histories",
        "_job",
        "_progress",
        "_reopened",
        "counts",
        "done_on",
        "failed_fast",
        "graph",
        "results",
        "states",
    )

    def __init__(self, job: JobId, graph: Graph) -> None:
        self._job = job
        self.graph = graph
        self.states = [TaskState.WAITING] * len(graph)
        self.counts: collections.Counter[TaskState] = collections.Counter({TaskState.WAITING: len(graph)})
        self.results: dict[TaskIndex, TaskRow] = {}
        """Committed results of the present round."""
        self.done_on: collections.Counter[NodeId] = collections.Counter()
        """Results committed, by the node that brought them."""
        self.failed_fast = False
        """A task has failed that is to end the rest of the job with it (``on_failure: fail-fast``)."""
        self._histories: dict[TaskIndex, History] = {}
        self._progress = Progress(graph)
        self._reopened = False

    # --- reading ------------------------------------------------------------------------------------------

    @property
    def all_committed(self) -> bool:
        return sum(self.counts[state] for state in COMMITTED) == len(self.states)

    def has(self, task: int) -> bool:
        return 0 <= task < len(self.states)

    def round_of(self, task: TaskIndex) -> int:
        row = self.results.get(task)
        if row is not None:
            return row.round
        history = self._histories.get(task)
        return history.round if history is not None else 1

    def losses_of(self, task: TaskIndex) -> int:
        """Counts the rounds that were opened because a committed task's outputs were lost, and this one."""
        return self.results[task].round - self.results[task].retried

    def tries_of(self, task: TaskIndex) -> list[Try]:
        """Returns the attempts that ended or were lost, of all rounds, in the order of that news."""
        row = self.results.get(task)
        if row is not None:
            return list(row.tries)
        history = self._histories.get(task)
        return list(history.tries) if history is not None else []

    def history(self, task: TaskIndex) -> History:
        """Returns the history of a task without a committed result, a new one at its first grant."""
        history = self._histories.get(task)
        if history is None:
            if self.states[task] in COMMITTED:
                raise InvariantBroken(f"{self.story(task)}: committed tasks have no open history")
            history = self._histories[task] = History()
        return history

    def inputs_of(self, task: TaskIndex) -> Iterator[Input]:
        """Yields what the task's needs have made: those that have succeeded."""
        for needed, need in self.graph.needs_of(task):
            row = self.results.get(needed)
            if row is not None and row.outputs and self.states[needed] is TaskState.SUCCEEDED:
                yield Input(needed, row.manifest, row.node, need.into)

    def input_bytes(self, task: TaskIndex) -> int:
        """Returns what the outputs of the task's needs come to, as far as those who made them said."""
        needed = (self.results.get(one) for one, _ in self.graph.needs_of(task))
        return sum(row.output_bytes for row in needed if row is not None)

    def may_run(self, task: TaskIndex) -> bool:
        """Tells whether a task that was ready still is: a need may have been opened again."""
        return not self._reopened or self.needs_met(task)

    def needs_met(self, task: TaskIndex) -> bool:
        """Tells whether every need has the end that it asks for (``Progress``, counted one by one)."""
        failures: dict[int, bool] = {}
        for needed, need in self.graph.needs_of(task):
            state = self.states[needed]
            if need.when == EXIT:
                row = self.results.get(needed)
                if row is None or not meets_exit(need, row.state, row.exit_code):
                    return False
                continue
            if state not in _MEETS.get(need.when, ()):
                return False
            if need.when == FAILED:
                failures[id(need)] = failures.get(id(need), False) or state is TaskState.FAILED
        return all(failures.values())

    def noted_tasks(self) -> list[TaskIndex]:
        """Returns every task that may have a row: a result, or a history."""
        return sorted({*self.results, *self._histories})

    def noted_row(self, task: TaskIndex, node: NodeId) -> TaskRow:
        """Returns the row of such a task: its result, or what is known of it, as of one that is open."""
        row = self.results.get(task)
        if row is not None:
            return row
        return msgspec.structs.replace(self.cancelled_row(task, node), state=TaskState.READY.value)

    def open_tasks(self) -> Iterator[TaskIndex]:
        """Yields every task that has no committed result."""
        return (TaskIndex(task) for task, state in enumerate(self.states) if state not in COMMITTED)

    def story(self, task: TaskIndex) -> str:
        """Returns what the book knows of a task, for a bug report."""
        return f"{self._job} {self.graph.id_of(task)} round {self.round_of(task)} tries {self.tries_of(task)}"

    # --- moves --------------------------------------------------------------------------------------------

    def take_ready(self) -> list[TaskIndex]:
        """Moves to READY what has become so, and returns it in index order."""
        fresh = [task for task in self._progress.take_ready() if self.states[task] is TaskState.WAITING]
        for task in fresh:
            self.move(task, TaskState.READY)
        return fresh

    def commit(self, task: TaskIndex, row: TaskRow) -> tuple[TaskIndex, ...]:
        """Commits a result; returns the tasks that are skipped because of it."""
        state = TaskState(row.state)
        self._histories.pop(task, None)
        self.move(task, state)
        self.results[task] = row
        self.done_on[row.node] += 1
        if state is TaskState.FAILED:
            self.failed_fast |= self.graph.spec_of(task).on_failure == FAIL_FAST
        ended = self._progress.succeeded if state is TaskState.SUCCEEDED else self._progress.failed
        skipped = tuple(one for one in ended(task, row.exit_code) if self.states[one] not in COMMITTED)
        for one in skipped:
            self.move(one, TaskState.SKIPPED)
        return skipped

    def open_row(self, task: TaskIndex, node: NodeId) -> TaskRow:
        """Returns the row of a task whose history is worth keeping though nothing is committed."""
        history = self.history(task)
        return msgspec.structs.replace(
            NEVER_RUN,
            round=history.round,
            state=TaskState.READY.value,
            node=node,
            tries=tuple(history.tries),
            retried=history.retried,
        )

    def committed_row(self, task: TaskIndex, node: NodeId, offer: Offer) -> TaskRow:
        """Returns the row that commits an offer; its tries hold it already."""
        history = self.history(task)
        return TaskRow(
            round=history.round,
            state=SUCCEEDED if offer.succeeded else FAILED,
            node=node,
            tries=tuple(history.tries),
            exit_code=offer.exit_code,
            error=offer.error,
            stdout=_shared(offer.stdout),
            stderr=_shared(offer.stderr),
            manifest=_shared(offer.manifest),
            outputs=offer.outputs,
            retried=history.retried,
            output_bytes=offer.output_bytes,
        )

    def given_up_row(self, task: TaskIndex, node: NodeId, error: str) -> TaskRow:
        """Returns the row of a task that fails without a result."""
        return msgspec.structs.replace(self.open_row(task, node), state=FAILED, error=error)

    def cancelled_row(self, task: TaskIndex, node: NodeId) -> TaskRow:
        """Returns the row of an open task that was cancelled."""
        history = self._histories.get(task) or History()
        return msgspec.structs.replace(
            NEVER_RUN,
            round=history.round,
            state=TaskState.CANCELLED.value,
            node=node,
            tries=tuple(history.tries),
            retried=history.retried,
        )

    def restore(self, rows: Iterable[tuple[TaskIndex, TaskRow]]) -> None:
        """Replays journal rows, in any order, into a new book."""
        for task, row in rows:
            if row.state == TaskState.READY.value:
                number = max((one.number for one in row.tries if one.round == row.round), default=0)
                self._reopened = self._reopened or row.round > 1
                self._histories[task] = History(
                    round=row.round, number=number, retried=row.retried, tries=list(row.tries)
                )
            else:
                self.move(task, TaskState(row.state))
                self.results[task] = row
                self.done_on[row.node] += 1
        self._replay()

    def cancel_open(self) -> None:
        for task in list(self.open_tasks()):
            self.move(task, TaskState.CANCELLED)

    def reopen(self, tasks: Iterable[TaskIndex]) -> list[TaskIndex]:
        """Opens the next round of succeeded or failed tasks; returns what is READY and was not before.

        What hung on successes goes back to WAITING, except what is leased or committed; what was skipped
        because of failures waits again, where nothing else that it needs has failed, and so does what one
        failure ended fast: in a new round, since that end was committed. What can't run any more is skipped,
        leased or not: its need may ask for a failure that has become a success since.
        """
        self._reopened = True
        for task in tasks:
            row = self.results.pop(task)
            self.done_on[row.node] -= 1
            retried = row.retried + (row.state == FAILED)
            self._histories[task] = History(round=row.round + 1, retried=retried, tries=list(row.tries))
            self.move(task, TaskState.WAITING)
        cancelled = [] if self._has_failed_fast() else self._in_state(TaskState.CANCELLED)
        for task in cancelled:
            history = self._histories.get(task) or History()
            self._histories[task] = History(
                round=history.round + 1, retried=history.retried + 1, tries=list(history.tries)
            )
        for task in (*self._in_state(TaskState.SKIPPED), *cancelled):
            self.move(task, TaskState.WAITING)
        self._progress = Progress(self.graph)
        self._replay()
        ready = set(self._progress.take_ready())
        fresh: list[TaskIndex] = []
        for number, state in enumerate(self.states):
            task = TaskIndex(number)
            if state is TaskState.WAITING and task in ready:
                self.move(task, TaskState.READY)
                fresh.append(task)
            elif state is TaskState.READY and task not in ready:
                self.move(task, TaskState.WAITING)
        return fresh

    def _replay(self) -> None:
        """Counts what is committed into new counters, and skips what can't run because of it."""
        self.failed_fast = self._has_failed_fast()
        succeeded, failed = self._in_state(TaskState.SUCCEEDED), self._in_state(TaskState.FAILED)
        codes = {task: row.exit_code for task, row in self.results.items()}
        for task in self._progress.replay(succeeded, failed, codes):
            if self.states[task] is TaskState.READY:
                self.move(task, TaskState.WAITING)
            if self.states[task] not in COMMITTED:
                self.move(task, TaskState.SKIPPED)

    def _has_failed_fast(self) -> bool:
        failed = self._in_state(TaskState.FAILED)
        return any(self.graph.spec_of(task).on_failure == FAIL_FAST for task in failed)

    def _in_state(self, wanted: TaskState) -> list[TaskIndex]:
        return [TaskIndex(number) for number, state in enumerate(self.states) if state is wanted]

    def move(self, task: TaskIndex, after: TaskState) -> None:
        before = self.states[task]
        if after not in TASK_MOVES[before]:
            raise InvariantBroken(f"{self.story(task)}: a task can't go from {before.value} to {after.value}")
        self.states[task] = after
        self.counts[before] -= 1
        self.counts[after] += 1

    def check(self) -> None:
        """Raises ``InvariantBroken`` where the book contradicts itself."""
        if collections.Counter(self.states) != +self.counts:
            raise InvariantBroken(f"{self._job}: counts {self.counts} do not match the states")
        for number, state in enumerate(self.states):
            task = TaskIndex(number)
            has_row = task in self.results
            if has_row != (state in (TaskState.SUCCEEDED, TaskState.FAILED)):
                raise InvariantBroken(f"{self.story(task)}: state {state.value}, with a result: {has_row}")
            if has_row and self.results[task].state != state.value:
                raise InvariantBroken(
                    f"{self.story(task)}: state {state.value}, row {self.results[task].state}"
                )
            if has_row and task in self._histories:
                raise InvariantBroken(f"{self.story(task)}: committed, with an open history")
            if state is TaskState.READY and not self.needs_met(task):
                raise InvariantBroken(f"{self.story(task)}: ready before its needs")


def _shared(blob: Blob) -> Blob:
    """Lets all empty blobs be one object: most tasks print nothing."""
    return NOTHING if blob == NOTHING else blob

"""Which tasks are ready as others end, and which never will be.

Only counters: one barrier per row for "all of it" needs, one small counter per task for "the same index"
needs. A need is met by one end of what it names (``Need.when``); any other end skips who needs it, and to be
skipped is an end as well. Needs of an exit code are counted one by one: each end of a row that has such needs
is looked at for each of them.
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Collection, Iterator, Mapping

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import Need
from meshpeer.core.jobs.rules import ENDED, EXIT, FAILED, SUCCEEDED


class _Life(enum.IntEnum):
    """What ``Progress`` knows of a task; attempts and leases are the scheduler's business."""

    WAITING = 0
    READY = 1
    SUCCEEDED = 2
    FAILED = 3
    SKIPPED = 4


_ENDS = (_Life.SUCCEEDED, _Life.FAILED, _Life.SKIPPED)


def is_met(when: str, succeeded: int, failed: int, total: int, open_ones: int) -> bool | None:
    """Tells whether a need of ``total`` tasks is met, by how they ended; None while that is open.

    ``succeeded``: all have. ``failed``: all have ended and one has failed. ``ended``: all have, skipped or
    not. What can't be met any more is known before the last one has ended only where success was asked for.
    """
    if when == SUCCEEDED and succeeded + open_ones < total:
        return False
    if open_ones:
        return None
    return when == ENDED or (when == SUCCEEDED and succeeded == total) or (when == FAILED and failed > 0)


def meets_exit(need: Need, state: str, exit_code: int | None) -> bool:
    """Tells whether a task's end meets a need of an exit code. A success that has none counts as 0."""
    code = 0 if exit_code is None and state == SUCCEEDED else exit_code
    return state in (SUCCEEDED, FAILED) and code in need.exits


class Progress:
    """The counters of one job.

    The cost per finished task is constant, amortised over the job, plus one step per ``x[index]`` need. Ends
    may come in any order (a journal replayed by key), so a task may end before it was ever handed out as
    ready. Contradictory ends raise ``InvariantBroken``: the owner commits one result per task.
    """

    __slots__ = (
        "_asked",
        "_barriers",
        "_codes",
        "_doomed",
        "_exits",
        "_failed",
        "_graph",
        "_life",
        "_open",
        "_pending",
        "_same_index_left",
        "_succeeded",
    )

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._life = bytearray(len(graph))
        self._open = [len(graph.tasks_of_row(row)) for row in range(graph.rows)]
        """Per row: tasks that have not ended yet."""
        self._succeeded = [0] * graph.rows
        self._failed = [0] * graph.rows
        self._barriers = [graph.whole_needs(row) for row in range(graph.rows)]
        """Per row: its needs of whole rows that are not met yet."""
        self._doomed = bytearray(graph.rows)
        """Per row: whether who needs all of it to succeed was skipped already."""
        self._same_index_left = array("l")
        """Per task: its needs of one element that are not met yet."""
        self._pending: list[TaskIndex] = []
        self._codes: dict[TaskIndex, int | None] = {}
        """Exit codes of what has ended, where somebody may ask for them."""
        self._exits = [
            {place: True for place, (_, need) in enumerate(graph.rows_after_all_of(row)) if need.when == EXIT}
            for row in range(graph.rows)
        ]
        """Per row: who needs all of it to have an exit code, by place, and whether that may still be."""
        self._asked = bytearray(
            bool(self._exits[row]) or any(need.when == EXIT for _, need in graph.rows_after_each_of(row))
            for row in range(graph.rows)
        )
        for row in range(graph.rows):
            self._same_index_left.extend([graph.same_index_needs(row)] * self._open[row])
            if not self._barriers[row]:
                self._free_row(row)

    def take_ready(self) -> tuple[TaskIndex, ...]:
        """Returns what became ready since the last call, in index order; at first, all without needs."""
        ready = tuple(sorted(task for task in self._pending if self._life[task] == _Life.READY))
        self._pending.clear()
        return ready

    def succeeded(self, task: TaskIndex, exit_code: int | None = None) -> tuple[TaskIndex, ...]:
        """Counts a success once; returns the tasks that can never run because of it, in index order.

        The same news again changes nothing.
        """
        self._graph.row_of(task)
        if self._life[task] == _Life.SUCCEEDED:
            return ()
        self._refuse_second_end(task, "succeeded")
        self._note_code(task, exit_code)
        return self._end(task, _Life.SUCCEEDED)

    def failed(self, task: TaskIndex, exit_code: int | None = None) -> tuple[TaskIndex, ...]:
        """Counts a failure for good; returns the tasks that can never run because of it, in index order.

        The same news again returns nothing, and so does the failure of a task that was skipped before.
        """
        self._graph.row_of(task)
        if self._life[task] in (_Life.FAILED, _Life.SKIPPED):
            return ()
        self._refuse_second_end(task, "failed")
        self._note_code(task, exit_code)
        return self._end(task, _Life.FAILED)

    def replay(
        self,
        succeeded: Collection[TaskIndex],
        failed: Collection[TaskIndex],
        codes: Mapping[TaskIndex, int | None] = {},
    ) -> tuple[TaskIndex, ...]:
        """Counts ends that were committed before these counters were new; returns as ``failed`` does.

        All are known before the first is counted: a need may have ended in another way when a task ran on it
        than it has now, in a later round, and what has ended is not skipped for that.
        """
        for tasks, life in ((succeeded, _Life.SUCCEEDED), (failed, _Life.FAILED)):
            for task in tasks:
                self._graph.row_of(task)
                self._refuse_second_end(task, life.name.lower())
                self._life[task] = life
                self._note_code(task, codes.get(task))
        skipped: list[TaskIndex] = []
        for task in (*succeeded, *failed):
            skipped += self._end(task, _Life(self._life[task]))
        return tuple(sorted(skipped))

    def _end(self, task: TaskIndex, life: _Life) -> tuple[TaskIndex, ...]:
        """Counts an end and all that are skipped because of it."""
        skipped: list[TaskIndex] = []
        self._life[task] = life
        ended = [task]
        while ended:
            one = ended.pop()
            for follower in self._lost_with(one, _Life(self._life[one])):
                if self._life[follower] == _Life.WAITING:
                    self._life[follower] = _Life.SKIPPED
                    skipped.append(follower)
                    ended.append(follower)
        return tuple(sorted(skipped))

    def _lost_with(self, task: TaskIndex, life: _Life) -> Iterator[TaskIndex]:
        """Counts one end; yields who directly follows and can't run now. Each row that needs a whole one is
        looked at twice: at the first end that is no success, and at the last."""
        row = self._graph.row_of(task)
        rows = self._graph.tasks_of_row(row)
        self._open[row] -= 1
        self._succeeded[row] += life is _Life.SUCCEEDED
        self._failed[row] += life is _Life.FAILED
        for after, need in self._graph.rows_after_each_of(row):
            follower = TaskIndex(self._graph.tasks_of_row(after).start + task - rows.start)
            if not self._is_met_by(task, life, need):
                yield follower
                continue
            self._same_index_left[follower] -= 1
            if not self._barriers[after]:
                self._make_ready_if_free(follower)
        dooms = life is not _Life.SUCCEEDED and not self._doomed[row]
        self._doomed[row] |= dooms
        if self._exits[row]:
            yield from self._count_exits(task, life, row)
        for after, need in self._graph.rows_after_all_of(row) if dooms or not self._open[row] else ():
            if need.when == EXIT or (need.when == SUCCEEDED and self._doomed[row] and not dooms):
                continue
            met = is_met(need.when, self._succeeded[row], self._failed[row], len(rows), self._open[row])
            if met is False:
                yield from map(TaskIndex, self._graph.tasks_of_row(after))
            elif met:
                self._barriers[after] -= 1
                if not self._barriers[after]:
                    self._free_row(after)

    def _count_exits(self, task: TaskIndex, life: _Life, row: int) -> Iterator[TaskIndex]:
        """Counts one end for those that need all of its row to have an exit code; yields who can't run
        now."""
        edges = self._graph.rows_after_all_of(row)
        for place, possible in self._exits[row].items():
            after, need = edges[place]
            if possible and not self._is_met_by(task, life, need):
                self._exits[row][place] = False
                yield from map(TaskIndex, self._graph.tasks_of_row(after))
            elif possible and not self._open[row]:
                self._barriers[after] -= 1
                if not self._barriers[after]:
                    self._free_row(after)

    def _is_met_by(self, task: TaskIndex, life: _Life, need: Need) -> bool:
        """Tells whether one task's end meets a need of that task alone, or does not stand in its way."""
        if need.when == EXIT:
            return meets_exit(need, life.name.lower(), self._codes.get(task))
        return bool(is_met(need.when, int(life is _Life.SUCCEEDED), int(life is _Life.FAILED), 1, 0))

    def _note_code(self, task: TaskIndex, exit_code: int | None) -> None:
        if exit_code is not None and self._asked[self._graph.row_of(task)]:
            self._codes[task] = exit_code

    def _free_row(self, row: int) -> None:
        for task in self._graph.tasks_of_row(row):
            self._make_ready_if_free(TaskIndex(task))

    def _make_ready_if_free(self, task: TaskIndex) -> None:
        if not self._same_index_left[task] and self._life[task] == _Life.WAITING:
            self._life[task] = _Life.READY
            self._pending.append(task)

    def _refuse_second_end(self, task: TaskIndex, end: str) -> None:
        life = _Life(self._life[task])
        if life in _ENDS:
            raise InvariantBroken(f"{self._graph.id_of(task)} {end}, but had already {life.name.lower()}")

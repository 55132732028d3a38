"""The expanded job: which tasks there are, and what each needs.

A task's position (``TaskIndex``) follows the file: tasks in file order, the elements of an array in their
order. An array task is one row of the graph and its elements are a range, so ``needs: [render]`` on 100,000
elements is one edge between two rows, never 100,000 objects. ``progress`` counts along its edges. Nothing
here knows of nodes, attempts or time.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator

from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import TaskIndex
from meshpeer.core.jobs.model import JobSpec, Need, TaskSpec, task_id
from meshpeer.core.jobs.nearest import nearest

_INDEX = re.compile(r"(?:0|[1-9][0-9]{0,8})\]", re.ASCII)


Edge = tuple[int, Need]
"""A row that needs another, and the need, which says the end that meets it."""


class Graph:
    """The tasks of one validated job, numbered; immutable, and cheap for 100,000 tasks."""

    __slots__ = ("_first", "_needs", "_row_of_name", "_same_index", "_specs", "_whole")

    def __init__(self, specs: tuple[TaskSpec, ...]) -> None:
        self._specs = specs
        self._row_of_name = {spec.name: row for row, spec in enumerate(specs)}
        self._first = array("l", [0])
        """Where each row's tasks start; one more entry than rows, the last being the number of tasks."""
        for spec in specs:
            self._first.append(self._first[-1] + (1 if spec.array is None else spec.array.size))
        self._needs = tuple(tuple(self._row_of_name[need.task] for need in spec.needs) for spec in specs)
        whole: list[list[Edge]] = [[] for _ in specs]
        same_index: list[list[Edge]] = [[] for _ in specs]
        for row, spec in enumerate(specs):
            for need, needed in zip(spec.needs, self._needs[row], strict=True):
                (same_index if need.same_index else whole)[needed].append((row, need))
        self._whole = tuple(tuple(rows) for rows in whole)
        self._same_index = tuple(tuple(rows) for rows in same_index)

    @classmethod
    def of(cls, spec: JobSpec) -> Graph:
        """Builds the graph of a validated spec; a need that names no task raises ``KeyError``."""
        return cls(spec.tasks)

    def __len__(self) -> int:
        return self._first[-1]

    def spec_of(self, task: TaskIndex) -> TaskSpec:
        """Returns what the file says about this task (shared by all elements of an array)."""
        return self._specs[self.row_of(task)]

    def element_of(self, task: TaskIndex) -> int | None:
        """Returns the task's element in its array, counted from 0; None where there is no array."""
        row = self.row_of(task)
        return None if self._specs[row].array is None else task - self._first[row]

    def id_of(self, task: TaskIndex) -> str:
        """Returns the task's id as people write it, such as ``split`` or ``render[3]``."""
        return task_id(self.spec_of(task).name, self.element_of(task))

    def find(self, text_id: str) -> TaskIndex:
        """Returns the task of this id; raises ``LocalFault`` that suggests ids which exist."""
        name, bracket, index = text_id.partition("[")
        row = self._row_of_name.get(name)
        if row is None:
            raise self._no_such_task(text_id, name)
        tasks = self.tasks_of_row(row)
        if self._specs[row].array is None:
            if bracket:
                raise LocalFault(f"the job has no task {text_id!r}", f"{name} is one task, not an array")
            return TaskIndex(tasks.start)
        elements = f"{name} is an array: {name}[0] to {name}[{len(tasks) - 1}]"
        if not bracket:
            raise LocalFault(f"{text_id!r} names {len(tasks)} tasks, not one", elements)
        if _INDEX.fullmatch(index) is None or int(index[:-1]) >= len(tasks):
            raise LocalFault(f"the job has no task {text_id!r}", elements)
        return TaskIndex(tasks.start + int(index[:-1]))

    def needs_of(self, task: TaskIndex) -> Iterator[tuple[TaskIndex, Need]]:
        """Yields every task that this one needs directly and the need that says so, in the file's order."""
        row = self.row_of(task)
        element = task - self._first[row]
        for need, needed in zip(self._specs[row].needs, self._needs[row], strict=True):
            if need.same_index:
                yield TaskIndex(self._first[needed] + element), need
            else:
                for other in self.tasks_of_row(needed):
                    yield TaskIndex(other), need

    def is_sink(self, task: TaskIndex) -> bool:
        """Tells whether no task needs this one; outputs of such tasks are the job's results."""
        row = self.row_of(task)
        return not self._whole[row] and not self._same_index[row]

    def tasks_named(self, name: str) -> range:
        """Returns the positions of the tasks of this name; raises ``LocalFault`` where there are none."""
        row = self._row_of_name.get(name)
        if row is None:
            raise self._no_such_task(name, name)
        return self.tasks_of_row(row)

    # Rows: one per task of the file. ``progress`` counts by them.

    @property
    def rows(self) -> int:
        """How many tasks the file names."""
        return len(self._specs)

    def row_of(self, task: TaskIndex) -> int:
        """Returns the row of a task; raises ``IndexError`` for a position outside the graph."""
        if not 0 <= task < self._first[-1]:
            raise IndexError(f"no task {task} in a job of {self._first[-1]}")
        return bisect_right(self._first, task) - 1

    def tasks_of_row(self, row: int) -> range:
        """Returns the positions of a row's tasks."""
        return range(self._first[row], self._first[row + 1])

    def whole_needs(self, row: int) -> int:
        """Counts the row's needs that wait for all of another row."""
        return sum(1 for need in self._specs[row].needs if not need.same_index)

    def same_index_needs(self, row: int) -> int:
        """Counts the row's needs that wait for one element each."""
        return len(self._specs[row].needs) - self.whole_needs(row)

    def rows_after_all_of(self, row: int) -> tuple[Edge, ...]:
        """Returns the rows that need all of this one, once per need."""
        return self._whole[row]

    def rows_after_each_of(self, row: int) -> tuple[Edge, ...]:
        """Returns the rows whose elements need this one's element of the same index, once per need."""
        return self._same_index[row]

    def _no_such_task(self, asked: str, name: str) -> LocalFault:
        close = nearest(name, self._row_of_name, count=3)
        names = ", ".join(close or tuple(self._row_of_name)[:5])
        return LocalFault(f"the job has no task {asked!r}", f"{'near' if close else 'its'} tasks: {names}")

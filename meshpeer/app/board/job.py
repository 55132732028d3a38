"""Makes the tables of one job that is looked at: its graph and its tasks. Pure, but for what it remembers.

A job of thousands of tasks is looked at again and again, so of each task the few facts are compared that tell
whether its row is another one; only then the row is made anew. Tables that did not change stay the same
objects, which ``runtime.board`` passes over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from meshpeer.app.board.build import unix_s
from meshpeer.app.board.rows import BoxOfTasks, EdgeRow, TaskRow, TryRow
from meshpeer.app.graph_layout import BOX_HEIGHT, BOX_WIDTH, Layout, lay_out, lines_of
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId, TaskIndex
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.rows import Try
from meshpeer.core.scheduler.views import task_state
from meshpeer.runtime.board import Table
from meshpeer.runtime.control import Task
from meshpeer.runtime.job_docs import JobGraph

TASKS_MAX = 20_000
"""Tasks that are listed, the first ones; the commands list all."""
BOXES_MAX = 200
"""Tasks of the file that are drawn: beyond that a picture says nothing any more."""
LINES_MAX = 3_000
"""Lines from column to column that edges are drawn of."""
TRIES_MAX = 20
"""Attempts of a task that are shown, the last ones."""


class TaskTable:
    """The rows of one job's tasks, brought in step at every look."""

    def __init__(self, name_of: Callable[[NodeId], str]) -> None:
        self._name_of = name_of
        self._marks: list[object] = []
        self._rows: dict[str, TaskRow] = {}
        self._owner: JobOwner | None = None

    def look(self, owner: JobOwner) -> Table:
        """Returns the rows of a job that this node owns; the very same table as before where nothing
        changed."""
        if owner is not self._owner:
            self._owner, self._marks, self._rows = owner, [], {}
        count = min(len(owner.graph), TASKS_MAX)
        if not self._marks:
            self._marks = [None] * count
        states, leases, marks = owner.states, owner.leases, self._marks
        changed: dict[str, TaskRow] = {}
        for number in range(count):
            lease, row = leases.get(TaskIndex(number)), owner.results.get(TaskIndex(number))
            mark = (states[number], row, lease and (lease.attempt, lease.node, lease.running))
            if marks[number] != mark:
                marks[number] = mark
                changed[str(number)] = self._row(owner, TaskIndex(number))
        if changed:
            self._rows = {**self._rows, **changed}
        return self._rows

    def _row(self, owner: JobOwner, task: TaskIndex) -> TaskRow:
        row, lease = owner.results.get(task), owner.leases.get(task)
        node = row.node if row is not None else lease.node if lease is not None else None
        tries = owner.tries_of(task)[-TRIES_MAX:]
        return TaskRow(
            id=owner.graph.id_of(task),
            state=task_state(owner, task),
            node=self._name_of(node) if node is not None else "",
            tries=tuple(self._try(one) for one in tries),
            exit_code=row.exit_code if row is not None else None,
            error=row.error if row is not None else "",
            out=row.stdout.size if row is not None else 0,
            err=row.stderr.size if row is not None else 0,
        )

    def _try(self, one: Try) -> TryRow:
        return TryRow(
            node=self._name_of(one.node),
            state=one.state,
            start=round(one.started_us / 1e6, 3),
            end=round(one.finished_us / 1e6, 3),
            stolen_from=self._name_of(one.stolen_from) if one.stolen_from else "",
        )


def rows_of(tasks: Sequence[Task]) -> dict[str, TaskRow]:
    """Returns the rows of a job that another node owns, as it tells them."""
    return {str(number): _row(one) for number, one in enumerate(tasks[:TASKS_MAX])}


def _row(one: Task) -> TaskRow:
    tries = tuple(
        TryRow(
            node=attempt.node,
            state=attempt.state,
            start=unix_s(attempt.started_at),
            end=unix_s(attempt.finished_at),
            stolen_from=attempt.stolen_from or "",
        )
        for attempt in one.attempts[-TRIES_MAX:]
    )
    return TaskRow(
        id=one.id,
        state=one.state,
        node=one.node or "",
        tries=tries,
        exit_code=one.exit_code,
        error=one.error,
        out=one.stdout_bytes,
        err=one.stderr_bytes,
    )


class GraphTables:
    """The drawing of one job's graph. Where things stand is found anew only for other names or needs."""

    def __init__(self) -> None:
        self._shape: object = None
        self._layout: Layout | None = None
        self._edges: dict[str, EdgeRow] = {}

    def look(self, graph: JobGraph) -> dict[str, Table]:
        """Returns boxes and edges; neither where there are too many to be drawn.

        Raises ``PeerFault`` for what is no graph: its owner may have made it up.
        """
        if len(graph.tasks) > BOXES_MAX:
            return {"graph": {}, "edges": {}}
        shape = tuple((one.name, one.needs) for one in graph.tasks)
        if shape != self._shape:
            self._layout, self._edges = _drawn(graph)
            self._shape = shape
        if self._layout is None:
            return {"graph": {}, "edges": {}}
        places = self._layout.boxes
        boxes = {
            one.name: BoxOfTasks(
                x=places[one.name][0],
                y=places[one.name][1],
                width=BOX_WIDTH,
                height=BOX_HEIGHT,
                count=one.count,
                array=one.array,
                states=one.states,
            )
            for one in graph.tasks
        }
        return {"graph": boxes, "edges": self._edges}


def _drawn(graph: JobGraph) -> tuple[Layout | None, dict[str, EdgeRow]]:
    """Returns where boxes and edges stand, from 0 on; nothing where edges are too many."""
    if sum(len(one.needs) for one in graph.tasks) > LINES_MAX or lines_of(graph) > LINES_MAX:
        return None, {}
    layout = lay_out(graph)
    if len(layout.boxes) < len(graph.tasks):
        raise PeerFault("the tasks of this job make no graph", "ask whoever runs its owner")
    left, top = (min((at[axis] for at in layout.boxes.values()), default=0) for axis in (0, 1))
    edges = {}
    for (need, name), bends in layout.bends.items():
        corners = _corners([layout.boxes[need], *bends, layout.boxes[name]])
        edges[f"{need}>{name}"] = EdgeRow(corners=tuple((x - left, y - top) for x, y in corners))
    boxes = {name: (x - left, y - top) for name, (x, y) in layout.boxes.items()}
    return Layout(boxes=boxes, bends={}), edges


def _corners(boxes: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Yields where a line leaves its first box, passes through those between, and reaches the last."""
    middle = BOX_HEIGHT // 2
    for number, (x, y) in enumerate(boxes):
        if number:
            yield x, y + middle
        if number < len(boxes) - 1:
            yield x + BOX_WIDTH, y + middle

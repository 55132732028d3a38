"""A job's graph drawn in lines: a task of the file is a row, edges run down in lanes on the left, as
histories of commits are drawn. Pure.

Tasks stand in an order in which each comes after what it needs. A lane leads to the one task that it ends at;
edges to one task share a lane, so there are never more lanes than tasks still to come. Where lanes would take
more than a third of the width, rows name what they need instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshpeer.app.cli import show
from meshpeer.app.cli.job_words import STATE_COLOURS, counted
from meshpeer.app.graph_layout import in_order
from meshpeer.runtime.job_docs import GraphTask, JobGraph

UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8
LINES = (" ", "╵", "╷", "│", "╴", "╯", "╮", "┤", "╶", "╰", "╭", "├", "─", "┴", "┬", "┼", "●")
"""A letter for each sum of directions, and the one of a task."""
ASCII = (" ", "|", "|", "|", "-", "+", "+", "+", "-", "+", "+", "+", "-", "+", "+", "+", "*")
TASK = 16
NAME_COLUMNS_MAX = 32

Row = list[tuple[str, str]]
"""Texts with the colour of each."""


def draw_text(graph: JobGraph, *, columns: int, letters: Sequence[str] = LINES) -> list[Row]:
    """Returns the rows of a drawing, none wider than ``columns``."""
    tasks = in_order(graph.tasks)
    head = f"{show.clean(graph.name)}: {show.count(sum(one.count for one in tasks), 'task')}"
    rows: list[Row] = [[(show.cut(head, columns), "bold")]]
    if graph.state:
        rows[0].append(
            (f", {graph.state}"[: max(0, columns - len(head))], STATE_COLOURS.get(graph.state, ""))
        )
    drawn = _Lanes(tasks).draw()
    wide = max((len(cells) for cells, _ in drawn), default=0)
    if 2 * wide > columns // 3:
        return rows + [_listed(one, columns, letters) for one in tasks]
    names = min(NAME_COLUMNS_MAX, max(show.width_of(_name(one)) for one in tasks))
    for cells, task in drawn:
        lanes = _letters(cells, letters, 2 * wide if task is not None else 0)
        if task is None:
            rows.append([(lanes.rstrip(), "dim")])
            continue
        at = 2 * cells.index(TASK)
        left = columns - len(lanes) - 1
        name = show.cut(_name(task), min(names, left))
        told = show.cut(_told(task), max(0, left - names - 2))
        rows.append(
            [
                (lanes[:at], "dim"),
                (lanes[at], _colour(task)),
                (lanes[at + 1 :] + " ", "dim"),
                (name + " " * (names - show.width_of(name) + 2), "bold"),
                (told, _colour(task)),
            ]
        )
    return rows


class _Lanes:
    """Draws rows of cells, each the sum of its directions, or ``TASK``."""

    def __init__(self, tasks: Sequence[GraphTask]) -> None:
        self._tasks = tasks
        self._lanes: list[str] = []
        """Whom each lane leads to; empty for a free one."""
        self._rows: list[tuple[list[int], GraphTask | None]] = []
        self._followers: dict[str, list[str]] = {one.name: [] for one in tasks}
        for one in tasks:
            for need in one.needs:
                if need in self._followers:
                    self._followers[need].append(one.name)

    def draw(self) -> list[tuple[list[int], GraphTask | None]]:
        for task in self._tasks:
            at = self._arrive(task.name)
            cells = [UP | DOWN if lane else 0 for lane in self._lanes]
            cells[at] = TASK
            self._rows.append((cells, task))
            self._leave(at, self._followers[task.name])
        return self._rows

    def _arrive(self, name: str) -> int:
        """Joins the lanes that lead to a task; returns the one that it stands on."""
        mine = [number for number, lane in enumerate(self._lanes) if lane == name]
        if not mine:
            at = self._free()
            if self._rows and at < len(self._rows[-1][0]) and self._rows[-1][0][at]:
                # A task that needs nothing must not seem to follow the one above it.
                self._rows.append(([UP | DOWN if lane else 0 for lane in self._lanes], None))
            self._lanes[at] = name
            return at
        return mine[0]

    def _leave(self, at: int, followers: Sequence[str]) -> None:
        """Lets edges go out to followers: each on the lane that leads there, or on a new one."""
        self._lanes[at] = ""
        before = [bool(lane) for lane in self._lanes]
        goals: list[int] = []
        for name in followers:
            if name in self._lanes:
                goals.append(self._lanes.index(name))
            else:
                free = at if not self._lanes[at] else self._free()
                self._lanes[free] = name
                goals.append(free)
        before += [False] * (len(self._lanes) - len(before))
        if any(one != at for one in goals):
            first, last = min(at, *goals), max(at, *goals)
            cells = [
                (UP if before[number] or number == at else 0)
                | (DOWN if lane else 0)
                | (RIGHT if first <= number < last else 0)
                | (LEFT if first < number <= last else 0)
                for number, lane in enumerate(self._lanes)
            ]
            self._rows.append((cells, None))
        while self._lanes and not self._lanes[-1]:
            self._lanes.pop()

    def _free(self) -> int:
        for number, lane in enumerate(self._lanes):
            if not lane:
                return number
        self._lanes.append("")
        return len(self._lanes) - 1


def _letters(cells: Sequence[int], letters: Sequence[str], width: int) -> str:
    """Returns cells as letters, with a column between two lanes that a line across fills."""
    text = ""
    for cell in cells:
        text += letters[cell] + (letters[LEFT | RIGHT] if cell != TASK and cell & RIGHT else " ")
    return text.ljust(width)


def _listed(task: GraphTask, columns: int, letters: Sequence[str]) -> Row:
    after = f" after {', '.join(task.needs)}" if task.needs else ""
    told = f": {counted(task.states)}" if task.states else ""
    text = show.clean(f" {_name(task)}{after}{told}")
    return [(letters[TASK], _colour(task)), (show.cut(text, columns - 1), "")]


def _name(task: GraphTask) -> str:
    return show.clean(f"{task.name} ({task.count:,})" if task.array else task.name)


def _told(task: GraphTask) -> str:
    if not task.states:
        return ""
    return counted(task.states) if task.array else next(iter(task.states))


def _colour(task: GraphTask) -> str:
    for state in ("failed", "running", "skipped", "cancelled"):
        if task.states.get(state):
            return STATE_COLOURS[state]
    return STATE_COLOURS["succeeded"] if task.states.get("succeeded") == task.count else ""

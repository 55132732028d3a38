"""Where the boxes of a job's graph stand, in pixels. Pure; the picture of ``jobs graph --svg`` and the
dashboard draw from it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from meshpeer.runtime.job_docs import GraphTask, JobGraph

BOX_WIDTH, BOX_HEIGHT = 210, 66
GAP_X, GAP_Y, MARGIN, HEAD = 70, 22, 24, 44


@dataclass(slots=True)
class Layout:
    """Where things stand, in pixels."""

    boxes: dict[str, tuple[int, int]]
    """The upper left corner of each task's box."""
    bends: dict[tuple[str, str], list[tuple[int, int]]]
    """By need and task: the corners of the empty boxes that an edge over several columns goes through."""


def lay_out(graph: JobGraph) -> Layout:
    """Places tasks. A column holds what has equally many steps before it, in the order of the middle of what
    leads there, so that few edges cross; an edge over several columns has a place in each (Sugiyama et al.,
    1981)."""
    tasks = in_order(graph.tasks)
    depth = _depths(tasks)
    leads: dict[tuple[str, str], list[str]] = {}
    columns: dict[int, list[str]] = {}
    into: dict[str, list[str]] = {}
    for task in tasks:
        column = depth[task.name]
        columns.setdefault(column, []).append(task.name)
        for need in task.needs:
            if need not in depth:
                continue
            way = leads[need, task.name] = [
                f"{need}>{task.name}>{one}" for one in range(depth[need] + 1, column)
            ]
            for number, bend in enumerate(way):
                columns.setdefault(depth[need] + 1 + number, []).append(bend)
            for before, after in itertools.pairwise([need, *way, task.name]):
                into.setdefault(after, []).append(before)
    row_of: dict[str, float] = {}
    places: dict[str, tuple[int, int]] = {}
    for number in sorted(columns):
        middles = {
            one: sum(row_of[before] for before in into[one]) / len(into[one]) if one in into else 0.0
            for one in columns[number]
        }
        for row, one in enumerate(sorted(columns[number], key=lambda one: middles[one])):
            row_of[one] = row
            x = MARGIN + number * (BOX_WIDTH + GAP_X)
            places[one] = (x, MARGIN + HEAD - 16 + row * (BOX_HEIGHT + GAP_Y))
    return Layout(
        boxes={task.name: places[task.name] for task in tasks},
        bends={edge: [places[one] for one in way] for edge, way in leads.items()},
    )


def lines_of(graph: JobGraph) -> int:
    """Returns of how many lines, from column to column, the edges of a graph consist: what it costs to lay it
    out, told without doing so."""
    tasks = in_order(graph.tasks)
    depth = _depths(tasks)
    return sum(depth[task.name] - depth[need] for task in tasks for need in task.needs if need in depth)


def _depths(tasks: Sequence[GraphTask]) -> dict[str, int]:
    """Returns the most steps that lead to each of the tasks, which stand in order."""
    depth: dict[str, int] = {}
    for task in tasks:
        depth[task.name] = max((depth[need] + 1 for need in task.needs if need in depth), default=0)
    return depth


def in_order(tasks: Sequence[GraphTask]) -> list[GraphTask]:
    """Returns the tasks so that each comes after what it needs, else as they stand in the file (Kahn, CACM
    1962)."""
    numbers = {one.name: number for number, one in enumerate(tasks)}
    missing = [len({need for need in one.needs if need in numbers}) for one in tasks]
    followers: dict[int, list[int]] = {}
    for number, one in enumerate(tasks):
        for need in dict.fromkeys(one.needs):
            if need in numbers:
                followers.setdefault(numbers[need], []).append(number)
    ready = [number for number, count in enumerate(missing) if not count]
    ordered: list[GraphTask] = []
    while ready:
        number = heapq.heappop(ready)
        ordered.append(tasks[number])
        for follower in followers.get(number, ()):
            missing[follower] -= 1
            if not missing[follower]:
                heapq.heappush(ready, follower)
    return ordered

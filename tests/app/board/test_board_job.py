"""The tables of a job: rows follow its tasks, and tables that did not change are the very same."""

from __future__ import annotations

import itertools

from board_docs import AT

from meshpeer.app.board.job import BOXES_MAX, TRIES_MAX, graph_tables, rows_of
from meshpeer.app.board.rows import BoxOfTasks, EdgeRow, TaskRow, TryRow
from meshpeer.app.graph_layout import BOX_HEIGHT, BOX_WIDTH
from meshpeer.runtime.control import Task, TaskTry
from meshpeer.runtime.job_docs import GraphTask, JobGraph


def test_boxes_of_a_graph_stand_apart_and_edges_lead_from_box_to_box() -> None:
    drawn = graph_tables(
        graph(("split",), ("render", "split"), ("audio", "split"), ("film", "render", "split"))
    )
    boxes = {key: box for key, box in drawn["graph"].items() if isinstance(box, BoxOfTasks)}
    assert set(boxes) == {"split", "render", "audio", "film"}
    assert min(box.x for box in boxes.values()) == min(box.y for box in boxes.values()) == 0
    for one, other in itertools.combinations(boxes.values(), 2):
        assert abs(one.x - other.x) >= BOX_WIDTH or abs(one.y - other.y) >= BOX_HEIGHT
    for key, edge in drawn["edges"].items():
        need, _, name = key.partition(">")
        assert isinstance(edge, EdgeRow)
        start, end = edge.corners[0], edge.corners[-1]
        assert start == (boxes[need].x + BOX_WIDTH, boxes[need].y + BOX_HEIGHT // 2)
        assert end == (boxes[name].x, boxes[name].y + BOX_HEIGHT // 2)
        assert len(edge.corners) % 2 == 0
    assert len(drawn["edges"]) == 4


def test_a_graph_of_too_many_boxes_is_not_drawn() -> None:
    names = [(f"t{number}",) for number in range(BOXES_MAX + 1)]
    assert graph_tables(graph(*names)) == {"graph": {}, "edges": {}}


def test_a_graph_without_tasks_is_empty() -> None:
    assert graph_tables(graph()) == {"graph": {}, "edges": {}}


def test_tasks_of_another_nodes_job_are_shown_as_it_tells_them() -> None:
    attempt = TaskTry(
        n=1,
        node="bravo",
        state="succeeded",
        exit_code=0,
        started_at=AT,
        finished_at="2026-01-31T08:15:02.500000Z",
        stolen_from="alpha",
        error="",
    )
    (row,) = rows_of([task(attempts=(attempt,) * (TRIES_MAX + 5))]).values()
    assert isinstance(row, TaskRow)
    assert (row.id, row.state, row.out) == ("render[3]", "succeeded", 7)
    assert len(row.tries) == TRIES_MAX
    assert row.tries[0] == TryRow(
        node="bravo", state="succeeded", start=1769847300.0, end=1769847302.5, stolen_from="alpha"
    )


# --- helpers ------------------------------------------------------------


def graph(*tasks: tuple[str, ...]) -> JobGraph:
    made = [
        GraphTask(name=name, count=1, array=False, needs=tuple(needs), states={"waiting": 1})
        for name, *needs in tasks
    ]
    return JobGraph(job="j", name="flipbook", state="running", tasks=tuple(made))


def task(attempts: tuple[TaskTry, ...]) -> Task:
    return Task(
        id="render[3]",
        name="render",
        index=3,
        state="succeeded",
        node="bravo",
        attempts=attempts,
        exit_code=0,
        error="",
        stdout_bytes=7,
        stderr_bytes=0,
        outputs=(),
        wanted=True,
    )

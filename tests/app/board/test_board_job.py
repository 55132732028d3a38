"""The tables of a job: rows follow its tasks, and tables that did not change are the very same."""

from __future__ import annotations

import itertools
from typing import cast

import pytest
from fake_control_api import make_attempt

from meshpeer.app.board.build import unix_s
from meshpeer.app.board.job import BOXES_MAX, LINES_MAX, TRIES_MAX, GraphTables, rows_of
from meshpeer.app.board.rows import BoxOfTasks, EdgeRow, TaskRow, TryRow
from meshpeer.app.graph_layout import BOX_HEIGHT, BOX_WIDTH
from meshpeer.core.errors import PeerFault
from meshpeer.runtime.control import Task, TaskTry
from meshpeer.runtime.job_docs import GraphTask, JobGraph


def test_boxes_of_a_graph_stand_apart_and_edges_lead_from_box_to_box() -> None:
    drawn = GraphTables().look(
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
    assert GraphTables().look(graph(*names)) == {"graph": {}, "edges": {}}


def test_a_graph_of_too_many_edges_is_not_drawn_and_costs_no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"t{number}" for number in range(BOXES_MAX)]
    monkeypatch.setattr("meshpeer.app.board.job.lay_out", refuse)
    for dense in (
        graph(*((name, *names[:number]) for number, name in enumerate(names))),
        graph(("a",), ("b", *["a"] * (LINES_MAX + 1))),
    ):
        assert GraphTables().look(dense) == {"graph": {}, "edges": {}}


def test_the_bends_of_few_long_edges_count_as_well() -> None:
    names = [f"t{number}" for number in range(BOXES_MAX)]
    chain = [(name, *names[max(number - 1, 0) : number]) for number, name in enumerate(names)]
    assert len(GraphTables().look(graph(*chain))["edges"]) == BOXES_MAX - 1
    far = [(name, *needs, names[0]) for name, *needs in chain[-40:]]
    assert GraphTables().look(graph(*chain[:-40], *far)) == {"graph": {}, "edges": {}}


def test_a_change_of_state_does_not_lay_the_graph_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = GraphTables()
    one = tables.look(graph(("a",), ("b", "a")))
    monkeypatch.setattr("meshpeer.app.board.job.lay_out", refuse)
    other = tables.look(graph(("a",), ("b", "a"), state="running"))
    assert other["edges"] is one["edges"]
    assert cast(BoxOfTasks, other["graph"]["b"]).states == {"running": 1}


def test_tasks_that_need_each_other_or_share_a_name_are_no_graph() -> None:
    for made_up in (graph(("a", "b"), ("b", "a")), graph(("a", "a")), graph(("a",), ("a",))):
        with pytest.raises(PeerFault):
            GraphTables().look(made_up)


@pytest.mark.parametrize("stamp", ["yesterday", "0001-01-01T00:00:00", "2026-13-31T08:15:00Z"])
def test_a_time_that_is_none_is_refused(stamp: str) -> None:
    with pytest.raises(PeerFault):
        unix_s(stamp)


def test_a_graph_without_tasks_is_empty() -> None:
    assert GraphTables().look(graph()) == {"graph": {}, "edges": {}}


def test_tasks_of_another_nodes_job_are_shown_as_it_tells_them() -> None:
    attempt = make_attempt(
        node="bravo", state="succeeded", finished_at="2026-01-31T08:15:02.500000Z", stolen_from="alpha"
    )
    (row,) = rows_of([task(attempts=(attempt,) * (TRIES_MAX + 5))]).values()
    assert isinstance(row, TaskRow)
    assert (row.id, row.state, row.out) == ("render[3]", "succeeded", 7)
    assert len(row.tries) == TRIES_MAX
    assert row.tries[0] == TryRow(
        node="bravo", state="succeeded", start=1769847300.0, end=1769847302.5, stolen_from="alpha"
    )


# --- helpers ------------------------------------------------------------


def refuse(graph: JobGraph) -> None:
    raise AssertionError("it is laid out")


def graph(*tasks: tuple[str, ...], state: str = "waiting") -> JobGraph:
    made = [
        GraphTask(name=name, count=1, array=False, needs=tuple(needs), states={state: 1})
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

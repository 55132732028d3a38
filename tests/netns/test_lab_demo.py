"""The demo's table of who did what."""

from __future__ import annotations

from demo_table import JobTask, who_did_what


def test_the_busiest_node_comes_first_and_sets_the_scale() -> None:
    tasks = [_task("split", "alpha"), *(_task("render", "bravo", "alpha") for _ in range(2))]
    assert who_did_what(tasks) == [
        f"  bravo  {'#' * 30}    2  (2 render, 2 of them stolen)",
        f"  alpha  {'#' * 15}{' ' * 15}    1  (split)",
    ]


def test_a_task_that_ran_nowhere_is_not_counted() -> None:
    assert who_did_what([_task("split", None)]) == []


def test_only_the_last_attempt_says_whether_a_task_was_stolen() -> None:
    retried = JobTask(name="render", node="alpha", attempts=[{"stolen_from": "bravo"}, {"stolen_from": None}])
    assert who_did_what([retried]) == [f"  alpha  {'#' * 30}    1  (render)"]


def _task(name: str, node: str | None, stolen_from: str | None = None) -> JobTask:
    return JobTask(name=name, node=node, attempts=[{"stolen_from": stolen_from}] if node else [])

"""A job of another node on the dashboard: its owner is asked seldom, and for no more than changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import trio
import trio.testing
from board_docs import job

from meshpeer.app.board.rows import JobRow, TaskRow
from meshpeer.app.board.watched import FAR_S, SHARE, WatchedJob
from meshpeer.core.errors import EnvironmentFault
from meshpeer.runtime.control import Job, Task, TaskTry
from meshpeer.runtime.job_docs import GraphTask, JobGraph


class FarApi:
    """Answers for a job that another node owns, and counts what it is asked."""

    def __init__(self) -> None:
        self.present = job()
        self.state = "running"
        self.needs: tuple[str, ...] = ()
        self.attempts: tuple[TaskTry, ...] = ()
        self.takes_s = 0.0
        self.asked: list[str] = []
        self.fault: EnvironmentFault | None = None

    def owns(self, job: str) -> None:
        return None

    async def job(self, job: str) -> Job:
        self.asked.append("job")
        await trio.sleep(self.takes_s)
        if self.fault is not None:
            raise self.fault
        return self.present

    async def graph(self, job: str) -> JobGraph:
        self.asked.append("graph")
        only = GraphTask(name="t", count=1, array=False, needs=self.needs, states={self.state: 1})
        return JobGraph(job=job, name="flipbook", state="running", tasks=(only,))

    async def tasks(self, job: str) -> list[Task]:
        self.asked.append("tasks")
        return [
            Task(
                id="t",
                name="t",
                index=None,
                state=self.state,
                node="bravo",
                attempts=self.attempts,
                exit_code=None,
                error="",
                stdout_bytes=0,
                stderr_bytes=0,
                outputs=(),
                wanted=True,
            )
        ]


async def test_its_owner_is_asked_once_for_all_pages_and_for_tasks_where_something_changed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api, watched = watch()
    first = await watched.tables()
    assert await watched.tables() == first
    assert api.asked == ["job", "graph", "tasks"]
    assert cast(TaskRow, first["tasks"]["0"]).state == "running"
    await trio.sleep(FAR_S)
    unchanged = dict(await watched.tables())
    assert api.asked == ["job", "graph", "tasks", "job"]
    assert unchanged["tasks"] is first["tasks"]
    api.state, api.present = "succeeded", job(running_on={"bravo": 1})
    await trio.sleep(FAR_S)
    assert cast(TaskRow, (await watched.tables())["tasks"]["0"]).state == "succeeded"


async def test_an_owner_that_answers_slowly_is_asked_more_seldom(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api, watched = watch()
    api.takes_s = 1.0
    await watched.tables()
    await trio.sleep(SHARE - 0.5)
    await watched.tables()
    assert api.asked.count("job") == 1
    await trio.sleep(1)
    await watched.tables()
    assert api.asked.count("job") == 2


async def test_a_replicas_word_has_no_graph_and_says_of_when_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api, watched = watch()
    api.present = job(as_of="2026-01-31T08:16:00.000000Z")
    tables = await watched.tables()
    assert "graph" not in api.asked
    assert cast(JobRow, tables["job"]["jflipbook"]).as_of == "2026-01-31T08:16:00.000000Z"


async def test_what_keeps_it_from_being_known_is_said_and_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api, watched = watch()
    api.fault = EnvironmentFault("bravo can't be asked", "is bravo up?")
    tables = await watched.tables()
    assert cast(JobRow, tables["job"]["jflipbook"]).trouble == "bravo can't be asked: is bravo up?"
    api.fault = None
    await trio.sleep(FAR_S)
    tables = await watched.tables()
    assert cast(JobRow, tables["job"]["jflipbook"]).trouble == ""
    assert set(tables["tasks"]) == {"0"}


async def test_what_another_node_made_up_is_shown_as_trouble(autojump_clock: trio.testing.MockClock) -> None:
    api, watched = watch()
    api.needs = ("t",)
    assert "no graph" in cast(JobRow, (await watched.tables())["job"]["jflipbook"]).trouble
    api.needs, api.attempts = (), (attempt_at("yesterday"),)
    await trio.sleep(FAR_S)
    assert "a time of this job" in cast(JobRow, (await watched.tables())["job"]["jflipbook"]).trouble


def test_rows_are_small_where_there_is_little_to_say() -> None:
    row = TaskRow(id="render[3]", state="waiting")
    assert msgspec.json.encode(row) == b'{"id":"render[3]","state":"waiting"}'


# --- helpers ------------------------------------------------------------


def attempt_at(stamp: str) -> TaskTry:
    return TaskTry(
        n=1,
        node="bravo",
        state="running",
        exit_code=None,
        started_at=stamp,
        finished_at=None,
        stolen_from=None,
        error="",
    )


def watch() -> tuple[FarApi, WatchedJob]:
    api = FarApi()
    agent: Any = SimpleNamespace(api=api, node=None)
    return api, WatchedJob(agent, "jflipbook")

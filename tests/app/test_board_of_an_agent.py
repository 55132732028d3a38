"""The dashboard's view of a whole agent: what a job's page shows as it runs, and what orders do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.lowlevel
from agents import running, settings_of, spec_of, submission, until

from meshpeer.app.board.board import Board
from meshpeer.app.board.rows import JobRow, MemberRow, StoryRow, TaskRow
from meshpeer.app.board.story import LOGGED_MAX
from meshpeer.app.board.watched import LOOK_S
from meshpeer.app.founding import found
from meshpeer.app.options import InitOptions
from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import JobId
from meshpeer.runtime.board import Order, View, differences


async def test_a_job_is_seen_from_its_first_task_to_its_end_and_then_stays_as_it_is(folder: Path) -> None:
    async with running(settings_of(folder)) as agent:
        board = Board(agent)
        await board.view("", narrow=False)
        spec = spec_of({"one": {"run": ["echo", "said"]}, "two": {"needs": ["one"], "run": ["true"]}})
        job = (await agent.api.submit(submission(spec))).id
        view = await seen(board, job, "succeeded")
        assert set(view.table("graph")) == {"one", "two"}
        assert set(view.table("edges")) == {"one>two"}
        rows = [cast(TaskRow, row) for row in view.table("tasks").values()]
        assert [(row.id, row.state, len(row.tries), row.out) for row in rows] == [
            ("one", "succeeded", 1, 5),
            ("two", "succeeded", 1, 0),
        ]
        assert all(row.tries[0].start <= row.tries[0].end for row in rows)
        again = await board.view(job, narrow=False)
        assert again.table("tasks") is view.table("tasks")
        assert {one.table for one in differences(view, again)} <= {"mesh", "members", "story"}
        piece = await board.log(job, "one", "stdout", 0, 0)
        assert (piece.data, piece.finished) == (b"said\n", True)
        told = [cast(StoryRow, row).text for row in again.table("story").values()]
        assert any("is succeeded" in one for one in told)
        for number in range(LOGGED_MAX + 5):
            agent.log.write("info", f"fact {number}", ())
        story = (await fresh(board)).table("story").values()
        logged = [cast(StoryRow, row).text for row in story if cast(StoryRow, row).kind == "log"]
        assert logged == [f"fact {number}" for number in range(5, LOGGED_MAX + 5)]
        assert any("is succeeded" in cast(StoryRow, row).text for row in story)


async def test_orders_do_what_commands_do_and_are_refused_like_them(folder: Path) -> None:
    async with running(settings_of(folder)) as agent:
        board = Board(agent)
        spec = spec_of({"nap": {"run": ["sleep", "600"]}, "bad": {"run": ["false"]}}, name="mixed")
        job = (await agent.api.submit(submission(spec))).id
        await until(lambda: agent.node.scheduler.owned[JobId(job)].running == 1)
        assert await board.order(Order(what="pause", job=job)) == "mixed is paused"
        assert (await agent.api.job(job)).paused
        assert await board.order(Order(what="resume", job=job)) == "mixed is not paused any more"
        assert (
            await board.order(Order(what="retry", job=job, tasks=("bad",))) == "mixed runs again what failed"
        )
        assert await board.order(Order(what="drain")) == "hermitage takes no new work"
        assert (await agent.api.status()).node.drained
        assert cast(MemberRow, next(iter((await fresh(board)).table("members").values()))).work == "drained"
        assert await board.order(Order(what="undrain")) == "hermitage takes work again"
        assert await board.order(Order(what="cancel", job=job)) == "mixed is cancelled"
        assert cast(JobRow, (await fresh(board)).table("jobs")[job]).state == "cancelled"
        for order in (
            Order(what="explode"),
            Order(what="cancel", job="jnobody"),
            Order(what="retry", job=job),
            Order(what="drain", node="nobody"),
            Order(what="retry", job=job, tasks=("t",) * 1_001),
        ):
            with pytest.raises(LocalFault):
                await board.order(order)


async def test_a_job_that_nobody_knows_is_said_to_be_unknown(folder: Path) -> None:
    async with running(settings_of(folder)) as agent:
        view = await Board(agent).view("jnobody", narrow=True)
        row = cast(JobRow, view.table("job")["jnobody"])
        assert row.state == "unknown"
        assert "jnobody" in row.trouble
        assert view.table("tasks") == {}


# --- helpers ------------------------------------------------------------


async def fresh(board: Board) -> View:
    """Returns what is seen at the next look."""
    last = await board.view("", narrow=False)
    return await looked(board, "", lambda view: view.table("members") is not last.table("members"))


async def seen(board: Board, job: str, state: str) -> View:
    """Returns what is seen once the job is in a state, on its own page and in the list."""

    def is_there(view: View) -> bool:
        rows = [view.table(name).get(job) for name in ("job", "jobs")]
        return all(isinstance(row, JobRow) and row.state == state for row in rows)

    return await looked(board, job, is_there)


async def looked(board: Board, job: str, condition: Callable[[View], bool]) -> View:
    with trio.fail_after(30):
        while True:
            view = await board.view(job, narrow=False)
            if condition(view):
                return view
            await trio.sleep(LOOK_S / 5)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="meshpeer-test-"))
    os.chmod(path, 0o711)
    try:
        found(InitOptions(name="hermitage"), settings_of(path))
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)

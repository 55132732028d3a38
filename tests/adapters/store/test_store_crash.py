"""Killed before any statement, the journal holds everything that was acknowledged, and no half of
anything.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from meshpeer.adapters.store import open_store
from meshpeer.core.effects import Put, Table
from meshpeer.core.ids import Ticket
from meshpeer.runtime.ports import Committed

STEPS = Path(__file__).with_name("crash_steps.py")
TICKETS = list(range(1, 7))


class Run(msgspec.Struct, frozen=True):
    """One child: before which statement it was killed, what it had acknowledged, how it ended."""

    step: int
    tickets: list[int]
    status: int


@pytest.mark.parametrize("batch", [1, 3])
async def test_killed_at_any_statement_what_was_acknowledged_is_there(tmp_path: Path, batch: int) -> None:
    runs = _run_all_steps(tmp_path, batch)
    for run in runs:
        path = tmp_path / str(run.step) / "state.db"
        async with open_store(path) as store:
            tasks = [int(value) for _, value in store.load(Table.TASKS)]
            assert tasks == TICKETS[: len(tasks)], run
            assert set(run.tickets) <= set(tasks), run
            newest = [b"%d" % max(tasks)] if tasks else []
            assert [value for _, value in store.load(Table.RESULTS)] == newest, run
            assert [value for _, value in store.load(Table.GRANTS)] == newest, run
            store.commit_soon(Ticket(1), [Put(table=Table.JOBS, key="after", value=b"")])
            assert await store.outcomes.receive() == Committed(tickets=(Ticket(1),)), run
    *killed, last = runs
    assert {run.status for run in killed} == {-signal.SIGKILL}
    assert (last.status, last.tickets) == (0, TICKETS)
    reached = {len(run.tickets) for run in killed}
    assert reached >= set(range(0, 6, batch)), "the steps did not reach every commit"


def _run_all_steps(folder: Path, batch: int) -> list[Run]:
    done = subprocess.run(
        [sys.executable, str(STEPS), str(folder), str(batch)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [msgspec.json.decode(line, type=Run) for line in done.stdout.splitlines()]

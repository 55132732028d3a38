"""An end that no quorum is known to have is shown to nobody as one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "adapters" / "control"))

from fake_control_api import AT, make_attempt, make_task

from meshpeer.app.views import until_chosen

FIRST = make_attempt(state="failed", exit_code=3, finished_at=AT, error="exit code 3")
LAST = make_attempt(n=2, state="succeeded", finished_at=AT)


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_task_that_ended_runs_until_its_end_is_chosen(state: str) -> None:
    ended = make_task(state=state, attempts=(FIRST, LAST), exit_code=0, outputs=("film.gif",))
    shown = until_chosen(ended)
    assert (shown.state, shown.exit_code, shown.outputs) == ("running", None, ())
    first, last = shown.attempts
    assert first == FIRST, "what was chosen before stays"
    assert (last.state, last.exit_code, last.finished_at, last.started_at) == ("running", None, None, AT)


@pytest.mark.parametrize("state", ["waiting", "ready", "running"])
def test_what_has_not_ended_is_shown_as_it_is(state: str) -> None:
    task = make_task(state=state, attempts=(FIRST,))
    assert until_chosen(task) == task

"""What the doctor makes of how tasks are kept in."""

from __future__ import annotations

from meshpeer.app.doctor.tasks import judge_tasks
from meshpeer.runtime.ports import Gap

GAP = Gap(what="memory of tasks is bounded one process at a time", hint="run it as a service")


def test_tasks_that_are_bounded_are_in_order() -> None:
    (found,) = judge_tasks("a uid per slot (61000-61003)", (), None)

    assert (found.level, found.check) == ("ok", "isolation")
    assert found.text.startswith("tasks run under a uid per slot (61000-61003)")


def test_every_gap_is_a_warning_with_what_mends_it() -> None:
    found = judge_tasks("the agent's own user", (GAP, GAP), None)

    assert [(one.level, one.text, one.todo) for one in found] == [("warning", GAP.what, (GAP.hint,))] * 2


def test_file_of_secrets_that_is_refused_is_bad() -> None:
    *_, found = judge_tasks("a uid per slot", (), ("secrets.toml: can be read by others", "chmod 600 it"))

    assert (found.level, found.check, found.todo) == ("bad", "secrets", ("chmod 600 it",))

"""What the doctor makes of how tasks are kept in."""

from __future__ import annotations

from meshpeer.adapters.interpreter import TaskInterpreter
from meshpeer.app.doctor.tasks import judge_python, judge_tasks
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


async def test_the_python_for_functions_is_named_and_a_missing_one_is_a_warning() -> None:
    (fine,) = await judge_python(TaskInterpreter("/bin/sh", "", lambda _: "3.12"))
    (missing,) = await judge_python(TaskInterpreter("", "/nonexistent"))

    assert (fine.level, fine.check, fine.text) == ("ok", "python", "functions run with Python 3.12 (/bin/sh)")
    assert (missing.level, missing.text) == (
        "warning",
        "tasks that are functions can't run here: this node has no python3 for tasks in /nonexistent",
    )
    assert "python under [jobs]" in missing.todo[0]

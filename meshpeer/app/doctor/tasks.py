"""Judges how tasks are kept in on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from meshpeer.core.errors import EnvironmentFault
from meshpeer.runtime.doctor import BAD, OK, WARNING, Finding
from meshpeer.runtime.ports import Gap, Interpreter

TASKS = "tasks"


def judge_tasks(isolation: str, gaps: Sequence[Gap], secrets_fault: tuple[str, str] | None) -> list[Finding]:
    """Are tasks kept apart, and from what is not theirs? ``secrets_fault``: what is wrong with the file of
    secrets, and what to do."""
    found = [
        Finding(group=TASKS, check="isolation", level=WARNING, text=gap.what, todo=(gap.hint,))
        for gap in gaps
    ]
    if not gaps:
        text = f"tasks run under {isolation}, with bounds on memory, processes and output"
        found = [Finding(group=TASKS, check="isolation", level=OK, text=text)]
    if secrets_fault is not None:
        what, hint = secrets_fault
        found.append(
            Finding(group=TASKS, check="secrets", level=BAD, text=what, todo=(hint,) if hint else ())
        )
    return found


async def judge_python(interpreter: Interpreter) -> list[Finding]:
    """Is there a Python for tasks that are functions, and which?"""
    try:
        python = await interpreter.find()
    except EnvironmentFault as fault:
        text = f"tasks that are functions can't run here: {fault.what}"
        return [Finding(group=TASKS, check="python", level=WARNING, text=text, todo=(fault.hint,))]
    text = f"functions run with Python {python.version} ({python.program})"
    return [Finding(group=TASKS, check="python", level=OK, text=text)]

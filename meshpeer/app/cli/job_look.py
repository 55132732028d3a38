"""Looking at jobs: which there are, how each does, its tasks, and why they are where they are."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.job_words import (
    HINDRANCES,
    STATE_COLOURS,
    JobName,
    ended_of,
    painted,
    print_job,
)

if TYPE_CHECKING:
    from meshpeer.runtime.control import Job, Task
    from meshpeer.runtime.job_docs import JobWhy, WhyTasks

_WHY = """
Examples:
  meshpeer jobs why film               what is waiting, and for what
  meshpeer jobs why film 'render[3]'   why this task does not run, or failed
"""


def add_to_jobs(jobs: typer.Typer) -> None:
    command(jobs, "list", panel="Look")(list_jobs)
    command(jobs, "status", panel="Look")(status)
    command(jobs, "tasks", panel="Look")(tasks)
    command(jobs, "why", panel="Look", examples=_WHY)(why)


def list_jobs(
    asked: Asked,
    here: Annotated[bool, typer.Option("--here", help="Only those that this node owns.")] = False,
) -> None:
    """List the jobs of all nodes that can be asked, newest first."""
    client = asked.client()
    silent: tuple[str, ...] = ()
    if here:
        found = client.jobs()
    else:
        listed = client.all_jobs()
        found, silent = list(listed.jobs), listed.silent
    if asked.json:
        show.document(found)
    elif asked.quiet:
        for one in found:
            show.line(one.id)
    elif found:
        print_jobs(found)
    else:
        show.line(f"No job has been submitted {'at this node' if here else 'yet'}.")
        show.line("  submit one with: meshpeer jobs submit FILE")
    if silent and not asked.json and not asked.quiet:
        names = show.clean(", ".join(silent[:5])) + (f" and {len(silent) - 5} more" if silent[5:] else "")
        show.remark(f"not asked, or without an answer: {names}; jobs of theirs are not listed")


def print_jobs(found: list[Job]) -> None:
    rows = [
        [
            one.id,
            one.name,
            one.shown_state,
            f"{ended_of(one.tasks):,} of {one.tasks.total:,}",
            one.owner,
            show.moment(one.submitted_at),
        ]
        for one in found
    ]
    show.table(["ID", "NAME", "STATE", "TASKS", "OWNER", "SUBMITTED (UTC)"], rows, colours=STATE_COLOURS)


def status(asked: Asked, job: JobName) -> None:
    """Show how a job is doing; at any node."""
    found = asked.client().job(job)
    if asked.json:
        show.document(found)
    elif asked.quiet:
        show.line(found.state)
    else:
        print_job(found)


def tasks(asked: Asked, job: JobName) -> None:
    """List a job's tasks: where each ran, and how it ended."""
    found = asked.client().tasks(job)
    if asked.json:
        show.document(found)
        return
    if asked.quiet:
        for one in found:
            show.line(one.id)
        return
    rows = [_task_row(one) for one in found]
    show.table(
        ["TASK", "STATE", "NODE", "TRIES", "EXIT", "OUTPUTS"], rows, right=(3, 4), colours=STATE_COLOURS
    )
    for one in [one for one in found if one.state == "failed"][:10]:
        show.line(
            show.clean(
                f"{one.id}: {one.error or 'it failed'}; see: meshpeer jobs logs {job} {shlex.quote(one.id)}"
            )
        )


def _task_row(one: Task) -> list[str]:
    stolen = any(attempt.stolen_from for attempt in one.attempts)
    outputs = ", ".join(one.outputs[:3]) + (
        f" and {len(one.outputs) - 3} more" if len(one.outputs) > 3 else ""
    )
    node = f"{one.node}*" if one.node and stolen else one.node or "-"
    return [
        one.id,
        one.state if not one.input_bytes else staging_words(one),
        node,
        str(len(one.attempts)),
        "-" if one.exit_code is None else str(one.exit_code),
        outputs or "-",
    ]


def staging_words(one: Task) -> str:
    """Returns how far the inputs of a task are: ``staging 1.2 GiB of 5.0 GiB``."""
    return f"staging {show.size(one.staged_bytes)} of {show.size(one.input_bytes)}"


def why(
    asked: Asked,
    job: JobName,
    task: Annotated[
        str,
        typer.Argument(
            metavar="[TASK]", help="A task's id, such as render[3] [all not done].", show_default=False
        ),
    ] = "",
) -> None:
    """Say why a job, or a task, is where it is: what it waits for, and who has that."""
    found = asked.client().why_task(job, task)
    if asked.json:
        show.document(found)
    elif task:
        (reason,) = found.reasons
        show.line(f"{show.heading(show.clean(task))} {show.clean(_verb(reason))}")
    else:
        _print_why(found)
    if not asked.json and not asked.quiet:
        for line in _todo(found):
            show.line(f"  {show.clean(line)}")


def _print_why(found: JobWhy) -> None:
    state = "paused" if found.paused and found.state in ("pending", "running") else found.state
    show.line(f"{show.heading(f'{found.job} ({show.clean(found.name)})')}: {painted(state)}")
    for one in found.reasons:
        show.line(f"  {show.clean(_tasks(one))} {show.clean(_verb(one))}")


def _tasks(one: WhyTasks) -> str:
    """Returns ``render[3]``, ``render[3] and render[7]``, ``24 tasks (render[0], render[1], ...)``."""
    if one.count <= 2:
        return " and ".join(one.tasks)
    return f"{one.count:,} tasks ({', '.join(one.tasks[:2])}, ...)"


def _verb(one: WhyTasks) -> str:
    """Returns the reason behind its subject, which may be several."""
    if one.code in HINDRANCES:
        return f"waiting: {one.text}"
    if one.count > 1:
        for single, several in (("is ", "are "), ("runs ", "run "), ("waits ", "wait ")):
            if one.text.startswith(single):
                return several + one.text.removeprefix(single)
    return one.text


def _todo(found: JobWhy) -> list[str]:
    """Returns what a person may do about it."""
    codes = {one.code for one in found.reasons}
    todo: list[str] = []
    if found.paused:
        todo.append(f"let it go on with: meshpeer jobs resume {found.job}")
    if codes & {"no_worker", "no_fit", "busy"}:
        todo.append("see who takes work with: meshpeer peers")
    failed = [one for one in found.reasons if one.code == "failed"]
    if failed:
        todo.append(
            f"see what it printed with: meshpeer jobs logs {found.job} {shlex.quote(failed[0].tasks[0])}"
        )
        todo.append(f"run what failed again with: meshpeer jobs retry {found.job}")
    return todo

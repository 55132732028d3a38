"""Having a say in jobs at work: pause, resume, priority, retry, cancel."""

from __future__ import annotations

from typing import Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.job_words import JobName
from meshpeer.runtime.control import Job

_RETRY = """
Examples:
  meshpeer jobs retry film                 all that failed, and what was skipped
  meshpeer jobs retry film 'render[3]'     this one, and what was skipped for it
"""
_ADOPT = """
Examples:
  meshpeer jobs adopt film             what it would take, and what may run twice
  meshpeer jobs adopt film --force     its other replicas are gone for good
"""


def add_to_jobs(jobs: typer.Typer) -> None:
    command(jobs, "pause", panel="Run")(pause)
    command(jobs, "resume", panel="Run")(resume)
    command(jobs, "priority", panel="Run")(priority)
    command(jobs, "retry", panel="Run", examples=_RETRY)(retry)
    command(jobs, "cancel", panel="Run")(cancel)
    command(jobs, "adopt", panel="Run", examples=_ADOPT)(adopt)


def pause(asked: Asked, job: JobName) -> None:
    """Start nothing more of a job; what runs goes on to its end."""
    found = asked.client().pause(job, True)
    running = found.tasks.running
    still = f"; {show.count(running, 'task')} still run{'s' * (running == 1)}" if running else ""
    _answer(asked, found, f"is paused{still}", f"let it go on with: meshpeer jobs resume {found.id}")


def resume(asked: Asked, job: JobName) -> None:
    """Let a paused job go on."""
    _answer(asked, asked.client().pause(job, False), "goes on")


def priority(
    asked: Asked,
    job: JobName,
    number: Annotated[
        int, typer.Argument(metavar="N", help="-1000 to 1000; the higher goes first, 0 is usual.")
    ],
) -> None:
    """Give a job another priority, while it runs too.

    What was handed to workers before keeps its place. For a negative number write -- before the job.
    """
    found = asked.client().prioritise(job, number)
    _answer(asked, found, f"has priority {found.priority}")


def retry(
    asked: Asked,
    job: JobName,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK...]",
            help="Tasks or arrays that failed, such as render[3] [all that failed].",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run again what failed, and what was skipped because of it.

    Each task gets its retries anew. Results that were committed stay.
    """
    found = asked.client().retry(job, tuple(tasks or ()))
    left = found.tasks.total - found.tasks.succeeded - found.tasks.failed - found.tasks.skipped
    _answer(
        asked,
        found,
        f"goes on with {show.count(left, 'task')}",
        f"watch it with: meshpeer jobs watch {found.id}",
    )


def cancel(asked: Asked, job: JobName) -> None:
    """Cancel a job: running tasks are stopped, others never start.

    A task gets SIGTERM, and after 5 s SIGKILL. Results that were committed stay.
    """
    found = asked.client().cancel(job)
    if asked.json:
        show.document(found)
    elif not asked.quiet:
        done = found.tasks.succeeded
        show.line(
            f"{found.id} ({show.clean(found.name)}) is {found.state}; "
            f"{show.count(done, 'task')} had succeeded"
        )


def adopt(
    asked: Asked,
    job: JobName,
    force: Annotated[bool, typer.Option("--force", help="Do it; without, say what it would mean.")] = False,
) -> None:
    """Take a job over by hand, on a node that keeps a replica of it.

    For a job that shows "blocked: no quorum" because two of its three replicas are gone for good. It goes on
    as a new generation, as this node's job, with the results that this replica has: tasks may run again that
    had run, and results may differ. Whoever comes back with the old generation drops it.
    """
    found = asked.client().adopt(job, force)
    left = found.tasks.total - found.tasks.succeeded - found.tasks.failed - found.tasks.skipped
    _answer(
        asked,
        found,
        f"is this node's job now, with {show.count(found.tasks.succeeded, 'result')}; "
        f"{show.count(left, 'task')} may run again",
        f"watch it with: meshpeer jobs watch {found.id}",
    )


def _answer(asked: Asked, job: Job, said: str, next_step: str = "") -> None:
    if asked.json:
        show.document(job)
    elif not asked.quiet:
        show.line(f"{job.id} ({show.clean(job.name)}) {said}")
        if next_step:
            show.line(f"  {next_step}")

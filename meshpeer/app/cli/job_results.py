"""What tasks printed, how they ended, and which files they made (``job_files`` fetches these)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import job_files, show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.faults import FAILED, tell
from meshpeer.app.cli.job_words import JobName
from meshpeer.core.errors import LocalFault

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient
    from meshpeer.runtime.control import OutputFile, Task

_RESULT = """
Examples:
  meshpeer jobs result film film
  meshpeer jobs result film render[3] --output frames
  meshpeer jobs result film --output film      of all tasks that nobody needs
"""


def add_to_jobs(jobs: typer.Typer) -> None:
    command(jobs, "result", panel="Look", examples=_RESULT)(result)


def result(
    asked: Asked,
    job: JobName,
    task: Annotated[
        str,
        typer.Argument(
            metavar="[TASK]",
            help="A task's id, such as render[3] [all that nobody needs].",
            show_default=False,
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Fetch its files there.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that are there already (with --output).")
    ] = False,
) -> None:
    """Show how a task ended and which files it made; fetch them with --output.

    A fetch that was cut off goes on where it stopped when it is typed again. Exit code 1 if the task failed
    or has not ended.
    """
    client = asked.client()
    if not task:
        _results(asked, client, job, output, force=force)
        return
    found = [one for one in client.tasks(job) if one.id == task]
    files = client.outputs(job, task) if not found or found[0].state == "succeeded" else []
    if not found:
        raise LocalFault(f"the job has no task {task!r}", f"see `meshpeer jobs tasks {job}`")
    one = found[0]
    fetch = job_files.Fetch(client, job, quiet=asked.quiet or asked.json, force=force)
    written = fetch.all([(one, files, output)]) if output is not None else []
    if asked.json:
        show.document(one)
    elif not asked.quiet:
        _print_result(one, files, written)
    if one.state != "succeeded":
        if one.state in ("waiting", "ready", "running"):
            tell(f"{task} has not ended: it is {one.state}", f"wait for it with `meshpeer jobs watch {job}`")
        raise typer.Exit(FAILED)


def _results(asked: Asked, client: ControlClient, job: str, output: Path | None, *, force: bool) -> None:
    """Shows, or fetches, what the job made for people: the outputs of all tasks that nobody needs."""
    wanted = [one for one in client.tasks(job) if one.wanted]
    quiet = asked.quiet or asked.json
    written = (
        job_files.fetch_results(client, job, output, quiet=quiet, force=force) if output is not None else []
    )
    if asked.json:
        show.document(wanted)
    elif not asked.quiet:
        for one in wanted if output is None else ():
            files = client.outputs(job, one.id) if one.state == "succeeded" else []
            _print_result(one, files, [])
        for path in written:
            show.line(f"  {show.clean(str(path))}")
    unfinished = [one for one in wanted if one.state != "succeeded"]
    if unfinished:
        first = unfinished[0]
        more = f", and {len(unfinished) - 1} more are not there either" if len(unfinished) > 1 else ""
        tell(f"{first.id} has no result: it is {first.state}{more}", f"see `meshpeer jobs tasks {job}`")
        raise typer.Exit(FAILED)


def _print_result(one: Task, files: Sequence[OutputFile], written: Sequence[Path]) -> None:
    where = f" on {one.node}" if one.node else ""
    code = "" if one.exit_code is None else f" with exit code {one.exit_code}"
    show.line(
        f"{show.heading(show.clean(one.id))}: {one.state}{show.clean(where)}{code}"
        + (f": {show.clean(one.error)}" if one.error else "")
    )
    for path in written:
        show.line(f"  {show.clean(str(path))}")
    for file in () if written else files:
        show.line(f"  {show.size(file.size):>9}  {show.clean(file.path)}")

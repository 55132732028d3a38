"""Jobs: submit a graph of tasks, see how it goes, stop it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import job_results, job_run, show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command, group
from meshpeer.app.cli.faults import FAILED, INTERRUPTED, WRONG_USAGE, tell
from meshpeer.core.errors import MeshpeerError, NotRunning

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient
    from meshpeer.adapters.specfile import LoadedJob
    from meshpeer.runtime.control import Job, JobMessage, Task

STATE_COLOURS = {
    "succeeded": "green",
    "running": "yellow",
    "failed": "red",
    "cancelled": "dim",
    "skipped": "dim",
}
JobName = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, the beginning of it, or its name.")]
_HELP = """Run graphs of tasks on all members.

What is promised:

\b
1. submit returns once the job and its files are on the disks of two of its
   three replicas: it survives the loss of any one node, the submitter and
   the owner included. With fewer than three members they are on this node
   alone (durability: this_node).
2. A task runs at least once; attempts may overlap when a node is cut off.
3. Exactly one result per task is ever acknowledged.
4. What a task does elsewhere (mail, payments) is not exactly-once: every
   attempt gets MESHPEER_IDEMPOTENCY_KEY (job:task) and MESHPEER_ATTEMPT.
"""
_EXAMPLES = """
Examples:
  meshpeer jobs validate film.yaml
  meshpeer jobs submit film.yaml --wait --output film
  meshpeer jobs run --array 0-9 -- sh -c 'echo $index'
  meshpeer jobs list
  meshpeer jobs logs film render[3]
"""
_SUBMIT = """
Examples:
  meshpeer jobs submit film.yaml
  meshpeer jobs submit film.yaml --wait --output film
  generate-job | meshpeer jobs submit - --quiet
"""


def add_to(app: typer.Typer) -> None:
    jobs = group("jobs", _HELP, epilog=_EXAMPLES)
    command(jobs, "submit", panel="Run", examples=_SUBMIT)(submit)
    command(jobs, "validate", panel="Run")(validate)
    command(jobs, "list", panel="Look")(list_jobs)
    command(jobs, "status", panel="Look")(status)
    command(jobs, "tasks", panel="Look")(tasks)
    command(jobs, "watch", panel="Look")(watch)
    command(jobs, "cancel", panel="Run")(cancel)
    app.add_typer(jobs, name="jobs", rich_help_panel="Working")
    job_run.add_to_jobs(jobs)
    job_results.add_to_jobs(jobs)


def submit(
    asked: Asked,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A job file (YAML, TOML or JSON), or - for standard input.")
    ],
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has ended; exit with 1 if it failed.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Fetch the results there when it has ended (with --wait).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Hand a job over to this node; others help.

    Returns once the job and its files are on disk. With --wait, Ctrl-C ends the waiting, never the job.
    """
    from meshpeer.adapters.specfile import load_job
    from meshpeer.app.cli.job_submit import hand_over

    if output is not None and not wait:
        raise typer.BadParameter("--output needs --wait: there are no results before the job has ended")
    loaded = load_job(file)
    client = asked.client()
    job = hand_over(client, loaded.spec, loaded.sources)
    if not wait:
        if asked.json:
            show.document(job)
        elif asked.quiet:
            show.line(job.id)
        else:
            show.line(
                show.heading(
                    f"{job.id} is submitted: {show.clean(job.name)}, {show.count(job.tasks.total, 'task')}"
                )
            )
            show.line(f"  watch it with: meshpeer jobs watch {job.id}")
        return
    if not asked.quiet and not asked.json:
        show.remark(f"{job.id} is submitted: {show.clean(job.name)}, {show.count(job.tasks.total, 'task')}")
    wait_for(asked, client, job.id, output)


def validate(
    asked: Asked,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A job file (YAML, TOML or JSON), or - for standard input.")
    ],
) -> None:
    """Check a job file; no agent is needed.

    Every error is printed as FILE:LINE:COLUMN: field: what is wrong. Exit code 2 if there is one.
    """
    from meshpeer.adapters.specfile import load_job
    from meshpeer.core.jobs.problems import InvalidJob

    try:
        loaded = load_job(file)
    except InvalidJob as invalid:
        if not asked.json:
            raise
        errors = [
            {
                "field": one.field,
                "line": one.place.line if one.place else None,
                "column": one.place.column if one.place else None,
                "what": one.what,
                "hint": one.hint,
            }
            for one in invalid.errors
        ]
        show.document({"valid": False, "name": None, "tasks": 0, "files": 0, "bytes": 0, "errors": errors})
        raise typer.Exit(WRONG_USAGE) from invalid
    total = sum(1 if one.array is None else one.array.size for one in loaded.spec.tasks)
    carried = sum(one.size for one in loaded.spec.files)
    if asked.json:
        show.document(
            {
                "valid": True,
                "name": loaded.spec.name,
                "tasks": total,
                "files": len(loaded.spec.files),
                "bytes": carried,
                "errors": [],
            }
        )
    elif not asked.quiet:
        _print_valid(file, loaded, total, carried)


def _print_valid(file: str, loaded: LoadedJob, total: int, carried: int) -> None:
    show.line(
        show.heading(
            f"{show.clean(file)} is valid: {show.clean(loaded.spec.name)}, {show.count(total, 'task')}"
        )
    )
    for one in loaded.spec.tasks:
        elements = f" ({one.array.size})" if one.array is not None else ""
        needs = f" after {', '.join(need.task for need in one.needs)}" if one.needs else ""
        show.line(f"  {show.clean(one.name)}{elements}{show.clean(needs)}")
    if loaded.spec.files:
        show.line(f"  carries {show.count(len(loaded.spec.files), 'file')}, {show.size(carried)}")


def list_jobs(asked: Asked) -> None:
    """List the jobs that were submitted at this node, newest first."""
    found = asked.client().jobs()
    if asked.json:
        show.document(found)
        return
    if asked.quiet:
        for one in found:
            show.line(one.id)
        return
    if not found:
        show.line("No job has been submitted at this node.")
        show.line("  submit one with: meshpeer jobs submit FILE")
        return
    rows = [
        [
            one.id,
            one.name,
            one.state,
            f"{_ended(one)} of {one.tasks.total}",
            show.moment(one.submitted_at),
        ]
        for one in found
    ]
    show.table(["ID", "NAME", "STATE", "TASKS", "SUBMITTED (UTC)"], rows, colours=STATE_COLOURS)


def status(asked: Asked, job: JobName) -> None:
    """Show how a job is doing."""
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


def watch(asked: Asked, job: JobName) -> None:
    """Follow a job until it has ended; exit with 1 if it failed.

    Ctrl-C ends the watching, never the job.
    """
    client = asked.client()
    wait_for(asked, client, client.job(job).id, None)


def cancel(asked: Asked, job: JobName) -> None:
    """Cancel a job: running tasks are stopped, others never start."""
    found = asked.client().cancel(job)
    if asked.json:
        show.document(found)
    elif not asked.quiet:
        done = found.tasks.succeeded
        show.line(
            f"{found.id} ({show.clean(found.name)}) is {found.state}; "
            f"{show.count(done, 'task')} had succeeded"
        )


def wait_for(asked: Asked, client: ControlClient, job: str, output: Path | None) -> None:
    """Waits for the job's end, showing progress on standard error; then prints it. Raises ``typer.Exit``
    where it did not succeed.
    """
    from meshpeer.app.cli.job_files import fetch_results
    from meshpeer.app.cli.progress import follow

    try:
        ended = follow(client.watch(job), quiet=asked.quiet or asked.json)
        written = (
            fetch_results(client, ended.id, output, quiet=asked.quiet or asked.json)
            if output is not None
            else []
        )
    except KeyboardInterrupt:
        say_goes_on(job)
        raise typer.Exit(INTERRUPTED) from None
    except NotRunning as gone:
        raise NotRunning(
            gone.what,
            f"the job goes on once this node's agent runs: `meshpeer up`, then `meshpeer jobs watch {job}`",
        ) from gone
    if asked.json:
        show.document(ended)
    elif asked.quiet:
        show.line(ended.state)
    else:
        print_job(ended)
        for path in written:
            show.line(f"  {show.clean(str(path))}")
    if ended.state != "succeeded":
        _tell_failed(client, ended, asked)
        raise typer.Exit(FAILED)


def say_goes_on(job: str) -> None:
    """Says that an interrupted wait did not stop the job."""
    show.remark(
        f"the job goes on; `meshpeer jobs watch {job}` shows it, `meshpeer jobs cancel {job}` stops it"
    )


def print_job(job: Job) -> None:
    """Prints a job in a few lines: how it is, how far, who did it."""
    counts = job.tasks
    state = show.paint(job.state, STATE_COLOURS[job.state]) if job.state in STATE_COLOURS else job.state
    show.line(f"{show.heading(f'{job.id} ({show.clean(job.name)})')}: {state}")
    parts = [
        (counts.succeeded, "succeeded"),
        (counts.running, "running"),
        (counts.ready, "ready"),
        (counts.waiting, "waiting"),
    ]
    parts += [(counts.failed, "failed"), (counts.skipped, "skipped"), (counts.cancelled, "cancelled")]
    done_by = ", ".join(
        f"{name} {number}" for name, number in sorted(job.done_on.items(), key=lambda one: (-one[1], one[0]))
    )
    running_on = ", ".join(f"{name} {number}" for name, number in sorted(job.running_on.items()))
    show.facts(
        [
            (
                "tasks",
                f"{counts.total}: " + ", ".join(f"{number} {word}" for number, word in parts if number),
            ),
            ("done by", done_by),
            ("running on", running_on),
            ("submitted", show.moment(job.submitted_at) + " UTC"),
            ("took", _took(job)),
            ("durability", "blocked: no quorum" if job.durability == "blocked" else job.durability),
            ("owner", job.owner),
            ("as of", f"{show.moment(job.as_of)} UTC: its owner is away" if job.as_of else ""),
            *((one.event, _told(one)) for one in job.webhooks),
        ]
    )


def _told(message: JobMessage) -> str:
    trouble = f" ({message.trouble})" if message.trouble else ""
    return f"{message.state.replace('_', ' ')}: {message.url}{trouble}"


def _took(job: Job) -> str:
    if job.finished_at is None:
        return ""
    import datetime

    began, ended = (datetime.datetime.fromisoformat(one) for one in (job.submitted_at, job.finished_at))
    return show.seconds((ended - began).total_seconds())


def _ended(job: Job) -> int:
    counts = job.tasks
    return counts.succeeded + counts.failed + counts.skipped + counts.cancelled


def _tell_failed(client: ControlClient, job: Job, asked: Asked) -> None:
    """Says which task failed first and where to look; the job's own state is what matters, so a failing
    look is no error.
    """
    sys.stdout.flush()
    if job.state == "cancelled":
        tell(
            f"{job.id} was cancelled", f"submit it again, or see what was done: meshpeer jobs tasks {job.id}"
        )
        return
    try:
        failed = [one for one in client.tasks(job.id) if one.state == "failed"]
    except MeshpeerError:
        failed = []
    if not failed:
        tell(f"{job.id} failed", f"see: meshpeer jobs tasks {job.id}")
        return
    first = failed[0]
    where = f" on {first.node}" if first.node else ""
    others = f", and {len(failed) - 1} more failed" if len(failed) > 1 else ""
    tell(
        f"{job.id}: {first.id} failed{where}: {first.error or f'exit code {first.exit_code}'}{others}",
        f"see: meshpeer jobs logs {job.id} '{first.id}'",
    )

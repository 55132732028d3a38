"""Jobs: submit a graph of tasks, see how it goes, stop it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meshpeer.app.cli import job_file, job_logs, job_look, job_results, job_run, job_work, show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command, group
from meshpeer.app.cli.job_words import JobName

Notify = Annotated[
    bool, typer.Option("--notify", help="Ring the bell at its end, and show it on the desktop.")
]
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
  meshpeer jobs why film
  meshpeer jobs logs film 'render[3]' --follow
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
    job_run.add_to_jobs(jobs)
    job_file.add_to_jobs(jobs)
    job_work.add_to_jobs(jobs)
    job_look.add_to_jobs(jobs)
    command(jobs, "watch", panel="Look")(watch)
    job_logs.add_to_jobs(jobs)
    job_results.add_to_jobs(jobs)
    app.add_typer(jobs, name="jobs", rich_help_panel="Working")


def submit(
    asked: Asked,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A job file (YAML, TOML or JSON), or - for standard input.")
    ],
    wait: Annotated[
        bool, typer.Option("--wait", "--watch", help="Watch it until it has ended; exit with 1 if it failed.")
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
    notify: Notify = False,
) -> None:
    """Hand a job over to this node; others help.

    Returns once the job and its files are on disk. With --wait, Ctrl-C ends the waiting, never the job.
    """
    from meshpeer.adapters.specfile import load_job
    from meshpeer.app.cli.job_submit import hand_over
    from meshpeer.app.cli.job_watch import wait_for

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
    wait_for(asked, client, job.id, output, notify=notify)


def watch(
    asked: Asked,
    job: JobName,
    notify: Notify = False,
) -> None:
    """Follow a job until it has ended; exit with 1 if it failed.

    Ctrl-C ends the watching, never the job.
    """
    from meshpeer.app.cli.job_watch import wait_for

    client = asked.client()
    wait_for(asked, client, client.job(job).id, None, notify=notify)

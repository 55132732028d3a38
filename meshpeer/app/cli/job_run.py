"""``jobs run``: one command (or an array of it) on the mesh, as if it ran here."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.faults import FAILED, INTERRUPTED, tell
from meshpeer.core.errors import LocalFault
from meshpeer.core.wire.unreadable import UNREADABLE

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient
    from meshpeer.adapters.specfile import LoadedJob
    from meshpeer.runtime.control import Task

TASK = "run"
_EXAMPLES = """
Examples:
  meshpeer jobs run -- uname -n
  meshpeer jobs run --file model.bin --file eval.py -- python3 eval.py
  meshpeer jobs run --array 0-9 -- echo '${index}'
  meshpeer jobs run --file in.mov --output out.mp4 -- ffmpeg -i in.mov out.mp4
"""


def add_to_jobs(jobs: typer.Typer) -> None:
    command(jobs, "run", panel="Run", examples=_EXAMPLES, takes_rest=True)(run)


def run(
    asked: Asked,
    line: Annotated[
        list[str],
        typer.Argument(metavar="-- CMD...", help="The program and its arguments.", show_default=False),
    ],
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file", metavar="F", help="Carry this file or folder; may be repeated.", show_default=False
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output", metavar="G", help="Fetch what it made here; may be repeated.", show_default=False
        ),
    ] = None,
    array: Annotated[
        str,
        typer.Option("--array", metavar="A", help="Run it for 0-23, or for [a, b, c].", show_default=False),
    ] = "",
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="The job's name [the program's].", show_default=False),
    ] = "",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="K=V", help="Set a variable; may be repeated.", show_default=False),
    ] = None,
    cpu: Annotated[int, typer.Option("--cpu", metavar="N", min=1, help="Slots that it takes.")] = 1,
    retries: Annotated[int, typer.Option("--retries", metavar="N", min=0, help="Try again this often.")] = 0,
    timeout: Annotated[
        str,
        typer.Option("--timeout", metavar="DURATION", help="Give up after 90s, 10m, 2h.", show_default=False),
    ] = "",
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where --output puts files.")] = Path(),
) -> None:
    """Run one command on the mesh, and wait for it.

    Its output comes out here as it is printed; its exit code becomes this one's. With --array, of the
    first element that failed. Ctrl-C ends the waiting, never the job.
    """
    from meshpeer.app.cli.job_submit import hand_over

    loaded = _as_job(line, file or [], output or [], array, name, env or [], cpu, retries, timeout)
    client = asked.client()
    job = hand_over(client, loaded.spec, loaded.sources)
    if asked.verbose:
        show.remark(f"{job.id}: {show.clean(job.name)}, {show.count(job.tasks.total, 'task')}")
    try:
        tasks = _follow_array(client, job.id, asked) if array else _follow_one(client, job.id, asked)
        code = _exit_code(tasks, job.id, asked)
        if output and not code:
            _fetch_outputs(client, job.id, to, asked)
    except KeyboardInterrupt:
        from meshpeer.app.cli.job_watch import say_goes_on

        say_goes_on(job.id)
        raise typer.Exit(INTERRUPTED) from None
    if asked.json:
        show.document(client.job(job.id))
    raise typer.Exit(code)


def _follow_one(client: ControlClient, job: str, asked: Asked) -> list[Task]:
    from meshpeer.app.cli.job_logs import stream_task

    if not asked.json:
        stream_task(client, job, TASK)
    for _ in client.watch(job):
        pass
    return client.tasks(job)


def _follow_array(client: ControlClient, job: str, asked: Asked) -> list[Task]:
    """Prints the output of every element, whole, once the element has ended, each line after its index."""
    printed: set[str] = set()
    tasks: list[Task] = []
    ended = -1
    for update in client.watch(job):
        counts = update.tasks
        now_ended = counts.succeeded + counts.failed + counts.cancelled
        if now_ended == ended:
            continue
        ended = now_ended
        tasks = client.tasks(job)
        for one in tasks:
            if one.state in ("succeeded", "failed") and one.id not in printed:
                printed.add(one.id)
                if not asked.json:
                    _print_element(client, job, one)
    return tasks


def _print_element(client: ControlClient, job: str, task: Task) -> None:
    from meshpeer.app.cli.job_logs import STREAMS, log_pieces

    for stream in STREAMS:
        if not getattr(task, f"{stream}_bytes"):
            continue
        target = sys.stdout if stream == "stdout" else sys.stderr
        text = b"".join(log_pieces(client, job, task.id, stream))
        target.flush()
        for one in text.splitlines():
            target.buffer.write(f"[{task.index}] ".encode() + one + b"\n")
        target.buffer.flush()


def _exit_code(tasks: list[Task], job: str, asked: Asked) -> int:
    """Returns the exit code of the first task that did not succeed, 0 where all did; says what happened
    where no program ran.
    """
    for one in tasks:
        if one.state == "succeeded":
            continue
        if one.exit_code:
            if (len(tasks) > 1 or (one.error and not one.error.startswith("exit code"))) and not asked.quiet:
                tell(
                    f"{one.id}: {one.error or f'exit code {one.exit_code}'}",
                    f"see: meshpeer jobs tasks {job}",
                )
            return one.exit_code & 0xFF if one.exit_code > 0 else 128 + (-one.exit_code & 0x7F)
        why = "it was cancelled" if one.state == "cancelled" else one.error or f"it is {one.state}"
        tell(
            f"{one.id} did not run: {why}" if one.exit_code is None else f"{one.id} failed: {why}",
            f"see: meshpeer jobs tasks {job}",
        )
        return FAILED
    return 0


def _fetch_outputs(client: ControlClient, job: str, to: Path, asked: Asked) -> None:
    from meshpeer.app.cli.job_files import fetch_results

    for path in fetch_results(client, job, to):
        if not asked.quiet:
            show.remark(f"fetched {show.clean(str(path))}")


def _as_job(
    line: list[str],
    files: list[str],
    outputs: list[str],
    array: str,
    name: str,
    env: list[str],
    cpu: int,
    retries: int,
    timeout: str,
) -> LoadedJob:
    """Writes the job file that this command line stands for, and loads it: one set of rules for both.
    Raises ``InvalidJob``.
    """
    from meshpeer.adapters.specfile import load_text
    from meshpeer.core.jobs.problems import InvalidJob

    task: dict[str, object] = {"run": line, "resources": {"cpu": cpu}, "retries": retries}
    if outputs:
        task["outputs"] = outputs
    if array:
        task["array"] = read_array_option(array)
    if timeout:
        task["timeout"] = timeout
    if env:
        task["env"] = dict(_as_variable(one) for one in env)
    document = {"name": name or _job_name(line[0]), "files": files, "tasks": {TASK: task}}
    if not files:
        del document["files"]
    try:
        return load_text(json.dumps(document).encode(), source_name="command line", folder=Path.cwd())
    except InvalidJob as invalid:
        # Lines and columns are those of a text that nobody wrote.
        errors = [dataclasses.replace(one, place=None) for one in invalid.errors]
        raise InvalidJob(errors, "command line") from invalid


def read_array_option(text: str) -> object:
    """Reads ``--array``: a count, a range, a list or a JSON object of lists; raises ``LocalFault``."""
    if text[:1] not in "[{":
        return int(text) if re.fullmatch("[0-9]{1,9}", text) else text
    try:
        value: object = json.loads(text)
    except UNREADABLE:
        if text.startswith("[") and text.endswith("]"):
            return [one.strip() for one in text[1:-1].split(",")]
        raise LocalFault(
            f"--array {text!r} can't be read", "write 0-23, a count, [a, b, c] or a JSON object of lists"
        ) from None
    return value


def _as_variable(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise LocalFault(f"--env {text!r} is not NAME=VALUE", "write --env NAME=VALUE")
    return key, value


def _job_name(program: str) -> str:
    """Returns a job's name made of the program's, in the letters that names may have."""
    kept = "".join(
        letter if letter.isascii() and letter.isalnum() else "-" for letter in Path(program).name.lower()
    ).strip("-")
    return kept[:63].strip("-") or "run"

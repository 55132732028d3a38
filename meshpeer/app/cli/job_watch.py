"""Watching a job to its end, and the summary then: how it went, by whom, what failed, and its last words."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.faults import FAILED, INTERRUPTED, tell
from meshpeer.app.cli.job_logs import pieces
from meshpeer.app.cli.job_words import print_job
from meshpeer.core.errors import MeshpeerError, NotRunning

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient
    from meshpeer.runtime.control import Job, Task

FAILURES_SHOWN = 3
"""Kinds of failure whose last words are printed."""
LAST_LINES = 5
LAST_BYTES = 2_000
LINE_COLUMNS = 200
NOTIFY_S = 3.0


def wait_for(
    asked: Asked, client: ControlClient, job: str, output: Path | None, *, notify: bool = False
) -> None:
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
    if notify:
        ring(ended)
    if ended.state != "succeeded":
        _tell_failed(client, ended, asked)
        raise typer.Exit(FAILED)


def say_goes_on(job: str) -> None:
    """Says that an interrupted wait did not stop the job."""
    show.remark(
        f"the job goes on; `meshpeer jobs watch {job}` shows it, `meshpeer jobs cancel {job}` stops it"
    )


def ring(job: Job) -> None:
    """Rings the terminal's bell, and shows a notification where the desktop can; neither must fail a job."""
    if sys.stderr.isatty():
        sys.stderr.write("\a")
        sys.stderr.flush()
    program = shutil.which("notify-send")
    if program is not None:
        line = [program, "--app-name=meshpeer", f"{show.clean(job.name)}: {job.state}", job.id]
        try:
            subprocess.run(line, check=False, capture_output=True, timeout=NOTIFY_S)
        except (OSError, subprocess.TimeoutExpired):
            return


def _tell_failed(client: ControlClient, job: Job, asked: Asked) -> None:
    """Says what failed and why, with its last words; the job's own state is what matters, so a failing look
    is no error.
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
    if not asked.quiet and not asked.json:
        for alike in _kinds(failed)[:FAILURES_SHOWN]:
            _print_kind(client, job.id, alike)
        show.remark(f"run what failed again with: meshpeer jobs retry {job.id}")
    first = failed[0]
    where = f" on {first.node}" if first.node else ""
    others = f", and {len(failed) - 1} more failed" if len(failed) > 1 else ""
    tell(
        f"{job.id}: {first.id} failed{where}: {_error(first)}{others}",
        f"see: meshpeer jobs logs {job.id} {shlex.quote(first.id)}",
    )


def _error(task: Task) -> str:
    return task.error or f"exit code {task.exit_code}"


def _kinds(failed: list[Task]) -> list[list[Task]]:
    """Groups tasks of one name that failed in one way."""
    kinds: dict[tuple[str, str], list[Task]] = {}
    for one in failed:
        kinds.setdefault((one.name, _error(one)), []).append(one)
    return list(kinds.values())


def _print_kind(client: ControlClient, job: str, alike: list[Task]) -> None:
    first = alike[0]
    names = ", ".join(one.id for one in alike[:3]) + (f" and {len(alike) - 3} more" if alike[3:] else "")
    nodes = ", ".join(dict.fromkeys(one.node for one in alike if one.node))
    tries = len(first.attempts)
    after = f" after {tries} attempts" if tries > 1 else ""
    where = f" on {nodes}" if nodes else ""
    show.remark(show.clean(f"{names} failed{where}{after}: {_error(first)}"))
    for line in last_words(client, job, first):
        show.remark(f"  | {line}")


def last_words(client: ControlClient, job: str, task: Task) -> list[str]:
    """Returns the last lines of a task's stderr, or of its stdout where it wrote none; as they may stand on a
    terminal."""
    for stream, size in (("stderr", task.stderr_bytes), ("stdout", task.stdout_bytes)):
        if not size:
            continue
        try:
            read = pieces(client, job, task.id, stream, wait=False, offset=max(0, size - LAST_BYTES))
            data = b"".join(one.data for one in read)
        except MeshpeerError:
            return []
        lines = data.decode("utf-8", "replace").splitlines()
        return [show.clean(one.expandtabs(4))[:LINE_COLUMNS] for one in lines[-LAST_LINES:]]
    return []

"""``jobs logs``: what tasks print, as they print it or afterwards, wherever they run."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.job_words import JobName
from meshpeer.core.errors import MeshpeerError

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient
    from meshpeer.runtime.control import LogPiece

STREAMS = ("stdout", "stderr")
AGAIN_S = 0.2
"""Pause before asking again for the output of a task that has printed nothing yet."""
TAIL_BYTES_MAX = 4 * 1024 * 1024
"""Of an output, what the last lines are looked for in."""
_LOGS = """
Examples:
  meshpeer jobs logs film 'render[3]'           what this task printed
  meshpeer jobs logs film split --follow        as it prints it, wherever it runs
  meshpeer jobs logs film split --tail 20 -f    from its last lines on
  meshpeer jobs logs film --stream stderr       of all tasks
"""


def add_to_jobs(jobs: typer.Typer) -> None:
    command(jobs, "logs", panel="Look", examples=_LOGS)(logs)


def logs(
    asked: Asked,
    job: JobName,
    task: Annotated[
        str,
        typer.Argument(
            metavar="[TASK]", help="A task's id, such as render[3] [all that ran].", show_default=False
        ),
    ] = "",
    stream: Annotated[
        Literal["stdout", "stderr", "both"],
        typer.Option("--stream", metavar="stdout|stderr|both", help="Which of the two."),
    ] = "both",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as it prints more, until it ends.")
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail", metavar="N", min=0, help="Only its last N lines so far [all].", show_default=False
        ),
    ] = None,
) -> None:
    """Print what a task printed: stdout on stdout, stderr on stderr.

    At any node, and while it runs, too. A task that is tried again begins anew, and that is said.
    """
    client = asked.client()
    streams = STREAMS if stream == "both" else (stream,)
    every = client.tasks(job)
    if task or len(every) == 1:
        chosen = task or every[0].id
        if asked.json:
            show.document(_texts(client, job, chosen, streams))
        elif follow:
            stream_task(client, job, chosen, streams, tail=tail, tell=not asked.quiet)
        else:
            for name in streams:
                _copy(client, job, chosen, name, tail=tail)
        return
    ran = [one for one in every if one.attempts or one.stdout_bytes or one.stderr_bytes]
    if asked.json:
        show.document({one.id: _texts(client, job, one.id, streams) for one in ran})
        return
    for one in ran:
        if not asked.quiet and any(getattr(one, f"{name}_bytes") for name in streams):
            sys.stdout.flush()
            show.remark(f"==> {show.clean(one.id)} on {show.clean(one.node or '?')} <==")
        for name in streams:
            _copy(client, job, one.id, name, tail=tail)


def stream_task(
    client: ControlClient,
    job: str,
    task: str,
    streams: Sequence[str] = STREAMS,
    *,
    tail: int | None = None,
    tell: bool = False,
) -> None:
    """Copies a task's output as it comes, both streams at once, until the task has ended; raises what the
    agent raised. With ``tell`` it says when another attempt begins.
    """
    failures: list[MeshpeerError | BrokenPipeError] = []

    def copy(stream: str) -> None:
        try:
            _copy(client, job, task, stream, wait=True, tail=tail, tell=tell and stream == streams[0])
        except (MeshpeerError, BrokenPipeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=copy, args=(one,), daemon=True) for one in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # joined in short steps: Ctrl-C comes to this thread
            thread.join(AGAIN_S)
    if failures:
        raise failures[0]


def log_pieces(
    client: ControlClient, job: str, task: str, stream: str, *, wait: bool = False
) -> Iterator[bytes]:
    """Yields what a task printed; with ``wait`` until it has ended."""
    return (piece.data for piece in pieces(client, job, task, stream, wait=wait) if piece.data)


def last_lines(data: bytes, count: int) -> bytes:
    """Returns the last lines; one that is not ended counts."""
    lines = data.splitlines(keepends=True)
    return b"".join(lines[-count:]) if count else b""


def _texts(client: ControlClient, job: str, task: str, streams: Sequence[str]) -> dict[str, str]:
    return {
        name: b"".join(log_pieces(client, job, task, name)).decode("utf-8", "replace") for name in streams
    }


def _copy(
    client: ControlClient,
    job: str,
    task: str,
    stream: str,
    *,
    wait: bool = False,
    tail: int | None = None,
    tell: bool = False,
) -> None:
    start, attempt = 0, 0
    if tail is not None:
        data, start, attempt = _so_far(client, job, task, stream)
        _write(stream, last_lines(data, tail))
        if not wait:
            return
    for piece in pieces(client, job, task, stream, wait=wait, offset=start, attempt=attempt):
        if tell and attempt and piece.attempt not in (0, attempt):
            show.remark(f"==> another attempt, on {show.clean(piece.node or '?')} <==")
        attempt = piece.attempt or attempt
        _write(stream, piece.data)


def _so_far(client: ControlClient, job: str, task: str, stream: str) -> tuple[bytes, int, int]:
    """Returns the end of what a task has printed so far, where that ends, and which attempt printed it."""
    data, offset, attempt = b"", 0, 0
    for piece in pieces(client, job, task, stream, wait=False):
        data = (data + piece.data)[-TAIL_BYTES_MAX:]
        offset, attempt = piece.offset, piece.attempt
    return data, offset, attempt


def pieces(
    client: ControlClient,
    job: str,
    task: str,
    stream: str,
    *,
    wait: bool,
    offset: int = 0,
    attempt: int = 0,
) -> Iterable[LogPiece]:
    """Yields pieces of an output from ``offset`` on; with ``wait`` until its task has ended."""
    while True:
        piece = client.log(job, task, stream, offset, wait=wait, attempt=attempt)
        yield piece
        if piece.finished or not (wait or piece.data):
            return
        if not piece.data:
            time.sleep(AGAIN_S)
        offset, attempt = piece.offset, piece.attempt or attempt


def _write(stream: str, data: bytes) -> None:
    if data:
        target = sys.stdout if stream == "stdout" else sys.stderr
        target.flush()
        target.buffer.write(data)
        target.buffer.flush()

"""What tasks made: output files fetched into a folder.

Paths of outputs come from other machines: each is checked, opened without following links, written beside
its place, and moved there only when its SHA-256 is what was announced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.faults import FAILED, tell
from meshpeer.app.cli.job_words import JobName
from meshpeer.core.errors import EnvironmentFault, LocalFault, PeerFault

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient
    from meshpeer.runtime.control import OutputFile, Task

_RESULT = """
Examples:
  meshpeer jobs result film film
  meshpeer jobs result film render[3] --output frames
"""


def add_to_jobs(jobs: typer.Typer) -> None:
    command(jobs, "result", panel="Look", examples=_RESULT)(result)


def result(
    asked: Asked,
    job: JobName,
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task's id, such as render[3].")],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Fetch its files there.", show_default=False),
    ] = None,
) -> None:
    """Show how a task ended and which files it made; fetch them with --output.

    Exit code 1 if it failed or has not ended.
    """
    client = asked.client()
    found = [one for one in client.tasks(job) if one.id == task]
    files = client.outputs(job, task) if not found or found[0].state == "succeeded" else []
    if not found:
        raise LocalFault(f"the job has no task {task!r}", f"see `meshpeer jobs tasks {job}`")
    one = found[0]
    written = [_fetch(client, job, task, file, output) for file in files] if output is not None else []
    if asked.json:
        show.document(one)
    elif not asked.quiet:
        where = f" on {one.node}" if one.node else ""
        code = "" if one.exit_code is None else f" with exit code {one.exit_code}"
        show.line(
            f"{show.heading(show.clean(one.id))}: {one.state}{show.clean(where)}{code}"
            + (f": {show.clean(one.error)}" if one.error else "")
        )
        if written:
            for path in written:
                show.line(f"  {show.clean(str(path))}")
        else:
            for file in files:
                show.line(f"  {show.size(file.size):>9}  {show.clean(file.path)}")
    if one.state != "succeeded":
        if one.state in ("waiting", "ready", "running"):
            tell(f"{task} has not ended: it is {one.state}", f"wait for it with `meshpeer jobs watch {job}`")
        raise typer.Exit(FAILED)


# --- files ------------------------------------------------------------


def fetch_results(client: ControlClient, job: str, folder: Path) -> list[Path]:
    """Fetches the outputs of the tasks that nobody needs and that succeeded; returns where they stand
    now.

    Files stand under their own paths; where two tasks made the same path, both stand in a folder named
    after their task.
    """
    ended = [one for one in client.tasks(job) if one.wanted and one.state == "succeeded"]
    _make_folder(folder)
    # A task that ran elsewhere shows no outputs until somebody asked for the list of them.
    listed = [(one, client.outputs(job, one.id)) for one in ended]
    clashing = _clashing(listed)
    return [
        _fetch(client, job, one.id, file, folder / one.id if one.id in clashing else folder)
        for one, files in listed
        for file in files
    ]


def _clashing(listed: Sequence[tuple[Task, list[OutputFile]]]) -> set[str]:
    """Returns the tasks that share a path (or a path's folder) with another one."""
    makers: dict[str, set[str]] = {}
    for task, files in listed:
        for file in files:
            makers.setdefault(file.path, set()).add(task.id)
    clashing = {maker for several in makers.values() if len(several) > 1 for maker in several}
    for task, files in listed:
        for file in files:
            for above in PurePosixPath(file.path).parents:
                others = makers.get(str(above), set())
                clashing |= others | {task.id} if others else set()
    return clashing


def _fetch(client: ControlClient, job: str, task: str, file: OutputFile, folder: Path) -> Path:
    """Writes one output below the folder, whole or not at all; returns its path."""
    parts = PurePosixPath(file.path).parts
    if not parts or file.path.startswith("/") or ".." in parts or "\0" in file.path:
        raise PeerFault(
            f"{task} announced an output {file.path!r} that leads out of the folder",
            "fetch its other files one by one",
        )
    place = folder.joinpath(*parts)
    _refuse_links(folder, parts)
    _make_folder(place.parent)
    try:
        descriptor, draft = tempfile.mkstemp(prefix=".meshpeer-", dir=place.parent)
        try:
            with os.fdopen(descriptor, "wb") as target:
                digest = _copy_output(client, job, task, file, target)
                os.fchmod(target.fileno(), (0o777 if file.executable else 0o666) & ~_umask())
            if digest != file.sha256:
                raise PeerFault(
                    f"{file.path} of {task} is not what was announced (SHA-256 differs)", "fetch it again"
                )
            os.replace(draft, place)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            raise
    except OSError as error:
        raise EnvironmentFault(
            f"{place} can't be written: {error.strerror}", "check the folder's owner, and df -h"
        ) from error
    return place


def _copy_output(client: ControlClient, job: str, task: str, file: OutputFile, target: BinaryIO) -> str:
    hasher = hashlib.sha256()
    for piece in client.get_output(job, task, file.path):
        hasher.update(piece)
        target.write(piece)
    return hasher.hexdigest()


def _refuse_links(folder: Path, parts: Sequence[str]) -> None:
    """Raises ``EnvironmentFault`` where a folder on the way below ``folder`` is a link: the file would
    stand elsewhere.
    """
    place = folder
    for part in parts[:-1]:
        place = place / part
        if place.is_symlink():
            raise EnvironmentFault(f"{place} is a link", "name another folder with --output")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} can't be made: {error.strerror}", "name another folder with --output"
        ) from error


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current

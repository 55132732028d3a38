"""Output files, fetched into a folder.

Paths of outputs come from other machines: each is checked, opened without following links, written beside
its place, and moved there only when its SHA-256 is what was announced. What is there already is not
overwritten unless that is asked for, and one that is there with that very content is done. A file on its way
stands beside its place under a name of its own; when it was cut off, the next fetch goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from meshpeer.app.cli import show
from meshpeer.app.cli.progress import FRAME_S, bar
from meshpeer.core.errors import EnvironmentFault, LocalFault, PeerFault

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient
    from meshpeer.runtime.control import OutputFile, Task

BLOCK_BYTES = 1024 * 1024
AGAIN_S = 0.2
SHOWN_BYTES_MIN = 8 * 1024 * 1024
"""Smaller files are there before a bar could be read."""
_DRAFT = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def fetch_results(
    client: ControlClient, job: str, folder: Path, *, quiet: bool = True, force: bool = True
) -> list[Path]:
    """Fetches the outputs of the tasks that nobody needs and that succeeded; returns where they stand
    now.

    Files stand under their own paths; where two tasks made the same path, both stand in a folder named
    after their task.
    """
    ended = [one for one in client.tasks(job) if one.wanted and one.state == "succeeded"]
    make_folder(folder)
    # A task that ran elsewhere shows no outputs until somebody asked for the list of them.
    listed = [(one, client.outputs(job, one.id)) for one in ended]
    for one in ended:
        # Another node may have said so, and a folder is named after it.
        if PurePosixPath(one.id).name != one.id or one.id == ".." or "\0" in one.id:
            raise PeerFault(f"the job has a task {one.id!r}, which is no name", "fetch its tasks one by one")
    clashing = _clashing(listed)
    return Fetch(client, job, quiet=quiet, force=force).all(
        [(one, files, folder / one.id if one.id in clashing else folder) for one, files in listed]
    )


class Fetch:
    """One fetch of files of one job."""

    def __init__(self, client: ControlClient, job: str, *, quiet: bool, force: bool) -> None:
        self._client = client
        self._job = job
        self._force = force
        self._live = not quiet and show.is_rich(sys.stderr)

    def all(self, wanted: Sequence[tuple[Task, Sequence[OutputFile], Path]]) -> list[Path]:
        """Writes the files of these tasks below their folders, each whole or not at all; returns where they
        stand. Nothing is written where one of them would overwrite something, or lead elsewhere."""
        places = [
            (task.id, file, folder, _place(task.id, file, folder))
            for task, files, folder in wanted
            for file in files
        ]
        if not self._force:
            for _, file, _, place in places:
                _refuse_to_overwrite(file, place)
        return [self._one(task, file, place) for task, file, _, place in places]

    def _one(self, task: str, file: OutputFile, place: Path) -> Path:
        if _is_there(file, place):
            return place
        make_folder(place.parent)
        draft = place.parent / f".meshpeer-{file.sha256[:32]}.part"
        meter = _Meter(file, self._live)
        try:
            with os.fdopen(os.open(draft, _DRAFT, 0o600), "r+b") as target:
                hasher = hashlib.sha256()
                here = 0
                while piece := target.read(BLOCK_BYTES):
                    hasher.update(piece)
                    here += len(piece)
                if here > file.size:
                    target.truncate(0)
                    target.seek(0)
                    hasher, here = hashlib.sha256(), 0
                if here < file.size:
                    self._until_ready(task, file, meter)
                    for piece in self._client.get_output(self._job, task, file.path, here):
                        hasher.update(piece)
                        target.write(piece)
                        here += len(piece)
                        meter.show("", here)
                os.fchmod(target.fileno(), (0o777 if file.executable else 0o666) & ~_umask())
            if hasher.hexdigest() != file.sha256:
                draft.unlink()
                raise PeerFault(
                    f"{file.path} of {task} is not what was announced (SHA-256 differs)", "fetch it again"
                )
            os.replace(draft, place)
        except OSError as error:
            raise EnvironmentFault(
                f"{place} can't be written: {error.strerror}", "check the folder's owner, and df -h"
            ) from error
        finally:
            meter.clear()
            with contextlib.suppress(OSError):
                if not draft.stat().st_size:  # nothing came: there is nothing to go on with
                    draft.unlink()
        return place

    def _until_ready(self, task: str, file: OutputFile, meter: _Meter) -> None:
        """Waits until the file is on the node that is asked."""
        while True:
            began_s = time.monotonic()
            state = self._client.ready_output(self._job, task, file.path)
            if state.ready:
                return
            meter.show("on its way to this node: ", state.here_bytes)
            time.sleep(max(0.0, AGAIN_S - (time.monotonic() - began_s)))


class _Meter:
    """A bar for one file, on a terminal."""

    def __init__(self, file: OutputFile, live: bool) -> None:
        self._file = file
        self._live = live and file.size >= SHOWN_BYTES_MIN
        self._shown_at_s = 0.0

    def show(self, what: str, done: int) -> None:
        now_s = time.monotonic()
        if not self._live or now_s - self._shown_at_s < FRAME_S:
            return
        self._shown_at_s = now_s
        size = self._file.size
        text = (
            f"{bar(done, size)} {what}{show.size(done)} of {show.size(size)}  {show.clean(self._file.path)}"
        )
        sys.stderr.write(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._live and self._shown_at_s:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


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


def _place(task: str, file: OutputFile, folder: Path) -> Path:
    """Returns where a file is to stand; raises ``PeerFault`` for a path that leads out of the folder, and
    ``EnvironmentFault`` where a folder on the way below ``folder`` is a link: it would stand elsewhere."""
    parts = PurePosixPath(file.path).parts
    if not parts or file.path.startswith("/") or ".." in parts or "\0" in file.path:
        raise PeerFault(
            f"{task} announced an output {file.path!r} that leads out of the folder",
            "fetch its other files one by one",
        )
    place = folder
    for part in parts[:-1]:
        place = place / part
        if place.is_symlink():
            raise EnvironmentFault(f"{place} is a link", "name another folder with --output")
    return place / parts[-1]


def _refuse_to_overwrite(file: OutputFile, place: Path) -> None:
    if os.path.lexists(place) and not _is_there(file, place):
        raise LocalFault(
            f"{place} is there already, and is something else",
            "name another folder with --output, or overwrite it with --force",
        )


def _is_there(file: OutputFile, place: Path) -> bool:
    """Says whether a regular file of that very content stands there."""
    hasher = hashlib.sha256()
    try:
        with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as present:
            if os.fstat(present.fileno()).st_size != file.size:
                return False
            while piece := present.read(BLOCK_BYTES):
                hasher.update(piece)
    except OSError:
        return False
    return hasher.hexdigest() == file.sha256


def make_folder(folder: Path) -> None:
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

"""The files of a job: looks up what ``files:`` names in the job file's folder, and hashes it.

A job may carry only what stands in its own folder. Links are followed where they stay inside and refused
where they leave it, so that a job file from a stranger can't send ``~/.ssh`` away. What is neither a file nor
a folder is refused before it is opened: opening a pipe would wait for ever.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from meshpeer.core.ids import Digest
from meshpeer.core.jobs.model import FileRef
from meshpeer.core.jobs.nearest import did_you_mean
from meshpeer.core.jobs.problems import SpecError
from meshpeer.core.jobs.rules import FILES_MAX, Fault, relative_path, shown, size_text
from meshpeer.core.jobs.spec import WantedFile
from meshpeer.core.wire.limits import BLOB_BYTES_MAX

_READ_BYTES = 1024 * 1024


@dataclass(slots=True)
class Gathered:
    """The files found, by their path in scratch folders, and what is wrong with the others."""

    refs: dict[str, FileRef] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    errors: list[SpecError] = field(default_factory=list)


def gather_files(wanted: Iterable[WantedFile], folder: Path) -> Gathered:
    """Looks up and hashes files; folders stand for everything in them. What is wrong is in ``errors``."""
    gathered = Gathered()
    home = folder.resolve()
    for entry in wanted:
        for found in _expand(entry, home):
            if len(gathered.refs) > FILES_MAX:
                break
            fault = found if isinstance(found, Fault) else _add(gathered, found, home)
            if fault is not None:
                error = SpecError(path=entry.field, what=fault.what, hint=fault.hint, place=entry.place)
                gathered.errors.append(error)
    if len(gathered.refs) > FILES_MAX:
        what = f"the job has more than {FILES_MAX:,} files"
        gathered.errors.append(SpecError(path=("files",), what=what, hint="pack them into one archive"))
    return gathered


def _expand(entry: WantedFile, home: Path) -> Iterator[Path | Fault]:
    """Yields the files of one entry, in order of their names, or why there are none."""
    path = home / entry.path
    name = shown(entry.path or ".")
    if not _stays_inside(path, home):
        yield Fault(f"{name} is a link that leads out of the job's folder", "copy the file into the folder")
    elif path.is_dir():
        yield from _walk(path, name, home)
    elif not path.exists():
        yield Fault(f"{name} does not exist in {home}", _near_names(path) or "check the path")
    elif entry.folder:
        yield Fault(f"{name} is a file, not a folder", f"write {entry.path}")
    else:
        yield path


def _walk(folder: Path, name: str, home: Path) -> Iterator[Path | Fault]:
    refused: list[OSError] = []
    empty = True
    for parent, folders, files in os.walk(folder, onerror=refused.append):
        folders.sort()
        for below in folders:
            if (Path(parent) / below).is_symlink():
                path = (Path(parent) / below).relative_to(home).as_posix()
                yield Fault(f"{shown(path)} is a link to a folder", "copy the folder, or name its files")
        for file in sorted(files):
            empty = False
            yield Path(parent) / file
    for error in refused:
        yield Fault(
            f"{shown(str(error.filename))} can't be read: {error.strerror}", "allow yourself to read it"
        )
    if empty and not refused:
        yield Fault(f"the folder {name} has no files", "put files in, or remove it from the list")


def _add(gathered: Gathered, source: Path, home: Path) -> Fault | None:
    """Hashes one file into ``gathered``, or tells why it can't be carried; a file named twice counts once."""
    path = source.relative_to(home).as_posix()
    if path in gathered.refs:
        return None
    normal = relative_path(path)
    if isinstance(normal, Fault):
        return normal
    if not _stays_inside(source, home):
        return Fault(
            f"{shown(path)} is a link that leads out of the job's folder", "copy the file into the folder"
        )
    try:
        status = source.stat()
        mode, size = status.st_mode, status.st_size
        if not stat.S_ISREG(mode):
            return Fault(f"{shown(path)} is neither a file nor a folder", "name regular files")
        digest, size = _digest(source) if size <= BLOB_BYTES_MAX else (Digest(b""), size)
    except OSError as error:
        return Fault(f"{shown(path)} can't be read: {error.strerror}", "allow yourself to read it")
    if size > BLOB_BYTES_MAX:
        limit = size_text(BLOB_BYTES_MAX, " ")
        return Fault(f"{shown(path)} is larger than {limit}", f"a file of a job has at most {limit}")
    executable = bool(mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH))
    gathered.refs[path] = FileRef(path=path, digest=digest, size=size, executable=executable)
    gathered.sources[path] = source
    return None


def _digest(source: Path) -> tuple[Digest, int]:
    """Returns the SHA-256 and how many bytes it is of; stops early in a file that is too large anyway."""
    hasher, size = hashlib.sha256(), 0
    with source.open("rb") as file:
        while size <= BLOB_BYTES_MAX and (data := file.read(_READ_BYTES)):
            hasher.update(data)
            size += len(data)
    return Digest(hasher.digest()), size


def _stays_inside(path: Path, home: Path) -> bool:
    try:
        return path.resolve().is_relative_to(home)
    except (OSError, RuntimeError):
        return False


def _near_names(path: Path) -> str:
    try:
        return did_you_mean(path.name, sorted(os.listdir(path.parent)))
    except OSError:
        return ""

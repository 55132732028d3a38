"""Loads a job file: from its bytes to a job that can be submitted, or every error at once.

The format follows the name's end; standard input, and other names, are recognised by how they begin.
Everything that is wrong, in the file and with the files that it names, is raised together as one
``InvalidJob``.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from meshpeer.adapters.specfile.broken import BrokenDocument
from meshpeer.adapters.specfile.files import gather_files
from meshpeer.adapters.specfile.json_document import read_json
from meshpeer.adapters.specfile.toml_document import read_toml
from meshpeer.adapters.specfile.yaml_document import read_yaml
from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.check import check_files
from meshpeer.core.jobs.located import Located, Place
from meshpeer.core.jobs.model import FileRef, JobSpec
from meshpeer.core.jobs.problems import InvalidJob, SpecError, sorted_errors
from meshpeer.core.jobs.rules import Fault, relative_path
from meshpeer.core.jobs.spec import WantedFile, parse_job

JOB_FILE_BYTES_MAX = 16 * 1024 * 1024
"""A job file; what is larger belongs into a file of the job."""
STDIN = "-"

_READERS = {".yaml": read_yaml, ".yml": read_yaml, ".json": read_json, ".toml": read_toml}
_LOOKS_LIKE_TOML = re.compile(r"\s*(?:#[^\n]*\n\s*)*(?:\[|[A-Za-z0-9_\"'.-]+\s*=)")
_LOOKS_LIKE_JSON = re.compile(r'\s*\{\s*["}]')


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedJob:
    """A checked job with the digests of its files, and where the bytes of each stand on this machine."""

    spec: JobSpec
    sources: dict[str, Path]
    """By ``FileRef.path``, absolute."""
    source_name: str
    """How errors call the file."""


def load_job(source: str) -> LoadedJob:
    """Loads a job file by its path, or standard input for ``-`` (files are then looked up in the working
    folder).

    Raises ``InvalidJob`` with all that is wrong with it, and ``LocalFault`` where there is no such file.
    """
    if source == STDIN:
        return load_text(
            sys.stdin.buffer.read(JOB_FILE_BYTES_MAX + 1), source_name="stdin", folder=Path.cwd()
        )
    path = Path(source)
    try:
        with path.open("rb") as file:
            data = file.read(JOB_FILE_BYTES_MAX + 1)
    except OSError as error:
        what = f"the job file {source} can't be read: {error.strerror}"
        raise LocalFault(what, "name a YAML, TOML or JSON file, or - for standard input") from error
    return load_text(data, source_name=source, folder=path.parent)


def load_text(data: bytes, *, source_name: str, folder: Path) -> LoadedJob:
    """Loads a job from a job file's bytes; its files are looked up in ``folder``. Raises ``InvalidJob``."""
    try:
        document = _read(data, source_name)
    except BrokenDocument as broken:
        error = SpecError(path=(), what=broken.what, hint=broken.hint, place=broken.place)
        raise InvalidJob([error], source_name) from broken
    parsed = parse_job(document)
    gathered = gather_files(parsed.files, folder)
    refs = tuple(gathered.refs[path] for path in sorted(gathered.refs))
    errors = [*parsed.errors, *gathered.errors, *check_files(refs)]
    if parsed.spec is None or errors:
        raise InvalidJob(sorted_errors(errors, document), source_name)
    spec = msgspec.structs.replace(parsed.spec, files=refs)
    return LoadedJob(spec=spec, sources=gathered.sources, source_name=source_name)


def load_files(paths: list[str], folder: Path) -> tuple[tuple[FileRef, ...], dict[str, Path]]:
    """Looks up files named one by one (``jobs run --file``), as ``files:`` would; raises ``InvalidJob``."""
    wanted: list[WantedFile] = []
    errors: list[SpecError] = []
    for position, path in enumerate(paths):
        normal = relative_path(path)
        if isinstance(normal, Fault):
            errors.append(SpecError(path=("files", position), what=normal.what, hint=normal.hint))
        else:
            entry = WantedFile(path=normal, folder=path.endswith("/"), field=("files", position), place=None)
            wanted.append(entry)
    gathered = gather_files(wanted, folder)
    errors += gathered.errors
    if errors:
        raise InvalidJob(sorted_errors(errors), "--file")
    return tuple(gathered.refs[path] for path in sorted(gathered.refs)), gathered.sources


def _read(data: bytes, source_name: str) -> Located:
    if len(data) > JOB_FILE_BYTES_MAX:
        limit = f"{JOB_FILE_BYTES_MAX // 1024**2} MiB"
        raise BrokenDocument(
            f"the job file is larger than {limit}", None, "put its data into a file of the job"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        raise BrokenDocument("the file is not UTF-8", Place(line, column), "save it as UTF-8") from error
    reader = _READERS.get(Path(source_name).suffix.lower())
    if reader is not None:
        return reader(text)
    if _LOOKS_LIKE_JSON.match(text):
        return read_json(text)
    return read_toml(text) if _LOOKS_LIKE_TOML.match(text) else read_yaml(text)

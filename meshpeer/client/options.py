"""How tasks that a client makes of functions are to run: what a job file says under ``tasks``, as values."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

from meshpeer.client.pickling import VERSION
from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs import rules
from meshpeer.core.jobs.check import require_valid
from meshpeer.core.jobs.model import Array, FileRef, JobSpec, PythonCall, TaskSpec
from meshpeer.core.jobs.python import KIT_FOLDER
from meshpeer.core.jobs.rules import Fault

TASK: Final = "call"
CALLS: Final = f"{KIT_FOLDER}/calls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What holds for each call. Sizes are written as in a job file: ``512MiB``."""

    name: str = ""
    """Of the job; the function's own where it is empty."""
    retries: int = 0
    """How often a call that failed is made again; a function must be fit for that."""
    timeout_s: float = 0.0
    """How long one attempt may take; 0 for no limit."""
    cpu: int = 1
    memory: str = ""
    """What its processes may use together; empty for no limit of its own."""
    processes: int = 0
    output: str = ""
    """What it may write in all; empty for the node's own limit."""
    network: Literal["host", "none"] = "host"
    secrets: tuple[str, ...] = ()
    """Names of secrets that it finds as variables."""
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    """Files and folders below ``folder`` that stand where it runs; modules there can be imported."""
    folder: str | os.PathLike[str] = "."
    outputs: tuple[str, ...] = ()
    """Files to keep of those that it writes."""
    carry: tuple[ModuleType, ...] = ()
    """Modules whose functions and classes are sent along by value, since workers don't have them."""
    result: Literal["pickle", "json"] = "pickle"
    """``json``: values that JSON has, and nothing that comes back is unpickled here."""


def spec_of(
    options: Options, function: str, calls: FileRef, count: int | None, files: tuple[FileRef, ...]
) -> JobSpec:
    """Returns the job of these calls, an array of ``count`` or one task; raises ``LocalFault`` for options
    that no task can have."""
    task = TaskSpec(
        name=TASK,
        python=PythonCall(calls=calls.path, result=options.result, version=VERSION),
        array=None if count is None else Array(size=count),
        env=tuple(sorted(options.env.items())),
        retries=options.retries,
        timeout_ms=round(options.timeout_s * 1000),
        cpu=options.cpu,
        outputs=options.outputs,
        memory_bytes=_size(options.memory, "memory"),
        processes=options.processes,
        output_bytes=_size(options.output, "output"),
        network=options.network,
        secrets=options.secrets,
    )
    spec = JobSpec(name=options.name or job_name(function), tasks=(task,), files=(*files, calls))
    require_valid(spec)
    return spec


def job_name(function: str) -> str:
    """Returns a name that a job may have, near to a function's: ``<lambda>`` is ``lambda``."""
    name = re.sub(r"[^\w.-]+", "_", function).strip("_.-") or TASK
    return name[: rules.JOB_NAME_CHARACTERS_MAX]


def files_of(options: Options) -> tuple[tuple[FileRef, ...], dict[str, Path]]:
    """Returns the files that go along, and where their bytes are; raises ``LocalFault``."""
    if not options.files:
        return (), {}
    from meshpeer.adapters.specfile.load import load_files

    return load_files(list(options.files), Path(options.folder))


def _size(text: str, name: str) -> int:
    size = rules.size_bytes(text) if text else 0
    if isinstance(size, Fault):
        raise LocalFault(f"{name}: {size.what}", size.hint)
    return size

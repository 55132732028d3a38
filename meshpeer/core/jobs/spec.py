"""From a document to a job: what a person wrote, read field by field, with every error at its line.

Two steps. Reading turns nodes into values and rejects wrong types and unknown fields here; ``check_job`` then
judges the whole, by the same rules that a node applies to a spec from elsewhere. Files are only named here:
their bytes are the adapter's business, which adds the digests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from meshpeer.core.jobs import rules
from meshpeer.core.jobs.arrays import read_array
from meshpeer.core.jobs.check import check_job
from meshpeer.core.jobs.confinement import UNSAID, Confinement, read_confinement
from meshpeer.core.jobs.located import FieldPath, Located, Mapping, Place, Scalar, Sequence
from meshpeer.core.jobs.model import JobSpec, Need, TaskSpec
from meshpeer.core.jobs.need_ends import End, read_end
from meshpeer.core.jobs.placing import (
    NO_PLACING,
    PLACING_FIELDS,
    Placing,
    read_groups,
    read_placing,
    read_priority,
)
from meshpeer.core.jobs.problems import SpecError, sorted_errors
from meshpeer.core.jobs.python import read_python
from meshpeer.core.jobs.reading import Reader
from meshpeer.core.jobs.rules import shown
from meshpeer.core.jobs.webhook import read_url, read_webhook

JOB_FIELDS = (
    "name",
    "files",
    "defaults",
    "on_complete",
    "on_failure",
    "keep",
    "priority",
    "groups",
    "tasks",
)
DEFAULTS_FIELDS = (
    "env",
    "cwd",
    "retries",
    "crash_limit",
    "timeout",
    "resources",
    "limits",
    "network",
    "secrets",
    *PLACING_FIELDS,
)
TASK_FIELDS = ("run", "webhook", "python", "needs", "array", *DEFAULTS_FIELDS, "outputs")
NEED_FIELDS = ("task", "into", "when")

JOB_FIELDS_LATER = ("webhooks", "inputs")
TASK_FIELDS_LATER = ("keep", "inputs")

Chosen = TypeVar("Chosen")


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedFile:
    """One entry of ``files``: a path in the job file's folder, for the adapter to look up."""

    path: str
    """In normal form, without a trailing slash; empty for the whole folder."""
    folder: bool
    """Whether it was written with a trailing slash, and so must be a folder."""
    field: FieldPath
    place: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedJob:
    """What a document says: the job, still without its files, or None and all that is wrong with it."""

    spec: JobSpec | None
    files: tuple[WantedFile, ...]
    errors: tuple[SpecError, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """What ``defaults`` and a task share; None where it isn't said."""

    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    retries: int | None = None
    crash_limit: int | None = None
    timeout_ms: int | None = None
    placing: Placing = NO_PLACING
    confinement: Confinement = UNSAID


def parse_job(document: Located) -> ParsedJob:
    """Reads and checks a job; never raises for what a document may hold."""
    reader = Reader()
    fields = reader.fields(document, (), JOB_FIELDS, JOB_FIELDS_LATER, "start with name: and tasks:")
    name = reader.text(fields["name"], ("name",)) if "name" in fields else None
    if "name" not in fields and isinstance(document, Mapping):
        reader.reject(("name",), document, "the job has no name", "write name: at the top")
    files = _read_files(reader, fields["files"]) if "files" in fields else ()
    defaults = _Common()
    if "defaults" in fields:
        node = fields["defaults"]
        known = reader.fields(node, ("defaults",), DEFAULTS_FIELDS, TASK_FIELDS_LATER, "write {retries: 2}")
        defaults = _read_common(reader, known, ("defaults",))
    tasks: tuple[TaskSpec, ...] = ()
    if "tasks" in fields:
        named = reader.mapping(fields["tasks"], ("tasks",), "write each task under its name") or {}
        tasks = tuple(_read_task(reader, task, node, defaults) for task, node in named.items())
    elif isinstance(document, Mapping):
        reader.reject(("tasks",), document, "the job has no tasks", "name at least one under tasks:")
    on_complete, on_failure = (
        _read_event(reader, fields[event], (event,)) if event in fields else ""
        for event in ("on_complete", "on_failure")
    )
    spec = JobSpec(
        name=name or "",
        tasks=tasks,
        on_complete=on_complete,
        on_failure=on_failure,
        keep_s=_read_keep(reader, fields["keep"]) if "keep" in fields else 0,
        priority=(read_priority(reader, fields["priority"], ("priority",)) or 0)
        if "priority" in fields
        else 0,
        groups=read_groups(reader, fields["groups"]) if "groups" in fields else (),
    )
    judged = [error for error in check_job(spec, reader.rejected) if not _said(error.path, reader.rejected)]
    errors = sorted_errors([*reader.errors, *judged], document)
    return ParsedJob(spec=None if errors else spec, files=files, errors=errors)


def _read_keep(reader: Reader, node: Located) -> int:
    if isinstance(node, Scalar) and type(node.value) is int:
        what = f"{node.value} has no unit"
        reader.reject(("keep",), node, what, f"write {node.value}d, or another of m, h and d")
        return 0
    text = reader.text(node, ("keep",))
    return (reader.sound(rules.keep_seconds(text), node, ("keep",)) if text is not None else None) or 0


def _read_event(reader: Reader, node: Located, path: FieldPath) -> str:
    if isinstance(node, Scalar) and node.value in rules.FAILURE_WAYS:
        what = "here stands a URL that is told when the job has failed"
        reader.reject(path, node, what, f"write defaults: {{on_failure: {node.value}}}")
        return ""
    return read_url(reader, node, path) or ""


def _said(path: FieldPath, rejected: set[FieldPath]) -> bool:
    """Tells whether this field, or something above it, was reported already: one mistake is one line."""
    return any(path[:length] in rejected for length in range(len(path) + 1))


def _read_task(reader: Reader, name: str, node: Located, defaults: _Common) -> TaskSpec:
    at: FieldPath = ("tasks", name)
    fields = reader.fields(node, at, TASK_FIELDS, TASK_FIELDS_LATER, "write {run: [program, argument]}")
    argv: tuple[str, ...] = ()
    shell = ""
    webhook = python = None
    if "python" in fields:
        python = read_python(reader, fields["python"], (*at, "python"))
        reader.rejected.update({(*at, "run")} if python is None else ())
    if "webhook" in fields:
        webhook = read_webhook(reader, fields["webhook"], (*at, "webhook"))
        reader.rejected.update({(*at, "run")} if webhook is None else ())
        # What a task's own process would get is no business of a service.
        placing = replace(defaults.placing, memory_bytes=None)
        defaults = replace(defaults, env=(), cwd=None, placing=placing, confinement=UNSAID)
    if "run" in fields:
        argv, shell = _read_run(reader, fields["run"], (*at, "run"))
    elif "webhook" in fields or "python" in fields:
        pass
    elif isinstance(node, Mapping) and not any(
        (*at, later) in reader.rejected for later in TASK_FIELDS_LATER
    ):
        reader.reject((*at, "run"), None, "there is nothing to run", "write run: [program, argument]")
    else:
        reader.rejected.add((*at, "run"))
    array = read_array(reader, fields["array"], (*at, "array")) if "array" in fields else None
    common = _read_common(reader, fields, at)
    confinement = common.confinement.over(defaults.confinement)
    placing = common.placing.over(defaults.placing)
    backoff_ms, backoff_max_ms = placing.backoff or (0, 0)
    return TaskSpec(
        name=name,
        argv=argv,
        shell=shell,
        needs=_read_needs(reader, fields["needs"], (*at, "needs")) if "needs" in fields else (),
        array=array,
        env=tuple(sorted({**dict(defaults.env), **dict(common.env)}.items())),
        cwd=_first(common.cwd, defaults.cwd, ""),
        retries=_first(common.retries, defaults.retries, 0),
        crash_limit=_first(common.crash_limit, defaults.crash_limit, 0),
        timeout_ms=_first(common.timeout_ms, defaults.timeout_ms, 0),
        cpu=placing.cpu or 1,
        outputs=_read_outputs(reader, fields["outputs"], (*at, "outputs")) if "outputs" in fields else (),
        memory_bytes=placing.memory_bytes or 0,
        processes=confinement.processes or 0,
        output_bytes=confinement.output_bytes or 0,
        network=confinement.network or rules.NETWORKS[0],
        secrets=confinement.secrets or (),
        webhook=webhook,
        python=python,
        resources=tuple(sorted((placing.resources or {}).items())),
        where=placing.where,
        priority=placing.priority or 0,
        backoff_ms=backoff_ms,
        backoff_max_ms=backoff_max_ms,
        on_failure=placing.on_failure or rules.CONTINUE,
        group=placing.group or "",
        speculate=placing.speculate is not False,
    )


def _read_run(reader: Reader, node: Located, path: FieldPath) -> tuple[tuple[str, ...], str]:
    """Reads arguments or a shell line; an argument that can't be used leaves an empty one in its position."""
    if isinstance(node, Sequence):
        if not node.items:
            reader.reject(path, node, "there is nothing to run", "write run: [program, argument]")
        arguments = (reader.text(item, (*path, position)) for position, item in enumerate(node.items))
        return tuple(argument or "" for argument in arguments), ""
    if isinstance(node, Mapping):
        reader.reject(
            path, node, "it is a mapping, and must be a list or a shell line", "write [program, argument]"
        )
        return (), ""
    return (), reader.text(node, path) or ""


def _read_needs(reader: Reader, node: Located, path: FieldPath) -> tuple[Need, ...]:
    """Reads needs; one that can't be used leaves a nameless one, so that the others keep their positions."""
    hint = f"write [{node.value}]" if isinstance(node, Scalar) and isinstance(node.value, str) else ""
    return tuple(
        _read_need(reader, item, (*path, position)) or Need(task="")
        for position, item in enumerate(reader.items(node, path, hint or "write the names in [ ]"))
    )


def _read_need(reader: Reader, node: Located, path: FieldPath) -> Need | None:
    into = ""
    end: End = (rules.SUCCEEDED, ())
    if isinstance(node, Mapping):
        fields = reader.fields(node, path, NEED_FIELDS, (), "")
        if "task" not in fields:
            reader.reject(path, node, "it names no task", "write {task: name, into: folder}")
            return None
        if "into" in fields:
            into = _read_path(reader, fields["into"], (*path, "into")) or ""
        if "when" in fields:
            end = read_end(reader, fields["when"], (*path, "when")) or end
        written = reader.text(fields["task"], (*path, "task"))
    else:
        written = reader.text(node, path)
    if written is None:
        reader.rejected.add(path)
        return None
    name, bracket, index = written.partition("[")
    if bracket and index != "index]":
        hint = f"write {name} for all of it, or {name}[index] for the element of the same index"
        reader.reject(path, node, f"{shown(written)} names one element", hint)
        return None
    return Need(task=name, same_index=bool(bracket), into=into, when=end[0], exits=end[1])


def _read_common(reader: Reader, fields: dict[str, Located], at: FieldPath) -> _Common:
    """Reads the fields that ``defaults`` and tasks share."""
    return _Common(
        env=_read_env(reader, fields["env"], (*at, "env")) if "env" in fields else (),
        cwd=_read_path(reader, fields["cwd"], (*at, "cwd")) if "cwd" in fields else None,
        crash_limit=reader.whole_number(fields["crash_limit"], (*at, "crash_limit"), 1, rules.CRASH_LIMIT_MAX)
        if "crash_limit" in fields
        else None,
        retries=reader.whole_number(fields["retries"], (*at, "retries"), 0, rules.RETRIES_MAX)
        if "retries" in fields
        else None,
        timeout_ms=reader.duration(fields["timeout"], (*at, "timeout")) if "timeout" in fields else None,
        placing=read_placing(reader, fields, at),
        confinement=read_confinement(reader, fields, at),
    )


def _read_env(reader: Reader, node: Located, path: FieldPath) -> tuple[tuple[str, str], ...]:
    found = reader.mapping(node, path, "write {NAME: value}") or {}
    variables: list[tuple[str, str]] = []
    for name, value in found.items():
        text = reader.text_or_number(value, (*path, name))
        fault = rules.env_name_fault(name)
        if fault is not None:
            reader.reject((*path, name), None, fault.what, fault.hint)
        elif text is not None:
            variables.append((name, text))
    return tuple(variables)


def _read_path(reader: Reader, node: Located, path: FieldPath) -> str | None:
    text = reader.text(node, path)
    return None if text is None else reader.sound(rules.relative_path(text), node, path)


def _read_outputs(reader: Reader, node: Located, path: FieldPath) -> tuple[str, ...]:
    outputs: list[str] = []
    for position, item in enumerate(reader.items(node, path, "write the paths in [ ]")):
        at: FieldPath = (*path, position)
        text = reader.text(item, at)
        outputs.append(
            (reader.sound(rules.output_pattern(text), item, at) if text is not None else None) or ""
        )
    return tuple(outputs)


def _read_files(reader: Reader, node: Located) -> tuple[WantedFile, ...]:
    wanted: list[WantedFile] = []
    for position, item in enumerate(reader.items(node, ("files",), "write the paths in [ ]")):
        at: FieldPath = ("files", position)
        text = reader.text(item, at)
        path = reader.sound(rules.relative_path(text), item, at) if text is not None else None
        if text is not None and path is not None:
            folder = not path or text.endswith("/")
            wanted.append(WantedFile(path=path, folder=folder, field=at, place=item.place))
    return tuple(wanted)


def _first(own: Chosen | None, default: Chosen | None, otherwise: Chosen) -> Chosen:
    """Returns what the task says, else what ``defaults`` say, else the usual."""
    if own is not None:
        return own
    return default if default is not None else otherwise

"""``python`` of a task: a function that does the work, how a job names it, and how that is judged.

A job file names a function (``package.module:function``) and gives it JSON values. The Python client pickles
functions and arguments into one file of the job (``calls``), and the task says which. In both cases the
function runs in the task's own process, confined as a command is; no agent ever imports or unpickles anything
of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import JobId
from meshpeer.core.jobs.calls import CALLS_BYTES_MAX
from meshpeer.core.jobs.expand import fields_of
from meshpeer.core.jobs.json_values import JsonValue, expanded, parse, text_of, texts, written
from meshpeer.core.jobs.located import FieldPath, Located, Mapping, Sequence
from meshpeer.core.jobs.model import FileRef, JobSpec, PythonCall, TaskSpec
from meshpeer.core.jobs.problems import SpecError
from meshpeer.core.jobs.reading import Reader
from meshpeer.core.jobs.rules import Fault, shown

PYTHON_FIELDS: Final = ("call", "args", "kwargs")
JSON, PICKLE = "json", "pickle"
RESULTS: Final = (JSON, PICKLE)
CALL_CHARACTERS_MAX: Final = 500
KIT_FOLDER: Final = ".meshpeer"
"""In the scratch folder: what runs the function, and the call."""
RESULTS_FOLDER: Final = "results"
CALL_PATTERN: Final = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
_CALL = re.compile(CALL_PATTERN[1:-1], re.ASCII)
VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}", re.ASCII)
"""Python's major and minor version."""
_FORM = "write package.module:function"


def read_python(reader: Reader, node: Located, path: FieldPath) -> PythonCall | None:
    """Reads ``python: {call, args, kwargs}``, or the call alone; None where it can't be used."""
    if not isinstance(node, Mapping):
        call = reader.text(node, path)
        return None if call is None else PythonCall(call=call)
    fields = reader.fields(node, path, PYTHON_FIELDS, (), "write {call: package.module:function}")
    if "call" not in fields:
        reader.reject(path, node, "it names no call", "write {call: package.module:function}")
        return None
    call = reader.text(fields["call"], (*path, "call"))
    for name, shape, hint in (("args", Sequence, "write [1, 2]"), ("kwargs", Mapping, "write {name: value}")):
        if name in fields and not isinstance(fields[name], shape):
            kind = "a list" if shape is Sequence else "a mapping"
            reader.reject((*path, name), fields[name], f"it must be {kind}", hint)
            return None
    parts = {
        name: written(reader, fields[name], (*path, name)) for name in ("args", "kwargs") if name in fields
    }
    arguments = ",".join(f'"{name}":{text}' for name, text in parts.items() if text)
    return None if call is None else PythonCall(call=call, arguments=f"{{{arguments}}}" if arguments else "")


def check_python(
    task: TaskSpec,
    at: FieldPath,
    check_expansion: Callable[[str, TaskSpec, FieldPath], Iterator[SpecError]] | None,
) -> Iterator[SpecError]:
    """Yields what is wrong with a task's function, from a file or from elsewhere; without ``check_expansion``
    names in ``${...}`` are not looked at."""
    python = task.python
    if python is None:
        return
    where: FieldPath = (*at, "python")
    if python.result not in RESULTS:
        yield SpecError(path=where, what=f"{shown(python.result)} is no form of a result")
    if python.version and (not python.calls or VERSION.fullmatch(python.version) is None):
        yield SpecError(path=where, what=f"{shown(python.version)} is no version of pickled calls")
    if python.calls:
        if python.call or python.arguments:
            yield SpecError(path=where, what="it names a function and has pickled ones", hint="keep one")
        return
    fault = call_fault(python.call)
    if fault is not None:
        yield SpecError(path=(*where, "call"), what=fault.what, hint=fault.hint)
    parsed = parse_arguments(python.arguments)
    if isinstance(parsed, Fault):
        yield SpecError(path=where, what=parsed.what, hint=parsed.hint)
    elif check_expansion is not None:
        for text in texts(parsed):
            yield from check_expansion(text, task, where)


def check_calls(spec: JobSpec) -> Iterator[SpecError]:
    """Yields what is wrong with the files of pickled calls that a job's tasks name."""
    files = {file.path: file for file in spec.files} if calls_paths(spec) else {}
    for task in spec.tasks:
        if task.python is None or not task.python.calls:
            continue
        at: FieldPath = ("tasks", task.name, "python")
        file = files.get(task.python.calls)
        if file is None:
            yield SpecError(path=at, what=f"the job has no file {shown(task.python.calls)}")
        elif file.size > CALLS_BYTES_MAX:
            fault = too_large(file.size)
            yield SpecError(path=at, what=fault.what, hint=fault.hint)


def too_large(size: int) -> Fault:
    """Returns what is wrong with calls of so many bytes."""
    most = f"{CALLS_BYTES_MAX >> 20} MiB are allowed"
    return Fault(
        f"functions and arguments come to {size / 1024**2:.1f} MiB, and {most}",
        "hand data over as files of the job, or let the function read it where it runs",
    )


def call_fault(call: str) -> Fault | None:
    """Judges the name of a function."""
    if len(call) > CALL_CHARACTERS_MAX or not _CALL.fullmatch(call):
        return Fault(f"{shown(call)} is no function", _FORM)
    return None


def parse_arguments(text: str) -> JsonValue | Fault:
    """Returns ``{"args": [...], "kwargs": {...}}``, each left out where there are none, or what is wrong."""
    value = parse(text, "the arguments") if text else {}
    if isinstance(value, Fault):
        return value
    if not isinstance(value, dict) or not set(value) <= {"args", "kwargs"}:
        return Fault("the arguments are none of a function")
    if not isinstance(value.get("args", []), list) or not isinstance(value.get("kwargs", {}), dict):
        return Fault("the arguments are none of a function")
    return value


def call_document(spec: TaskSpec, element: int | None, job: JobId, task: str, attempt: int) -> bytes:
    """Returns the call of a named function as its runner reads it, expanded; expects a checked spec. Raises
    ``LocalFault`` for arguments that grow too large."""
    assert spec.python is not None
    parsed = parse_arguments(spec.python.arguments)
    if isinstance(parsed, Fault):
        raise LocalFault(parsed.what, parsed.hint)
    value = expanded(parsed, fields_of(spec, element, job, task, attempt), "the list of arguments")
    assert isinstance(value, dict)
    return text_of({"call": spec.python.call, **value}).encode("utf-8")


def calls_paths(spec: JobSpec) -> frozenset[str]:
    """Returns the paths of the files that hold pickled calls: no task finds them in its scratch folder."""
    return frozenset(
        task.python.calls for task in spec.tasks if task.python is not None and task.python.calls
    )


def calls_file(spec: JobSpec, python: PythonCall) -> FileRef:
    """Returns the file that holds a task's pickled calls; raises ``LocalFault`` where there is none."""
    for file in spec.files:
        if file.path == python.calls:
            return file
    raise LocalFault(f"the job has no file {shown(python.calls)}")


def result_path(spec: TaskSpec, element: int | None) -> str:
    """Returns where a task puts out its value: ``results/NAME.json``, of an array ``results/NAME.3.json``."""
    assert spec.python is not None
    return f"{_stem(spec, element)}.{spec.python.result}"


def report_path(spec: TaskSpec, element: int | None) -> str:
    """Returns where a task that fails leaves its exception."""
    return f"{_stem(spec, element)}.error.json"


def _stem(spec: TaskSpec, element: int | None) -> str:
    # A task's name has no dot, so that no two tasks share a path.
    return f"{RESULTS_FOLDER}/{spec.name}" + ("" if element is None else f".{element}")

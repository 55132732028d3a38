"""The rules of a whole job, on the value that travels: what ``jobs.spec`` applies to a file, and every node
to a record.

A record's signature proves who sent it, not that a client checked it. So whatever arrives goes through
``check_job`` before a graph is made of it: names, paths, sizes, needs and cycles, with nothing assumed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from meshpeer.core.jobs import rules
from meshpeer.core.jobs.confinement import check_confinement
from meshpeer.core.jobs.located import FieldPath
from meshpeer.core.jobs.model import Array, FileRef, JobSpec, TaskSpec
from meshpeer.core.jobs.nearest import did_you_mean
from meshpeer.core.jobs.need_ends import check_end
from meshpeer.core.jobs.placing import check_job_placing, check_placing
from meshpeer.core.jobs.problems import InvalidJob, SpecError
from meshpeer.core.jobs.python import check_calls, check_python
from meshpeer.core.jobs.rules import Fault, shown
from meshpeer.core.jobs.template import names_in
from meshpeer.core.jobs.webhook import check_job_webhooks, check_webhook
from meshpeer.core.wire.limits import BLOB_BYTES_MAX, JOB_TASKS_MAX

CYCLES_SHOWN_MAX = 10
GUESSES_MAX = 50
"""Unknown needs that get a suggestion: comparing words is slow, and nobody reads more of them."""
DIGEST_BYTES = 32


def check_job(spec: JobSpec, unread: Collection[FieldPath] = ()) -> tuple[SpecError, ...]:
    """Returns everything that is wrong with a job, in no promised order; nothing for one that may run.

    ``unread`` names fields whose value is a stand-in because the file's own was rejected before: rules that
    would only follow from the stand-in keep silent.
    """
    return (
        *_located(("name",), rules.job_name_fault(spec.name)),
        *_check_count(spec),
        *check_files(spec.files),
        *check_job_webhooks(spec),
        *check_calls(spec),
        *_located(("keep",), rules.number_fault(spec.keep_s, 0, rules.KEEP_S_MAX)),
        *check_job_placing(spec),
        *(error for task in spec.tasks for error in _check_task(task, unread, dict(spec.groups))),
        *_check_needs(spec, unread),
    )


def require_valid(spec: JobSpec) -> None:
    """Raises ``InvalidJob`` (a ``LocalFault``) with all errors of a spec that came from elsewhere."""
    errors = check_job(spec)
    if errors:
        raise InvalidJob(errors, spec.name if rules.job_name_fault(spec.name) is None else "job")


def tasks_after_expansion(tasks: Sequence[TaskSpec]) -> int:
    """Counts the tasks of a job, the elements of arrays one by one."""
    return sum(1 if task.array is None else task.array.size for task in tasks)


def _located(path: FieldPath, fault: Fault | None) -> Iterator[SpecError]:
    if fault is not None:
        yield SpecError(path=path, what=fault.what, hint=fault.hint)


def _check_count(spec: JobSpec) -> Iterator[SpecError]:
    count = tasks_after_expansion(spec.tasks)
    if not spec.tasks:
        yield SpecError(path=("tasks",), what="the job has no tasks", hint="name at least one, with a run")
    elif count > JOB_TASKS_MAX:
        yield SpecError(
            path=("tasks",),
            what=f"the job has {count:,} tasks, and {JOB_TASKS_MAX:,} are allowed",
            hint="split it into several jobs, or let one task do more",
        )


def check_files(files: Sequence[FileRef]) -> Iterator[SpecError]:
    """Yields what is wrong with the files of a job, for whoever adds them to a checked spec."""
    seen: set[str] = set()
    for position, file in enumerate(files):
        at: FieldPath = ("files", position)
        yield from _located(at, _normal_path_fault(file.path))
        if file.path in seen:
            yield SpecError(path=at, what=f"{shown(file.path)} is given twice", hint="remove one")
        seen.add(file.path)
        if not 0 <= file.size <= BLOB_BYTES_MAX:
            yield SpecError(path=at, what=f"{shown(file.path)} has {file.size:,} bytes", hint=_FILE_SIZE_HINT)
        if len(file.digest) != DIGEST_BYTES:
            yield SpecError(path=at, what=f"{shown(file.path)} has no SHA-256 digest")
    for file in files:
        parts = file.path.split("/")
        if any("/".join(parts[:depth]) in seen for depth in range(1, len(parts))):
            yield SpecError(path=("files",), what=f"{shown(file.path)} is inside of what is a file as well")
    yield from _too_many(("files",), len(files), rules.FILES_MAX)


def _check_task(
    task: TaskSpec, unread: Collection[FieldPath], groups: Mapping[str, int]
) -> Iterator[SpecError]:
    at: FieldPath = ("tasks", task.name)
    yield from _located(at, rules.task_name_fault(task.name))
    yield from _check_run(task, at, unread)
    if task.array is not None:
        yield from _check_array(task.array, (*at, "array"))
    yield from _check_env(task, (*at, "env"))
    if task.cwd:
        yield from _located((*at, "cwd"), _normal_path_fault(task.cwd))
    for position, pattern in enumerate(task.outputs):
        normal = rules.output_pattern(pattern)
        fault = normal if isinstance(normal, Fault) else _unless_same(normal, pattern)
        yield from _located((*at, "outputs", position), fault)
    yield from _too_many((*at, "outputs"), len(task.outputs), rules.OUTPUTS_MAX)
    yield from _located((*at, "retries"), rules.number_fault(task.retries, 0, rules.RETRIES_MAX))
    yield from _located((*at, "crash_limit"), rules.number_fault(task.crash_limit, 0, rules.CRASH_LIMIT_MAX))
    yield from _located((*at, "timeout"), rules.number_fault(task.timeout_ms, 0, rules.TIMEOUT_MS_MAX))
    yield from _located((*at, "resources", "cpu"), rules.number_fault(task.cpu, 1, rules.CPU_MAX))
    yield from check_placing(task, at, groups)
    yield from check_confinement(task, at, _fields_of(task))
    check_expansion = _check_expansion if (*at, "array") not in unread else None
    yield from check_webhook(task, at, check_expansion)
    yield from check_python(task, at, check_expansion)


def _check_run(task: TaskSpec, at: FieldPath, unread: Collection[FieldPath]) -> Iterator[SpecError]:
    run: FieldPath = (*at, "run")
    if task.argv and task.shell:
        yield SpecError(path=run, what="it has arguments and a shell line", hint="keep one of them")
    elif task.webhook is not None or task.python is not None:
        other = "calls a service" if task.webhook is not None else "calls a function"
        if task.argv or task.shell:
            yield SpecError(path=run, what=f"it runs a program and {other}", hint="make it two tasks")
        elif task.webhook is not None and task.python is not None:
            what = "it calls a service and a function"
            yield SpecError(path=(*at, "python"), what=what, hint="make it two tasks")
        return
    elif not task.argv and not task.shell.strip():
        yield SpecError(path=run, what="there is nothing to run", hint="write run: [program, argument]")
    if task.argv and not task.argv[0]:
        yield SpecError(path=(*run, 0), what="the program's name is empty", hint="name a program")
    yield from _located(run, rules.text_fault(task.shell, bytes_max=rules.ARGUMENT_BYTES_MAX))
    for position, argument in enumerate(task.argv):
        step: FieldPath = (*run, position)
        yield from _located(step, rules.text_fault(argument, bytes_max=rules.ARGUMENT_BYTES_MAX))
        if (*at, "array") not in unread:
            yield from _check_expansion(argument, task, step)
    yield from _too_many(run, len(task.argv), rules.ARGUMENTS_MAX)


def _check_expansion(text: str, task: TaskSpec, at: FieldPath) -> Iterator[SpecError]:
    known = _fields_of(task)
    for name in names_in(text) if "$" in text else ():
        if name is None:
            yield SpecError(path=at, what="'${' has no '}'", hint="close it, or write '$${' for the text")
        elif name == "index" and task.array is None:
            yield SpecError(path=at, what="'${index}' in a task without an array", hint="give it an array")
        elif name not in known:
            names = ", ".join(f"${{{field}}}" for field in known)
            guess = did_you_mean(name, known)
            literal = (
                f"write '$${{{name}}}' for the text" if rules.text_fault(name, bytes_max=60) is None else ""
            )
            what = f"nothing is called {shown('${' + name + '}')} here"
            yield SpecError(path=at, what=what, hint=guess or f"there are {names}; {literal}")


def _fields_of(task: TaskSpec) -> tuple[str, ...]:
    own = tuple(name for name in rules.OWN_FIELDS if name != "index" or task.array is not None)
    if task.array is None or not task.array.elements:
        return own
    return (*own, *(name for name, _ in task.array.elements[0].fields))


def _check_array(array: Array, at: FieldPath) -> Iterator[SpecError]:
    if array.size < 1:
        yield SpecError(path=at, what="the array has no elements", hint="give it one, or leave array out")
    if not array.elements:
        return
    if len(array.elements) != array.size:
        yield SpecError(path=at, what=f"{len(array.elements)} elements in an array of {array.size}")
    names = [name for name, _ in array.elements[0].fields]
    for name in names:
        yield from _located((*at, name), rules.field_name_fault(name))
    if len(set(names)) != len(names):
        yield SpecError(path=at, what="an element has the same field twice", hint="rename one")
    yield from _too_many(at, len(names), rules.ARRAY_FIELDS_MAX)
    for element in array.elements:
        if [name for name, _ in element.fields] != names:
            yield SpecError(path=at, what="elements differ in their fields", hint="give all the same")
            return
        for name, value in element.fields:
            fault = rules.text_fault(value, bytes_max=rules.FIELD_VALUE_BYTES_MAX)
            if fault is not None:
                yield from _located((*at, name), fault)
                return


def _check_env(task: TaskSpec, at: FieldPath) -> Iterator[SpecError]:
    fields = _fields_of(task)
    seen: set[str] = set()
    for name, value in task.env:
        step: FieldPath = (*at, name)
        yield from _located(step, rules.env_name_fault(name))
        room = rules.ARGUMENT_BYTES_MAX - len(name) - 1
        yield from _located(step, rules.text_fault(value, bytes_max=room))
        if name in seen:
            yield SpecError(path=step, what=f"{shown(name)} is given twice", hint="remove one")
        elif name in fields and name not in rules.OWN_FIELDS:
            what = f"{shown(name)} is a field of the task's array as well"
            yield SpecError(path=step, what=what, hint="rename the variable or the field")
        seen.add(name)
        used = next((field for field in names_in(value) if field in fields), None) if "$" in value else None
        if used is not None:
            what = f"variables are not expanded, and {shown(value)} names '${{{used}}}'"
            yield SpecError(path=step, what=what, hint=f"the task has ${used} as a variable already")
    yield from _too_many(at, len(task.env), rules.ENV_MAX)


def _check_needs(spec: JobSpec, unread: Collection[FieldPath]) -> Iterator[SpecError]:
    tasks: dict[str, TaskSpec] = {}
    unknown = 0
    for task in spec.tasks:
        if task.name in tasks:
            what = f"two tasks are called {shown(task.name)}"
            yield SpecError(path=("tasks", task.name), what=what, hint="rename one")
        tasks.setdefault(task.name, task)
    for task in spec.tasks:
        seen: set[tuple[str, str]] = set()
        for position, need in enumerate(task.needs):
            at: FieldPath = ("tasks", task.name, "needs", position)
            needed = tasks.get(need.task)
            if needed is task:
                yield SpecError(path=at, what=f"{shown(task.name)} needs itself", hint="remove it")
            elif needed is None:
                unknown += 1
                guess = did_you_mean(need.task, tasks) if unknown <= GUESSES_MAX else ""
                hint = guess or "name a task of this job"
                yield SpecError(path=at, what=f"unknown task {shown(need.task)}", hint=hint)
            elif need.same_index and not _any_unread(task, needed, unread):
                yield from _check_same_index(task, needed, at)
            if (need.task, need.into) in seen:
                what = f"{shown(need.task)} is needed twice, into the same folder"
                yield SpecError(
                    path=at, what=what, hint="remove one, or stage it with {task: ..., into: ...}"
                )
            seen.add((need.task, need.into))
            if need.into:
                yield from _located(at, _normal_path_fault(need.into))
            yield from check_end(need, needed, (*at, "when"))
        yield from _too_many(("tasks", task.name, "needs"), len(task.needs), rules.NEEDS_MAX)
    pairs = sum(
        sum(need.same_index for need in task.needs) * (1 if task.array is None else task.array.size)
        for task in spec.tasks
    )
    if pairs > rules.PAIRS_MAX:
        what = f"the job pairs {pairs:,} elements by [index], and {rules.PAIRS_MAX:,} are allowed"
        yield SpecError(path=("tasks",), what=what, hint="need whole tasks, or split the job")
    for cycle in _cycles(tasks):
        what = f"the tasks need each other in a cycle: {' -> '.join((*cycle, cycle[0]))}"
        yield SpecError(path=("tasks", cycle[0], "needs"), what=what, hint="remove one of these needs")


def _check_same_index(task: TaskSpec, needed: TaskSpec, at: FieldPath) -> Iterator[SpecError]:
    written = f"'{needed.name}[index]'"
    if needed.array is None:
        what = f"{written}, but {shown(needed.name)} has no array"
        yield SpecError(path=at, what=what, hint=f"write {needed.name}")
    elif task.array is None:
        what = f"{written}, but {shown(task.name)} has no array of its own"
        yield SpecError(
            path=at, what=what, hint=f"write {needed.name} for all of it, or give this task an array"
        )
    elif task.array.size != needed.array.size:
        what = f"{written} pairs elements, but {shown(needed.name)} has {needed.array.size:,} of them"
        yield SpecError(
            path=at,
            what=f"{what} and {shown(task.name)} {task.array.size:,}",
            hint=f"make the arrays equal, or write {needed.name} for all of it",
        )


def _any_unread(task: TaskSpec, needed: TaskSpec, unread: Collection[FieldPath]) -> bool:
    return ("tasks", task.name, "array") in unread or ("tasks", needed.name, "array") in unread


def _cycles(tasks: dict[str, TaskSpec]) -> Iterator[tuple[str, ...]]:
    """Yields cycles of needs, each from the task that stands first in the file; no task is in two of them.

    A depth-first walk with its own stack: a chain of 100,000 tasks must not meet Python's recursion limit.
    After a cycle is found its tasks count as done, so that one knot is reported once and not in all its
    variants.
    """
    order = {name: position for position, name in enumerate(tasks)}
    done: set[str] = set()
    found = 0
    for start in tasks:
        trail: dict[str, None] = {}
        stack: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            trail[start] = None
            stack.append((start, _known_needs(tasks, start)))
        while stack:
            name, needs = stack[-1]
            following = next(needs, None)
            if following is None:
                stack.pop()
                trail.pop(name)
                done.add(name)
            elif following in trail:
                members = list(trail)
                cycle = members[members.index(following) :]
                first = cycle.index(min(cycle, key=order.__getitem__))
                yield tuple(cycle[first:] + cycle[:first])
                done.update(trail)
                found += 1
                if found == CYCLES_SHOWN_MAX:
                    return
                break
            elif following not in done:
                trail[following] = None
                stack.append((following, _known_needs(tasks, following)))


def _known_needs(tasks: dict[str, TaskSpec], name: str) -> Iterator[str]:
    return (need.task for need in tasks[name].needs if need.task in tasks and need.task != name)


def _normal_path_fault(path: str) -> Fault | None:
    normal = rules.relative_path(path)
    return normal if isinstance(normal, Fault) else _unless_same(normal, path)


def _unless_same(normal: str, path: str) -> Fault | None:
    return (
        None
        if normal == path and path
        else Fault(f"{shown(path)} is not in normal form", f"write {shown(normal)}")
    )


def _too_many(path: FieldPath, count: int, most: int) -> Iterator[SpecError]:
    if count > most:
        yield SpecError(path=path, what=f"{count:,} entries, and {most:,} are allowed", hint="split the job")


_FILE_SIZE_HINT = f"a file of a job has at most {rules.size_text(BLOB_BYTES_MAX, ' ')}"

"""What one attempt of one task runs: its arguments and its own environment variables.

Values of a task's fields reach a program as arguments (``${index}``) or as environment variables (``$index``
in a shell line), never as part of a shell line: whatever a field holds, the shell doesn't parse it.
"""

from __future__ import annotations

from collections.abc import Collection

from meshpeer.core.ids import JobId
from meshpeer.core.jobs.model import TaskSpec
from meshpeer.core.jobs.template import expand

SHELL = "/bin/sh"


def argv_of(spec: TaskSpec, element: int | None, job: JobId, task: str, attempt: int) -> tuple[str, ...]:
    """Returns the arguments of an attempt (counted from 1); ``task`` is the task's id, such as ``render[3]``.

    A shell line becomes ``/bin/sh -c LINE``, untouched. Expects a spec that ``check_job`` accepts.
    """
    if spec.shell:
        return (SHELL, "-c", spec.shell)
    fields = fields_of(spec, element, job, task, attempt)
    return tuple(expand(argument, fields) for argument in spec.argv)


def env_of(
    spec: TaskSpec,
    element: int | None,
    job: JobId,
    task: str,
    attempt: int,
    existing: Collection[str] = (),
) -> tuple[tuple[str, str], ...]:
    """Returns the variables that an attempt gets on top of ``existing`` ones, sorted by name.

    The job's own ``env`` may replace existing variables (PATH, say); the task's fields never do. What every
    attempt gets: ``MESHPEER_IDEMPOTENCY_KEY``, the same for all attempts of a task, and ``MESHPEER_ATTEMPT``.
    """
    fields = fields_of(spec, element, job, task, attempt)
    variables = {name: value for name, value in fields.items() if name not in existing}
    variables.update(spec.env)
    variables["MESHPEER_IDEMPOTENCY_KEY"] = idempotency_key(job, task)
    variables["MESHPEER_ATTEMPT"] = str(attempt)
    return tuple(sorted(variables.items()))


def idempotency_key(job: JobId, task: str) -> str:
    """Returns what is the same for all attempts of a task, and of no other task."""
    return f"{job}:{task}"


def fields_of(spec: TaskSpec, element: int | None, job: JobId, task: str, attempt: int) -> dict[str, str]:
    """Returns what ``${...}`` may name in an attempt, with its values."""
    return {**_own_fields(element, job, task, attempt), **_array_fields(spec, element)}


def _own_fields(element: int | None, job: JobId, task: str, attempt: int) -> dict[str, str]:
    fields = {"job": str(job), "task": task, "attempt": str(attempt)}
    if element is not None:
        fields["index"] = str(element)
    return fields


def _array_fields(spec: TaskSpec, element: int | None) -> dict[str, str]:
    if element is None or spec.array is None or not spec.array.elements:
        return {}
    return dict(spec.array.elements[element].fields)

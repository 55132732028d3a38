"""``webhook`` of a task: what a job says about a service that does the work, how it is read, and how it is
judged.

The service runs beside the worker (a model server, say), and the worker calls it: which addresses a worker
may be sent to is the worker's own rule (``webhook_urls``), so that a job can't turn a node against its own
network.

A body travels as JSON text, since signed records carry no floats; it is expanded value by value after it is
parsed, so that no field can break out of its string.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import JobId
from meshpeer.core.jobs import rules
from meshpeer.core.jobs.expand import fields_of
from meshpeer.core.jobs.located import FieldPath, Located, Mapping, Scalar, Sequence
from meshpeer.core.jobs.model import JobSpec, TaskSpec, Webhook
from meshpeer.core.jobs.problems import SpecError
from meshpeer.core.jobs.reading import Reader
from meshpeer.core.jobs.rules import Fault
from meshpeer.core.jobs.template import expand, names_in
from meshpeer.core.jobs.webhook_urls import url_fault

WEBHOOK_FIELDS = ("url", "body")
BODY_BYTES_MAX = 256 * 1024
BODY_DEPTH_MAX = 24
EXPANDED_BYTES_MAX = 1024 * 1024
"""Characters of all texts of a body after expansion."""

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"


def read_webhook(reader: Reader, node: Located, path: FieldPath) -> Webhook | None:
    """Reads ``webhook: {url, body}``; None where it can't be used."""
    fields = reader.fields(node, path, WEBHOOK_FIELDS, (), "write {url: http://127.0.0.1:8000/run}")
    if "url" not in fields:
        if isinstance(node, Mapping):
            reader.reject(path, node, "it names no url", "write {url: http://127.0.0.1:8000/run}")
        return None
    url = read_url(reader, fields["url"], (*path, "url"))
    body = ""
    if "body" in fields:
        body = _written(reader, fields["body"], (*path, "body"))
    return None if url is None else Webhook(url=url, body=body)


def read_url(reader: Reader, node: Located, path: FieldPath) -> str | None:
    """Reads a URL that a webhook may have; None for anything else."""
    url = reader.text(node, path)
    return None if url is None else reader.sound(url_fault(url) or url, node, path)


def check_job_webhooks(spec: JobSpec) -> Iterator[SpecError]:
    """Yields what is wrong with the URLs that a job's end is told to."""
    for event, url in (("on_complete", spec.on_complete), ("on_failure", spec.on_failure)):
        fault = url_fault(url) if url else None
        if fault is not None:
            yield SpecError(path=(event,), what=fault.what, hint=fault.hint)


def check_webhook(
    task: TaskSpec,
    at: FieldPath,
    check_expansion: Callable[[str, TaskSpec, FieldPath], Iterator[SpecError]] | None,
) -> Iterator[SpecError]:
    """Yields what is wrong with a task's webhook, from a file or from elsewhere; without ``check_expansion``
    names in ``${...}`` are not looked at."""
    hook = task.webhook
    if hook is None:
        return
    where: FieldPath = (*at, "webhook")
    fault = url_fault(hook.url)
    if fault is not None:
        yield SpecError(path=(*where, "url"), what=fault.what, hint=fault.hint)
    for name, said in (
        ("outputs", task.outputs),
        ("env", task.env),
        ("cwd", task.cwd),
        ("secrets", task.secrets),
        ("limits", task.processes or task.output_bytes),
        ("network", task.network != rules.NETWORKS[0]),
    ):
        if said:
            hint = "a service has its own; remove it, or run a command"
            yield SpecError(path=(*at, name), what=f"a webhook has no {name}", hint=hint)
    if task.memory_bytes:
        hint = "a service has its own; remove it"
        yield SpecError(path=(*at, "resources", "memory"), what="a webhook has no memory", hint=hint)
    body: FieldPath = (*where, "body")
    parsed = parse_body(hook.body)
    if isinstance(parsed, Fault):
        yield SpecError(path=body, what=parsed.what, hint=parsed.hint)
    elif check_expansion is not None:
        for text in _texts(parsed):
            yield from check_expansion(text, task, body)


def body_of(spec: TaskSpec, element: int | None, job: JobId, task: str, attempt: int) -> bytes:
    """Returns the body that an attempt (counted from 1) sends, expanded; expects a checked spec. Nothing
    said is an empty object. Raises ``LocalFault`` for one that grows too large."""
    assert spec.webhook is not None
    parsed = parse_body(spec.webhook.body)
    assert not isinstance(parsed, Fault)
    fields = fields_of(spec, element, job, task, attempt)
    if sum(_expanded_length(text, fields) for text in _texts(parsed)) > EXPANDED_BYTES_MAX:
        raise LocalFault("the webhook's body is too large once its fields are expanded", "use fewer of them")
    return json.dumps(_expanded(parsed, fields), ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def parse_body(text: str) -> JsonValue | Fault:
    """Returns the value of a body's JSON text, an empty object for no text, or why it is none."""
    if len(text.encode("utf-8", "surrogatepass")) > BODY_BYTES_MAX:
        return Fault(
            f"the body is larger than {BODY_BYTES_MAX // 1024} KiB", "let the service fetch the rest"
        )
    if not text:
        return {}
    fault = rules.text_fault(text, bytes_max=BODY_BYTES_MAX)
    if fault is not None:
        return fault
    try:
        value: JsonValue = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return Fault("the body is not JSON", "write it as values, lists and mappings")
    return _shape_fault(value) or value


def _refuse_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is no JSON")


def _shape_fault(value: JsonValue, depth: int = 0) -> Fault | None:
    if depth > BODY_DEPTH_MAX:
        return Fault(f"the body is nested more than {BODY_DEPTH_MAX} deep", "flatten it")
    match value:
        case str():
            return rules.text_fault(value, bytes_max=BODY_BYTES_MAX)
        case float() if not math.isfinite(value):
            return Fault("the body holds a number that JSON has not", "write a finite one")
        case list():
            faults = (_shape_fault(one, depth + 1) for one in value)
            return next((fault for fault in faults if fault is not None), None)
        case dict():
            texts = (
                _shape_fault(key, depth + 1) or _shape_fault(one, depth + 1) for key, one in value.items()
            )
            return next((fault for fault in texts if fault is not None), None)
        case _:
            return None


def _written(reader: Reader, node: Located, path: FieldPath) -> str:
    """Returns a document's part as JSON text; what can't be is rejected."""
    value = _value(reader, node, path, 0)
    if path in reader.rejected or any(one[: len(path)] == path for one in reader.rejected):
        return ""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _value(reader: Reader, node: Located, path: FieldPath, depth: int) -> JsonValue:
    if depth > BODY_DEPTH_MAX:
        reader.reject(path, node, f"it is nested more than {BODY_DEPTH_MAX} deep", "flatten it")
        return None
    match node:
        case Mapping():
            named = reader.mapping(node, path, "") or {}
            return {key: _value(reader, one, (*path, key), depth + 1) for key, one in named.items()}
        case Sequence(items=items):
            return [_value(reader, one, (*path, place), depth + 1) for place, one in enumerate(items)]
        case Scalar(value=float() as number) if not math.isfinite(number):
            reader.reject(path, node, f"{node.written} is no number that JSON has", "write a finite one")
            return None
        case Scalar(value=value):
            return value


def _texts(value: JsonValue) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from _texts(one)
        case dict():
            for one in value.values():
                yield from _texts(one)


def _expanded_length(text: str, fields: dict[str, str]) -> int:
    return len(text) + sum(len(fields[name]) for name in names_in(text) if name is not None)


def _expanded(value: JsonValue, fields: dict[str, str]) -> JsonValue:
    match value:
        case str():
            return expand(value, fields)
        case list():
            return [_expanded(one, fields) for one in value]
        case dict():
            return {key: _expanded(one, fields) for key, one in value.items()}
        case _:
            return value

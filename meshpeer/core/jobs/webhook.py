"""``webhook`` of a task: what a job says about a service that does the work, how it is read, and how it is
judged.

The service runs beside the worker (a model server, say), and the worker calls it: which addresses a worker
may be sent to is the worker's own rule (``webhook_urls``), so that a job can't turn a node against its own
network.

A body travels as JSON text (``json_values``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from meshpeer.core.ids import JobId
from meshpeer.core.jobs import rules
from meshpeer.core.jobs.expand import fields_of
from meshpeer.core.jobs.json_values import JsonValue, expanded, parse, text_of, texts, written
from meshpeer.core.jobs.located import FieldPath, Located, Mapping
from meshpeer.core.jobs.model import JobSpec, TaskSpec, Webhook
from meshpeer.core.jobs.problems import SpecError
from meshpeer.core.jobs.reading import Reader
from meshpeer.core.jobs.rules import Fault
from meshpeer.core.jobs.webhook_urls import url_fault

WEBHOOK_FIELDS = ("url", "body")


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
        body = written(reader, fields["body"], (*path, "body"))
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
        for text in texts(parsed):
            yield from check_expansion(text, task, body)


def body_of(spec: TaskSpec, element: int | None, job: JobId, task: str, attempt: int) -> bytes:
    """Returns the body that an attempt (counted from 1) sends, expanded; expects a checked spec. Nothing
    said is an empty object. Raises ``LocalFault`` for one that grows too large."""
    assert spec.webhook is not None
    parsed = parse_body(spec.webhook.body)
    assert not isinstance(parsed, Fault)
    fields = fields_of(spec, element, job, task, attempt)
    return text_of(expanded(parsed, fields, "the webhook's body")).encode("utf-8")


def parse_body(text: str) -> JsonValue | Fault:
    """Returns the value of a body's JSON text, an empty object for no text, or why it is none."""
    return parse(text, "the body") if text else {}

"""Where and when a task runs: what it takes, which nodes may run it, and what comes first; how that is
read and judged.

Resources other than cpu and memory are names that settings and jobs agree on, so a misspelt one can't be told
from one that nobody has: only the slips that people make with the usual ones are answered at once, the rest
by what ``why_waiting`` says of the task.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshpeer.core.jobs import rules
from meshpeer.core.jobs.located import FieldPath, Located, Scalar, Sequence
from meshpeer.core.jobs.model import JobSpec, TaskSpec, Where
from meshpeer.core.jobs.nearest import did_you_mean
from meshpeer.core.jobs.problems import SpecError
from meshpeer.core.jobs.reading import Reader
from meshpeer.core.jobs.rules import Fault, shown

PLACING_FIELDS = ("where", "priority", "backoff", "on_failure", "group", "speculate")
WHERE_FIELDS = ("region", "role", "label", "node")
BACKOFF_FIELDS = ("first", "max")

OWN_RESOURCES = ("cpu", "memory")
_SLIPS = {
    "cpus": "cpu",
    "core": "cpu",
    "cores": "cpu",
    "slots": "cpu",
    "mem": "memory",
    "ram": "memory",
    "gpus": "gpu",
}
_RESOURCE = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
"""A DNS label: what nodes, regions and roles are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """What ``defaults`` or a task say; None where they don't."""

    cpu: int | None = None
    memory_bytes: int | None = None
    resources: Mapping[str, int] | None = None
    where: Where | None = None
    priority: int | None = None
    backoff: tuple[int, int] | None = None
    on_failure: str | None = None
    group: str | None = None
    speculate: bool | None = None

    def over(self, defaults: Placing) -> Placing:
        """Returns what holds for a task with these defaults; resources by name, the others whole."""
        resources = {**(defaults.resources or {}), **(self.resources or {})}
        return Placing(
            cpu=defaults.cpu if self.cpu is None else self.cpu,
            memory_bytes=defaults.memory_bytes if self.memory_bytes is None else self.memory_bytes,
            resources={name: count for name, count in resources.items() if count},
            where=defaults.where if self.where is None else self.where,
            priority=defaults.priority if self.priority is None else self.priority,
            backoff=defaults.backoff if self.backoff is None else self.backoff,
            on_failure=self.on_failure or defaults.on_failure,
            group=defaults.group if self.group is None else self.group,
            speculate=defaults.speculate if self.speculate is None else self.speculate,
        )


NO_PLACING = Placing()


# --- reading ------------------------------------------------------------------------------------------------


def read_placing(reader: Reader, fields: Mapping[str, Located], at: FieldPath) -> Placing:
    """Reads ``resources`` and ``PLACING_FIELDS``."""
    cpu, memory, resources = _read_resources(reader, fields, at)

    def found(name: str) -> tuple[Located, FieldPath] | None:
        return (fields[name], (*at, name)) if name in fields else None

    where, priority, backoff = found("where"), found("priority"), found("backoff")
    on_failure, group, speculate = found("on_failure"), found("group"), found("speculate")
    return Placing(
        cpu=cpu,
        memory_bytes=memory,
        resources=resources,
        where=_read_where(reader, *where) if where else None,
        priority=read_priority(reader, *priority) if priority else None,
        backoff=_read_backoff(reader, *backoff) if backoff else None,
        on_failure=_read_way(reader, *on_failure) if on_failure else None,
        group=reader.text(*group) if group else None,
        speculate=_read_truth(reader, *speculate) if speculate else None,
    )


def read_priority(reader: Reader, node: Located, path: FieldPath) -> int | None:
    return reader.whole_number(node, path, -rules.PRIORITY_MAX, rules.PRIORITY_MAX)


def read_groups(reader: Reader, node: Located) -> tuple[tuple[str, int], ...]:
    """Reads ``groups`` of a job: how many tasks of each are granted at once."""
    named = reader.mapping(node, ("groups",), "write {licence: 2}") or {}
    counts = {
        name: reader.whole_number(value, ("groups", name), 1, rules.RESOURCE_COUNT_MAX)
        for name, value in named.items()
    }
    return tuple(sorted((name, count or 1) for name, count in counts.items()))


def _read_resources(
    reader: Reader, fields: Mapping[str, Located], at: FieldPath
) -> tuple[int | None, int | None, dict[str, int] | None]:
    if "resources" not in fields:
        return None, None, None
    path: FieldPath = (*at, "resources")
    named = reader.mapping(fields["resources"], path, "write {cpu: 1, memory: 512MiB, gpu: 1}") or {}
    cpu: int | None = None
    memory: int | None = None
    counts: dict[str, int] = {}
    for name, node in named.items():
        step: FieldPath = (*path, name)
        if name == "cpu":
            cpu = reader.whole_number(node, step, 1, rules.CPU_MAX)
        elif name == "memory":
            memory = reader.size(node, step)
        elif (fault := resource_fault(name)) is not None:
            reader.reject(step, None, fault.what, fault.hint)
        else:
            count = reader.whole_number(node, step, 0, rules.RESOURCE_COUNT_MAX)
            counts[name] = 0 if count is None else count
    return cpu, memory, counts


def _read_where(reader: Reader, node: Located, path: FieldPath) -> Where | None:
    hint = "write {region: eu, role: gpu, label: {disk: ssd}, node: [alpha, beta]}"
    fields = reader.fields(node, path, WHERE_FIELDS, (), hint)
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    if "label" in fields:
        named = reader.mapping(fields["label"], (*path, "label"), "write {disk: ssd}") or {}
        labels = tuple(
            sorted(
                (name, _read_texts(reader, value, (*path, "label", name))) for name, value in named.items()
            )
        )

    def texts(name: str) -> tuple[str, ...]:
        return _read_texts(reader, fields[name], (*path, name)) if name in fields else ()

    return Where(regions=texts("region"), roles=texts("role"), labels=labels, nodes=texts("node"))


def _read_texts(reader: Reader, node: Located, path: FieldPath) -> tuple[str, ...]:
    """Reads one text or a list of them; what can't be used leaves an empty one in its place."""
    if not isinstance(node, Sequence):
        return (reader.text_or_number(node, path) or "",)
    if not node.items:
        reader.reject(path, node, "the list is empty", "name one, or leave it out for any")
    items = enumerate(node.items)
    return tuple(reader.text_or_number(item, (*path, position)) or "" for position, item in items)


def _read_backoff(reader: Reader, node: Located, path: FieldPath) -> tuple[int, int]:
    """Reads ``10s`` or ``{first: 1s, max: 5m}``, in milliseconds; 0 is the usual."""
    if isinstance(node, Scalar):
        return (reader.duration(node, path) or 0, 0)
    fields = reader.fields(node, path, BACKOFF_FIELDS, (), "write 10s, or {first: 1s, max: 5m}")
    first, longest = (
        (reader.duration(fields[name], (*path, name)) or 0) if name in fields else 0
        for name in BACKOFF_FIELDS
    )
    return (first, longest)


def _read_way(reader: Reader, node: Located, path: FieldPath) -> str | None:
    text = reader.text(node, path)
    return None if text is None else reader.sound(_way_fault(text) or text, node, path)


def _read_truth(reader: Reader, node: Located, path: FieldPath) -> bool | None:
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        return node.value
    reader.reject(path, node, "it is neither true nor false", "write true or false")
    return None


# --- judging ------------------------------------------------------------------------------------------------


def check_placing(task: TaskSpec, at: FieldPath, groups: Mapping[str, int]) -> Iterator[SpecError]:
    """Yields what is wrong with where and when a task runs, from a file or from elsewhere."""
    resources: FieldPath = (*at, "resources")
    names = [name for name, _ in task.resources]
    if names != sorted(set(names)):
        yield SpecError(path=resources, what="a resource is named twice, or out of order")
    yield from _too_many(resources, len(names), rules.RESOURCES_MAX)
    for name, count in task.resources:
        yield from _located((*resources, name), resource_fault(name))
        yield from _located((*resources, name), rules.number_fault(count, 1, rules.RESOURCE_COUNT_MAX))
    if task.where is not None:
        yield from _check_where(task.where, (*at, "where"))
    yield from _located((*at, "priority"), _priority_fault(task.priority))
    backoff: FieldPath = (*at, "backoff")
    for value in (task.backoff_ms, task.backoff_max_ms):
        if not 0 <= value <= rules.BACKOFF_MS_MAX:
            yield SpecError(path=backoff, what="it is longer than a day", hint="write at most 24h")
    if task.backoff_max_ms and task.backoff_ms > task.backoff_max_ms:
        yield SpecError(path=backoff, what="the first pause is longer than the longest", hint="raise max")
    yield from _located((*at, "on_failure"), _way_fault(task.on_failure))
    if task.group and task.group not in groups:
        hint = did_you_mean(task.group, groups) or f"write groups: {{{task.group}: 1}} at the top of the job"
        yield SpecError(path=(*at, "group"), what=f"unknown group {shown(task.group)}", hint=hint)


def check_job_placing(spec: JobSpec) -> Iterator[SpecError]:
    """Yields what is wrong with a job's own priority and groups, and with the number of different
    placements."""
    yield from _located(("priority",), _priority_fault(spec.priority))
    yield from _too_many(("groups",), len(spec.groups), rules.GROUPS_MAX)
    names = [name for name, _ in spec.groups]
    if names != sorted(set(names)):
        yield SpecError(path=("groups",), what="a group is named twice, or out of order")
    for name, count in spec.groups:
        yield from _located(("groups", name), rules.task_name_fault(name))
        yield from _located(("groups", name), rules.number_fault(count, 1, rules.RESOURCE_COUNT_MAX))
    different = {(one.cpu, one.memory_bytes, one.resources, one.where, one.group) for one in spec.tasks}
    if len(different) > rules.PLACEMENTS_MAX:
        what = f"its tasks have {len(different):,} different resources, places and groups"
        hint = f"{rules.PLACEMENTS_MAX} are allowed: let tasks that are alike ask for the same"
        yield SpecError(path=("tasks",), what=what, hint=hint)


def resource_fault(name: str) -> Fault | None:
    """Judges the name of a resource, in a job or in settings."""
    if name in _SLIPS:
        return Fault(f"unknown resource {shown(name)}", f"did you mean {_SLIPS[name]!r}?")
    if name in OWN_RESOURCES:
        return Fault(f"{shown(name)} is no resource of one's own", "it has a field, or a setting, of its own")
    if not _RESOURCE.fullmatch(name):
        return Fault(
            f"{shown(name)} is no name of a resource",
            "up to 32 lower-case letters, digits and '_', as in gpu",
        )
    return None


def label_fault(text: str) -> Fault | None:
    """Judges the name or the value of a label."""
    fault = rules.text_fault(text, bytes_max=rules.LABEL_BYTES_MAX)
    if fault is not None:
        return fault
    if not text or not text.isprintable():
        return Fault(f"{shown(text)} is no label", "write printable text")
    return None


def _check_where(where: Where, at: FieldPath) -> Iterator[SpecError]:
    for field, names in (("region", where.regions), ("role", where.roles), ("node", where.nodes)):
        yield from _too_many((*at, field), len(names), rules.WHERE_MAX)
        for name in names:
            if not _NAME.fullmatch(name):
                what = f"{shown(name)} is no {field}"
                hint = "it is not expanded" if "${" in name else "lower-case letters, digits and '-'"
                yield SpecError(path=(*at, field), what=what, hint=hint)
    yield from _too_many((*at, "label"), len(where.labels), rules.WHERE_LABELS_MAX)
    if [name for name, _ in where.labels] != sorted({name for name, _ in where.labels}):
        yield SpecError(path=(*at, "label"), what="a label is named twice, or out of order")
    for name, values in where.labels:
        step: FieldPath = (*at, "label", name)
        yield from _too_many(step, len(values), rules.WHERE_MAX)
        if not values:
            yield SpecError(path=step, what="the list is empty", hint="name a value")
        for text in (name, *values):
            yield from _located(step, label_fault(text))
            if "${" in text:
                yield SpecError(
                    path=step, what=f"{shown(text)}: labels are not expanded", hint="write it out"
                )


def _priority_fault(priority: int) -> Fault | None:
    return rules.number_fault(priority, -rules.PRIORITY_MAX, rules.PRIORITY_MAX)


def _way_fault(text: str) -> Fault | None:
    if text in rules.FAILURE_WAYS:
        return None
    guess = did_you_mean(text, rules.FAILURE_WAYS)
    return Fault(f"{shown(text)} is no way to go on", guess or f"write {' or '.join(rules.FAILURE_WAYS)}")


def _located(path: FieldPath, fault: Fault | None) -> Iterator[SpecError]:
    if fault is not None:
        yield SpecError(path=path, what=fault.what, hint=fault.hint)


def _too_many(path: FieldPath, count: int, most: int) -> Iterator[SpecError]:
    if count > most:
        yield SpecError(path=path, what=f"{count:,} entries, and {most:,} are allowed", hint="name fewer")

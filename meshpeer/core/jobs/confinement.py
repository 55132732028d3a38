"""What keeps a task in: its limits, its network, its secrets; how they are read, and which are allowed.

All of these can be ``defaults`` of a job. A limit of 0 is none of the task's own; what its node sets for all
tasks bounds it then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from meshpeer.core.jobs import rules
from meshpeer.core.jobs.located import FieldPath, Located, Scalar
from meshpeer.core.jobs.model import TaskSpec
from meshpeer.core.jobs.problems import SpecError
from meshpeer.core.jobs.reading import Reader
from meshpeer.core.jobs.rules import Fault, shown

LIMIT_FIELDS = ("processes", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What ``defaults`` or a task say; None where they don't."""

    processes: int | None = None
    output_bytes: int | None = None
    network: str | None = None
    secrets: tuple[str, ...] | None = None

    def over(self, defaults: Confinement) -> Confinement:
        """Returns what holds for a task with these defaults. A list of secrets replaces the other one."""
        return Confinement(
            processes=defaults.processes if self.processes is None else self.processes,
            output_bytes=defaults.output_bytes if self.output_bytes is None else self.output_bytes,
            network=self.network or defaults.network,
            secrets=defaults.secrets if self.secrets is None else self.secrets,
        )


UNSAID = Confinement()


def read_confinement(reader: Reader, fields: Mapping[str, Located], at: FieldPath) -> Confinement:
    """Reads the fields ``limits``, ``network`` and ``secrets``."""
    processes: int | None = None
    output: int | None = None
    if "limits" in fields:
        path: FieldPath = (*at, "limits")
        hint = "write {processes: 64, output: 1GiB}"
        found = reader.fields(fields["limits"], path, LIMIT_FIELDS, (), hint)
        if "processes" in found:
            where = (*path, "processes")
            processes = reader.whole_number(found["processes"], where, 1, rules.PROCESSES_MAX)
        if "output" in found:
            output = reader.size(found["output"], (*path, "output"))
    return Confinement(
        processes=processes,
        output_bytes=output,
        network=_read_network(reader, fields["network"], (*at, "network")) if "network" in fields else None,
        secrets=_read_secrets(reader, fields["secrets"], (*at, "secrets")) if "secrets" in fields else None,
    )


def check_confinement(task: TaskSpec, at: FieldPath, fields: Collection[str]) -> Iterator[SpecError]:
    """Yields what is wrong; ``fields`` are the variables that the task has without asking."""
    for name, value, least, most in (
        (("resources", "memory"), task.memory_bytes, rules.MEMORY_BYTES_MIN, rules.SIZE_BYTES_MAX),
        (("limits", "processes"), task.processes, 1, rules.PROCESSES_MAX),
        (("limits", "output"), task.output_bytes, rules.OUTPUT_BYTES_MIN, rules.SIZE_BYTES_MAX),
    ):
        if value:
            yield from _located((*at, *name), _range_fault(name[1], value, least, most))
    if task.network not in rules.NETWORKS:
        yield from _located((*at, "network"), _network_fault(task.network))
    yield from _check_secrets(task, (*at, "secrets"), fields)


def _read_network(reader: Reader, node: Located, path: FieldPath) -> str | None:
    if isinstance(node, Scalar) and node.value in (None, False):
        reader.reject(path, node, f"{node.written or 'an empty value'} is no network", "write none, or host")
        return None
    text = reader.text(node, path)
    if text is not None and text not in rules.NETWORKS:
        return reader.sound(_network_fault(text), node, path)
    return text


def _read_secrets(reader: Reader, node: Located, path: FieldPath) -> tuple[str, ...]:
    """Reads names; what is no text leaves an empty one, so that the others keep their positions."""
    items = reader.items(node, path, "write the names in [ ]")
    return tuple(reader.text(item, (*path, position)) or "" for position, item in enumerate(items))


def _check_secrets(task: TaskSpec, at: FieldPath, fields: Collection[str]) -> Iterator[SpecError]:
    variables = {name for name, _ in task.env}
    seen: set[str] = set()
    for position, name in enumerate(task.secrets):
        where: FieldPath = (*at, position)
        yield from _located(where, rules.secret_name_fault(name))
        if name in seen:
            yield SpecError(path=where, what=f"{shown(name)} is given twice", hint="remove one")
        elif name in variables or (name in fields and name not in rules.OWN_FIELDS):
            what = f"{shown(name)} is a variable or field of the task as well"
            yield SpecError(path=where, what=what, hint="a secret becomes a variable of its name: rename one")
        seen.add(name)
    if len(task.secrets) > rules.SECRETS_MAX:
        what = f"{len(task.secrets):,} entries, and {rules.SECRETS_MAX} are allowed"
        yield SpecError(path=at, what=what, hint="put several values into one secret")


def _range_fault(name: str, value: int, least: int, most: int) -> Fault | None:
    fault = rules.number_fault(value, least, most)
    if fault is None or name == "processes":
        return fault
    if value < least:
        return Fault(f"{value:,} bytes are too few", f"give it {rules.size_text(least)} or more")
    return Fault(f"{value:,} bytes are more than any machine has", "leave it out for no limit of its own")


def _network_fault(text: str) -> Fault:
    return Fault(f"{shown(text)} is no network", "write none, or host (the node's own, which is the default)")


def _located(path: FieldPath, fault: Fault | None) -> Iterator[SpecError]:
    if fault is not None:
        yield SpecError(path=path, what=fault.what, hint=fault.hint)

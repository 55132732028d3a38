"""Fitting: what a task takes while it runs, what a node has, and whether the one goes into the other.

Everything is counted by name: ``cpu`` in slots, ``memory`` in bytes, and whatever else jobs and settings name
(``gpu``). A node that does not say how much memory it has bounds none: it is of an earlier version.

One rule serves owner and worker alike where a task waits that needs more than is free: others may overtake it
as long as they leave it what it needs (``fits_beside``). So a wide task gets its room as what runs ends,
and nothing that it does not need stands idle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshpeer.core.ids import TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import TaskSpec, Where

CPU, MEMORY = "cpu", "memory"
ANY_PYTHON, NO_PYTHON = "any", "none"
Amounts = tuple[tuple[str, int], ...]
"""Named counts above 0, ``cpu`` first."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one task takes, and which nodes may run it."""

    amounts: Amounts = ((CPU, 1),)
    where: Where | None = None
    python: str = ""
    """The Python that its function was pickled by, ``ANY_PYTHON`` for one that any runs; empty for none."""

    @property
    def cpu(self) -> int:
        return self.amounts[0][1]

    @property
    def is_plain(self) -> bool:
        """Tells whether every node with slots fits: one cpu and nothing else."""
        return self == PLAIN


PLAIN = Demand()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known of a node when work is placed: where it stands, what it is called, and what it has."""

    name: str = ""
    region: str = ""
    roles: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    slots: int = 0
    """0 for a node that takes no work."""
    memory_bytes: int = 0
    """Of all tasks together; 0 where it doesn't say."""
    resources: Amounts = ()
    python: str = ""
    """The version of what runs functions, as ``3.11``, or ``NO_PYTHON``; empty where it doesn't say: it may
    try."""

    def total(self, name: str) -> int | None:
        """Returns how much of a resource the node has; None for memory of which it says nothing."""
        if name == CPU:
            return self.slots
        if name == MEMORY:
            return self.memory_bytes or None
        return next((count for one, count in self.resources if one == name), 0)


NO_PROFILE = Profile()


@dataclass(slots=True)
class Load:
    """What is taken of one node's resources."""

    cpu: int = 0
    more: dict[str, int] = field(default_factory=dict)
    """Everything but cpu; names of which nothing is taken are absent."""

    def taken(self, name: str) -> int:
        return self.cpu if name == CPU else self.more.get(name, 0)

    def add(self, amounts: Amounts, sign: int = 1) -> None:
        """Takes amounts, or gives them back with ``sign`` -1."""
        for name, count in amounts:
            if name == CPU:
                self.cpu += sign * count
                continue
            left = self.more.get(name, 0) + sign * count
            if left:
                self.more[name] = left
            else:
                del self.more[name]


def demand_of(spec: TaskSpec) -> Demand:
    """Returns what a task takes: its memory is set aside for it, not only bounded."""
    memory: Amounts = ((MEMORY, spec.memory_bytes),) if spec.memory_bytes else ()
    amounts = ((CPU, spec.cpu), *memory, *spec.resources)
    python = (spec.python.version or ANY_PYTHON) if spec.python is not None else ""
    demand = Demand(amounts, spec.where, python)
    return PLAIN if demand == PLAIN else demand


class Demands:
    """The demands of all tasks of a job, by row; equal ones are one object."""

    __slots__ = ("_graph", "_rows")

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        known: dict[Demand, Demand] = {PLAIN: PLAIN}
        rows = (
            demand_of(graph.spec_of(TaskIndex(graph.tasks_of_row(row).start))) for row in range(graph.rows)
        )
        self._rows = tuple(known.setdefault(one, one) for one in rows)

    def of(self, task: TaskIndex) -> Demand:
        return self._rows[self._graph.row_of(task)]


def is_allowed(demand: Demand, profile: Profile) -> bool:
    """Tells whether a task may run on a node, whatever the node has free."""
    return not unmatched(demand, profile)


def unmatched(demand: Demand, profile: Profile) -> list[tuple[str, str]]:
    """Returns the fields of ``where`` that a node does not match, each with what is asked for in words, and
    the Python that it has not."""
    missed: list[tuple[str, str]] = []
    if demand.python and profile.python and profile.python != demand.python:
        if demand.python != ANY_PYTHON:
            missed.append(("python", demand.python))
        elif profile.python == NO_PYTHON:
            missed.append(("python", "3"))
    where = demand.where
    if where is None:
        return missed
    labels = dict(profile.labels)
    if where.nodes and profile.name not in where.nodes:
        missed.append(("node", " or ".join(where.nodes)))
    if where.regions and profile.region not in where.regions:
        missed.append(("region", " or ".join(where.regions)))
    if where.roles and not set(where.roles) & set(profile.roles):
        missed.append(("role", " or ".join(where.roles)))
    missed.extend(
        ("label", f"{name}={' or '.join(values)}")
        for name, values in where.labels
        if labels.get(name) not in values
    )
    return missed


def shortages(amounts: Amounts, profile: Profile) -> list[tuple[str, int]]:
    """Returns what a node has too little of even where it is idle."""
    return [
        (name, count)
        for name, count in amounts
        if (total := profile.total(name)) is not None and count > total
    ]


def can_run(demand: Demand, profile: Profile) -> bool:
    """Tells whether a node may run a task, and could if it were idle."""
    if demand is PLAIN:
        return profile.slots > 0
    return not shortages(demand.amounts, profile) and is_allowed(demand, profile)


def fits_beside(
    amounts: Amounts,
    profile: Profile,
    load: Load,
    *,
    depth: int = 1,
    reserved: Mapping[str, int] | None = None,
) -> bool:
    """Tells whether amounts go into what is free, and leave what is ``reserved`` of it.

    ``depth`` is how often over a node may be given what it has: its queue counts too.
    """
    for name, count in amounts:
        total = profile.total(name)
        if total is None:
            continue
        kept = reserved.get(name, 0) if reserved else 0
        if load.taken(name) + count + kept > total * depth:
            return False
    return True


def oversubscribed(load: Load, profile: Profile) -> bool:
    """Tells whether more of something is taken than a node has."""
    taken = ((CPU, load.cpu), *load.more.items())
    return any((total := profile.total(name)) is not None and count > total for name, count in taken)

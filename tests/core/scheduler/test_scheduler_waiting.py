from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.jobs.model import PythonCall, TaskSpec, Where
from meshpeer.core.scheduler.fitting import CPU, NO_PYTHON, Load, Profile, can_run, demand_of, fits_beside
from meshpeer.core.scheduler.waiting import why_waiting

ALPHA = Profile(name="alpha", region="eu", roles=("compute",), slots=4, memory_bytes=8 * 1024**3)
GAMMA = Profile(
    name="gamma",
    region="us",
    roles=("compute", "gpu"),
    labels=(("disk", "ssd"),),
    slots=2,
    memory_bytes=2 * 1024**3,
    resources=(("gpu", 1),),
)
IDLER = Profile(name="idler", region="asia", slots=0, resources=(("gpu", 8),))
NODES = (ALPHA, GAMMA, IDLER)


def task(**fields: object) -> TaskSpec:
    return TaskSpec(name="t", argv=("true",), **fields)  # type: ignore[arg-type]


def test_a_task_that_somebody_could_run_has_no_reason_to_wait() -> None:
    assert why_waiting(task(), NODES) == ""
    assert why_waiting(task(cpu=4, where=Where(regions=("asia", "eu"))), NODES) == ""


def test_a_resource_that_nobody_has_enough_of_is_named() -> None:
    assert why_waiting(task(resources=(("gpu", 2),)), NODES) == "no node has gpu >= 2 (gamma has 1)"
    assert why_waiting(task(resources=(("tpu", 1),)), NODES) == "no node has tpu >= 1 (nobody has any)"
    assert why_waiting(task(cpu=8), NODES) == "no node has cpu >= 8 (alpha has 4)"
    asked = task(memory_bytes=16 * 1024**3)
    assert why_waiting(asked, NODES) == "no node has memory >= 16GiB (alpha has 8GiB)"


def test_a_python_that_nobody_has_is_named_with_those_that_are_there() -> None:
    old, new, none, silent = (
        Profile(name=python or "silent", slots=1, python=python) for python in ("3.9", "3.11", NO_PYTHON, "")
    )
    pickled = TaskSpec(name="t", python=PythonCall(calls="calls", version="3.12"))
    assert why_waiting(pickled, (old, new, none)) == (
        "no node that takes tasks runs functions with Python 3.12 (3.9 has 3.9, 3.11 has 3.11, none has none)"
    )
    assert why_waiting(pickled, (old, silent)) == "", "who does not say may have it"
    named = TaskSpec(name="t", python=PythonCall(call="os:getpid"))
    assert why_waiting(named, (old, none)) == ""
    assert why_waiting(named, (none,)) == (
        "no node that takes tasks runs functions with Python 3 (none has none)"
    )
    wide = msgspec.structs.replace(pickled, cpu=9, python=PythonCall(calls="calls", version="3.9"))
    assert why_waiting(wide, (old, new)) == "no node that it may run on has cpu >= 9 (3.9 has 1)"


def test_what_nobody_has_at_once_is_named_together() -> None:
    assert (
        why_waiting(task(cpu=4, resources=(("gpu", 1),)), NODES)
        == "no node has cpu >= 4 and gpu >= 1 at once"
    )


def test_a_place_where_nobody_takes_tasks_is_named() -> None:
    assert why_waiting(task(where=Where(regions=("asia",))), NODES) == (
        "no node that takes tasks is in region asia"
    )
    assert why_waiting(task(where=Where(nodes=("delta", "idler"))), NODES) == (
        "no node that takes tasks is called delta or idler"
    )
    labelled = task(where=Where(labels=(("disk", ("nvme",)),)))
    assert why_waiting(labelled, NODES) == "no node that takes tasks has the label disk=nvme"
    both = task(where=Where(regions=("eu",), roles=("gpu",)))
    assert why_waiting(both, NODES) == "no node matches role gpu and region eu at once"
    assert why_waiting(task(), (IDLER,)) == "no node takes tasks"


def test_a_place_with_too_little_is_told_from_a_mesh_with_too_little() -> None:
    asked = task(where=Where(regions=("eu",)), resources=(("gpu", 1),))
    assert why_waiting(asked, NODES) == "no node that it may run on has gpu >= 1 (nobody has any)"


def test_memory_of_a_node_that_does_not_say_is_no_bound() -> None:
    assert why_waiting(task(memory_bytes=2**40), (Profile(slots=1),)) == ""


counts = st.integers(0, 6)
profiles = st.builds(
    Profile,
    name=st.sampled_from(["a", "b"]),
    region=st.sampled_from(["eu", "us"]),
    slots=counts,
    memory_bytes=counts,
    resources=counts.map(lambda gpu: (("gpu", gpu),) if gpu else ()),
)
tasks = st.builds(
    lambda cpu, memory, gpu, region: task(
        cpu=cpu,
        memory_bytes=memory,
        resources=(("gpu", gpu),) if gpu else (),
        where=Where(regions=(region,)) if region else None,
    ),
    st.integers(1, 6),
    counts,
    counts,
    st.sampled_from(["", "eu", "us", "asia"]),
)


@settings(max_examples=60, deadline=None)
@given(task=tasks, nodes=st.lists(profiles, max_size=5))
def test_there_is_a_reason_exactly_where_nobody_could_run_it(task: TaskSpec, nodes: list[Profile]) -> None:
    assert (why_waiting(task, nodes) == "") == any(can_run(demand_of(task), one) for one in nodes)


@settings(max_examples=60, deadline=None)
@given(node=profiles, asked=st.lists(tasks, max_size=12))
def test_what_fits_is_never_more_than_there_is(node: Profile, asked: list[TaskSpec]) -> None:
    load = Load()
    for one in asked:
        demand = demand_of(one)
        if can_run(demand, node) and fits_beside(demand.amounts, node, load):
            load.add(demand.amounts)
    assert load.cpu <= node.slots
    for name in ("memory", "gpu"):
        total = node.total(name)
        assert total is None or load.taken(name) <= total


@settings(max_examples=60, deadline=None)
@given(node=profiles, head=tasks, other=tasks)
def test_who_overtakes_leaves_what_is_kept(node: Profile, head: TaskSpec, other: TaskSpec) -> None:
    load = Load()
    kept = dict(demand_of(head).amounts)
    if fits_beside(demand_of(head).amounts, node, load) and fits_beside(
        demand_of(other).amounts, node, load, reserved=kept
    ):
        load.add(demand_of(other).amounts)
        assert fits_beside(demand_of(head).amounts, node, load)
        assert load.taken(CPU) == other.cpu

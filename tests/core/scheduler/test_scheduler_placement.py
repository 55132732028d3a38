"""Where tasks run: what they ask for, on whole meshes and effect by effect."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from fixtures import ALICE, BOB, JOB, ME, NOW, hear, record, result, scheduler, submitted
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World

from meshpeer.core.effects import Send
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId, TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import Array, JobSpec, Need, PythonCall, TaskSpec, Where
from meshpeer.core.scheduler.explaining import why
from meshpeer.core.scheduler.fitting import NO_PYTHON, Profile, can_run, demand_of
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    AttemptFinished,
    Capacity,
    Grant,
    JobLearned,
    PeersChanged,
    PeerView,
    SchedulerEffect,
    StealNone,
    StealRequest,
)
from meshpeer.core.scheduler.spoils import worth_moving
from meshpeer.core.scheduler.tables import TaskState
from meshpeer.core.scheduler.views import job_state

GIB = 1024**3
PROFILES = (
    Profile(name="alpha", region="eu", slots=2, memory_bytes=4 * GIB),
    Profile(name="beta", region="eu", roles=("gpu",), slots=4, memory_bytes=8 * GIB, resources=(("gpu", 2),)),
    Profile(name="gamma", region="us", slots=3, memory_bytes=2 * GIB, labels=(("disk", "ssd"),)),
)
"""Of three nodes; the first owns what the tests submit."""


def task(name: str, count: int = 1, **fields: object) -> TaskSpec:
    return TaskSpec(name=name, argv=("true",), array=Array(size=count), **fields)  # type: ignore[arg-type]


def job(*tasks: TaskSpec, **fields: object) -> JobSpec:
    return JobSpec(name="job", tasks=tasks, **fields)  # type: ignore[arg-type]


def test_pickled_calls_are_granted_and_stolen_by_nodes_of_their_python_alone() -> None:
    pythons = ("3.9", "3.11", NO_PYTHON, "", "3.11")
    profiles = [Profile(name=f"n{n}", slots=2, python=python) for n, python in enumerate(pythons)]
    world = World(3, [2] * 5, profiles=profiles, plan=lambda task, attempt, node: (0.3, True))
    world.run_for(0.5)
    call = PythonCall(calls="calls", version="3.11")
    ran = world.submit(job(TaskSpec(name="t", python=call, array=Array(size=60))))
    plain = world.submit(job(task("plain", 30)))
    world.run_until(lambda: world.finished(ran, plain), 60.0)
    python_of = dict(zip(world.names, pythons, strict=True))
    assert {python_of[one.node] for one in world.runs if one.job == ran} == {"3.11", ""}
    assert {python_of[one.node] for one in world.runs if one.job == plain} >= {"3.9", NO_PYTHON}
    world.check()


MIXED = job(
    task("small", 20),
    task("gpu", 6, resources=(("gpu", 1),)),
    task("wide", 3, cpu=4),
    task("big", 4, memory_bytes=3 * GIB),
    task("there", 4, where=Where(regions=("us",), labels=(("disk", ("ssd", "nvme")),))),
    task("named", 2, where=Where(nodes=("alpha", "beta"))),
)


@pytest.mark.parametrize("seed", range(4))
def test_every_task_runs_where_it_fits_and_may_run(seed: int) -> None:
    world = World(seed, [one.slots for one in PROFILES], profiles=PROFILES)
    world.run_for(0.1)
    wanted = world.submit(MIXED)
    world.run_until(lambda: world.finished(wanted))
    world.check()
    assert job_state(world.owner(wanted)) == "succeeded"
    graph = Graph.of(MIXED)
    profiles = dict(zip(world.names, PROFILES, strict=True))
    for run in world.runs:
        demand = demand_of(graph.spec_of(TaskIndex(run.attempt.task)))
        assert can_run(demand, profiles[run.node])
    at_once = most_at_once(world, range(20, 26))
    assert at_once <= 2


def test_a_task_that_nobody_can_run_says_why_and_stops_nobody() -> None:
    spec = job(task("hungry", 1, resources=(("gpu", 3),)), task("small", 5))
    world = World(1, [one.slots for one in PROFILES], profiles=PROFILES)
    world.run_for(0.1)
    wanted = world.submit(spec)
    owner = world.owner(wanted)
    world.run_until(lambda: owner.counts[TaskState.SUCCEEDED] == 5)
    machine = world.nodes[world.names[0]].scheduler
    assert machine is not None
    assert why(owner, machine.seats, TaskIndex(0), lambda node: "?") == (
        "waiting: no node has gpu >= 3 (beta has 2)"
    )


def test_a_worker_that_comes_with_what_was_missing_is_given_what_waited() -> None:
    machine = owning(job(task("t", 1, resources=(("gpu", 1),))))
    assert granted(hear(machine, ALICE, capacity(Profile(slots=2)))) == {}
    assert granted(hear(machine, BOB, capacity(PROFILES[1]))) == {BOB: [0]}
    machine.check()


def test_a_place_is_known_from_membership_and_not_from_what_a_worker_says() -> None:
    machine = owning(job(task("t", 1, where=Where(regions=("eu",)))))
    assert granted(hear(machine, ALICE, capacity(PROFILES[1]))) == {}
    assert granted(machine.handle(seen(ALICE, region="us"), NOW)) == {}
    assert granted(machine.handle(seen(ALICE, region="eu"), NOW)) == {ALICE: [0]}


def test_memory_is_set_aside_across_all_that_a_worker_may_queue() -> None:
    machine = owning(job(task("t", 40, memory_bytes=3 * GIB)), slots=0)
    first = granted(hear(machine, ALICE, capacity(Profile(slots=8, memory_bytes=4 * GIB))))
    # As deep as its memory goes, times the depth of a queue (8 while nobody knows how long they take).
    assert len(first[ALICE]) == 32 // 3
    machine.check()


def test_a_group_is_granted_no_more_at_once_than_it_says() -> None:
    machine = owning(job(task("t", 9, group="licence"), task("u", 2), groups=(("licence", 2),)), slots=0)
    assert granted(hear(machine, ALICE, capacity(Profile(slots=8)))) == {ALICE: [0, 1, 9, 10]}
    machine.check()
    assert why(machine.owned[JOB], machine.seats, TaskIndex(5), lambda node: "?") == (
        "waiting: group licence has as many at once as it may"
    )
    assert granted(hear(machine, ALICE, result(0, node=ALICE))) == {ALICE: [2]}
    machine.check()


def test_room_in_a_group_goes_to_whoever_can_use_it_wherever_it_was_made() -> None:
    gpu = task("gpu", 1, group="one", resources=(("gpu", 1),))
    big = task("big", 1, group="one", memory_bytes=6 * GIB)
    machine = owning(job(gpu, big, groups=(("one", 1),)), slots=0)
    hear(machine, ALICE, capacity(Profile(slots=1, memory_bytes=8 * GIB)))
    hear(machine, BOB, capacity(Profile(slots=1, memory_bytes=GIB, resources=(("gpu", 1),))))
    [first] = [lease.node for lease in machine.owned[JOB].leases.values()]
    assert first == ALICE, "the gpu was not there yet"
    assert granted(hear(machine, ALICE, result(1, node=ALICE))) == {BOB: [0]}


def test_a_thief_without_free_memory_is_handed_nothing_that_asks_for_some() -> None:
    spec = job(task("big", 4, memory_bytes=GIB))
    machine = scheduler(slots=1)
    hear_own_grants(machine, spec)
    hear(machine, BOB, capacity(Profile(slots=4, memory_bytes=8 * GIB)))
    request = StealRequest(idle=4, width=4, wait=False, free=(("memory", 0),))
    assert hear(machine, BOB, request) == [Send(peer=BOB, message=StealNone())]


def test_higher_priority_is_granted_first() -> None:
    machine = owning(job(task("low", 30), task("high", 4, priority=5)), slots=0)
    assert granted(hear(machine, ALICE, capacity(Profile(slots=1))))[ALICE][:4] == [30, 31, 32, 33]


def test_room_is_kept_for_a_wide_task_that_was_overtaken_often_enough() -> None:
    machine = owning(job(task("narrow", 400), task("wide", 1, cpu=4)), slots=0)
    held = Counter(granted(hear(machine, ALICE, capacity(Profile(slots=4))))[ALICE])
    done = 0
    while 400 not in held:
        current = min(held)
        del held[current]
        done += 1
        held.update(granted(hear(machine, ALICE, result(current, node=ALICE))).get(ALICE, []))
        machine.check()
    assert done < 400, "the wide task came last"


def test_a_failure_that_is_to_be_fast_ends_the_rest_of_the_job() -> None:
    spec = job(task("t", 6, on_failure="fail-fast"))
    world = World(2, [2], plan=lambda one, attempt, node: (0.05, one != 1))
    wanted = world.submit(spec)
    world.run_until(lambda: world.finished(wanted))
    owner = world.owner(wanted)
    assert job_state(owner) == "failed"
    assert owner.counts[TaskState.FAILED] == 1
    assert owner.counts[TaskState.CANCELLED] >= 3
    assert why(owner, None, TaskIndex(5), lambda node: "?") == (  # type: ignore[arg-type]
        "was cancelled: another task has failed"
    )
    world.check()
    world.run_for(1.0)
    world.crash(world.names[0])
    world.start(world.names[0])
    assert world.owner(wanted).counts == owner.counts
    world.check()


def test_a_task_that_waits_for_a_failure_runs_after_one_and_is_skipped_after_none() -> None:
    spec = job(
        task("probe", 2),
        task("alarm", 1, needs=(Need(task="probe", when="failed"),)),
        task("report", 1, needs=(Need(task="alarm", when="ended"),)),
    )
    for fails, state, counts in ((True, "failed", (3, 1, 0)), (False, "succeeded", (3, 0, 1))):
        world = World(3, [2], plan=lambda one, attempt, node, fails=fails: (0.05, not (fails and one == 0)))
        wanted = world.submit(spec)
        world.run_until(lambda world=world, wanted=wanted: world.finished(wanted))
        owner = world.owner(wanted)
        ended = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED)
        assert (job_state(owner), tuple(owner.counts[one] for one in ended)) == (state, counts)
        world.check()


def test_a_thief_is_handed_only_what_it_may_and_can_run() -> None:
    spec = job(
        task("here", 2, where=Where(nodes=("me",))),
        task("gpu", 3, resources=(("gpu", 1),)),
        task("any", 3),
    )
    machine = scheduler(slots=1)
    machine.worker.profile = Profile(name="me", slots=1, resources=(("gpu", 1),))
    machine.seats.offer(ME, machine.worker.profile)
    hear_own_grants(machine, spec)
    hear(machine, BOB, capacity(Profile(slots=4, resources=(("gpu", 2),))))
    handed = granted(hear(machine, BOB, StealRequest(idle=4, width=4, wait=False, free=(("gpu", 1),))))
    names = Counter(Graph.of(spec).spec_of(TaskIndex(one)).name for one in handed.get(BOB, []))
    assert names["here"] == 0
    assert names["gpu"] <= 1
    assert names["any"] > 0
    machine.check()


def test_a_thief_that_can_run_nothing_of_it_goes_away_empty() -> None:
    spec = job(task("here", 4, where=Where(nodes=("me",))))
    machine = scheduler(slots=1)
    machine.worker.profile = Profile(name="me", slots=1)
    machine.seats.offer(ME, machine.worker.profile)
    hear_own_grants(machine, spec)
    hear(machine, BOB, capacity(Profile(slots=4)))
    request = StealRequest(idle=4, width=4, wait=False)
    assert hear(machine, BOB, request) == [Send(peer=BOB, message=StealNone())]


@pytest.mark.parametrize(
    "claim",
    [
        {"resources": tuple((f"r{number}", 1) for number in range(17))},
        {"resources": (("cpu", 4),)},
        {"resources": (("G PU", 4),)},
        {"labels": (("disk", "a\nb"),)},
        {"python": "3.11\n"},
        {"python": "any"},
        {"labels": tuple((f"l{number}", "x") for number in range(17))},
    ],
)
def test_what_a_worker_claims_is_bounded(claim: dict[str, object]) -> None:
    machine = owning(job(task("t", 1)))
    with pytest.raises(PeerFault):
        hear(machine, ALICE, Capacity(slots=1, accepting=True, boot=b"1", **claim))  # type: ignore[arg-type]


fields = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.integers(1, 4),
        "memory_bytes": st.sampled_from([GIB, 3 * GIB]),
        "resources": st.sampled_from([(("gpu", 1),), (("gpu", 2),)]),
        "where": st.sampled_from([Where(regions=("eu",)), Where(labels=(("disk", ("ssd",)),))]),
        "priority": st.integers(-3, 3),
        "group": st.sampled_from(["", "one"]),
    },
)


@settings(max_examples=12, deadline=None)
@given(parts=st.lists(st.tuples(st.integers(1, 8), fields), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_what_can_run_ends_and_what_can_not_says_why(
    parts: list[tuple[int, dict[str, object]]], seed: int
) -> None:
    spec = job(
        *(task(f"t{number}", count, **more) for number, (count, more) in enumerate(parts)),
        groups=(("one", 1),),
    )
    world = World(seed, [one.slots for one in PROFILES], profiles=PROFILES)
    world.run_for(0.1)
    wanted = world.submit(spec)
    owner = world.owner(wanted)
    graph = Graph.of(spec)
    able = [
        one
        for one in range(len(graph))
        if any(can_run(demand_of(graph.spec_of(TaskIndex(one))), profile) for profile in PROFILES)
    ]
    world.run_until(lambda: owner.counts[TaskState.SUCCEEDED] == len(able))
    world.check()
    machine = world.nodes[world.names[0]].scheduler
    assert machine is not None
    for one in set(range(len(graph))) - set(able):
        assert why(owner, machine.seats, TaskIndex(one), lambda node: "?").startswith("waiting: no node ")


# --- helpers ------------------------------------------------------------------------------------------------


def owning(spec: JobSpec, slots: int = 0) -> Scheduler:
    """Returns a machine that owns a job; without slots it runs nothing of it itself."""
    machine = scheduler(slots=slots, accepting=slots > 0)
    machine.handle(submitted(record(spec)), NOW)
    return machine


def capacity(profile: Profile) -> Capacity:
    return Capacity(
        slots=profile.slots,
        accepting=True,
        boot=b"1",
        memory_bytes=profile.memory_bytes,
        resources=profile.resources,
        labels=profile.labels,
    )


def seen(node: NodeId, *, region: str) -> PeersChanged:
    return PeersChanged(peers=(PeerView(node=node, alive=True, linked=True, region=region),))


def granted(effects: list[SchedulerEffect]) -> dict[NodeId, list[int]]:
    """Returns the tasks of all grants among effects, by who gets them."""
    found: dict[NodeId, list[int]] = {}
    for effect in effects:
        if isinstance(effect, Send) and isinstance(effect.message, Grant):
            found.setdefault(effect.peer, []).extend(one.attempt.task for one in effect.message.tasks)
    return found


def hear_own_grants(machine: Scheduler, spec: JobSpec) -> None:
    """Lets a machine own a job and hold all of it that it may, its record known."""
    effects = machine.handle(submitted(record(spec)), NOW)
    effects += machine.handle(seen(BOB, region=""), NOW)
    for effect in effects:
        if isinstance(effect, Send) and isinstance(effect.message, Grant):
            hear(machine, ME, effect.message)
    machine.handle(JobLearned(job=JOB, record=record(spec)), NOW)
    assert machine.worker.queued


def most_at_once(world: World, tasks: range) -> int:
    """Returns how many of these tasks ever ran at the same time."""
    moments: list[tuple[float, int]] = []
    for run in world.runs:
        if run.attempt.task in tasks:
            moments += [(run.started_s, 1), (run.ended_s or world.now_s, -1)]
    running = most = 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    return most


@pytest.mark.parametrize(
    ("wait_s", "rtt_s", "size", "worth"),
    [
        (None, 0.1, 10**9, True),
        (0.3, 0.1, 0, True),
        (0.2, 0.1, 0, False),
        (1.0, 0.1, 9_000_000, True),
        (1.0, 0.1, 11_000_000, False),
    ],
)
def test_what_waits_longer_than_it_takes_to_move_is_worth_moving(
    wait_s: float | None, rtt_s: float, size: int, worth: bool
) -> None:
    assert worth_moving(wait_s, rtt_s, size) == worth


def test_a_thief_far_away_is_not_handed_what_would_have_run_before_it_came() -> None:
    spec = job(task("t", 4))
    machine = scheduler(slots=1)
    hear_own_grants(machine, spec)
    machine.handle(
        AttemptFinished(offer=msgspec.structs.replace(result(0, node=None), finished_us=50_001)), NOW
    )
    for rtt_s, wants in ((0.2, StealNone), (0.01, Grant)):
        far = PeerView(node=BOB, alive=True, linked=True, region="", rtt_s=rtt_s)
        machine.handle(PeersChanged(peers=(far,)), NOW)
        hear(machine, BOB, capacity(Profile(slots=1)))
        effects = hear(machine, BOB, StealRequest(idle=1, width=1, wait=False))
        assert wants in [type(one.message) for one in effects if isinstance(one, Send)]

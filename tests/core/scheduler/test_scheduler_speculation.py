"""Second attempts at the tail: when there is one, and what becomes of the two."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from world import Plan, World

from meshpeer.core.ids import JobId
from meshpeer.core.jobs.model import Array, JobSpec, TaskSpec
from meshpeer.core.scheduler.tables import TaskState
from meshpeer.core.scheduler.views import job_state


def job(**fields: object) -> JobSpec:
    return JobSpec(name="job", tasks=(TaskSpec(name="t", argv=("true",), array=Array(size=12), **fields),))  # type: ignore[arg-type]


def slow_once(took_s: float, ends_well: bool = True, *, rest_s: float = 1.0) -> Plan:
    """The first attempt of task 11 takes long; everything else does not."""
    return lambda task, attempt, node: (
        (took_s, ends_well) if task == 11 and attempt.number == 1 else (rest_s, True)
    )


def ran(spec: JobSpec, plan: Plan) -> tuple[World, JobId, float]:
    world = World(1, [2, 2, 2], plan=plan)
    world.run_for(0.1)
    wanted = world.submit(spec)
    return world, wanted, world.run_until(lambda: world.finished(wanted))


def test_an_attempt_that_takes_far_longer_than_its_like_gets_a_second_beside_it() -> None:
    world, wanted, took_s = ran(job(), slow_once(100.0))
    assert took_s < 10
    runs = [run for run in world.runs if run.attempt.task == 11]
    assert len(runs) == 2
    assert len({run.node for run in runs}) == 2
    world.run_for(1.0)
    assert [run.attempt.number for run in world.ends_of(wanted, 11)] == [2]
    assert not any(node.running for node in world.nodes.values()), "the loser was not stopped"
    world.check()


def test_an_owner_that_can_not_grant_a_second_attempt_looks_again_later() -> None:
    """Else its deadline stays in the past, and its agent does nothing but tick."""
    world = World(1, [2, 2, 2], plan=slow_once(100.0))
    world.run_for(0.1)
    wanted = world.submit(job())
    owner = world.owner(wanted)
    owner._may_grant = lambda now: not owner.results
    world.run_until(lambda: len(owner.results) == 11)
    for _ in range(20):
        world.run_for(0.5)
        owner.tick(world.now)
        deadline = owner.next_deadline()
        assert deadline is not None
        assert deadline.at_s > world.now.mono_s
    assert [run.attempt.number for run in world.runs if run.attempt.task == 11] == [1]


@pytest.mark.parametrize(
    "spec",
    [
        job(speculate=False),
        JobSpec(
            name="job",
            groups=(("g", 6),),
            tasks=(TaskSpec(name="t", argv=("true",), array=Array(size=12), group="g"),),
        ),
    ],
    ids=["switched off", "in a group"],
)
def test_a_task_that_must_not_run_twice_at_once_does_not(spec: JobSpec) -> None:
    world, _, took_s = ran(spec, slow_once(30.0))
    assert took_s > 30
    assert len([run for run in world.runs if run.attempt.task == 11]) == 1


def test_a_short_tail_gets_no_second_attempts() -> None:
    world, _, _ = ran(job(), slow_once(1.5, rest_s=0.1))
    assert len(world.runs) == 12


def test_the_second_takes_the_place_of_a_first_that_fails_meanwhile() -> None:
    plan: Plan = lambda task, attempt, node: (  # noqa: E731
        (5.0, False) if task == 11 and attempt.number == 1 else (4.0, True) if task == 11 else (1.0, True)
    )
    world, wanted, took_s = ran(job(), plan)
    assert took_s < 10
    assert job_state(world.owner(wanted)) == "succeeded", "there were no retries"
    assert [run.attempt.number for run in world.ends_of(wanted, 11)][:2] == [1, 2]
    world.check()


def test_the_second_takes_the_place_of_a_first_whose_node_is_gone() -> None:
    world = World(1, [2, 2, 2], plan=slow_once(100.0, rest_s=2.0))
    world.run_for(0.1)
    wanted = world.submit(job())
    owner = world.owner(wanted)
    world.run_until(lambda: owner.speculation.of(owner.graph.find("t[11]")) is not None)
    first = owner.leases[owner.graph.find("t[11]")]
    if first.node != world.names[0]:
        world.crash(first.node)
        world.bury(first.node)
        owner.check()
        assert owner.leases[owner.graph.find("t[11]")].attempt.number == 2
    world.run_until(lambda: world.finished(wanted))
    assert owner.counts[TaskState.SUCCEEDED] == 12


@pytest.mark.parametrize("seed", range(6))
def test_second_attempts_survive_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    tails: dict[tuple[int, int], tuple[float, bool]] = {}

    def plan(task: int, attempt: object, node: object) -> tuple[float, bool]:
        key = (task, getattr(attempt, "number", 0))
        if key not in tails:
            tails[key] = (rng.choice([0.3, 0.5, 20.0]), rng.random() > 0.1)
        return tails[key]

    world = World(seed, [2, 2, 2, 2], plan=plan, loss=0.02)
    world.run_for(0.1)
    wanted = world.submit(job(retries=5))
    done: Callable[[], bool] = lambda: world.finished(wanted)  # noqa: E731
    for _ in range(6):
        world.run_for(rng.uniform(0.5, 4.0))
        if done():
            break
        victim = rng.choice(world.names)
        if rng.random() < 0.5:
            world.crash(victim)
            world.run_for(rng.uniform(0.1, 2.0))
            world.start(victim)
        else:
            world.bury(victim)
            world.dead.discard(victim)
        world.check()
    world.run_until(done)
    world.check()
    assert job_state(world.owner(wanted)) in ("succeeded", "failed")

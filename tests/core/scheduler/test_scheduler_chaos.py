"""Chaos by seed: crashes, wiped disks, partitions, sleep, loss and reordering, in any order and together.

The world itself checks what must hold at every step (see ``world``); here is what must hold at the end.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import Node, World

from meshpeer.core.effects import Table
from meshpeer.core.ids import JobId, NodeId, TaskIndex
from meshpeer.core.jobs.model import Array, JobSpec, Need, TaskSpec
from meshpeer.core.scheduler.messages import Attempt
from meshpeer.core.scheduler.tables import TaskState

ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED)


@pytest.mark.parametrize("seed", [*range(12), 78, 192, 212, 569, 731, 944])
def test_every_job_ends_with_one_result_for_each_task(seed: int) -> None:
    run_chaos(seed)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(min_value=10_000, max_value=10**9))
def test_every_job_ends_whatever_the_seed(seed: int) -> None:
    run_chaos(seed)


def run_chaos(seed: int) -> None:
    """Runs one story; a failure names its seed, and ``run_chaos(seed)`` replays it."""
    dice = random.Random(seed)
    world = make_world(seed, dice)
    world.run_for(0.5)
    jobs = [world.submit(make_job(dice), dice.randrange(len(world.names))) for _ in range(dice.randint(1, 3))]
    for _ in range(dice.randint(0, 12)):
        world.run_for(dice.choice([0.05, 0.5, 3, 10]))
        world.check()
        do_harm(world, dice, jobs)
    world.run_until(lambda: all(node.up for node in world.nodes.values()) and world.finished(), 3_000)
    world.check()
    for job in jobs:
        owner = world.owner(job)
        assert sum(owner.counts[state] for state in ENDED) == len(owner.graph), f"seed {seed}"
    world.run_for(120)
    world.check()
    for job in jobs:
        for task, row in world.owner(job).results.items():
            assert world.committed[job, task, row.round] == row, f"seed {seed}"
    for node in world.nodes.values():
        assert not node.running, f"seed {seed}: something runs for nobody"
        assert not node.journal[Table.RESULTS], f"seed {seed}: results are offered for ever"
        assert not node.journal[Table.GRANTS], f"seed {seed}: grants are never forgotten"


def make_world(seed: int, dice: random.Random) -> World:
    def plan(task: TaskIndex, attempt: Attempt, node: NodeId) -> tuple[float, bool]:
        fate = random.Random(f"{seed} {task} {attempt.round} {attempt.number} {node.hex()}")
        return fate.choice([0.01, 0.1, 0.5, 2.0, 8.0]), fate.random() > 0.05

    return World(
        seed,
        [dice.randint(2, 3) for _ in range(dice.randint(2, 5))],
        latency_s=(0.0005, dice.choice([0.002, 0.2])),
        loss=dice.choice([0, 0, 0.02, 0.1]),
        plan=plan,
        # Chaos kills more workers than a poison task would.
        crash_limit=50,
        reorder=dice.random() < 0.5,
    )


def make_job(dice: random.Random) -> JobSpec:
    size = dice.randint(1, 25)
    wide = dice.choice([1, 1, 2])
    tasks = (
        TaskSpec(name="split", argv=("x",), retries=1),
        TaskSpec(name="render", argv=("x",), needs=(Need(task="split"),), array=Array(size=size), retries=2),
        TaskSpec(
            name="post",
            argv=("x",),
            needs=(Need(task="render", same_index=True),),
            array=Array(size=size),
            retries=2,
            cpu=wide,
        ),
        TaskSpec(name="film", argv=("x",), needs=(Need(task="render"), Need(task="post")), retries=3),
    )
    return JobSpec(name="chaos", tasks=tasks)


def do_harm(world: World, dice: random.Random, jobs: list[JobId]) -> None:
    name = dice.choice(world.names)
    kind = dice.random()
    if kind < 0.5:
        world.crash(name)
        if kind >= 0.4 and all(world.records[job].submitter != name for job in jobs):
            world.wipe(name)
        if dice.random() < 0.3:
            world.bury(name)
        world.after(dice.choice([0.1, 2, 20]), lambda: None if world.nodes[name].up else world.start(name))
    elif kind < 0.8:
        other = dice.choice([one for one in world.names if one != name])
        world.partition(name, other)
        world.after(dice.choice([1, 5, 30]), lambda: world.heal(name, other))
    else:
        node = world.nodes[name]
        node.slept = True
        world.after(dice.choice([1, 20]), lambda: wake(node))


def wake(node: Node) -> None:
    node.slept = False

"""Results of jobs that have ended and whose owner is gone are acknowledged by somebody, and forgotten."""

from __future__ import annotations

import pytest
from world import World, array

from meshpeer.core.effects import Table
from meshpeer.core.ids import JobId


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("wiped", [False, True], ids=["for a while", "for good"])
def test_results_whose_owner_died_with_the_end_of_the_job_are_not_offered_for_ever(
    seed: int, wiped: bool
) -> None:
    world = World(seed, [2] * 5, replicated=True)
    world.run_for(0.5)
    job = world.submit(array(60))
    owner = world.names[0]
    world.run_until(lambda: world.ended(job) and offered(world, job) > 0)
    world.crash(owner)
    if wiped:
        world.wipe(owner)
        world.bury(owner)

    world.run_for(120.0)

    assert offered(world, job) == 0
    world.check()


def test_results_of_a_worker_that_missed_the_next_owner_and_the_end_reach_who_has_it() -> None:
    world = World(2, [2] * 5, replicated=True, plan=lambda task, attempt, node: (1.0, True))
    world.run_for(0.5)
    job = world.submit(array(20))
    first, *others = world.names
    worker = next(name for name in others if name not in world.records[job].replicas)
    world.run_for(0.7)
    for name in world.names:
        if name != worker:
            world.partition(worker, name)
    world.run_until(lambda: bool(world.nodes[worker].journal[Table.RESULTS]), 5.0)
    world.crash(worker)
    world.crash(first)
    world.run_until(lambda: any(one.finished for one in world.owners(job)), 120.0)
    world.start(first)
    world.run_for(5.0)
    world.start(worker)
    for name in world.names:
        if name != worker:
            world.heal(worker, name)

    world.run_for(120.0)

    assert offered(world, job) == 0
    world.check()


# --- helpers ------------------------------------------------------------


def offered(world: World, job: JobId) -> int:
    """Returns how many results of the job rest in workers' journals."""
    keys = [key for node in world.nodes.values() for key in node.journal[Table.RESULTS]]
    return sum(key.startswith(job) for key in keys)

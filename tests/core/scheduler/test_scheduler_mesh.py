"""What a mesh of schedulers promises while nothing, one thing or a chosen few things go wrong; in virtual
time.
"""

from __future__ import annotations

import random

import pytest
from world import World, array, diamond

from meshpeer.core.effects import Table
from meshpeer.core.ids import NodeId, TaskIndex
from meshpeer.core.jobs.model import Array, JobSpec, Need, TaskSpec
from meshpeer.core.scheduler.book import LOST
from meshpeer.core.scheduler.messages import Attempt, CancelAsked
from meshpeer.core.scheduler.tables import TaskState

TASK_S = 0.05


def test_job_born_at_one_node_spreads_over_all() -> None:
    world = World(1, [2, 2, 2, 2])
    world.run_for(1)
    job = world.submit(array(100))
    took_s = world.run_until(lambda: world.finished(job))
    world.check()
    assert took_s / (100 * TASK_S / 8) < 1.3
    assert min(world.owner(job).done_on.values()) >= 15


def test_work_spreads_across_slow_links_too() -> None:
    world = World(2, [2] * 4, latency_s=(0.03, 0.11), regions=2)
    world.run_for(1)
    job = world.submit(array(400))
    took_s = world.run_until(lambda: world.finished(job))
    assert took_s / (400 * TASK_S / 8) < 1.6


def test_node_that_joins_late_gets_its_share() -> None:
    world = World(3, [1, 1, 4])
    late = world.names[2]
    world.crash(late)
    job = world.submit(array(200))
    world.run_for(0.5)
    world.start(late)
    world.run_until(lambda: world.finished(job))
    assert world.owner(job).done_on[late] > 60


def test_unequal_tasks_are_evened_out_by_stealing() -> None:
    def plan(task: TaskIndex, attempt: Attempt, node: NodeId) -> tuple[float, bool]:
        return (1.0 if task % 8 == 0 else 0.05), True

    world = World(4, [2, 2, 2, 2], plan=plan)
    world.run_for(1)
    job = world.submit(array(64))
    took_s = world.run_until(lambda: world.finished(job))
    assert world.messages["job.taken"] > 0
    assert took_s < 1.6 * (8 * 1.0 + 56 * 0.05) / 8
    stolen = [
        one for task in range(64) for one in world.owner(job).tries_of(TaskIndex(task)) if one.stolen_from
    ]
    assert stolen
    assert all(one.stolen_from != one.node for one in stolen)


def test_every_task_runs_once_where_nothing_fails() -> None:
    world = World(5, [2, 3, 1])
    world.run_for(0.5)
    job = world.submit(diamond(40), at=1)
    world.run_until(lambda: world.finished(job))
    assert len(world.runs) == 82
    assert {(run.attempt.task, run.attempt.number) for run in world.runs} == {(task, 1) for task in range(82)}


def test_needs_end_before_what_needs_them_starts() -> None:
    world = World(6, [1, 1])
    job = world.submit(diamond(6))
    world.run_until(lambda: world.finished(job))
    graph = world.owner(job).graph
    for task in map(TaskIndex, range(len(graph))):
        started_s = world.ends_of(job, task)[0].started_s
        for needed, _ in graph.needs_of(task):
            ended_s = world.ends_of(job, needed)[0].ended_s
            assert ended_s is not None
            assert ended_s <= started_s


def test_chain_does_not_wait_for_anything_but_its_links_and_disk() -> None:
    needs = [(), *((Need(task=f"t{number}"),) for number in range(49))]
    chain = tuple(
        TaskSpec(name=f"t{number}", argv=("true",), needs=need) for number, need in enumerate(needs)
    )
    world = World(7, [1], plan=lambda task, attempt, node: (0.001, True))
    job = world.submit(JobSpec(name="chain", tasks=chain))
    assert world.run_until(lambda: world.finished(job)) < 50 * (0.001 + 0.0025)


def test_idle_mesh_is_silent() -> None:
    world = World(8, [2] * 5)
    world.run_for(120)
    before = sum(world.messages.values())
    world.run_for(60)
    # Two asks and two answers per node and half minute, at most.
    assert sum(world.messages.values()) - before <= 5 * 4 * 3


def test_chain_on_one_node_does_not_make_the_idle_others_ask_without_end() -> None:
    needs = [(), *((Need(task=f"t{number}"),) for number in range(99))]
    chain = tuple(
        TaskSpec(name=f"t{number}", argv=("true",), needs=need) for number, need in enumerate(needs)
    )
    world = World(9, [2, 2])
    world.run_for(60)
    world.messages.clear()
    job = world.submit(JobSpec(name="chain", tasks=chain))
    world.run_until(lambda: world.finished(job))
    assert world.messages["job.steal"] <= 20


def test_failed_task_is_tried_again_as_often_as_it_may() -> None:
    world = World(10, [2, 2], plan=lambda task, attempt, node: (TASK_S, attempt.number > 2))
    job = world.submit(array(4, retries=2))
    world.run_until(lambda: world.finished(job))
    tries = [[one.state for one in row.tries] for row in world.owner(job).results.values()]
    assert tries == [["failed", "failed", "succeeded"]] * 4


def test_task_that_always_fails_ends_failed_after_its_retries() -> None:
    world = World(11, [2], plan=lambda task, attempt, node: (TASK_S, False))
    job = world.submit(array(1, retries=2))
    world.run_until(lambda: world.finished(job))
    row = world.owner(job).results[TaskIndex(0)]
    assert (row.state, len(row.tries), row.error) == ("failed", 3, "exit code 1")


def test_failures_count_across_a_restart_of_the_owner() -> None:
    world = World(12, [0, 1], plan=lambda task, attempt, node: (0.2, False))
    owner = world.names[0]
    job = world.submit(array(1, retries=2))
    world.run_until(lambda: len(world.owner(job).tries_of(TaskIndex(0))) >= 1)
    world.run_for(0.3)
    world.crash(owner)
    world.run_for(0.1)
    world.start(owner)
    world.run_until(lambda: world.finished(job))
    assert len(world.owner(job).results[TaskIndex(0)].tries) == 3


def test_what_needs_a_failed_task_is_skipped() -> None:
    world = World(13, [2], plan=lambda task, attempt, node: (TASK_S, task != 1))
    job = world.submit(diamond(3))
    world.run_until(lambda: world.finished(job))
    states = [state.value for state in world.owner(job).states]
    assert states[:4] == ["succeeded", "failed", "succeeded", "succeeded"]
    assert states[4:] == ["skipped", "succeeded", "succeeded", "skipped"]


def test_cancelled_job_ends_at_once_and_stops_what_runs() -> None:
    world = World(14, [2, 2], plan=lambda task, attempt, node: (5.0, True))
    world.run_for(0.5)
    job = world.submit(array(20))
    world.run_for(1)
    world.handle(world.names[0], CancelAsked(job=job))
    world.run_for(0.1)
    assert world.finished(job)
    assert not any(node.running for node in world.nodes.values())
    world.check()


def test_task_wider_than_any_worker_waits_and_holds_nobody_up() -> None:
    wide = TaskSpec(name="wide", argv=("true",), cpu=4)
    narrow = TaskSpec(name="narrow", argv=("true",), array=Array(size=10))
    world = World(15, [2, 2, 4])
    broad = world.names[2]
    world.crash(broad)
    job = world.submit(JobSpec(name="wide", tasks=(wide, narrow)))
    world.run_until(lambda: world.owner(job).counts[TaskState.SUCCEEDED] == 10)
    world.run_for(5)
    assert not world.finished(job)
    world.start(broad)
    world.run_until(lambda: world.finished(job), 5)


def test_task_that_needs_a_thousand_results_gets_them_as_a_blob() -> None:
    gather = (
        TaskSpec(name="map", argv=("true",), array=Array(size=1_000)),
        TaskSpec(name="reduce", argv=("true",), needs=(Need(task="map"),)),
    )
    world = World(16, [8, 8], plan=lambda task, attempt, node: (0.002, True))
    job = world.submit(JobSpec(name="gather", tasks=gather))
    world.run_until(lambda: world.finished(job))
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 1_001


def test_worker_that_dies_costs_no_result() -> None:
    world = World(17, [2, 2, 2])
    world.run_for(0.5)
    job = world.submit(array(60))
    world.run_for(0.2)
    world.crash(world.names[2])
    world.run_until(lambda: world.finished(job), 30)
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 60


def test_dead_workers_tasks_are_given_away_without_waiting_for_the_lease() -> None:
    world = World(18, [2, 2, 2])
    world.run_for(0.5)
    job = world.submit(array(60))
    world.run_for(0.2)
    world.crash(world.names[2])
    world.bury(world.names[2])
    world.run_until(lambda: world.finished(job), 5)


def test_revoked_workers_tasks_run_elsewhere_at_once_and_count_against_no_limit() -> None:
    world = World(18, [2, 2, 2], plan=lambda task, attempt, node: (0.3, True))
    world.run_for(0.5)
    job = world.submit(array(30))
    world.run_for(0.4)
    gone = world.names[2]
    done_before = world.owner(job).done_on[gone]
    assert any(one.node == gone for one in world.owner(job).leases.values())
    world.revoke(gone)
    assert not any(one.node == gone for one in world.owner(job).leases.values())
    world.check()
    world.run_until(lambda: world.finished(job), 5)
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 30
    assert world.owner(job).done_on[gone] == done_before
    assert not any(
        one.state == LOST for task in range(30) for one in world.owner(job).tries_of(TaskIndex(task))
    )


def test_a_revoked_owners_tasks_end_everywhere_and_leave_no_result_behind() -> None:
    """Its workers were cut off before, so they hold results, too, that nobody will ever acknowledge."""
    world = World(22, [1, 2, 2], plan=lambda task, attempt, node: (0.5, True))
    owner, *workers = world.names
    world.run_for(0.5)
    world.submit(array(40))
    world.run_for(0.2)
    for worker in workers:
        world.partition(owner, worker)
    world.run_for(0.8)
    assert all(world.nodes[one].journal[Table.RESULTS] for one in workers)
    world.revoke(owner)
    world.run_for(0.1)
    for worker in workers:
        assert world.nodes[worker].running == {}
        assert not world.nodes[worker].journal[Table.RESULTS]
    world.check()


def test_a_revoked_node_ends_what_it_runs_for_others() -> None:
    world = World(23, [0, 2, 2], plan=lambda task, attempt, node: (5.0, True))
    world.run_for(0.5)
    world.submit(array(8))
    world.run_for(0.5)
    gone = world.names[2]
    assert world.nodes[gone].running
    world.revoke(gone)
    assert not world.nodes[gone].running
    world.check()


def test_restarted_worker_says_what_it_lost_and_it_runs_at_once() -> None:
    world = World(19, [0, 2], plan=lambda task, attempt, node: (1.0, True))
    worker = world.names[1]
    job = world.submit(array(4))
    world.run_for(0.6)
    world.crash(worker)
    world.run_for(0.5)
    world.start(worker)
    world.run_until(lambda: world.finished(job), 3)


def test_results_of_a_cut_off_worker_arrive_after_its_restart_and_are_not_run_again() -> None:
    world = World(20, [1, 4], plan=lambda task, attempt, node: (0.5, True))
    owner, worker = world.names
    world.run_for(0.5)
    job = world.submit(array(12))
    world.run_for(0.2)
    world.partition(owner, worker)
    world.run_for(1.5)
    stored = len(world.nodes[worker].journal[Table.RESULTS])
    assert stored >= 6
    world.crash(worker)
    world.run_for(0.1)
    world.start(worker)
    world.heal(owner, worker)
    world.run_until(lambda: world.finished(job))
    world.run_for(1)
    assert not world.nodes[worker].journal[Table.RESULTS]
    assert world.owner(job).done_on[worker] >= stored
    assert all(len(world.ends_of(job, task)) == 1 for task in range(12))


def test_owner_that_restarts_goes_on_where_it_was() -> None:
    world = World(21, [1, 2, 2], plan=lambda task, attempt, node: (0.2, True))
    owner = world.names[0]
    world.run_for(0.5)
    job = world.submit(array(60))
    world.run_for(1.0)
    world.crash(owner)
    world.run_for(1.0)
    world.start(owner)
    took_s = world.run_until(lambda: world.finished(job))
    assert took_s < 6
    for task in range(60):
        others = [run for run in world.ends_of(job, task) if run.node != owner]
        assert len(others) <= 1
    assert len(world.runs) <= 60 + world.nodes[owner].slots


def test_restarted_owner_waits_a_lease_for_a_worker_that_does_not_come() -> None:
    world = World(22, [0, 1, 1], plan=lambda task, attempt, node: (1.0, True))
    owner, gone, _ = world.names
    world.run_for(0.5)
    job = world.submit(array(8))
    world.run_for(0.2)
    world.crash(owner)
    world.crash(gone)
    world.start(owner)
    world.run_for(14)
    assert world.owner(job).backlog.suspects == (gone,)
    world.run_until(lambda: world.finished(job), 10)


@pytest.mark.parametrize(
    ("limit", "lost"), [(0, "3 workers were"), (1, "1 worker was"), (2, "2 workers were")]
)
def test_task_that_takes_workers_down_is_given_up(limit: int, lost: str) -> None:
    world = World(23, [0, 1], plan=lambda task, attempt, node: (5.0, True))
    worker = world.names[1]
    job = world.submit(JobSpec(name="poison", tasks=(TaskSpec(name="t", argv=("x",), crash_limit=limit),)))
    for _ in range(limit or 3):
        world.run_until(lambda: bool(world.nodes[worker].running))
        # At once: the owner never hears that it runs.
        world.run_for(0.01)
        world.crash(worker)
        world.run_for(0.5)
        world.start(worker)
    world.run_until(lambda: world.finished(job))
    row = world.owner(job).results[TaskIndex(0)]
    assert row.state == "failed"
    assert row.error.startswith(f"given up: {lost} lost while they had it, its crash_limit (last: ")
    assert [one.state for one in row.tries] == ["lost"] * (limit or 3)


def test_queued_tasks_are_not_blamed_for_the_death_of_their_worker() -> None:
    world = World(24, [0, 1], plan=lambda task, attempt, node: (5.0, True))
    worker = world.names[1]
    job = world.submit(array(6))
    world.run_until(lambda: bool(world.nodes[worker].running))
    world.crash(worker)
    world.run_for(0.5)
    world.start(worker)
    world.run_for(0.5)
    blamed = [task for task in range(6) if world.owner(job).book.tries_of(TaskIndex(task))]
    assert blamed == [0]


def test_outputs_lost_with_their_node_are_made_again_in_a_next_round() -> None:
    def plan(task: TaskIndex, attempt: Attempt, node: NodeId) -> tuple[float, bool]:
        return (0.1 if task == 0 else 20.0 if task == 1 else 0.1), True

    world = World(25, [0, 1, 1], plan=plan)
    tasks = (
        TaskSpec(name="first", argv=("true",)),
        TaskSpec(name="slow", argv=("true",)),
        TaskSpec(name="last", argv=("true",), needs=(Need(task="first"), Need(task="slow"))),
    )
    world.run_for(0.5)
    job = world.submit(JobSpec(name="lost", tasks=tasks))
    world.run_for(1)
    holder = world.owner(job).results[TaskIndex(0)].node
    world.crash(holder)
    world.wipe(holder)
    world.run_until(lambda: world.finished(job), 120)
    world.check()
    row = world.owner(job).results[TaskIndex(0)]
    assert (row.round, row.state) == (2, "succeeded")
    assert row.node != holder
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 3


def test_holder_that_comes_back_soon_costs_no_new_round() -> None:
    def plan(task: TaskIndex, attempt: Attempt, node: NodeId) -> tuple[float, bool]:
        return (2.0 if task == 1 else 0.1), True

    world = World(26, [0, 1, 1], plan=plan)
    tasks = (
        TaskSpec(name="first", argv=("true",)),
        TaskSpec(name="slow", argv=("true",)),
        TaskSpec(name="last", argv=("true",), needs=(Need(task="first"), Need(task="slow"))),
    )
    world.run_for(0.5)
    job = world.submit(JobSpec(name="back", tasks=tasks))
    world.run_for(1.5)
    holder = world.owner(job).results[TaskIndex(0)].node
    world.crash(holder)
    world.after(2.0, lambda: world.start(holder))
    world.run_until(lambda: world.finished(job), 60)
    assert world.owner(job).results[TaskIndex(0)].round == 1


def test_owner_that_slept_through_its_leases_gives_nothing_away() -> None:
    world = World(27, [0, 2], plan=lambda task, attempt, node: (40.0, True))
    owner = world.nodes[world.names[0]]
    job = world.submit(array(2))
    world.run_for(1)
    owner.slept = True
    world.run_for(20)
    owner.slept = False
    world.run_until(lambda: world.finished(job))
    assert len(world.runs) == 2


def test_worker_that_slept_beyond_its_lease_stops_what_others_have_now() -> None:
    world = World(28, [0, 1, 1], plan=lambda task, attempt, node: (30.0, True))
    world.run_for(0.5)
    job = world.submit(array(1))
    world.run_for(1)
    first = next(node for node in world.nodes.values() if node.running)
    first.slept = True
    world.run_for(25)
    second = [node for node in world.nodes.values() if node.running and node is not first]
    assert len(second) == 1
    first.slept = False
    world.run_until(lambda: world.finished(job))
    world.check()


def test_job_that_its_owner_forgot_is_dropped_by_workers() -> None:
    world = World(29, [0, 2], plan=lambda task, attempt, node: (1.0, True))
    owner, worker = world.names
    world.submit(array(4))
    world.run_for(0.5)
    world.partition(owner, worker)
    world.run_for(1)
    world.crash(owner)
    world.wipe(owner)
    world.start(owner)
    world.heal(owner, worker)
    world.run_for(1)
    node = world.nodes[worker]
    assert not node.running
    assert not node.journal[Table.RESULTS]
    assert any("does not know it" in note.fact for note in node.notes)


def test_large_job_costs_the_same_per_task() -> None:
    events = []
    for count in (200, 1_600):
        world = World(30, [2, 2], plan=lambda task, attempt, node: (0.02, True))
        job = world.submit(array(count))
        world.run_until(lambda world=world, job=job: world.finished(job))  # type: ignore[misc]
        events.append(world.steps / count)
    assert events[1] < 1.2 * events[0]


@pytest.mark.parametrize("seed", range(4))
def test_same_seed_is_the_same_story(seed: int) -> None:
    def story() -> list[tuple[int, str, float]]:
        world = World(seed, [2, 2, 1], loss=0.05, reorder=True)
        job = world.submit(diamond(8))
        world.run_for(random.Random(seed).random())
        world.crash(world.names[1])
        world.after(1.0, lambda: world.start(world.names[1]))
        world.run_until(lambda: world.finished(job))
        return [(run.attempt.task, run.node.hex(), run.started_s) for run in world.runs]

    assert story() == story()

"""What people ask of jobs and nodes at work: pause, retry, drain; in virtual time."""

from __future__ import annotations

import random

import pytest
from fixtures import (
    ALICE,
    BOB,
    JOB,
    ME,
    NOW,
    capacity,
    grant,
    hear,
    later,
    record,
    scheduler,
    spec,
    submitted,
)
from world import World, array, diamond

from meshpeer.core.effects import Persist, Send
from meshpeer.core.ids import NodeId, TaskIndex
from meshpeer.core.jobs.model import Array, JobSpec, Need, TaskSpec
from meshpeer.core.scheduler.control_messages import DrainAsked, PauseAsked, PriorityAsked, RetryAsked
from meshpeer.core.scheduler.messages import Attempt, Epoch, JobLearned, Lost, Recall
from meshpeer.core.scheduler.rows import TaskPut
from meshpeer.core.scheduler.tables import TaskState

# --- pause ----------------------------------------------------------------------------------------------


def test_paused_job_ends_what_runs_and_starts_nothing() -> None:
    world = World(1, [2, 2, 2], plan=lambda task, attempt, node: (1.0, True))
    world.run_for(1)
    job = world.submit(array(60))
    world.run_for(0.5)
    world.handle(world.names[0], PauseAsked(job=job, paused=True))
    world.run_for(3)
    owner = world.owner(job)
    started = len(world.runs)
    assert (owner.running, len(owner.leases)) == (0, 0), "what waited at workers came back"
    assert owner.counts[TaskState.SUCCEEDED] == started
    world.run_for(60)
    assert len(world.runs) == started
    world.handle(world.names[0], PauseAsked(job=job, paused=False))
    world.run_until(lambda: world.finished(job))
    world.check()
    assert len(world.runs) == 60, "nothing ran twice"


def test_recall_of_a_pause_does_not_overtake_the_grants_that_wait_for_the_disk() -> None:
    machine = scheduler(slots=0)
    hear(machine, ALICE, capacity(2))
    machine.handle(submitted(record(spec(8))), NOW)
    effects = machine.handle(PauseAsked(job=JOB, paused=True), NOW)
    recalls = [one for one in effects if isinstance(one, Send) and isinstance(one.message, Recall)]
    assert recalls
    assert {one.after for one in recalls} == {machine.owned[JOB].last_ticket}


def test_pause_outlives_a_restart_and_other_jobs_go_on() -> None:
    world = World(2, [1, 1])
    job = world.submit(array(20))
    world.handle(world.names[0], PauseAsked(job=job, paused=True))
    world.run_for(1)
    world.crash(world.names[0])
    world.run_for(1)
    world.start(world.names[0])
    other = world.submit(array(5))
    world.run_until(lambda: world.finished(other))
    world.run_for(30)
    assert world.owner(job).paused
    assert not world.finished(job)
    world.handle(world.names[0], PauseAsked(job=job, paused=False))
    world.run_until(lambda: world.finished(job))


def test_worker_gives_back_what_waits_and_keeps_what_runs() -> None:
    machine = scheduler(slots=1)
    job = record(spec(3), ALICE)
    hear(machine, ALICE, grant(job, 0, 1, 2))
    machine.handle(JobLearned(job=JOB, record=job), NOW)
    attempts = tuple(Attempt(task, 1, 1) for task in range(3))
    recall = Recall(job=JOB, generation=1, epoch=Epoch(1, ALICE), attempts=attempts)
    assert hear(machine, BOB, recall) == [], "only its owner can call back"
    (sent,) = hear(machine, ALICE, recall)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, Lost)
    assert (sent.peer, sent.message.attempts, sent.message.recalled) == (ALICE, attempts[1:], True)
    machine.check()


def test_what_was_called_back_is_granted_to_the_same_worker_again_at_once() -> None:
    machine = scheduler(slots=0)
    hear(machine, ALICE, capacity(1))
    machine.handle(submitted(record(spec(2))), NOW)
    machine.handle(PauseAsked(job=JOB, paused=True), NOW)
    back = tuple(Attempt(task, 1, 1) for task in range(2))
    hear(
        machine,
        ALICE,
        Lost(job=JOB, generation=1, epoch=Epoch(1, ME), attempts=back, reason="", recalled=True),
        later(1),
    )
    assert not machine.owned[JOB].leases
    machine.handle(PauseAsked(job=JOB, paused=False), later(2))
    assert {one.node for one in machine.owned[JOB].leases.values()} == {ALICE}


def test_asking_twice_writes_once_and_an_ended_job_takes_no_orders() -> None:
    world = World(3, [1])
    job, owner = world.submit(array(1)), world.names[0]
    machine = world.nodes[owner].scheduler
    assert machine is not None
    assert machine.handle(PauseAsked(job=job, paused=False), world.now) == []
    assert machine.handle(PriorityAsked(job=job, priority=5), world.now)
    assert machine.handle(PriorityAsked(job=job, priority=5), world.now) == []
    world.run_until(lambda: world.finished(job))
    for event in (PauseAsked(job=job, paused=True), PriorityAsked(job=job, priority=1)):
        assert machine.handle(event, world.now) == []


# --- retry ----------------------------------------------------------------------------------------------


def test_retry_runs_what_failed_and_what_was_skipped_and_nothing_else() -> None:
    broken = {5}

    def plan(task: TaskIndex, attempt: Attempt, node: NodeId) -> tuple[float, bool]:
        return 0.05, task not in broken

    world = World(4, [2, 2], plan=plan)
    job = world.submit(diamond(8))
    world.run_until(lambda: world.finished(job))
    owner = world.owner(job)
    assert (owner.counts[TaskState.FAILED], owner.counts[TaskState.SKIPPED]) == (1, 2)
    ran = len(world.runs)
    broken.clear()
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(5),)))
    assert not owner.finished
    world.run_until(lambda: world.finished(job))
    world.check()
    assert owner.counts[TaskState.SUCCEEDED] == len(owner.graph)
    assert len(world.runs) - ran == 3
    assert [(one.round, one.state) for one in owner.tries_of(TaskIndex(5))] == [
        (1, "failed"),
        (2, "succeeded"),
    ]


@pytest.mark.parametrize("crashes_s", [0.0, 0.02, 0.3, 30.0])
def test_retry_outlives_a_restart_at_any_moment(crashes_s: float) -> None:
    broken = {5}
    world = World(5, [1, 1], plan=lambda task, attempt, node: (0.2, task not in broken))
    job = world.submit(diamond(4))
    world.run_until(lambda: world.finished(job))
    world.run_for(1)
    world.crash(world.names[0])
    world.start(world.names[0])
    broken.clear()
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(5),)))
    world.run_for(crashes_s)
    world.crash(world.names[0])
    world.run_for(1)
    world.start(world.names[0])
    if world.finished(job) and world.owner(job).counts[TaskState.FAILED]:
        # It was not on disk yet, and nobody was told that it was.
        assert crashes_s < 0.02
        world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(5),)))
    world.run_until(lambda: world.finished(job))
    world.check()
    assert world.owner(job).counts[TaskState.SUCCEEDED] == len(world.owner(job).graph)


def test_what_needs_another_failure_too_stays_skipped() -> None:
    world = World(6, [1], plan=lambda task, attempt, node: (0.05, attempt.round > 1))
    needs = (Need(task="a"), Need(task="b"))
    tasks = (
        TaskSpec(name="a", argv=("x",)),
        TaskSpec(name="b", argv=("x",)),
        TaskSpec(name="c", argv=("x",), needs=needs),
    )
    job = world.submit(JobSpec(name="both", tasks=tasks))
    world.run_until(lambda: world.finished(job))
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(0),)))
    world.run_until(lambda: world.finished(job))
    assert [one.value for one in world.owner(job).states] == ["succeeded", "failed", "skipped"]
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(1),)))
    world.run_for(1)
    world.run_until(lambda: world.finished(job))
    world.check()
    assert [one.value for one in world.owner(job).states] == ["succeeded", "succeeded", "failed"], "it ran"


def test_retry_while_the_rest_still_runs_gives_a_fresh_allowance() -> None:
    def plan(task: TaskIndex, attempt: Attempt, node: NodeId) -> tuple[float, bool]:
        return (0.05, (attempt.round, attempt.number) == (2, 2)) if task == 0 else (5.0, True)

    world = World(7, [2], plan=plan)
    job = world.submit(array(2, retries=1))
    world.run_until(lambda: world.owner(job).states[0] is TaskState.FAILED)
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(0), TaskIndex(1))))
    world.run_until(lambda: world.finished(job))
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 2
    assert len(world.owner(job).tries_of(TaskIndex(0))) == 4


def test_retry_of_what_ended_its_job_fast_lets_the_rest_run() -> None:
    slow = TaskSpec(name="slow", argv=("x",), array=Array(size=4))
    vital = TaskSpec(name="vital", argv=("x",), on_failure="fail-fast")
    after = TaskSpec(name="after", argv=("x",), needs=(Need(task="vital"), Need(task="slow")))
    world = World(11, [1], plan=lambda task, attempt, node: (0.1, task != 0 or attempt.round > 1))
    job = world.submit(JobSpec(name="fast", tasks=(vital, slow, after)))
    world.run_until(lambda: world.finished(job))
    assert world.owner(job).counts[TaskState.CANCELLED]
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(0),)))
    world.run_until(lambda: world.finished(job))
    world.check()
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 6


def test_retry_runs_what_was_cancelled_before_anybody_was_granted_it() -> None:
    tasks = (
        vital(),
        TaskSpec(name="b", argv=("x",)),
        TaskSpec(name="c", argv=("x",), needs=(Need(task="b"),)),
    )
    world = World(11, [1], plan=lambda task, attempt, node: (0.1, task != 0 or attempt.round > 1))
    job = world.submit(JobSpec(name="fast", tasks=tasks))
    world.run_until(lambda: world.finished(job))
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(0),)))
    world.run_until(lambda: world.finished(job))
    world.check()
    book = world.owner(job).book
    assert book.counts[TaskState.SUCCEEDED] == 3
    assert [(book.round_of(task), book.losses_of(task)) for task in map(TaskIndex, range(3))] == [
        (2, 1)
    ] * 3, "a round that a person asked for is no loss of outputs"


def test_round_outlives_being_skipped_cancelled_and_restarted() -> None:
    """C is cancelled in round 1, skipped in round 2, and cancelled by its user in the end."""

    def plan(task: TaskIndex, attempt: Attempt, node: NodeId) -> tuple[float, bool]:
        return (0.1, attempt.round > 1) if task == 0 else (0.5, False)

    tasks = (
        vital(),
        TaskSpec(name="b", argv=("x",)),
        TaskSpec(name="c", argv=("x",), needs=(Need(task="b"),)),
    )
    world = World(11, [2], plan=plan)
    job = world.submit(JobSpec(name="fast", tasks=tasks))
    world.run_until(lambda: world.finished(job))
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(0),)))
    world.run_until(lambda: world.finished(job))
    assert [one.value for one in world.owner(job).states] == ["succeeded", "failed", "skipped"]
    world.run_for(1)
    world.crash(world.names[0])
    world.start(world.names[0])
    book = world.owner(job).book
    assert (book.states[2], book.round_of(TaskIndex(2))) == (TaskState.SKIPPED, 2)
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(1),)))
    row = book.cancelled_row(TaskIndex(2), world.names[0])
    assert (row.round, row.retried) == (2, 1)
    world.check()


def test_rows_of_a_retry_name_the_failure_last_that_had_ended_the_rest() -> None:
    world = World(11, [1], plan=lambda task, attempt, node: (0.1, False))
    job = world.submit(
        JobSpec(name="fast", tasks=(vital(), TaskSpec(name="b", argv=("x",), array=Array(size=3))))
    )
    world.run_until(lambda: world.finished(job))
    effects = world.owner(job).retry([TaskIndex(0)], world.now)
    rows = [
        put.task
        for one in effects
        if isinstance(one, Persist)
        for put in one.changes
        if isinstance(put, TaskPut)
    ]
    assert rows == [1, 2, 3, 0]


@pytest.mark.parametrize("restarts", [False, True])
def test_what_ran_on_a_failure_keeps_its_result_when_that_becomes_a_success(restarts: bool) -> None:
    tasks = (
        TaskSpec(name="d", argv=("x",)),
        TaskSpec(name="e", argv=("x",), needs=(Need(task="d", when="failed"),)),
        TaskSpec(name="f", argv=("x",)),
    )
    world = World(3, [2], plan=lambda task, attempt, node: (0.1, task == 1 or attempt.round > 1))
    job = world.submit(JobSpec(name="cleans up", tasks=tasks))
    world.run_until(lambda: world.finished(job))
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(0),)))
    world.run_until(lambda: world.finished(job))
    world.run_for(1)
    if restarts:
        world.crash(world.names[0])
        world.start(world.names[0])
    assert [one.value for one in world.owner(job).states] == ["succeeded", "succeeded", "failed"]
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(2),)))
    world.run_until(lambda: world.finished(job))
    world.check()
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 3


def test_retry_of_what_may_not_run_any_more_ends_the_job_again() -> None:
    tasks = (
        TaskSpec(name="d", argv=("x",)),
        TaskSpec(name="e", argv=("x",), needs=(Need(task="d", when="failed"),)),
    )
    world = World(3, [2], plan=lambda task, attempt, node: (0.1, attempt.round > 1))
    job = world.submit(JobSpec(name="cleans up", tasks=tasks))
    world.run_until(lambda: world.finished(job))
    for task in (0, 1):
        world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(task),)))
        world.run_until(lambda: world.finished(job))
    world.check()
    assert [one.value for one in world.owner(job).states] == ["succeeded", "skipped"]


@pytest.mark.parametrize("seed", range(25))
def test_retries_of_any_graph_with_any_needs_survive_restarts(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"t{number}" for number in range(10)]
    tasks = tuple(
        TaskSpec(
            name=name,
            argv=("x",),
            needs=tuple(
                Need(task=one, when=rng.choice(["succeeded", "succeeded", "failed", "ended"]))
                for one in sorted(rng.sample(names[:number], min(number, rng.randint(0, 2))))
            ),
            on_failure="fail-fast" if seed % 3 == 0 and number % 5 == 2 else "continue",
        )
        for number, name in enumerate(names)
    )
    world = World(seed, [2, 1], plan=lambda task, attempt, node: (0.05, attempt.round > task % 3))
    job = world.submit(JobSpec(name="random", tasks=tasks))
    for _ in range(60):
        world.run_until(lambda: world.finished(job))
        world.check()
        world.run_for(1)
        before = list(world.owner(job).states)
        world.crash(world.names[0])
        world.start(world.names[0])
        assert world.owner(job).states == before
        failed = [TaskIndex(task) for task, state in enumerate(before) if state is TaskState.FAILED]
        if not failed:
            break
        world.handle(world.names[0], RetryAsked(job=job, tasks=(rng.choice(failed),)))
        world.run_for(rng.random() / 5)
    assert not world.owner(job).counts[TaskState.FAILED]


def vital() -> TaskSpec:
    return TaskSpec(name="vital", argv=("x",), on_failure="fail-fast")


def test_higher_priority_goes_first_once_it_is_given() -> None:
    world = World(12, [1], plan=lambda task, attempt, node: (0.5, True))
    first, second = world.submit(array(40)), world.submit(array(40))
    world.handle(world.names[0], PriorityAsked(job=second, priority=9))
    world.run_until(lambda: world.finished(second))
    assert world.owner(first).counts[TaskState.SUCCEEDED] < 30
    world.crash(world.names[0])
    world.start(world.names[0])
    assert world.owner(first).priority == 0
    world.check()


def test_pause_ends_with_the_job() -> None:
    world = World(10, [1], plan=lambda task, attempt, node: (1.0, attempt.round > 1))
    job = world.submit(array(1))
    world.run_for(0.5)
    world.handle(world.names[0], PauseAsked(job=job, paused=True))
    world.run_until(lambda: world.finished(job))
    world.handle(world.names[0], RetryAsked(job=job, tasks=(TaskIndex(0),)))
    world.run_until(lambda: world.finished(job))
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 1


@pytest.mark.parametrize("seed", range(15))
def test_retries_of_any_graph_lead_to_success(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"t{number}" for number in range(12)]
    tasks = tuple(
        TaskSpec(
            name=name,
            argv=("x",),
            needs=tuple(
                Need(task=one) for one in sorted(rng.sample(names[:number], min(number, rng.randint(0, 2))))
            ),
        )
        for number, name in enumerate(names)
    )
    world = World(seed, [2, 1], plan=lambda task, attempt, node: (0.05, attempt.round > task % 3))
    job = world.submit(JobSpec(name="random", tasks=tasks))
    for _ in range(40):
        world.run_until(lambda: world.finished(job))
        world.check()
        failed = [
            TaskIndex(task) for task, state in enumerate(world.owner(job).states) if state is TaskState.FAILED
        ]
        if not failed:
            break
        world.handle(world.names[0], RetryAsked(job=job, tasks=(rng.choice(failed),)))
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 12


@pytest.mark.parametrize("restarts", [False, True])
def test_what_needs_an_exit_code_runs_on_that_one_and_is_skipped_on_others(restarts: bool) -> None:
    def needs(code: int, **more: bool) -> tuple[Need, ...]:
        return (Need(task="probe", when="exit", exits=(code,), **more),)

    job = JobSpec(
        name="codes",
        tasks=(
            TaskSpec(name="probe", argv=("x",), array=Array(size=2)),
            TaskSpec(name="mend", argv=("x",), needs=needs(1)),
            TaskSpec(name="other", argv=("x",), needs=needs(2)),
            TaskSpec(name="each", argv=("x",), array=Array(size=2), needs=needs(1, same_index=True)),
        ),
    )
    world = World(4, [2, 2], plan=lambda task, attempt, node: (1.0, task > 1))
    world.run_for(0.5)
    name = world.submit(job)
    world.run_for(1.5)
    if restarts:
        world.crash(world.names[0])
        world.start(world.names[0])
    world.run_until(lambda: world.finished(name), 60.0)
    states = [state.value for state in world.owner(name).states]
    assert states == ["failed", "failed", "succeeded", "skipped", "succeeded", "succeeded"]
    world.check()


# --- drain ----------------------------------------------------------------------------------------------


def test_drained_node_ends_what_runs_and_gives_back_the_rest() -> None:
    world = World(8, [2, 2, 2], plan=lambda task, attempt, node: (1.0, True))
    world.run_for(1)
    job, drained = world.submit(array(40)), world.names[1]
    world.run_for(0.5)
    running = len([one for one in world.runs if one.node == drained])
    world.handle(drained, DrainAsked(drained=True))
    world.run_for(0.1)
    owner = world.nodes[world.names[0]].scheduler
    assert owner is not None
    assert owner.seats.of(drained).drained
    world.run_until(lambda: world.finished(job))
    world.check()
    assert len([one for one in world.runs if one.node == drained]) == running
    assert len(world.runs) == 40, "nothing ran twice"


def test_drain_outlives_a_restart_until_it_is_taken_back() -> None:
    world = World(9, [1, 1])
    world.run_for(1)
    drained = world.names[0]
    world.handle(drained, DrainAsked(drained=True))
    world.run_for(1)
    world.crash(drained)
    world.start(drained)
    world.run_for(1)
    job = world.submit(array(10), at=0)
    world.run_until(lambda: world.finished(job))
    assert {one.node for one in world.runs} == {world.names[1]}, "it goes on to own jobs"
    world.handle(drained, DrainAsked(drained=False))
    world.run_for(1)
    again = world.submit(array(10), at=0)
    world.run_until(lambda: world.finished(again))
    assert drained in {one.node for one in world.runs if one.job == again}

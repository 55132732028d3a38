"""A job with three replicas outlives any one node: its submitter, its owner, and the owner after that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from world import World

from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import JobId, NodeId, TaskIndex
from meshpeer.core.jobs.model import Array, JobRecord, JobSpec, Need, TaskSpec
from meshpeer.core.scheduler.book import NOTHING
from meshpeer.core.scheduler.consensus.messages import Accept, Prepare
from meshpeer.core.scheduler.consensus.values import Ballot, Membership, Replica, Row, Written
from meshpeer.core.scheduler.control_messages import RetryAsked
from meshpeer.core.scheduler.messages import Attempt, CancelAsked, MessageReceived, PeerRevoked
from meshpeer.core.scheduler.replica_choice import choose_replicas
from meshpeer.core.scheduler.replica_rows import takeover_of
from meshpeer.core.scheduler.rows import TaskRow
from meshpeer.core.scheduler.tables import TaskState
from meshpeer.core.wire import cbor


def test_a_result_is_acknowledged_once_two_replicas_have_it() -> None:
    world = World(1, [2, 2, 2, 2], replicated=True)
    world.run_for(0.5)
    job = world.submit(tasks(40))

    world.run_until(lambda: world.finished(job), 60.0)

    assert len(world.records[job].replicas) == 3
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 40
    assert world.committed
    world.check()


def test_another_replica_owns_the_job_within_ten_seconds_of_its_submitters_end() -> None:
    world = World(2, [2, 2, 2, 2], replicated=True, plan=lambda task, attempt, node: (0.5, True))
    world.run_for(0.5)
    job = world.submit(tasks(60))
    world.run_for(3.0)
    assert not world.finished(job)

    world.crash(world.names[0])
    took_s = world.run_until(lambda: bool(world.owners(job)))

    assert took_s < 10.0
    world.bury(world.names[0])
    world.run_until(lambda: world.finished(job), 120.0)
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 60
    world.check()


def test_an_owner_that_comes_back_takes_a_new_epoch_and_goes_on() -> None:
    world = World(3, [2, 2, 2], replicated=True, plan=lambda task, attempt, node: (0.3, True))
    world.run_for(0.5)
    job = world.submit(tasks(30))
    world.run_for(2.0)

    world.crash(world.names[0])
    world.run_for(0.5)
    world.start(world.names[0])
    world.run_until(lambda: world.finished(job), 120.0)

    assert world.owner(job).epoch.counter > 1
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 30
    world.check()


def test_an_owner_that_was_cut_off_grants_nothing_and_gives_way() -> None:
    world = World(4, [2, 2, 2, 2], replicated=True, plan=lambda task, attempt, node: (0.5, True))
    world.run_for(0.5)
    job = world.submit(tasks(80))
    world.run_for(2.0)
    cut_off = world.names[0]

    for other in world.names[1:]:
        world.partition(cut_off, other)
    world.run_until(lambda: len(world.owners(job)) == 2, 20.0)
    world.run_for(20.0)
    alone = world.nodes[cut_off].scheduler
    assert alone is not None
    assert not alone.replicas.may_grant(job, world.now)
    assert alone.replicas.durability(job, world.now) == "blocked"
    for other in world.names[1:]:
        world.heal(cut_off, other)
    world.run_until(lambda: world.finished(job), 200.0)
    world.run_for(3.0)

    assert [one for one in world.owners(job) if not one.finished] == []
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 80
    world.check()


def test_what_an_owner_wrote_that_no_quorum_has_is_known_as_such() -> None:
    world = World(4, [2, 2, 2, 2], replicated=True, plan=lambda task, attempt, node: (0.5, True))
    world.run_for(0.5)
    job = world.submit(tasks(80))
    world.run_for(2.0)
    cut_off = world.names[0]
    here = world.nodes[cut_off].scheduler
    assert here is not None

    for other in world.names[1:]:
        world.partition(cut_off, other)
    world.run_for(3.0)

    owner, unchosen = here.owned[job], here.replicas.unchosen(job)
    assert unchosen
    assert {owner.results[task].node for task in unchosen} == {cut_off}
    assert not {key[1] for key in world.committed} & unchosen
    for other in world.names[1:]:
        world.heal(cut_off, other)
    world.run_until(lambda: world.finished(job), 200.0)
    world.run_for(3.0)
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 80
    assert not here.replicas.unchosen(job)


@pytest.mark.parametrize("end", [World.crash, World.revoke])
def test_a_job_outlives_two_owners_one_after_the_other_where_the_first_was_replaced(
    end: Callable[[World, NodeId], None],
) -> None:
    world = World(5, [2, 2, 2, 2, 2], replicated=True, plan=lambda task, attempt, node: (20.0, True))
    world.run_for(0.5)
    job = world.submit(tasks(100))
    world.run_for(2.0)
    world.crash(world.names[0])
    world.bury(world.names[0])
    world.run_until(lambda: bool(world.owners(job)), 20.0)

    second = world.owner(job).epoch.node
    copy = world.nodes[second].scheduler.replicas.copies[job]  # type: ignore[union-attr]
    world.run_until(
        lambda: (
            copy.leader is not None and copy.leader.membership.number >= 3 and not copy.leader.is_changing
        ),
        200.0,
    )
    world.run_for(3.0)
    end(world, second)
    world.crash(second)
    world.bury(second)
    world.run_until(lambda: bool(world.owners(job)), 20.0)
    world.run_until(lambda: world.finished(job), 600.0)

    assert world.owner(job).counts[TaskState.SUCCEEDED] == 100
    world.check()


def test_a_cancelled_job_stays_cancelled_under_its_next_owner() -> None:
    world = World(6, [2, 2, 2], replicated=True, plan=lambda task, attempt, node: (5.0, True))
    world.run_for(0.5)
    job = world.submit(tasks(20))
    world.run_for(1.0)
    world.handle(world.names[0], CancelAsked(job=job))
    world.run_for(1.0)
    assert world.finished(job)

    world.crash(world.names[0])
    world.run_for(15.0)
    world.start(world.names[0])
    world.run_for(15.0)

    assert world.owner(job).cancelled
    assert world.owner(job).counts[TaskState.CANCELLED] == 20


def test_nobody_runs_what_a_revoked_node_submitted_and_its_next_owner_cancels_it() -> None:
    world = World(6, [0, 1, 1, 1, 1], replicated=True, plan=lambda task, attempt, node: (100.0, True))
    gone, *others = world.names
    world.run_for(0.5)
    job = world.submit(tasks(8))
    world.run_for(1.0)
    assert all(world.nodes[one].running for one in others)

    world.revoke(gone)
    world.run_for(0.1)
    assert not any(world.nodes[one].running for one in others)
    world.crash(gone)
    world.run_until(lambda: bool(world.owners(job)), 30.0)

    assert not any(world.nodes[one].running for one in others)
    assert world.owner(job).cancelled
    assert world.owner(job).counts[TaskState.CANCELLED] == 8
    world.check()


def test_a_job_whose_submitter_is_revoked_ends_under_who_owns_it_by_then() -> None:
    world = World(6, [0, 1, 1, 1, 1], replicated=True, plan=lambda task, attempt, node: (100.0, True))
    gone, *others = world.names
    world.run_for(0.5)
    job = world.submit(tasks(8))
    world.run_for(1.0)
    world.crash(gone)
    world.run_until(lambda: bool(world.owners(job)), 30.0)

    world.revoke(gone)
    world.run_for(1.0)

    assert not any(world.nodes[one].running for one in others)
    assert world.owner(job).counts[TaskState.CANCELLED] == 8
    world.check()


def test_a_job_of_who_was_shut_out_once_and_is_a_member_again_goes_on_under_its_next_owner() -> None:
    world = World(6, [1, 1, 1, 1], replicated=True, plan=lambda task, attempt, node: (1.0, True))
    back = world.names[0]
    world.run_for(0.5)
    for other in world.names[1:]:
        # With its invite, say: no revocation names it, and another invite let it in.
        world.handle(other, PeerRevoked(peer=back))
        world.partition(back, other)
        world.heal(back, other)
    world.run_for(0.5)
    job = world.submit(tasks(20))
    world.run_for(1.0)
    world.crash(back)
    world.run_until(lambda: world.finished(job), 100.0)

    assert world.owner(job).counts[TaskState.SUCCEEDED] == 20
    world.check()


def test_what_a_retry_opened_is_skipped_and_opened_again_in_rounds_that_no_register_was_decided_for() -> None:
    def plan(task: TaskIndex, attempt: Attempt, node: NodeId) -> tuple[float, bool]:
        if task == 1:
            return 1.0 if attempt.round == 1 else 0.1, attempt.round > 2
        return 0.1, task == 2 or attempt.round > 1

    world = World(11, [3, 3, 3], plan=plan, replicated=True)
    world.run_for(1)
    job = world.submit(
        JobSpec(name="fast", tasks=(*fast(), TaskSpec(name="c", argv=("x",), needs=(Need(task="b"),))))
    )
    for task in (0, 1):
        world.run_until(lambda: world.owner(job).finished)
        world.run_for(1)
        world.handle(world.owner(job).epoch.node, RetryAsked(job=job, tasks=(TaskIndex(task),)))
    world.run_until(lambda: world.owner(job).finished)
    world.run_for(1)
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 3
    assert [world.owner(job).book.round_of(TaskIndex(task)) for task in range(3)] == [2, 3, 2]
    world.check()


def test_a_takeover_keeps_the_rounds_of_what_was_cancelled() -> None:
    world = World(
        11,
        [3, 3, 3],
        plan=lambda task, attempt, node: (0.1, attempt.round > 2) if task == 0 else (3.0, True),
        replicated=True,
    )
    world.run_for(1)
    job = world.submit(JobSpec(name="fast", tasks=fast()))
    for crashes in (False, True):
        world.run_until(lambda: world.owner(job).finished)
        world.run_for(2)
        if crashes:
            node = world.owner(job).epoch.node
            world.crash(node)
            world.run_for(0.3)
            world.start(node)
            world.run_for(10)
            assert world.owner(job).epoch.counter > 1
            assert [one.value for one in world.owner(job).states] == ["failed", "cancelled"]
            assert world.owner(job).book.round_of(TaskIndex(1)) == 2
        world.handle(world.owner(job).epoch.node, RetryAsked(job=job, tasks=(TaskIndex(0),)))
    world.run_until(lambda: world.owner(job).finished)
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 2
    assert world.owner(job).book.losses_of(TaskIndex(1)) == 1
    world.check()


@pytest.mark.parametrize(("failed", "cancelled"), [(True, False), (False, True)])
def test_a_cancelled_row_means_a_cancelled_job_but_beside_a_failure_that_did_it(
    failed: bool, cancelled: bool
) -> None:
    record = JobRecord(
        job=JobId("j"),
        submitter=NodeId(b"1" * 32),
        submitted_at_us=1,
        spec=JobSpec(name="fast", tasks=fast()),
    )
    states = {0: (1, "failed" if failed else "ready"), 1: (2, "cancelled")}
    ballot = Ballot(1, Replica(NodeId(b"1" * 32), b"s"))
    rows = []
    for task, (number, state) in states.items():
        row = TaskRow(
            round=number,
            state=state,
            node=NodeId(b"1" * 32),
            tries=(),
            exit_code=None,
            error="",
            stdout=NOTHING,
            stderr=NOTHING,
            manifest=NOTHING,
            outputs=0,
        )
        rows.append(Written(task, number, state != "ready", cbor.encode(row), ballot, 1))
    taken = takeover_of(record, rows)
    assert taken.row.cancelled is cancelled
    assert (taken.tasks[TaskIndex(1)].state, taken.tasks[TaskIndex(1)].round) == ("ready", 2)


def fast() -> tuple[TaskSpec, ...]:
    vital = TaskSpec(name="vital", argv=("x",), on_failure="fail-fast")
    return vital, TaskSpec(name="b", argv=("x",))


@pytest.mark.parametrize("seed", range(4))
def test_a_job_ends_whatever_its_replicas_go_through(seed: int) -> None:
    world = World(
        seed, [2, 2, 2, 2], replicated=True, loss=0.02, plan=lambda task, attempt, node: (0.4, True)
    )
    world.run_for(0.5)
    job = world.submit(tasks(40))
    world.run_for(1.0)
    for _ in range(4):
        victim = world.rng.choice(world.names)
        world.crash(victim)
        world.run_for(world.rng.uniform(0.5, 12.0))
        world.start(victim)
        world.run_for(world.rng.uniform(0.5, 4.0))

    world.run_until(lambda: world.finished(job), 300.0)

    assert world.owner(job).counts[TaskState.SUCCEEDED] == 40
    world.check()


def test_a_member_that_is_no_replica_neither_raises_a_ballot_nor_writes_a_row() -> None:
    world = World(8, [2, 2, 2, 2, 2], replicated=True, plan=lambda task, attempt, node: (9.0, True))
    world.run_for(0.5)
    job = world.submit(tasks(10))
    world.run_for(1.0)
    record = world.records[job]
    stranger = next(name for name in world.names if name not in record.replicas)
    at = world.nodes[record.replicas[1]].scheduler
    assert at is not None
    before = at.replicas.copies[job].acceptor.vote
    liar = Replica(stranger, b"store")
    membership = Membership(9, (liar,))
    accept = Accept(job=job, generation=1, ballot=Ballot(99, liar), membership=membership, sequence=1, beat=1)
    prepare = Prepare(
        job=job, generation=1, ballot=Ballot(99, liar), membership=membership, told_by=Ballot(99, liar)
    )

    for message in (accept, prepare):
        world.handle(record.replicas[1], MessageReceived(peer=stranger, message=message))

    assert at.replicas.copies[job].acceptor.vote == before


@pytest.mark.parametrize("row", [Row(0, 1, True, b"rubbish"), Row(10, 1, True, b""), Row(-2, 0, False, b"")])
def test_a_row_that_is_none_of_the_job_is_the_offence_of_who_sent_it(row: Row) -> None:
    world = World(9, [2, 2, 2], replicated=True, plan=lambda task, attempt, node: (9.0, True))
    world.run_for(0.5)
    job = world.submit(tasks(10))
    world.run_for(1.0)
    owner, replica, _ = world.records[job].replicas
    at = world.nodes[replica].scheduler
    assert at is not None
    vote = at.replicas.copies[job].acceptor.vote
    accept = Accept(
        job=job,
        generation=1,
        ballot=vote.promised,
        membership=vote.membership,
        sequence=9,
        beat=9,
        rows=(row,),
    )

    with pytest.raises(PeerFault):
        world.handle(replica, MessageReceived(peer=owner, message=accept))


def test_fewer_than_three_nodes_keep_a_job_where_it_was_submitted() -> None:
    world = World(7, [2, 2], replicated=True)
    world.run_for(0.5)
    job = world.submit(tasks(4))

    world.run_until(lambda: world.finished(job), 30.0)

    assert world.records[job].replicas == (world.names[0],)
    assert world.messages["job.accept"] == 0


def test_replicas_are_one_of_the_own_region_and_one_of_another() -> None:
    me, *others = (NodeId(bytes([number]) * 32) for number in range(6))
    regions = dict(zip(others, ["eu", "eu", "us", "us", "eu"], strict=True))

    chosen = choose_replicas(JobId("jaaaaaaaaaaaaaaaaaaa"), me, "eu", regions)

    assert chosen[0] == me
    assert sorted(regions[one] for one in chosen[1:]) == ["eu", "us"]
    assert choose_replicas(JobId("jaaaaaaaaaaaaaaaaaaa"), me, "eu", {others[0]: "eu"}) == (me,)


def tasks(count: int) -> JobSpec:
    return JobSpec(name="job", tasks=(TaskSpec(name="t", argv=("true",), array=Array(size=count)),))

"""What a node gives to the jobs of one submitter: slots, open tasks, bytes."""

from __future__ import annotations

import msgspec
import pytest
from fixtures import ALICE, BOB, JOB, ME, NOW, hear, later, record, scheduler, spec, submitted
from world import World, array, node_name

from meshpeer.core.effects import Note, Send
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.model import FileRef
from meshpeer.core.scheduler.consensus.messages import Accept
from meshpeer.core.scheduler.consensus.values import Ballot, Membership, Replica
from meshpeer.core.scheduler.messages import Capacity, MessageReceived, PeerUp
from meshpeer.core.scheduler.quotas import Excess, Quota
from meshpeer.core.scheduler.replica_messages import (
    FetchReplica,
    RecordShown,
    RecordWanted,
    ReplicaReady,
    ReplicaRefused,
    ReplicaUnfetched,
)
from meshpeer.core.scheduler.replicas import REFUSED_S

FIRST, SECOND = node_name(0), node_name(1)


@pytest.mark.parametrize("seed", range(3))
def test_no_submitter_has_more_of_a_node_than_its_quota_and_the_rest_is_anothers(seed: int) -> None:
    world = World(seed, [3, 3, 3], plan=lambda task, attempt, node: (0.5, True), quota_of=one_for_the_first)
    world.run_for(0.5)
    bound = world.submit(msgspec.structs.replace(array(30), priority=9))
    free = world.submit(array(60), at=1)
    world.run_until(lambda: world.finished(bound, free), 60.0)
    world.check()
    for name in world.names:
        assert most_at_once(world, bound, name) == 1
        assert most_at_once(world, free, name) >= 2
    # 30 tasks by one in each of three places take 5 s; the other job does not wait for them.
    ended = max(run.ended_s or 0.0 for run in world.runs if run.job == free)
    began = min(run.started_s for run in world.runs)
    assert ended - began < 60 * 0.5 / 6 + 2


def test_a_quota_holds_for_a_job_that_another_node_owns_by_now() -> None:
    world = World(
        2,
        [2, 2, 2],
        replicated=True,
        plan=lambda task, attempt, node: (1.0, True),
        quota_of=one_for_the_first,
    )
    world.run_for(0.5)
    job = world.submit(array(12))
    world.run_for(0.5)
    world.crash(world.names[0])
    world.run_until(lambda: world.finished(job), 60.0)
    assert all(most_at_once(world, job, name) == 1 for name in world.names)
    # What nobody may start does not go round among those that are idle.
    assert world.messages["job.steal"] < 200


def test_a_task_that_is_wider_than_the_quota_goes_elsewhere() -> None:
    world = World(
        3,
        [1, 4, 4],
        quota_of=lambda node, submitter: Quota(slots=2) if node == SECOND else Quota(),
    )
    world.run_for(0.5)
    job = world.submit(array(6, cpu=3))
    world.run_until(lambda: world.finished(job), 60.0)
    assert {run.node for run in world.runs} == {world.names[2]}


def test_each_peer_is_told_of_the_slots_that_it_may_have() -> None:
    machine = scheduler(4)
    machine.quota_of = {ALICE: Quota(slots=1), BOB: Quota(slots=9)}.__getitem__
    told = {
        one.peer: one.message.slots
        for peer in (ALICE, BOB)
        for one in machine.handle(PeerUp(peer=peer), NOW)
        if isinstance(one, Send) and isinstance(one.message, Capacity)
    }
    assert told == {ALICE: 1, BOB: 4}


def test_open_tasks_and_bytes_of_a_submitter_are_counted_here() -> None:
    machine = scheduler(0)
    machine.quota_of = lambda submitter: Quota(tasks=10, bytes=1_000)
    file = FileRef(path="a", digest=Digest(b"a" * 32), size=600)
    twice = msgspec.structs.replace(file, path="b")
    first = msgspec.structs.replace(spec(8), files=(file, twice))
    assert machine.excess_of(ME, first) is None
    machine.handle(submitted(record(first)), NOW)
    assert machine.excess_of(ME, spec(2)) is None
    assert machine.excess_of(ME, spec(3)) == Excess(what="tasks", most=10, there=8, more=3)
    assert machine.excess_of(ALICE, spec(10)) is None
    more = msgspec.structs.replace(spec(1), files=(msgspec.structs.replace(file, size=401),))
    assert machine.excess_of(ME, more) == Excess(what="bytes", most=1_000, there=600, more=401)


def test_who_will_not_keep_a_job_says_so_and_does_not_look_again_at_once() -> None:
    machine = scheduler()
    machine.replicas.me = Replica(ME, b"mine")
    ballot = Ballot(1, Replica(ALICE, b"s"))
    membership = Membership(1, (ballot.replica, machine.replicas.me))
    beat = Accept(job=JOB, generation=1, ballot=ballot, membership=membership, sequence=0, beat=1)
    shown = RecordShown(job=JOB, digest=Digest(b"d" * 32), size=9)
    wanted = Send(peer=ALICE, message=RecordWanted(job=JOB))
    assert hear(machine, ALICE, beat) == [wanted]
    assert [type(one) for one in hear(machine, ALICE, shown)] == [FetchReplica]
    effects = machine.handle(ReplicaUnfetched(job=JOB, reason="x" * 900, refused=True), NOW)
    assert [type(one) for one in effects] == [Note, Send]
    assert effects[1] == Send(peer=ALICE, message=ReplicaRefused(job=JOB, reason="x" * 300))
    assert hear(machine, ALICE, beat, later(REFUSED_S - 1)) == []
    assert hear(machine, ALICE, beat, later(REFUSED_S)) == [wanted]
    # What merely failed is tried again at the next beat.
    hear(machine, ALICE, shown)
    machine.handle(ReplicaUnfetched(job=JOB, reason="no link"), later(REFUSED_S))
    assert hear(machine, ALICE, beat, later(REFUSED_S)) == [wanted]


def test_an_owner_knows_which_replicas_will_not_keep_its_job_until_they_do() -> None:
    world = World(4, [1, 1, 1], replicated=True, plan=lambda task, attempt, node: (90.0, True))
    world.run_for(0.5)
    job = world.submit(array(3))
    world.run_for(0.5)
    owner, other, _ = world.records[job].replicas
    at = world.nodes[owner].scheduler
    assert at is not None
    copy = at.replicas.copies[job]
    world.handle(owner, MessageReceived(peer=other, message=ReplicaRefused(job=job, reason="too much")))
    world.handle(owner, MessageReceived(peer=ALICE, message=ReplicaRefused(job=job, reason="a stranger")))
    assert copy.refused_by == {other: "too much"}
    world.handle(owner, MessageReceived(peer=other, message=ReplicaReady(job=job)))
    assert not copy.refused_by


def one_for_the_first(node: NodeId, submitter: NodeId) -> Quota:
    return Quota(slots=1) if submitter == FIRST else Quota()


def most_at_once(world: World, job: JobId, node: NodeId) -> int:
    """The most attempts of a job that a node ran at one time."""
    moves = [
        (at_s, step)
        for run in world.runs
        if run.job == job and run.node == node
        for at_s, step in ((run.started_s, 1), (run.ended_s, -1))
        if at_s is not None
    ]
    running = most = 0
    for _, step in sorted(moves):
        running += step
        most = max(most, running)
    return most

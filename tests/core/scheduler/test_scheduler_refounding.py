"""Jobs whose record is signed anew: given replicas as members came, or taken by force."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from fixtures import ALICE, BOB, JOB, ME, NOW, grant, hear, record, record_blob, scheduler, spec
from world import Node, World, array

from meshpeer.core.effects import Send, Table
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler import replicas
from meshpeer.core.scheduler.consensus.messages import Accept, Denied
from meshpeer.core.scheduler.consensus.values import Ballot, Membership, Replica
from meshpeer.core.scheduler.control_messages import PauseAsked, PriorityAsked
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    Attempt,
    Blob,
    Epoch,
    FetchJob,
    JobLearned,
    JobRefused,
    Lost,
    MessageReceived,
    Renew,
    StopAttempt,
)
from meshpeer.core.scheduler.refounding import is_outdated
from meshpeer.core.scheduler.replica_messages import FetchReplica, Owns, ReplicaUnfetched
from meshpeer.core.scheduler.tables import TaskState

# --- replicas for a job that was submitted alone ---------------------------------------------------------


def test_a_job_that_was_submitted_alone_has_replicas_once_members_come_and_outlives_its_submitter() -> None:
    world = alone(lambda task, attempt, node: (2.0, True))
    job = world.submit(array(160))
    world.run_for(5.0)
    done = world.owner(job).counts[TaskState.SUCCEEDED]
    assert done
    assert world.records[job].replicas == (world.names[0],)

    join(world)
    at = world.nodes[world.names[0]].scheduler
    assert at is not None
    world.run_until(lambda: at.replicas.durability(job, world.now) == "replicated", 40.0)
    world.run_until(lambda: all(job in copies(world, name) for name in world.records[job].replicas), 10.0)
    world.run_for(1.0)
    assert len(world.records[job].replicas) == 3
    assert at.owned[job].counts[TaskState.SUCCEEDED] >= done
    assert not world.nodes[world.names[0]].journal[Table.TASKS], "registers alone say what is committed"
    started = len(world.runs)
    assert all(run.ended_s or run in running(world) for run in world.runs), "what ran goes on"
    world.crash(world.names[0])
    world.bury(world.names[0])
    world.run_until(lambda: world.finished(job), 200.0)

    assert world.owner(job).counts[TaskState.SUCCEEDED] == 160
    assert world.owner(job).epoch.node != world.names[0]
    # Only what the lost node ran or held outputs of is run again.
    assert len(world.runs) - started <= 160 - done
    world.check()


def test_what_people_said_of_a_job_stays_when_it_gets_replicas() -> None:
    world = alone(lambda task, attempt, node: (0.2, task % 7 != 3))
    job = world.submit(array(20, retries=1))
    world.run_for(1.0)
    here = world.names[0]
    world.handle(here, PriorityAsked(job=job, priority=7))
    world.handle(here, PauseAsked(job=job, paused=True))
    world.run_for(1.0)
    before = world.owner(job)
    tries = [before.book.tries_of(TaskIndex(task)) for task in range(20)]
    join(world)
    world.run_until(lambda: len(world.records[job].replicas) == 3, 40.0)
    world.run_for(3.0)
    owner = world.owner(job)
    assert owner is not before
    assert (owner.priority, owner.paused) == (7, True)
    assert [owner.book.tries_of(TaskIndex(task)) for task in range(20)] == tries
    world.handle(here, PauseAsked(job=job, paused=False))
    world.run_until(lambda: world.finished(job), 60.0)
    assert owner.counts[TaskState.SUCCEEDED] + owner.counts[TaskState.FAILED] == 20


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.004, 0.02, 0.2])
def test_a_crash_while_a_job_gets_replicas_loses_no_result(after_s: float) -> None:
    world = alone(lambda task, attempt, node: (2.0, True))
    job = world.submit(array(160))
    world.run_for(4.0)
    join(world)
    world.run_until(lambda: len(world.records[job].replicas) == 3, 40.0)
    world.run_for(after_s)
    here = world.names[0]
    committed = {key: row for key, row in world.committed.items() if key[0] == job}
    world.crash(here)
    world.run_for(0.5)
    world.start(here)
    world.run_until(lambda: world.finished(job), 100.0)
    owner = world.owner(job)
    assert owner.counts[TaskState.SUCCEEDED] == 160
    for (_, task, number), row in committed.items():
        assert owner.results[TaskIndex(task)] == row or owner.book.round_of(TaskIndex(task)) > number
    world.check()


def test_a_worker_takes_another_record_of_a_job_from_its_owner_if_only_the_replicas_differ() -> None:
    machine = scheduler()
    first = record(spec(4), submitter=ALICE)
    hear(machine, ALICE, grant(first, 0, 1, 2))
    machine.handle(JobLearned(job=JOB, record=first), NOW)
    second = msgspec.structs.replace(first, replicas=(ALICE, BOB, ME))
    effects = hear(machine, ALICE, grant(second, 3))
    assert [one for one in effects if isinstance(one, FetchJob)] == [
        FetchJob(job=JOB, record=record_blob(second), holders=(ALICE,))
    ]
    known = machine.worker._jobs[JOB]
    forged = msgspec.structs.replace(second, spec=spec(9))
    machine.handle(JobLearned(job=JOB, record=forged), NOW)
    assert known.record == first
    machine.handle(JobLearned(job=JOB, record=second), NOW)
    assert known.record == second
    assert known.possible_owners == (ALICE, ALICE, BOB, ME)
    assert machine.worker.has(JOB, Attempt(3, 1, 1))
    machine.check()


@pytest.mark.parametrize("shown", ["by the owner that grew", "by the next owner alone"])
def test_workers_that_have_all_of_a_job_before_it_grows_follow_its_next_owner(shown: str) -> None:
    world = alone(lambda task, attempt, node: (60.0, True))
    job = world.submit(array(4))
    world.run_for(2.0)
    here, worker = world.names[:2]
    join(world)
    world.run_until(lambda: len(world.records[job].replicas) == 3, 40.0)
    if shown == "by the next owner alone":
        world.partition(here, worker)
    others = [name for name in world.records[job].replicas if name != worker]
    world.run_until(lambda: all(job in copies(world, name) for name in others), 10.0)
    world.run_for(3.0)
    known = at(world, worker).worker._jobs[job]
    assert (known.record == world.records[job]) == (shown == "by the owner that grew")
    world.crash(here)
    world.bury(here)
    world.run_until(lambda: world.finished(job), 300.0)

    owner = world.owner(job)
    assert owner.epoch.node != here
    assert owner.counts[TaskState.SUCCEEDED] == 4
    assert len(world.runs) <= 6, "what the worker ran goes on under the next owner"
    assert at(world, worker).worker.unacknowledged == 0
    world.check()


def test_a_record_that_could_not_be_had_is_asked_for_again_at_the_owners_next_word() -> None:
    machine, first, second = with_record()
    fetch = FetchJob(job=JOB, record=record_blob(second), holders=(ALICE,))
    assert fetch in hear(machine, ALICE, owns(second, ALICE, 2))
    assert fetch not in hear(machine, ALICE, owns(second, ALICE, 2)), "it is on its way"
    machine.handle(JobRefused(job=JOB, reason="no link", blob=record_blob(second)), NOW)
    known = machine.worker._jobs[JOB]
    assert (known.record, known.held) == (first, 2)
    assert fetch in hear(machine, ALICE, owns(second, ALICE, 2))
    machine.handle(JobLearned(job=JOB, record=second, blob=record_blob(second)), NOW)
    assert known.record == second
    assert not [one for one in hear(machine, ALICE, owns(second, ALICE, 2)) if isinstance(one, FetchJob)]
    assert not [one for one in hear(machine, ALICE, grant(second, 2)) if isinstance(one, FetchJob)]
    machine.check()


def test_who_owns_a_job_by_a_record_that_a_worker_lacks_shows_it_and_is_believed_by_that_alone() -> None:
    machine, _, second = with_record()
    stranger = NodeId(b"x" * 32)
    usurper = msgspec.structs.replace(second, submitter=stranger, replicas=(stranger, ALICE))
    known = machine.worker._jobs[JOB]
    for peer, shown in ((stranger, usurper), (stranger, second), (BOB, second)):
        blob = record_blob(shown)
        effects = hear(machine, peer, grant(shown, 0, epoch=Epoch(2, peer)))
        assert FetchJob(job=JOB, record=blob, holders=(peer,)) in effects
        lost = [one for one in effects if isinstance(one, Send) and isinstance(one.message, Lost)]
        assert [one.peer for one in lost] == [peer], "it is asked again, and no lease runs out"
        assert known.fence == (1, Epoch(1, ALICE))
        effects = machine.handle(JobLearned(job=JOB, record=shown, blob=blob), NOW)
        told = [
            (one.peer, len(one.message.jobs[0].open))
            for one in effects
            if isinstance(one, Send) and isinstance(one.message, Renew)
        ]
        assert told == ([(BOB, 2)] if peer == BOB else [])
    assert known.record == second
    assert known.fence == (1, Epoch(2, BOB))
    machine.check()


@pytest.mark.parametrize("answer", ["the old one comes late", "the old one is gone", "refused before"])
def test_what_is_granted_by_a_new_record_while_the_old_one_is_fetched_waits_for_the_new_one(
    answer: str,
) -> None:
    machine = scheduler(slots=3)
    first = record(spec(4), submitter=ALICE)
    second = msgspec.structs.replace(first, replicas=(ALICE, BOB, ME))
    hear(machine, ALICE, grant(first, 0))
    gone = JobRefused(job=JOB, reason="no link", blob=record_blob(first))
    if answer == "refused before":
        machine.handle(gone, NOW)
    effects = hear(machine, ALICE, grant(second, 1, 2))
    assert FetchJob(job=JOB, record=record_blob(second), holders=(ALICE,)) in effects
    if answer == "the old one is gone":
        assert machine.handle(gone, NOW) == []
    machine.handle(JobLearned(job=JOB, record=second, blob=record_blob(second)), NOW)
    if answer == "the old one comes late":
        assert machine.handle(JobLearned(job=JOB, record=first, blob=record_blob(first)), NOW) == []
    assert machine.worker._jobs[JOB].record == second
    assert machine.worker.active == (2 if answer == "refused before" else 3)
    machine.check()


def test_what_a_stranger_shows_never_keeps_the_owners_record_away() -> None:
    machine, first, second = with_record()
    hear(machine, BOB, grant(msgspec.structs.replace(first, replicas=(BOB,)), 0, epoch=Epoch(2, BOB)))
    assert [one for one in hear(machine, ALICE, grant(second, 2)) if isinstance(one, FetchJob)]
    machine.handle(JobRefused(job=JOB, reason="no link", blob=Blob(Digest(b"other"), 5)), NOW)
    machine.handle(JobLearned(job=JOB, record=second, blob=record_blob(second)), NOW)
    assert machine.worker._jobs[JOB].record == second
    assert machine.worker.has(JOB, Attempt(2, 1, 1))
    machine.check()


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("how", ["refused", "silent"])
def test_a_job_goes_on_with_one_replica_where_the_others_will_not_keep_it(
    how: str, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "GROW_AGAIN_S", 60.0)
    world = alone(lambda task, attempt, node: (1.0, True))
    job = world.submit(array(1_600))
    world.run_for(5.0)
    here = world.names[0]

    def unfetched(node: Node, effect: FetchReplica) -> Callable[[], None]:
        event = ReplicaUnfetched(job=effect.job, reason="100 open tasks", refused=how == "refused")
        return lambda: world.handle(node.name, event)

    with monkeypatch.context() as patch:
        patch.setattr(world, "_fetched_replica", unfetched)
        join(world)
        world.run_until(lambda: len(world.records[job].replicas) == 3, 40.0)
        done = world.owner(job).counts[TaskState.SUCCEEDED]
        world.run_for(150.0 if how == "silent" else 20.0)
        assert at(world, here).replicas.durability(job, world.now) == "this_node"
        world.run_for(20.0)
        assert world.owner(job).counts[TaskState.SUCCEEDED] >= done + 100, "as fast as before"
        if dies:
            world.crash(here)
            world.run_for(20.0)
            assert not world.owners(job), "nobody else owns it"
            world.start(here)
            world.run_for(20.0)
            assert world.owner(job).epoch.node == here
    # There is room by now: the others are asked again, and the job outlives its submitter after that.
    leader = at(world, here).replicas.copies[job].leader
    assert leader is not None
    world.run_until(lambda: len(leader.membership.members) == 3 and not leader.is_changing, 120.0)
    world.run_for(2.0)
    assert not world.finished(job)
    world.crash(here)
    world.bury(here)
    world.run_until(lambda: world.finished(job), 500.0)
    assert world.owner(job).epoch.node != here
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 1_600
    world.check()


# --- taken by force ----------------------------------------------------------------------------------------


def test_a_job_whose_quorum_is_gone_is_taken_by_force_and_begins_with_what_its_taker_has() -> None:
    world, job, taker = without_quorum()
    had = {task for task, row in seen(world, taker, job).results.items() if row.state == "succeeded"}
    assert had
    world.run_for(30.0)
    at = world.nodes[taker].scheduler
    assert at is not None
    assert at.replicas.durability(job, world.now) == "blocked"
    runs = len(world.runs)

    take(world, job, taker)
    world.run_until(lambda: world.finished(job), 100.0)

    owner = world.owner(job)
    assert (owner.epoch.node, owner.record.generation) == (taker, 2)
    assert owner.counts[TaskState.SUCCEEDED] == 40
    attempts = [(run.attempt, run.node) for run in world.runs]
    assert len(set(attempts)) == len(attempts), "none has the name of one that a worker may be ending"
    again = {run.attempt.task for run in world.runs[runs:]}
    lost = {task for task in had if owner.results[task].round > 1}
    assert not (again & had) - lost, "what it had is not run again, but for outputs that are gone"
    world.check()


def test_old_owners_that_come_back_after_all_drop_what_they_have() -> None:
    world, job, taker = without_quorum()
    world.run_for(20.0)
    take(world, job, taker)
    world.run_for(5.0)
    gone = [name for name in world.names if not world.nodes[name].up]
    for name in gone:
        world.start(name)
    world.run_until(lambda: world.finished(job), 100.0)
    world.run_for(5.0)
    assert [one.record.generation for one in world.owners(job)] == [2]
    for name in world.names:
        for copy in (copies(world, name)[job],) if job in copies(world, name) else ():
            assert copy.record.generation == 2
            assert copy.acceptor.vote.generation == 2
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 40
    world.check()


def test_a_job_that_is_taken_where_nobody_else_is_left_goes_on_with_one_replica() -> None:
    world = World(6, [2, 2, 2], replicated=True, plan=lambda task, attempt, node: (0.5, True))
    world.run_for(0.5)
    job = world.submit(array(30))
    world.run_for(2.0)
    taker, *others = reversed(world.records[job].replicas)
    for name in others:
        world.crash(name)
        world.bury(name)
    world.run_for(20.0)
    take(world, job, taker)
    assert world.records[job].replicas == (taker,)
    world.run_for(2.0)
    world.crash(taker)
    world.start(taker)
    world.run_until(lambda: world.finished(job), 100.0)
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 30
    assert not copies(world, taker)
    assert not world.nodes[taker].journal[Table.REPLICAS]


def test_workers_end_what_they_run_of_a_generation_that_is_over() -> None:
    machine = scheduler()
    first = record(spec(4), submitter=ALICE)
    first = msgspec.structs.replace(first, replicas=(ALICE, BOB))
    hear(machine, ALICE, grant(first, 0, 1))
    machine.handle(JobLearned(job=JOB, record=first), NOW)
    second = msgspec.structs.replace(first, generation=2, submitter=BOB, replicas=(BOB,))
    effects = hear(machine, BOB, grant(second, 0))
    assert {one.attempt.task for one in effects if isinstance(one, StopAttempt)} == {0, 1}
    machine.handle(JobLearned(job=JOB, record=second), NOW)
    assert machine.worker.active == 1
    assert hear(machine, ALICE, grant(first, 2)) == []


@pytest.mark.parametrize("shown", [True, False])
def test_a_worker_that_got_nothing_of_a_job_since_it_was_taken_by_force_believes_its_later_owners(
    shown: bool,
) -> None:
    carol = NodeId(b"c" * 32)
    machine = scheduler()
    first = msgspec.structs.replace(record(spec(4), submitter=ALICE), replicas=(ALICE, BOB))
    hear(machine, ALICE, grant(first, 0, 1))
    machine.handle(JobLearned(job=JOB, record=first, blob=record_blob(first)), NOW)
    second = msgspec.structs.replace(first, generation=2, submitter=BOB, replicas=(BOB, carol, ME))
    blob = record_blob(second)
    word = owns(second, BOB, 7)
    if shown:
        assert FetchJob(job=JOB, record=blob, holders=(BOB,)) in hear(machine, BOB, word)
        machine.handle(JobLearned(job=JOB, record=second, blob=blob), NOW)
    else:
        hear(machine, BOB, msgspec.structs.replace(word, digest=Digest(b""), size=0))
        hear(machine, carol, grant(second, 2, epoch=Epoch(6, carol)))
        assert not machine.worker.has(JOB, Attempt(2, 1, 1)), "the fence stands"
    effects = hear(machine, carol, grant(second, 2, epoch=Epoch(9, carol)))
    assert not [one for one in effects if isinstance(one, Send) and isinstance(one.message, Lost)]
    machine.handle(JobLearned(job=JOB, record=second, blob=blob), NOW)
    assert machine.worker.has(JOB, Attempt(2, 1, 1))
    assert machine.worker.active == 1
    machine.check()


def test_only_who_may_own_a_job_takes_it_by_force() -> None:
    world, job, taker = without_quorum()
    copy = copies(world, taker)[job]
    stranger = Replica(ALICE, b"s")
    ballot = Ballot(9, stranger)
    accept = Accept(
        job=job, generation=2, ballot=ballot, membership=Membership(1, (stranger,)), sequence=0, beat=1
    )
    denied = Denied(job=job, generation=1, ballot=ballot, promised=ballot, promised_generation=2)
    assert not is_outdated(copy, ALICE, accept)
    assert not is_outdated(copy, ALICE, denied)
    assert is_outdated(copy, copy.names[0], accept)
    assert is_outdated(copy, copy.names[0], denied)
    assert not is_outdated(copy, copy.names[0], msgspec.structs.replace(accept, generation=1))
    for message in (accept, denied):
        world.handle(taker, MessageReceived(peer=ALICE, message=message))
    assert copies(world, taker)[job] is copy


# --- helpers -----------------------------------------------------------------------------------------------


def with_record() -> tuple[Scheduler, JobRecord, JobRecord]:
    """A worker with two attempts of a job, the record that it knows, and the next one."""
    machine = scheduler()
    first = record(spec(4), submitter=ALICE)
    hear(machine, ALICE, grant(first, 0, 1))
    machine.handle(JobLearned(job=JOB, record=first, blob=record_blob(first)), NOW)
    return machine, first, msgspec.structs.replace(first, replicas=(ALICE, BOB, ME))


def owns(of: JobRecord, node: NodeId, counter: int) -> Owns:
    blob = record_blob(of)
    ballot = Ballot(counter, Replica(node, b"s"))
    return Owns(job=JOB, generation=of.generation, ballot=ballot, digest=blob.digest, size=blob.size)


def at(world: World, name: NodeId) -> Scheduler:
    scheduler = world.nodes[name].scheduler
    assert scheduler is not None
    return scheduler


def alone(plan: object) -> World:
    """A mesh in which the first two nodes alone are there yet."""
    world = World(3, [2, 2, 2, 2], replicated=True, plan=plan)  # type: ignore[arg-type]
    for name in world.names[2:]:
        world.crash(name)
    world.run_for(0.5)
    return world


def join(world: World) -> None:
    for name in world.names[2:]:
        world.start(name)


def without_quorum() -> tuple[World, JobId, NodeId]:
    """A job of which two replicas of three are gone for good, and the third one, which is up."""
    world = World(5, [2, 2, 2, 2, 2], replicated=True, plan=lambda task, attempt, node: (0.5, True))
    world.run_for(0.5)
    job = world.submit(array(40))
    world.run_for(2.0)
    taker = world.records[job].replicas[2]
    for name in world.records[job].replicas[:2]:
        world.crash(name)
        world.bury(name)
    world.run_for(0.5)
    return world, job, taker


def take(world: World, job: JobId, taker: NodeId) -> None:
    at = world.nodes[taker].scheduler
    assert at is not None
    old: JobRecord = at.replicas.copies[job].record
    record = msgspec.structs.replace(
        old, generation=old.generation + 1, submitter=taker, replicas=at.choose_replicas(job)
    )
    world.sign_anew(taker, record)


def copies(world: World, name: NodeId) -> dict[JobId, object]:
    at = world.nodes[name].scheduler
    return dict(at.replicas.copies) if at is not None else {}


def seen(world: World, name: NodeId, job: JobId):  # type: ignore[no-untyped-def]
    at = world.nodes[name].scheduler
    assert at is not None
    return at.seen(job)


def running(world: World) -> list[object]:
    return [run for node in world.nodes.values() for run in node.running.values()]

"""Replicas where something goes wrong: long lines, lost writes, unasked records, replicas without a voice."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from world import World

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Persist, Send, Table
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex
from meshpeer.core.jobs.model import Array, JobSpec, TaskSpec
from meshpeer.core.scheduler import machine
from meshpeer.core.scheduler.consensus import acceptor
from meshpeer.core.scheduler.consensus.leader import Leader
from meshpeer.core.scheduler.consensus.messages import (
    FIRST,
    Accept,
    Accepted,
    Elected,
    Promise,
    Say,
)
from meshpeer.core.scheduler.consensus.values import Ballot, Membership, Replica, Row, Written
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import CancelAsked, JobSubmitted, MessageReceived, Unknown
from meshpeer.core.scheduler.quotas import Quota, excess_of
from meshpeer.core.scheduler.replica_messages import FetchReplica, RecordShown, ReplicaFetched
from meshpeer.core.scheduler.replica_rows import JOB_TASK, WORKER_TASK, check_rows
from meshpeer.core.scheduler.replicas import REPLACE_S, WANTED_MAX, Copy
from meshpeer.core.scheduler.rows import TaskRow, put_task
from meshpeer.core.scheduler.tables import TaskState
from meshpeer.core.wire import cbor


def test_a_takeover_knows_the_workers_and_stops_no_running_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    elected: list[Elected] = []
    real = machine.Scheduler._take_over

    def spy(self: Scheduler, copy: Copy, news: Elected, now: Instant) -> object:
        elected.append(news)
        return real(self, copy, news, now)

    monkeypatch.setattr(machine.Scheduler, "_take_over", spy)
    world = World(2, [1, 1, 1, 4, 4], replicated=True, plan=lambda task, attempt, node: (8.0, True))
    world.run_for(1.0)
    job = world.submit(tasks(11))
    world.run_for(3.0)
    holders = {run.node for run in world.runs}
    gone = world.names[0]

    world.crash(gone)
    world.run_until(lambda: bool(world.owners(job)), 20.0)
    world.bury(gone)
    world.run_until(lambda: world.finished(job), 100.0)

    assert {one.value for one in elected[-1].rows if one.task == WORKER_TASK} >= holders - {gone}
    # Only what the dead node itself ran is run again.
    assert all(run.ended_s is not None for run in world.runs if run.node != gone)
    assert sum(run.ended_s is not None for run in world.runs) == 11


def test_no_register_comes_before_the_first_page() -> None:
    assert (WORKER_TASK, 0) >= FIRST
    assert (JOB_TASK, 0) >= FIRST


def test_a_large_job_is_taken_over_across_a_long_line(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(
        7,
        [4, 4, 4, 4],
        replicated=True,
        latency_s=(0.05, 0.052),
        plan=lambda task, attempt, node: (0.01 if task < 78 else 900.0, True),
    )
    world.run_for(1.0)
    job = world.submit(tasks(80))
    world.run_until(lambda: world.owner(job).counts[TaskState.SUCCEEDED] == 78, 60.0)
    world.run_for(3.0)
    # Each page takes 100 ms, and there are more of them than a candidate waits for one.
    monkeypatch.setattr(acceptor, "PAGE_BYTES_MAX", 300)
    owner, *others = world.records[job].replicas
    counter = replica(world, others[0], job).acceptor.vote.promised.counter

    world.crash(owner)
    world.bury(owner)
    took_s = world.run_until(lambda: bool(world.owners(job)), 40.0)

    assert took_s > 8.0
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 78
    assert world.owner(job).epoch.counter == counter + 1


def test_an_owner_that_leads_no_more_writes_nothing_and_says_nothing_of_it() -> None:
    world = World(4, [2, 2, 2], replicated=True, plan=lambda task, attempt, node: (9.0, True))
    world.run_for(0.5)
    job = world.submit(tasks(4))
    world.run_for(1.0)
    here = scheduler(world, world.names[0])
    row = here.owned[job].book.open_row(TaskIndex(0), here.me)
    lost = Persist(ticket=10**6, changes=(put_task(job, TaskIndex(0), row),))  # type: ignore[arg-type]
    word = Send(peer=world.names[1], message=Unknown(job=job), after=lost.ticket)
    copy = here.replicas.copies[job]
    copy.leader = None

    assert here.replicas.translate([lost, word], world.now) == [Persist(ticket=lost.ticket, changes=())]


def test_what_rests_on_a_write_that_was_under_way_is_not_said_by_who_was_deposed() -> None:
    world = World(4, [2, 2, 2], replicated=True, plan=lambda task, attempt, node: (9.0, True))
    world.run_for(0.5)
    job = world.submit(tasks(4))
    world.run_for(1.0)
    cut_off, *others = world.names
    for other in others:
        world.partition(cut_off, other)
    here = scheduler(world, cut_off)
    world.handle(cut_off, CancelAsked(job=job))
    ticket = here.owned[job].last_ticket
    assert ticket is not None
    assert not here.replicas.is_settled(ticket)
    copy = here.replicas.copies[job]
    assert copy.leader is not None
    higher = Ballot(9, Replica(others[0], b"store"))
    here.replicas._perform(copy, copy.leader.give_way(higher), world.now)
    word = Send(peer=others[0], message=Unknown(job=job), after=ticket)

    assert here.replicas.translate([word], world.now) == []


def test_a_linked_replica_that_does_not_vote_is_not_replaced_by_itself() -> None:
    world = World(2, [1, 1, 1, 1, 1], replicated=True, plan=lambda task, attempt, node: (3_000.0, True))
    world.run_for(1.0)
    job = world.submit(tasks(20))
    world.run_for(1.0)
    owner, silent, *_ = world.records[job].replicas
    mute = scheduler(world, silent).replicas
    del mute.copies[job], mute._active[job]
    mute._fetch = lambda *words: []  # type: ignore[method-assign]

    world.run_for(REPLACE_S + 20.0)

    leader = replica(world, owner, job).leader
    assert leader is not None
    assert leader.membership.number == 3
    assert all(one.node != silent for one in leader.membership.members)


def test_one_that_does_not_vote_stays_where_nobody_can_take_its_place() -> None:
    world = World(2, [1, 1, 1], replicated=True, plan=lambda task, attempt, node: (3_000.0, True))
    world.run_for(1.0)
    job = world.submit(tasks(20))
    world.run_for(1.0)
    owner, silent, _ = world.records[job].replicas
    mute = scheduler(world, silent).replicas
    del mute.copies[job], mute._active[job]
    mute._fetch = lambda *words: []  # type: ignore[method-assign]
    leader = replica(world, owner, job).leader
    assert leader is not None
    before = leader.sequence

    world.run_for(REPLACE_S + 10.0)

    assert (leader.membership.number, leader.sequence) == (1, before)


def test_a_replaced_replica_that_comes_back_forgets_a_job_that_is_over() -> None:
    world = World(3, [2, 2, 2, 2], replicated=True, plan=lambda task, attempt, node: (30.0, True))
    world.run_for(0.5)
    job = world.submit(tasks(60))
    world.run_for(2.0)
    former = world.records[job].replicas[2]
    world.crash(former)
    world.run_for(200.0)
    assert former not in members(world, job)
    world.start(former)
    world.run_for(20.0)
    assert job in scheduler(world, former).replicas.copies, "as long as it is open nobody says anything"
    world.run_until(lambda: world.finished(job), 2_000.0)
    world.run_for(10.0)
    assert job not in scheduler(world, former).replicas.copies
    assert world.forgotten == [(former, job)]
    asked = world.messages["job.prepare"]
    world.run_for(60.0)
    assert world.messages["job.prepare"] == asked
    assert all(job in scheduler(world, name).replicas.copies for name in members(world, job))
    world.check()


def test_a_job_that_others_keep_by_now_counts_against_no_quota_of_who_knows_that() -> None:
    world = World(3, [2, 2, 2, 2], replicated=True, plan=lambda task, attempt, node: (30.0, True))
    world.run_for(0.5)
    job = world.submit(tasks(60))
    world.run_for(2.0)
    owner, _, former = world.records[job].replicas
    for name in world.names:
        if name != former:
            world.partition(name, former)
    world.run_until(lambda: former not in members(world, job), 300.0)
    at = scheduler(world, former)
    leader = scheduler(world, owner).replicas.copies[job].leader
    assert leader is not None

    def excess() -> object:
        return excess_of(owner, tasks(1), Quota(tasks=10), at.owned, at.replicas.copies)

    assert excess() is not None
    ballot = Ballot(10**6, leader.ballot.replica)
    accept = Accept(job=job, generation=1, ballot=ballot, membership=leader.membership, sequence=0, beat=1)
    world.handle(former, MessageReceived(peer=owner, message=accept))
    assert excess() is None


def test_a_record_that_nobody_asked_for_is_not_fetched() -> None:
    world = World(2, [1, 1, 1, 1], replicated=True)
    world.run_for(0.5)
    here = scheduler(world, world.names[1])
    shown = RecordShown(job=JobId("junasked"), digest=Digest(b"d" * 32), size=100)

    effects = here.handle(MessageReceived(peer=world.names[0], message=shown), world.now)

    assert [one for one in effects if isinstance(one, FetchReplica)] == []


def test_records_asked_for_are_remembered_up_to_a_bound_and_for_one_answer() -> None:
    world = World(2, [1, 1, 1, 1], replicated=True)
    world.run_for(0.5)
    here, peer = scheduler(world, world.names[1]).replicas, world.names[0]
    for number in range(WANTED_MAX + 1):
        here._want(peer, JobId(f"j{number}"), world.now)
    first, last = (
        RecordShown(job=JobId(f"j{number}"), digest=Digest(b"d" * 32), size=100) for number in (0, WANTED_MAX)
    )

    assert here._fetch(peer, first, None) == []
    assert here._fetch(world.names[2], last, None) == []
    assert len(here._fetch(peer, last, None)) == 1
    here._fetching.clear()
    assert here._fetch(peer, last, None) == []


def test_a_record_of_others_is_not_kept() -> None:
    world = World(2, [1, 1, 1, 1, 1], replicated=True, plan=lambda task, attempt, node: (99.0, True))
    world.run_for(0.5)
    job = world.submit(tasks(2))
    world.run_for(0.5)
    record = world.records[job]
    stranger, liar = (name for name in world.names if name not in record.replicas)
    here = scheduler(world, stranger)
    for asked, holder in ((liar, liar), (None, record.submitter)):
        if asked is not None:
            here.replicas._fetching[job] = asked
        event = ReplicaFetched(
            record=record, signed=cbor.encode(record), digest=Digest(b"d" * 32), holder=holder
        )
        effects = here.handle(event, world.now)
        assert job not in here.replicas.copies
        assert [one for one in effects if isinstance(one, Persist)] == []


def test_a_row_of_a_state_that_no_row_has_is_an_offence() -> None:
    world = World(4, [2, 2, 2], replicated=True, plan=lambda task, attempt, node: (9.0, True))
    world.run_for(0.5)
    job = world.submit(tasks(4))
    world.run_for(0.5)
    row = world.owner(job).book.open_row(TaskIndex(0), world.names[0])

    for state in ("ready", "succeeded", "failed", "skipped", "cancelled"):
        check_rows(world.records[job], [register(msgspec.structs.replace(row, state=state))])
    for state in ("leased", "waiting", "", "gone"):
        with pytest.raises(PeerFault):
            check_rows(world.records[job], [register(msgspec.structs.replace(row, state=state))])


def test_an_end_is_told_once_a_quorum_has_it_and_not_by_who_gave_way() -> None:
    world = World(4, [2, 2, 2, 2], replicated=True, plan=lambda task, attempt, node: (2.0, True))
    world.run_for(0.5)
    job = world.submit(msgspec.structs.replace(tasks(8), on_complete="https://x.example/y"))
    world.run_for(1.0)
    cut_off, *others = world.names
    for other in others:
        world.partition(cut_off, other)
    here = scheduler(world, cut_off)

    world.handle(cut_off, CancelAsked(job=job))
    assert here.owned[job].finished
    world.run_for(12.0)
    assert here.outbox.of(job) == ()
    for other in others:
        world.heal(cut_off, other)
    world.run_until(lambda: world.finished(job) and job not in here.owned, 60.0)
    world.run_for(1.0)

    assert here.outbox.of(job) == ()
    assert not here.outbox.has_news
    told = [one for name in others for one in scheduler(world, name).outbox.of(job)]
    assert [one.event for one in told] == ["on_complete"]
    assert b'"succeeded"' in told[0].body


def test_an_end_with_replicas_is_told() -> None:
    world = World(4, [2, 2, 2], replicated=True)
    world.run_for(0.5)
    job = world.submit(msgspec.structs.replace(tasks(8), on_complete="https://x.example/y"))
    world.run_until(lambda: world.finished(job))
    here = scheduler(world, world.names[0])
    assert here.outbox.of(job) == ()
    world.run_for(1.0)
    assert len(here.outbox.of(job)) == 1


def test_a_founded_job_has_its_vote_in_the_write_of_its_record() -> None:
    """A crash right after it leaves a replica that leads on, not one that waits for ever."""
    world = World(4, [2, 2, 2], replicated=True)
    world.run_for(0.5)
    here = world.names[0]
    job = world.submit(tasks(8))
    while job not in world.nodes[here].journal[Table.JOBS]:
        world.step()
    assert f"vote/{job}" in world.nodes[here].journal[Table.REPLICAS]

    world.crash(here)
    world.start(here)
    world.run_until(lambda: world.finished(job), 60.0)

    assert world.owner(job).counts[TaskState.SUCCEEDED] == 8


def test_a_record_without_a_vote_is_dropped_at_its_submitter_and_can_be_submitted_again() -> None:
    world = World(4, [2, 2, 2], replicated=True)
    world.run_for(0.5)
    here = world.names[0]
    job = world.submit(tasks(8))
    while job not in world.nodes[here].journal[Table.JOBS]:
        world.step()
    for name in world.names:
        world.crash(name)
    world.nodes[here].journal[Table.REPLICAS].clear()
    for name in world.names:
        world.start(name)
    world.run_for(1.0)
    assert job not in scheduler(world, here).replicas.copies
    assert job not in world.nodes[here].journal[Table.JOBS]

    signed = cbor.encode(world.records[job])
    world.handle(here, JobSubmitted(record=world.records[job], signed=signed, digest=Digest(b"d" * 32)))
    world.run_until(lambda: world.finished(job), 60.0)
    assert world.owner(job).counts[TaskState.SUCCEEDED] == 8


def test_a_fresh_replica_gets_what_earlier_ballots_wrote_in_later_batches() -> None:
    one, two, three = members = tuple(Replica(world_node, b"store") for world_node in World(1, [1] * 3).names)
    membership, old = Membership(1, members), Ballot(1, one)
    ballot = Ballot(2, two)
    leader = Leader(job=JobId("j"), generation=1, ballot=ballot, membership=membership, told_by=old)
    leader.start()
    rows = (Written(0, 1, True, b"done", old, 50),)
    for voter in (two, one):
        promise = Promise(
            job=JobId("j"),
            generation=1,
            ballot=ballot,
            replica=voter,
            membership=membership,
            told_by=old,
            start=FIRST,
            rows=rows,
            next=None,
        )
        leader.on_promise(voter.node, promise, 0.0)
    assert leader.is_leading

    written = accepts(leader.admit(three.node), three)
    assert [row.key for accept in written for row in accept.rows] == [(0, 1)]

    # The same after a batch of its own.
    for voter in (two, one):
        for number in range(1, leader.sequence + 1):
            leader.on_accepted(voter.node, accepted(ballot, voter, number))
    leader.propose([Row(1, 1, True, b"new")])
    written = accepts(leader.admit(three.node), three)
    assert {row.key for accept in written for row in accept.rows} == {(0, 1), (1, 1)}


# --- helpers ------------------------------------------------------------------------------------------------


def tasks(count: int) -> JobSpec:
    return JobSpec(name="job", tasks=(TaskSpec(name="t", argv=("true",), array=Array(size=count)),))


def scheduler(world: World, name: NodeId) -> Scheduler:
    found = world.nodes[name].scheduler
    assert found is not None
    return found


def members(world: World, job: JobId) -> list[NodeId]:
    """Returns the nodes whose replicas vote, as the one that it was submitted at has it."""
    copy = replica(world, world.records[job].submitter, job)
    return [one.node for one in copy.acceptor.vote.membership.everybody]


def replica(world: World, name: NodeId, job: JobId) -> Copy:
    return scheduler(world, name).replicas.copies[job]


def register(row: TaskRow) -> Row:
    return Row(0, row.round, row.state != "ready", cbor.encode(row))


def accepts(effects: Sequence[object], to: Replica) -> list[Accept]:
    said = [one for one in effects if isinstance(one, Say) and one.to == to.node]
    return [one.message for one in said if isinstance(one.message, Accept)]


def accepted(ballot: Ballot, voter: Replica, sequence: int) -> Accepted:
    return Accepted(
        job=JobId("j"),
        generation=1,
        ballot=ballot,
        replica=voter,
        sequence=sequence,
        beat=1,
        membership=1,
    )

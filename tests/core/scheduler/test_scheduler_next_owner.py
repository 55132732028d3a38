"""Workers and the next owner of a job: who is believed, what is said to it once, and what is deleted; and
what waits behind something that never ends."""

from __future__ import annotations

import pytest
from fixtures import ALICE, BOB, JOB, ME, NOW, grant, hear, later, record, result, scheduler, spec, submitted
from world import World, array

from meshpeer.core.effects import Delete, Persist, Send, Table, Tick
from meshpeer.core.ids import NodeId
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.consensus.values import Ballot, Replica, Written
from meshpeer.core.scheduler.control_messages import DrainAsked
from meshpeer.core.scheduler.fitting import Profile
from meshpeer.core.scheduler.holdings import Holding, Known
from meshpeer.core.scheduler.messages import (
    Ack,
    Attempt,
    AttemptFinished,
    Epoch,
    Granted,
    JobLearned,
    Offer,
    PeerUp,
    Renew,
    StealRequest,
    StopAttempt,
    Unknown,
)
from meshpeer.core.scheduler.replica_messages import Owns
from meshpeer.core.scheduler.replica_rows import WORKER_TASK, registers_of, takeover_of
from meshpeer.core.scheduler.rows import ResultRow, put_seat
from meshpeer.core.scheduler.spoils import Appetite

THEIRS = JobRecord(job=JOB, submitter=ALICE, submitted_at_us=1, spec=spec(8), replicas=(ALICE, BOB))
STRANGER = NodeId(bytes([9]) * 32)
FIRST, NEXT = Epoch(1, ALICE), Epoch(2, BOB)


def owns() -> Owns:
    return Owns(job=JOB, generation=1, ballot=Ballot(2, Replica(BOB, b"s")))


def test_stored_result_is_offered_to_the_next_owner_though_the_worker_was_started_again() -> None:
    machine = scheduler()
    row = ResultRow(owner=ALICE, offer=result(0, node=ME, epoch=FIRST), owners=(ALICE, BOB))
    machine.worker.restore([row], NOW)
    offered = [one for one in sends(hear(machine, BOB, owns())) if isinstance(one.message, Offer)]
    assert [one.peer for one in offered] == [BOB]


def test_stored_result_that_names_nobody_stays_with_who_it_was_for() -> None:
    machine = scheduler()
    machine.worker.restore([ResultRow(owner=ALICE, offer=result(0, node=ME, epoch=FIRST))], NOW)
    assert not [one for one in sends(hear(machine, BOB, owns())) if isinstance(one.message, Offer)]


def test_next_owner_is_told_of_its_job_alone_and_once() -> None:
    machine = scheduler()
    hear(machine, ALICE, grant(THEIRS, 0, 1, 2))
    machine.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    (told,) = [one.message for one in sends(hear(machine, BOB, owns())) if isinstance(one.message, Renew)]
    assert (told.whole, told.of) == (True, JOB)
    assert [one.job for one in told.jobs] == [JOB]
    assert sends(hear(machine, BOB, owns())) == []


def test_result_that_was_written_for_another_owner_is_deleted_once_it_is_acknowledged_here() -> None:
    machine = scheduler()
    row = ResultRow(owner=ALICE, offer=result(0, node=ME, epoch=FIRST), owners=(ALICE, ME))
    machine.worker.restore([row], NOW)
    mine = Epoch(2, ME)
    machine.worker.on_owner(ME, JOB, 1, mine, NOW)
    ack = Ack(job=JOB, generation=1, epoch=mine, attempt=Attempt(0, 1, 1), superseded=False)
    changes = [
        one
        for effect in machine.worker.on_ack(ME, ack)
        if isinstance(effect, Persist)
        for one in effect.changes
    ]
    assert [type(one) for one in changes] == [Delete]


def test_results_of_a_job_that_ended_without_their_worker_are_dropped_once_a_replica_says_so() -> None:
    machine = scheduler()
    hear(machine, ALICE, grant(THEIRS, 0, 1, 2))
    machine.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    machine.handle(AttemptFinished(offer=result(0, node=None)), NOW)
    assert hear(machine, ALICE, Unknown(job=JOB)) == []
    assert hear(machine, STRANGER, Unknown(job=JOB, ended=True)) == []
    effects = hear(machine, BOB, Unknown(job=JOB, ended=True))
    (persist,) = [one for one in effects if isinstance(one, Persist)]
    assert [type(one) for one in persist.changes] == [Delete]
    assert {one.attempt.task for one in effects if isinstance(one, StopAttempt)} == {1, 2}
    assert machine.worker.unacknowledged == machine.worker.active == machine.worker.queued == 0


def test_result_is_offered_to_who_else_may_own_the_job_where_its_owner_is_silent() -> None:
    machine = scheduler()
    row = ResultRow(owner=ALICE, offer=result(0, node=ME, epoch=FIRST), owners=(ALICE, BOB))
    machine.worker.restore([row], NOW)
    now, asked = NOW, []
    for _ in range(8):
        deadline = machine.next_deadline()
        assert deadline
        now = later(deadline.at_s - NOW.mono_s)
        asked += [one.peer for one in sends(machine.handle(Tick(), now))]
    assert asked == [ALICE, ALICE, ALICE, ALICE, BOB, ALICE, BOB, ALICE]
    offered = [one for one in sends(machine.handle(PeerUp(peer=BOB), now)) if isinstance(one.message, Offer)]
    assert [one.peer for one in offered] == [BOB]


@pytest.mark.parametrize("returns", ["the replica", "the next owner"])
def test_worker_that_was_away_during_takeover_and_end_is_rid_of_its_results(returns: str) -> None:
    world = World(2, [2, 2, 2, 2], replicated=True, plan=lambda task, attempt, node: (3.0, True))
    world.run_for(1.0)
    job = world.submit(array(8))
    away = next(name for name in world.names if name not in world.records[job].replicas)
    world.run_for(1.0)
    for other in world.names:
        if other != away:
            world.partition(away, other)
    world.run_for(4.0)
    assert world.nodes[away].scheduler.worker.unacknowledged > 0  # type: ignore[union-attr]
    world.crash(world.names[0])
    world.bury(away)
    world.run_until(lambda: world.ended(job), 100.0)
    world.run_for(2.0)
    told = world.owner(job).epoch.node
    back = (
        [told] if returns == "the next owner" else [one for one in world.names[1:] if one not in (told, away)]
    )

    for other in back:
        world.heal(away, other)

    world.run_until(lambda: world.nodes[away].scheduler.worker.unacknowledged == 0, 100.0)  # type: ignore[union-attr]
    world.run_for(0.1)
    assert not world.nodes[away].journal[Table.RESULTS]
    world.check()


def test_takeover_keeps_the_numbers_of_the_workers_it_knows() -> None:
    ballot = Ballot(1, Replica(ALICE, b"s"))
    # What was under number 0 is on no disk that was read.
    rows = [Written(WORKER_TASK, 1, False, BOB, ballot, 2), Written(WORKER_TASK, 4, False, ME, ballot, 3)]
    taken = takeover_of(THEIRS, rows)
    assert taken.workers == {BOB: 1, ME: 4}
    written = registers_of(JOB, [put_seat(JOB, STRANGER), put_seat(JOB, BOB)], taken.workers)
    assert [(one.key, one.value) for one in written] == [((WORKER_TASK, 5), STRANGER)]


def test_who_takes_work_again_is_granted_what_came_while_it_did_not() -> None:
    machine = scheduler()
    drained = machine.handle(DrainAsked(drained=True), NOW)
    assert drained
    machine.handle(submitted(record(spec(2))), NOW)
    assert machine.worker.queued == machine.worker.active == 0
    machine.handle(DrainAsked(drained=False), later(1))
    machine.handle(JobLearned(job=JOB, record=record(spec(2))), later(1))
    assert machine.worker.queued + machine.worker.active > 0 or machine.owned[JOB].leases


def test_what_has_waited_for_long_is_worth_a_long_way() -> None:
    request = StealRequest(idle=1, width=1, wait=True)
    files = 100_000_000
    granted = Granted(Attempt(0, 1, 1), input_bytes=files)
    known = Known(1, FIRST, None)

    def takes(waited_s: float) -> bool:
        appetite = Appetite(Profile(slots=1), request, wait_s=0.5, now_s=NOW.mono_s + waited_s)
        return appetite.takes(Holding(JOB, ALICE, granted, since_s=NOW.mono_s), known)

    assert not takes(1)
    assert takes(10)


def sends(effects: object) -> list[Send]:
    assert isinstance(effects, list)
    return [one for one in effects if isinstance(one, Send)]

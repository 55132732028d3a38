"""Workers and the next owner of a job: who is believed, what is said to it once, and what is deleted; and
what waits behind something that never ends."""

from __future__ import annotations

from fixtures import ALICE, BOB, JOB, ME, NOW, grant, hear, later, record, result, scheduler, spec, submitted

from meshpeer.core.effects import Delete, Persist, Send
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.consensus.values import Ballot, Replica
from meshpeer.core.scheduler.control_messages import DrainAsked
from meshpeer.core.scheduler.fitting import Profile
from meshpeer.core.scheduler.holdings import Holding, Known
from meshpeer.core.scheduler.messages import (
    Ack,
    Attempt,
    Epoch,
    Granted,
    JobLearned,
    Offer,
    Renew,
    StealRequest,
)
from meshpeer.core.scheduler.replica_messages import Owns
from meshpeer.core.scheduler.rows import ResultRow
from meshpeer.core.scheduler.spoils import Appetite

THEIRS = JobRecord(job=JOB, submitter=ALICE, submitted_at_us=1, spec=spec(8), replicas=(ALICE, BOB))
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

"""The worker, effect by effect."""

from __future__ import annotations

import msgspec
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
    record_blob,
    result,
    scheduler,
    spec,
)

from meshpeer.core.effects import Delete, Persist, Put, Send, Table, Tick
from meshpeer.core.ids import Ticket
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    Ack,
    Attempt,
    AttemptFinished,
    AttemptRunning,
    AttemptUnstageable,
    Epoch,
    FetchJob,
    Granted,
    Held,
    JobLearned,
    JobRefused,
    Lost,
    Offer,
    PeerUp,
    Renew,
    StartAttempt,
    Stop,
    StopAttempt,
    Unknown,
)
from meshpeer.core.scheduler.rows import ROW_BYTES_MAX, ResultRow
from meshpeer.core.scheduler.worker import UNFIT
from meshpeer.core.wire import cbor

THEIRS = record(spec(8), submitter=ALICE)
EPOCH = Epoch(1, ALICE)


def test_first_grant_of_a_job_fetches_its_record_once() -> None:
    machine = scheduler()
    fetch = FetchJob(job=JOB, record=record_blob(THEIRS), holders=(ALICE,))
    assert hear(machine, ALICE, grant(THEIRS, 0, 1)) == [fetch]
    assert hear(machine, ALICE, grant(THEIRS, 2)) == []
    machine.check()


def test_attempts_start_in_the_order_of_their_grants_as_far_as_slots_go() -> None:
    machine = scheduler(slots=2)
    hear(machine, ALICE, grant(THEIRS, 3, 1, 2))
    assert machine.handle(JobLearned(job=JOB, record=THEIRS), NOW) == [start(3), start(1)]
    machine.check()


def test_attempt_granted_twice_is_started_once() -> None:
    machine = working(0)
    assert hear(machine, ALICE, grant(THEIRS, 0)) == []
    machine.check()


def test_wide_task_is_not_overtaken() -> None:
    wide = record(spec(8, cpu=2), submitter=ALICE)
    machine = scheduler(slots=3)
    hear(machine, ALICE, grant(wide, 0, 1))
    assert len(machine.handle(JobLearned(job=JOB, record=wide), NOW)) == 1
    assert machine.worker.idle_slots == 0
    machine.check()


def test_task_wider_than_the_node_is_declined() -> None:
    wide = record(spec(8, cpu=3), submitter=ALICE)
    machine = scheduler(slots=2)
    hear(machine, ALICE, grant(wide, 0))
    assert machine.handle(JobLearned(job=JOB, record=wide), NOW) == [
        Send(peer=ALICE, message=lost(0, reason=UNFIT))
    ]
    machine.check()


def test_result_is_journalled_before_it_is_offered_and_its_slot_serves_the_next() -> None:
    machine = working(0, 1, 2)
    offer = result(0, node=None)
    sent = msgspec.structs.replace(offer, epoch=EPOCH, node=ME)
    row = ResultRow(owner=ALICE, offer=sent)
    put = Put(table=Table.RESULTS, key=f"{JOB}/000000.1.1", value=cbor.encode(row))
    assert machine.handle(AttemptFinished(offer=offer), NOW) == [
        start(2),
        Persist(ticket=Ticket(1), changes=(put,)),
        Send(peer=ALICE, message=sent, after=Ticket(1)),
    ]
    machine.check()


def test_result_of_this_nodes_own_job_is_offered_without_a_row_of_its_own() -> None:
    mine = record(spec(8))
    machine = scheduler()
    hear(machine, ME, grant(mine, 0))
    machine.handle(JobLearned(job=JOB, record=mine), NOW)
    offer = result(0, node=None)
    sent = msgspec.structs.replace(offer, epoch=Epoch(1, ME), node=ME)
    assert machine.handle(AttemptFinished(offer=offer), NOW) == [Send(peer=ME, message=sent)]


def test_acknowledged_result_is_forgotten() -> None:
    machine = finished()
    delete = Delete(table=Table.RESULTS, key=f"{JOB}/000000.1.1")
    assert hear(machine, ALICE, ack(0)) == [Persist(ticket=Ticket(2), changes=(delete,))]
    assert hear(machine, ALICE, ack(0)) == []
    assert machine.worker.unacknowledged == 0


def test_offer_is_repeated_with_longer_and_longer_pauses() -> None:
    machine = finished()
    now_s, pauses = NOW.mono_s, []
    for _ in range(7):
        deadline = machine.worker.offers.next_deadline()
        assert deadline is not None
        pauses.append(round(deadline.at_s - now_s, 6))
        now_s = deadline.at_s
        assert [type(one.message) for one in sends(machine.handle(Tick(), later(now_s - NOW.mono_s)))] == [
            Offer
        ]
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_new_link_to_the_owner_brings_results_then_all_that_is_held_then_capacity() -> None:
    machine = working(0, 1, 2)
    machine.handle(AttemptFinished(offer=result(0, node=None)), NOW)
    effects = machine.handle(PeerUp(peer=ALICE), NOW)
    held = Held(
        job=JOB,
        generation=1,
        epoch=EPOCH,
        open=(Attempt(1, 1, 1), Attempt(2, 1, 1)),
        offered=(Attempt(0, 1, 1),),
    )
    assert [one.message for one in sends(effects)] == [
        msgspec.structs.replace(result(0, node=ME), epoch=EPOCH),
        Renew(jobs=(held,), boot=b"boot", whole=True),
        capacity(2, b"boot"),
    ]


def test_new_link_to_anybody_says_what_is_held_even_if_that_is_nothing() -> None:
    effects = scheduler().handle(PeerUp(peer=BOB), NOW)
    assert sends(effects)[0].message == Renew(jobs=(), boot=b"boot", whole=True)


def test_one_renewal_names_everything_held_of_one_owner() -> None:
    machine = working(0, 1, 2)
    machine.handle(AttemptRunning(job=JOB, attempt=Attempt(0, 1, 1)), NOW)
    held = Held(
        job=JOB,
        generation=1,
        epoch=EPOCH,
        open=(Attempt(0, 1, 1), Attempt(1, 1, 1), Attempt(2, 1, 1)),
        running=(Attempt(0, 1, 1),),
    )
    renew = Send(peer=ALICE, message=Renew(jobs=(held,), boot=b"boot", whole=False))
    assert machine.handle(Tick(), later(0.25)) == [renew]
    assert machine.handle(Tick(), later(5)) == [renew]


def test_short_attempt_is_never_told_to_run() -> None:
    machine = working(0)
    machine.handle(AttemptRunning(job=JOB, attempt=Attempt(0, 1, 1)), NOW)
    machine.handle(AttemptFinished(offer=result(0, node=None)), later(0.1))
    assert machine.handle(Tick(), later(0.25)) == []


def test_stop_ends_what_runs_and_drops_what_is_queued() -> None:
    machine = working(0, 1, 2, 3)
    stop = Stop(job=JOB, generation=1, epoch=EPOCH, attempts=(Attempt(0, 1, 1), Attempt(2, 1, 1)), reason="")
    assert hear(machine, ALICE, stop) == [StopAttempt(job=JOB, attempt=Attempt(0, 1, 1)), start(3)]
    assert machine.handle(AttemptFinished(offer=result(0, node=None)), NOW) == []
    machine.check()


def test_stop_of_the_whole_job_leaves_stored_results_alone() -> None:
    machine = finished(1)
    stop = Stop(job=JOB, generation=1, epoch=EPOCH, attempts=(), reason="cancelled")
    assert hear(machine, ALICE, stop) == [StopAttempt(job=JOB, attempt=Attempt(1, 1, 1))]
    assert machine.worker.unacknowledged == 1
    machine.check()


def test_words_of_an_outdated_epoch_are_ignored() -> None:
    machine = working(0)
    hear(machine, ALICE, grant(THEIRS, 1, epoch=Epoch(2, ALICE)))
    assert hear(machine, ALICE, Stop(job=JOB, generation=1, epoch=EPOCH, attempts=(), reason="")) == []
    assert hear(machine, ALICE, grant(THEIRS, 2)) == []
    machine.check()


def test_words_of_who_is_not_the_owner_are_ignored() -> None:
    machine = finished(1)
    forged = Stop(job=JOB, generation=1, epoch=EPOCH, attempts=(), reason="")
    assert hear(machine, BOB, forged) == []
    usurped = Stop(job=JOB, generation=1, epoch=Epoch(9, BOB), attempts=(), reason="")
    assert hear(machine, BOB, usurped) == []
    assert hear(machine, BOB, Ack(job=JOB, generation=1, epoch=EPOCH, attempt=Attempt(0, 1, 1))) == []
    assert machine.worker.unacknowledged == 1


def test_replica_with_a_later_epoch_is_the_owner_from_then_on() -> None:
    replicated = msgspec.structs.replace(THEIRS, replicas=(ALICE, BOB))
    machine = scheduler()
    hear(machine, ALICE, grant(replicated, 0, 1))
    machine.handle(JobLearned(job=JOB, record=replicated), NOW)
    machine.handle(AttemptFinished(offer=result(0, node=None)), NOW)
    hear(machine, BOB, grant(replicated, 2, epoch=Epoch(2, BOB)))
    effects = sends(machine.handle(PeerUp(peer=BOB), NOW))
    assert isinstance(effects[0].message, Offer)
    assert hear(machine, ALICE, ack(0)) == []
    assert (
        len(hear(machine, BOB, Ack(job=JOB, generation=1, epoch=Epoch(2, BOB), attempt=Attempt(0, 1, 1))))
        == 1
    )


def test_higher_generation_ends_everything_of_the_lower() -> None:
    machine = finished(1)
    stop = Stop(job=JOB, generation=2, epoch=Epoch(1, ALICE), attempts=(), reason="adopted")
    effects = hear(machine, ALICE, stop)
    assert [type(one) for one in effects] == [StopAttempt, Persist]
    assert machine.worker.unacknowledged == 0
    assert hear(machine, ALICE, grant(THEIRS, 3, epoch=Epoch(7, ALICE))) == []
    machine.check()


def test_higher_generation_makes_nobody_the_owner() -> None:
    machine = finished(1)
    usurped = Stop(job=JOB, generation=2, epoch=Epoch(9, BOB), attempts=(), reason="mine now")
    assert hear(machine, BOB, usurped) == []
    assert machine.worker.unacknowledged == 1
    assert hear(machine, ALICE, ack(0)) != []
    machine.check()


def test_job_that_its_owner_does_not_know_is_dropped() -> None:
    machine = finished(1)
    effects = hear(machine, ALICE, Unknown(job=JOB))
    assert [type(one) for one in effects][1:] == [Persist, StopAttempt]
    assert hear(machine, BOB, Unknown(job=JOB)) == []
    machine.check()


def test_refused_job_is_given_back_and_judged_anew_at_the_next_grant() -> None:
    machine = scheduler()
    hear(machine, ALICE, grant(THEIRS, 0))
    refused = machine.handle(JobRefused(job=JOB, reason="not from them"), NOW)
    assert refused == [Send(peer=ALICE, message=lost(0, reason="not from them", declined=True))]
    assert [type(one) for one in hear(machine, ALICE, grant(THEIRS, 1))] == [FetchJob]
    machine.check()


def test_node_that_takes_no_work_declines() -> None:
    machine = scheduler(accepting=False)
    declined = lost(0, reason="this node takes no work", declined=True)
    assert hear(machine, ALICE, grant(THEIRS, 0)) == [Send(peer=ALICE, message=declined)]


def test_record_of_another_owner_is_refused() -> None:
    machine = scheduler()
    hear(machine, BOB, grant(THEIRS, 0, epoch=Epoch(1, BOB)))
    effects = machine.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    assert [type(one.message) for one in sends(effects)] == [Lost]
    machine.check()


def test_what_could_not_be_staged_is_reported_and_frees_its_slot() -> None:
    machine = working(0, 1, 2)
    event = AttemptUnstageable(job=JOB, attempt=Attempt(0, 1, 1), reason="gone", missing=(4,))
    report = Send(peer=ALICE, message=lost(0, reason="gone", missing=(4,)))
    assert machine.handle(event, NOW) == [report, start(2)]
    machine.check()


def test_restored_results_are_offered_again_and_held_against_the_lease() -> None:
    machine = finished()
    stored = msgspec.structs.replace(result(0, node=ME), epoch=EPOCH)
    restarted = scheduler()
    row = cbor.decode(cbor.encode(ResultRow(owner=ALICE, offer=stored)), ResultRow, bytes_max=ROW_BYTES_MAX)
    restarted.restore([], {}, [row], NOW)
    first, second, _ = sends(restarted.handle(PeerUp(peer=ALICE), NOW))
    assert first.message == stored
    assert second.message.jobs[0].offered == (Attempt(0, 1, 1),)  # type: ignore[attr-defined]
    assert len(hear(restarted, ALICE, ack(0))) == 1
    assert machine.worker.unacknowledged == 1


def test_unreachable_owner_stops_no_work() -> None:
    machine = working(0, 1, 2, 3)
    for task in (0, 1, 2, 3):
        machine.handle(AttemptFinished(offer=result(task, node=None)), NOW)
    assert machine.worker.unacknowledged == 4
    machine.check()


# --- helpers -------------------------------------------------------------------------------------------


def working(*tasks: int) -> Scheduler:
    """Returns a node of two slots that was granted these tasks of Alice's job and knows its record."""
    machine = scheduler(slots=2)
    hear(machine, ALICE, grant(THEIRS, *tasks))
    machine.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    return machine


def finished(*more: int) -> Scheduler:
    """Returns a node that has task 0's result to offer, and these tasks besides."""
    machine = working(0, *more)
    machine.handle(AttemptFinished(offer=result(0, node=None)), NOW)
    return machine


def start(task: int, of: JobRecord = THEIRS) -> StartAttempt:
    granted = Granted(Attempt(task, 1, 1))
    return StartAttempt(job=JOB, record=of, graph=Graph.of(of.spec), owner=of.submitter, granted=granted)


def ack(task: int) -> Ack:
    return Ack(job=JOB, generation=1, epoch=EPOCH, attempt=Attempt(task, 1, 1))


def lost(task: int, *, reason: str, declined: bool = False, missing: tuple[int, ...] = ()) -> Lost:
    return Lost(
        job=JOB,
        generation=1,
        epoch=EPOCH,
        attempts=(Attempt(task, 1, 1),),
        reason=reason,
        declined=declined,
        missing=missing,
    )


def sends(effects: object) -> list[Send]:
    return [one for one in effects if isinstance(one, Send)]  # type: ignore[attr-defined]

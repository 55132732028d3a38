"""A member that lies about jobs: it owns none that it did not submit, has nothing that nobody gave it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from fixtures import JOB, NOW, FairDice, capacity, grant, hear, later, record, result, spec, submitted

from meshpeer.core.effects import Note, Persist, Put, Send, Tick, TicketCounter
from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import Digest, MeshId, NodeId
from meshpeer.core.scheduler.leases import LEASE_S
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    SLOTS_MAX,
    Ack,
    Attempt,
    AttemptFinished,
    AttemptRunning,
    Blob,
    Epoch,
    FetchJob,
    Grant,
    Held,
    Input,
    JobLearned,
    JobRefused,
    Lost,
    Offer,
    PeersChanged,
    PeerUp,
    PeerView,
    Renew,
    SchedulerEffect,
    StartAttempt,
    StealNone,
    StealRequest,
    Stolen,
    Stop,
    Taken,
)
from meshpeer.core.scheduler.rows import ROW_BYTES_MAX, JobRow, ResultRow
from meshpeer.core.scheduler.seals import KeySeals
from meshpeer.core.scheduler.webhook_messages import WebhookReady
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import DOCUMENT_BYTES_MAX

MESH = MeshId(b"m" * 16)
ALICE_KEY, BOB_KEY, LIAR_KEY = (SigningKey(bytes([number]) * 32) for number in (2, 3, 4))
ALICE, BOB, LIAR = ALICE_KEY.public, BOB_KEY.public, LIAR_KEY.public
THEIRS = record(spec(8), submitter=ALICE)
MINE = SigningKey(bytes([9]) * 32)


# --- to an owner --------------------------------------------------------------------------------------------


def test_result_of_who_had_no_such_attempt_is_refused_and_named() -> None:
    owner, granted = owning(4)
    effects = hear(owner, LIAR, offer(granted.tasks[0].attempt, LIAR))
    assert [type(one) for one in effects] == [Note, Send]
    assert acks(effects) == [True]
    assert not owner.owned[JOB].results
    owner.check()


def test_task_is_not_taken_over_by_who_only_says_that_it_stole_it() -> None:
    owner, granted = owning(4)
    attempt = granted.tasks[0].attempt
    for seal in (b"", b"x" * 72, LIAR_SEALS.make(1, b"anything")):
        claim = Held(
            job=JOB,
            generation=1,
            epoch=granted.epoch,
            open=(attempt,),
            stolen=(Stolen(attempt, ALICE, seal),),
        )
        effects = hear(owner, LIAR, Renew(jobs=(claim,), boot=b"l", whole=False))
        assert [type(one.message) for one in sends(effects)] == [Stop]
    assert owner.owned[JOB].leases[attempt.task].node == ALICE  # type: ignore[index]
    owner.check()


def test_who_shows_the_seal_of_a_grant_has_stolen_it() -> None:
    owner, granted = owning(4)
    first, second = granted.tasks[:2]
    claim = Held(
        job=JOB,
        generation=1,
        epoch=granted.epoch,
        open=(first.attempt,),
        stolen=(Stolen(first.attempt, ALICE, first.seal),),
    )
    hear(owner, BOB, Renew(jobs=(claim,), boot=b"b", whole=False))
    assert owner.owned[JOB].leases[first.attempt.task].node == BOB  # type: ignore[index]
    effects = hear(owner, BOB, msgspec.structs.replace(offer(second.attempt, BOB), seal=second.seal))
    assert acks(effects) == [False]
    owner.check()


def test_task_that_waits_for_a_worker_is_not_taken_up_by_who_never_had_it() -> None:
    owner, granted = owning(40)
    waiting = next(task for task, state in enumerate(owner.owned[JOB].states) if state.value == "ready")
    claim = Held(job=JOB, generation=1, epoch=granted.epoch, open=(Attempt(waiting, 1, 1),))
    effects = hear(owner, LIAR, Renew(jobs=(claim,), boot=b"l", whole=False))
    assert [type(one.message) for one in sends(effects)] == [Stop]
    owner.check()


def test_worker_whose_lease_ran_out_still_brings_its_result() -> None:
    owner, granted = owning(4)
    attempt = granted.tasks[0].attempt
    owner.handle(Tick(), later(LEASE_S + 1))
    assert attempt.task not in owner.owned[JOB].leases
    assert acks(hear(owner, ALICE, offer(attempt, ALICE), later(LEASE_S + 2))) == [False]


def test_thief_that_stole_while_the_owner_was_down_is_believed_by_its_seal() -> None:
    before, granted = owning(4)
    owner = machine(MINE)
    signed = submitted(record(spec(4), submitter=MINE.public))
    row = before.owned[JOB]._persist_job().changes[0]
    restored = cbor.decode(row.value, JobRow, bytes_max=ROW_BYTES_MAX)  # type: ignore[union-attr]
    owner.restore([(signed.record, signed.digest, restored)], {}, [], NOW)
    first = granted.tasks[0]
    claim = Held(
        job=JOB,
        generation=1,
        epoch=granted.epoch,
        open=(first.attempt,),
        stolen=(Stolen(first.attempt, ALICE, first.seal),),
    )
    assert not hear(owner, BOB, Renew(jobs=(claim,), boot=b"b", whole=False))[1:]
    assert owner.owned[JOB].leases[first.attempt.task].node == BOB  # type: ignore[index]


@pytest.mark.parametrize(
    "change",
    [
        {"stdout": Blob(Digest(b"short"), 1)},
        {"manifest": Blob(Digest(bytes(32)), -1)},
        {"manifest": Blob(Digest(bytes(32)), DOCUMENT_BYTES_MAX + 1)},
        {"stderr": Blob(Digest(bytes(32)), 2**62)},
        {"outputs": -1},
        {"outputs": 2**40},
        {"exit_code": 2**60},
        {"attempt": Attempt(0, 1, 2**63 - 1)},
    ],
)
def test_result_out_of_its_form_is_the_offence_of_who_sent_it(change: dict[str, object]) -> None:
    owner, granted = owning(4)
    bad = msgspec.structs.replace(offer(granted.tasks[0].attempt, ALICE), **change)
    with pytest.raises(PeerFault):
        hear(owner, ALICE, bad)
    owner.check()


def test_times_and_texts_beyond_reason_are_cut() -> None:
    owner, granted = owning(4)
    said = msgspec.structs.replace(
        offer(granted.tasks[0].attempt, ALICE), started_us=-5, finished_us=2**62, error="e" * 9_000
    )
    hear(owner, ALICE, said)
    tried = owner.owned[JOB].results[granted.tasks[0].attempt.task].tries[-1]  # type: ignore[index]
    assert (tried.started_us, tried.finished_us, len(tried.error)) == (0, int(NOW.unix_s * 1e6), 300)


def test_slots_that_nobody_has_attract_no_more_than_the_most() -> None:
    owner = machine(MINE)
    hear(owner, LIAR, capacity(2**62))
    assert owner.seats.of(LIAR).slots == SLOTS_MAX


# --- to a worker --------------------------------------------------------------------------------------------


def test_attempt_handed_on_that_its_owner_never_granted_is_an_offence() -> None:
    worker = machine(BOB_KEY)
    forged = grant(THEIRS, 0, stolen_from=LIAR)
    tasks = tuple(msgspec.structs.replace(one, seal=LIAR_SEALS.make(1, b"")) for one in forged.tasks)
    with pytest.raises(PeerFault, match="never granted"):
        hear(worker, LIAR, msgspec.structs.replace(forged, tasks=tasks))
    assert hear(worker, LIAR, forged) == []
    assert worker.worker.queued == 0


def test_attempt_handed_on_runs_on_no_other_inputs_than_its_owner_named() -> None:
    worker, granted = machine(BOB_KEY), granted_by_alice(1)
    poisoned = Input(7, Blob(Digest(bytes(32)), 5), LIAR)
    tasks = tuple(msgspec.structs.replace(one, inputs=(poisoned,)) for one in granted.tasks)
    with pytest.raises(PeerFault, match="never granted"):
        hear(worker, LIAR, msgspec.structs.replace(granted, tasks=tasks, stolen_from=LIAR))


def test_who_hands_on_does_not_raise_the_fence_of_the_owner() -> None:
    worker, granted = machine(BOB_KEY), granted_by_alice(1)
    handed = msgspec.structs.replace(granted, epoch=Epoch(2**62, ALICE), stolen_from=LIAR)
    assert [type(one) for one in hear(worker, LIAR, handed)] == [FetchJob, Send, Send]
    worker.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    stop = Stop(job=JOB, generation=1, epoch=Epoch(1, ALICE), attempts=(), reason="cancelled")
    assert hear(worker, ALICE, stop) != []
    worker.check()


def test_thief_that_restarts_still_shows_the_seal_of_what_a_service_works_on() -> None:
    worker, granted = thief(tasks=1)
    (one,) = granted.tasks
    worker.handle(AttemptRunning(job=JOB, attempt=one.attempt), NOW)
    called = WebhookReady(
        job=JOB, attempt=one.attempt, token=Digest(bytes(32)), timeout_s=0, may_call_back=True
    )
    restarted = machine(BOB_KEY)
    restarted.restore([], {}, [], NOW, rows_of(worker.handle(called, NOW)))
    renew = sends(restarted.handle(PeerUp(peer=ALICE), NOW))[0].message
    assert isinstance(renew, Renew)
    assert renew.jobs[0].stolen == (Stolen(one.attempt, LIAR, one.seal),)
    finished = AttemptFinished(offer=result(one.attempt.task, node=None))
    (offered,) = sends(restarted.handle(finished, NOW))
    assert isinstance(offered.message, Offer)
    assert offered.message.seal == one.seal


def test_thief_that_restarts_while_it_hands_on_takes_it_back_as_stolen() -> None:
    worker, granted = thief(tasks=3)
    handed = hear(worker, LIAR, StealRequest(idle=1, width=1, wait=False))
    restarted = machine(BOB_KEY)
    restarted.restore([], {}, [], NOW, rows_of(handed))
    restarted.handle(Tick(), later(3))
    renew = sends(restarted.handle(PeerUp(peer=ALICE), later(3)))[0].message
    assert isinstance(renew, Renew)
    last = granted.tasks[-1]
    assert renew.jobs[0].stolen == (Stolen(last.attempt, LIAR, last.seal),)


def test_only_the_thief_says_that_it_took_something() -> None:
    victim = machine(BOB_KEY, slots=1)
    hear(victim, ALICE, granted_by_alice(6))
    victim.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    handed = [
        one.message
        for one in sends(hear(victim, ALICE, StealRequest(idle=1, width=1, wait=False)))
        if isinstance(one.message, Grant)
    ]
    attempts = tuple(one.attempt for one in handed[0].tasks)
    assert hear(victim, LIAR, Taken(job=JOB, attempts=attempts)) == []
    held = sends(victim.handle(PeerUp(peer=ALICE), NOW))[0].message
    assert isinstance(held, Renew)
    assert set(attempts) <= set(held.jobs[0].open)


def test_who_claims_a_job_does_not_keep_its_owner_out() -> None:
    worker = machine(BOB_KEY)
    claimed = msgspec.structs.replace(grant(THEIRS, 0), epoch=Epoch(2**62, LIAR))
    assert [type(one) for one in hear(worker, LIAR, claimed)] == [FetchJob]
    answer = sends(hear(worker, ALICE, grant(THEIRS, 0)))
    assert [type(one.message) for one in answer] == [Lost]
    assert not answer[0].message.declined  # type: ignore[attr-defined]
    worker.handle(JobRefused(job=JOB, reason="nobody holds it"), NOW)
    assert [type(one) for one in hear(worker, ALICE, grant(THEIRS, 0))] == [FetchJob]
    worker.check()


def test_restored_result_is_acknowledged_by_its_owner_alone() -> None:
    worker = machine(BOB_KEY)
    stored = offer(Attempt(0, 1, 1), BOB, epoch=Epoch(1, ALICE))
    worker.restore([], {}, [ResultRow(owner=ALICE, offer=stored)], NOW)
    forged = Ack(job=JOB, generation=1, epoch=Epoch(9, LIAR), attempt=Attempt(0, 1, 1))
    assert hear(worker, LIAR, forged) == []
    assert worker.worker.unacknowledged == 1


# --- capabilities -------------------------------------------------------------------------------------------


def test_node_that_may_not_work_is_granted_nothing_whatever_it_says() -> None:
    owner = machine(MINE, slots=0, may_not_work={LIAR})
    hear(owner, LIAR, capacity(8))
    assert sends(owner.handle(submitted(record(spec(4), submitter=MINE.public)), NOW)) == []


def test_node_that_may_not_work_steals_nothing_and_brings_no_results() -> None:
    victim = machine(BOB_KEY, slots=1, may_not_work={LIAR})
    hear(victim, ALICE, granted_by_alice(6))
    victim.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    asked = sends(hear(victim, LIAR, StealRequest(idle=4, width=4, wait=True)))
    assert [type(one.message) for one in asked] == [StealNone]
    owner, granted = owning(4)
    owner._may_work = lambda node: node != ALICE
    brought = hear(owner, ALICE, offer(granted.tasks[0].attempt, ALICE))
    assert [type(one) for one in brought] == [Send]
    assert acks(brought) == [True]
    assert hear(owner, ALICE, offer(granted.tasks[0].attempt, BOB)) == []
    assert not owner.owned[JOB].results


def test_worker_that_lost_the_right_to_work_offers_its_result_once() -> None:
    owner, granted = owning(1)
    owner._may_work = lambda node: node != ALICE
    worker = machine(ALICE_KEY)
    stored = offer(granted.tasks[0].attempt, ALICE, epoch=granted.epoch)
    worker.restore([], {}, [ResultRow(owner=MINE.public, offer=stored)], NOW)
    offered = [one.message for one in sends(worker.handle(PeerUp(peer=MINE.public), NOW))]
    told = [one.message for word in offered for one in sends(hear(owner, ALICE, word))]
    for word in told:
        hear(worker, MINE.public, word)
    assert worker.worker.unacknowledged == 0


def test_node_that_lost_the_right_to_work_loses_what_it_was_granted() -> None:
    denied: set[NodeId] = set()
    owner = machine(MINE, slots=0, may_not_work=denied)
    hear(owner, ALICE, capacity(2))
    owner.handle(submitted(record(spec(2), submitter=MINE.public)), NOW)
    assert len(owner.owned[JOB].leases) == 2
    denied.add(ALICE)
    owner.handle(PeersChanged(peers=(view(ALICE),)), NOW)
    assert not owner.owned[JOB].leases
    hear(owner, BOB, capacity(2))
    assert {one.node for one in owner.owned[JOB].leases.values()} == {BOB}
    owner.check()


def test_node_that_loses_the_right_to_work_gives_back_what_waits_and_says_so() -> None:
    denied: set[NodeId] = set()
    worker = machine(BOB_KEY, slots=1, may_not_work=denied)
    hear(worker, ALICE, granted_by_alice(3))
    worker.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    denied.add(BOB)
    effects = sends(worker.handle(PeersChanged(peers=(view(ALICE),)), NOW))
    assert [type(one.message) for one in effects] == [Lost, type(capacity(1))]
    assert not effects[1].message.accepting  # type: ignore[attr-defined]
    declined = sends(hear(worker, ALICE, granted_by_alice(5)))
    assert [type(one.message) for one in declined] == [Lost]
    denied.clear()
    again = sends(worker.handle(PeersChanged(peers=(view(ALICE),)), NOW))
    assert again[0].message.accepting  # type: ignore[attr-defined]
    worker.check()


def test_further_tasks_of_who_may_not_submit_any_more_are_declined() -> None:
    worker = machine(BOB_KEY)
    hear(worker, ALICE, grant(THEIRS, 0))
    worker.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    worker._may_submit = lambda node: node != ALICE
    effects = hear(worker, ALICE, grant(THEIRS, 1))
    assert [type(one.message) for one in sends(effects)] == [Lost]
    assert not [one for one in effects if isinstance(one, StartAttempt)]


# --- helpers ------------------------------------------------------------------------------------------------

LIAR_SEALS = KeySeals(LIAR_KEY, MESH)


def machine(key: SigningKey, slots: int = 2, may_not_work: set[NodeId] | None = None) -> Scheduler:
    denied = may_not_work if may_not_work is not None else set()
    return Scheduler(
        me=key.public,
        slots=slots,
        accepting=True,
        boot=b"boot",
        region="",
        tickets=TicketCounter(),
        dice=FairDice(),
        seals=KeySeals(key, MESH),
        may_work=lambda node: node not in denied,
    )


def owning(tasks: int) -> tuple[Scheduler, Grant]:
    """Returns an owner without slots of its own, and what it granted to Alice."""
    owner = machine(MINE, slots=0)
    hear(owner, ALICE, capacity(2))
    effects = owner.handle(submitted(record(spec(tasks), submitter=MINE.public)), NOW)
    return owner, next(one.message for one in sends(effects) if isinstance(one.message, Grant))


def thief(*, tasks: int) -> tuple[Scheduler, Grant]:
    """Returns a worker with one slot, Bob, and what he stole of Alice's job from another."""
    worker = machine(BOB_KEY, slots=1)
    alice = machine(ALICE_KEY, slots=0)
    hear(alice, LIAR, capacity(2))
    words = sends(alice.handle(submitted(THEIRS), NOW))
    granted = next(one.message for one in words if isinstance(one.message, Grant))
    granted = msgspec.structs.replace(granted, tasks=granted.tasks[:tasks])
    hear(worker, LIAR, msgspec.structs.replace(granted, stolen_from=LIAR))
    worker.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    return worker, granted


def rows_of(effects: Iterable[SchedulerEffect]) -> list[tuple[str, bytes]]:
    puts = [put for one in effects if isinstance(one, Persist) for put in one.changes]
    return [(put.key, put.value) for put in puts if isinstance(put, Put)]


def granted_by_alice(tasks: int) -> Grant:
    """Returns what Alice, as an owner, grants to Bob."""
    alice = machine(ALICE_KEY, slots=0)
    hear(alice, BOB, capacity(2))
    effects = alice.handle(submitted(record(spec(max(8, tasks)), submitter=ALICE)), NOW)
    granted = next(one.message for one in sends(effects) if isinstance(one.message, Grant))
    return msgspec.structs.replace(granted, tasks=granted.tasks[:tasks])


def offer(attempt: Attempt, node: NodeId, epoch: Epoch | None = None) -> Offer:
    return msgspec.structs.replace(result(attempt.task, node=node, epoch=epoch), attempt=attempt)


def view(node: NodeId) -> PeerView:
    return PeerView(node=node, alive=True, linked=True, region="")


def acks(effects: object) -> list[bool]:
    return [one.message.superseded for one in sends(effects) if isinstance(one.message, Ack)]


def sends(effects: object) -> list[Send]:
    return [one for one in effects if isinstance(one, Send)]  # type: ignore[attr-defined]

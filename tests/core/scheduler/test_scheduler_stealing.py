"""Thief and victim, effect by effect."""

from __future__ import annotations

from fixtures import ALICE, BOB, JOB, ME, NOW, capacity, grant, hear, later, record, scheduler, spec

from meshpeer.core.effects import Delete, Persist, Put, Send, Table, Tick
from meshpeer.core.ids import NodeId
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    Attempt,
    JobLearned,
    PeersChanged,
    PeerView,
    Renew,
    StartAttempt,
    StealNone,
    StealRequest,
    Stop,
    Taken,
)

THEIRS = record(spec(20), submitter=ALICE)


def test_idle_node_asks_a_peer_that_has_slots() -> None:
    machine = scheduler()
    machine.handle(peers(BOB), NOW)
    assert hear(machine, BOB, capacity(2)) == [
        Send(peer=BOB, message=StealRequest(idle=2, width=2, wait=True))
    ]


def test_after_two_misses_the_thief_waits_longer_each_time() -> None:
    machine = thief()
    waits = []
    now_s = NOW.mono_s
    for _ in range(9):
        hear(machine, BOB, StealNone(), later(now_s - NOW.mono_s))
        assert hear(machine, BOB, StealNone(), later(now_s - NOW.mono_s)) == []
        deadline = machine.next_deadline()
        assert deadline is not None
        assert deadline.reason == "idle: ask for work"
        waits.append(deadline.at_s - now_s)
        now_s = deadline.at_s
        [request] = machine.handle(Tick(), later(now_s - NOW.mono_s))
        assert isinstance(request, Send)
    assert [round(one, 3) for one in waits] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_victim_that_does_not_answer_counts_as_a_miss() -> None:
    machine = thief()
    deadline = machine.next_deadline()
    assert deadline is not None
    assert (deadline.at_s, deadline.reason) == (NOW.mono_s + 2, "a victim does not answer")
    assert [type(one.message) for one in machine.handle(Tick(), later(2)) if isinstance(one, Send)] == [
        StealRequest
    ]


def test_victim_hands_over_half_journalled_first() -> None:
    machine = victim(7)
    effects = hear(machine, BOB, StealRequest(idle=2, width=2, wait=True))
    persist, sent = effects
    assert isinstance(persist, Persist)
    assert [(type(one), one.table) for one in persist.changes] == [(Put, Table.GRANTS)] * 3
    booty = grant(THEIRS, 4, 5, 6, stolen_from=ME)
    assert sent == Send(peer=BOB, message=booty, after=persist.ticket)
    assert machine.worker.queued == 2
    machine.check()


def test_victim_keeps_naming_what_is_not_taken_yet() -> None:
    machine = victim(4)
    hear(machine, BOB, StealRequest(idle=2, width=2, wait=True))
    [renew] = [one.message for one in machine.handle(Tick(), later(2.9)) if isinstance(one, Send)] or [None]
    assert renew is None
    effects = machine.handle(Tick(), later(5))
    held = next(one.message for one in effects if isinstance(one, Send) and isinstance(one.message, Renew))
    assert len(held.jobs[0].open) == 4


def test_confirmed_attempts_are_the_victims_no_more() -> None:
    machine = victim(4)
    hear(machine, BOB, StealRequest(idle=2, width=2, wait=True))
    effects = hear(machine, BOB, Taken(job=JOB, attempts=(Attempt(3, 1, 1),)))
    delete = Delete(table=Table.GRANTS, key=f"given/{JOB}/000003.1.1")
    assert [one.changes for one in effects if isinstance(one, Persist)] == [(delete,)]
    assert not machine.worker.has(JOB, Attempt(3, 1, 1))
    assert machine.handle(Tick(), later(3)) == []
    machine.check()


def test_what_is_not_taken_up_comes_back() -> None:
    machine = victim(4)
    hear(machine, BOB, StealRequest(idle=2, width=2, wait=True))
    assert machine.worker.queued == 1
    [persist] = machine.handle(Tick(), later(3))
    assert isinstance(persist, Persist)
    assert machine.worker.queued == 2
    machine.check()


def test_victim_that_restarts_in_a_handover_queues_it_again() -> None:
    machine = victim(4)
    persist, _ = hear(machine, BOB, StealRequest(idle=2, width=2, wait=True))
    assert isinstance(persist, Persist)
    restarted = scheduler()
    rows = [(one.key, one.value) for one in persist.changes if isinstance(one, Put)]
    assert restarted.restore([], {}, [], NOW, rows) == []
    restarted.handle(Tick(), later(3))
    assert restarted.worker.queued == 1
    [start] = restarted.handle(JobLearned(job=JOB, record=THEIRS), later(3))
    assert isinstance(start, StartAttempt)
    assert start.granted.attempt == Attempt(3, 1, 1)
    restarted.check()


def test_nothing_wider_than_the_thief_is_handed_over() -> None:
    wide = record(spec(8, cpu=2), submitter=ALICE)
    machine = scheduler(slots=2)
    hear(machine, ALICE, grant(wide, *range(6)))
    machine.handle(JobLearned(job=JOB, record=wide), NOW)
    assert hear(machine, BOB, StealRequest(idle=1, width=1, wait=True)) == [
        Send(peer=BOB, message=StealNone())
    ]
    assert [type(one) for one in hear(machine, BOB, StealRequest(idle=2, width=2, wait=True))] == [
        Persist,
        Send,
    ]
    machine.check()


def test_hungry_thief_is_pushed_what_comes_later() -> None:
    machine = scheduler(slots=1)
    machine.handle(peers(BOB), NOW)
    hear(machine, BOB, capacity(2))
    hear(machine, BOB, StealRequest(idle=2, width=2, wait=True))
    hear(machine, ALICE, grant(THEIRS, 0, 1, 2))
    effects = machine.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    pushed = [one for one in effects if isinstance(one, Send)]
    assert [(one.peer, one.message) for one in pushed] == [(BOB, grant(THEIRS, 2, stolen_from=ME))]
    machine.check()


def test_thief_confirms_to_the_victim_and_claims_from_the_owner() -> None:
    machine = scheduler()
    effects = hear(machine, BOB, grant(THEIRS, 4, 5, stolen_from=BOB))
    sent = {one.peer: one.message for one in effects if isinstance(one, Send)}
    assert sent[BOB] == Taken(job=JOB, attempts=(Attempt(4, 1, 1), Attempt(5, 1, 1)))
    claim = sent[ALICE]
    assert isinstance(claim, Renew)
    assert not claim.whole
    assert [(one.attempt, one.victim) for one in claim.jobs[0].stolen] == [
        (Attempt(4, 1, 1), BOB),
        (Attempt(5, 1, 1), BOB),
    ]
    machine.check()


def test_stolen_goods_are_taken_from_nobody_but_the_victim_itself() -> None:
    machine = scheduler()
    assert hear(machine, ME, grant(THEIRS, 4, stolen_from=BOB)) == []
    assert hear(machine, BOB, grant(THEIRS, 4)) == []


def test_thief_that_takes_no_work_lets_it_come_back() -> None:
    machine = scheduler(accepting=False)
    effects = hear(machine, BOB, grant(THEIRS, 4, stolen_from=BOB))
    assert not [one for one in effects if isinstance(one, Send) and isinstance(one.message, Taken)]


def test_stopped_attempt_is_not_queued_again_after_its_handover() -> None:
    machine = victim(4)
    hear(machine, BOB, StealRequest(idle=2, width=2, wait=True))
    stop = Stop(job=JOB, generation=1, epoch=grant(THEIRS).epoch, attempts=(), reason="cancelled")
    hear(machine, ALICE, stop)
    machine.handle(Tick(), later(3))
    assert machine.worker.queued == 0
    machine.check()


def test_first_try_prefers_the_own_region() -> None:
    near = PeerView(node=BOB, alive=True, linked=True, region="")
    far = PeerView(node=ALICE, alive=True, linked=True, region="far")
    machine = scheduler()
    hear(machine, ALICE, capacity(2))
    hear(machine, BOB, capacity(2))
    [first] = machine.handle(PeersChanged(peers=(far, near)), NOW)
    assert isinstance(first, Send)
    assert first.peer == BOB
    [second] = hear(machine, BOB, StealNone())
    assert isinstance(second, Send)
    # The dice show 0.5: over 40 %, so among all; the upper half of two is the second.
    assert second.peer == BOB


# --- helpers -------------------------------------------------------------------------------------------


def peers(*nodes: NodeId) -> PeersChanged:
    return PeersChanged(peers=tuple(PeerView(node=one, alive=True, linked=True, region="") for one in nodes))


def thief() -> Scheduler:
    """Returns an idle node that has just asked Bob."""
    machine = scheduler()
    machine.handle(peers(BOB), NOW)
    hear(machine, BOB, capacity(2))
    return machine


def victim(count: int) -> Scheduler:
    """Returns a node of two slots that was granted so many tasks of Alice's job."""
    machine = scheduler(slots=2)
    hear(machine, ALICE, grant(THEIRS, *range(count)))
    machine.handle(JobLearned(job=JOB, record=THEIRS), NOW)
    return machine

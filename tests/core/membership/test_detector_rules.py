"""The failure detector: pings, doubts, helpers, suspicions, and what may make a member dead."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.detector import Detector
from meshpeer.core.membership.detector_effects import (
    DetectorEffect,
    DialFor,
    LinkIsSilent,
    OpinionChanged,
    Refute,
    SendTo,
    Suspect,
    Tell,
)
from meshpeer.core.membership.doubts import HELPERS
from meshpeer.core.membership.local_health import SCORE_MAX
from meshpeer.core.membership.messages import ENOUGH_LINKS, Ping, Pong, ProbeAnswered, ProbeAsked
from meshpeer.core.membership.opinions import State
from meshpeer.core.membership.pulse import PING_AFTER_HIGHER_S, TIMEOUT_FIRST_S, TIMEOUT_MAX_S
from meshpeer.core.membership.suspicions import (
    CLOSED_FLOOR_S,
    CLOSED_FULL_S,
    QUORUM_MAX,
    SILENT_FLOOR_S,
    SILENT_FULL_S,
    SuspicionSeen,
    needed_observers,
    timeout_s,
)

ME, A, B, C, D, E = (NodeId(bytes([number]) * 32) for number in (5, 1, 6, 7, 8, 9))


class Everybody:
    """Rings in which everybody may observe everybody, but for ``outsiders``."""

    def __init__(self, *outsiders: NodeId) -> None:
        self.outsiders = outsiders

    def observers(self, subject: NodeId) -> tuple[NodeId, ...]:
        return tuple(one for one in (A, ME, B, C, D, E) if one != subject and one not in self.outsiders)

    def entitled(self, observer: NodeId, subject: NodeId) -> bool:
        return observer in self.observers(subject)


def test_lower_id_pings_after_four_seconds_and_the_higher_after_six() -> None:
    detector = linked(A, B)
    answer_all(detector, 0.1)
    assert pinged(detector.tick(at(4.2))) == [B]
    detector.on_heard(B, at(4.3))
    assert pinged(detector.tick(at(6.2))) == [A]


def test_unanswered_ping_asks_three_helpers_and_never_the_subject() -> None:
    detector = linked(A, B, C, D, E)
    answer_all(detector, 0.1)
    for peer in (A, C, D, E):
        detector.on_heard(peer, at(4.0))
    detector.tick(at(4.2))
    asked = [one for one in detector.tick(at(5.3)) if isinstance(one, SendTo)]
    helpers = [one.peer for one in asked if isinstance(one.message, ProbeAsked)]
    assert len(set(helpers)) == HELPERS
    assert B not in helpers


def test_lost_link_whose_redial_is_refused_is_suspected_when_all_helpers_say_no() -> None:
    detector = linked(A, B)
    assert detector.on_down(B, "connection reset", at(1)) == []
    (ask,) = detector.on_dial_failed(B, True, at(1.01))
    assert isinstance(ask, SendTo)
    assert ask.peer == A
    assert isinstance(ask.message, ProbeAsked)
    no = ProbeAnswered(number=ask.message.number, subject=B, reached=False)
    effects = detector.on_probe_answered(A, no, at(1.02))
    assert Suspect(subject=B, closed=True) in effects
    assert detector.opinion(B).state is State.SUSPECT


def test_helper_that_reaches_it_settles_the_doubt() -> None:
    detector = linked(A, B)
    detector.on_down(B, "connection reset", at(1))
    (ask,) = detector.on_dial_failed(B, False, at(1.01))
    assert isinstance(ask, SendTo)
    assert isinstance(ask.message, ProbeAsked)
    yes = ProbeAnswered(number=ask.message.number, subject=B, reached=True)
    detector.on_probe_answered(A, yes, at(1.02))
    assert (detector.opinion(B).state, detector.opinion(B).voucher) == (State.ALIVE, A)
    assert detector.on_dial_failed(B, False, at(5)) == []


def test_without_helpers_the_suspicion_goes_out_at_once() -> None:
    detector = linked(B)
    detector.on_down(B, "connection reset", at(1))
    assert Suspect(subject=B, closed=True) in detector.on_dial_failed(B, True, at(1.01))


def test_link_that_is_too_many_raises_no_doubt() -> None:
    detector = linked(A, B)
    assert detector.on_down(B, ENOUGH_LINKS, at(1)) == []
    assert detector.opinion(B).state is State.ALIVE


def test_who_may_not_observe_says_nothing() -> None:
    detector = linked(A, B, rings=Everybody(ME))
    detector.on_down(B, "connection reset", at(1))
    assert detector.on_dial_failed(B, True, at(1.01)) == []


def test_helper_pings_over_its_link_and_answers_within_a_second() -> None:
    detector = linked(A, B)
    answer_all(detector, 0.1)
    asked = ProbeAsked(number=7, subject=B)
    assert pinged(detector.on_probe_asked(A, asked, at(1))) == [B]
    said = detector.on_heard(B, at(1.1))
    assert SendTo(peer=A, message=ProbeAnswered(number=7, subject=B, reached=True)) in said
    detector.on_probe_asked(A, asked, at(2))
    late = detector.tick(at(3.01))
    assert SendTo(peer=A, message=ProbeAnswered(number=7, subject=B, reached=False)) in late


def test_helper_without_a_link_dials() -> None:
    detector = linked(A)
    assert detector.on_probe_asked(A, ProbeAsked(number=1, subject=C), at(1)) == [DialFor(subject=C)]


@pytest.mark.parametrize(
    ("observers", "closed", "alive_at", "dead_at"),
    [
        ((A,), True, CLOSED_FULL_S - 0.1, CLOSED_FULL_S),
        ((A,), False, SILENT_FULL_S - 0.1, SILENT_FULL_S),
        ((A, C, D), True, CLOSED_FLOOR_S - 0.1, CLOSED_FLOOR_S),
        ((A, C, D), False, SILENT_FLOOR_S - 0.1, SILENT_FLOOR_S),
    ],
)
def test_dead_takes_a_quorum_or_the_full_time(
    observers: tuple[NodeId, ...], closed: bool, alive_at: float, dead_at: float
) -> None:
    detector = linked(A)
    detector.on_suspicions(B, said(*observers, closed=closed), at(0))
    detector.tick(at(alive_at))
    assert detector.opinion(B).state is State.SUSPECT
    detector.tick(at(dead_at))
    assert (detector.opinion(B).state, detector.opinion(B).observers) == (State.DEAD, observers)
    assert detector.dead == [B]


def test_only_entitled_observers_count() -> None:
    detector = linked(A, rings=Everybody(C, D))
    assert detector.on_suspicions(B, said(C, D), at(0)) == []
    assert detector.opinion(B).state is State.ALIVE


def test_refuted_suspicion_revives() -> None:
    detector = linked(A)
    detector.on_suspicions(B, said(A, C, D), at(0))
    detector.tick(at(20))
    assert detector.opinion(B).state is State.DEAD
    (changed,) = detector.on_suspicions(B, (), at(21))
    assert isinstance(changed, OpinionChanged)
    assert detector.opinion(B).state is State.ALIVE
    assert not detector.unusual


def test_linked_and_heard_peer_stays_alive_and_is_told() -> None:
    detector = linked(A, B)
    effects = detector.on_suspicions(B, said(A, C, D), at(0.5))
    assert Tell(subject=B) in effects
    detector.on_heard(B, at(0.6))
    detector.tick(at(1.0))
    assert detector.opinion(B).state is State.ALIVE


def test_silent_peer_that_a_quorum_suspects_is_dead_as_soon_as_its_ping_runs_out() -> None:
    """Who held a link to a stopped host was the last to call it dead, by twelve seconds: it asked helpers who
    knew already, and counted the quorum's time from the link's end."""
    detector = linked(A, B, C, D, E)
    answer_all(detector, 0.1)
    for peer in (A, C, D, E):
        detector.on_heard(peer, at(5.0))
    assert pinged(detector.on_suspicions(B, said(A, C, D), at(5.0))) == [B]
    effects = detector.tick(at(5.0 + TIMEOUT_FIRST_S))
    assert LinkIsSilent(peer=B) in effects
    assert not [one for one in effects if isinstance(one, SendTo) and isinstance(one.message, ProbeAsked)]
    detector.on_down(B, "silent", at(6.0))
    detector.tick(at(5.0 + SILENT_FLOOR_S))
    assert detector.opinion(B).state is State.DEAD


def test_ping_timeout_has_an_end_however_late_answers_came() -> None:
    """Round trips of a starved boot were seconds long, and stayed in the estimate for minutes."""
    detector = linked(A)
    for number in range(1, 9):
        begin_s = 20.0 * number
        detector.on_pong(A, Pong(number=number), at(begin_s + 9.0))
        detector.on_heard(A, at(begin_s + 9.0))
        detector.health.score = 0
        detector.tick(at(begin_s + 9.0 + PING_AFTER_HIGHER_S))
    detector.health.score = 0
    detector.on_heard(A, at(200.0))
    detector.on_suspicions(A, said(B, C, D), at(201.0))
    effects = detector.tick(at(201.0 + TIMEOUT_MAX_S))
    assert LinkIsSilent(peer=A) in effects


def test_suspicion_of_this_node_is_refuted_and_believed_a_little() -> None:
    detector = linked(A)
    assert detector.on_suspicions(ME, said(A), at(0)) == [Refute()]
    assert detector.health.score == 1


def test_node_that_was_stopped_declares_nobody_dead() -> None:
    detector = linked(A, B, C)
    now = 0.2
    for _ in range(30):
        now += 8.0
        effects = detector.tick(at(now))
        for step in range(5):
            for peer in (A, B, C):
                effects += detector.on_heard(peer, at(now + step / 10))
            effects += detector.tick(at(now + step / 10))
        assert not [one for one in effects if isinstance(one, Suspect | LinkIsSilent)]
        now += 1.0
        assert not detector.unusual


def test_before_the_first_sync_and_alone_nothing_is_known() -> None:
    detector = Detector(ME, Everybody(), random.Random(1), Counters())
    assert detector.opinion(B).because == "not heard of since this agent started"
    detector.on_up(A, at(0))
    detector.synced(at(0))
    assert detector.opinion(B).state is State.ALIVE
    detector.on_down(A, ENOUGH_LINKS, at(1))
    assert (detector.opinion(B).state, detector.opinion(B).because) == (
        State.SUSPECT,
        "this node has no link to anybody",
    )


def test_needed_observers_and_times_are_those_of_the_page() -> None:
    assert [needed_observers(count) for count in (0, 1, 2, 3, 9)] == [1, 1, 2, 3, QUORUM_MAX]
    times = [timeout_s(count, 3, closed=False) for count in (1, 2, 3)]
    assert times[0] == SILENT_FULL_S
    assert times[2] == SILENT_FLOOR_S
    assert times[0] > times[1] > times[2]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4), st.floats(0.01, 6)), max_size=60))
def test_whatever_happens_it_is_never_busy_and_never_kills_who_is_heard(
    steps: list[tuple[int, int, float]],
) -> None:
    detector, now, number = linked(A, B, C), 0.2, 0
    for kind, who, wait in steps:
        now, number = now + wait, number + 1
        peer = (A, B, C, D, E)[who]
        match kind:
            case 0:
                detector.on_up(peer, at(now))
            case 1:
                detector.on_down(peer, "reset", at(now))
            case 2:
                detector.on_dial_failed(peer, who % 2 == 0, at(now))
            case 3:
                detector.on_heard(peer, at(now))
            case 4:
                detector.on_suspicions(peer, said(*(one for one in (A, C, D) if one != peer)), at(now))
            case 5:
                detector.on_suspicions(peer, (), at(now))
            case 6:
                detector.on_probe_asked(A, ProbeAsked(number=number, subject=peer), at(now))
            case 7:
                detector.on_lag(wait, at(now))
            case _:
                detector.forget(peer)
        detector.tick(at(now))
        assert 0 <= detector.health.score <= SCORE_MAX
        assert set(detector.dead) <= set(detector.unusual)
        if kind == 3 and detector.heard_at_s(peer) == now:
            assert detector.opinion(peer).state is State.ALIVE
        deadline = detector.next_deadline()
        assert deadline is None or deadline.at_s > now


# --- helpers ------------------------------------------------------------------------------------------------


def at(now_s: float) -> Instant:
    return Instant(now_s, 1_800_000_000 + now_s)


def linked(*peers: NodeId, rings: Everybody | None = None) -> Detector:
    detector = Detector(ME, rings or Everybody(), random.Random(1), Counters())
    for peer in peers:
        detector.on_up(peer, at(0))
    detector.synced(at(0))
    return detector


def answer_all(detector: Detector, now_s: float) -> None:
    for peer in (A, B, C, D, E):
        if detector.heard_at_s(peer) is not None:
            detector.on_heard(peer, at(now_s))
            detector.on_pong(peer, Pong(number=1), at(now_s))


def said(*observers: NodeId, closed: bool = False) -> tuple[SuspicionSeen, ...]:
    return tuple(SuspicionSeen(observer=one, closed=closed, issued_at=0) for one in observers)


def pinged(effects: list[DetectorEffect]) -> list[NodeId]:
    return [one.peer for one in effects if isinstance(one, SendTo) and isinstance(one.message, Ping)]

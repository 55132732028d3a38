"""Opinions by their rules: what proves life, what raises doubt, how long doubt lasts, and who vouches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.liveness import (
    CLOSED_DEAD_AFTER_S,
    PING_AFTER_HIGHER_S,
    PING_AFTER_LOWER_S,
    SIGHT_FRESH_S,
    SIGHT_INTERVAL_S,
    SILENT_DEAD_AFTER_S,
    TIMEOUT_FIRST_S,
    TIMEOUT_MIN_S,
    LinkIsSilent,
    Liveness,
    LivenessEffect,
    Opinion,
    OpinionChanged,
    PingPeer,
    State,
)
from meshpeer.core.membership.messages import Ping, Pong, Sight

LOW, ME, HIGH, FAR = (NodeId(bytes([byte]) * 32) for byte in (1, 5, 9, 12))
EPOCH_S = 1_800_000_000.0


# --- proof of life ------------------------------------------------------------------------------------------


def test_member_that_was_never_heard_is_suspect_and_then_dead() -> None:
    liveness = Liveness(ME)
    assert liveness.watch([ME, HIGH], at(10)) == []
    assert liveness.opinion(ME) is None
    because = "not heard of since this agent started"
    assert liveness.opinion(HIGH) == opinion(State.SUSPECT, 10, because)
    assert changes(liveness.tick(at(10 + SILENT_DEAD_AFTER_S - 0.001))) == []
    assert changes(liveness.tick(at(10 + SILENT_DEAD_AFTER_S))) == [
        OpinionChanged(peer=HIGH, opinion=opinion(State.DEAD, 18, because))
    ]
    assert changes(liveness.tick(at(100))) == []


def test_link_proves_life_and_is_pinged_and_told_whom_we_see() -> None:
    liveness = Liveness(ME)
    liveness.watch([HIGH], at(10))
    assert liveness.on_up(HIGH, at(11)) == [
        OpinionChanged(peer=HIGH, opinion=opinion(State.ALIVE, 11, "linked")),
        PingPeer(peer=HIGH, message=Ping(number=1)),
        PingPeer(peer=HIGH, message=Sight(linked=(HIGH,))),
    ]


def test_link_that_comes_before_its_record_counts() -> None:
    liveness = Liveness(ME)
    liveness.on_up(HIGH, at(1))
    liveness.watch([], at(2))
    assert state_of(liveness, HIGH) is State.ALIVE
    liveness.on_down(HIGH, "reset", at(3))
    liveness.watch([], at(3))
    assert liveness.opinion(HIGH) is None


def test_ping_is_answered_with_its_number() -> None:
    assert Liveness(ME).on_ping(HIGH, Ping(number=7)) == [PingPeer(peer=HIGH, message=Pong(number=7))]


@pytest.mark.parametrize(("peer", "silence_s"), [(HIGH, PING_AFTER_LOWER_S), (LOW, PING_AFTER_HIGHER_S)])
def test_lower_id_pings_first_after_silence(peer: NodeId, silence_s: float) -> None:
    liveness = linked_to(peer)
    assert pings(liveness.tick(at(100 + silence_s - 0.001))) == []
    assert pings(liveness.tick(at(100 + silence_s))) == [PingPeer(peer=peer, message=Ping(number=2))]


def test_talking_peer_is_not_pinged() -> None:
    liveness = linked_to(HIGH)
    for second in range(101, 160):
        liveness.on_heard(HIGH, at(second))
        assert pings(liveness.tick(at(second))) == []


@pytest.mark.parametrize("frame", ["pong", "anything"])
def test_any_frame_after_a_ping_proves_life(frame: str) -> None:
    liveness = linked_to(HIGH)
    liveness.tick(at(104))
    liveness.on_heard(HIGH, at(104.4))
    if frame == "pong":
        liveness.on_pong(HIGH, Pong(number=2), at(104.4))
    assert changes(liveness.tick(at(104.6))) == []
    assert pings(liveness.tick(at(108.3))) == []
    assert state_of(liveness, HIGH) is State.ALIVE
    assert pings(liveness.tick(at(108.4))) == [PingPeer(peer=HIGH, message=Ping(number=3))]


# --- doubt --------------------------------------------------------------------------------------------------


def test_closed_link_with_a_refused_redial_is_dead_in_three_seconds() -> None:
    liveness = linked_to(HIGH)
    assert changes(liveness.on_down(HIGH, "reset", at(110))) == [
        OpinionChanged(peer=HIGH, opinion=opinion(State.SUSPECT, 110, "link closed: reset"))
    ]
    assert liveness.on_dial_failed(HIGH, True, at(110.1)) == []
    deadline = liveness.next_deadline()
    assert deadline is not None
    assert changes(liveness.tick(at(110 + CLOSED_DEAD_AFTER_S - 0.001))) == []
    assert changes(liveness.tick(at(110 + CLOSED_DEAD_AFTER_S))) == [
        OpinionChanged(peer=HIGH, opinion=opinion(State.DEAD, 113, "link closed: reset"))
    ]


def test_closed_link_with_an_unanswered_redial_takes_the_longer_time() -> None:
    liveness = linked_to(HIGH)
    liveness.on_down(HIGH, "reset", at(110))
    assert liveness.on_dial_failed(HIGH, False, at(114)) == []
    assert changes(liveness.tick(at(110 + SILENT_DEAD_AFTER_S - 0.001))) == []
    assert [one.opinion.state for one in changes(liveness.tick(at(110 + SILENT_DEAD_AFTER_S)))] == [
        State.DEAD
    ]


def test_late_refusal_of_a_redial_settles_it_at_once() -> None:
    liveness = linked_to(HIGH)
    liveness.on_down(HIGH, "reset", at(110))
    assert changes(liveness.on_dial_failed(HIGH, True, at(115))) == [
        OpinionChanged(peer=HIGH, opinion=opinion(State.DEAD, 115, "redial refused"))
    ]


def test_failed_dial_says_nothing_about_a_linked_peer() -> None:
    liveness = linked_to(HIGH)
    assert liveness.on_dial_failed(HIGH, True, at(101)) == []
    assert liveness.on_dial_failed(FAR, True, at(101)) == []
    assert state_of(liveness, HIGH) is State.ALIVE


def test_old_refusal_does_not_shorten_a_later_doubt() -> None:
    liveness = linked_to(HIGH)
    liveness.on_down(HIGH, "reset", at(110))
    liveness.on_dial_failed(HIGH, True, at(110))
    liveness.on_up(HIGH, at(120))
    liveness.on_down(HIGH, "reset", at(130))
    liveness.tick(at(130 + SILENT_DEAD_AFTER_S - 0.001))
    assert state_of(liveness, HIGH) is State.SUSPECT


def test_silent_peer_is_suspect_then_dead_and_its_link_is_given_up() -> None:
    liveness = linked_to(HIGH)
    seen: list[tuple[float, LivenessEffect]] = []
    for now_s in deadlines_until(liveness, 130.0):
        effects = liveness.tick(at(now_s))
        seen += [(now_s, one) for one in effects if isinstance(one, OpinionChanged | LinkIsSilent)]
        if any(isinstance(one, LinkIsSilent) for one in effects):
            break
    doubted_s = 100 + PING_AFTER_LOWER_S + TIMEOUT_MIN_S
    (suspected_s, suspect), (dead_s, dead), (given_up_s, silent) = seen
    assert suspected_s == pytest.approx(doubted_s)
    assert suspect == OpinionChanged(
        peer=HIGH, opinion=opinion(State.SUSPECT, suspected_s, "a ping went unanswered")
    )
    assert dead_s == given_up_s
    assert SILENT_DEAD_AFTER_S <= dead_s - doubted_s <= SILENT_DEAD_AFTER_S + 1.0
    assert dead == OpinionChanged(peer=HIGH, opinion=opinion(State.DEAD, dead_s, "a ping went unanswered"))
    assert silent == LinkIsSilent(peer=HIGH)


def test_peer_in_doubt_is_pinged_every_second() -> None:
    liveness = linked_to(HIGH)
    sent = [
        now_s
        for now_s in deadlines_until(liveness, 111.0)
        for one in pings(liveness.tick(at(now_s)))
        if one.peer == HIGH
    ]
    assert sent == pytest.approx([104.0, 104.5, 105.5, 106.5, 107.5, 108.5, 109.5, 110.5])


@pytest.mark.parametrize("after_s", [4.6, 8.0, 30.0])
def test_anything_heard_refutes_doubt_and_death(after_s: float) -> None:
    liveness = linked_to(HIGH)
    for now_s in deadlines_until(liveness, 100 + after_s):
        liveness.tick(at(now_s))
    assert state_of(liveness, HIGH) is not State.ALIVE
    assert changes(liveness.on_heard(HIGH, at(100 + after_s))) == [
        OpinionChanged(peer=HIGH, opinion=opinion(State.ALIVE, 100 + after_s, "linked"))
    ]
    assert changes(liveness.tick(at(101 + after_s))) == []


def test_death_is_refuted_by_a_new_link() -> None:
    liveness = linked_to(HIGH)
    liveness.on_down(HIGH, "reset", at(110))
    liveness.tick(at(200))
    assert state_of(liveness, HIGH) is State.DEAD
    assert changes(liveness.on_up(HIGH, at(300))) == [
        OpinionChanged(peer=HIGH, opinion=opinion(State.ALIVE, 300, "linked"))
    ]


# --- vouchers -----------------------------------------------------------------------------------------------


def test_voucher_keeps_a_peer_alive_and_is_named() -> None:
    liveness = linked_to(HIGH, FAR)
    liveness.on_sight(HIGH, Sight(linked=(ME, FAR)), at(109))
    assert changes(liveness.on_down(FAR, "reset", at(110))) == [
        OpinionChanged(
            peer=FAR,
            opinion=Opinion(
                state=State.ALIVE,
                since_unix_s=EPOCH_S + 100,
                because="another member has a link to it",
                voucher=HIGH,
            ),
        )
    ]


def test_voucher_that_takes_its_word_back_leaves_a_doubt() -> None:
    liveness = linked_to(HIGH, FAR)
    liveness.on_sight(HIGH, Sight(linked=(ME, FAR)), at(109))
    liveness.on_down(FAR, "reset", at(110))
    liveness.on_dial_failed(FAR, True, at(110))
    assert state_of(liveness, FAR) is State.ALIVE
    assert changes(liveness.on_sight(HIGH, Sight(linked=(ME,)), at(111))) == [
        OpinionChanged(peer=FAR, opinion=opinion(State.SUSPECT, 111, "nobody has a link to it any more"))
    ]
    assert [one.opinion.state for one in changes(liveness.tick(at(111 + CLOSED_DEAD_AFTER_S)))] == [
        State.DEAD
    ]


def test_vouchers_word_expires() -> None:
    liveness = linked_to(HIGH, FAR)
    liveness.on_sight(HIGH, Sight(linked=(FAR,)), at(109))
    liveness.on_down(FAR, "reset", at(110))
    talk(liveness, HIGH, 110, 109 + SIGHT_FRESH_S)
    assert state_of(liveness, FAR) is State.ALIVE
    talk(liveness, HIGH, 109 + SIGHT_FRESH_S, 110 + SIGHT_FRESH_S)
    assert state_of(liveness, FAR) is State.SUSPECT


def test_voucher_that_is_lost_itself_vouches_no_more() -> None:
    liveness = linked_to(HIGH, FAR)
    liveness.on_sight(HIGH, Sight(linked=(FAR,)), at(109))
    liveness.on_down(FAR, "reset", at(110))
    effects = changes(liveness.on_down(HIGH, "reset", at(111)))
    assert [(one.peer, one.opinion.state) for one in effects] == [
        (HIGH, State.SUSPECT),
        (FAR, State.SUSPECT),
    ]


def test_nobody_vouches_for_itself() -> None:
    liveness = linked_to(HIGH)
    liveness.on_sight(HIGH, Sight(linked=(HIGH, ME)), at(105))
    liveness.on_down(HIGH, "reset", at(106))
    assert state_of(liveness, HIGH) is State.SUSPECT


def test_we_vouch_for_nobody_whom_we_doubt() -> None:
    liveness = linked_to(LOW, HIGH)
    talk(liveness, HIGH, 100, 110)
    assert state_of(liveness, LOW) is State.SUSPECT
    told = [one.message for one in liveness.on_up(FAR, at(110)) if isinstance(one, PingPeer)]
    sights = [message for message in told if isinstance(message, Sight)]
    assert sights
    assert {sight.linked for sight in sights} == {(HIGH, FAR)}


def test_a_link_is_better_than_a_voucher() -> None:
    liveness = linked_to(HIGH, FAR)
    liveness.on_sight(HIGH, Sight(linked=(FAR,)), at(109))
    liveness.on_down(FAR, "reset", at(110))
    assert changes(liveness.on_up(FAR, at(111))) == [
        OpinionChanged(peer=FAR, opinion=opinion(State.ALIVE, 100, "linked"))
    ]


def test_sight_is_repeated_well_within_its_life() -> None:
    liveness = linked_to(HIGH)
    told: list[float] = []
    for now_s in deadlines_until(liveness, 160.0):
        liveness.on_heard(HIGH, at(now_s))
        effects = liveness.tick(at(now_s))
        told += [now_s for one in effects if isinstance(one, PingPeer) and isinstance(one.message, Sight)]
    assert told == pytest.approx([100 + SIGHT_INTERVAL_S * number for number in range(1, 13)])
    assert SIGHT_FRESH_S >= 3 * SIGHT_INTERVAL_S


# --- meshes of two and three --------------------------------------------------------------------------------


def test_mesh_of_one_waits_for_nothing() -> None:
    liveness = Liveness(ME)
    assert liveness.watch([ME], at(0)) == []
    assert liveness.next_deadline() is None
    assert liveness.tick(at(100)) == []


def test_of_two_each_alone_declares_the_other_dead_after_the_full_time() -> None:
    for mine, other in ((LOW, HIGH), (HIGH, LOW)):
        liveness = linked_to(other, me=mine)
        liveness.on_down(other, "reset", at(110))
        liveness.on_dial_failed(other, True, at(110))
        liveness.tick(at(110 + CLOSED_DEAD_AFTER_S))
        assert state_of(liveness, other) is State.DEAD


def test_of_three_two_agree_on_the_third_without_vouching_for_each_others_stale_word() -> None:
    """Both lose the third at once; each has still heard the other vouch for it."""
    left, right = linked_to(HIGH, FAR, me=LOW), linked_to(LOW, FAR, me=HIGH)
    left.on_sight(HIGH, Sight(linked=(LOW, FAR)), at(109))
    right.on_sight(LOW, Sight(linked=(HIGH, FAR)), at(109))
    told_right = left.on_down(FAR, "reset", at(110))
    told_left = right.on_down(FAR, "reset", at(110))
    for one in told_right:
        if isinstance(one, PingPeer) and isinstance(one.message, Sight):
            right.on_sight(LOW, one.message, at(110.01))
    for one in told_left:
        if isinstance(one, PingPeer) and isinstance(one.message, Sight):
            left.on_sight(HIGH, one.message, at(110.01))
    for liveness in (left, right):
        liveness.on_dial_failed(FAR, True, at(110.02))
        assert state_of(liveness, FAR) is State.SUSPECT
        liveness.tick(at(110.01 + CLOSED_DEAD_AFTER_S))
        assert state_of(liveness, FAR) is State.DEAD


# --- round trips --------------------------------------------------------------------------------------------


def test_first_round_trip_sets_the_time_out_as_rfc_6298_says() -> None:
    liveness = Liveness(ME)
    liveness.on_up(HIGH, at(0.5))
    assert timeout_of(liveness) == TIMEOUT_FIRST_S
    liveness.on_pong(HIGH, Pong(number=1), at(0.7))
    # Section 2.2: SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 RTTVAR.
    assert liveness.rtt_s(HIGH) == pytest.approx(0.2)
    assert timeout_of(liveness) == pytest.approx(0.2 + 4 * 0.1)


@given(samples=st.lists(st.floats(0.001, 3.0), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_later_round_trips_are_smoothed_as_rfc_6298_says(samples: list[float]) -> None:
    liveness = Liveness(ME)
    liveness.on_up(HIGH, at(1.0))
    now_s, srtt, rttvar = 1.0, 0.0, 0.0
    for number, sample in enumerate(samples, start=1):
        liveness.on_heard(HIGH, at(now_s + sample))
        liveness.on_pong(HIGH, Pong(number=number), at(now_s + sample))
        now_s += sample + PING_AFTER_LOWER_S + 0.001
        liveness.tick(at(now_s))
        if number == 1:
            srtt, rttvar = sample, sample / 2
        else:
            rttvar = 0.75 * rttvar + 0.25 * abs(srtt - sample)
            srtt = 0.875 * srtt + 0.125 * sample
        assert liveness.rtt_s(HIGH) == pytest.approx(srtt)
        assert timeout_of(liveness) == pytest.approx(max(TIMEOUT_MIN_S, srtt + 4 * rttvar))


def test_answer_to_another_ping_measures_nothing() -> None:
    liveness = Liveness(ME)
    liveness.on_up(HIGH, at(1))
    assert liveness.on_pong(HIGH, Pong(number=2), at(2)) == []
    assert liveness.on_pong(FAR, Pong(number=1), at(2)) == []
    assert liveness.rtt_s(HIGH) is None
    liveness.on_pong(HIGH, Pong(number=1), at(2))
    liveness.on_pong(HIGH, Pong(number=1), at(9))
    assert liveness.rtt_s(HIGH) == pytest.approx(1.0)


def test_late_answer_to_a_ping_under_other_traffic_is_still_measured() -> None:
    liveness = linked_to(HIGH)
    liveness.tick(at(104))
    for number in range(20):
        now_s = 104.1 + number * 0.1
        liveness.on_heard(HIGH, at(now_s))
        assert changes(liveness.tick(at(now_s))) == []
    liveness.on_pong(HIGH, Pong(number=2), at(106.0))
    assert (liveness.rtt_s(HIGH) or 0) > 0.2


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_deadline_stands_still_whatever_happens(data: st.DataObject) -> None:
    """Ticking at a deadline moves it on: a machine that asks for the same moment again spins."""
    liveness, now_s = Liveness(ME), 5.0
    liveness.watch([LOW, HIGH, FAR], at(now_s))
    for _ in range(data.draw(st.integers(1, 25))):
        node = data.draw(st.sampled_from([LOW, HIGH, FAR]))
        now_s += data.draw(st.sampled_from([0.0, 0.01, 0.5, 1.0, 4.0, 9.0]))
        match data.draw(st.sampled_from(["up", "down", "heard", "refused", "sight", "pong"])):
            case "up":
                liveness.on_up(node, at(now_s))
            case "down":
                liveness.on_down(node, "reset", at(now_s))
            case "heard":
                liveness.on_heard(node, at(now_s))
            case "refused":
                liveness.on_dial_failed(node, True, at(now_s))
            case "sight":
                liveness.on_sight(
                    node, Sight(linked=tuple(data.draw(st.sets(st.sampled_from([LOW, FAR]))))), at(now_s)
                )
            case _:
                liveness.on_pong(node, Pong(number=data.draw(st.integers(1, 3))), at(now_s))
        ticks = 0
        while (deadline := liveness.next_deadline()) is not None and deadline.at_s <= now_s:
            liveness.tick(at(now_s))
            ticks += 1
            assert ticks < 3, deadline


# --- helpers ------------------------------------------------------------------------------------------------


def at(mono_s: float) -> Instant:
    return Instant(mono_s, EPOCH_S + mono_s)


def opinion(state: State, since_s: float, because: str) -> Opinion:
    return Opinion(state=state, since_unix_s=EPOCH_S + since_s, because=because)


def state_of(liveness: Liveness, node: NodeId) -> State | None:
    held = liveness.opinion(node)
    return held.state if held else None


def linked_to(*peers: NodeId, me: NodeId = ME) -> Liveness:
    """A node linked to these since 100 s; the first ping took 10 ms."""
    liveness = Liveness(me)
    liveness.watch(list(peers), at(90))
    for peer in peers:
        liveness.on_up(peer, at(100))
    for peer in peers:
        liveness.on_pong(peer, Pong(number=1), at(100.01))
    return liveness


def changes(effects: list[LivenessEffect]) -> list[OpinionChanged]:
    return [one for one in effects if isinstance(one, OpinionChanged)]


def pings(effects: list[LivenessEffect]) -> list[PingPeer]:
    return [one for one in effects if isinstance(one, PingPeer) and isinstance(one.message, Ping)]


def timeout_of(liveness: Liveness) -> float:
    return liveness._peers[HIGH].timeout_s


def talk(liveness: Liveness, peer: NodeId, from_s: float, to_s: float) -> None:
    """The peer says something every half second."""
    now_s = from_s
    while now_s < to_s:
        liveness.on_heard(peer, at(now_s))
        liveness.tick(at(now_s))
        now_s += 0.5


def deadlines_until(liveness: Liveness, end_s: float) -> Iterator[float]:
    """Yields every moment at which the machine asks for a tick."""
    while (deadline := liveness.next_deadline()) is not None and deadline.at_s <= end_s:
        yield deadline.at_s

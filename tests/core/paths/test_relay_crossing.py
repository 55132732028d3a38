"""A relay learns where ends are from handshakes that were answered, and nothing else moves them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relay_packets_kit import cookie, data, initiation, response

from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_binding import Binding, BindingKind, read_binding, write_binding
from meshpeer.core.paths.relay_bucket import Bucket
from meshpeer.core.paths.relay_crossing import (
    INDICES_MAX,
    STRANGE_HANDSHAKES_BURST,
    STRANGE_PACKETS_BURST,
    UNANSWERED_MAX,
    Crossing,
    Drop,
    Way,
)

ALPHA, BRAVO = WireGuardKey(b"a" * 32), WireGuardKey(b"b" * 32)
OTHERS = (WireGuardKey(b"c" * 32), WireGuardKey(b"d" * 32))
A, B = Way("192.0.2.1", 51820, "10.0.0.1", 2), Way("198.51.100.2", 40000, "10.0.0.1", 2)
ELSEWHERE, STRANGER = Way("203.0.113.5", 51820, "10.0.0.1", 2), Way("203.0.113.66", 666, "10.0.0.1", 2)
SECRETS = (b"s" * 32, b"t" * 32)
A_INDEX, B_INDEX = 0xA0A0A0A0, 0xB0B0B0B0


def crossing(rate: float = 1e9) -> Crossing:
    return Crossing((ALPHA, BRAVO), Bucket(rate, rate), Bucket(1e9, 1e9))


def working() -> Crossing:
    """Returns a pair whose ends have shaken hands: end 0 began, and end 1 had tried before."""
    pair = crossing()
    assert pair.carry(1, B, initiation(1, ALPHA), 0) is None
    assert pair.carry(0, A, initiation(A_INDEX, BRAVO), 0) == B
    assert pair.carry(1, B, response(B_INDEX, A_INDEX, ALPHA), 0) == A
    assert ways(pair) == (A, B)
    assert pair.proved
    return pair


def ways(pair: Crossing) -> tuple[Way | None, Way | None]:
    return pair.ends[0].way, pair.ends[1].way


# --- learning -----------------------------------------------------------------------------------------------


def test_nothing_crosses_before_both_ends_were_heard_of() -> None:
    pair = crossing()
    assert pair.carry(0, A, initiation(A_INDEX, BRAVO), 0) is None
    assert pair.drops == {Drop.NOWHERE: 1}
    assert not pair.proved


def test_data_crosses_both_ways_once_a_handshake_was_answered() -> None:
    pair = working()
    assert pair.carry(0, A, data(B_INDEX), 1) == B
    assert pair.carry(1, B, data(A_INDEX, 1472), 1) == A
    assert [(end.packets, end.bytes) for end in pair.ends] == [(2, 148 + 32), (2, 92 + 1472)]


def test_an_end_that_was_only_guessed_sends_no_data() -> None:
    pair = crossing()
    pair.carry(1, B, initiation(1, ALPHA), 0)
    pair.carry(0, A, initiation(A_INDEX, BRAVO), 0)
    assert pair.carry(0, A, data(1), 0) is None
    assert pair.drops[Drop.INDEX] == 1


def test_a_guess_gives_way_to_the_next_one_and_the_answer_settles_it() -> None:
    pair = crossing()
    pair.carry(0, STRANGER, initiation(666, BRAVO), 0)
    pair.carry(1, B, initiation(1, ALPHA), 0)
    assert pair.carry(0, A, initiation(A_INDEX, BRAVO), 0) == B
    assert pair.carry(1, B, response(B_INDEX, A_INDEX, ALPHA), 0) == A
    assert ways(pair) == (A, B)


def test_an_end_that_roams_is_followed_by_its_session() -> None:
    for packet in (data(B_INDEX), cookie(B_INDEX)):
        pair = working()
        assert pair.carry(0, ELSEWHERE, packet, 1) == B
        assert pair.carry(1, B, data(A_INDEX), 1) == ELSEWHERE


def test_an_end_that_started_anew_elsewhere_is_followed_with_its_first_data() -> None:
    pair = working()
    assert pair.carry(0, ELSEWHERE, initiation(77, BRAVO), 1) == B
    assert pair.carry(1, B, response(88, 77, ALPHA), 1) == ELSEWHERE
    assert ways(pair) == (A, B)
    assert pair.carry(0, ELSEWHERE, data(88), 1) == B
    assert ways(pair) == (ELSEWHERE, B)
    assert pair.carry(1, B, data(77), 1) == ELSEWHERE


def test_an_answer_goes_where_its_question_came_from() -> None:
    pair = working()
    pair.carry(0, ELSEWHERE, initiation(77, BRAVO), 1)
    pair.carry(0, A, initiation(78, BRAVO), 1)
    assert pair.carry(1, B, response(88, 77, ALPHA), 1) == ELSEWHERE
    assert pair.carry(1, B, response(89, 78, ALPHA), 1) == A
    assert pair.carry(0, STRANGER, initiation(79, BRAVO), 1) == B
    assert pair.carry(1, B, cookie(79), 1) == STRANGER
    assert ways(pair) == (A, B)


def test_an_answer_uses_the_address_that_was_asked() -> None:
    pair = working()
    other_local = A._replace(local="10.0.0.9")
    assert pair.carry(0, other_local, data(B_INDEX), 1) == B
    assert pair.carry(1, B, data(A_INDEX), 1) == other_local


# --- hijacking ----------------------------------------------------------------------------------------------


def test_a_replayed_handshake_of_the_pair_itself_moves_nobody() -> None:
    pair = working()
    # The other end's WireGuard gets it, and does not answer: its time stamp is old.
    assert pair.carry(0, STRANGER, initiation(A_INDEX, BRAVO), 1) == B
    assert ways(pair) == (A, B)
    assert pair.carry(1, STRANGER, response(B_INDEX, A_INDEX, ALPHA), 1) is None
    assert ways(pair) == (A, B)


def test_a_lost_handshake_that_a_stranger_brings_moves_nobody_although_it_is_answered() -> None:
    # It is new to its receiver, and so to the relay where it was lost before that.
    pair = working()
    assert pair.carry(0, STRANGER, initiation(4, BRAVO), 1) == B
    assert pair.carry(1, B, response(5, 4, ALPHA), 1) == STRANGER
    assert ways(pair) == (A, B)


def test_who_brings_a_handshake_again_does_not_get_its_answer() -> None:
    for moment in ("before the other end was heard of", "while the answer is on its way"):
        pair = crossing() if moment.startswith("before") else working()
        pair.carry(0, A, initiation(4, BRAVO), 1)
        pair.carry(1, B, initiation(3, ALPHA), 1)
        assert pair.carry(0, STRANGER, initiation(4, BRAVO), 1) == B
        assert pair.carry(1, B, response(5, 4, ALPHA), 1) == A


def test_an_end_whose_packets_were_diverted_is_back_with_its_next_one() -> None:
    pair = working()
    assert pair.carry(0, STRANGER, data(B_INDEX), 1) == B
    assert pair.carry(0, A, data(B_INDEX), 1) == B
    assert ways(pair) == (A, B)


def test_who_knows_both_keys_can_not_answer_for_an_end() -> None:
    pair = working()
    pair.carry(0, STRANGER, initiation(666, BRAVO), 1)
    assert pair.carry(1, STRANGER, response(667, 666, ALPHA), 1) is None
    assert ways(pair) == (A, B)
    assert pair.ends[0].indices == (A_INDEX,)


def test_an_index_of_a_handshake_that_was_not_answered_opens_nothing() -> None:
    pair = working()
    pair.carry(0, STRANGER, initiation(666, BRAVO), 1)
    for packet in (data(666), cookie(666)):
        assert pair.carry(1, STRANGER, packet, 1) is None
    assert ways(pair) == (A, B)


def test_an_index_opens_the_port_of_the_other_end_alone() -> None:
    pair = working()
    assert pair.carry(0, STRANGER, data(A_INDEX), 1) is None
    assert pair.carry(1, STRANGER, data(B_INDEX), 1) is None
    assert pair.drops[Drop.INDEX] == 2


def test_the_right_index_of_another_pair_opens_nothing() -> None:
    pair, other = working(), Crossing(OTHERS, Bucket(1e9, 1e9), Bucket(1e9, 1e9))
    other.carry(1, B, initiation(1, OTHERS[0]), 0)
    other.carry(0, A, initiation(5, OTHERS[1]), 0)
    other.carry(1, B, response(6, 5, OTHERS[0]), 0)
    assert other.proved
    assert pair.carry(0, STRANGER, data(6), 1) is None
    assert ways(pair) == (A, B)


_FORGED = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda kind, rest: bytes([kind, 0, 0, 0]) + rest,
        st.integers(1, 4),
        st.one_of(*(st.binary(min_size=n, max_size=n) for n in (144, 88, 60, 28, 44))),
    ),
    # Handshakes of others, and of whoever knows this pair's keys; replays of this pair's own.
    st.builds(initiation, st.integers(0, 2**32 - 1), st.sampled_from([ALPHA, BRAVO, *OTHERS])),
    st.builds(
        response,
        st.integers(0, 2**32 - 1),
        st.sampled_from([A_INDEX, B_INDEX, 1, 5, 6]),
        st.sampled_from([ALPHA, BRAVO, *OTHERS]),
    ),
    st.sampled_from([initiation(A_INDEX, BRAVO), initiation(1, ALPHA), response(B_INDEX, A_INDEX, ALPHA)]),
    # Indices of another pair, and this pair's on the wrong side (see below).
    st.builds(data, st.sampled_from([5, 6, 1]), st.sampled_from([32, 48, 1472])),
    st.builds(cookie, st.sampled_from([5, 6])),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), _FORGED, st.floats(0, 10)), max_size=40))
def test_nothing_that_strangers_send_moves_an_end(sent: list[tuple[int, bytes, float]]) -> None:
    pair, now_s = working(), 1.0
    for side, packet, later_s in sent:
        now_s += later_s
        went = pair.carry(side, STRANGER, packet, now_s)
        # No answer of the other end: its WireGuard does not answer what is forged or old.
        assert went in (None, ways(pair)[1 - side])
        assert ways(pair) == (A, B)
        assert pair.proved
    assert pair.carry(0, A, data(B_INDEX), now_s) == B
    assert pair.carry(1, B, data(A_INDEX), now_s) == A
    assert all(len(end.unanswered) <= UNANSWERED_MAX for end in pair.ends)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([A, B, STRANGER]), _FORGED), max_size=40))
def test_one_packet_at_most_goes_out_for_one_that_came_in(sent: list[tuple[int, Way, bytes]]) -> None:
    pair, came = crossing(), 0
    for side, way, packet in sent:
        before = sum(end.packets for end in pair.ends)
        went = pair.carry(side, way, packet, 0)
        assert sum(end.packets for end in pair.ends) - before == (went is not None)
        came += 1
    assert sum(end.packets for end in pair.ends) + sum(pair.drops.values()) == came


# --- bindings -----------------------------------------------------------------------------------------------


def bound(*sides: int) -> Crossing:
    """Returns a pair of which these ends were shown where they are, and no handshake was seen."""
    pair = Crossing((ALPHA, BRAVO), Bucket(1e9, 1e9), Bucket(1e9, 1e9), SECRETS)
    for side in sides:
        assert pair.bind(side, (A, B)[side], question(1, side), 0) is not None
    return pair


def question(stamp: int, side: int) -> bytes:
    return write_binding(Binding(BindingKind.QUESTION, stamp), SECRETS[side])


def test_a_session_that_was_never_seen_to_begin_crosses_between_bound_ends() -> None:
    pair = bound(0, 1)
    assert pair.proved
    assert pair.carry(0, A, data(0x12345678), 1) == B
    assert pair.carry(1, B, data(0x87654321, 1452), 1) == A


def test_where_one_end_alone_is_bound_no_data_crosses() -> None:
    pair = bound(0)
    assert not pair.proved
    assert pair.carry(0, A, data(1), 1) is None
    assert pair.carry(1, B, data(1), 1) is None
    assert pair.drops == {Drop.NOWHERE: 1, Drop.INDEX: 1}


def test_a_binding_is_answered_by_one_as_long_with_its_stamp() -> None:
    pair = bound()
    asked = question(7, 1)
    answer = pair.bind(1, B, asked, 0)
    assert answer is not None
    assert len(answer) == len(asked)
    assert read_binding(answer, SECRETS[1]) == Binding(BindingKind.ANSWER, 7)


def test_an_end_that_binds_elsewhere_is_there_from_then_on() -> None:
    pair = bound(0, 1)
    assert pair.bind(0, ELSEWHERE, question(2, 0), 1) is not None
    assert pair.carry(1, B, data(1), 1) == ELSEWHERE
    assert pair.carry(0, A, data(1), 1) is None


def test_a_replay_another_ends_secret_an_answer_and_a_relay_without_secrets_bind_nobody() -> None:
    pair = bound(0, 1)
    answer = write_binding(Binding(BindingKind.ANSWER, 9), SECRETS[0])
    for packet in (question(1, 0), question(0, 0), question(9, 1), answer):
        assert pair.bind(0, STRANGER, packet, 1) is None
    assert pair.drops == {Drop.REPLAY: 2, Drop.MAC: 2}
    assert ways(pair) == (A, B)
    assert crossing().bind(0, STRANGER, write_binding(Binding(BindingKind.QUESTION, 1), b""), 1) is None


def test_a_check_is_answered_once_and_moves_nobody() -> None:
    pair = bound()
    before = [(end.way, end.proved) for end in pair.ends]
    packet = write_binding(Binding(BindingKind.CHECK, 9), SECRETS[0])
    answer = pair.bind(0, ELSEWHERE, packet, 1)
    assert answer is not None
    assert len(answer) == len(packet)
    assert read_binding(answer, SECRETS[0]) == Binding(BindingKind.ANSWER, 9)
    assert [(end.way, end.proved) for end in pair.ends] == before
    assert pair.bind(0, ELSEWHERE, packet, 1) is None


def test_a_frozen_pair_binds_nobody() -> None:
    pair = bound(0, 1)
    pair.freeze(5.0)
    assert pair.bind(0, ELSEWHERE, question(2, 0), 4.9) is not None
    assert pair.bind(0, A, question(3, 0), 5.0) is None
    assert ways(pair) == (ELSEWHERE, B)


def test_bindings_of_strangers_are_looked_at_so_often_and_the_ends_own_always() -> None:
    pair = bound(0, 1)
    for _ in range(STRANGE_PACKETS_BURST + 5):
        pair.bind(0, STRANGER, question(5, 1), 1)
    assert pair.drops == {Drop.MAC: STRANGE_PACKETS_BURST, Drop.FLOOD: 5}
    assert pair.bind(0, A, question(2, 0), 1) is not None


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.one_of(
                st.binary(min_size=32, max_size=32),
                st.builds(question, st.integers(0, 1), st.integers(0, 1)),
                st.builds(
                    lambda stamp, secret: write_binding(Binding(BindingKind.QUESTION, stamp), secret),
                    st.integers(2, 2**64 - 1),
                    st.binary(min_size=32, max_size=32),
                ),
            ),
        ),
        max_size=30,
    )
)
def test_who_has_no_secret_moves_no_end_whatever_was_overheard(sent: list[tuple[int, bytes]]) -> None:
    pair = bound(0, 1)
    for side, packet in sent:
        assert pair.bind(side, STRANGER, packet, 1) is None
        assert ways(pair) == (A, B)


# --- bounds -------------------------------------------------------------------------------------------------


def test_strangers_do_not_push_out_an_ends_own_handshake() -> None:
    pair = working()
    assert pair.carry(0, A, initiation(77, BRAVO), 1) == B
    for number in range(100):
        pair.carry(0, STRANGER, initiation(number, BRAVO), 1)
    assert pair.drops[Drop.FLOOD] == 100 - STRANGE_HANDSHAKES_BURST
    assert pair.carry(1, B, response(88, 77, ALPHA), 1) == A


def test_guessing_an_index_is_slow() -> None:
    pair = working()
    for number in range(STRANGE_PACKETS_BURST + 10):
        pair.carry(0, STRANGER, data(number), 1)
    assert pair.drops == {Drop.NOWHERE: 1, Drop.INDEX: STRANGE_PACKETS_BURST, Drop.FLOOD: 10}
    assert pair.carry(0, A, data(B_INDEX), 1) == B


def test_only_the_newest_sessions_count() -> None:
    pair = working()
    for number in range(INDICES_MAX):
        pair.carry(0, A, initiation(100 + number, BRAVO), 1)
        pair.carry(1, B, response(200 + number, 100 + number, ALPHA), 1)
    assert pair.carry(0, ELSEWHERE, data(B_INDEX), 1) is None
    assert pair.carry(0, ELSEWHERE, data(200), 1) == B


def test_a_pair_carries_no_more_than_its_rate() -> None:
    pair = crossing(rate=1_000)
    pair.carry(1, B, initiation(1, ALPHA), 0)
    pair.carry(0, A, initiation(A_INDEX, BRAVO), 0)
    pair.carry(1, B, response(B_INDEX, A_INDEX, ALPHA), 0)
    assert pair.carry(0, A, data(B_INDEX, 800), 0) is None
    assert pair.drops[Drop.RATE] == 1
    assert pair.carry(0, A, data(B_INDEX, 800), 1) == B


def test_of_a_batch_as_many_cross_as_may() -> None:
    pair = crossing(rate=1_000)
    assert pair.spend(0, [400, 400, 400], 0) == 2
    assert pair.spend(0, [400, 100], 0) == 0
    assert pair.spend(0, [100], 0) == 1
    assert (pair.ends[0].packets, pair.ends[0].bytes, pair.drops) == (3, 900, {Drop.RATE: 3})


def test_all_pairs_carry_no_more_than_the_total() -> None:
    total = Bucket(1_000, 300)
    pair = Crossing((ALPHA, BRAVO), Bucket(1e9, 1e9), total)
    pair.carry(1, B, initiation(1, ALPHA), 0)
    assert pair.carry(0, A, initiation(A_INDEX, BRAVO), 0) == B
    assert total.take(152, 0)
    assert pair.carry(1, B, response(B_INDEX, A_INDEX, ALPHA), 0) is None


# --- freezing -----------------------------------------------------------------------------------------------


def test_a_frozen_pair_carries_nothing_from_the_instant_on_and_learns_nothing() -> None:
    pair = working()
    pair.freeze(5.0)
    assert pair.freezes
    assert pair.carry(0, A, data(B_INDEX), 4.9) == B
    assert pair.carry(0, A, data(B_INDEX), 5.0) is None
    assert pair.carry(0, ELSEWHERE, data(B_INDEX), 5.0) is None
    assert pair.drops == {Drop.NOWHERE: 1, Drop.FROZEN: 2}
    assert ways(pair) == (A, B)


def test_a_woken_pair_goes_on_at_once_with_sessions_that_the_relay_never_saw() -> None:
    pair = working()
    pair.freeze(5.0)
    pair.wake()
    assert pair.carry(0, A, data(0x12345678), 6) == B


def test_a_revision_tells_that_ways_or_the_freeze_changed() -> None:
    pair = working()
    seen = pair.revision
    pair.carry(0, A, data(B_INDEX), 1)
    pair.carry(1, STRANGER, data(B_INDEX), 1)
    assert pair.revision == seen
    pair.carry(0, ELSEWHERE, data(B_INDEX), 1)
    assert pair.revision > seen


@pytest.mark.parametrize("packet", [b"", b"\4\0\0\0", b"\5" + bytes(147), bytes(148)])
def test_what_wireguard_never_sends_is_counted_and_dropped(packet: bytes) -> None:
    pair = working()
    assert pair.carry(0, A, packet, 1) is None
    assert pair.drops[Drop.MALFORMED] == 1


# --- changed keys -------------------------------------------------------------------------------------------


def test_an_end_that_changes_its_key_is_answered_under_the_next_one_and_stays_where_it_is() -> None:
    pair = working()
    later = OTHERS[0]
    assert pair.carry(1, B, initiation(7, later), 1) is None
    assert pair.drops[Drop.MAC] == 1
    pair.rekey(((ALPHA, later), (BRAVO,)))
    assert ways(pair) == (A, B)
    assert pair.carry(0, A, initiation(5, BRAVO), 1) == B
    assert pair.carry(1, B, response(6, 5, later), 1) == A
    assert pair.carry(1, B, initiation(8, ALPHA), 1) == A
    pair.rekey(((later,), (BRAVO,)))
    assert pair.carry(1, B, initiation(9, ALPHA), 1) is None
    assert pair.carry(1, B, initiation(10, later), 1) == A

"""A relay is taken up only where its port was reached; one that is not costs no session, and little time."""

from __future__ import annotations

import dataclasses
from random import Random

import pytest
from hypothesis import Phase as Stage
from hypothesis import given, settings
from hypothesis import strategies as st
from relayed_kit import HIGH, LOW, RELAYS, UNIX_S, Pair

from meshpeer.core.deadline import Instant
from meshpeer.core.paths.bindings import Place
from meshpeer.core.paths.lent import Lent
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.patience import DIRECT_FIRST_S
from meshpeer.core.paths.reach import AGAIN_S, REACH_S, REACHED_LASTS_S, Reach
from meshpeer.core.paths.relay_binding import BindingKind
from meshpeer.core.paths.relay_messages import RelayGranted
from meshpeer.core.paths.relayed import TRY_S
from meshpeer.core.paths.relayed_look import PairLook
from meshpeer.core.paths.reservation import LEASE_S

RELAY, OTHER = RELAYS[:2]
END = "198.51.100.1:51830"
LOOK = PairLook(wanted=True, probes=True, checks=True)


def at(at_s: float) -> Instant:
    return Instant(at_s, UNIX_S + at_s)


def granted(*, checks: bool = True, bind: bytes = b"s" * 32) -> Reach:
    lent = Lent((LOW, HIGH))
    lent.follow(((RELAY, "198.51.100.1"), (OTHER, "198.51.100.2")))
    grant = RelayGranted(pair=lent.pair, port=51830, lasts_s=120, bind=bind, checks=checks)
    lent.on_message(RELAY, grant, at(0))
    return Reach(lent)


def test_a_relay_is_checked_where_it_lends_and_may_be_taken_up_once_it_answered() -> None:
    reach = granted()
    assert reach.follow(RELAY, LOOK, at(0)) is None
    assert reach.place == Place(END, b"s" * 32, BindingKind.CHECK)
    assert not reach.allows(RELAY, at(0))
    assert reach.follow(RELAY, dataclasses.replace(LOOK, bound=(END, 0.1)), at(0.1)) is None
    assert reach.allows(RELAY, at(0.1))
    assert reach.take_found() == {RELAY: True}
    assert reach.take_found() == {}


def test_a_relay_that_answers_nothing_is_named_once_and_left_alone_for_longer_each_time() -> None:
    reach = granted()
    now_s = 0.0
    for times in range(3):
        began_s = now_s
        while (shut := reach.follow(RELAY, LOOK, at(now_s))) is None:
            due = reach.next_deadline()
            assert due is not None
            now_s = min(now_s + 1.0, due.at_s)
        assert (shut, now_s - began_s) == (RELAY, pytest.approx(REACH_S))
        assert reach.place is None
        assert reach.take_found() == {RELAY: False}
        for later_s, passes in (
            (0.0, True),
            (AGAIN_S * 2.0**times - 0.1, True),
            (AGAIN_S * 2.0**times, False),
        ):
            assert reach.back_off.passes_over(RELAY, at(now_s + later_s)) is passes
        now_s += 60.0


@pytest.mark.parametrize(
    ("reach", "look"),
    [
        (granted(checks=False), LOOK),
        (granted(bind=b""), LOOK),
        (granted(), dataclasses.replace(LOOK, checks=False)),
    ],
    ids=["the relay answers no checks", "it gave no secret", "this machine can't ask"],
)
def test_where_nothing_can_be_asked_a_relay_is_taken_at_its_word(reach: Reach, look: PairLook) -> None:
    for now_s in (0.0, 1.0, 5.0):
        assert reach.follow(RELAY, look, at(now_s)) is None
        assert reach.allows(RELAY, at(now_s))
    assert reach.place is None
    assert reach.next_deadline() is None


def test_an_answer_of_another_port_is_none_and_one_that_is_old_vouches_for_nothing() -> None:
    reach = granted()
    strange = dataclasses.replace(LOOK, bound=("198.51.100.1:51831", 0.1))
    reach.follow(RELAY, strange, at(0.1))
    assert not reach.allows(RELAY, at(0.1))
    bound = dataclasses.replace(LOOK, bound=(END, 0.2))
    reach.follow(RELAY, bound, at(0.2))
    for now_s in range(1, 10):
        assert reach.follow(RELAY, bound, at(now_s)) is None
    assert not reach.allows(RELAY, at(0.2 + REACHED_LASTS_S))


def test_an_end_that_was_not_let_run_does_not_blame_the_relay() -> None:
    reach = granted()
    reach.follow(RELAY, LOOK, at(0))
    # Its answers lie unread.
    assert reach.follow(RELAY, LOOK, at(30)) is None
    reach.follow(RELAY, dataclasses.replace(LOOK, bound=(END, 30.0)), at(30.1))
    assert reach.allows(RELAY, at(30.1))


# --- pairs --------------------------------------------------------------------------------------------------


def shut(pair: Pair, *relays: int) -> None:
    """Lets no UDP to relays, whose links are up."""
    for end in pair.ends.values():
        end.blocked.update(RELAYS[number] for number in relays)


@pytest.mark.parametrize("relays", [1, 2])
def test_a_pair_that_missed_its_first_packet_keeps_its_tunnel_from_relays_that_nobody_reaches(
    relays: int,
) -> None:
    """A founder behind a port that is forwarded, and its relay's ports are not: the next try is direct."""
    pair = Pair(Outlook.LIKELY, probes=True, relays=relays)
    shut(pair, *range(relays))
    pair.run(DIRECT_FIRST_S[Outlook.LIKELY] + 2.0)
    pair.direct = True
    pair.run(1)
    assert pair.works()
    pair.run(LEASE_S + 5)
    assert pair.used == [(None, None)]
    assert [end.resets for end in pair.ends.values()] == [0, 0]
    assert not any(desk.reservations for desk in pair.desks.values())


def test_a_relay_that_nobody_reaches_costs_a_second_or_two_and_not_a_try() -> None:
    pair = Pair(Outlook.HOPELESS, probes=True)
    shut(pair, 0)
    waited_s = 0.0
    while not pair.works():
        pair.step()
        waited_s = pair.now_s - 100.0
        assert waited_s < TRY_S
    assert waited_s <= REACH_S + 2.0
    assert pair.relay() == RELAYS[1]
    assert [end.resets for end in pair.ends.values()] == [1, 1]


def test_a_relay_that_one_end_alone_reaches_is_none_for_both() -> None:
    pair = Pair(Outlook.HOPELESS, probes=True)
    pair.ends[HIGH].blocked.add(RELAYS[0])
    pair.run(TRY_S)
    assert pair.works()
    assert pair.relay() == RELAYS[1]


@pytest.mark.parametrize("asks", [LOW, HIGH])
def test_where_one_end_can_not_ask_both_have_another_relay_as_soon_as_the_other_end_knows(
    asks: bytes,
) -> None:
    pair = Pair(Outlook.HOPELESS, probes=True)
    shut(pair, 0)
    for node, end in pair.ends.items():
        end.probes = node == asks
    pair.run(TRY_S - 1)
    assert pair.works()
    assert pair.relay() == RELAYS[1]


def test_a_check_makes_a_relay_that_is_reached_no_slower() -> None:
    """Two rounds of the virtual wire, of which each step is one."""
    pair = Pair(Outlook.HOPELESS, probes=True)
    pair.run(2)
    assert pair.works()
    assert pair.relay() == RELAYS[0]
    assert [end.path.moves for end in pair.ends.values()] == [1, 1]


def test_the_only_relay_is_asked_now_and_then_until_it_is_reached() -> None:
    pair = Pair(Outlook.HOPELESS, probes=True, relays=1)
    shut(pair, 0)
    pair.run(300)
    assert not pair.works()
    assert [end.resets for end in pair.ends.values()] == [0, 0]
    for end in pair.ends.values():
        end.blocked.clear()
    pair.run(80)
    assert pair.works()


BLOCKS = st.lists(
    st.tuples(st.sampled_from([LOW, HIGH]), st.sampled_from(RELAYS), st.booleans(), st.floats(0.1, 8.0)),
    max_size=8,
)


@settings(max_examples=15, deadline=None, phases=(Stage.explicit, Stage.generate))
@given(blocks=BLOCKS, loss=st.sampled_from([0.0, 0.2]), seed=st.integers(0, 2**16))
def test_whatever_is_reached_by_both_in_the_end_carries_the_pair(
    blocks: list[tuple[bytes, bytes, bool, float]], loss: float, seed: int
) -> None:
    pair = Pair(Outlook.HOPELESS, probes=True, relays=3, wire=Random(seed))
    pair.loss, pair.late_s_max = loss, 0.3
    for end in pair.ends.values():
        end.mutes = True
    for node, relay, blocked, for_s in blocks:
        end = next(end for one, end in pair.ends.items() if one == node)
        (end.blocked.add if blocked else end.blocked.discard)(next(one for one in RELAYS if one == relay))
        pair.run(for_s)
    pair.loss = 0.0
    for end in pair.ends.values():
        end.blocked.discard(RELAYS[2])
    pair.run(150)
    assert pair.works()
    moves = [end.path.moves for end in pair.ends.values()]
    pair.run(60)
    assert pair.works()
    assert [end.path.moves for end in pair.ends.values()] == moves, "it flaps"

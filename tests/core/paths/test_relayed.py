"""Both ends of a pair use the same relay, change it together, and leave a direct tunnel alone."""

from __future__ import annotations

import pytest
from hypothesis import Phase as Stage
from hypothesis import given, settings
from hypothesis import strategies as st
from relayed_kit import HIGH, LOW, OWN, RELAYS, Pair

from meshpeer.core.paths.outlook import Outlook, Stand, outlook_of
from meshpeer.core.paths.patience import DIRECT_FIRST_S
from meshpeer.core.paths.relay import RelayLimits
from meshpeer.core.paths.relay_messages import RelayGranted
from meshpeer.core.paths.relayed import DIRECT_HOLDS_S, RelayedPath
from meshpeer.core.paths.relayed_look import Phase

HIDDEN = Stand(router="changing", reflected=True)
KEEPING = Stand(router="steady", reflected=True)
UNSURE = Stand(router="", reflected=True)
NAMED = Stand(router="changing", reflected=True, configured=True)
PUBLIC = Stand(router="none", public=True)
PLAIN = Stand()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (HIDDEN, HIDDEN, Outlook.HOPELESS),
        (HIDDEN, KEEPING, Outlook.HOPELESS),
        (HIDDEN, UNSURE, Outlook.HOPELESS),
        (HIDDEN, NAMED, Outlook.LIKELY),
        (HIDDEN, PUBLIC, Outlook.LIKELY),
        (HIDDEN, PLAIN, Outlook.UNKNOWN),
        (KEEPING, KEEPING, Outlook.OPEN),
        (KEEPING, UNSURE, Outlook.OPEN),
        (UNSURE, UNSURE, Outlook.OPEN),
        (PLAIN, PLAIN, Outlook.UNKNOWN),
    ],
)
def test_the_outlook_follows_from_the_records_of_both(one: Stand, other: Stand, expected: Outlook) -> None:
    assert outlook_of(one, other, near=False) is expected
    assert outlook_of(other, one, near=False) is expected


@pytest.mark.parametrize("stand", [HIDDEN, KEEPING, UNSURE, PLAIN])
def test_two_that_share_a_network_or_have_a_link_are_likely_to_meet(stand: Stand) -> None:
    assert outlook_of(stand, HIDDEN, near=True) is Outlook.LIKELY
    assert outlook_of(stand, HIDDEN, near=False, linked=True) is Outlook.LIKELY


@pytest.mark.parametrize("outlook", [Outlook.HOPELESS, Outlook.OPEN])
def test_a_pair_behind_two_routers_is_relayed_at_once(outlook: Outlook) -> None:
    pair = Pair(outlook)
    pair.run(2)
    assert pair.works()
    assert pair.relay() in RELAYS[:2]
    assert [end.path.moves for end in pair.ends.values()] == [1, 1]


@pytest.mark.parametrize("outlook", [Outlook.UNKNOWN, Outlook.LIKELY])
def test_direct_has_its_time_first(outlook: Outlook) -> None:
    pair = Pair(outlook)
    pair.run(DIRECT_FIRST_S[outlook] - 0.25)
    assert pair.used == [(None, None)]
    pair.run(3)
    assert pair.works()
    assert pair.relay() is not None


@pytest.mark.parametrize("outlook", [Outlook.UNKNOWN, Outlook.LIKELY])
def test_a_direct_tunnel_asks_no_relay_and_is_never_reset(outlook: Outlook) -> None:
    pair = Pair(outlook, direct=True)
    pair.run(400)
    assert pair.used == [(None, None)]
    assert [end.resets for end in pair.ends.values()] == [0, 0]
    assert [end.endpoint for end in pair.ends.values()] == [OWN, OWN]
    assert not pair.desks[RELAYS[0]].reservations


def test_an_end_that_alone_wants_a_relay_is_followed() -> None:
    pair = Pair(Outlook.LIKELY)
    pair.ends[HIGH].outlook = Outlook.HOPELESS
    pair.run(2)
    assert pair.works()


def test_a_relayed_pair_stays_where_it_is() -> None:
    pair = Pair()
    pair.run(900)
    assert pair.works()
    assert [end.path.moves for end in pair.ends.values()] == [1, 1]


def test_the_next_relay_takes_over_from_one_that_died() -> None:
    pair = Pair()
    pair.run(10)
    first = pair.relay()
    assert first is not None
    pair.dead.add(first)
    pair.run(5)
    assert pair.works()
    assert pair.relay() not in (first, None)
    # It comes back, and nothing moves.
    pair.start(first)
    second = pair.relay()
    pair.run(120)
    assert pair.relay() == second
    assert pair.works()


def test_an_end_that_alone_lost_its_relay_takes_the_other_along() -> None:
    pair = Pair()
    pair.run(10)
    first = pair.relay()
    assert first is not None
    pair.ends[LOW].cut.add(first)
    pair.run(6)
    assert pair.works()
    assert pair.relay() not in (first, None)


def test_a_relay_that_has_forgotten_the_pair_is_replaced_or_asked_again() -> None:
    pair = Pair()
    pair.run(10)
    first = pair.relay()
    assert first is not None
    pair.start(first)
    pair.run(8)
    assert pair.works()


def test_a_refusal_leads_to_the_next_relay() -> None:
    pair = Pair()
    pair.start(RELAYS[0], RelayLimits(ports=()))
    pair.run(4)
    assert pair.works()
    assert pair.relay() == RELAYS[1]


def test_two_ends_that_begin_with_different_relays_take_the_same() -> None:
    pair = Pair()
    pair.ends[LOW].cut.add(RELAYS[0])
    pair.ends[HIGH].cut.add(RELAYS[1])
    pair.run(2.5)
    assert not pair.works()
    for end in pair.ends.values():
        end.cut.clear()
    pair.run(20)
    assert pair.works()


def test_who_refuses_is_passed_over_for_longer_each_time() -> None:
    pair = Pair(relays=1)
    pair.start(RELAYS[0], RelayLimits(ports=()))
    asked = 0
    path = pair.ends[LOW].path
    for _ in range(2400):
        before = path.asking
        pair.step()
        asked += before is None and path.asking is not None
    assert asked <= 14


def test_without_relays_nothing_is_asked() -> None:
    pair = Pair(relays=0)
    pair.run(60)
    assert pair.used == [(None, None)]


def test_a_pair_that_is_not_wanted_any_more_is_given_back() -> None:
    pair = Pair()
    pair.run(10)
    for end in pair.ends.values():
        end.wanted = False
    pair.run(1)
    assert all(not desk.reservations for desk in pair.desks.values())
    assert all(end.path.phase is Phase.DIRECT for end in pair.ends.values())


def test_a_pair_that_works_directly_frees_its_relay_after_a_while() -> None:
    pair = Pair()
    pair.run(10)
    pair.direct = True
    for end in pair.ends.values():
        # WireGuard roams to where the peer was heard from last.
        end.endpoint = OWN
    pair.run(DIRECT_HOLDS_S - 1)
    assert any(desk.reservations for desk in pair.desks.values())
    pair.run(2)
    assert all(not desk.reservations for desk in pair.desks.values())
    assert pair.works()
    assert [end.resets for end in pair.ends.values()] == [1, 1]


def test_a_pair_that_was_relayed_for_want_of_luck_finds_its_way_back() -> None:
    pair = Pair(Outlook.LIKELY)
    pair.run(20)
    assert pair.relay() is not None
    pair.direct = True
    pair.run(180)
    assert pair.works()
    assert pair.used[-1] == (None, None)
    assert all(not desk.reservations for desk in pair.desks.values())
    assert [end.endpoint for end in pair.ends.values()] == [OWN, OWN]


def test_direct_is_tried_a_few_times_and_then_left_alone() -> None:
    pair = Pair(Outlook.LIKELY)
    pair.run(4000)
    assert pair.works()
    assert [end.resets for end in pair.ends.values()] == [1 + 2 * 3] * 2
    pair.run(4000)
    assert [end.resets for end in pair.ends.values()] == [1 + 2 * 3] * 2


@pytest.mark.parametrize("outlook", [Outlook.LIKELY, Outlook.HOPELESS])
def test_a_tunnel_in_use_or_without_hope_is_not_taken_from_its_relay(outlook: Outlook) -> None:
    pair = Pair(outlook)
    pair.run(20)
    pair.direct = True
    for end in pair.ends.values():
        end.load = 100_000 if outlook is Outlook.LIKELY else 0
    pair.run(900)
    assert pair.works()
    assert [end.resets for end in pair.ends.values()] == [1, 1]


def test_an_end_that_is_not_relayed_takes_no_part_in_a_trial() -> None:
    pair = Pair(Outlook.LIKELY, direct=True)
    pair.run(100)
    assert [end.path.on_meant(pair.now) for end in pair.ends.values()] == [None, None]


def test_the_word_of_a_member_that_is_no_relay_of_the_pair_counts_for_nothing() -> None:
    pair = Pair(relays=0)
    pair.run(1)
    end = pair.ends[LOW]
    for both in (False, True):
        granted = RelayGranted(pair=end.path.pair, port=666, lasts_s=120, both=both)
        end.path.on_message(RELAYS[0], granted, pair.now)
    pair.run(20)
    assert pair.used == [(None, None)]


def test_a_port_that_is_none_is_passed_over() -> None:
    pair = Pair(relays=1)
    pair.dead.add(RELAYS[0])
    pair.run(1)
    path: RelayedPath = pair.ends[LOW].path
    for port in (0, -1, 65_536):
        path.on_message(RELAYS[0], RelayGranted(pair=path.pair, port=port, lasts_s=1, both=True), pair.now)
    pair.run(1)
    assert path.used is None


AS_FOUND = (Stage.explicit, Stage.generate)
"""A case is minutes of a pair's time: shrinking one would take longer than reading it."""
FAULTS = st.lists(
    st.tuples(
        st.sampled_from(["die", "start", "cut low", "cut high", "mend"]),
        st.integers(0, 2),
        st.floats(0.1, 12.0),
    ),
    max_size=8,
)


@settings(max_examples=25, deadline=None, phases=AS_FOUND)
@given(faults=FAULTS)
def test_whatever_happens_to_relays_a_pair_works_soon_after_it_is_over(
    faults: list[tuple[str, int, float]],
) -> None:
    pair = Pair(relays=3)
    for what, number, for_s in faults:
        relay = RELAYS[number]
        match what:
            case "die":
                pair.dead.add(relay)
            case "start":
                pair.start(relay)
            case "cut low":
                pair.ends[LOW].cut.add(relay)
            case "cut high":
                pair.ends[HIGH].cut.add(relay)
            case "mend":
                for end in pair.ends.values():
                    end.cut.clear()
        pair.run(for_s)
    for relay in list(pair.dead):
        pair.start(relay)
    for end in pair.ends.values():
        end.cut.clear()
    pair.run(90)
    assert pair.works()
    moves = [end.path.moves for end in pair.ends.values()]
    pair.run(60)
    assert pair.works()
    assert [end.path.moves for end in pair.ends.values()] == moves, "it flaps"


@settings(max_examples=15, deadline=None, phases=AS_FOUND)
@given(faults=FAULTS)
def test_no_relay_ever_touches_a_direct_tunnel(faults: list[tuple[str, int, float]]) -> None:
    pair = Pair(Outlook.LIKELY, direct=True, relays=3)
    pair.run(1)
    for what, number, for_s in faults:
        if what == "die":
            pair.dead.add(RELAYS[number])
        elif what == "start":
            pair.start(RELAYS[number])
        pair.run(for_s)
    assert [end.resets for end in pair.ends.values()] == [0, 0]
    assert pair.works()


def test_an_end_that_passes_a_relay_over_takes_it_where_the_other_asks_for_it() -> None:
    pair = Pair()
    pair.dead.add(RELAYS[0])
    pair.run(5)
    assert pair.relay() == RELAYS[1]
    for _ in range(5):
        # One end alone has come to distrust the first.
        pair.ends[LOW].path.lent.back_off.fail(RELAYS[0], pair.now)
    pair.run(11)
    pair.start(RELAYS[0])
    pair.dead.add(RELAYS[1])
    pair.ends[HIGH].path.lent.back_off.succeed(RELAYS[0])
    pair.run(8)
    assert pair.works()
    assert pair.relay() == RELAYS[0]

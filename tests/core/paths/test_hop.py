"""A pair whose relay is about to go is at the next one before that, both ends at once, in its session."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import Phase as Stage
from hypothesis import given, settings
from hypothesis import strategies as st
from relayed_kit import HIGH, LOW, OWN, RELAYS, STEP_S, Pair

from meshpeer.core.deadline import Instant
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.hop import HOP_HOLDS_S, HOP_S_MAX, LEAVING_S_MAX, MOVES, HopState, check_hop
from meshpeer.core.paths.lent import AGREE_S_MAX, Lent
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.relay import LEFT_S, RETIRE_S_MAX
from meshpeer.core.paths.relay_messages import RelayFreed, RelayFrozen, RelayGranted
from meshpeer.core.paths.relayed import FROZEN_S_MAX
from meshpeer.core.paths.relayed_look import Phase


def relayed(*, relays: int = 2, **options: object) -> tuple[Pair, NodeId]:
    """Returns a pair that goes by a relay, with traffic, and that relay."""
    pair = Pair(Outlook.HOPELESS, probes=True, relays=relays, **options)  # type: ignore[arg-type]
    for end in pair.ends.values():
        end.load = 100_000
    pair.run(10)
    used = pair.relay()
    assert used is not None
    return pair, used


def resets(pair: Pair) -> list[int]:
    return [end.resets for end in pair.ends.values()]


def states(pair: Pair) -> list[HopState]:
    return [end.path.hop.state for end in pair.ends.values()]


def silent_s(pair: Pair, for_s: float) -> float:
    """Runs a pair; returns for how long nothing passed."""
    silent = 0
    for _ in range(round(for_s / STEP_S)):
        pair.step()
        silent += not pair.works()
    return silent * STEP_S


def test_a_pair_leaves_a_relay_that_retires_for_the_next_and_no_session_is_dropped() -> None:
    pair, first = relayed()
    pair.retire(first)
    assert silent_s(pair, RETIRE_S_MAX + 5) <= 2 * STEP_S
    assert pair.relay() not in (first, None)
    assert resets(pair) == [1, 1]
    assert [end.path.hops for end in pair.ends.values()] == [1, 1]
    assert pair.held_max == 2


def test_the_relay_that_was_left_ends_soon_after_its_pair_is_gone() -> None:
    pair, first = relayed()
    pair.retire(first)
    pair.run(LEFT_S + 3)
    assert states(pair) == [HopState.NONE] * 2
    assert not pair.desks[first].reservations
    pair.dead.add(first)
    assert silent_s(pair, 60) == 0
    assert pair.relay() not in (first, None)


def test_a_relay_whose_record_says_that_it_is_none_any_more_is_left_and_given_back_later() -> None:
    pair, first = relayed()
    pair.leaving.add(first)
    assert silent_s(pair, 6) <= 2 * STEP_S
    assert pair.relay() not in (first, None)
    assert pair.desks[first].reservations
    pair.run(HOP_HOLDS_S)
    assert not pair.desks[first].reservations
    assert resets(pair) == [1, 1]


def test_without_another_relay_the_pair_stays_until_the_end() -> None:
    pair, first = relayed(relays=1)
    pair.retire(first)
    assert silent_s(pair, RETIRE_S_MAX - 1) == 0
    pair.run(2)
    assert not pair.desks[first].reservations
    pair.retire(first, willing=True)
    pair.run(90)
    assert pair.works()


def test_a_relay_that_should_be_none_is_not_used_for_ever() -> None:
    pair, first = relayed(relays=1)
    pair.leaving.add(first)
    pair.run(LEAVING_S_MAX + 2)
    assert not pair.desks[first].reservations


def test_a_relay_that_changes_its_mind_keeps_its_pair() -> None:
    pair, first = relayed(relays=1)
    pair.retire(first)
    pair.run(3)
    pair.retire(first, willing=True)
    assert silent_s(pair, 60) == 0
    assert pair.relay() == first


@pytest.mark.parametrize("which", [LOW, HIGH])
def test_an_end_that_missed_the_instant_follows(which: NodeId) -> None:
    pair, first = relayed()
    pair.loses = (which, RelayFrozen)
    pair.retire(first)
    pair.run(6)
    assert pair.loses is None
    assert pair.works()
    assert pair.relay() not in (first, None)
    assert resets(pair) == [1, 1]


@pytest.mark.parametrize("which", [LOW, HIGH])
def test_an_end_that_missed_that_its_relay_retires_is_taken_along(which: NodeId) -> None:
    pair, first = relayed()
    pair.loses = (which, RelayGranted)
    pair.retire(first)
    pair.run(6)
    assert pair.relay() not in (first, None)
    assert resets(pair) == [1, 1]


@pytest.mark.parametrize("blocked", [{LOW}, {HIGH}])
def test_an_end_whose_packets_do_not_get_to_the_next_relay_leads_to_the_one_behind_it(
    blocked: set[NodeId],
) -> None:
    pair, first = relayed(relays=3)
    (second, third) = (one for one in RELAYS if one != first)
    for node in blocked:
        pair.ends[node].blocked |= {second}
    pair.retire(first)
    pair.run(30)
    assert pair.works()
    assert pair.relay() == third
    assert resets(pair) == [1, 1]
    assert pair.held_max == 2


def test_where_an_end_can_not_bind_the_pair_goes_over_in_time_all_the_same() -> None:
    pair, first = relayed()
    pair.ends[HIGH].probes = False
    pair.retire(first)
    pair.run(HOP_S_MAX + 3)
    assert pair.works()
    assert pair.relay() not in (first, None)
    assert resets(pair) == [2, 2]


def test_a_relay_without_secrets_is_taken_up_as_from_a_relay_that_is_gone() -> None:
    pair, first = relayed()
    second = next(one for one in RELAYS[:2] if one != first)
    pair.desks[second]._bind_key = b""
    pair.retire(first)
    pair.run(3)
    assert pair.works()
    assert pair.relay() == second
    assert resets(pair) == [2, 2]


def test_a_relay_that_dies_before_its_pair_is_gone_is_followed_as_any() -> None:
    pair, first = relayed()
    pair.retire(first)
    pair.run(0.5)
    pair.dead.add(first)
    pair.run(8)
    assert pair.works()
    assert pair.relay() not in (first, None)


def test_a_move_that_leads_nowhere_leads_back_where_the_relay_goes_on() -> None:
    pair, first = relayed()
    second = next(one for one in RELAYS[:2] if one != first)
    pair.leaving.add(first)
    for end in pair.ends.values():
        end.mutes = True
    while pair.relay() == first:
        pair.step()
    pair.ends[LOW].blocked.add(second)
    pair.run(8)
    assert pair.relay() == first
    assert pair.works()
    assert resets(pair) == [1, 1]


@pytest.mark.parametrize("relays", [2, 3])
@pytest.mark.parametrize("which", [LOW, HIGH])
def test_a_move_that_leads_nowhere_leads_back_to_a_relay_that_retires_while_that_stays(
    which: NodeId, relays: int
) -> None:
    pair, first = relayed(relays=relays)
    second = next(one for one in RELAYS if one != first)
    pair.retire(first)
    for end in pair.ends.values():
        end.mutes = True
    while pair.relay() == first:
        pair.step()
    pair.ends[which].blocked.add(second)
    pair.run(LEFT_S)
    assert pair.works()
    assert resets(pair) == [1, 1]
    assert pair.relay() == first or relays == 3
    assert pair.held_max == 2
    pair.run(RETIRE_S_MAX + 20)
    assert pair.works() == (relays == 3)


@pytest.mark.parametrize("relays", [2, 3])
def test_a_new_relay_that_dies_leads_back_to_one_that_stays(relays: int) -> None:
    pair, first = relayed(relays=relays)
    pair.leaving.add(first)
    while states(pair) != [HopState.MOVED] * 2:
        pair.step()
    pair.run(1)
    second = pair.relay()
    assert second is not None
    pair.dead.add(second)
    pair.run(LEFT_S)
    assert pair.works()
    # Where there is a third one they go on to it from there.
    assert pair.relay() == (RELAYS[2] if relays == 3 else first)
    assert resets(pair) == [1, 1]


def test_where_nobody_answers_a_way_back_the_pair_goes_on_to_a_third_relay() -> None:
    pair, first = relayed(relays=3)
    pair.leaving.add(first)
    while states(pair) != [HopState.MOVED] * 2:
        pair.step()
    pair.run(1)
    second = pair.relay()
    assert second is not None
    # Links stay up for a while where a machine is gone.
    desk = pair.desks[first]
    desk.handle = lambda event, now: []  # type: ignore[method-assign]
    pair.dead.add(second)
    pair.run(25)
    assert pair.works()
    assert pair.relay() not in (first, second, None)


def test_a_tunnel_that_brings_something_is_not_taken_back_because_its_echoes_are_late() -> None:
    pair, first = relayed()
    pair.leaving.add(first)
    pair.ends[LOW].unheard = True
    pair.run(HOP_HOLDS_S + 6)
    assert pair.relay() not in (first, None)
    assert [end.path.hops for end in pair.ends.values()] == [1, 1]


def test_an_end_that_was_left_behind_has_the_relay_woken_and_both_go_back() -> None:
    pair, first = relayed()
    pair.leaving.add(first)
    while states(pair) != [HopState.MOVED] * 2:
        pair.step()
    high = pair.ends[HIGH].path
    high.hop.go_back(high.used or first, pair.now)
    high.used = first
    pair.run(FROZEN_S_MAX + 3)
    assert pair.works()
    assert resets(pair) == [1, 1]


@pytest.mark.parametrize("which", [LOW, HIGH])
@pytest.mark.parametrize("reachable", [True, False])
def test_a_new_relay_that_is_lost_at_once_leads_back_or_on_but_never_to_one_that_is_frozen(
    which: NodeId, reachable: bool
) -> None:
    pair, first = relayed(relays=3)
    pair.retire(first)
    while states(pair) != [HopState.MOVED] * 2:
        pair.step()
    pair.run(1)
    second = pair.relay()
    assert second not in (first, None)
    if not reachable:
        for end in pair.ends.values():
            end.cut.add(first)
    pair.start(second)
    freed = RelayFreed(pair=pair.ends[which].path.pair, reason="lost")
    pair.ends[which].path.on_message(second, freed, pair.now)
    for _ in range(round(RETIRE_S_MAX / STEP_S)):
        pair.step()
        for end in pair.ends.values():
            assert not (end.path.phase is Phase.CLEARING and end.path.used == first)
    pair.run(10)
    assert pair.works()
    if reachable:
        assert resets(pair) == [1, 1]


def test_a_pair_that_left_for_a_way_of_its_own_does_not_care() -> None:
    pair = Pair(Outlook.OPEN, probes=True)
    pair.run(10)
    first = pair.relay()
    assert first is not None
    pair.direct = True
    pair.run(6)
    assert [end.path.phase for end in pair.ends.values()] == [Phase.HELD] * 2
    pair.retire(first)
    assert silent_s(pair, 60) == 0
    assert [end.endpoint for end in pair.ends.values()] == [OWN, OWN]
    assert not any(desk.reservations for desk in pair.desks.values())
    assert resets(pair) == [1, 1]


def test_a_pair_that_went_over_finds_its_own_way_later() -> None:
    pair = Pair(Outlook.OPEN, probes=True)
    pair.run(10)
    first = pair.relay()
    assert first is not None
    pair.retire(first)
    pair.run(6)
    pair.direct = True
    pair.run(60)
    assert [end.endpoint for end in pair.ends.values()] == [OWN, OWN]
    assert resets(pair) == [1, 1]


def test_relays_that_go_one_after_the_other_are_left_one_after_the_other() -> None:
    pair, first = relayed(relays=3)
    pair.retire(first)
    pair.run(3)
    second = pair.relay()
    assert second is not None
    pair.retire(second)
    pair.run(RETIRE_S_MAX)
    assert pair.works()
    assert pair.relay() not in (first, second, None)
    assert resets(pair) == [1, 1]
    assert pair.held_max == 2


def test_the_instant_of_another_move_moves_nothing() -> None:
    pair, first = relayed()
    low = pair.ends[LOW].path
    second = next(one for one in RELAYS[:2] if one != first)
    for to in (second, first, b"x", bytes(32)):
        low.on_message(first, RelayFrozen(pair=low.pair, in_ms=0, to=to), pair.now)
    assert (low.used, low.hop.state, low.take_move()) == (first, HopState.NONE, None)


@pytest.mark.parametrize("before", HopState)
@pytest.mark.parametrize("after", HopState)
def test_only_the_moves_of_the_table_are_made(before: HopState, after: HopState) -> None:
    if after in MOVES[before]:
        check_hop(before, after)
    else:
        with pytest.raises(InvariantBroken):
            check_hop(before, after)


@settings(max_examples=12, deadline=None, phases=(Stage.explicit, Stage.generate))
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
    late_s=st.floats(0.0, 0.4),
    blocked=st.sampled_from([None, LOW, HIGH]),
)
def test_whatever_is_late_or_lost_the_pair_is_at_another_relay_soon_and_stays_there(
    seed: int, loss: float, late_s: float, blocked: NodeId | None
) -> None:
    pair, first = relayed(relays=3, wire=Random(seed))
    pair.loss, pair.late_s_max = loss, late_s
    if blocked is not None:
        second = next(one for one in RELAYS if one != first)
        pair.ends[blocked].blocked.add(second)
    pair.retire(first)
    pair.run(RETIRE_S_MAX + 32)
    assert pair.works()
    assert pair.relay() not in (first, None)
    pair.loss = 0.0
    seen = {pair.relay()}
    for _ in range(round(60 / STEP_S)):
        pair.step()
        seen.add(pair.relay())
    assert len(seen) == 1
    assert not pair.desks[first].reservations
    # What is given back to one relay may get there later than what is asked of another.
    assert loss or blocked or pair.held_max == 2


def test_a_relay_that_failed_is_not_taken_up_again_for_an_answer_that_was_on_its_way() -> None:
    lent, relay = Lent((LOW, HIGH)), RELAYS[0]
    lent.follow(((relay, "198.51.100.1"),))
    granted = RelayGranted(pair=(LOW, HIGH), port=51830, lasts_s=120, both=True)
    lent.on_message(relay, granted, Instant(0.0, 0.0))
    lent.fail(relay, Instant(0.0, 0.0))
    lent.free(relay, (), Instant(0.0, 0.0))
    lent.on_message(relay, granted, Instant(0.2, 0.2))
    assert [lent.ready(None, Instant(at_s, at_s)) for at_s in (0.3, 9.9, 10.1, 11.0)] == [None] * 4


def test_a_relay_on_which_both_agreed_late_is_not_given_up_in_the_middle_of_what_follows() -> None:
    lent, relay = Lent((LOW, HIGH)), RELAYS[0]
    lent.follow(((relay, "198.51.100.1"),))
    lent.ask_for(relay, Instant(0.0, 0.0))

    def given_up(at_s: float) -> bool:
        return bool(lent.stop_waiting((relay,), Instant(at_s, at_s)))

    def granted(at_s: float, *, both: bool) -> None:
        word = RelayGranted(pair=(LOW, HIGH), port=51830, lasts_s=120, both=both)
        lent.on_message(relay, word, Instant(at_s, at_s))

    granted(0.1, both=False)
    granted(AGREE_S_MAX - 2, both=True)
    assert not given_up(AGREE_S_MAX + HOP_S_MAX)
    granted(AGREE_S_MAX + HOP_S_MAX, both=True)
    assert not given_up(2 * AGREE_S_MAX - 2.1)
    assert given_up(2 * AGREE_S_MAX - 1.9)

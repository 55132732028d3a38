"""A pair leaves its relay for a way that is proved, both at once, and comes back where that way is lost."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import Phase as Stage
from hypothesis import given, settings
from hypothesis import strategies as st
from relayed_kit import HIGH, LOW, OWN, PROOF_S, RELAYS, STEP_S, Pair

from meshpeer.core.deadline import Instant
from meshpeer.core.paths.lent import Lent
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.relay_messages import RelayAsked, RelayFrozen, RelayGranted, RelayRequested
from meshpeer.core.paths.relayed import DIRECT_HOLDS_S, FROZEN_S_MAX, RelayedPath
from meshpeer.core.paths.relayed_look import PairLook, Phase
from meshpeer.core.paths.relayed_state import HOPELESS_PROBES_S
from meshpeer.core.paths.upgrade import AGAIN_S, FORGIVEN_S, LATE_S

BOTH_DIRECT = [OWN, OWN]


def relayed(outlook: Outlook = Outlook.OPEN, **options: object) -> Pair:
    pair = Pair(outlook, probes=True, **options)  # type: ignore[arg-type]
    pair.run(10)
    assert pair.relay() is not None
    return pair


def held(pair: Pair) -> Pair:
    pair.direct = True
    pair.run(4)
    assert phases(pair) == [Phase.HELD] * 2
    return pair


def phases(pair: Pair) -> list[Phase]:
    return [end.path.phase for end in pair.ends.values()]


def endpoints(pair: Pair) -> list[str | None]:
    return [end.endpoint for end in pair.ends.values()]


def test_both_ends_leave_the_relay_once_their_way_is_proved_and_no_session_is_dropped() -> None:
    pair = relayed()
    pair.direct = True
    for end in pair.ends.values():
        end.load = 100_000
    silent_s = 0.0
    for _ in range(16):
        pair.step()
        silent_s += 0.0 if pair.works() else STEP_S
    assert endpoints(pair) == BOTH_DIRECT
    assert silent_s <= 2 * STEP_S
    assert [end.resets for end in pair.ends.values()] == [1, 1]


def test_a_relay_is_kept_for_a_while_and_then_given_back() -> None:
    pair = held(relayed())
    pair.run(DIRECT_HOLDS_S - 5)
    assert sum(len(desk.reservations) for desk in pair.desks.values()) == 1
    pair.run(6)
    assert not any(desk.reservations for desk in pair.desks.values())
    assert pair.used[-1] == (None, None)
    assert endpoints(pair) == BOTH_DIRECT


def test_nobody_leaves_while_only_one_end_can_prove_a_way() -> None:
    pair = relayed()
    relay = pair.relay()
    pair.direct = True
    pair.ends[HIGH].probes = False
    for _ in range(120):
        pair.ends[LOW].answered_s = pair.now_s
        pair.step()
    assert pair.relay() == relay
    assert phases(pair) == [Phase.RELAYED] * 2
    assert not pair.frozen


def test_a_way_that_is_lost_while_the_relay_is_kept_leads_back_to_it() -> None:
    pair = relayed()
    relay = pair.relay()
    held(pair)
    pair.direct = False
    pair.run(LATE_S + 3)
    assert pair.works()
    assert pair.relay() == relay
    assert phases(pair) == [Phase.RELAYED] * 2
    assert [end.resets for end in pair.ends.values()] == [1, 1]


def test_a_tunnel_that_is_mute_goes_back_to_the_kept_relay_at_once_and_to_a_new_one_later() -> None:
    pair = relayed()
    for end in pair.ends.values():
        end.mutes = True
    held(pair)
    pair.direct = False
    pair.run(6)
    assert pair.works()
    pair.direct = True
    pair.run(60)
    assert pair.used[-1] == (None, None)
    pair.direct = False
    pair.run(8)
    assert pair.works()
    assert pair.relay() is not None


def test_a_tunnel_that_brings_something_is_not_left_because_its_echoes_are_late() -> None:
    pair = held(relayed())
    pair.ends[LOW].unheard = True
    pair.run(10)
    assert phases(pair) == [Phase.HELD] * 2
    assert [end.path.upgrade.failures for end in pair.ends.values()] == [0, 0]


def test_a_relay_that_answers_and_passes_nothing_on_is_replaced() -> None:
    pair = relayed(Outlook.HOPELESS)
    first = pair.relay()
    assert first is not None
    for end in pair.ends.values():
        end.mutes = True
    pair.frozen[first, pair.desks[first].reservations[0].ports] = 0.0
    pair.run(8)
    assert pair.works()
    assert pair.relay() not in (None, first)


def test_a_relay_that_goes_while_the_way_works_is_not_missed() -> None:
    pair = relayed()
    relay = pair.relay()
    assert relay is not None
    held(pair)
    pair.start(relay)
    pair.run(60)
    assert pair.works()
    assert endpoints(pair) == BOTH_DIRECT
    assert [end.resets for end in pair.ends.values()] == [1, 1]


def test_a_way_that_is_lost_when_the_kept_relay_is_gone_leads_to_the_other() -> None:
    pair = relayed()
    relay = pair.relay()
    assert relay is not None
    held(pair)
    pair.direct = False
    pair.dead.add(relay)
    pair.run(LATE_S + 6)
    assert pair.works()
    assert pair.relay() not in (None, relay)


def test_an_end_that_missed_the_instant_follows() -> None:
    pair = relayed()
    pair.loses = (HIGH, RelayFrozen)
    pair.direct = True
    pair.run(6)
    assert pair.loses is None
    assert endpoints(pair) == BOTH_DIRECT
    assert phases(pair) == [Phase.HELD] * 2
    assert [end.resets for end in pair.ends.values()] == [1, 1]


def test_a_relay_that_is_frozen_and_was_not_left_by_both_is_woken() -> None:
    pair = relayed()
    relay = pair.relay()
    pair.loses = (HIGH, RelayFrozen)
    pair.direct = True
    while pair.loses is not None:
        pair.step()
    # The way is gone before the one that missed it could follow.
    pair.direct = False
    pair.ends[HIGH].answered_s = pair.now_s - PROOF_S
    pair.run(FROZEN_S_MAX + 3)
    assert pair.works()
    assert pair.relay() == relay
    assert phases(pair) == [Phase.RELAYED] * 2
    assert not pair.frozen


def test_a_word_that_sets_the_instant_far_ahead_or_comes_from_another_relay_moves_nothing() -> None:
    pair = relayed()
    pair.ends[HIGH].probes = False
    low = pair.ends[LOW]
    low.answered_s = pair.now_s
    pair.run(1)
    used = low.path.used
    assert used is not None
    other = next(one for one in RELAYS[:2] if one != used)
    for relay, in_ms in ((used, 60_000), (used, -1), (other, 100)):
        low.path.on_message(relay, RelayFrozen(pair=low.path.pair, in_ms=in_ms), pair.now)
    assert low.path.phase is Phase.RELAYED


def test_what_fails_again_and_again_is_tried_seldom() -> None:
    pair = relayed()
    moves = moved(pair, hours=1.0, up_s=8.0, down_s=14.0)
    # Three tries and those of the back-off, there and back.
    assert moves <= 2 * (3 + 3_600 / AGAIN_S[2])


def test_a_way_that_broke_soon_after_the_relay_was_given_back_counts_as_failed() -> None:
    pair = held(relayed())
    pair.run(DIRECT_HOLDS_S + 1)
    low = pair.ends[LOW].path
    assert not low.is_idle(pair.now)
    pair.run(FORGIVEN_S)
    assert low.is_idle(pair.now)


def moved(pair: Pair, *, hours: float, up_s: float, down_s: float) -> int:
    """Returns how often the low end changed its way while direct comes and goes."""
    before, moves = pair.ends[LOW].endpoint, 0
    changes_s = pair.now_s
    until_s = pair.now_s + hours * 3_600
    while pair.now_s < until_s:
        if pair.now_s >= changes_s:
            pair.direct = not pair.direct
            changes_s = pair.now_s + (up_s if pair.direct else down_s)
        pair.step()
        now = pair.ends[LOW].endpoint
        moves += now not in (before, None)
        before = now if now is not None else before
    return moves


AS_FOUND = (Stage.explicit, Stage.generate)
KINDS = st.sampled_from(
    [
        (Outlook.LIKELY, True),
        (Outlook.LIKELY, False),
        (Outlook.OPEN, True),
        (Outlook.OPEN, False),
        (Outlook.HOPELESS, False),
    ]
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, phases=AS_FOUND)
@given(
    kinds=KINDS, seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.1, 0.3]), late_s=st.floats(0.0, 0.6)
)
def test_nothing_moves_in_an_hour_once_a_pair_has_its_way(
    kinds: tuple[Outlook, bool], seed: int, loss: float, late_s: float
) -> None:
    outlook, meets = kinds
    pair = Pair(outlook, direct=meets, probes=True, wire=Random(seed))
    pair.loss, pair.late_s_max = loss, late_s
    pair.run(90)
    assert pair.works()
    assert endpoints(pair) == BOTH_DIRECT if meets else pair.relay() is not None
    seen = {tuple(endpoints(pair))}
    resets = [end.resets for end in pair.ends.values()]
    for _ in range(round(3_600 / STEP_S)):
        pair.step()
        seen.add(tuple(endpoints(pair)))
    assert len(seen) == 1
    assert [end.resets for end in pair.ends.values()] == resets


def test_a_pair_without_a_hope_looks_for_a_way_while_it_is_new_at_its_relay() -> None:
    """A symmetric router and one that lets in whoever knows the port: records tell nobody that these meet."""
    pair = relayed(Outlook.HOPELESS)
    end = pair.ends[LOW]
    look = PairLook(wanted=True, outlook=Outlook.HOPELESS)
    assert end.path.seeks(look, pair.now)
    pair.run(HOPELESS_PROBES_S)
    assert pair.relay() is not None
    assert not end.path.seeks(look, pair.now)
    assert end.path.seeks(replace(look, proved=((OWN, pair.now_s),)), pair.now)
    assert end.path.seeks(replace(look, outlook=Outlook.OPEN), pair.now)


def test_a_pair_without_a_relay_seeks_nothing() -> None:
    path = RelayedPath(LOW, HIGH)
    assert not path.seeks(PairLook(wanted=True, outlook=Outlook.OPEN), Instant(100.0, 1_900_000_000.0))


FAULTS = st.lists(
    st.tuples(
        st.sampled_from(["direct", "apart", "die", "start", "retire", "lend", "cut low", "cut high", "mend"]),
        st.integers(0, 1),
        st.floats(0.1, 40.0),
    ),
    max_size=8,
)


@settings(max_examples=20, deadline=None, phases=AS_FOUND)
@given(faults=FAULTS, seed=st.integers(0, 2**32), meets=st.booleans())
def test_whatever_happened_a_pair_that_meets_is_direct_and_one_that_does_not_is_relayed(
    faults: list[tuple[str, int, float]], seed: int, meets: bool
) -> None:
    pair = Pair(Outlook.OPEN, probes=True, wire=Random(seed))
    pair.loss, pair.late_s_max = 0.1, 0.4
    for what, number, for_s in faults:
        happen(pair, what, number)
        pair.run(for_s)
    for relay in list(pair.dead):
        pair.start(relay)
    for relay in pair.relays:
        pair.retire(relay, willing=True)
    for end in pair.ends.values():
        end.cut.clear()
    pair.direct, pair.loss, pair.late_s_max = meets, 0.0, 0.1
    # What failed is tried again after that long.
    pair.run(180 + LATE_S + AGAIN_S[1] + 60)
    assert pair.works()
    if meets and max(end.path.upgrade.failures for end in pair.ends.values()) < len(AGAIN_S) - 1:
        assert endpoints(pair) == BOTH_DIRECT


def happen(pair: Pair, what: str, number: int) -> None:
    relay = RELAYS[number]
    match what:
        case "direct" | "apart":
            pair.direct = what == "direct"
        case "die":
            pair.dead.add(relay)
        case "start":
            pair.start(relay)
        case "retire" | "lend":
            pair.retire(relay, willing=what == "lend")
        case "cut low":
            pair.ends[LOW].cut.add(relay)
        case "cut high":
            pair.ends[HIGH].cut.add(relay)
        case _:
            for end in pair.ends.values():
                end.cut.clear()


@pytest.mark.parametrize("late_s", [0.0, 0.05, 0.4])
def test_a_word_that_is_read_late_does_not_put_off_the_instant(late_s: float) -> None:
    lent, relay = Lent((LOW, HIGH)), RELAYS[0]
    lent.follow(((relay, "198.51.100.1"),))
    # The relay's clock shows another time, and its words take 20 ms, or longer.
    for at_s, way_s in ((10.0, 0.3), (11.0, 0.02), (12.0, 0.09)):
        granted = RelayGranted(pair=lent.pair, port=51830, lasts_s=120, clock_ms=round(at_s * 1000))
        lent.on_message(relay, granted, here(at_s + way_s))
    word = RelayFrozen(pair=lent.pair, in_ms=500, clock_ms=13_500)
    assert lent.instant_of(relay, word, here(13.02 + late_s)) == pytest.approx(here(13.52).mono_s)


def test_an_instant_is_never_later_than_the_word_itself_says() -> None:
    lent, relay = Lent((LOW, HIGH)), RELAYS[0]
    word = RelayFrozen(pair=lent.pair, in_ms=500, clock_ms=99_000_000)
    assert lent.instant_of(relay, word, here(1.0)) == here(1.5).mono_s
    lent.follow(((relay, "198.51.100.1"),))
    lent.on_message(relay, RelayGranted(pair=lent.pair, port=51830, lasts_s=120, clock_ms=1_000), here(1.0))
    assert lent.instant_of(relay, word, here(1.0)) == here(1.5).mono_s


def here(relay_s: float) -> Instant:
    """Returns this node's time where the relay's clock shows that."""
    return Instant(relay_s + 7_000.0, 1_900_000_000.0)


def test_a_pair_that_is_about_to_leave_for_its_own_way_takes_up_no_other_relay_any_more() -> None:
    pair = relayed()
    first = pair.relay()
    second = next(one for one in RELAYS[:2] if one != first)
    pair.direct = True
    while phases(pair) != [Phase.HELD] * 2:
        pair.step()
    assert endpoints(pair) != BOTH_DIRECT, "the instant is ahead"
    for node, end in pair.ends.items():
        pair._ask(second, RelayRequested(peer=node, message=RelayAsked(pair=end.path.pair)))
    pair.run(5)
    assert phases(pair) == [Phase.HELD] * 2
    assert endpoints(pair) == BOTH_DIRECT
    assert [end.path.upgrade.failures for end in pair.ends.values()] == [0, 0]
    assert [end.resets for end in pair.ends.values()] == [1, 1]
    pair.run(DIRECT_HOLDS_S)
    assert not any(desk.reservations for desk in pair.desks.values())

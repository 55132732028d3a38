"""Both ends of a pair go by the same relay soon, and stay there, whatever order their words arrive in,
whoever slept, lost links, or was started again."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import Phase as Stage
from hypothesis import example, given, settings
from hypothesis import strategies as st
from relayed_kit import HIGH, LOW, RELAYS, Pair

from meshpeer.core.paths.lent import SAY_EVERY_S, YIELDS_S
from meshpeer.core.paths.relay_health import STALE_RX_S
from meshpeer.core.paths.relayed import TRY_S

ENDS = {"low": LOW, "high": HIGH}
LATE_S_MAX = 0.6
"""How late a word may be, one way."""
AGREED_S = 5 * LATE_S_MAX + 2 * SAY_EVERY_S + YIELDS_S
"""Within which two ends that can reach the same relays use one, once neither waits for one that failed."""
BACK_S = 2 * TRY_S + AGREED_S
"""With a try that was in vain, and what was passed over after it."""
RESTARTED_S = STALE_RX_S + BACK_S
"""An agent that was started again takes its tunnel for one that works until nothing comes for so long."""
ASKED_PER_MINUTE_MAX = 6
AS_FOUND = (Stage.explicit, Stage.generate)

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["sleep", "wake", "restart", "cut", "mend", "die", "start", "distrust"]),
        st.sampled_from(["low", "high"]),
        st.integers(0, 2),
        st.floats(0.1, 15.0),
    ),
    max_size=8,
)


def lively(seed: int) -> Pair:
    pair = Pair(relays=3, wire=Random(seed))
    pair.late_s_max = LATE_S_MAX
    return pair


def happens(pair: Pair, what: str, node: str, number: int) -> None:
    end, relay = pair.ends[ENDS[node]], RELAYS[number]
    match what:
        case "sleep":
            end.asleep = True
        case "wake":
            end.asleep = False
        case "restart":
            pair.restart(ENDS[node])
        case "cut":
            end.cut.add(relay)
        case "mend":
            end.cut.clear()
        case "die":
            pair.dead.add(relay)
        case "start":
            pair.start(relay)
        case "distrust":
            end.path.lent.back_off.fail(relay, pair.now)


def all_is_well(pair: Pair) -> None:
    for relay in sorted(pair.dead):
        pair.start(relay)
    for end in pair.ends.values():
        end.asleep = False
        end.cut.clear()


def made(pair: Pair) -> int:
    """Returns how many reservations were made, ever."""
    return sum(desk._made for desk in pair.desks.values())


def until_both_use_one(pair: Pair, at_most_s: float) -> None:
    end_s = pair.now_s + at_most_s
    while not pair.works():
        assert pair.now_s < end_s, f"after {at_most_s:.1f} s: {pair.used[-6:]}"
        pair.step()


@settings(max_examples=40, deadline=None, phases=AS_FOUND)
@example(
    events=[
        ("sleep", "low", 1, 0.4648135668671387),
        ("restart", "low", 1, 10.203925709984476),
        ("distrust", "low", 0, 14.999999999999998),
        ("start", "low", 0, 1.0943534912687896),
        ("restart", "low", 1, 14.489225139257872),
    ],
    seed=9909,
)
@given(events=EVENTS, seed=st.integers(0, 2**16))
def test_whatever_happened_both_ends_use_one_relay_soon_and_stay(
    events: list[tuple[str, str, int, float]], seed: int
) -> None:
    pair = lively(seed)
    for what, node, number, for_s in events:
        happens(pair, what, node, number)
        pair.run(for_s)
    all_is_well(pair)
    before = made(pair)
    restarted = any(what == "restart" for what, *_ in events)
    at_most_s = RESTARTED_S if restarted else BACK_S
    ends_s = pair.now_s + at_most_s
    until_both_use_one(pair, at_most_s)
    # One of them may have been about to give the relay up, which it then does once.
    pair.run(max(AGREED_S, ends_s - pair.now_s))
    moves = [end.path.moves for end in pair.ends.values()]
    pair.run(60 - AGREED_S)
    assert pair.works()
    assert [end.path.moves for end in pair.ends.values()] == moves, f"it flaps: {pair.used[-6:]}"
    assert made(pair) - before <= ASKED_PER_MINUTE_MAX


@settings(max_examples=25, deadline=None, phases=AS_FOUND)
@given(
    seed=st.integers(0, 2**16),
    sleeper=st.sampled_from(["low", "high"]),
    for_s=st.floats(1.0, 200.0),
)
def test_after_a_sleep_of_one_end_the_pair_takes_up_one_relay(seed: int, sleeper: str, for_s: float) -> None:
    pair = lively(seed)
    pair.run(20)
    end = pair.ends[ENDS[sleeper]]
    end.asleep = True
    pair.run(for_s)
    end.asleep = False
    moves = [one.path.moves for one in pair.ends.values()]
    until_both_use_one(pair, BACK_S)
    pair.run(60)
    assert pair.works()
    assert all(one.path.moves <= was + 3 for one, was in zip(pair.ends.values(), moves, strict=True))


@settings(max_examples=40, deadline=None, phases=AS_FOUND)
@given(
    seed=st.integers(0, 2**16),
    low=st.sets(st.integers(0, 2), max_size=2),
    high=st.sets(st.integers(0, 2), max_size=2),
    gap_s=st.floats(0.0, 6.0),
    first=st.sampled_from(["low", "high"]),
)
def test_two_that_begin_with_different_relays_agree_within_moments(
    seed: int, low: set[int], high: set[int], gap_s: float, first: str
) -> None:
    pair = lively(seed)
    for number in low:
        pair.ends[LOW].path.lent.back_off.fail(RELAYS[number], pair.now)
    for number in high:
        pair.ends[HIGH].path.lent.back_off.fail(RELAYS[number], pair.now)
    late = pair.ends[HIGH if first == "low" else LOW]
    late.asleep = True
    pair.run(gap_s)
    late.asleep = False
    until_both_use_one(pair, AGREED_S)
    pair.run(30)
    assert pair.works()
    assert all(end.path.moves <= 2 for end in pair.ends.values())
    assert made(pair) <= ASKED_PER_MINUTE_MAX


@pytest.mark.parametrize("node", [LOW, HIGH])
def test_an_end_that_lost_its_link_to_the_others_relay_takes_it_along(node: bytes) -> None:
    pair = lively(1)
    pair.run(10)
    first = pair.relay()
    assert first is not None
    end = next(one for one in pair.ends.values() if one.path.me == node)
    end.cut.add(first)
    pair.run(2)
    until_both_use_one(pair, AGREED_S)
    pair.run(AGREED_S)
    assert pair.works()
    assert pair.relay() not in (first, None)

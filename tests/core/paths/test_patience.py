"""Direct tries have their time: a moment where they are in vain, a handshake's where a pair comes back."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relayed_kit import HIGH, LOW, OWN, UNIX_S, Pair

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.patience import (
    DIRECT_AGAIN_S,
    DIRECT_FIRST_S,
    DIRECT_FIRST_S_MAX,
    Patience,
)
from meshpeer.core.paths.relayed_look import PairLook
from meshpeer.core.wgconf.model import HANDSHAKE_FRESH_S, ObservedPeer
from meshpeer.sim.nat.interface import REKEY_JITTER_S, REKEY_TIMEOUT_S

NEVER, OVER, FRESH = "never", "over", "fresh"
"""What became of the tunnel's session."""
BACK_S = 400.0
"""When a pair comes back."""


def at(at_s: float) -> Instant:
    return Instant(at_s, UNIX_S + at_s)


def look(outlook: Outlook, session: str = NEVER, *, alone: bool = False, tries: bool = True) -> PairLook:
    ago_s = {NEVER: 0.0, OVER: HANDSHAKE_FRESH_S + 60.0, FRESH: HANDSHAKE_FRESH_S / 2}[session]
    held = ObservedPeer(
        public_key=WireGuardKey(b"k" * 32),
        allowed_ips=(),
        endpoint=OWN,
        keepalive_s=25,
        latest_handshake_unix_s=int(UNIX_S + BACK_S - ago_s) if ago_s else 0,
        rx_bytes=0,
        tx_bytes=0,
    )
    return PairLook(wanted=True, outlook=outlook, ways=(OWN,), held=held, alone=alone, tries=tries)


def over_after_s(patience: Patience, seen: PairLook, began_s: float) -> float | None:
    patience.follow(seen, direct=False, relayed=False, now=at(began_s))
    over_at_s = patience.over_at_s
    return None if over_at_s is None else over_at_s - began_s


@pytest.mark.parametrize(
    ("outlook", "session", "expected_s"),
    [
        (Outlook.LIKELY, OVER, DIRECT_AGAIN_S),
        # It may have been direct once, or not at all: as for two that just met.
        (Outlook.LIKELY, NEVER, DIRECT_FIRST_S[Outlook.LIKELY]),
        # Under its session the first packet that gets there is answered.
        (Outlook.LIKELY, FRESH, DIRECT_FIRST_S[Outlook.LIKELY]),
        (Outlook.UNKNOWN, OVER, DIRECT_FIRST_S[Outlook.UNKNOWN]),
        (Outlook.OPEN, OVER, 0.0),
        (Outlook.HOPELESS, OVER, 0.0),
    ],
)
@pytest.mark.parametrize("how", ["alone", "not wanted"])
def test_a_pair_that_comes_back_has_the_time_of_a_handshake_where_direct_is_likely(
    how: str, outlook: Outlook, session: str, expected_s: float
) -> None:
    patience = Patience()
    patience.follow(look(outlook, FRESH), direct=True, relayed=False, now=at(10))
    if how == "alone":
        patience.follow(look(outlook, session, alone=True), direct=False, relayed=False, now=at(20))
    else:
        patience.part()
    assert patience.over_at_s is None
    assert over_after_s(patience, look(outlook, session), BACK_S) == pytest.approx(expected_s)


def test_the_time_of_a_pair_that_comes_back_is_that_of_one_more_initiation() -> None:
    assert DIRECT_AGAIN_S > REKEY_TIMEOUT_S + REKEY_JITTER_S + 1


def test_a_pair_whose_session_ran_out_has_the_time_of_one_more_initiation() -> None:
    """Two open machines began the next session at one moment, twice, and took a relay for half a minute."""
    patience = Patience()
    patience.follow(look(Outlook.LIKELY, FRESH), direct=True, relayed=False, now=at(10))
    assert over_after_s(patience, look(Outlook.LIKELY, OVER), BACK_S) == DIRECT_AGAIN_S
    assert over_after_s(Patience(), look(Outlook.LIKELY, OVER), BACK_S) == DIRECT_AGAIN_S


def test_a_pair_that_answers_nothing_under_its_session_has_no_more_time_than_one_that_just_met() -> None:
    patience = Patience()
    patience.follow(look(Outlook.LIKELY, FRESH), direct=True, relayed=False, now=at(10))
    assert over_after_s(patience, look(Outlook.LIKELY, FRESH), BACK_S) == DIRECT_FIRST_S[Outlook.LIKELY]


def test_a_pair_that_went_by_a_relay_last_has_no_more_time_either() -> None:
    patience = Patience()
    patience.follow(look(Outlook.LIKELY, FRESH), direct=True, relayed=False, now=at(10))
    patience.follow(look(Outlook.LIKELY, FRESH), direct=False, relayed=True, now=at(20))
    patience.part()
    assert over_after_s(patience, look(Outlook.LIKELY, OVER), BACK_S) == DIRECT_FIRST_S[Outlook.LIKELY]
    through = dataclasses.replace(look(Outlook.LIKELY, OVER), through=LOW)
    patience = Patience()
    patience.part()
    assert over_after_s(patience, through, BACK_S) == DIRECT_FIRST_S[Outlook.LIKELY]


def test_a_relay_that_failed_leaves_no_patience() -> None:
    patience = Patience()
    patience.part()
    patience.lose(at(BACK_S))
    patience.follow(look(Outlook.LIKELY, OVER), direct=False, relayed=False, now=at(BACK_S))
    assert patience.over_at_s is not None
    assert patience.over_at_s <= BACK_S


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["failing", "alone", "apart", "direct", "news"]),
        st.floats(0.1, 6.0),
    ),
    max_size=20,
)


@settings(max_examples=50)
@given(outlook=st.sampled_from(Outlook), session=st.sampled_from([NEVER, OVER, FRESH]), steps=STEPS)
def test_the_clock_runs_only_while_tries_fail_that_could_succeed(
    outlook: Outlook, session: str, steps: list[tuple[str, float]]
) -> None:
    patience, now_s, since_s, ways = Patience(), BACK_S, BACK_S, 0
    for what, for_s in steps:
        seen = look(outlook, session, alone=what == "alone")
        ways += what == "news"
        seen = dataclasses.replace(seen, ways=(OWN, str(ways)))
        if what == "apart":
            patience.part()
        else:
            patience.follow(seen, direct=what == "direct", relayed=False, now=at(now_s))
        if what in ("alone", "apart", "direct"):
            since_s = now_s + for_s
            assert patience.over_at_s is None
        else:
            assert patience.over_at_s is not None
            waited_s = patience.over_at_s - since_s
            again = outlook is Outlook.LIKELY and session is OVER
            most_s = DIRECT_AGAIN_S if again else DIRECT_FIRST_S_MAX
            assert DIRECT_FIRST_S[outlook] - 1e-6 <= waited_s <= most_s + 1e-6
        now_s += for_s


@pytest.mark.parametrize("outlook", [Outlook.LIKELY, Outlook.UNKNOWN])
@pytest.mark.parametrize("apart_s", [5.0, 400.0])
def test_a_lone_end_asks_no_relay_and_holds_nothing_against_any(outlook: Outlook, apart_s: float) -> None:
    pair = Pair(outlook, direct=True)
    pair.run(20)
    pair.part()
    pair.run(apart_s)
    assert pair.used == [(None, None)]
    assert pair.ends[LOW].path.asking is None
    for relay in pair.relays:
        assert not pair.ends[LOW].path.lent.back_off.passes_over(relay, pair.now)


@pytest.mark.parametrize("later_s", [0.0, 2.0, REKEY_TIMEOUT_S + REKEY_JITTER_S])
def test_a_partition_of_minutes_heals_under_the_tunnel_that_was_there(later_s: float) -> None:
    pair = Pair(Outlook.LIKELY, direct=True)
    pair.run(20)
    pair.part()
    pair.run(400)
    pair.meet(tunnel_later_s=later_s)
    pair.run(60)
    assert pair.works()
    assert pair.used == [(None, None)]
    assert [end.resets for end in pair.ends.values()] == [0, 0]


def test_a_pair_whose_way_is_gone_when_it_comes_back_has_a_relay_in_time() -> None:
    pair = Pair(Outlook.LIKELY, direct=True)
    pair.run(20)
    pair.part()
    pair.run(400)
    pair.meet(tunnel_later_s=None)
    pair.run(DIRECT_AGAIN_S + 3)
    assert pair.relay() is not None
    assert pair.works()


@pytest.mark.parametrize("outlook", [Outlook.HOPELESS, Outlook.OPEN])
def test_a_relayed_pair_is_relayed_again_as_soon_as_it_comes_back(outlook: Outlook) -> None:
    pair = Pair(outlook)
    pair.run(20)
    assert pair.relay() is not None
    pair.part()
    pair.run(400)
    pair.meet(tunnel_later_s=None)
    pair.run(4)
    assert pair.works()
    assert all(end.path.asking is None for end in (pair.ends[LOW], pair.ends[HIGH]))

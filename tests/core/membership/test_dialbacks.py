"""Who is dialled back, how often and where, and whose answers count."""

from __future__ import annotations

import pytest

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.dialbacks import (
    ASKS_BURST,
    ASKS_PER_S,
    DIALS_MAX,
    ENDPOINTS_TRIED_MAX,
    HELPERS_MAX,
    DialBack,
    DialBackAnswered,
    DialBackAsked,
    DialBackHeard,
    DialBacks,
    DialBacksWanted,
    DialledBack,
    Outcome,
    Said,
    Try,
)

HOME = "203.0.113.9:51821"
OVERLAY = ("10.10.0.0/24", "fd12::/64")


def test_what_is_dialled_are_the_endpoints_of_the_askers_record() -> None:
    mine = DialBacks(Counters())
    assert asked(mine, 1) == [DialBack(asker=node(1), number=1, endpoints=(HOME,))]
    tries = (Try(endpoint=HOME, outcome=Outcome.REACHED),)
    answer = DialBackAnswered(number=1, tries=tries)
    assert mine.handle(DialledBack(asker=node(1), number=1, tries=tries)) == [(node(1), answer)]


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:51821",
        "[::1]:51821",
        "[fe80::1]:51821",
        "224.0.0.1:51821",
        "0.0.0.0:51821",
        "10.10.0.2:51821",
        "[fd12::2]:51821",
        "203.0.113.9:0",
        "203.0.113.9:70000",
        "203.0.113.9",
        ":51821",
    ],
)
def test_what_can_not_mean_the_asker_is_not_dialled(endpoint: str) -> None:
    mine = DialBacks(Counters())
    assert asked(mine, 1, endpoints=(endpoint,)) == [(node(1), DialBackAnswered(number=1, tries=()))]


def test_a_record_full_of_endpoints_is_tried_in_part() -> None:
    mine = DialBacks(Counters())
    (effect,) = asked(mine, 1, endpoints=tuple(f"203.0.113.{one}:51821" for one in range(1, 9)))
    assert isinstance(effect, DialBack)
    assert len(effect.endpoints) == ENDPOINTS_TRIED_MAX


def test_one_asker_is_served_so_often_and_no_more() -> None:
    mine = DialBacks(Counters())
    for number in range(int(ASKS_BURST)):
        assert isinstance(asked(mine, 1, number=number)[0], DialBack)
        mine.handle(DialledBack(asker=node(1), number=number, tries=()))
    busy = DialBackAnswered(number=9, tries=(Try(endpoint=HOME, outcome=Outcome.BUSY),))
    assert asked(mine, 1, number=9) == [(node(1), busy)]
    assert isinstance(asked(mine, 2, number=9)[0], DialBack), "another asker is"
    assert isinstance(asked(mine, 1, number=10, at_s=1 / ASKS_PER_S)[0], DialBack)


def test_few_are_under_way_at_once_whoever_asks() -> None:
    counters = Counters()
    mine = DialBacks(counters)
    for one in range(DIALS_MAX):
        assert isinstance(asked(mine, one)[0], DialBack)
    assert not isinstance(asked(mine, 99)[0], DialBack)
    mine.handle(DialledBack(asker=node(0), number=1, tries=()))
    assert isinstance(asked(mine, 98)[0], DialBack)
    assert (counters.get(Counter.DIAL_BACKS), counters.get(Counter.DIAL_BACKS_REFUSED)) == (DIALS_MAX + 1, 1)


def test_answers_count_from_whom_was_asked_once_and_for_the_last_question() -> None:
    mine = DialBacks(Counters())
    helpers = tuple(node(one) for one in range(HELPERS_MAX + 2))
    first = mine.handle(DialBacksWanted(helpers=helpers))
    assert [one[0] for one in first if isinstance(one, tuple)] == [*helpers[:HELPERS_MAX]]
    mine.handle(DialBacksWanted(helpers=helpers[:2]))
    tries = (Try(endpoint=HOME, outcome=Outcome.REACHED),)
    assert answered(mine, 0, 1, tries) == [], "to the question before"
    assert answered(mine, 4, 2, tries) == [], "from whom nobody asked"
    assert answered(mine, 0, 2, tries) == [DialBackHeard()]
    assert answered(mine, 0, 2, ()) == [], "once"
    assert not mine.is_answered
    answered(mine, 1, 2, ())
    assert mine.is_answered
    assert mine.heard == {node(0): tries, node(1): ()}


@pytest.mark.parametrize(
    "tries",
    [
        tuple(Try(endpoint=HOME, outcome="reached") for _ in range(ENDPOINTS_TRIED_MAX + 1)),
        (Try(endpoint="x" * 301, outcome="reached"),),
        (Try(endpoint=HOME, outcome="x" * 301),),
    ],
)
def test_an_answer_beyond_all_bounds_is_refused_whole(tries: tuple[Try, ...]) -> None:
    mine = DialBacks(Counters())
    mine.handle(DialBacksWanted(helpers=(node(1),)))
    with pytest.raises(PeerFault):
        answered(mine, 1, 1, tries)
    assert mine.heard == {}


@pytest.mark.parametrize("name", ["localhost", "LocalHost.", "x.localhost"])
def test_loopback_is_not_dialled_under_a_name_either(name: str) -> None:
    mine = DialBacks(Counters())
    assert asked(mine, 1, endpoints=(f"{name}:22",)) == [(node(1), DialBackAnswered(number=1, tries=()))]


# --- helpers ------------------------------------------------------------------------------------------------


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


def asked(
    mine: DialBacks, peer: int, *, number: int = 1, endpoints: tuple[str, ...] = (HOME,), at_s: float = 0.0
) -> list[Said]:
    now = Instant(mono_s=at_s, unix_s=1_000_000 + at_s)
    return mine.on_message(node(peer), DialBackAsked(number=number), endpoints, OVERLAY, now)


def answered(mine: DialBacks, peer: int, number: int, tries: tuple[Try, ...]) -> list[Said]:
    answer = DialBackAnswered(number=number, tries=tries)
    return mine.on_message(node(peer), answer, (), OVERLAY, Instant(mono_s=0.0, unix_s=1_000_000))

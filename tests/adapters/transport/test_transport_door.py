"""Who may stand at the door, and who has to go: the newest, from where fewest come, before the oldest."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from meshpeer.adapters.transport import door
from meshpeer.adapters.transport.door import (
    HANDSHAKES_MAX,
    HANDSHAKES_PER_SOURCE_MAX,
    STAY_MIN_S,
    Door,
    Guest,
    source_of,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HANDSHAKES_MAX", 6)


async def test_within_the_first_moment_nobody_has_to_go(small: None, autojump_clock: MockClock) -> None:
    with standing(Door(), "a", "b", "c", "d", "e", "f") as (entrance, guests), entrance.entered("g") as late:
        assert late is None
        assert not any(one.sent_away for one in guests)


async def test_the_oldest_of_the_source_with_most_goes_first(small: None, autojump_clock: MockClock) -> None:
    with standing(Door(), "a", "b", "b", "b", "c", "c") as (entrance, guests):
        await trio.sleep(STAY_MIN_S)
        with entrance.entered("d") as late:
            assert late is not None
            assert [one.number for one in guests if one.sent_away] == [1]
            assert len(entrance) == 6


async def test_among_equals_the_oldest_goes_first(small: None, autojump_clock: MockClock) -> None:
    with standing(Door(), "a", "b", "c", "d", "e", "f") as (entrance, guests):
        await trio.sleep(STAY_MIN_S)
        with entrance.entered("g"), entrance.entered("h"):
            assert [one.source for one in guests if one.sent_away] == ["a", "b"]


async def test_whoever_has_said_nothing_goes_before_who_speaks(
    small: None, autojump_clock: MockClock
) -> None:
    with standing(Door(), "a", "b", "c", "d", "e", "f") as (entrance, guests):
        for one in guests[:4]:
            one.spoke = True
        await trio.sleep(STAY_MIN_S)
        with entrance.entered("g"), entrance.entered("h"), entrance.entered("i"):
            assert [one.source for one in guests if one.sent_away] == ["a", "e", "f"]


async def test_a_source_makes_room_for_itself_alone(autojump_clock: MockClock) -> None:
    full = ["b", *["a"] * HANDSHAKES_PER_SOURCE_MAX]
    with standing(Door(), *full) as (entrance, guests):
        await trio.sleep(STAY_MIN_S)
        with entrance.entered("a") as late:
            assert late is not None
            assert [one.number for one in guests if one.sent_away] == [1]


async def test_who_proved_a_certificate_is_not_sent_away(small: None, autojump_clock: MockClock) -> None:
    with standing(Door(), "a", "a", "a", "b", "c", "d") as (entrance, guests):
        for one in guests[:3]:
            one.proved = True
        await trio.sleep(STAY_MIN_S)
        with entrance.entered("e") as late:
            assert late is None
        assert not any(one.sent_away for one in guests)


async def test_whoever_is_sent_away_stops_and_leaves_its_place_once(
    small: None, autojump_clock: MockClock
) -> None:
    entrance = Door()
    ended: list[str] = []

    async def stand(source: str) -> None:
        with entrance.entered(source) as guest:
            assert guest is not None
            await trio.sleep_forever()
        ended.append(source)

    async with trio.open_nursery() as nursery:
        for source in "abcdef":
            nursery.start_soon(stand, source)
        await trio.sleep(STAY_MIN_S)
        assert len(entrance) == 6
        nursery.start_soon(stand, "g")
        await trio.sleep(0.1)
        assert len(ended) == 1
        assert len(entrance) == 6
        nursery.cancel_scope.cancel()
    assert len(entrance) == 0


def test_strangers_hold_a_quarter_of_the_descriptors_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (200, 200))
    assert door.room() == 50
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, 1 << 20))
    assert door.room() == HANDSHAKES_MAX


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("[2001:db8::1]", "[2001:db8::ffff:2]", True),
        ("[2001:db8::1]", "[2001:db8:0:1::1]", False),
        ("abcdef", "abcdeg", False),
    ],
)
def test_a_source_is_an_address_or_a_network_of_64_bits(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


@contextlib.contextmanager
def standing(entrance: Door, *sources: str) -> Iterator[tuple[Door, list[Guest]]]:
    """Lets somebody in from each source, in this order; a test looks at who was sent away, and leaves."""
    guests = []
    with contextlib.ExitStack() as stack:
        for source in sources:
            guest = stack.enter_context(entrance.entered(source))
            assert guest is not None
            guests.append(guest)
        yield entrance, guests

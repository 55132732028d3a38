"""What became of each endpoint is remembered, bounded, and without a say in what is tried."""

from __future__ import annotations

from meshpeer.core.deadline import Instant
from meshpeer.core.paths.endpoints import TRY_S, EndpointChoice
from meshpeer.core.paths.tries import TRIES_MAX, Try

ONE, OTHER, ELSEWHERE = "192.0.2.1:51820", "192.0.2.2:51820", "203.0.113.3:40000"
UNIX = 1_900_000_000.0


def test_an_endpoint_that_had_its_turn_is_given_up_when_the_next_begins() -> None:
    choice = EndpointChoice()
    for now_s in (0, 1, TRY_S, TRY_S + 1):
        choice.update((ONE, OTHER), 0, at(now_s))
    assert list(choice.history) == [
        Try(endpoint=ONE, since_unix_s=UNIX, given_up_unix_s=UNIX + TRY_S),
        Try(endpoint=OTHER, since_unix_s=UNIX + TRY_S),
    ]


def test_one_that_works_is_so_since_its_first_fresh_handshake() -> None:
    choice = EndpointChoice()
    choice.update((ONE,), 0, at(0))
    choice.update((ONE,), UNIX + 2, at(3), ONE)
    choice.update((ONE,), UNIX + 120, at(121), ONE)
    assert choice.history.of(ONE) == Try(
        endpoint=ONE, since_unix_s=UNIX, works_since_unix_s=UNIX + 2, handshake_unix_s=UNIX + 120
    )


def test_one_that_went_stale_is_tried_since_then_and_keeps_its_last_handshake() -> None:
    choice = EndpointChoice()
    choice.update((ONE,), UNIX + 1, at(1), ONE)
    choice.update((ONE,), UNIX + 1, at(200), ONE)
    assert choice.history.of(ONE) == Try(
        endpoint=ONE, since_unix_s=UNIX + 200, works_since_unix_s=None, handshake_unix_s=UNIX + 1
    )


def test_where_the_peer_was_heard_from_counts_although_nobody_chose_it() -> None:
    choice = EndpointChoice()
    choice.update((ONE, OTHER), 0, at(0))
    choice.update((ONE, OTHER), UNIX + 2, at(3), ELSEWHERE)
    assert [one.endpoint for one in choice.history] == [ONE, ELSEWHERE]
    assert choice.history.of(ONE) == Try(endpoint=ONE, since_unix_s=UNIX)
    roamed = choice.history.of(ELSEWHERE)
    assert roamed is not None
    assert roamed.works_since_unix_s == UNIX + 2


def test_one_that_is_withdrawn_is_given_up() -> None:
    choice = EndpointChoice()
    choice.update((ONE,), 0, at(0))
    choice.update((OTHER,), 0, at(1))
    held = choice.history.of(ONE)
    assert held is not None
    assert held.given_up_unix_s == UNIX + 1


def test_only_so_many_are_remembered_the_last_ones() -> None:
    choice = EndpointChoice()
    for number in range(3 * TRIES_MAX):
        choice.update((f"192.0.2.{number}:51820",), 0, at(number))
    kept = [one.endpoint for one in choice.history]
    assert kept == [f"192.0.2.{number}:51820" for number in range(2 * TRIES_MAX, 3 * TRIES_MAX)]


def at(mono_s: float) -> Instant:
    return Instant(mono_s, UNIX + mono_s)

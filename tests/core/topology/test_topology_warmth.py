"""When a hub says that it has its tunnels: the one in charge as soon as it is true, the next in its turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.deadline import Instant
from meshpeer.core.topology.warmth import HOLD_S, PATIENCE_S, Place, Warmth

IN_CHARGE = Place(active=True, hubs_are_warm=False)
NEXT = Place(active=False, hubs_are_warm=True)
NEXT_TO_A_COLD_ONE = Place(active=False, hubs_are_warm=False)


@pytest.mark.parametrize(
    ("place", "tunnels", "at_s"),
    [
        (IN_CHARGE, (), 0.0),
        (IN_CHARGE, (True, True), 0.0),
        (IN_CHARGE, (True, False), PATIENCE_S),
        (IN_CHARGE, (False, False), None),
        (NEXT, (True, True), HOLD_S),
        (NEXT, (True, False), PATIENCE_S),
        (NEXT_TO_A_COLD_ONE, (True, True), PATIENCE_S),
        (None, (True, True), None),
    ],
)
def test_it_is_said_when_it_is_true_and_this_nodes_turn(
    place: Place | None, tunnels: tuple[bool, ...], at_s: float | None
) -> None:
    warmth = Warmth()
    said = next((second for second in range(200) if warmth.update(place, tunnels, at(second))), None)
    assert said == at_s


def test_it_is_not_taken_back_while_this_node_has_its_place() -> None:
    warmth = Warmth()
    warmth.update(IN_CHARGE, (True,), at(0))
    assert warmth.update(NEXT_TO_A_COLD_ONE, (False,), at(1))


def test_who_lost_its_place_begins_anew() -> None:
    warmth = Warmth()
    warmth.update(NEXT, (True,), at(0))
    assert warmth.update(NEXT, (True,), at(HOLD_S))
    assert not warmth.update(None, (), at(40))
    assert not warmth.update(NEXT, (True,), at(41))
    assert not warmth.update(NEXT, (True,), at(40 + HOLD_S))
    assert warmth.update(NEXT, (True,), at(41 + HOLD_S))


@given(st.lists(st.tuples(st.sampled_from((None, IN_CHARGE, NEXT)), st.booleans()), max_size=12))
def test_it_is_looked_at_again_exactly_while_there_is_something_to_come(
    steps: list[tuple[Place | None, bool]],
) -> None:
    warmth = Warmth()
    for second, (place, works) in enumerate(steps):
        said = warmth.update(place, (works,), at(second))
        waits = warmth.next_deadline(at(second))
        assert (waits is not None) is (place is not None and not said)


def at(second: float) -> Instant:
    return Instant(1_000.0 + second, 1_000.0 + second)

"""The dashboard's map: everybody has a place of their own, and places stay."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.app.board.place import CELL_HEIGHT, DOT, NAMED_MAX, NARROW, SIGN, WIDE, Places, Spot, place

SPOTS = st.lists(
    st.tuples(st.sampled_from(["", "eu", "us", "asia", "home", "sea"]), st.booleans()),
    min_size=1,
    max_size=150,
).map(
    lambda drawn: [
        Spot(f"id-{at}", f"node-{at:03}", region, first or not at, not at)
        for at, (region, first) in enumerate(drawn)
    ]
)


@given(SPOTS, st.sampled_from([WIDE, NARROW]))
def test_nobody_stands_on_anybody_and_all_inside_their_regions(spots: list[Spot], width: int) -> None:
    placed = place(spots, width)
    assert set(placed.members) == {one.id for one in spots}
    for spot in spots:
        left, top, right, bottom = extent(placed, spot.id)
        box = placed.boxes[spot.region]
        assert box.x <= left
        assert right <= box.x + box.width
        assert box.y <= top
        assert bottom <= box.y + box.height
    for one, other in itertools.combinations(spots, 2):
        assert apart(extent(placed, one.id), extent(placed, other.id)), (one, other)
    boxes = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in placed.boxes.values()]
    assert all(apart(one, other) for one, other in itertools.combinations(boxes, 2))
    assert all(right <= placed.size.width and bottom <= placed.size.height for _, _, right, bottom in boxes)


@given(SPOTS, st.randoms())
def test_places_do_not_depend_on_the_order_of_members(spots: list[Spot], random: object) -> None:
    turned = list(reversed(spots))
    assert place(turned, WIDE) == place(spots, WIDE)


@pytest.mark.parametrize("count", [NAMED_MAX, NAMED_MAX + 1])
def test_only_hubs_and_this_node_have_names_in_a_large_mesh(count: int) -> None:
    spots = [Spot(f"id-{at}", f"node-{at}", "eu", at in (0, 1), not at) for at in range(count)]
    named = {key for key, one in place(spots, WIDE).members.items() if one.label}
    assert named == ({"id-0", "id-1"} if count > NAMED_MAX else {one.id for one in spots})


def test_this_nodes_region_comes_first_and_hubs_first_in_it() -> None:
    spots = [
        Spot("a", "alpha", "asia", first=True),
        Spot("b", "bravo", "eu", first=False),
        Spot("m", "mike", "eu", first=True, me=True),
    ]
    placed = place(spots, NARROW)
    assert list(placed.boxes) == ["eu", "asia"]
    assert placed.members["m"].y < placed.members["b"].y < placed.members["a"].y
    assert placed.boxes["eu"].title == "eu: 2 members"


def test_a_map_without_members_is_empty() -> None:
    assert dataclasses.astuple(place([], WIDE))[1:] == ({}, {})


# --- helpers ------------------------------------------------------------


def extent(placed: Places, key: str) -> tuple[int, int, int, int]:
    one = placed.members[key]
    if not one.label:
        return one.x - DOT // 2, one.y - DOT // 2, one.x + DOT // 2, one.y + DOT // 2
    return one.x - SIGN, one.y - CELL_HEIGHT // 2, one.x + SIGN + one.label, one.y + CELL_HEIGHT // 2


def apart(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]

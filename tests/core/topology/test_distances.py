"""Distances: coarse figures that seldom change, and a region without hubs that is carried by the nearest."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_members import check, member, view_of

from meshpeer.core.records.bounds import DISTANCES_MAX
from meshpeer.core.records.kinds import RegionDistance
from meshpeer.core.topology.distances import REGION_BYTES_MAX, Distances, level_of
from meshpeer.core.topology.regions import cells_of
from meshpeer.core.topology.view import MemberView


@pytest.mark.parametrize(
    ("rtt_ms", "before", "level"),
    [
        (0.2, None, 0),
        (1.9, None, 0),
        (2.0, None, 1),
        (40.0, None, 5),
        (64.0, None, 6),
        (70.0, 5, 5),
        (90.0, 5, 5),
        (91.0, 5, 6),
        (50.0, 6, 6),
        (45.0, 6, 5),
        (1e9, None, 29),
    ],
)
def test_a_figure_is_left_by_half_a_step_before_it_changes(
    rtt_ms: float, before: int | None, level: int
) -> None:
    assert level_of(rtt_ms / 1_000, before) == level


@given(st.floats(1e-4, 10.0), st.floats(0.75, 1.4))
def test_a_round_trip_that_wavers_keeps_its_figure(rtt_s: float, wavers: float) -> None:
    first = level_of(rtt_s)
    assert level_of(2**first * 1.42 * wavers / 1_000, first) == first


def test_a_region_that_no_link_reaches_any_more_keeps_its_figure_until_it_is_gone() -> None:
    distances = Distances()
    distances.update({"eu": [0.030, 0.040, 0.900], "us": [0.2]}, {"eu", "us"})
    assert distances.shown == (RegionDistance("eu", 5), RegionDistance("us", 7))
    distances.update({"us": [0.19]}, {"eu", "us"})
    assert distances.shown == (RegionDistance("eu", 5), RegionDistance("us", 7))
    distances.update({}, {"us"})
    assert distances.shown == (RegionDistance("us", 7),)


def test_a_record_lists_the_nearest_regions_that_it_has_room_for() -> None:
    regions = {f"{'r' * 40}{number:02}": [0.002 * 2**number] for number in range(12)}
    distances = Distances()
    distances.update(regions, regions.keys())
    assert [one.region[-2:] for one in distances.shown] == ["00", "01", "02"]
    assert sum(len(one.region) for one in distances.shown) <= REGION_BYTES_MAX
    short = Distances()
    short.update({f"r{number:02}": [0.1] for number in range(12)}, [f"r{number:02}" for number in range(12)])
    assert len(short.shown) == DISTANCES_MAX


# --- who carries --------------------------------------------------------------------------------------------


def test_a_region_without_hubs_is_carried_by_the_nearest_one() -> None:
    for near in ("eu", "us", "sa"):
        crowd = mesh({near: 3, **{other: 6 for other in ("eu", "us", "sa") if other != near}})
        assert carrier(crowd) == near
        check(view_of(*crowd))


def test_the_median_counts_so_one_that_lies_moves_nothing() -> None:
    crowd = mesh({"eu": 3, "us": 5, "sa": 6})
    liar = next(one for one in crowd if one.region == "us")
    said = (RegionDistance("ap", 0),)
    lied = [dataclasses.replace(one, distances=said) if one.node == liar.node else one for one in crowd]
    assert carrier(lied) == "eu"


def test_ties_and_missing_figures_are_settled_by_the_hash() -> None:
    bare = mesh({})
    by_hash = carrier(bare)
    assert carrier(mesh({"eu": 4, "us": 4, "sa": 4})) == by_hash
    other = next(one for one in ("eu", "us", "sa") if one != by_hash)
    assert carrier(mesh({other: 9})) == other, "of the rest nobody says anything"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_every_pair_stays_connected_whatever_members_say_of_distances(seed: int) -> None:
    dice = random.Random(seed)
    regions = ("eu", "us", "ap", "sa")
    crowd = [
        member(
            number,
            region=dice.choice(regions),
            hub=dice.choice(("allow", "never")),
            distances=tuple(
                RegionDistance(one, dice.randrange(12))
                for one in (*regions, "nowhere")
                if dice.random() < 0.5
            ),
        )
        for number in range(14)
    ]
    check(view_of(*crowd))


# --- helpers ------------------------------------------------------------------------------------------------


def mesh(levels: dict[str, int]) -> list[MemberView]:
    """Three regions of three with hubs, whose members say how far the one without is, and that one."""
    with_hubs = [
        member(
            number,
            region=region,
            distances=(RegionDistance("ap", levels[region]),) if region in levels else (),
        )
        for number, region in enumerate(("eu", "us", "sa") * 3)
    ]
    return [*with_hubs, *(member(number, region="ap", hub="never") for number in range(20, 23))]


def carrier(crowd: list[MemberView]) -> str:
    (region,) = {hub.region for hub in cells_of(crowd)["ap"].hubs}
    return region

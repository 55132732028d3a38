"""Reported hubs: who loses its place by whose word, and that no words whatever cost a mesh a connection."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_members import check, member, node, view_of

from meshpeer.core.records.kinds import HubReport
from meshpeer.core.topology.hub_reports import FORWARDING, TUNNEL, reports_needed
from meshpeer.core.topology.regions import cells_of
from meshpeer.core.topology.view import MemberView

KINDS = (TUNNEL, FORWARDING)

crowds = st.lists(
    st.tuples(
        st.sampled_from(("eu", "us", "ap")),
        st.sampled_from(("allow", "allow", "allow", "prefer", "never")),
        st.sampled_from((False, False, False, True)),
        st.lists(st.tuples(st.integers(0, 19), st.sampled_from(KINDS), st.booleans()), max_size=4),
    ),
    min_size=1,
    max_size=20,
)


# --- laws ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(crowds, st.integers(1, 3))
def test_whatever_members_report_every_pair_stays_connected_and_no_region_loses_its_hubs(
    kinds: list[tuple[str, str, bool, list[tuple[int, str, bool]]]], active: int
) -> None:
    crowd = [
        member(
            number,
            region=region,
            hub=hub,
            doubted=doubted,
            reports=tuple(HubReport(node(whom), 0 if now else 7, kind) for whom, kind, now in said),
        )
        for number, (region, hub, doubted, said) in enumerate(kinds)
    ]
    check(dataclasses.replace(view_of(*crowd), hubs=active))
    cells = cells_of(crowd, active=active)
    for one in crowd:
        if one.hub != "never" and not one.doubted:
            assert {hub.region for hub in cells[one.region].hubs} == {one.region}
            assert len(cells[one.region].active) == min(active, len(fit(crowd, one.region)))


@settings(max_examples=80, deadline=None)
@given(st.integers(4, 14), st.integers(0, 2**32))
def test_one_liar_moves_nothing_where_two_or_more_depend_on_each_hub(size: int, seed: int) -> None:
    dice = random.Random(seed)
    crowd = [member(number, region="eu") for number in range(size)]
    said = tuple(report(one, dice.choice(KINDS)) for one in dice.sample(crowd, min(size, 4)))
    liar = dice.choice(crowd)
    assert places(cells_of(saying(crowd, {liar.node: said}))["eu"]) == places(cells_of(crowd)["eu"])


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 12), st.integers(0, 2**32))
def test_reports_count_alike_in_whatever_order_members_come(size: int, seed: int) -> None:
    dice = random.Random(seed)
    crowd = [member(number, region=dice.choice(("eu", "us"))) for number in range(size)]
    said = {one.node: (report(dice.choice(crowd), TUNNEL),) for one in crowd if dice.random() < 0.6}
    before = saying(crowd, said)
    after = list(before)
    dice.shuffle(after)
    assert {region: places(cell) for region, cell in cells_of(before).items()} == {
        region: places(cell) for region, cell in cells_of(after).items()
    }


# --- rules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dependents", "needed"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 3), (400, 3)]
)
def test_half_of_those_that_depend_on_a_hub_and_one_more_depose_it_three_at_most(
    dependents: int, needed: int
) -> None:
    assert reports_needed(dependents) == needed


@pytest.mark.parametrize("edges", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_the_one_that_stands_by_takes_over_once_enough_say_so(edges: int, kind: str) -> None:
    crowd = [member(number, region="eu") for number in range(edges + 2)]
    before = cells_of(crowd)["eu"]
    (lost,) = before.active
    said = [one for one in crowd if one != lost]
    for count in range(edges + 2):
        words = {one.node: (report(lost, kind),) for one in said[:count]}
        after = cells_of(saying(crowd, words))["eu"]
        deposed = count >= reports_needed(edges + 1)
        assert places(after)[0] == [(before.standby if deposed else before.active)[0].node], count


def test_the_word_of_those_that_do_not_depend_on_a_hub_does_not_count() -> None:
    eu = [member(number, region="eu") for number in range(3)]
    us = [member(number + 100, region="us") for number in range(6)]
    (lost,) = cells_of(eu)["eu"].active
    words = {one.node: (report(lost, TUNNEL),) for one in (*us, lost)}
    assert places(cells_of(saying([*eu, *us], words))["eu"]) == places(cells_of(eu)["eu"])


def test_in_a_region_of_two_the_one_that_stands_by_has_the_only_word() -> None:
    crowd = [member(number, region="eu") for number in range(2)]
    (lost,), (standby,) = cells_of(crowd)["eu"].active, cells_of(crowd)["eu"].standby
    said = saying(crowd, {standby.node: (report(lost, FORWARDING),)})
    assert places(cells_of(said)["eu"]) == ([standby.node], [lost.node])


def test_a_hub_that_starts_anew_is_judged_anew() -> None:
    crowd = [member(number, region="eu", incarnation=5) for number in range(4)]
    cell = cells_of(crowd)["eu"]
    (lost,) = cell.active
    said = saying(crowd, {one.node: (report(lost, TUNNEL),) for one in crowd if one not in cell.hubs})
    assert places(cells_of(said)["eu"])[0] == [cell.standby[0].node]
    again = [dataclasses.replace(one, incarnation=6) if one.node == lost.node else one for one in said]
    assert places(cells_of(again)["eu"])[0] == [lost.node]


def test_who_is_gone_neither_reports_nor_is_counted() -> None:
    crowd = [member(number, region="eu") for number in range(4)]
    cell = cells_of(crowd)["eu"]
    (lost,), (standby,) = cell.active, cell.standby
    one, other = (edge for edge in crowd if edge not in cell.hubs)
    words = {reporter.node: (report(lost, TUNNEL),) for reporter in (one, standby)}
    gone = [dataclasses.replace(edge, doubted=edge.node == other.node) for edge in saying(crowd, words)]
    assert places(cells_of(gone)["eu"])[0] == [cell.standby[0].node], "two are left, and say so"
    words = {one.node: words[one.node], other.node: ()}
    silent = [dataclasses.replace(edge, doubted=edge.node == one.node) for edge in saying(crowd, words)]
    assert places(cells_of(silent)["eu"])[0] == [lost.node]


def test_who_reports_as_many_as_there_is_room_for_is_not_heard() -> None:
    """An office whose UDP is dropped finds every hub dead: its word would move the mesh from one to the
    next."""
    crowd = [member(number, region="eu") for number in range(12)]
    office = crowd[-3:]
    words = {one.node: tuple(report(hub, TUNNEL) for hub in crowd[:4]) for one in office}
    assert places(cells_of(saying(crowd, words))["eu"]) == places(cells_of(crowd)["eu"])


def test_where_every_candidate_is_reported_reports_tell_nothing() -> None:
    crowd = [member(0, region="eu"), *(member(number, region="eu", hub="never") for number in range(1, 6))]
    words = {one.node: (report(crowd[0], FORWARDING),) for one in crowd[1:]}
    assert places(cells_of(saying(crowd, words))["eu"]) == ([crowd[0].node], [])


def test_a_region_that_is_carried_has_a_say_in_who_carries_it() -> None:
    eu = [member(number, region="eu") for number in range(2)]
    ap = [member(number + 50, region="ap", hub="never") for number in range(3)]
    (lost,) = cells_of([*eu, *ap])["ap"].active
    words = {one.node: (report(lost, TUNNEL),) for one in ap}
    said = saying([*eu, *ap], words)
    assert places(cells_of(said)["ap"])[0] == [next(one.node for one in eu if one.node != lost.node)]
    check(view_of(*said))


# --- helpers ------------------------------------------------------------------------------------------------


def fit(crowd: list[MemberView], region: str) -> list[MemberView]:
    return [one for one in crowd if one.region == region and one.hub != "never" and not one.doubted]


def report(hub: MemberView, kind: str) -> HubReport:
    return HubReport(hub.node, hub.incarnation, kind)


def saying(crowd: list[MemberView], words: dict[object, tuple[HubReport, ...]]) -> list[MemberView]:
    return [dataclasses.replace(one, reports=words.get(one.node, ())) for one in crowd]


def places(cell: object) -> tuple[list[object], list[object]]:
    return [one.node for one in cell.active], [one.node for one in cell.standby]  # type: ignore[attr-defined]

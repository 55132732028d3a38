"""Reasons of a path are read from what decides: they follow it wherever it goes."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.addressing.ula import ula_address
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.topology.mode import ModeRule
from meshpeer.core.topology.plan import REGION_FULL_MAX, PairRule, Routes
from meshpeer.core.topology.reasons import (
    CarriedReason,
    Criterion,
    HubReason,
    IsHubReason,
    ModeReason,
    PairReason,
    PassedOverReason,
    path_reasons,
)
from meshpeer.core.topology.regions import cells_of
from meshpeer.core.topology.shape import Shape
from meshpeer.core.topology.view import MemberView, MeshView

MESH = MeshId(bytes(16))

kinds = st.tuples(
    st.sampled_from(("eu", "us", "")),
    st.sampled_from(("allow", "prefer", "never")),
    st.booleans(),
    st.sampled_from((False, False, True)),
    st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(kinds, min_size=2, max_size=14), st.sampled_from(("auto", "full", "regional")))
def test_every_pair_of_any_mesh_has_the_same_rule_from_both_ends_and_reasons_that_hold(
    crowd: list[tuple[str, str, bool, bool, bool]], topology: str
) -> None:
    view = view_of(
        *(
            member(number, region=region, hub=hub, public=public, doubted=doubted, warm=warm)
            for number, (region, hub, public, doubted, warm) in enumerate(crowd)
        ),
        topology=topology,
    )
    cells = cells_of(view.members)
    for one in view.members:
        for other in view.members:
            if one == other:
                continue
            mode, pair, *rest = path_reasons(Shape(view), one.node, other.node)
            assert isinstance(mode, ModeReason)
            assert isinstance(pair, PairReason)
            assert pair.rule is Routes(Shape(view), other.node).pair_rule(one)
            assert (pair.rule is not PairRule.APART) == (other.node in Routes(Shape(view), one.node).adjacent)
            for reason in rest:
                check_reason(reason, cells)


def check_reason(reason: object, cells: dict[str, object]) -> None:
    match reason:
        case HubReason(hub=hub, edge=edge):
            cell = cells[edge.region]
            assert cell.home(edge.node) == hub  # type: ignore[attr-defined]
            assert hub.region == reason.region
            assert reason.over not in cell.active  # type: ignore[attr-defined]
        case PassedOverReason(member=member):
            assert member.doubted is reason.gone
            assert member not in cells[member.region].active  # type: ignore[attr-defined]
        case IsHubReason(hub=hub):
            assert hub in cells[hub.region].active  # type: ignore[attr-defined]
        case CarriedReason(region=region, by=by):
            assert cells[region] == cells[by]
        case _:
            pytest.fail(f"not a reason of a pair: {reason}")


@pytest.mark.parametrize(
    ("change", "criterion"),
    [
        ({"hub": "prefer"}, Criterion.PREFERRED),
        ({"public": True}, Criterion.PUBLIC),
        ({}, Criterion.DRAWN),
    ],
)
def test_a_hub_is_told_by_what_the_next_one_lacks(change: dict[str, object], criterion: Criterion) -> None:
    crowd = [member(number, region="eu") for number in range(5)]
    crowd[2] = dataclasses.replace(crowd[2], **change)  # type: ignore[arg-type]
    (reason,) = hubs_of(view_of(*crowd, member(9, region="us")))
    assert reason.criterion is criterion
    assert not change or reason.hub == crowd[2]


def test_a_hub_without_its_tunnels_waits_for_one_that_has_them_and_is_named() -> None:
    crowd = [
        member(number, region="eu", warm=number in (1, 2), hub="prefer" if number == 3 else "allow")
        for number in range(5)
    ]
    view = view_of(*crowd, member(9, region="us"))
    (reason,) = hubs_of(view)
    assert reason.hub in crowd[1:3]
    assert (reason.over in crowd[1:3], reason.criterion) == (True, Criterion.DRAWN)
    passed = [one for one in path_reasons(Shape(view), node(0), node(9)) if isinstance(one, PassedOverReason)]
    assert PassedOverReason(member=crowd[3], region="eu", gone=False) in passed


def test_a_hub_that_alone_has_its_tunnels_is_told_by_that() -> None:
    crowd = [member(number, region="eu", warm=number == 2) for number in range(4)]
    (reason,) = hubs_of(view_of(*crowd, member(9, region="us")))
    assert (reason.hub, reason.criterion) == (crowd[2], Criterion.WARM)


def test_the_only_fit_member_is_hub_because_of_that() -> None:
    crowd = [member(number, region="eu", hub="allow" if number == 1 else "never") for number in range(3)]
    (reason,) = hubs_of(view_of(*crowd, member(9, region="us")))
    assert (reason.hub, reason.criterion, reason.over) == (crowd[1], Criterion.ONLY, None)


def test_whoever_would_be_the_hub_but_is_doubted_is_named() -> None:
    crowd = [member(number, region="eu") for number in range(5)]
    crowd[3] = dataclasses.replace(crowd[3], hub="prefer", doubted=True)
    view = view_of(*crowd, member(9, region="us"))
    passed = [
        one
        for edge in crowd[:3]
        for one in path_reasons(Shape(view), edge.node, node(9))
        if isinstance(one, PassedOverReason)
    ]
    assert {(one.member, one.gone) for one in passed} == {(crowd[3], True)}


def test_a_region_that_another_carries_is_told_with_both() -> None:
    eu = [member(number, region="eu") for number in range(4)]
    ap = [member(number + 10, region="ap", hub="never") for number in range(40)]
    view = view_of(*eu, *ap)
    carried = [
        one for one in path_reasons(Shape(view), ap[0].node, ap[1].node) if isinstance(one, CarriedReason)
    ]
    assert carried == [CarriedReason(region="ap", by="eu")]


@pytest.mark.parametrize(
    ("count", "topology", "hub", "rule"),
    [
        (3, "auto", "allow", ModeRule.SMALL),
        (9, "auto", "allow", ModeRule.WORDS),
        (12, "auto", "allow", ModeRule.LARGE),
        (3, "regional", "allow", ModeRule.CHOSEN),
        (3, "regional", "never", ModeRule.NO_HUB),
        (12, "auto", "never", ModeRule.NO_HUB),
    ],
)
def test_the_mode_is_told_by_the_rule_that_made_it(
    count: int, topology: str, hub: str, rule: ModeRule
) -> None:
    view = view_of(*(member(number, region="eu", hub=hub) for number in range(count)), topology=topology)
    mode, *_ = path_reasons(Shape(view), node(0), node(1))
    assert isinstance(mode, ModeReason)
    assert (mode.rule, mode.mode) == (rule, Routes(Shape(view), node(0)).mode)


def test_a_region_above_its_bound_is_told_by_its_size() -> None:
    crowd = [member(number, region="eu") for number in range(REGION_FULL_MAX + 1)]
    view = view_of(*crowd)
    hubs = {hub.node for hub in cells_of(crowd)["eu"].hubs}
    one, other, *_ = [one.node for one in crowd if one.node not in hubs]
    _, pair, *_ = path_reasons(Shape(view), one, other)
    assert isinstance(pair, PairReason)
    assert (pair.rule, pair.size) == (PairRule.APART, REGION_FULL_MAX + 1)


# --- helpers ------------------------------------------------------------------------------------------------


def hubs_of(view: MeshView) -> set[HubReason]:
    """Returns why the members of eu that are no hubs have theirs."""
    far = node(9)
    found = [
        reason
        for one in view.members
        if one.region == "eu"
        for reason in path_reasons(Shape(view), one.node, far)
        if isinstance(reason, HubReason) and reason.region == "eu"
    ]
    return {dataclasses.replace(one, edge=view.members[0]) for one in found}


def node(number: int) -> NodeId:
    return NodeId(random.Random(number).randbytes(32))


def member(number: int, **changes: object) -> MemberView:
    fields: dict[str, object] = {
        "node": node(number),
        "name": f"n{number}",
        "region": "",
        "wireguard_key": WireGuardKey(bytes(reversed(node(number)))),
        "ipv4": "",
        "ipv6": str(ula_address(MESH, node(number))),
    }
    return MemberView(**{**fields, **changes})  # type: ignore[arg-type]


def view_of(*members: MemberView, topology: str = "regional") -> MeshView:
    return MeshView(subnet="10.10.0.0/16", topology=topology, keepalive_s=25, mtu=1420, members=members)

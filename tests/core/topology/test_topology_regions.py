"""Regional plans: packets are followed through the plans of all nodes, and checked at every hop as WireGuard
does."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_members import check, member, view_of

from meshpeer.core.ids import NodeId
from meshpeer.core.topology.plan import REGION_FULL_MAX, MeshPlan, plan_mesh
from meshpeer.core.topology.regions import ACTIVE, STANDBY, cells_of
from meshpeer.core.topology.view import MemberView, MeshView

# --- every pair ---------------------------------------------------------------------------------------------

members = st.builds(
    lambda region, hub, public, doubted, warm: {
        "region": region,
        "hub": hub,
        "public": public,
        "doubted": doubted,
        "warm": warm,
    },
    st.sampled_from(("eu", "us", "ap", "")),
    st.sampled_from(("allow", "allow", "prefer", "never")),
    st.booleans(),
    st.sampled_from((False, False, False, True)),
    st.booleans(),
)


LANS = (("192.168.5.0/24",), ("192.168.0.0/16",), ("192.168.5.128/25", "fd05::/64"), ("fd05::/48",))


@settings(max_examples=120, deadline=None)
@given(st.lists(members, min_size=1, max_size=24), st.integers(1, 3))
def test_every_pair_is_connected_both_ways_in_three_hops(kinds: list[dict[str, object]], hubs: int) -> None:
    view = view_of(*(member(number, **kind) for number, kind in enumerate(kinds)))
    check(dataclasses.replace(view, hubs=hubs))


def test_two_hubs_that_carry_another_region_answer_by_the_tunnel_they_were_asked_by() -> None:
    """Whoever is of the hubs' own region has a tunnel to either, and sends by the one that serves the other
    end."""
    carried = [member(number, region="eu", hub="never") for number in range(6)]
    own = [member(number + 10, region="us") for number in range(8)]
    check(dataclasses.replace(view_of(*carried, *own), hubs=2))


@settings(max_examples=80, deadline=None)
@given(st.lists(members, min_size=2, max_size=16), st.dictionaries(st.integers(0, 15), st.sampled_from(LANS)))
def test_lans_go_with_their_member_both_ways(
    kinds: list[dict[str, object]], holders: dict[int, tuple[str, ...]]
) -> None:
    taken: set[str] = set()
    crowd = []
    for number, kind in enumerate(kinds):
        lans = tuple(lan for lan in holders.get(number, ()) if lan not in taken)
        taken.update(lans)
        crowd.append(member(number, **kind, lans=lans))
    view = view_of(*crowd)
    check(view)
    check(dataclasses.replace(view, topology="full"))


def test_of_one_prefix_that_two_hold_a_plan_gives_one_the_tunnel() -> None:
    crowd = [member(number, lans=("192.168.5.0/24",)) for number in range(3)]
    for one in crowd:
        owned = [lan for peer in plan_mesh(view_of(*crowd), one.node).peers for lan in peer.allowed_ips]
        assert owned.count("192.168.5.0/24") == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(REGION_FULL_MAX - 1, REGION_FULL_MAX + 3))
def test_regions_around_the_bound_of_a_full_one(seed: int, size: int) -> None:
    dice = random.Random(seed)
    crowd = [member(number, region="eu", doubted=dice.random() < 0.1) for number in range(size)]
    few = [member(500 + number, region=dice.choice(("us", "ap"))) for number in range(6)]
    check(dataclasses.replace(view_of(*crowd, *few), hubs=dice.choice((1, 2, 3))))


@settings(max_examples=60, deadline=None)
@given(st.lists(members, min_size=2, max_size=16), st.randoms(use_true_random=False))
def test_equal_facts_give_equal_plans_in_whatever_order(
    kinds: list[dict[str, object]], dice: random.Random
) -> None:
    views = [member(number, **kind) for number, kind in enumerate(kinds)]
    shuffled = list(views)
    dice.shuffle(shuffled)
    for one in views:
        assert plan_mesh(view_of(*views), one.node) == plan_mesh(view_of(*shuffled), one.node)


# --- hubs ---------------------------------------------------------------------------------------------------


def test_who_is_a_hub_is_asked_of_the_owner_first_then_of_the_network() -> None:
    crowd = [member(number, region="eu") for number in range(8)]
    asked = dataclasses.replace(crowd[5], hub="prefer")
    seen = dataclasses.replace(crowd[3], public=True)
    cell = cells_of([*crowd[:3], seen, crowd[4], asked, *crowd[6:]])["eu"]
    assert [hub.node for hub in cell.active] == [asked.node]
    assert [hub.node for hub in cell.standby] == [seen.node]


@pytest.mark.parametrize("why", [{"hub": "never"}, {"doubted": True}])
def test_an_unfit_hub_hands_over_to_its_standby(why: dict[str, object]) -> None:
    crowd = [member(number, region="eu") for number in range(8)]
    before = cells_of(crowd)["eu"]
    after = cells_of([dataclasses.replace(one, **why) if one in before.active else one for one in crowd])  # type: ignore[arg-type]
    assert after["eu"].active == before.standby


def test_a_hub_that_just_came_back_stands_by_until_it_has_its_tunnels() -> None:
    crowd = [member(number, region="eu", warm=True) for number in range(8)]
    before = cells_of(crowd)["eu"]
    first, second = before.active[0].node, before.standby[0].node
    after = cells_of([dataclasses.replace(one, warm=one.node != first) for one in crowd])["eu"]
    assert [hub.node for hub in after.active] == [second]
    assert after.standby[0].node == first
    assert after.standby[1].warm, "somebody can take over meanwhile"
    assert len(after.standby) == 2


def test_nobody_takes_over_from_a_warm_hub_by_rank_alone() -> None:
    crowd = [member(number, region="eu") for number in range(8)]
    last = sorted(crowd, key=lambda one: one.node)[-1]
    warm = [dataclasses.replace(one, warm=one == last) for one in crowd]
    public = [dataclasses.replace(one, public=one != last) for one in warm]
    for members in (warm, public):
        assert [hub.node for hub in cells_of(members)["eu"].active] == [last.node]


def test_who_stands_by_has_tunnels_and_carries_nothing() -> None:
    crowd = [member(number, region=region) for region in ("eu", "us") for number in numbers(region, 6)]
    cells = cells_of(crowd)
    (standby,), (far,) = cells["eu"].standby, cells["us"].active
    tunnel = next(one for one in plan_mesh(view_of(*crowd), far.node).peers if one.node == standby.node)
    assert tunnel.allowed_ips == ()
    own = plan_mesh(view_of(*crowd), standby.node)
    assert own.hub == cells["eu"].active[0].name
    assert own.forwards, "it could take over at once"


def test_failover_moves_addresses_and_makes_no_tunnel_but_to_the_new_standby() -> None:
    crowd = [member(number, region=region) for region in ("eu", "us") for number in numbers(region, 6)]
    view = view_of(*crowd)
    lost = cells_of(crowd)["eu"].active[0]
    after = view_of(*(dataclasses.replace(one, doubted=one == lost) for one in crowd))
    fresh = standbys(after) - standbys(view)
    assert len(fresh) == 1
    for one in crowd:
        had = {peer.node for peer in plan_mesh(view, one.node).peers}
        made = {peer.node for peer in plan_mesh(after, one.node).peers} - had
        assert made <= fresh or one.node in fresh, one.name


def test_a_region_without_a_fit_member_is_carried_by_another() -> None:
    eu = [member(number, region="eu") for number in range(3)]
    ap = [member(number + 10, region="ap", hub="never") for number in range(3)]
    cells = cells_of([*eu, *ap])
    assert cells["ap"] == cells["eu"]
    check(view_of(*eu, *ap))


def test_a_region_that_is_carried_by_two_hubs_reaches_all_of_theirs() -> None:
    """Whoever is in the hubs' own region has tunnels to both, and is reached by either."""
    us = [member(number, region="us") for number in range(6)]
    eu = [member(number + 10, region="eu", hub="never") for number in range(6)]
    check(dataclasses.replace(view_of(*us, *eu), hubs=2))


def test_a_mesh_without_anybody_fit_is_full() -> None:
    view = view_of(*(member(number, region="eu", hub="never") for number in range(4)))
    assert {plan_mesh(view, one.node).mode for one in view.members} == {"full"}
    check(view)


# --- size and stability -------------------------------------------------------------------------------------


def test_tunnels_stay_bounded_at_a_thousand() -> None:
    regions = [f"r{number}" for number in range(10)]
    crowd = [member(number, region=regions[number % 10]) for number in range(1_000)]
    view = view_of(*crowd)
    hubs = {hub.node for cell in cells_of(crowd).values() for hub in cell.hubs}
    assert len(hubs) == 10 * (ACTIVE + STANDBY)
    tunnels = {one.node: len(plan_mesh(view, one.node).peers) for one in crowd[:60]}
    assert all(count == ACTIVE + STANDBY for node, count in tunnels.items() if node not in hubs)
    assert all(plan_count == len(hubs) - 1 + 98 for node, plan_count in tunnels.items() if node in hubs)
    everybody = sum(len(plan_mesh(view, node).peers) for node in hubs) + (1_000 - len(hubs)) * 2
    assert everybody // 2 < 2_300, "a full mesh has 499,500"


def test_one_that_comes_or_goes_moves_the_tunnels_of_few() -> None:
    crowd = [member(number, region=("eu", "us", "ap")[number % 3]) for number in range(120)]
    moved: list[int] = []
    for gone in crowd[:12]:
        without = view_of(*(one for one in crowd if one != gone))
        view = view_of(*crowd)
        moved.append(
            sum(
                tunnels(plan_mesh(view, one.node), gone) != tunnels(plan_mesh(without, one.node))
                for one in crowd
                if one != gone
            )
        )
    assert sorted(moved)[len(moved) * 3 // 4] == 0, "most members are no hubs: nobody else notices"
    assert max(moved) <= 40 + 6, "a hub's own region, and the other hubs"


# --- helpers ------------------------------------------------------------------------------------------------


def standbys(view: MeshView) -> set[NodeId]:
    return {hub.node for cell in cells_of(view.members).values() for hub in cell.standby}


def tunnels(plan: MeshPlan, without: MemberView | None = None) -> set[NodeId]:
    return {peer.node for peer in plan.peers if without is None or peer.node != without.node}


def numbers(region: str, count: int) -> range:
    start = sum(region.encode()) * 10
    return range(start, start + count)

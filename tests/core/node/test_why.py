"""What a node explains of a path: the way that packets take, what it knows of its own tunnels, and nothing
that only others know."""

from __future__ import annotations

import dataclasses
import itertools
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent))

from topology_packets import packets_path
from why_cases import ALIVE, NOW, known, look_at, member, tried, two_regions, view_of

from meshpeer.core.membership.opinions import Opinion, State
from meshpeer.core.node.looks import TriedState
from meshpeer.core.node.why import (
    Advice,
    NoTunnelsReason,
    StateReason,
    StayReason,
    Verdict,
    explain,
)
from meshpeer.core.topology.moves import Stay, Waits
from meshpeer.core.topology.plan import Held, Routes, plan_mesh
from meshpeer.core.topology.shape import Shape

kinds = st.tuples(
    st.sampled_from(("eu", "us", "ap")),
    st.sampled_from(("allow", "prefer", "never")),
    st.booleans(),
    st.sampled_from((False, False, False, True)),
)


# --- the path -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(kinds, min_size=2, max_size=14), st.sampled_from(("auto", "full", "regional")), st.integers(1, 3)
)
def test_the_path_is_the_one_that_packets_take_whoever_is_asked(
    crowd: list[tuple[str, str, bool, bool]], topology: str, hubs: int
) -> None:
    members = [
        member(number, region=region, hub=hub, public=public, doubted=doubted)
        for number, (region, hub, public, doubted) in enumerate(crowd)
    ]
    view = dataclasses.replace(view_of(*members), topology=topology, hubs=hubs)
    plans = {one.node: plan_mesh(view, one.node) for one in members}
    for one, other in itertools.permutations(members, 2):
        real = packets_path(plans, one.node, other.node, other.ipv6)
        for asked in (one.node, other.node, real[len(real) // 2], members[0].node):
            found = explain(known(asked, view), one.node, other.node)
            assert list(found.path) == real
            assert found.foreign is (asked not in (one.node, other.node))
            own = [leg for leg in itertools.pairwise(real) if asked in leg]
            assert {*found.unknown} == {*itertools.pairwise(real)} - {*own}


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 12), st.integers(0, 2**32))
def test_pairs_that_both_ends_hold_back_are_followed_from_either_end(count: int, seed: int) -> None:
    dice = random.Random(seed)
    members = [member(number, region=("eu", "us")[number % 2]) for number in range(count)]
    view = view_of(*members)
    routes = {one.node: Routes(Shape(view), one.node) for one in members}
    edges = [one.node for one in members if not routes[members[0].node].carries(one.node)]
    held = {
        frozenset(pair)
        for pair in itertools.combinations(edges, 2)
        if pair[1] not in routes[pair[0]].adjacent and dice.random() < 0.5
    }
    plans = {
        node: one.plan(
            Held(direct=frozenset(other for pair in held if node in pair for other in pair - {node}))
        )
        for node, one in routes.items()
    }
    for one, other in itertools.permutations(members, 2):
        real = packets_path(plans, one.node, other.node, other.ipv6)
        for asked in (one.node, other.node):
            found = explain(known(asked, view, plan=plans[asked]), one.node, other.node)
            assert list(found.path) == real


# --- what is known, and what is not -------------------------------------------------------------------------


def test_a_tunnel_of_ones_own_that_works_is_direct_and_nothing_is_unknown() -> None:
    view, one, other, _ = two_regions()
    found = explain(known(one, view, topology="full"), one, other)
    assert (found.verdict, found.path, found.unknown, found.advice) == (
        Verdict.DIRECT,
        (one, other),
        (),
        None,
    )


def test_by_hubs_the_tunnels_of_others_are_unknown() -> None:
    view, one, other, path = two_regions()
    found = explain(known(one, view), one, other)
    assert (found.verdict, found.path) == (Verdict.HUBS, path)
    assert found.unknown == tuple(itertools.pairwise(path))[1:]
    assert [look.node for look in found.looks] == [path[1]]


def test_from_a_third_node_only_the_plan_is_known() -> None:
    view, one, other, path = two_regions()
    third = next(node.node for node in view.members if node.node not in path)
    found = explain(known(third, view), one, other)
    assert (found.verdict, found.looks, found.foreign) == (Verdict.PLANNED, (), True)
    assert found.unknown == tuple(itertools.pairwise(path))


def test_a_hub_on_the_way_knows_its_own_two_tunnels() -> None:
    view, one, other, path = two_regions()
    found = explain(known(path[1], view), one, other)
    assert [look.node for look in found.looks] == [path[0], path[2]]
    assert (found.verdict, found.unknown) == (Verdict.HUBS, ((path[2], path[3]),))
    broken = explain(known(path[1], view, works={path[0]: True}), one, other)
    assert (broken.verdict, broken.broken) == (Verdict.NONE, path[2])


@pytest.mark.parametrize(("linked", "verdict"), [(True, Verdict.LINK), (False, Verdict.NONE)])
def test_without_a_handshake_on_the_first_hop_there_is_no_path(linked: bool, verdict: Verdict) -> None:
    view, one, other, path = two_regions()
    found = explain(known(one, view, works={}, linked=linked), one, other)
    assert (found.verdict, found.broken, found.advice) == (verdict, path[1], Advice.OPEN_PORT)


def test_a_member_without_tunnels_has_no_path_and_that_is_why() -> None:
    view, one, other, _ = two_regions()
    less = dataclasses.replace(view, members=tuple(m for m in view.members if m.node != other))
    for taken in (False, True):
        state = dataclasses.replace(known(one, less), shown_keys=frozenset({other} if taken else ()))
        found = explain(state, one, other)
        assert (found.verdict, found.path) == (Verdict.NONE, ())
        assert found.reasons == (NoTunnelsReason(node=other, key_taken=taken),)


def test_members_on_the_way_that_are_not_alive_are_told() -> None:
    view, one, other, path = two_regions()
    dead = Opinion(state=State.DEAD, since_unix_s=NOW - 60, because="refused")
    state = dataclasses.replace(known(one, view), opinion=lambda who: dead if who == path[1] else ALIVE)
    found = explain(state, one, other)
    assert StateReason(node=path[1], opinion=dead) in found.reasons


def test_a_pair_that_has_not_moved_is_told_with_what_it_waits_for() -> None:
    view, one, other, _ = two_regions()
    stay = Stay(direct=False, waits=Waits.TRAFFIC, idle_s=12.0)
    plan = Routes(Shape(view), one).plan(Held(direct=frozenset({other})))
    state = dataclasses.replace(known(one, view, plan=plan), stay=lambda who: stay if who == other else None)
    found = explain(state, one, other)
    assert found.path == (one, other)
    assert StayReason(node=other, stay=stay, idle_s=180) in found.reasons


def test_a_tunnel_that_is_still_to_come_is_shown_beside_the_hub() -> None:
    view, one, other, _ = two_regions()
    full = dataclasses.replace(view, topology="full")
    stay = Stay(direct=True, waits=Waits.TUNNEL, idle_s=None)
    plan = Routes(Shape(full), one).plan(Held(carried=frozenset({other})), forwarded=True)
    state = dataclasses.replace(known(one, full, plan=plan), stay=lambda who: stay if who == other else None)
    found = explain(state, one, other)
    assert found.verdict is Verdict.HUBS
    assert [look.node for look in found.looks] == [found.path[1], other]


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"installed": False}, Advice.INTERFACE),
        ({"ready": False}, Advice.AWAIT_PEER),
        ({"candidates": ()}, Advice.NAME_ENDPOINT),
        ({}, Advice.OPEN_PORT),
    ],
)
def test_advice_is_about_the_first_thing_that_is_amiss(change: dict[str, object], advice: Advice) -> None:
    view, one, other, path = two_regions()
    look = dataclasses.replace(look_at(path[1], works=False), **change)  # type: ignore[arg-type]
    state = dataclasses.replace(known(one, view), look=lambda _: look)
    assert explain(state, one, other).advice is advice


def test_advice_waits_for_the_first_endpoint_to_have_its_time() -> None:
    view, one, other, path = two_regions()
    fresh = dataclasses.replace(tried(TriedState.TRYING), since_unix_s=NOW - 1)
    look = dataclasses.replace(look_at(path[1], works=False), candidates=(fresh, tried(TriedState.UNTRIED)))
    assert explain(dataclasses.replace(known(one, view), look=lambda _: look), one, other).advice is (
        Advice.AWAIT_TRY
    )


def test_without_keepalives_an_idle_tunnel_is_to_be_pinged() -> None:
    view, one, other, path = two_regions()
    quiet = dataclasses.replace(view, keepalive_s=0)
    look = dataclasses.replace(look_at(path[1], works=False), handshake_unix_s=int(NOW) - 600)
    assert explain(dataclasses.replace(known(one, quiet), look=lambda _: look), one, other).advice is (
        Advice.PING
    )

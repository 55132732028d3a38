"""Who is to be linked to whom: the rings, and what the overlay makes of them."""

from __future__ import annotations

import hashlib
import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.membership.overlay import (
    DEGREE_MAX,
    FULL_MESH_MAX,
    HEAL_EVERY_S,
    NEEDED_MAX,
    NEEDED_S,
    RANDOM_FIRST_S,
    RANDOM_LINKS,
    SKIP_FIRST_S,
    YOUNG_S,
    Overlay,
)
from meshpeer.core.membership.rings import OBSERVERS_PER_RING, RINGS, Rings

MESH = MeshId(b"m" * 32)


def test_order_of_members_does_not_matter() -> None:
    members = nodes(40)
    shuffled = random.Random(1).sample(members, len(members))
    one, other = Rings(MESH, members), Rings(MESH, shuffled)
    for ring in range(RINGS):
        assert list(one.after(ring, members[3])) == list(other.after(ring, members[3]))


def test_a_walk_meets_everybody_else_once_and_back_is_the_other_way() -> None:
    members = nodes(17)
    rings = Rings(MESH, members)
    for ring in range(RINGS):
        walk = list(rings.after(ring, members[5]))
        assert sorted(walk) == sorted(set(members) - {members[5]})
        assert list(rings.before(ring, members[5])) == walk[::-1]


def test_neighbours_on_a_ring_are_mutual() -> None:
    members = nodes(100)
    rings = Rings(MESH, members)
    for node in members:
        for ring in range(RINGS):
            assert next(rings.before(ring, next(rings.after(ring, node)))) == node


def test_observers_are_the_first_after_the_subject_on_any_ring() -> None:
    members = nodes(200)
    rings = Rings(MESH, members)
    subject = members[7]
    expected = {one for ring in range(RINGS) for one in list(rings.after(ring, subject))[:OBSERVERS_PER_RING]}
    assert set(rings.observers(subject)) == expected
    assert [one for one in members if rings.entitled(one, subject)] == sorted(expected)


def test_half_of_a_large_mesh_can_die_and_the_rest_stays_in_one_piece() -> None:
    members = nodes(600)
    links = graph_of(members)
    assert mean_hops(links, members[0]) < 3.6
    left = random.Random(2).sample(members, 300)
    reached = reach(links, left[0], set(left))
    assert len(reached) >= 0.98 * len(left)


@pytest.mark.parametrize("size", [10, 30, 300])
def test_every_ring_link_is_wanted_by_both_ends(size: int) -> None:
    members = nodes(size)
    rings = {}
    for me in members:
        overlay = Overlay(me=me, mesh=MESH, dice=random.Random(1))
        overlay.set_members(members, at(0))
        rings[me] = set(overlay._neighbours(at(0)))
    assert all(me in rings[other] for me in members for other in rings[me])


def test_nine_are_linked_to_all_and_more_to_a_few() -> None:
    for size in (2, 3, FULL_MESH_MAX):
        assert len(overlay_of(nodes(size)).wanted(at(0))) == size - 1
    wanted = overlay_of(nodes(200)).wanted(at(0))
    assert 6 <= len(wanted) <= 2 * RINGS + RANDOM_LINKS


def test_neighbour_that_can_not_be_dialled_is_stepped_over_for_a_while() -> None:
    overlay = overlay_of(nodes(60))
    first = next(Rings(MESH, nodes(60)).after(0, overlay.me))
    assert first in overlay.wanted(at(0))
    overlay.on_unreachable(first, at(0))
    assert first not in overlay.wanted(at(1))
    assert first in overlay.wanted(at(2 * SKIP_FIRST_S))
    overlay.on_opinion(first, dead=True)
    assert first not in overlay.wanted(at(3 * SKIP_FIRST_S))


def test_links_on_demand_are_bounded_and_end() -> None:
    members = nodes(200)
    overlay = overlay_of(members)
    for node in members:
        overlay.need(node, at(0))
    assert len(overlay.wanted(at(1))) <= NEEDED_MAX + 2 * RINGS + RANDOM_LINKS
    assert len(overlay.wanted(at(NEEDED_S + 1))) <= 2 * RINGS + RANDOM_LINKS


def test_random_members_are_drawn_once_all_are_known() -> None:
    """Joiners of a mesh that boots know few at first, and the same few: all drew random links from those."""
    overlay = overlay_of(nodes(200))
    assert len(overlay.wanted(at(1))) <= 2 * RINGS
    deadline = overlay.next_deadline()
    assert deadline is not None
    assert deadline.at_s <= 1.25 * RANDOM_FIRST_S
    assert len(overlay.wanted(at(1.25 * RANDOM_FIRST_S))) == 2 * RINGS + RANDOM_LINKS


def test_who_has_enough_links_is_not_drawn_again_for_a_while() -> None:
    """A member that many had drawn closed their links every ten seconds, and was dialled again each time."""
    overlay = overlay_of(nodes(200))
    ring = set(overlay.wanted(at(0)))
    drawn = set(overlay.wanted(at(20))) - ring
    for node in drawn:
        overlay.on_declined(node, at(20))
    others = set(overlay.wanted(at(20))) - ring
    assert len(others) == RANDOM_LINKS
    assert not others & drawn


def test_a_neighbour_that_declines_has_nearer_ones_and_so_has_this_node() -> None:
    """Whoever could not be dialled was stepped over for minutes, and the next on the ring closed the link
    that it had not asked for, again and again."""
    overlay = overlay_of(nodes(200))
    ring = set(overlay.wanted(at(0)))
    nearest = min(ring)
    overlay.on_unreachable(nearest, at(0))
    (instead,) = set(overlay.wanted(at(1))) - ring
    overlay.on_declined(instead, at(1))
    assert set(overlay.wanted(at(1))) == ring
    overlay.on_up(instead, at(2))
    overlay.on_unreachable(nearest, at(2))
    assert instead in overlay.wanted(at(3))


def test_surplus_spares_who_is_wanted_young_or_needed() -> None:
    members = nodes(200)
    overlay = overlay_of(members)
    wanted = set(overlay.wanted(at(0)))
    strangers = [one for one in members if one not in wanted and one != overlay.me]
    for node in (*wanted, *strangers[:40]):
        overlay.on_up(node, at(0))
    overlay.need(strangers[0], at(0))
    assert overlay.surplus(at(YOUNG_S - 1)) == []
    closed = overlay.surplus(at(YOUNG_S + 1))
    assert not set(closed) & {*wanted, strangers[0]}
    assert len(wanted) + 40 - len(closed) == DEGREE_MAX


def test_dead_members_are_dialled_now_and_then() -> None:
    members = nodes(40)
    overlay = overlay_of(members)
    for node in members[1:30]:
        overlay.on_opinion(node, dead=True)
    dialled: set[NodeId] = set()
    for step in range(60):
        overlay.tick(at(step * HEAL_EVERY_S))
        dialled |= set(overlay.wanted(at(step * HEAL_EVERY_S))) & set(members[1:30])
    assert len(dialled) > 15


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 59))))
def test_time_alone_never_keeps_it_busy(size: int, seed: int, steps: list[tuple[int, int]]) -> None:
    members = nodes(size)
    overlay, now = overlay_of(members, seed), 0.0
    for kind, number in steps:
        node = members[number % size]
        now += 0.7
        match kind:
            case 0:
                overlay.on_up(node, at(now))
            case 1:
                overlay.on_down(node)
            case 2:
                overlay.on_unreachable(node, at(now))
            case 3:
                overlay.on_opinion(node, dead=number % 2 == 0)
            case 4:
                overlay.need(node, at(now))
            case _:
                now += 20
        overlay.tick(at(now))
        assert overlay.me not in overlay.wanted(at(now))
        overlay.surplus(at(now))
        deadline = overlay.next_deadline()
        assert deadline is None or deadline.at_s > now


# --- helpers ------------------------------------------------------------------------------------------------


def nodes(count: int) -> tuple[NodeId, ...]:
    return tuple(sorted(NodeId(hashlib.sha256(number.to_bytes(4)).digest()) for number in range(count)))


def at(now_s: float) -> Instant:
    return Instant(now_s, 1_800_000_000 + now_s)


def overlay_of(members: tuple[NodeId, ...], seed: int = 1) -> Overlay:
    overlay = Overlay(me=members[0], mesh=MESH, dice=random.Random(seed))
    overlay.set_members(members, at(0))
    return overlay


def graph_of(members: tuple[NodeId, ...]) -> dict[NodeId, set[NodeId]]:
    links: dict[NodeId, set[NodeId]] = {one: set() for one in members}
    for number, me in enumerate(members):
        overlay = Overlay(me=me, mesh=MESH, dice=random.Random(number))
        overlay.set_members(members, at(0))
        for other in overlay.wanted(at(0)):
            links[me].add(other)
            links[other].add(me)
    return links


def reach(links: dict[NodeId, set[NodeId]], start: NodeId, among: set[NodeId]) -> dict[NodeId, int]:
    hops, queue = {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for other in links[node]:
            if other in among and other not in hops:
                hops[other] = hops[node] + 1
                queue.append(other)
    return hops


def mean_hops(links: dict[NodeId, set[NodeId]], start: NodeId) -> float:
    hops = reach(links, start, set(links))
    return sum(hops.values()) / (len(hops) - 1)

"""Pairs that move between tunnels and hubs: held where they are, agreed on, and in an order that lets every
packet through."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_packets import check_plans

from meshpeer.core.addressing.ula import ula_address
from meshpeer.core.deadline import Instant
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.topology.mode import FULL, REGIONAL, declared, mode_of
from meshpeer.core.topology.moves import (
    OFFER_EVERY_S,
    SETTLE_S,
    TELL_S,
    Moved,
    MoveMessage,
    MoveOffered,
    Moves,
    Surroundings,
    Waits,
)
from meshpeer.core.topology.plan import Held, MeshPlan, Routes
from meshpeer.core.topology.shape import Shape
from meshpeer.core.topology.view import MemberView, MeshView
from meshpeer.core.wgconf.model import ObservedPeer

MESH = MeshId(bytes(16))
IDLE_S = 60


# --- plans with pairs that have not moved -------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 12), st.integers(0, 2**32), st.booleans())
def test_whatever_pairs_are_held_both_ends_alike_every_packet_arrives(
    count: int, seed: int, hubs_wait: bool
) -> None:
    """Hubs' pairs move first: either all those of edges are held, or none of a hub's."""
    dice = random.Random(seed)
    view = regional(count)
    routes = {one.node: Routes(Shape(view), one.node) for one in view.members}
    apart = [
        (one.node, other.node)
        for one in view.members
        for other in view.members
        if one.node < other.node and other.node not in routes[one.node].adjacent
    ]
    held = {
        pair
        for pair in apart
        if (any(map(routes[pair[0]].carries, pair)) == hubs_wait) and dice.random() < 0.5
    }
    if hubs_wait:
        held |= {pair for pair in apart if not any(map(routes[pair[0]].carries, pair))}
    check_plans(
        view,
        {
            node: one.plan(Held(direct=frozenset(other_of(pair, node) for pair in held if node in pair)))
            for node, one in routes.items()
        },
    )


def test_a_pair_that_goes_by_hubs_has_its_tunnel_without_addresses_already() -> None:
    view = dataclasses.replace(regional(9), topology=FULL)
    one, *_, other = view.members
    plan = Routes(Shape(view), one.node).plan(Held(carried=frozenset({other.node})), forwarded=True)
    tunnel = next(peer for peer in plan.peers if peer.node == other.node)
    assert tunnel.allowed_ips == ()
    assert plan.carrier_of(other.ipv6) is not None


# --- one pair, event by event -------------------------------------------------------------------------------


def test_a_tunnel_that_is_in_use_stays_and_moves_once_it_is_idle() -> None:
    mesh = Mesh(full(9))
    mesh.settle()
    one, other = mesh.edges_apart(regional(9))
    mesh.traffic.add(frozenset({one, other}))
    mesh.adopt(regional(9))
    mesh.run(3 * IDLE_S)
    assert mesh.plans[one].held == Held(direct=frozenset({other}))
    assert mesh.pending() == {frozenset({one, other})}
    stay = mesh.moves[one].stay(other, mesh.now)
    assert stay is not None
    assert (stay.direct, stay.waits) == (False, Waits.TRAFFIC)
    assert stay.idle_s is not None
    assert stay.idle_s < 5
    mesh.traffic.clear()
    mesh.run(2 * IDLE_S)
    assert mesh.pending() == set()
    mesh.check()


def test_hubs_move_at_once_whatever_they_carry() -> None:
    mesh = Mesh(full(9))
    mesh.settle()
    mesh.traffic |= {frozenset({a, b}) for a in mesh.nodes for b in mesh.nodes if a != b}
    view = regional(9)
    mesh.adopt(view)
    mesh.run(SETTLE_S + 10)
    routes = Routes(Shape(view), view.members[0].node)
    assert not any(routes.carries(node) for pair in mesh.pending() for node in pair)
    assert mesh.pending()
    mesh.check()


@pytest.mark.parametrize("why", ["silent", "doubted", "restarted"])
def test_nothing_is_held_where_there_is_nothing_to_lose(why: str) -> None:
    mesh = Mesh(full(9))
    mesh.settle()
    one, other = mesh.edges_apart(regional(9))
    mesh.traffic.add(frozenset({one, other}))
    view = regional(9)
    mesh.adopt(view)
    mesh.run(10)
    assert mesh.plans[one].held is not None
    if why == "silent":
        mesh.broken.add(frozenset({one, other}))
    else:
        change = {"doubted": True} if why == "doubted" else {"incarnation": 7}
        view = dataclasses.replace(
            view,
            members=tuple(
                dataclasses.replace(member, **change) if member.node == other else member
                for member in view.members
            ),
        )
    mesh.adopt(view, only=[one])
    assert mesh.plans[one].held is None or other not in mesh.plans[one].held.direct


def test_an_end_that_moved_alone_says_so_until_the_other_follows() -> None:
    """One false suspicion: the doubted end refutes before it plans, and holds the pair still."""
    mesh = Mesh(full(9))
    mesh.settle()
    one, other = mesh.edges_apart(regional(9))
    mesh.traffic.add(frozenset({one, other}))
    view = regional(9)
    mesh.adopt(view)
    mesh.run(10)
    doubted = tuple(dataclasses.replace(member, doubted=member.node == other) for member in view.members)
    mesh.adopt(dataclasses.replace(view, members=doubted), only=[one])
    assert other not in mesh.moves[one].pending
    assert one in mesh.moves[other].pending
    assert other in mesh.moves[one].links_wanted()
    mesh.adopt(view)
    mesh.run(3)
    assert one not in mesh.moves[other].pending, "it heard, and followed"
    mesh.run(2 * OFFER_EVERY_S)
    mesh.check()
    mesh.run(TELL_S)
    assert other not in mesh.moves[one].links_wanted()


def test_a_node_that_lost_its_key_to_another_plans_on() -> None:
    """Any member can show this node's WireGuard key: it has no place in the plan then, and no hub."""
    mesh = Mesh(regional(9))
    mesh.settle()
    one, other = mesh.edges_apart(regional(9))
    view = full(9)
    thief = next(member for member in view.members if member.node not in (one, other))
    key = next(member.wireguard_key for member in view.members if member.node == one)
    stolen = tuple(
        dataclasses.replace(member, wireguard_key=key) if member is thief else member
        for member in view.members
        if member.node != one
    )
    mesh.adopt(dataclasses.replace(view, members=stolen), only=[one])
    assert mesh.plans[one].held is None


def test_neighbours_that_go_by_hubs_still_take_the_same_ones_both_ways() -> None:
    """A region of a crowd shrinks, and has two hubs: its members get tunnels, which have to be made yet."""
    crowd = [dataclasses.replace(member(number), region="eu") for number in range(33)]
    view = dataclasses.replace(regional(1), members=tuple(sorted(crowd, key=lambda one: one.node)), hubs=2)
    less = dataclasses.replace(view, members=view.members[:-1])
    held = {
        one.node: frozenset(
            other.node
            for other in less.members
            if other.node != one.node and other.node not in Routes(Shape(view), one.node).adjacent
        )
        for one in less.members
    }
    check_plans(
        less, {node: Routes(Shape(less), node).plan(Held(carried=carried)) for node, carried in held.items()}
    )


def test_a_pair_gets_its_tunnel_back_once_that_has_a_handshake() -> None:
    mesh = Mesh(regional(9))
    mesh.settle()
    one, other = mesh.edges_apart(regional(9))
    mesh.broken.add(frozenset({one, other}))
    mesh.adopt(full(9))
    mesh.run(60)
    assert frozenset({one, other}) in mesh.pending()
    mesh.check()
    mesh.broken.clear()
    mesh.run(60)
    assert mesh.pending() == set()
    assert mesh.plans[one].carrier_of(mesh.ipv6(other)).node == other  # type: ignore[union-attr]
    mesh.check()


def test_an_end_that_moved_alone_is_followed() -> None:
    """The word that one has moved is lost with the link: it is said again when the other asks."""
    mesh = Mesh(full(9))
    mesh.settle()
    one, other = mesh.edges_apart(regional(9))
    mesh.adopt(regional(9))
    mesh.run(IDLE_S // 2)
    mesh.lost = lambda message: isinstance(message, Moved)
    mesh.run(2 * IDLE_S)
    first, second = max(one, other), min(one, other)
    assert second not in mesh.moves[first].pending, "it moved"
    assert first in mesh.moves[second].pending, "it did not hear so"
    mesh.lost = lambda _: False
    mesh.run(OFFER_EVERY_S + 5)
    assert mesh.pending() == set()
    mesh.check()


def test_plans_that_differ_move_nothing_until_they_agree() -> None:
    mesh = Mesh(full(9))
    mesh.settle()
    view = regional(9)
    half = mesh.nodes[: len(mesh.nodes) // 2]
    mesh.adopt(view, only=half)
    mesh.run(2 * IDLE_S)
    for pair in mesh.pending():
        assert len(pair & set(half)) >= 1
    one, other = mesh.edges_apart(view)
    assert mesh.carrier(other, one) == one, "it never heard of the new mode"
    mesh.adopt(view)
    mesh.run(2 * IDLE_S)
    assert mesh.pending() == set()
    mesh.check()


# --- whole meshes -------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(st.integers(6, 11), st.integers(0, 2**32))
def test_to_hubs_and_back_under_traffic_and_loss_all_pairs_arrive_when_it_is_settled(
    count: int, seed: int
) -> None:
    dice = random.Random(seed)
    mesh = Mesh(full(count))
    mesh.settle()
    mesh.lost = lambda _: dice.random() < 0.2
    pairs = [frozenset({a, b}) for a in mesh.nodes for b in mesh.nodes if a < b]
    for _ in range(4):
        mesh.traffic = {pair for pair in pairs if dice.random() < 0.3}
        view = dice.choice((full, regional))(count)
        for node in dice.sample(mesh.nodes, len(mesh.nodes)):
            mesh.adopt(view, only=[node])
            mesh.run(dice.choice((0, 1, 3)))
        mesh.run(dice.choice((5, 40, 2 * IDLE_S)))
    mesh.lost = lambda _: False
    mesh.run(2 * OFFER_EVERY_S)
    mesh.check()
    mesh.traffic.clear()
    mesh.run(3 * IDLE_S)
    assert mesh.pending() == set()
    mesh.check()


# --- which mode ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "said", "mode"),
    [
        (8, REGIONAL, FULL),
        (9, FULL, FULL),
        (9, REGIONAL, REGIONAL),
        (9, "", FULL),
        (10, REGIONAL, REGIONAL),
        (10, FULL, FULL),
        (11, FULL, REGIONAL),
    ],
)
def test_auto_stays_what_it_is_between_its_bounds(count: int, said: str, mode: str) -> None:
    assert mode_of("auto", [said] * count) == mode


def test_a_newcomer_follows_what_the_majority_says() -> None:
    assert mode_of("auto", [*[REGIONAL] * 8, ""]) == REGIONAL


@pytest.mark.parametrize("topology", ["full", "regional", "ring"])
def test_a_topology_that_was_chosen_holds_at_any_size(topology: str) -> None:
    for count in (1, 9, 20):
        assert mode_of(topology, [""] * count) == (REGIONAL if topology == REGIONAL else FULL)


def test_only_members_of_meshes_near_the_band_say_the_mode() -> None:
    assert declared("auto", REGIONAL, 12, FULL) == REGIONAL
    assert declared("auto", REGIONAL, 100, FULL) == FULL, "a thousand records for nothing"
    assert declared("full", FULL, 9, REGIONAL) == ""


# --- helpers ------------------------------------------------------------------------------------------------


class Mesh:
    """Nodes whose plans are made from one view, and whose messages arrive in the second they were sent."""

    def __init__(self, view: MeshView) -> None:
        self.nodes = [one.node for one in view.members]
        self.views = dict.fromkeys(self.nodes, view)
        self.moves = {node: Moves(node) for node in self.nodes}
        self.plans: dict[NodeId, MeshPlan] = {}
        self.now_s = 1_000.0
        self.traffic: set[frozenset[NodeId]] = set()
        self.broken: set[frozenset[NodeId]] = set()
        self.shaken: dict[frozenset[NodeId], int] = {}
        """When a pair's tunnel had a handshake last: while both ends have it, and it is not broken."""
        self.carried: dict[frozenset[NodeId], int] = {}
        self.lost: Callable[[MoveMessage], bool] = lambda _: False
        self.adopt(view)

    def settle(self) -> None:
        self.run(5)
        assert self.pending() == set()

    def adopt(self, view: MeshView, *, only: Iterable[NodeId] = ()) -> None:
        for node in only or self.nodes:
            self.views[node] = view
            self.derive(node)

    def derive(self, node: NodeId) -> None:
        routes = Routes(Shape(self.views[node]), node)
        around = Surroundings(tunnel=lambda other: self.tunnel(node, other), keepalive_s=25, idle_s=IDLE_S)
        forwarded = node in self.plans and self.plans[node].forwards
        held = self.moves[node].update(routes, around, self.now)
        self.plans[node] = routes.plan(held, forwarded=forwarded)

    def run(self, for_s: float) -> None:
        for _ in range(int(for_s)):
            self.now_s += 1
            for pair in self.traffic:
                self.carried[pair] = self.carried.get(pair, 0) + 1_000
            for node in self.nodes:
                self.derive(node)
                for to, said in self.moves[node].offers(lambda _: True, self.now):
                    self.say(node, to, said)

    def say(self, by: NodeId, to: NodeId, message: MoveMessage) -> None:
        if self.lost(message):
            return
        answer = self.moves[to].on_message(by, message, self.now)
        self.derive(to)
        if answer:
            self.say(to, by, answer)

    def tunnel(self, node: NodeId, other: NodeId) -> ObservedPeer | None:
        pair = frozenset({node, other})
        held = [
            any(peer.node == there for peer in self.plans[here].peers) if here in self.plans else False
            for here, there in ((node, other), (other, node))
        ]
        if not held[0]:
            return None
        if pair in self.broken:
            self.shaken.pop(pair, None)
        elif held[1]:
            self.shaken[pair] = int(self.now_s)
        return ObservedPeer(
            public_key=WireGuardKey(bytes(reversed(other))),
            allowed_ips=(),
            endpoint=None,
            keepalive_s=25,
            latest_handshake_unix_s=self.shaken.get(pair, 0),
            rx_bytes=self.carried.get(pair, 0),
            tx_bytes=0,
        )

    def pending(self) -> set[frozenset[NodeId]]:
        return {frozenset({node, other}) for node in self.nodes for other in self.moves[node].pending}

    def carrier(self, node: NodeId, to: NodeId) -> NodeId | None:
        peer = self.plans[node].carrier_of(self.ipv6(to))
        return peer.node if peer else None

    def edges_apart(self, view: MeshView) -> tuple[NodeId, NodeId]:
        """Returns two who are no hubs, and have no tunnel in a view."""
        for one in self.nodes:
            routes = Routes(Shape(view), one)
            for other in self.nodes:
                hubs = routes.carries(one) or routes.carries(other)
                if other != one and not hubs and other not in routes.adjacent:
                    return one, other
        raise AssertionError("no such pair")

    def ipv6(self, node: NodeId) -> str:
        return str(ula_address(MESH, node))

    def check(self) -> None:
        check_plans(next(iter(self.views.values())), self.plans)

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, self.now_s)


def full(count: int) -> MeshView:
    return dataclasses.replace(regional(count), topology=FULL)


def regional(count: int) -> MeshView:
    return MeshView(
        subnet="10.10.0.0/24",
        topology=REGIONAL,
        keepalive_s=25,
        mtu=1420,
        members=tuple(sorted((member(number) for number in range(count)), key=lambda one: one.node)),
    )


def member(number: int) -> MemberView:
    node = NodeId(random.Random(number).randbytes(32))
    return MemberView(
        node=node,
        name=f"n{number}",
        region=("eu", "us", "ap")[number % 3],
        wireguard_key=WireGuardKey(bytes(reversed(node))),
        ipv4="",
        ipv6=str(ula_address(MESH, node)),
    )


def other_of(pair: tuple[NodeId, NodeId], node: NodeId) -> NodeId:
    return pair[1] if pair[0] == node else pair[0]


def test_an_offer_is_answered_by_whoever_is_there_already() -> None:
    mesh = Mesh(regional(9))
    mesh.settle()
    one, other = mesh.edges_apart(regional(9))
    asked = MoveOffered(direct=False, ready=False)
    assert mesh.moves[one].on_message(other, asked, mesh.now) == Moved(direct=False)
    assert mesh.moves[one].on_message(NodeId(bytes(32)), asked, mesh.now) is None, "a stranger"

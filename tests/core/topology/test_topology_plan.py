"""Every pair of a mesh reaches each other through the interfaces that their plans make."""

from __future__ import annotations

import dataclasses
import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.addressing.ula import ula_address
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.topology.device import LocalInterface, device_from_plan
from meshpeer.core.topology.plan import MeshPlan, PlannedPeer, plan_mesh
from meshpeer.core.topology.view import MemberView, MeshView
from meshpeer.core.wgconf.model import DesiredDevice, DesiredPeer

MESH = MeshId(bytes(16))


def test_a_full_mesh_peers_with_everyone_else_by_exact_addresses() -> None:
    view = view_of(member(1), member(2), member(3, ipv4=""))
    assert plan_mesh(view, node(1)) == MeshPlan(
        mode="full",
        peers=(
            PlannedPeer(
                node=node(2),
                name="n2",
                public_key=key(2),
                allowed_ips=("10.10.0.2/32", f"{ula_address(MESH, node(2))}/128"),
                keepalive_s=25,
            ),
            PlannedPeer(
                node=node(3),
                name="n3",
                public_key=key(3),
                allowed_ips=(f"{ula_address(MESH, node(3))}/128",),
                keepalive_s=25,
            ),
        ),
        hub=None,
        hubs=(),
        routes=(),
    )


def test_a_mesh_of_one_has_no_tunnel() -> None:
    assert plan_mesh(view_of(member(1)), node(1)).peers == ()


def test_a_topology_of_a_later_version_is_a_full_mesh() -> None:
    members = [dataclasses.replace(member(number), region=f"r{number % 2}") for number in range(1, 6)]
    plans = [
        plan_mesh(dataclasses.replace(view_of(*members), topology=topology), node(1))
        for topology in ("full", "hexagonal", "regional")
    ]
    assert plans[0] == plans[1] != plans[2]


def test_one_key_is_one_peer() -> None:
    thief = dataclasses.replace(member(3), wireguard_key=key(2))
    assert [one.node for one in plan_mesh(view_of(member(1), member(2), thief), node(1)).peers] == [node(2)]


def test_a_node_is_no_peer_of_its_own_key() -> None:
    thief = dataclasses.replace(member(1), wireguard_key=key(2))
    assert plan_mesh(view_of(thief, member(2)), node(2)).peers == ()


def test_an_address_that_two_members_show_has_one_owner() -> None:
    double = dataclasses.replace(member(3), ipv4="10.10.0.2")
    peers = plan_mesh(view_of(member(1), member(2), double), node(1)).peers
    assert ["10.10.0.2/32" in one.allowed_ips for one in peers] == [True, False]


def test_a_peer_is_answered_at_once_and_addressed_when_it_is_ready() -> None:
    plan = plan_mesh(view_of(member(1), member(2), member(3), member(4)), node(1))
    endpoints = {node(2): "192.0.2.2:51820", node(3): None}
    device = device_from_plan(plan, local(1), endpoints)
    assert [(one.public_key, one.endpoint, one.keepalive_s) for one in device.peers] == [
        (key(2), "192.0.2.2:51820", 25),
        (key(3), None, 0),
        (key(4), None, 0),
    ]


def test_a_device_has_the_meshs_prefixes_and_no_shown_key() -> None:
    device = device_from_plan(plan_mesh(view_of(member(1)), node(1)), local(1), {})
    assert device == DesiredDevice(
        interface="wg0",
        private_key=bytes([7]) * 32,
        public_key=key(1),
        listen_port=51820,
        mtu=1420,
        addresses=("10.10.0.1/24", f"{ula_address(MESH, node(1))}/64"),
        peers=(),
        routes=(),
    )
    homeless = device_from_plan(MeshPlan(mode="full", peers=()), dataclasses.replace(local(1), ipv4=None), {})
    assert homeless.addresses == (f"{ula_address(MESH, node(1))}/64",)
    assert "private_key" not in repr(local(1))


meshes = st.lists(st.integers(1, 200), unique=True, min_size=1, max_size=12).flatmap(
    lambda numbers: st.builds(
        lambda with_ipv4: view_of(
            *(
                member(number) if has else member(number, ipv4="")
                for number, has in zip(numbers, with_ipv4, strict=True)
            )
        ),
        st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers)),
    )
)


@settings(max_examples=60, deadline=None)
@given(meshes)
def test_every_pair_reaches_each_other_both_ways(view: MeshView) -> None:
    devices = {one.node: device_of(view, one) for one in view.members}
    by_key = {one.wireguard_key: one.node for one in view.members}
    for source in view.members:
        for target in view.members:
            for address in filter(None, (target.ipv4, target.ipv6)):
                if source is not target:
                    out = owner_of(devices[source.node], address)
                    assert by_key[out.public_key] == target.node, "one hop, straight to the target"
                    back = {one.public_key: one for one in devices[target.node].peers}[source.wireguard_key]
                    assert f"{source.ipv6}/128" in back.allowed_ips, "its packets are taken there"


@settings(max_examples=60, deadline=None)
@given(meshes)
def test_allowed_ips_are_exact_and_disjoint_and_never_ones_own(view: MeshView) -> None:
    for one in view.members:
        prefixes = [prefix for peer in plan_mesh(view, one.node).peers for prefix in peer.allowed_ips]
        assert len(prefixes) == len(set(prefixes))
        assert all(ipaddress.ip_network(prefix).num_addresses == 1 for prefix in prefixes)
        assert not {f"{one.ipv4}/32", f"{one.ipv6}/128"} & set(prefixes)


@settings(max_examples=60, deadline=None)
@given(meshes, st.data())
def test_equal_views_in_any_order_give_equal_plans(view: MeshView, data: st.DataObject) -> None:
    shuffled = dataclasses.replace(view, members=tuple(data.draw(st.permutations(view.members))))
    for one in view.members:
        assert plan_mesh(shuffled, one.node) == plan_mesh(view, one.node)


@settings(max_examples=60, deadline=None)
@given(meshes)
def test_one_members_going_moves_only_its_own_tunnel(view: MeshView) -> None:
    me, *others = view.members
    for gone in others:
        less = dataclasses.replace(view, members=tuple(one for one in view.members if one is not gone))
        before, after = plan_mesh(view, me.node).peers, plan_mesh(less, me.node).peers
        assert set(before) - set(after) == {one for one in before if one.node == gone.node}
        assert set(after) <= set(before)


def owner_of(device: DesiredDevice, address: str) -> DesiredPeer:
    """Routes as WireGuard does: the peer whose allowed IPs hold the address; one at most."""
    (owner,) = [
        one
        for one in device.peers
        if any(ipaddress.ip_address(address) in ipaddress.ip_network(prefix) for prefix in one.allowed_ips)
    ]
    return owner


def device_of(view: MeshView, one: MemberView) -> DesiredDevice:
    own = dataclasses.replace(
        local(1),
        public_key=one.wireguard_key,
        ipv4=ipaddress.IPv4Interface(f"{one.ipv4}/24") if one.ipv4 else None,
        ipv6=ipaddress.IPv6Interface(f"{one.ipv6}/64"),
    )
    return device_from_plan(plan_mesh(view, one.node), own, {})


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def key(number: int) -> WireGuardKey:
    return WireGuardKey(bytes([9]) + number.to_bytes(31, "big"))


def member(number: int, *, ipv4: str | None = None) -> MemberView:
    return MemberView(
        node=node(number),
        name=f"n{number}",
        region="eu",
        wireguard_key=key(number),
        ipv4=f"10.10.0.{number}" if ipv4 is None else ipv4,
        ipv6=str(ula_address(MESH, node(number))),
    )


def view_of(*members: MemberView) -> MeshView:
    return MeshView(subnet="10.10.0.0/24", topology="auto", keepalive_s=25, mtu=1420, members=members)


def local(number: int) -> LocalInterface:
    return LocalInterface(
        interface="wg0",
        private_key=bytes([7]) * 32,
        public_key=key(number),
        listen_port=51820,
        mtu=1420,
        ipv4=ipaddress.IPv4Interface(f"10.10.0.{number}/24"),
        ipv6=ipaddress.IPv6Interface(f"{ula_address(MESH, node(number))}/64"),
    )

"""From paths' widths to MTUs of the interface and its routes."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.topology.device import LocalInterface, device_from_plan
from meshpeer.core.topology.mtus import (
    IPV6_MTU_MIN,
    PAD_BYTES,
    PlannedMtus,
    mtu_towards,
    plan_mtus,
    prefixes_of,
)
from meshpeer.core.topology.plan import MeshPlan, PlannedPeer
from meshpeer.core.topology.view import MemberView
from meshpeer.core.wgconf.model import RouteMtu

MESH = ("10.10.0.0/24", "fd00::/64")
HALVES = ("10.10.0.0/25", "10.10.0.128/25", "fd00::/65", "fd00::8000:0:0:0/65")
LAN = "192.168.5.0/24"


def test_where_every_path_is_usual_the_interface_is_and_no_route_is_needed() -> None:
    plan = plan_of(peer(2), peer(3))
    assert planned(plan, {node(2): 1420}) == PlannedMtus(device=1420)
    assert planned(plan_of(), {}) == PlannedMtus(device=1420)


def test_who_has_a_jumbo_path_alone_has_more_than_the_usual() -> None:
    found = planned(plan_of(peer(2), peer(3)), {node(2): 8960})
    assert found.device == 8960
    assert found.routes == (
        RouteMtu("10.10.0.0/25", 1420),
        RouteMtu("10.10.0.128/25", 1420),
        RouteMtu("10.10.0.2/32"),
        RouteMtu("fd00::/65", 1420),
        RouteMtu("fd00::2/128"),
        RouteMtu("fd00::8000:0:0:0/65", 1420),
    )


def test_a_program_pads_to_the_interface_so_its_routes_are_rounded_down() -> None:
    plan = plan_of(peer(2), peer(3), peer(4))
    found = planned(plan, {node(2): 8960, node(3): 8940, node(4): 1420}, pads=True)
    mtus = {one.prefix: one.mtu for one in found.routes}
    assert (mtus["10.10.0.2/32"], mtus["10.10.0.3/32"], mtus["10.10.0.0/25"]) == (0, 8928, 1408)
    assert "10.10.0.4/32" not in mtus, "its half says so"
    alone = planned(plan_of(peer(2)), {node(2): 8940}, pads=True)
    assert alone.device == 8940, "it pads no further than that"


def test_a_narrow_path_has_its_own_route_and_ipv6_a_segment_size_where_it_can_have_no_less() -> None:
    found = planned(plan_of(peer(2), peer(3)), {node(2): 1220})
    assert found == PlannedMtus(
        device=1420,
        routes=(RouteMtu("10.10.0.2/32", 1220), RouteMtu("fd00::2/128", IPV6_MTU_MIN, 1160)),
    )


def test_what_goes_on_through_a_hub_gets_no_more_than_the_usual() -> None:
    hub = peer(2, beyond=(7, 8))
    found = planned(plan_of(hub), {node(2): 8960})
    mtus = {one.prefix: one.mtu for one in found.routes}
    assert set(mtus) == {*HALVES, "10.10.0.2/32", "fd00::2/128"}
    assert mtus["10.10.0.0/25"] == 1420


def test_behind_a_hub_on_a_narrow_path_a_thousand_members_take_no_thousand_routes() -> None:
    hub = peer(2, beyond=tuple(range(7, 200)))
    found = planned(plan_of(hub, peer(3)), {node(2): 1412})
    assert len(found.routes) == len(HALVES) + 2
    mtus = {one.prefix: one.mtu for one in found.routes}
    assert mtus["10.10.0.0/25"] == 1412
    assert mtus["10.10.0.3/32"] == 0, "its own path is not the hub's"


def test_a_lan_goes_with_the_path_of_who_leads_there() -> None:
    found = planned(plan_of(peer(2, lans=(LAN,))), {node(2): 8960})
    assert LAN not in {one.prefix for one in found.routes}, "it has the interface's"
    narrow = planned(plan_of(peer(2, lans=(LAN,))), {node(2): 1220})
    assert RouteMtu(LAN, 1220) in narrow.routes
    left_out = planned(plan_of(peer(2, lans=(LAN,))), {node(2): 1220}, left_out=(LAN,))
    assert LAN not in {one.prefix for one in left_out.routes}


@given(
    st.dictionaries(st.integers(2, 12), st.sampled_from([516, 1220, 1408, 1412, 1420, 4_000, 8_920, 8_960])),
    st.sets(st.integers(2, 12)),
    st.sampled_from([1_280, 1_420, 8_960]),
    st.booleans(),
)
def test_no_packet_is_longer_than_its_path_allows(
    widths: dict[int, int], peers: set[int], usual: int, pads: bool
) -> None:
    plan = plan_of(*(peer(number, beyond=(number + 100,)) for number in sorted(peers)))
    found = {node(number): mtu for number, mtu in widths.items()}
    mtus = planned(plan, found, usual=usual, pads=pads)
    device = device_from_plan(plan, local(), {}, (), mtus)
    assert device.mtu == mtus.device >= usual
    for number in peers:
        for target, most in (
            (number, widths.get(number, usual)),
            (number + 100, min(usual, widths.get(number, usual))),
        ):
            ipv4, ipv6 = mtu_towards(device, f"10.10.0.{target}"), mtu_towards(device, f"fd00::{target}")
            assert ipv4 <= most
            assert ipv4 > most - PAD_BYTES
            assert ipv6 in (ipv4, max(ipv4, IPV6_MTU_MIN))
            assert not pads or ipv4 == device.mtu or ipv4 % PAD_BYTES == 0
    assert list(device.routes) == sorted(device.routes)
    assert list(device.route_mtus) == sorted(device.route_mtus)


def test_the_longest_prefix_says_the_mtu_and_routes_are_read_once_for_all_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    routes = tuple(sorted(("10.9.0.0/16", "10.9.4.0/24", "10.9.4.7/32", "fd09::/48", "fd09::7/128")))
    said = (RouteMtu("10.9.0.0/16", 1_400), RouteMtu("10.9.4.0/24", 1_300), RouteMtu("fd09::/48", 1_290))
    device = dataclasses.replace(
        device_from_plan(plan_of(), local(), {}), routes=routes, route_mtus=said, mtu=1_420
    )
    for address, mtu in (
        ("10.9.4.7", 1_420),
        ("10.9.4.8", 1_300),
        ("10.9.5.8", 1_400),
        ("10.8.0.1", 1_420),
        ("fd09::8", 1_290),
        ("fd09::7", 1_420),
    ):
        assert mtu_towards(device, address) == mtu
        monkeypatch.setattr(ipaddress, "ip_network", None)


@pytest.mark.parametrize("ipv4", ["10.10.0.9", ""])
def test_own_prefixes_are_addresses_and_lans(ipv4: str) -> None:
    member = MemberView(
        node=node(9), name="n", region="", wireguard_key=key(9), ipv4=ipv4, ipv6="fd00::9", lans=(LAN,)
    )
    assert prefixes_of((member,)) == {node(9): {*(["10.10.0.9/32"] if ipv4 else []), "fd00::9/128", LAN}}


# --- helpers ------------------------------------------------------------------------------------------------


def planned(
    plan: MeshPlan,
    found: dict[NodeId, int],
    *,
    usual: int = 1420,
    pads: bool = False,
    left_out: tuple[str, ...] = (),
) -> PlannedMtus:
    members = tuple(
        MemberView(
            node=one.node,
            name=one.name,
            region="",
            wireguard_key=one.public_key,
            ipv4=f"10.10.0.{int.from_bytes(one.node, 'big')}",
            ipv6=f"fd00::{int.from_bytes(one.node, 'big')}",
            lans=tuple(prefix for prefix in one.allowed_ips if prefix == LAN),
        )
        for one in plan.peers
    )
    return plan_mtus(
        plan, members=members, found=found, usual=usual, mesh=MESH, pads_to_device=pads, left_out=left_out
    )


def plan_of(*peers: PlannedPeer) -> MeshPlan:
    lans = {LAN for one in peers if LAN in one.allowed_ips}
    return MeshPlan(mode="full", peers=peers, routes=tuple(sorted(lans)))


def peer(number: int, *, beyond: tuple[int, ...] = (), lans: tuple[str, ...] = ()) -> PlannedPeer:
    prefixes = [one for at in (number, *beyond) for one in (f"10.10.0.{at}/32", f"fd00::{at}/128")]
    return PlannedPeer(
        node=node(number),
        name=f"n{number}",
        public_key=key(number),
        allowed_ips=tuple(sorted((*prefixes, *lans))),
        keepalive_s=25,
    )


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def key(number: int) -> WireGuardKey:
    return WireGuardKey(bytes([9]) + number.to_bytes(31, "big"))


def local() -> LocalInterface:
    return LocalInterface(
        interface="wg0",
        private_key=bytes([7]) * 32,
        public_key=key(1),
        listen_port=51820,
        mtu=1420,
        ipv4=ipaddress.IPv4Interface("10.10.0.1/24"),
        ipv6=ipaddress.IPv6Interface("fd00::1/64"),
    )

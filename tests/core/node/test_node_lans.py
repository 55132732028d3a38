"""LANs of whole meshes in virtual time: who leads to one, who takes over, and what a node does not route."""

from __future__ import annotations

import dataclasses

import pytest

from meshpeer.core.addressing.overlap import Route
from meshpeer.core.addressing.ula import mesh_prefix
from meshpeer.core.identity.certificates import Authority
from meshpeer.core.ids import NodeId
from meshpeer.core.node.messages import EndpointsChanged, ForwardingFailed
from meshpeer.core.node.node import Node
from meshpeer.core.records.kinds import MemberRecord
from meshpeer.core.wgconf.forwarding import LanExit
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.core.wire.limits import ENDPOINTS_MAX, RECORD_BYTES_MAX
from meshpeer.sim.host import Host
from meshpeer.sim.world import CONTROL_PORT, World

OFFICE = "192.168.5.0/24"


@pytest.mark.parametrize("topology", ["full", "regional"])
def test_a_lan_goes_with_its_member_on_every_node(topology: str) -> None:
    _, alpha, bravo, others = office(topology=topology)
    for host in (alpha, *others):
        assert OFFICE in device_of(host).routes
        owner = owner_of(host, OFFICE)
        assert owner == owner_of(host, f"{mind(host).roster.get(bravo.id).ipv4}/32")  # type: ignore[union-attr]
    assert OFFICE not in device_of(bravo).routes
    assert mind(bravo).tunnels.lans.exits == (LanExit(prefix=OFFICE, devices=("lan0",)),)


def test_what_a_certificate_does_not_allow_is_withheld_by_its_own_node() -> None:
    world = World(3)
    alpha = world.found("alpha")
    world.run(0.5)
    bravo = world.join("bravo", alpha, lans=(OFFICE, "192.168.6.0/24"), invite=invite_of(world, OFFICE))
    world.run(5)
    assert record_of(alpha, bravo).routes == (OFFICE,)
    (withheld,) = mind(bravo).tunnels.lans.withheld
    assert (withheld.prefix, withheld.why) == (
        "192.168.6.0/24",
        "this node's certificate does not allow it",
    )
    assert "meshpeer invite --route 192.168.6.0/24" in withheld.hint
    assert not mind(alpha).offences


def test_the_meshs_own_addresses_are_advertised_by_nobody() -> None:
    world = World(4)
    alpha = world.make_founder("alpha", subnet="10.10.0.0/24")
    ula = str(mesh_prefix(world.mesh))
    alpha.lans = ("10.10.0.128/25", "10.0.0.0/8", ula)
    world.start(alpha)
    world.run(3)
    assert record_of(alpha, alpha).routes == ()
    assert [one.why for one in mind(alpha).tunnels.lans.withheld] == [
        "it overlaps 10.10.0.0/24, the mesh's own",
        "it overlaps 10.10.0.0/24, the mesh's own",
        f"it overlaps {ula}, the mesh's own",
    ]


def test_a_network_that_comes_and_goes_is_advertised_as_long_as_it_is_there() -> None:
    world, alpha, bravo, _ = office()
    show_routes(world, bravo)
    assert world.run_until(lambda: record_of(alpha, bravo).routes == (), within_s=10)
    assert OFFICE not in device_of(alpha).routes
    assert [one.why for one in mind(bravo).tunnels.lans.withheld] == [
        "no network or route of this machine leads there"
    ]
    show_routes(world, bravo, (OFFICE, "lan0"))
    assert world.run_until(lambda: OFFICE in device_of(alpha).routes, within_s=10)


def test_a_machine_that_can_not_forward_stops_to_advertise_and_says_why() -> None:
    world, alpha, bravo, _ = office()
    world.post(bravo, ForwardingFailed(reason="nft is broken"))
    assert world.run_until(lambda: record_of(alpha, bravo).routes == (), within_s=10)
    assert [one.why for one in mind(bravo).tunnels.lans.withheld] == [
        "this machine can't forward: nft is broken"
    ]


@pytest.mark.parametrize("topology", ["full", "regional"])
def test_the_second_router_takes_over_where_the_first_is_doubted_and_gives_back(topology: str) -> None:
    world, alpha, bravo, others = office(topology=topology, routers=2)
    second = others[0]
    everybody = [alpha, bravo, *others]
    assert leaders(everybody) == {bravo.id}
    world.crash(bravo)
    rest = [alpha, *others]
    assert world.run_until(lambda: leaders(rest) == {second.id}, within_s=30)
    assert all(owned_once(host) for host in rest)
    world.start(bravo)
    assert world.run_until(lambda: leaders(everybody) == {bravo.id}, within_s=30)


@pytest.mark.parametrize("local", [OFFICE, "192.168.5.64/26", "192.168.0.0/16"])
def test_a_lan_that_meets_a_network_of_this_machine_is_left_out_whole_until_that_is_gone(local: str) -> None:
    world, alpha, bravo, others = office()
    before = device_of(alpha)
    show_routes(world, alpha, (local, "eth9"), ("0.0.0.0/0", "eth0"))
    assert world.run_until(lambda: OFFICE not in device_of(alpha).routes, within_s=5)
    now = device_of(alpha)
    assert owner_of(alpha, OFFICE) is None, "nor does it take anything that claims to come from there"
    assert bare(now) == bare(before), "all else is as it was"
    (left,) = mind(alpha).tunnels.lans.left_out
    assert (left.prefix, left.node, left.why) == (
        OFFICE,
        bravo.id,
        f"this machine has {local} on eth9 itself",
    )
    assert OFFICE in device_of(others[0]).routes, "what others do is their own business"
    show_routes(world, alpha, ("0.0.0.0/0", "eth0"))
    assert world.run_until(lambda: device_of(alpha) == before, within_s=5)
    assert mind(alpha).tunnels.lans.left_out == ()


def test_a_lan_that_holds_the_only_address_of_its_tunnel_is_left_out() -> None:
    """Its packets would go into the very tunnel that they carry."""
    around = "192.0.2.0/24"
    world = World(6)
    alpha = world.found("alpha")
    world.run(0.5)
    bravo = world.join("bravo", alpha, lans=(around,), invite=invite_of(world, around))
    assert bravo.address.startswith("192.0.2."), "where all hosts of this world are"
    world.run(10)
    assert record_of(alpha, bravo).routes == (around,)
    assert around not in device_of(alpha).routes
    (left,) = mind(alpha).tunnels.lans.left_out
    assert left.why.startswith("a tunnel of this node runs to 192.0.2.")


def test_a_record_with_many_lans_leaves_out_endpoints_rather_than_be_too_long() -> None:
    lans = tuple(f"fd05:{one:04x}:1111:2222::/64" for one in range(0x1000, 0x1008))
    world = World(7)
    alpha = world.make_founder("alpha", subnet="10.10.0.0/24")
    alpha.lans = lans
    world.start(alpha)
    world.run(2)
    many = tuple(
        f"[2001:db8:1111:2222:3333:4444:5555:{one:04x}]:{CONTROL_PORT}" for one in range(ENDPOINTS_MAX)
    )
    routes = tuple(Route(prefix=one, device="lan0", on_link=True) for one in lans)
    world.post(alpha, EndpointsChanged(control=many, wireguard=many, routes=routes))
    world.run(3)
    member = mind(alpha).ledger.get(alpha.id)
    assert member is not None
    assert len(member.envelope) <= RECORD_BYTES_MAX
    record = record_of(alpha, alpha)
    assert record.routes == lans
    assert record.control_endpoints == many[: len(record.control_endpoints)] != ()
    assert record.wireguard_endpoints == many[: len(record.wireguard_endpoints)] != ()


# --- helpers ------------------------------------------------------------------------------------------------


def office(*, topology: str = "auto", routers: int = 1) -> tuple[World, Host, Host, list[Host]]:
    """A mesh whose first joiner leads to the office; with a second router the next one does, too."""
    world = World(5)
    alpha = world.found("alpha", topology=topology)
    world.run(0.5)
    bravo = world.join("bravo", alpha, lans=(OFFICE,), invite=invite_of(world, OFFICE), place="eu")
    world.run(2)
    others = [
        world.join(
            f"n{number}",
            alpha,
            lans=(OFFICE,) if number < routers - 1 else (),
            invite=invite_of(world, OFFICE),
            place=("eu", "us")[number % 2],
        )
        for number in range(4)
    ]
    world.run(45)
    assert all(OFFICE in device_of(host).routes for host in (alpha, *others[routers - 1 :]))
    return world, alpha, bravo, others


def invite_of(world: World, *lans: str) -> Authority:
    return world.make_invite(routes=lans)


def show_routes(world: World, host: Host, *routes: tuple[str, str]) -> None:
    presence = mind(host).presence
    shown = tuple(Route(prefix=prefix, device=device, on_link=True) for prefix, device in routes)
    world.post(host, EndpointsChanged(control=presence.control, wireguard=presence.wireguard, routes=shown))


def mind(host: Host) -> Node:
    assert host.node is not None
    return host.node


def record_of(observer: Host, host: Host) -> MemberRecord:
    member = mind(observer).ledger.get(host.id)
    assert member is not None
    assert member.record is not None
    return member.record


def device_of(host: Host) -> DesiredDevice:
    device = mind(host).desired
    assert device is not None
    return device


def owner_of(host: Host, prefix: str) -> bytes | None:
    return next((peer.public_key for peer in device_of(host).peers if prefix in peer.allowed_ips), None)


def owned_once(host: Host) -> bool:
    return sum(peer.allowed_ips.count(OFFICE) for peer in mind(host).tunnels.plan.peers) <= 1


def leaders(hosts: list[Host]) -> set[NodeId]:
    return {mind(host).tunnels.lans.holders[OFFICE] for host in hosts}


def bare(device: DesiredDevice) -> DesiredDevice:
    """Leaves out the office, and where peers are: those settle by themselves."""
    peers = tuple(
        dataclasses.replace(
            peer, allowed_ips=tuple(one for one in peer.allowed_ips if one != OFFICE), endpoint=None
        )
        for peer in device.peers
    )
    return dataclasses.replace(device, peers=peers, routes=())

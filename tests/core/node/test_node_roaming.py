"""What a node does when the ground under it moves: it asks through its tunnels at once, and looks for peers
elsewhere where nothing comes back."""

from __future__ import annotations

from meshpeer.core.addressing.overlap import Route
from meshpeer.core.effects import AskEcho, LagMeasured
from meshpeer.core.node.entries import UNCONFIRMED_READY_S
from meshpeer.core.node.messages import ApplyDevice, EndpointsChanged, LookAtDevice
from meshpeer.core.paths.tunnel_checks import VERDICT_S
from meshpeer.core.wgconf.model import DesiredDevice, DesiredPeer
from meshpeer.sim.host import Host
from meshpeer.sim.network import nat_address
from meshpeer.sim.world import World

MEMBERS = 4


def test_another_address_asks_through_every_tunnel_at_once() -> None:
    world, hosts, effects = mesh()
    move(world, hosts[1])
    world.run(0.05)
    asked = {one.address for one in effects if isinstance(one, AskEcho)}
    assert asked >= {ipv6_of(host) for host in hosts if host is not hosts[1]}


def test_the_first_look_at_the_network_is_no_change() -> None:
    world, hosts, effects = mesh()
    joiner = world.join("late", hosts[0])
    effects.clear()
    world.run(0.01)
    assert joiner.node is not None
    assert not [one for one in effects if isinstance(one, AskEcho)]


def test_routes_by_gateways_that_come_and_go_are_no_other_network() -> None:
    world, hosts, effects = mesh()
    assert hosts[1].node is not None
    shown = hosts[1].node.presence
    for number in range(5):
        route = Route(prefix=f"10.{number}.0.0/16", device="eth0", on_link=False)
        changed = EndpointsChanged(control=shown.control, wireguard=shown.wireguard, routes=(route,))
        world.post(hosts[1], changed)
        world.run(0.5)
    assert not [one for one in effects if isinstance(one, AskEcho)]


def test_who_was_not_let_run_for_long_asks_and_a_short_while_is_nothing() -> None:
    world, hosts, effects = mesh()
    world.post(hosts[1], LagMeasured(lag_s=0.5))
    world.run(0.05)
    assert not [one for one in effects if isinstance(one, AskEcho)]
    world.post(hosts[1], LagMeasured(lag_s=300.0))
    world.run(0.05)
    assert len({one.address for one in effects if isinstance(one, AskEcho)}) >= MEMBERS - 1


def test_a_tunnel_that_answers_nothing_is_mute_and_one_that_answers_is_not() -> None:
    world, hosts, effects = mesh()
    mover, silent = hosts[1], hosts[2]
    world.overlay.silent.append(silent)
    move(world, mover)
    world.run(VERDICT_S + 0.5)
    mute = {peer.public_key for device in devices(effects) for peer in device.peers if peer.mute}
    assert silent.wireguard.public in mute
    assert hosts[0].wireguard.public not in mute


def test_a_mute_peer_is_tried_where_else_it_may_be() -> None:
    world, hosts, effects = mesh()
    mover, silent = hosts[1], hosts[2]
    first = peer_of(mover, silent).endpoint
    world.overlay.silent.append(silent)
    move(world, silent, "192.0.2.77")
    world.run(VERDICT_S + 2)
    tried = {
        peer.endpoint
        for device in devices(effects)
        for peer in device.peers
        if peer.mute and peer.public_key == silent.wireguard.public
    }
    assert first not in tried
    assert "192.0.2.77:51820" in tried


def test_a_mute_tunnel_costs_nobody_its_place_in_the_interface() -> None:
    world, hosts, _ = mesh()
    keys = {host.wireguard.public for host in hosts[1:]}
    world.overlay.silent += hosts[1:]
    move(world, hosts[0])
    world.run(60)
    assert hosts[0].node is not None
    assert hosts[0].node.desired is not None
    assert {peer.public_key for peer in hosts[0].node.desired.peers} == keys


def test_a_known_peer_that_links_anew_has_the_interface_looked_at_and_a_joiner_has_not() -> None:
    world, hosts, effects = mesh()
    assert not [one for one in effects if isinstance(one, LookAtDevice)]
    world.crash(hosts[2])
    world.run(5)
    effects.clear()
    world.start(hosts[2])
    world.run(5)
    assert [one for one in effects if isinstance(one, LookAtDevice)]


def test_who_is_seen_behind_a_router_is_tried_there_at_once() -> None:
    world = World(1)
    founder = world.found("alpha", topology="full")
    world.run(0.5)
    left, right = world.make_joiner("left"), world.make_joiner("right")
    for number, host in enumerate((left, right), 1):
        host.nat = number
        world.enter(host, founder)
        world.run(UNCONFIRMED_READY_S - 1)
    assert right.node is not None
    assert right.node.links.link_to(left.id) is None
    assert peer_of(right, left).endpoint == f"{nat_address(1)}:51820"


# --- helpers ------------------------------------------------------------------------------------------------


def mesh() -> tuple[World, list[Host], list[object]]:
    """Returns a settled full mesh, and all effects from then on."""
    world = World(1)
    founder = world.found("alpha", topology="full")
    world.run(0.5)
    hosts = [founder, *(world.join(f"n{number}", founder) for number in range(1, MEMBERS))]
    world.run(90)
    effects: list[object] = []
    world.watchers.append(lambda host, event, done: effects.extend(done))
    return world, hosts, effects


def move(world: World, host: Host, ip: str = "") -> None:
    """Gives a machine another address, or (with none) only another route."""
    assert host.node is not None
    shown = host.node.presence
    wireguard = (f"{ip}:51820",) if ip else shown.wireguard
    way = Route(prefix="0.0.0.0/0", device="eth1", on_link=False)
    world.post(host, EndpointsChanged(control=shown.control, wireguard=wireguard, routes=(way,)))


def devices(effects: list[object]) -> list[DesiredDevice]:
    return [one.device for one in effects if isinstance(one, ApplyDevice)]


def peer_of(host: Host, other: Host) -> DesiredPeer:
    assert host.node is not None
    assert host.node.desired is not None
    held = {peer.public_key: peer for peer in host.node.desired.peers}
    return held[other.wireguard.public]


def ipv6_of(host: Host) -> str:
    assert host.node is not None
    mine = host.node.roster.get(host.id)
    assert mine is not None
    return mine.ipv6

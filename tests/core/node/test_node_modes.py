"""Whole meshes that change between full and regional: by size, and by a charter that somebody signs."""

from __future__ import annotations

import dataclasses

import msgspec
from topology_packets import check_pairs

from meshpeer.core.deadline import Instant
from meshpeer.core.node.messages import CharterSigned, LeaveAsked
from meshpeer.core.node.successors import BRIDGE_S
from meshpeer.core.node.tunnels import LINGER_S
from meshpeer.core.records import envelope
from meshpeer.core.topology.plan import MeshPlan
from meshpeer.core.wgconf.model import ObservedDevice
from meshpeer.sim.host import Host
from meshpeer.sim.world import World

PLACES = ("eu", "us", "ap")


def test_auto_goes_regional_with_the_eleventh_and_full_again_with_the_eighth() -> None:
    world, hosts = mesh_of(10, topology="auto")
    assert modes(hosts) == {"full"}
    hosts.append(world.join("n10", hosts[0], place="us"))
    assert world.run_until(lambda: modes(hosts) == {"regional"}, within_s=10)
    assert settled(world, hosts, within_s=400)
    check(hosts)
    for _ in range(2):
        leave(world, hosts)
    world.run(20)
    assert modes(hosts) == {"regional"}, "nine are in the band"
    newcomer = world.join("n11", hosts[0], place="ap")
    assert world.run_until(lambda: modes([newcomer]) == {"regional"}, within_s=20)
    hosts.append(newcomer)
    for _ in range(2):
        leave(world, hosts)
    assert world.run_until(lambda: modes(hosts) == {"full"}, within_s=10)
    assert settled(world, hosts, within_s=60)
    check(hosts)


def test_a_charter_changes_the_topology_of_a_mesh_that_runs() -> None:
    world, hosts = mesh_of(7, topology="full")
    world.run(35)
    change(world, hosts[0], topology="regional", idle_s=20)
    assert world.run_until(lambda: modes(hosts) == {"regional"}, within_s=5)
    check(hosts)
    assert settled(world, hosts, within_s=90)
    check(hosts)
    used = [sum(bool(peer.allowed_ips) for peer in plan_of(host).peers) for host in hosts]
    assert min(used) < 6, "edges have their region and hubs"
    change(world, hosts[0], topology="full")
    assert world.run_until(lambda: modes(hosts) == {"full"}, within_s=5)
    assert settled(world, hosts, within_s=60)
    check(hosts)
    world.run(LINGER_S)
    assert {len(plan.peers) for plan in map(plan_of, hosts)} == {6}


def test_a_pair_that_is_held_stays_so_where_the_record_of_a_new_key_comes_before_its_handshake() -> None:
    world, hosts = mesh_of(7, topology="full")
    world.run(35)
    change(world, hosts[0], topology="regional", idle_s=600)
    world.run(5)
    watcher, changer = next(
        (one, other)
        for one in hosts
        for other in hosts
        if one.node and other.id in one.node.tunnels.moves.pending
    )
    assert watcher.node is not None
    assert changer.node is not None
    tunnels, old = watcher.node.tunnels, changer.wireguard.public
    take = tunnels.on_observed

    shaken = int(world.unix_s())

    def late(device: ObservedDevice | None, now: Instant) -> None:
        """Takes an interface in which the key before shook hands last, and the new one has not yet."""
        times = {old: shaken, changer.wireguard.public: shaken if changer.wireguard.public == old else 0}
        if device is not None:
            peers = [
                dataclasses.replace(
                    one, latest_handshake_unix_s=times.get(one.public_key, one.latest_handshake_unix_s)
                )
                for one in device.peers
            ]
            device = dataclasses.replace(device, peers=tuple(peers))
        take(device, now)

    tunnels.on_observed = late  # type: ignore[method-assign]
    world.rotate(changer)

    def shown() -> bool:
        listed = watcher.node.roster.get(changer.id) if watcher.node else None
        return listed is not None and listed.record.wireguard_key == changer.wireguard.public != old

    assert world.run_until(shown, within_s=30)
    world.run(2)
    assert changer.id in tunnels.moves.pending
    assert watcher.id in changer.node.tunnels.moves.pending
    tunnels.on_observed = take  # type: ignore[method-assign]
    world.run(BRIDGE_S)
    assert changer.id in tunnels.moves.pending
    check(hosts)


def test_a_node_that_is_alone_publishes_one_record_and_no_second() -> None:
    """What it says of the mesh's mode stands in the first: a second would be a write and news for nothing."""
    world = World(3)
    founder = world.found("alpha")
    world.run(30)
    assert founder.node is not None
    record = founder.node.presence.record
    assert record is not None
    assert (record.mode, record.sequence) == ("full", 1)


def test_two_active_hubs_a_region_share_its_members() -> None:
    world, hosts = mesh_of(9, topology="regional")
    world.run(35)
    change(world, hosts[0], hubs=2)
    assert world.run_until(lambda: len(plan_of(hosts[0]).hubs) == 6, within_s=5)
    assert settled(world, hosts, within_s=60)
    check(hosts)


# --- helpers ------------------------------------------------------------------------------------------------


def mesh_of(count: int, *, topology: str) -> tuple[World, list[Host]]:
    world = World(3)
    founder = world.make_founder("alpha", subnet="10.10.0.0/24", topology=topology)
    founder.place = PLACES[0]
    world.start(founder)
    world.run(0.5)
    hosts = [founder]
    hosts += [world.join(f"n{number}", founder, place=PLACES[number % 3]) for number in range(1, count)]
    assert world.run_until(lambda: all(len(plan_of(host).peers) > 0 for host in hosts), within_s=20)
    assert settled(world, hosts, within_s=60)
    return world, hosts


def change(world: World, admin: Host, **changes: object) -> None:
    assert admin.node is not None
    charter = admin.node.ledger.charter
    assert charter is not None
    successor = msgspec.structs.replace(
        charter, version=charter.version + 1, issued_at=world.unix_s(), **changes
    )
    world.post(admin, CharterSigned(envelope=envelope.sign(admin.key, world.mesh, successor)))


def leave(world: World, hosts: list[Host]) -> None:
    gone = hosts.pop()
    world.post(gone, LeaveAsked())
    world.run(1)
    world.crash(gone)
    world.run(1)


def modes(hosts: list[Host]) -> set[str]:
    return {plan_of(host).mode for host in hosts}


def settled(world: World, hosts: list[Host], *, within_s: float) -> bool:
    """Waits until no pair has to move, and until all have derived what follows."""
    done = world.run_until(lambda: not pending(hosts), within_s=within_s)
    world.run(2)
    return done


def pending(hosts: list[Host]) -> bool:
    return any(host.node.tunnels.moves.pending for host in hosts if host.node)


def check(hosts: list[Host]) -> None:
    check_pairs({host.id: address(host) for host in hosts}, {host.id: plan_of(host) for host in hosts})


def address(host: Host) -> str:
    assert host.node is not None
    mine = host.node.roster.get(host.id)
    assert mine is not None
    return mine.ipv6


def plan_of(host: Host) -> MeshPlan:
    assert host.node is not None
    return host.node.tunnels.plan

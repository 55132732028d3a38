"""Whole nodes of a simulated mesh: one changes its WireGuard key, and all follow, whatever happens."""

from __future__ import annotations

import random

import pytest

from meshpeer.core.ids import WireGuardKey
from meshpeer.core.node.messages import ApplyDevice, RevocationSigned
from meshpeer.core.node.rotation import Rotation, RotationAsked, Stage
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import RevocationRecord
from meshpeer.core.wgconf.model import DesiredDevice, tunnel_works
from meshpeer.sim.host import Host
from meshpeer.sim.world import World

PEERS = 3
SEEDS = (1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_follow_before_the_record_says_so(seed: int) -> None:
    world, hosts, seen = mesh(seed)
    changer = hosts[1]
    old = key_of(changer)
    world.rotate(changer)
    until_changed(world, hosts, changer, old)
    assert rotation_of(changer).missed == ()
    assert rotation_of(changer).count == PEERS
    # Nobody's interface ever lost what it had, and nobody began with the next key.
    for host in others(hosts, changer):
        between = [one for one in seen[host.name] if successor_of(one, old) == key_of(changer)]
        assert between, f"{host.name} did not let the next key in"


def test_a_path_stays_the_same_path_to_all_that_watch_it() -> None:
    world, hosts, seen = mesh(4)
    changer, watcher = hosts[1], hosts[2]
    assert watcher.node is not None
    entries = watcher.node.tunnels._entries
    old = key_of(changer)
    before = entries.get(old)
    assert before is not None
    channel = watcher.node.channels.of(changer.id) if watcher.node.channels else None
    seen[watcher.name].clear()
    world.rotate(changer)
    until_changed(world, hosts, changer, old)
    assert entries.get(key_of(changer)) is before
    assert channel is not None
    assert watcher.node.channels is not None
    assert watcher.node.channels.of(changer.id) is channel
    assert works(watcher, changer, world)
    for device in seen[watcher.name]:
        peers = [one for one in device.peers if one.public_key in (old, key_of(changer))]
        assert all(one.endpoint for one in peers), "the tunnel lost its endpoint"


def test_two_that_change_at_once_do_so_one_after_the_other() -> None:
    world, hosts, _ = mesh(5)
    pair = sorted(hosts[1:3], key=lambda host: host.id)
    olds = [key_of(host) for host in pair]
    for host in pair:
        world.rotate(host)
    assert world.run_until(lambda: rotation_of(pair[0]).stage is Stage.STEADY, within_s=10)
    assert rotation_of(pair[1]).stage is not Stage.STEADY
    for host, old in zip(pair, olds, strict=True):
        until_changed(world, hosts, host, old)


@pytest.mark.parametrize("stage", [Stage.ANNOUNCED, Stage.KEEPING, Stage.CALLED, Stage.TURNING])
def test_an_agent_that_is_killed_at_any_stage_ends_with_the_new_key(stage: Stage) -> None:
    world, hosts, _ = mesh(6)
    changer = hosts[1]
    old = key_of(changer)
    world.rotate(changer)
    assert world.run_until(lambda: rotation_of(changer).stage is stage, within_s=10)
    world.crash(changer)
    world.run(2)
    world.start(changer)
    until_changed(world, hosts, changer, old)


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(100, 104))
def test_whoever_changes_and_whoever_is_killed_all_end_with_the_new_keys(seed: int) -> None:
    world, hosts, _ = mesh(seed)
    dice = random.Random(seed)
    changers = dice.sample(hosts, dice.choice((1, 2, 3)))
    olds = [key_of(host) for host in changers]
    for host in changers:
        world.rotate(host)
        world.run(dice.random() * 0.5)
    for _ in range(dice.choice((1, 2))):
        world.run(dice.random() * 2)
        victim = dice.choice(hosts)
        world.crash(victim)
        world.run(dice.random() * 3)
        world.start(victim)
    for host, old in zip(changers, olds, strict=True):
        until_changed(world, hosts, host, old, within_s=90)


def test_a_next_key_rests_where_there_is_no_interface_any_more_until_there_is_one() -> None:
    world, hosts, _ = mesh(12)
    changer = hosts[1]
    old, port = key_of(changer), world.wireguard_port
    world.rotate(changer)
    assert world.run_until(lambda: rotation_of(changer).stage is Stage.ANNOUNCED, within_s=10)
    world.crash(changer)
    world.wireguard_port = 0
    world.start(changer)
    for _ in range(100):
        world.run(0.01)
        due = changer.node.next_deadline() if changer.node else None
        assert due is None or due.at_s > world.instant(changer).mono_s, due
    assert rotation_of(changer).stage is Stage.STEADY
    assert changer.next_wireguard is not None
    assert changer.node is not None
    world.post(changer, RotationAsked(key=changer.next_wireguard))
    world.run(1)
    assert changer.node.presence.next_wireguard_key == b""
    world.crash(changer)
    world.wireguard_port = port
    world.start(changer)
    until_changed(world, hosts, changer, old)


def test_a_peer_that_is_killed_meanwhile_follows_from_its_disk() -> None:
    world, hosts, _ = mesh(7)
    changer, peer = hosts[1], hosts[2]
    old = key_of(changer)
    world.rotate(changer)
    world.run(0.5)
    world.crash(peer)
    world.run(1)
    world.start(peer)
    until_changed(world, hosts, changer, old)


def test_a_peer_that_was_away_takes_the_key_from_the_record() -> None:
    world, hosts, _ = mesh(8)
    changer, away = hosts[1], hosts[3]
    old = key_of(changer)
    world.crash(away, silent=True)
    world.run(20)
    world.rotate(changer)
    until_changed(world, [host for host in hosts if host is not away], changer, old)
    away.gone = False
    world.start(away)
    until_changed(world, hosts, changer, old)


def test_a_member_of_an_older_version_is_connected_again_after_the_change() -> None:
    world, hosts, _ = mesh(9)
    changer, older = hosts[1], hosts[2]
    old = key_of(changer)
    assert older.node is not None
    older.node.tunnels._follow_keys = lambda *_: None  # type: ignore[method-assign]
    world.rotate(changer)
    until_changed(world, hosts, changer, old, within_s=40)
    assert rotation_of(changer).missed == (older.id,)


def test_who_is_shut_out_meanwhile_is_gone_with_both_keys() -> None:
    world, hosts, _ = mesh(10)
    changer, peer = hosts[1], hosts[2]
    old = key_of(changer)
    world.rotate(changer)
    world.run(0.6)
    assert successor_of(peer.device, old)
    founder = hosts[0]
    coming = changer.next_wireguard
    body = RevocationRecord(what="node", subject=changer.id, author=founder.id, issued_at=world.unix_s())
    signed = envelope.sign(founder.key, world.mesh, body)
    world.post(founder, RevocationSigned(envelope=signed, chain=founder.chain))
    world.run(3)
    assert coming is not None
    for host in others(hosts, changer):
        assert host.device is not None
        assert all(one.public_key not in (old, coming.public) for one in host.device.peers)
        assert all(one.successor is None for one in host.device.peers)


def test_a_next_key_that_is_somebody_elses_counts_for_nobody() -> None:
    world, hosts, _ = mesh(11)
    changer, victim, peer = hosts[1], hosts[2], hosts[3]
    assert changer.node is not None
    changer.node.presence.next_wireguard_key = key_of(victim)
    changer.node.rekeying._show = lambda: None  # type: ignore[method-assign]
    changer.node.presence.refute()
    world.run(5)
    assert peer.node is not None
    shown = peer.node.roster.get(changer.id)
    assert shown is not None
    assert shown.record.next_wireguard_key == key_of(victim)
    assert peer.device is not None
    assert all(one.successor is None for one in peer.device.peers)


# --- a mesh -------------------------------------------------------------------------------------------------


def mesh(seed: int) -> tuple[World, list[Host], dict[str, list[DesiredDevice]]]:
    world = World(seed)
    world.spare = True
    hosts = [world.found("one")]
    world.run(0.5)
    hosts += [world.join(name, hosts[0]) for name in ("two", "three", "four")]
    seen: dict[str, list[DesiredDevice]] = {host.name: [] for host in hosts}

    def watch(host: Host, _: object, effects: object) -> None:
        assert isinstance(effects, list | tuple)
        seen[host.name] += [one.device for one in effects if isinstance(one, ApplyDevice)]

    world.watchers.append(watch)
    assert world.run_until(
        lambda: all(works(host, other, world) for host in hosts for other in others(hosts, host)), within_s=30
    )
    world.run(2)
    return world, hosts, seen


def until_changed(
    world: World, hosts: list[Host], changer: Host, old: WireGuardKey, within_s: float = 30.0
) -> None:
    """Runs until the change is over, and everybody holds the new key alone, with the addresses."""

    def over() -> bool:
        key = changer.wireguard.public
        if key == old or changer.device is None or changer.device.public_key != key:
            return False
        if changer.node is None or rotation_of(changer).stage is not Stage.STEADY:
            return False
        return all(
            holds_only(host.device, key, old) and works(host, changer, world)
            for host in others(hosts, changer)
        )

    assert world.run_until(over, within_s=within_s)


def holds_only(device: DesiredDevice | None, key: WireGuardKey, old: WireGuardKey) -> bool:
    peers = {one.public_key: one for one in device.peers} if device else {}
    return old not in peers and key in peers and bool(peers[key].allowed_ips)


def works(host: Host, other: Host, world: World) -> bool:
    node = host.node
    if node is None or other.device is None:
        return False
    held = node.tunnels.observed_peer(other.wireguard.public)
    return tunnel_works(held, world.unix_s()) and host.device is not None


def others(hosts: list[Host], host: Host) -> list[Host]:
    return [one for one in hosts if one is not host]


def key_of(host: Host) -> WireGuardKey:
    return host.wireguard.public


def rotation_of(host: Host) -> Rotation:
    assert host.node is not None
    return host.node.rekeying.rotation


def successor_of(device: DesiredDevice | None, key: WireGuardKey) -> WireGuardKey | None:
    peers = device.peers if device else ()
    return next((one.successor for one in peers if one.public_key == key), None)

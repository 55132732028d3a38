"""Whole nodes of a simulated mesh: two that can't meet find a relay, and the next one when it is gone, or
about to go."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from meshpeer.core.counters import Counter
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Send
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.node.messages import DeviceObserved, RevocationSigned
from meshpeer.core.paths.hop import HopState
from meshpeer.core.paths.probe_desk import ProbeHeard, ProbePortOpened, SendProbe
from meshpeer.core.paths.relay import RETIRE_S_MAX
from meshpeer.core.paths.relay_binding import is_binding
from meshpeer.core.paths.relay_bucket import Bucket
from meshpeer.core.paths.relay_crossing import Crossing, Way
from meshpeer.core.paths.relay_messages import (
    CloseRelay,
    MoveEndpoint,
    OpenRelay,
    RelayAble,
    RelayGranted,
    RelayRenewed,
    RelayStops,
)
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import RevocationRecord
from meshpeer.sim.host import Host
from meshpeer.sim.wireguard import device_of
from meshpeer.sim.world import World


def parted(seed: int) -> tuple[World, list[Host]]:
    """Returns a mesh of two that lend ports and two that do not meet."""
    world = World(seed)
    one = world.make_founder("one", subnet="10.10.0.0/24")
    joiners = [world.make_joiner(name) for name in ("two", "alpha", "bravo")]
    hosts = [one, *joiners]
    for host in hosts[:2]:
        host.lends = True
    world.apart.part(hosts[2], hosts[3], (hosts[0], hosts[1]))
    world.start(one)
    world.run(0.5)
    for host in joiners:
        world.enter(host, one)
    return world, hosts


def relay_of(host: Host, peer: Host, hosts: list[Host]) -> Host | None:
    assert host.node is not None
    via = host.node.relays.via(peer.id)
    return next((one for one in hosts if one.id == via), None)


def until_relayed(world: World, hosts: list[Host], within_s: float = 40.0) -> Host:
    alpha, bravo = hosts[2:]

    def relayed() -> bool:
        used = relay_of(alpha, bravo, hosts)
        same = used is not None and used is relay_of(bravo, alpha, hosts)
        return same and world.apart.meets(alpha, bravo)

    assert world.run_until(relayed, within_s=within_s)
    found = relay_of(alpha, bravo, hosts)
    assert found is not None
    return found


def test_two_that_do_not_meet_find_a_relay_and_stay_with_it() -> None:
    world, hosts = parted(71)
    relay = until_relayed(world, hosts)
    assert relay in hosts[:2]
    assert relay.node is not None
    assert len(relay.node.relays.desk.reservations) == 1
    assert hosts[2].node is not None
    assert hosts[2].node.relays.via(relay.id) is None
    world.run(50)
    assert until_relayed(world, hosts, 1) is relay


def test_a_pair_that_rests_is_not_looked_at() -> None:
    world, hosts = parted(71)
    relay = until_relayed(world, hosts)
    alpha, bravo = hosts[2:]
    assert alpha.node is not None
    world.run(5)
    later = world.instant(alpha)
    later = Instant(later.mono_s + 1.5, later.unix_s + 1.5)
    assert alpha.node.relays.follow(later, rests=(bravo.id,)) == []
    (said,) = alpha.node.relays.follow(later)
    assert isinstance(said, Send)
    assert said.peer == relay.id
    assert isinstance(said.message, RelayRenewed)


def test_the_next_relay_takes_over_from_one_whose_machine_is_gone() -> None:
    world, hosts = parted(72)
    relay = until_relayed(world, hosts)
    world.run(10)
    world.crash(relay, silent=True)
    assert world.run_until(
        lambda: (
            relay_of(hosts[2], hosts[3], hosts) not in (relay, None) and world.apart.meets(hosts[2], hosts[3])
        ),
        within_s=30,
    )


def test_a_machine_that_can_not_relay_does_not_say_that_it_does() -> None:
    world, hosts = parted(73)
    until_relayed(world, hosts)
    one, alpha = hosts[0].node, hosts[2].node
    assert one is not None
    assert alpha is not None
    shown = alpha.roster.get(one.me)
    assert shown is not None
    assert shown.record.relay
    world.post(hosts[0], RelayAble(fault="no socket"))
    world.run(0.1)
    assert not one.relays.lends
    world.run(5)
    shown = alpha.roster.get(one.me)
    assert shown is not None
    assert not shown.record.relay


def test_what_a_member_grants_that_is_no_relay_changes_nothing() -> None:
    world, hosts = parted(74)
    relay = until_relayed(world, hosts)
    alpha, bravo = hosts[2].node, hosts[3].node
    assert alpha is not None
    assert bravo is not None
    low, high = sorted((alpha.me, bravo.me))
    granted = RelayGranted(pair=(low, high), port=666, lasts_s=120, both=True)
    # As if it came from this very node, which is none of the pair's relays.
    alpha.relays.on_message(alpha.me, granted, world.instant(hosts[2]))
    world.run(10)
    assert until_relayed(world, hosts, 1) is relay


class Bound:
    """Hears what ends say to lent ports, and moves endpoints, as machines do."""

    def __init__(self, world: World, hosts: list[Host], *, shuts_first: bool = False) -> None:
        """``shuts_first``: nothing gets to the ports of whoever lends some first."""
        self.world, self.hosts = world, hosts
        self.shuts_first = shuts_first
        self.crossings: dict[tuple[str, int], tuple[Crossing, int]] = {}
        self.shut: set[str] = set()
        """Addresses of those."""
        self.dropped: list[str] = []
        """Who took the peer of the pair out of its interface, since this began."""
        world.watchers.append(self._watch)
        for host in hosts[2:]:
            world.post(host, ProbePortOpened())

    def _watch(self, host: Host, event: object, effects: Sequence[object]) -> None:
        for effect in effects:
            match effect:
                case OpenRelay(ports=ports, keys=keys, binds=binds):
                    if self.shuts_first and not self.shut:
                        self.shut.add(address_of(host))
                    crossing = Crossing(keys, Bucket(1e9, 1e9), Bucket(1e9, 1e9), binds)
                    for side, port in enumerate(ports):
                        self.crossings[address_of(host), port] = (crossing, side)
                case SendProbe(endpoint=endpoint, data=data) if is_binding(data):
                    self._bind(host, endpoint, data)
                case MoveEndpoint():
                    after_s = max(0.0, effect.at_s - self.world.instant(host).mono_s)
                    self.world.heap.after(after_s, self._move, host, effect)
        if host in self.hosts[2:] and isinstance(event, DeviceObserved) and event.device is not None:
            other = next(one for one in self.hosts[2:] if one is not host).wireguard.public
            if all(peer.public_key != other for peer in event.device.peers):
                self.dropped.append(host.name)

    def _bind(self, host: Host, endpoint: str, data: bytes) -> None:
        address, _, port = endpoint.rpartition(":")
        if address in self.shut:
            return
        crossing, side = self.crossings[address, int(port)]
        answer = crossing.bind(side, Way(address_of(host), 51820), data, 0.0)
        if answer is not None:
            event = ProbeHeard(source=endpoint, local=address_of(host), data=answer)
            self.world.heap.after(0.01, self.world.post, host, event)

    def _move(self, host: Host, move: MoveEndpoint) -> None:
        assert host.device is not None
        peers = tuple(
            dataclasses.replace(peer, endpoint=move.endpoint) if peer.public_key == move.public_key else peer
            for peer in host.device.peers
        )
        host.device = dataclasses.replace(host.device, peers=peers)
        unix_s = self.world.unix_s()
        shown = device_of(host.device, unix_s, self.world.apart.handshakes(host, host.device, unix_s))
        self.world.post(host, DeviceObserved(device=shown))


def address_of(host: Host) -> str:
    return host.address.rpartition(":")[0]


def test_a_relay_whose_ports_are_shut_is_left_before_it_costs_a_tunnel_and_comes_last_from_then_on() -> None:
    world, hosts = parted(71)
    bound = Bound(world, hosts, shuts_first=True)
    other = until_relayed(world, hosts)
    first = next(one for one in hosts[:2] if one is not other)
    assert bound.shut == {address_of(first)}
    for host, peer in (hosts[2:], hosts[:1:-1]):
        assert host.node is not None
        reason = host.node.relays.why(peer.id)
        assert reason is not None
        assert reason.shut == (first.id,)
        path = host.node.tunnels.relayed[peer.id]
        assert tuple(path.lent.hosts) == (other.id, first.id)
        assert path.moves == 1


def test_a_relay_that_stops_sees_its_pair_over_to_the_other_under_its_session() -> None:
    world, hosts = parted(75)
    bound = Bound(world, hosts)
    relay = until_relayed(world, hosts)
    world.run(10)
    bound.dropped.clear()
    world.post(relay, RelayStops())
    assert relay.node is not None
    desk = relay.node.relays.desk
    assert world.run_until(lambda: not desk.reservations, within_s=RETIRE_S_MAX - 1)
    other = until_relayed(world, hosts, 1)
    assert other is not relay
    assert not relay.node.relays.lends
    for host in hosts[2:]:
        assert host.node is not None
        assert host.node.counters.get(Counter.RELAY_HOPS) == 1
    world.crash(relay)
    world.run(30)
    assert until_relayed(world, hosts, 1) is other
    assert bound.dropped == []


def test_a_key_is_not_changed_while_a_pair_is_between_two_relays() -> None:
    world, hosts = parted(77)
    bound = Bound(world, hosts)
    relay = until_relayed(world, hosts)
    world.run(10)
    bound.dropped.clear()
    alpha, bravo = hosts[2:]
    assert alpha.node is not None
    hop, rotation = alpha.node.tunnels.relayed[bravo.id].hop, alpha.node.rekeying.rotation
    world.post(relay, RelayStops())
    assert world.run_until(lambda: hop.state is HopState.BINDING, within_s=5)
    key = rotation.key
    world.rotate(alpha)
    said: set[str] = set()

    def is_over() -> bool:
        if hop.is_under_way(world.instant(alpha)):
            said.add(rotation.held_up)
            return False
        return True

    assert world.run_until(is_over, within_s=5)
    assert hop.state is HopState.MOVED
    assert any("on its way to another path" in one for one in said)
    assert rotation.key is key
    assert bound.dropped == []
    assert world.run_until(lambda: rotation.key is not key, within_s=60)
    assert until_relayed(world, hosts, 10) is not relay


def test_a_move_names_the_key_that_the_peer_uses_before_its_record_says_so() -> None:
    world, hosts = parted(78)
    until_relayed(world, hosts)
    world.run(10)
    alpha, bravo = hosts[2:]
    assert alpha.node is not None
    tunnels = alpha.node.tunnels
    old = bravo.wireguard.public
    moves: list[MoveEndpoint] = []
    world.watchers.append(
        lambda host, _, effects: moves.extend(
            one for one in effects if host is alpha and isinstance(one, MoveEndpoint)
        )
    )
    world.rotate(bravo)
    assert world.run_until(lambda: tunnels.successors.of(bravo.id) is not None, within_s=5)
    following = tunnels.successors.of(bravo.id)
    assert following is not None
    seen = tunnels.observed
    assert seen is not None
    held = next(one for one in seen.peers if one.public_key == old)
    heir = dataclasses.replace(held, public_key=following, latest_handshake_unix_s=world.unix_s())
    others = tuple(one for one in seen.peers if one.public_key != following)
    world.post(alpha, DeviceObserved(device=dataclasses.replace(seen, peers=(*others, heir))))
    shown = alpha.node.roster.get(bravo.id)
    assert shown is not None
    assert shown.record.wireguard_key == old
    path = tunnels.relayed[bravo.id]
    assert path.used is not None
    path.hop._order(path.lent.end_at(path.used), world.instant(alpha).mono_s, world.instant(alpha))
    world.post(alpha, DeviceObserved(device=tunnels.observed))
    assert world.run_until(lambda: bool(moves), within_s=5)
    assert moves[0].public_key == following != old


def test_a_relay_that_was_revoked_takes_back_what_it_lent() -> None:
    world, hosts = parted(76)
    relay = until_relayed(world, hosts)
    closed: list[object] = []
    world.watchers.append(
        lambda host, _, effects: closed.extend(
            one for one in effects if host is relay and isinstance(one, CloseRelay)
        )
    )
    key = SigningKey(world.root.seed)
    record = RevocationRecord(
        what="node", subject=relay.id, author=key.public, issued_at=world.unix_s(), since=0, reason=""
    )
    signed = envelope.sign(key, world.mesh, record)
    assert relay.node is not None
    world.post(relay, RevocationSigned(envelope=signed, chain=()))
    assert world.run_until(lambda: bool(closed), within_s=2)
    assert not relay.node.relays.desk.reservations
    assert world.run_until(lambda: relay_of(hosts[2], hosts[3], hosts) not in (relay, None), within_s=60)

"""A node's underlay in virtual time: probes between members, and what the interface makes of them."""

from __future__ import annotations

from collections.abc import Sequence

from meshpeer.core.ids import NodeId
from meshpeer.core.node.messages import EndpointsChanged, LeaveAsked
from meshpeer.core.node.node import Node
from meshpeer.core.paths.path_mtus import UDP_OVER_IP
from meshpeer.core.paths.probe_desk import ProbeHeard, ProbePortOpened, ProbeTooLong, SendProbe
from meshpeer.core.topology.mtus import mtu_towards
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.sim.host import Host
from meshpeer.sim.world import World

LATENCY_S = 0.01


class Probed:
    """A mesh whose hosts hear each other's probes, as far as the path between them is wide."""

    def __init__(self, *names: str) -> None:
        self.world = World(7)
        first = self.world.found(names[0])
        self.world.run(0.5)
        self.hosts = [first, *(self.world.join(name, first) for name in names[1:])]
        self.wide = 1_500
        self.device = 65_535
        self.sent: list[str] = []
        self.world.watchers.append(self._watch)
        self.world.run(5)

    def open(self, *hosts: Host) -> None:
        for host in hosts or self.hosts:
            self.world.post(host, ProbePortOpened())

    def _watch(self, host: Host, event: object, effects: Sequence[object]) -> None:
        for probe in effects:
            if isinstance(probe, SendProbe):
                self.sent.append(host.name)
                self.world.heap.after(LATENCY_S, self._carry, host, probe)

    def _carry(self, host: Host, probe: SendProbe) -> None:
        length = len(probe.data) + UDP_OVER_IP[4]
        if length > self.device:
            self.world.post(host, ProbeTooLong(endpoint=probe.endpoint, probe_bytes=len(probe.data)))
        able = [one for one in self.hosts if one.node is not None and mind(one).underlay.probes.able]
        for there in able:
            if probe.endpoint in mind(there).presence.wireguard and length <= self.wide:
                source, local = mind(host).presence.wireguard[0], probe.endpoint.rpartition(":")[0]
                self.world.post(there, ProbeHeard(source=source, local=local, data=probe.data))


def test_members_that_may_probe_find_a_jumbo_path_and_use_it() -> None:
    mesh = Probed("alpha", "bravo", "charlie")
    mesh.wide = 9_000
    alpha, bravo, charlie = mesh.hosts
    mesh.open(alpha, bravo)
    assert mesh.world.run_until(lambda: device_of(alpha).mtu == 8_940, within_s=15)
    assert mesh.world.run_until(lambda: mtu_to(bravo, alpha) == 8_940, within_s=15)
    assert mtu_to(alpha, bravo) == 8_940
    assert mtu_to(alpha, charlie) == 1_420, "charlie has no right to raw sockets, and answers none"
    assert device_of(charlie).mtu == 1_420
    assert "charlie" not in mesh.sent


def test_a_narrow_path_has_narrow_routes_and_gets_wide_again_with_the_network() -> None:
    mesh = Probed("alpha", "bravo")
    mesh.wide = 1_280
    alpha, bravo = mesh.hosts
    mesh.open()
    assert mesh.world.run_until(lambda: mtu_to(alpha, bravo) == 1_220, within_s=15)
    assert device_of(alpha).mtu == 1_420
    mesh.world.run(30)
    mesh.wide = 1_500
    own = mind(alpha).presence.wireguard
    changed = EndpointsChanged(control=mind(alpha).presence.control, wireguard=(*own, "198.51.100.9:51820"))
    mesh.world.post(alpha, changed)
    assert mesh.world.run_until(lambda: mtu_to(alpha, bravo) == 1_420, within_s=5)
    assert mtu_to(bravo, alpha) == 1_220, "bravo's network has not changed: it looks again in its time"


def test_candidates_can_be_probed_beside_a_tunnel_and_both_ends_confirm() -> None:
    mesh = Probed("alpha", "bravo")
    alpha, bravo = mesh.hosts
    mesh.open()
    for host, other in ((alpha, bravo), (bravo, alpha)):
        ends = (*mind(other).presence.wireguard, "10.10.0.77:51820")
        mind(host).underlay.probes.aim(other.id, ends, mesh.world.instant(host))
    mesh.world.run(2)
    for host, other in ((alpha, bravo), (bravo, alpha)):
        confirmed = mind(host).underlay.probes.confirmed(other.id, mesh.world.instant(host))
        assert confirmed == mind(other).presence.wireguard


def test_a_node_that_left_is_asked_and_asks_no_more() -> None:
    mesh = Probed("alpha", "bravo")
    alpha, bravo = mesh.hosts
    mesh.open()
    mesh.world.run(5)
    mesh.world.post(bravo, LeaveAsked())
    mesh.world.run(5)
    mesh.sent.clear()
    mesh.world.run(200)
    assert "alpha" not in mesh.sent
    assert mind(alpha).underlay.mtus.found == {}


def mind(host: Host) -> Node:
    assert host.node is not None
    return host.node


def device_of(host: Host) -> DesiredDevice:
    desired = mind(host).desired
    assert desired is not None
    return desired


def mtu_to(host: Host, other: Host) -> int:
    listed = mind(host).roster.get(NodeId(other.id))
    assert listed is not None
    return mtu_towards(device_of(host), listed.ipv4)

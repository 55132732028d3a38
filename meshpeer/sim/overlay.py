"""Follows packets through the interfaces of a world's hosts, and asks at each hop what WireGuard would."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meshpeer.core.effects import AskEcho
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.node.messages import EchoAsked, EchoHeard
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.sim.heap import EventHeap
from meshpeer.sim.host import Host
from meshpeer.sim.network import Network

HOPS_MAX = 8
"""More than any plan has; a loop ends here."""


class Overlay:
    """The tunnels of all hosts of one world, and what tests do to them."""

    def __init__(self, heap: EventHeap, network: Network, post: Callable[[Host, object], None]) -> None:
        self._heap = heap
        self._network = network
        self._post = post
        self._holders: dict[str, Host] = {}
        self._hosts: dict[WireGuardKey, Host] = {}
        self._owners: dict[str, tuple[DesiredDevice, Mapping[str, WireGuardKey]]] = {}
        self.silent: list[Host] = []
        """Hosts whose WireGuard port is closed: links live, tunnels carry nothing."""
        self.stuck: list[Host] = []
        """Hosts with a firewall that drops what they should pass on."""

    def place(self, host: Host, device: DesiredDevice) -> None:
        """A host's interface holds something new."""
        owners = {address: peer.public_key for peer in device.peers for address in peer.allowed_ips}
        self._owners[host.name] = (device, owners)
        self._hosts[host.wireguard.public] = host
        self._holders.update((one.partition("/")[0], host) for one in device.addresses)

    def ask(self, host: Host, probe: AskEcho) -> None:
        """Carries a probe to where it is answered, and the answer back."""
        target = self.target(host, probe.address)
        source = self.address_of(host, ipv6=":" in probe.address)
        if target is None or source is None or target.node is None or target.paused:
            return
        latency_s = self._network.terrain.latency_s[host.region][target.region]
        answer = EchoHeard(number=probe.number, source=probe.address)
        self._heap.after(latency_s, self._tell, target, target.life, EchoAsked(source=source))
        self._heap.after(2 * latency_s, self._tell, host, host.life, answer)

    def target(self, source: Host, address: str) -> Host | None:
        """Returns the host that a packet reaches, and whose answer reaches its sender; None where one is
        lost."""
        target = self._holders.get(address)
        mine = self.address_of(source, ipv6=":" in address)
        if target is None or mine is None:
            return None
        there = self._carries(source, target, mine, address)
        return target if there and self._carries(target, source, address, mine) else None

    def address_of(self, host: Host, *, ipv6: bool) -> str | None:
        """Returns an address of a host's own."""
        device = self._owners[host.name][0] if host.name in self._owners else None
        own = [one.partition("/")[0] for one in device.addresses] if device else []
        return next((one for one in own if (":" in one) is ipv6), None)

    def _carries(self, source: Host, target: Host, source_ip: str, target_ip: str) -> bool:
        here = source
        for _ in range(HOPS_MAX):
            if here is target:
                return True
            if here is not source and (here in self.stuck or not _forwards(here)):
                return False
            there = self._hop(here, target_ip)
            if there is None or self._hop(there, source_ip) is not here:
                return False
            if here in self.silent or there in self.silent or not self._network.passes(here, there):
                return False
            here = there
        return False

    def _tell(self, host: Host, life: int, event: object) -> None:
        if host.life == life:
            self._post(host, event)

    def _hop(self, host: Host, address: str) -> Host | None:
        if host.name not in self._owners:
            return None
        prefix = f"{address}/{128 if ':' in address else 32}"
        key = self._owners[host.name][1].get(prefix)
        return self._hosts.get(key) if key else None


def _forwards(host: Host) -> bool:
    return host.node is None or host.node.tunnels.plan.forwards

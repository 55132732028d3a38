"""Which interface stands where, with which addresses and routes: pure, from a LabSpec.

On each LAN routers take host numbers 1, 2, ... and nodes 11, 12, ..., in the order of the file, the same
number in IPv4 and IPv6. A node's default route leads to the router that has its LAN inside; a router's leads
to the router that has its outside LAN inside; no route leads out of the lab.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from meshlab.errors import LabError
from meshlab.spec import LabSpec, LanSpec

FIRST_ROUTER, FIRST_NODE = 1, 11

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One machine's end of a veth pair; ``name`` is the LAN's, ``port`` is the other end, on the LAN's
    bridge."""

    machine: str
    name: str
    port: str
    mtu: int
    addresses: tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """``destination`` None is the default route of the gateway's family."""

    machine: str
    destination: Network | None
    gateway: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """All interfaces and routes of a lab, in the order of its file."""

    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...]

    def of(self, machine: str) -> tuple[Interface, ...]:
        """Returns the interfaces of one node or router."""
        return tuple(interface for interface in self.interfaces if interface.machine == machine)

    def addresses(self, machine: str, lan: str | None = None) -> tuple[Address, ...]:
        """Returns a machine's addresses, IPv4 before IPv6, on one LAN or on all."""
        return tuple(address.ip for i in self.of(machine) if lan in (None, i.name) for address in i.addresses)


def plan_wiring(spec: LabSpec) -> Wiring:
    """Gives every machine of a lab its interfaces, addresses and routes.

    Raises LabError when a prefix has no room.
    """
    members: dict[str, list[tuple[str, int]]] = {lan: [] for lan in spec.lans}
    for lan in spec.lans:
        routers = [r.name for r in spec.routers.values() if lan in (r.outside, *r.inside)]
        nodes = [n.name for n in spec.nodes.values() if lan in n.lans]
        members[lan] += [(name, FIRST_ROUTER + order) for order, name in enumerate(routers)]
        members[lan] += [(name, FIRST_NODE + order) for order, name in enumerate(nodes)]
        if len(routers) > FIRST_NODE - FIRST_ROUTER:
            raise LabError(f"lans.{lan} has {len(routers)} routers", f"at most {FIRST_NODE - FIRST_ROUTER}")
    interfaces: list[Interface] = []
    for lan, machines in members.items():
        for name, number in machines:
            addresses = _addresses(spec.lans[lan], number)
            port = f"p{len(interfaces)}"
            mtu = spec.lans[lan].mtu
            interfaces.append(Interface(machine=name, name=lan, port=port, mtu=mtu, addresses=addresses))
    placed = {(i.machine, i.name): i for i in interfaces}
    return Wiring(interfaces=tuple(interfaces), routes=tuple(_routes(spec, placed)))


def _addresses(lan: LanSpec, number: int) -> tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]:
    found: list[ipaddress.IPv4Interface | ipaddress.IPv6Interface] = []
    for prefix in (lan.ipv4, lan.ipv6):
        if prefix is None:
            continue
        if number >= prefix.num_addresses - 1:
            raise LabError(
                f"lans.{lan.name}: no room for host {number} in {prefix}", "give it a wider prefix"
            )
        if isinstance(prefix, ipaddress.IPv4Network):
            found.append(ipaddress.IPv4Interface((prefix[number], prefix.prefixlen)))
        else:
            found.append(ipaddress.IPv6Interface((prefix[number], prefix.prefixlen)))
    return tuple(found)


def _routes(spec: LabSpec, placed: Mapping[tuple[str, str], Interface]) -> list[Route]:
    routes: list[Route] = []
    home = {lan: r.name for r in reversed([*spec.routers.values()]) for lan in r.inside}
    for node in spec.nodes.values():
        routes += _default(node.name, [lan for lan in node.lans if lan in home], home, placed)
    for router in spec.routers.values():
        if router.outside is None:
            continue
        routes += _default(router.name, [router.outside] if router.outside in home else [], home, placed)
        gateways = [address.ip for address in placed[router.name, router.outside].addresses]
        neighbours = [machine for machine, lan in placed if lan == router.outside and machine != router.name]
        for lan in router.inside:
            translated = router.nat != "none"
            for prefix in (None if translated else spec.lans[lan].ipv4, spec.lans[lan].ipv6):
                for gateway in gateways:
                    if prefix is not None and gateway.version == prefix.version:
                        routes += [Route(machine=m, destination=prefix, gateway=gateway) for m in neighbours]
    return routes


def _default(
    machine: str, lans: list[str], home: Mapping[str, str], placed: Mapping[tuple[str, str], Interface]
) -> list[Route]:
    """One default route for each family, through the first of ``lans`` whose router speaks it."""
    chosen: dict[int, Route] = {}
    for lan in lans:
        for address in placed[home[lan], lan].addresses:
            route = Route(machine=machine, destination=None, gateway=address.ip)
            chosen.setdefault(address.version, route)
    return list(chosen.values())

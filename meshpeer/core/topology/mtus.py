"""From how wide each peer's path is to the MTU of the interface and of its routes.

The interface has the largest that anybody's path takes. Whatever differs from that has a route of its own
that says so. The mesh's prefixes are routed in halves (more specific than the interface's own routes) with
what is right for most, so that a mesh of a thousand takes no thousand routes.

- What goes on through a hub has at most the usual MTU: the path behind it is not this node's to measure.
  Where that is narrower, the hub says so (ICMP), and within the mesh nobody drops its word.
- A program that is WireGuard pads packets to 16 bytes up to the *device's* MTU, so a route with less is
  rounded down. The kernel pads up to the route's.
- IPv6 knows no MTU below 1,280 (RFC 8200, section 5). Where a path carries less, the IPv6 route keeps 1,280,
  and TCP is told a segment size that fits: connections work, larger datagrams over IPv6 do not.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from meshpeer.core.ids import NodeId
from meshpeer.core.topology.plan import MeshPlan
from meshpeer.core.topology.view import MemberView
from meshpeer.core.wgconf.model import DesiredDevice, RouteMtu

IPV6_MTU_MIN = 1_280
PAD_BYTES = 16
TCP_OVER_IPV6 = 60
LOOKUPS_REMEMBERED = 4
NOBODY: Mapping[NodeId, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMtus:
    """MTUs of one interface."""

    device: int
    routes: tuple[RouteMtu, ...] = ()
    """Sorted by prefix; with MTU 0 for those that have the interface's, amid others that have not."""


def plan_mtus(
    plan: MeshPlan,
    *,
    members: Iterable[MemberView],
    found: Mapping[NodeId, int],
    usual: int,
    mesh: Iterable[str],
    pads_to_device: bool,
    left_out: Collection[str] = (),
) -> PlannedMtus:
    """Derives them. ``members`` are those that the plan was made from; ``found`` are the MTUs of peers whose
    paths are known, ``usual`` is that of others; ``mesh`` are the prefixes that the interface's addresses
    imply."""
    if all(mtu == usual for mtu in found.values()):
        return PlannedMtus(device=usual)
    own = prefixes_of(members)
    wanted: dict[str, int] = {}
    rest = usual
    for peer in plan.peers:
        mtu = found.get(peer.node, usual)
        mine = own.get(peer.node, ())
        for prefix in peer.allowed_ips:
            if prefix not in left_out:
                wanted[prefix] = mtu if prefix in mine else min(mtu, usual)
                if prefix not in mine:
                    rest = min(rest, mtu)
    device = max([usual, *wanted.values()])
    halves = [half for prefix in mesh for half in _halves(prefix)] if device != rest else []
    inside = [ipaddress.ip_network(one) for one in halves]
    routes = {half: _route(half, rest, device, pads_to_device) for half in halves}
    for prefix, mtu in wanted.items():
        network = ipaddress.ip_network(prefix)
        covered = any(network.version == one.version and network.subnet_of(one) for one in inside)  # type: ignore[arg-type]
        # A route of the interface's own width is only needed where a half would say otherwise.
        if mtu != (rest if covered else device):
            routes[prefix] = _route(prefix, mtu, device, pads_to_device)
    return PlannedMtus(device=device, routes=tuple(routes[one] for one in sorted(routes)))


def prefixes_of(members: Iterable[MemberView]) -> dict[NodeId, frozenset[str]]:
    """Returns each member's own prefixes: its addresses, and the LANs behind it."""
    return {
        one.node: frozenset((*((f"{one.ipv4}/32",) if one.ipv4 else ()), f"{one.ipv6}/128", *one.lans))
        for one in members
    }


def mtu_towards(device: DesiredDevice, address: str) -> int:
    """Returns the MTU of packets to an overlay address: that of the longest prefix with a route."""
    target = ipaddress.ip_address(address)
    for (version, drop), found in _lookup(device.routes, device.route_mtus).items():
        if version == target.version and (mtu := found.get(int(target) >> drop)) is not None:
            return mtu or device.mtu
    return device.mtu


@functools.lru_cache(maxsize=LOOKUPS_REMEMBERED)
def _lookup(
    routes: tuple[str, ...], route_mtus: tuple[RouteMtu, ...]
) -> dict[tuple[int, int], dict[int, int]]:
    """Returns the MTUs of routes (0: as the interface) by their IP version and how many low bits of an
    address they leave open, the fewest first, then by the other bits. Routes are as many as members, and
    each member is asked for."""
    said = {one.prefix: one.mtu for one in route_mtus}
    lookup: dict[tuple[int, int], dict[int, int]] = {}
    for one in map(ipaddress.ip_network, routes):
        drop = one.max_prefixlen - one.prefixlen
        bits = int(one.network_address) >> drop
        lookup.setdefault((one.version, drop), {})[bits] = said.get(str(one), 0)
    return dict(sorted(lookup.items()))


def _route(prefix: str, mtu: int, device: int, pads_to_device: bool) -> RouteMtu:
    if mtu == device:
        return RouteMtu(prefix)
    fits = mtu - mtu % PAD_BYTES if pads_to_device else mtu
    if ":" not in prefix or fits >= IPV6_MTU_MIN:
        return RouteMtu(prefix, fits)
    return RouteMtu(prefix, IPV6_MTU_MIN, fits - TCP_OVER_IPV6)


def _halves(prefix: str) -> list[str]:
    network = ipaddress.ip_network(prefix)
    return [str(one) for one in network.subnets()] if network.prefixlen < network.max_prefixlen else []

"""Which of this machine's addresses peers may be told of, and why not the others.

What a peer is told it tries, so an address must lead to this very machine from elsewhere. Left out are the
mesh's own interface (a tunnel in a tunnel), links that carry nothing, link-local and temporary addresses,
and what container engines and hypervisors make: bridges without a port to the outside, whose addresses are
the same on every machine. Other tunnels (a VPN of this machine's) count where there is nothing else: they
may lead through the mesh. Loopback comes last of all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_MADE_BY_ENGINES = re.compile(
    r"docker|br-[0-9a-f]{12}$|veth[0-9a-f]{7,}$|virbr|vnet|cni|flannel|podman|lxc|lxdbr|cali|kube-|weave"
)
"""Names that Docker, libvirt, CNI plugins, Podman, LXC and Kubernetes give."""
_GUESTS = frozenset({"veth", "tun", "macvtap"})
"""Kinds of links by which containers and virtual machines are ports of a bridge."""
_TUNNELS = frozenset(
    {"wireguard", "tun", "ipip", "sit", "gre", "ip6tnl", "ip6gre", "vti", "vti6", "xfrm", "ppp"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressSeen:
    address: str
    prefix_length: int
    scope: str = "global"
    """``global``, ``site``, ``link`` or ``host``, as the kernel has it."""
    passing: bool = False
    """Temporary (RFC 8981), deprecated, or not known yet to be free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSeen:
    """One network interface of this machine."""

    name: str
    kind: str = ""
    """As the kernel has it: ``bridge``, ``veth``, ``wireguard``; empty for hardware."""
    carries: bool = True
    """It is up, and has a carrier."""
    master: str = ""
    """The bridge (or bond) that it is a port of."""
    addresses: tuple[AddressSeen, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAddresses:
    usable: tuple[str, ...]
    """What peers may be told, IPv4 first."""
    attached: tuple[str, ...]
    """The same with the lengths of their prefixes, but for loopback: networks that this machine is on."""
    held: tuple[str, ...]
    """All that this machine has, sorted: a connection from any other is cut."""


def own_addresses(links: Collection[LinkSeen], *, interface: str) -> OwnAddresses:
    """Returns what to tell of this machine's addresses; ``interface`` is the mesh's own."""
    found: list[AddressSeen] = []
    for wanted in (_is_outside, _is_tunnel, _is_loopback):
        found = [
            one
            for link in links
            if link.name != interface and wanted(link, links)
            for one in link.addresses
            if not one.passing and one.scope != "link" and (one.scope != "host" or link.name == "lo")
        ]
        if found:
            break
    found.sort(key=lambda one: (":" in one.address, one.address))
    return OwnAddresses(
        usable=tuple(dict.fromkeys(one.address for one in found)),
        attached=tuple(f"{one.address}/{one.prefix_length}" for one in found if one.scope != "host"),
        held=tuple(sorted({one.address for link in links for one in link.addresses})),
    )


def _is_outside(link: LinkSeen, links: Iterable[LinkSeen]) -> bool:
    if link.name == "lo" or not link.carries or link.kind in _TUNNELS:
        return False
    if _MADE_BY_ENGINES.match(link.name):
        return False
    # A bridge that a machine's own cable is a port of is its LAN; one of guests alone is nobody else's.
    return link.kind != "bridge" or any(
        port.master == link.name and port.kind not in _GUESTS for port in links
    )


def _is_tunnel(link: LinkSeen, links: Iterable[LinkSeen]) -> bool:
    return link.carries and link.kind in _TUNNELS


def _is_loopback(link: LinkSeen, links: Iterable[LinkSeen]) -> bool:
    return link.name == "lo"

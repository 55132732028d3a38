"""Which LAN a member can advertise: what a person may ask for, and what a record or certificate may name.

A LAN is one prefix in canonical form. What every machine has a meaning of its own for, or what would take
more than a LAN into the mesh, is no LAN for anybody: default routes and what is nearly one, loopback,
link-local, multicast. Whether it meets the mesh's own addresses is not judged here: the mesh's subnet can
change, and a record must be good or bad for all and for ever.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from meshpeer.core.errors import LocalFault
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.identity.constraints import ROUTES_MAX, covers

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WIDEST_IPV4, WIDEST_IPV6 = 8, 16
"""Two halves of everything are a default route, too."""
ROUTE_LENGTH_MAX = 43
"""The longest prefix as text: 39 letters of an IPv6 address, and its length."""
_NO_LAN = tuple(
    map(
        ipaddress.ip_network,
        ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/16", "fe80::/10", "ff00::/8"),
    )
)
"""This network, loopback, link-local, multicast and reserved (RFC 6890); of IPv6 also what maps IPv4."""


def route_fault(text: str) -> str:
    """Returns why a text is no LAN that a member can advertise; empty where it is one."""
    try:
        network = ipaddress.ip_network(text) if len(text) <= ROUTE_LENGTH_MAX else None
    except ValueError:
        network = None
    if network is None or str(network) != text:
        return "it is no network in the form ADDRESS/LENGTH, without host bits"
    if network.prefixlen < (WIDEST_IPV4 if network.version == 4 else WIDEST_IPV6):
        return "it is as wide as a default route"
    if meets(network, _NO_LAN):
        return "loopback, link-local, multicast and reserved addresses lead to no LAN"
    return ""


def check_routes(routes: Iterable[str], at: str) -> tuple[str, ...]:
    """Returns LANs as records name them: canonical, sorted, none twice. ``at`` says where they stand; raises
    ``LocalFault``."""
    found: set[str] = set()
    for one in routes:
        try:
            network = ipaddress.ip_network(one, strict=False)
        except ValueError:
            network = None
        text = str(network) if network is not None and "/" in one else one
        if network is not None and text != one and network.network_address != _address_of(one):
            raise LocalFault(f"{at}: {one} has host bits", f"did you mean {text}?")
        if fault := route_fault(text):
            raise LocalFault(
                f"{at}: {one[:ROUTE_LENGTH_MAX]!r} can't be advertised: {fault}",
                "give the network behind a node, for example 192.168.5.0/24",
            )
        found.add(text)
    if len(found) > ROUTES_MAX:
        raise LocalFault(f"{at}: {len(found)} routes are too many", f"one node can have up to {ROUTES_MAX}")
    return tuple(sorted(found))


def may_advertise(identity: VerifiedIdentity, route: str) -> bool:
    """Says whether a certificate allows a route. A founder's, which no invite stands behind, allows any."""
    return not identity.invite or any(covers(allowed, route) for allowed in identity.routes)


def meets(network: Network, others: Iterable[Network]) -> bool:
    """Says whether a network has addresses in common with one of others."""
    return any(network.version == one.version and network.overlaps(one) for one in others)


def _address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text.partition("/")[0])

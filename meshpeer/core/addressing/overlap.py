"""Does the mesh's subnet collide with what this machine routes already?"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from meshpeer.core.addressing.claims import SUBNET_PREFIX_WIDEST
from meshpeer.core.errors import LocalFault

SUBNET_PREFIX_NARROWEST = 29
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")
"""Carriers' own addresses (RFC 6598): free to use inside a mesh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One IPv4 route of this machine."""

    prefix: str
    device: str
    on_link: bool
    """Directly attached: no gateway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    route: Route
    refuse: bool
    """The mesh would take traffic away that this route carries, or lose its own; else it is worth a
    warning."""


def overlap_of(subnet: ipaddress.IPv4Network, routes: Iterable[Route], *, interface: str) -> Overlap | None:
    """Returns the worst collision, if any.

    An attached prefix that meets the subnet, or a route equal to or inside it, refuses; a broader one warns,
    since the mesh's own is more specific and only hides that part of it. The default route and routes into
    ``interface`` itself don't count.
    """
    warning: Overlap | None = None
    for route in routes:
        prefix = ipaddress.ip_network(route.prefix, strict=False)
        if (
            not isinstance(prefix, ipaddress.IPv4Network)
            or route.device == interface
            or prefix.prefixlen == 0
        ):
            continue
        if not prefix.overlaps(subnet):
            continue
        if route.on_link or prefix.subnet_of(subnet):
            return Overlap(route=route, refuse=True)
        warning = warning or Overlap(route=route, refuse=False)
    return warning


def check_subnet(text: str) -> ipaddress.IPv4Network:
    """Parses a mesh's subnet: private IPv4, /16 to /29, no host bits; else raises ``LocalFault``."""
    hint = (
        f"use private IPv4 addresses, /{SUBNET_PREFIX_WIDEST} to /{SUBNET_PREFIX_NARROWEST}, "
        "for example 10.10.0.0/24"
    )
    try:
        subnet = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise LocalFault(f"{text!r} is no subnet: {error}", hint) from error
    if not SUBNET_PREFIX_WIDEST <= subnet.prefixlen <= SUBNET_PREFIX_NARROWEST:
        raise LocalFault(f"{text} is too {'wide' if subnet.prefixlen < 16 else 'narrow'} for a mesh", hint)
    private = subnet.is_private or subnet.subnet_of(_SHARED)
    if not private or subnet.is_loopback or subnet.is_link_local or subnet.is_multicast:
        raise LocalFault(f"{text} is not for private use", hint)
    return subnet

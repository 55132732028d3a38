"""Does the mesh's subnet collide with what this machine routes already?"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass


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

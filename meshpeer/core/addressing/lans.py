"""Advertised LANs: which member leads to each, and what of this machine's own network stands in the way.

Several members may lead to one LAN: two routers of one office. Who does is settled like an address, by the
claims alone, with one thing before: a member whose observers say in signed facts that it is gone gives way,
so that the other router takes over. LANs of different lengths that overlap stand beside each other, and the
longest prefix counts, for the kernel and for WireGuard alike.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Collection, Iterable

from meshpeer.core.addressing.claims import Claim
from meshpeer.core.addressing.overlap import Route
from meshpeer.core.ids import NodeId
from meshpeer.core.records.routes import WIDEST_IPV4, WIDEST_IPV6, Network, meets

LANS_MAX = 1_024
"""LANs of one mesh; of more, those of the members that were admitted first count."""
PREFIXES_REMEMBERED = 4_096

network_of = functools.lru_cache(maxsize=PREFIXES_REMEMBERED)(
    functools.partial(ipaddress.ip_network, strict=False)
)


def resolve_lans(
    claims: Iterable[Claim], *, mesh: Collection[Network], doubted: Collection[NodeId]
) -> dict[str, NodeId]:
    """Returns who leads to each LAN, in the order of the prefixes' text.

    ``mesh`` are the mesh's own prefixes: what meets them is no LAN. Equal facts give equal answers, in
    whatever order.
    """
    best: dict[str, Claim] = {}
    for claim in claims:
        held = best.get(claim.value)
        if held is None or _rank(claim, doubted) < _rank(held, doubted):
            best[claim.value] = claim
    valid = [claim for claim in best.values() if not meets(network_of(claim.value), mesh)]
    first = sorted(valid, key=lambda claim: (claim.rank, claim.value))[:LANS_MAX]
    return {claim.value: claim.node for claim in sorted(first, key=lambda claim: claim.value)}


def conflict_of(lan: str, routes: Iterable[Route]) -> Route | None:
    """Returns a route of this machine that a LAN has addresses in common with, an attached network first.

    Default routes, whole or in halves, are no conflict: a LAN is more specific.
    """
    met = [one for one in routes if _is_specific(one) and meets(network_of(lan), (network_of(one.prefix),))]
    return min(met, key=lambda one: (not one.on_link, one.prefix, one.device), default=None)


def devices_towards(lan: str, routes: Iterable[Route]) -> tuple[str, ...]:
    """Returns the interfaces by which this machine reaches a LAN, or a part of it, without its default
    route."""
    return tuple(
        sorted(
            {
                one.device
                for one in routes
                if one.device and _is_specific(one) and meets(network_of(lan), (network_of(one.prefix),))
            }
        )
    )


def _rank(claim: Claim, doubted: Collection[NodeId]) -> tuple[bool, tuple[bool, int, NodeId]]:
    return (claim.node in doubted, claim.rank)


def _is_specific(route: Route) -> bool:
    network = network_of(route.prefix)
    return network.prefixlen >= (WIDEST_IPV4 if network.version == 4 else WIDEST_IPV6)

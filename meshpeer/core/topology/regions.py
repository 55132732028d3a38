"""Regions: which hubs carry whose traffic. Pure; the same for equal views on every node.

A region's hubs are drawn by rendezvous hashing (D. Thaler, C. Ravishankar, "Using Name-Based Mappings to
Increase Hit Rates", 1998) among its members that are fit: so one member's coming or going moves few. First
come those whose owners prefer it, then those that can be reached from anywhere.

The first carries the traffic, the second stands by: it has all tunnels already, so failover moves addresses
and nothing else. A hub that is *warm* says in its record that it has those tunnels, and only such a one takes
over from another: whoever ranks higher and just came stands by until then.

A region without a fit member is carried by another one's hubs. Members of such regions and of the one that
carries them are one *cell*.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from meshpeer.core.ids import NodeId
from meshpeer.core.topology.view import MemberView

ACTIVE = 1
"""Hubs that carry a region's traffic, unless the charter says otherwise."""
STANDBY = 1
"""Beside it a second one stands by, where the first is not warm yet and another is."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Hubs, and the regions whose traffic they carry."""

    active: tuple[MemberView, ...]
    standby: tuple[MemberView, ...]
    region: str = ""
    """Whose members the hubs are; it carries other regions, too, where those have nobody fit."""

    @property
    def hubs(self) -> tuple[MemberView, ...]:
        return (*self.active, *self.standby)

    def home(self, node: NodeId) -> MemberView:
        """Returns the hub that carries a member's traffic, both ways: WireGuard drops what comes from a
        source by another tunnel than the one that leads to it."""
        if len(self.active) == 1:
            return self.active[0]
        return max(self.active, key=lambda hub: _weight(node, hub.node))

    def serves(self, hub: NodeId, edge: NodeId) -> bool:
        """Says whether a hub carries this member, or would if the one that does were lost."""
        return hub == self.home(edge).node or any(one.node == hub for one in self.standby)


def cells_of(members: Iterable[MemberView], *, active: int = ACTIVE) -> dict[str, Cell]:
    """Returns the cell of each region; empty where nobody at all is fit to be a hub."""
    regions: dict[str, list[MemberView]] = {}
    for member in members:
        regions.setdefault(member.region, []).append(member)
    cells: dict[str, Cell] = {}
    for region, inside in regions.items():
        ranks = {one.node: rank_of(region, one) for one in inside if is_fit(one)}
        ranked = sorted((one for one in inside if one.node in ranks), key=lambda one: ranks[one.node])
        if ranked:
            first = ranked[:active]
            others = sorted(ranked[active:], key=lambda one: ranks[one.node].place)
            cells[region] = Cell(tuple(first), _standbys(others), region)
    return {region: cells.get(region) or _carrier(region, cells) for region in regions} if cells else {}


class Rank(NamedTuple):
    """Orders a region's fit members; the lowest is its hub. Fields in the order in which they decide."""

    cold: bool
    """It does not say that it has the tunnels of a hub."""
    unasked: bool
    """Its owner does not prefer it for a hub."""
    hidden: bool
    """It does not say that it can be reached from anywhere."""
    draw: bytes

    @property
    def place(self) -> tuple[bool, bool, bytes]:
        """Returns what orders those who stand by: they have their tunnels yet to make."""
        return self.unasked, self.hidden, self.draw


def is_fit(member: MemberView) -> bool:
    """Says whether a member can be a hub at all."""
    return member.hub != "never" and not member.doubted


def rank_of(region: str, member: MemberView) -> Rank:
    weight = _weight(region.encode(), member.node)
    return Rank(
        not member.warm, member.hub != "prefer", not member.public, bytes(255 - one for one in weight)
    )


def _standbys(ranked: list[MemberView]) -> tuple[MemberView, ...]:
    """Returns who stands by: the next by rank and, where that one has its tunnels yet to make, the next that
    has them."""
    first = ranked[:STANDBY]
    ready = next((one for one in ranked[STANDBY:] if one.warm), None)
    return (*first, ready) if ready and not any(one.warm for one in first) else tuple(first)


def _carrier(region: str, cells: Mapping[str, Cell]) -> Cell:
    """Returns the cell that carries a region without hubs of its own."""
    return cells[max(cells, key=lambda other: _weight(region.encode(), other.encode()))]


def _weight(of: bytes, candidate: bytes) -> bytes:
    return hashlib.sha256(len(of).to_bytes(2) + of + candidate).digest()

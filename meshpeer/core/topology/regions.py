"""Regions: which hubs carry whose traffic. Pure; the same for equal views on every node.

A region's hubs are drawn by rendezvous hashing (D. Thaler, C. Ravishankar, "Using Name-Based Mappings to
Increase Hit Rates", 1998) among its members that are fit: so one member's coming or going moves few. First
come those whose owners prefer it, then those that can be reached from anywhere, then those that have been up
for a while. The first carries the traffic, the second stands by: it has all tunnels already, so failover
moves addresses and nothing else.

A region without a fit member is carried by the hubs of the nearest one (``distances``). Members of such
regions and of the one that carries them are one *cell*. Hubs that enough of those that depend on them report
(``hub_reports``) come last, and so never leave a cell without any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from meshpeer.core.ids import NodeId
from meshpeer.core.topology.distances import nearest, weight
from meshpeer.core.topology.hub_reports import reporters_of, reports_needed
from meshpeer.core.topology.view import MemberView

ACTIVE = 1
"""Hubs that carry a region's traffic, unless the charter says otherwise."""
STANDBY = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """Hubs, and the regions whose traffic they carry."""

    active: tuple[MemberView, ...]
    standby: tuple[MemberView, ...]

    @property
    def hubs(self) -> tuple[MemberView, ...]:
        return (*self.active, *self.standby)

    def home(self, node: NodeId) -> MemberView:
        """Returns the hub that carries a member's traffic, both ways: WireGuard drops what comes from a
        source by another tunnel than the one that leads to it."""
        if len(self.active) == 1:
            return self.active[0]
        return max(self.active, key=lambda hub: weight(node, hub.node))

    def serves(self, hub: NodeId, edge: NodeId) -> bool:
        """Says whether a hub carries this member, or would if the one that does were lost."""
        return hub == self.home(edge).node or any(one.node == hub for one in self.standby)


def cells_of(members: Iterable[MemberView], *, active: int = ACTIVE) -> dict[str, Cell]:
    """Returns the cell of each region; empty where nobody at all is fit to be a hub."""
    everybody = list(members)
    regions: dict[str, list[MemberView]] = {}
    for member in everybody:
        regions.setdefault(member.region, []).append(member)
    ranked = {region: ranked for region, inside in regions.items() if (ranked := _ranked(region, inside))}
    if not ranked:
        return {}
    carriers = {
        region: region if region in ranked else nearest(region, ranked.keys(), everybody)
        for region in regions
    }
    crowds: dict[str, list[MemberView]] = {}
    for region, inside in regions.items():
        crowds.setdefault(carriers[region], []).extend(inside)
    cells = {carrier: _elect(ranked[carrier], crowd, active) for carrier, crowd in crowds.items()}
    return {region: cells[carrier] for region, carrier in carriers.items()}


def _ranked(region: str, inside: Iterable[MemberView]) -> list[MemberView]:
    return sorted(
        (one for one in inside if one.hub != "never" and not one.doubted), key=lambda one: _rank(region, one)
    )


def _elect(ranked: Sequence[MemberView], crowd: Sequence[MemberView], active: int) -> Cell:
    """Returns the hubs of a cell, without those that are reported; where all of them are, reports tell
    nothing. Who depends on whom follows from who is a hub: so one is deposed after the other, from the
    first."""
    reporters = reporters_of(crowd, ranked)
    deposed: set[NodeId] = set()
    while reporters and len(deposed) < len(ranked):
        cell = _cell(sorted(ranked, key=lambda one: one.node in deposed), active)
        unfit = next(
            (
                hub.node
                for hub in cell.hubs
                if hub.node not in deposed
                and hub.node in reporters
                and _is_reported(hub.node, cell, crowd, reporters[hub.node])
            ),
            None,
        )
        if unfit is None:
            return cell
        deposed.add(unfit)
    return _cell(ranked, active)


def _cell(ranked: Sequence[MemberView], active: int) -> Cell:
    return Cell(tuple(ranked[:active]), tuple(ranked[active : active + STANDBY]))


def _is_reported(hub: NodeId, cell: Cell, crowd: Iterable[MemberView], reporters: Set[NodeId]) -> bool:
    """Says whether enough of those that depend on a hub report it. Hubs depend on none, since they have all
    tunnels; who is gone can't take its word back."""
    hubs = {one.node for one in cell.hubs}
    dependents = [
        one.node for one in crowd if one.node not in hubs and not one.doubted and cell.serves(hub, one.node)
    ]
    said = sum(one in reporters for one in dependents)
    return said >= reports_needed(len(dependents))


def _rank(region: str, member: MemberView) -> tuple[bool, bool, bool, bytes]:
    inverse = bytes(255 - one for one in weight(region.encode(), member.node))
    return (member.hub != "prefer", not member.public, member.young, inverse)

"""Regions: which hubs carry whose traffic. Pure; the same for equal views on every node.

A region's hubs are drawn by rendezvous hashing (D. Thaler, C. Ravishankar, "Using Name-Based Mappings to
Increase Hit Rates", 1998) among its members that are fit: so one member's coming or going moves few. First
come those whose owners prefer it, then those that can be reached from anywhere.

The first carries the traffic, the second stands by: it has all tunnels already, so failover moves addresses
and nothing else. A hub that is *warm* says in its record that it has those tunnels, and only such a one takes
over from another: whoever ranks higher and just came stands by until then.

A region without a fit member is carried by the hubs of the nearest one (``distances``). Members of such
regions and of the one that carries them are one *cell*. Hubs that enough of those that depend on them report
(``hub_reports``) come last, and so never leave a cell without any.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from meshpeer.core.ids import NodeId
from meshpeer.core.topology.distances import draw, nearest, weight
from meshpeer.core.topology.hub_reports import reporters_of, reports_needed
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
    deposed: frozenset[NodeId] = frozenset()
    """Members that come last, since those that depend on them report that they carry nothing."""

    @property
    def hubs(self) -> tuple[MemberView, ...]:
        return (*self.active, *self.standby)

    @property
    def coming(self) -> tuple[MemberView, ...]:
        """Returns those who stand by and rank before a hub: they take over once they are warm."""
        places = [rank_of(self.region, one, self.deposed).place for one in self.active]
        return tuple(
            one for one in self.standby if rank_of(self.region, one, self.deposed).place < max(places)
        )

    def home(self, node: NodeId) -> MemberView:
        """Returns the hub that carries a member's traffic, both ways: WireGuard drops what comes from a
        source by another tunnel than the one that leads to it."""
        if len(self.active) == 1:
            return self.active[0]
        return max(self.active, key=lambda hub: weight(node, hub.node))

    def serves(self, hub: NodeId, edge: NodeId) -> bool:
        """Says whether a hub carries this member, or would if the one that does were lost."""
        return hub == self.home(edge).node or any(one.node == hub for one in self.standby)


class Rank(NamedTuple):
    """Orders a cell's candidates; the lowest is its hub. Fields in the order in which they decide."""

    reported: bool
    """Enough of those that depend on it report that it carries nothing."""
    cold: bool
    """It does not say that it has the tunnels of a hub."""
    unasked: bool
    """Its owner does not prefer it for a hub."""
    hidden: bool
    """It does not say that it can be reached from anywhere."""
    draw: int

    @property
    def place(self) -> tuple[bool, bool, bool, int]:
        """Returns what orders those who stand by: they have their tunnels yet to make."""
        return self.reported, self.unasked, self.hidden, self.draw


def is_fit(member: MemberView) -> bool:
    """Says whether a member can be a hub at all."""
    return member.hub != "never" and not member.doubted


def rank_of(region: str, member: MemberView, deposed: Container[NodeId] = ()) -> Rank:
    return Rank(
        reported=member.node in deposed,
        cold=not member.warm,
        unasked=member.hub != "prefer",
        hidden=not member.public,
        draw=draw(region.encode(), member.node),
    )


def cells_of(members: Iterable[MemberView], *, active: int = ACTIVE) -> dict[str, Cell]:
    """Returns the cell of each region; empty where nobody at all is fit to be a hub."""
    everybody = list(members)
    regions: dict[str, list[MemberView]] = {}
    for member in everybody:
        regions.setdefault(member.region, []).append(member)
    fit = {region: found for region, inside in regions.items() if (found := list(filter(is_fit, inside)))}
    if not fit:
        return {}
    carriers = {
        region: region if region in fit else nearest(region, fit.keys(), everybody) for region in regions
    }
    crowds: dict[str, list[MemberView]] = {}
    for region, inside in regions.items():
        crowds.setdefault(carriers[region], []).extend(inside)
    cells = {carrier: _elect(carrier, fit[carrier], crowd, active) for carrier, crowd in crowds.items()}
    return {region: cells[carrier] for region, carrier in carriers.items()}


def _elect(region: str, fit: Sequence[MemberView], crowd: Sequence[MemberView], active: int) -> Cell:
    """Returns the hubs of a cell, those that are reported last; where all of them are, reports tell nothing.
    Who depends on whom follows from who is a hub: so one is deposed after the other, from the first."""
    reporters = reporters_of(crowd, fit)
    deposed: set[NodeId] = set()
    while reporters and len(deposed) < len(fit):
        cell = _cell(region, fit, deposed, active)
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
    return _cell(region, fit, (), active)


def _cell(region: str, fit: Iterable[MemberView], deposed: Collection[NodeId], active: int) -> Cell:
    ranks = {one.node: rank_of(region, one, deposed) for one in fit}
    ranked = sorted(fit, key=lambda one: ranks[one.node])
    others = sorted(ranked[active:], key=lambda one: ranks[one.node].place)
    return Cell(tuple(ranked[:active]), _standbys(others, deposed), region, frozenset(deposed))


def _standbys(ranked: list[MemberView], deposed: Collection[NodeId]) -> tuple[MemberView, ...]:
    """Returns who stands by: the next by rank and, where that one has its tunnels yet to make, the next that
    has them, and carries something."""
    first = ranked[:STANDBY]
    ready = next((one for one in ranked[STANDBY:] if one.warm and one.node not in deposed), None)
    return (*first, ready) if ready and not any(one.warm for one in first) else tuple(first)


def _is_reported(hub: NodeId, cell: Cell, crowd: Iterable[MemberView], reporters: Set[NodeId]) -> bool:
    """Says whether enough of those that depend on a hub report it. Active hubs depend on none, since they
    have all tunnels; who is gone can't take its word back."""
    none = {hub, *(one.node for one in cell.active)}
    dependents = [
        one.node for one in crowd if one.node not in none and not one.doubted and cell.serves(hub, one.node)
    ]
    said = sum(one in reporters for one in dependents)
    return said >= reports_needed(len(dependents))

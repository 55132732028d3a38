"""The shape of a mesh: what every node with the same facts derives alike, before any of them asks for itself.

Full or regional, the cell of each region, who is a hub and whose home is where. Making one looks at all
members, asking one does not; so it is made once for a set of facts, and read by all that depends on it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.topology.mode import FULL, REGIONAL, Mode, ModeRule, judge_mode
from meshpeer.core.topology.regions import Cell, cells_of
from meshpeer.core.topology.view import MemberView, MeshView


class Shape:
    """Of one view. Immutable but for what it remembers."""

    def __init__(self, view: MeshView) -> None:
        self.view = view
        self.members = one_per_key(view.members)
        """Who can have a tunnel, in node id order."""
        self.by_node: Mapping[NodeId, MemberView] = {one.node: one for one in self.members}
        self._elected = cells_of(self.members, active=view.hubs)
        judged = judge_mode(view.topology, [one.mode for one in self.members])
        self.judged = judged if self._elected or judged.mode == FULL else Mode(FULL, ModeRule.NO_HUB)
        """Full or regional, and why."""
        cells = self._elected.values()
        self.active = frozenset(hub.node for cell in cells for hub in cell.active)
        """Who would carry traffic of others, were the mesh regional."""
        self.hubs = self.active | {hub.node for cell in cells for hub in cell.standby}
        """Those, and who stands by to."""

    @property
    def mode(self) -> str:
        return self.judged.mode

    @property
    def elected(self) -> Mapping[str, Cell]:
        """Returns the cell of each region as it is, or would be, were the mesh regional; empty where nobody
        is fit."""
        return self._elected

    @property
    def cells(self) -> Mapping[str, Cell]:
        """Returns the cell of each region; empty where no hub carries anything."""
        return self._elected if self.mode == REGIONAL else {}

    @functools.cached_property
    def homes(self) -> Mapping[NodeId, NodeId]:
        """Returns the hub through which all passes that a member has no tunnel for; nobody has one where
        nobody is fit."""
        return {
            one.node: cell.home(one.node).node
            for one in self.members
            if (cell := self._elected.get(one.region)) is not None
        }

    @functools.cached_property
    def addresses(self) -> Mapping[NodeId, tuple[str, ...]]:
        """Returns what the tunnel that leads to a member owns: its addresses (/32 and /128), then LANs."""
        return {
            one.node: (
                *(f"{address}/{bits}" for address, bits in ((one.ipv4, 32), (one.ipv6, 128)) if address),
                *one.lans,
            )
            for one in self.members
        }

    @functools.cached_property
    def addresses_are_distinct(self) -> bool:
        """Says whether no two members claim one prefix."""
        claimed = [prefix for prefixes in self.addresses.values() for prefix in prefixes]
        return len(set(claimed)) == len(claimed)

    def served_by(self, hub: NodeId) -> set[NodeId]:
        """Returns the members that a hub carries, or would if the one that does were lost: none of them a
        hub."""
        return {
            one.node
            for region, cell in self._elected.items()
            if any(one.node == hub for one in cell.hubs)
            for one in self.regions[region]
            if one.node not in self.hubs and cell.serves(hub, one.node)
        }

    @functools.cached_property
    def regions(self) -> Mapping[str, tuple[MemberView, ...]]:
        """Returns the members of each region, in node id order."""
        regions: dict[str, list[MemberView]] = {}
        for one in self.members:
            regions.setdefault(one.region, []).append(one)
        return {region: tuple(inside) for region, inside in regions.items()}


def one_per_key(members: Iterable[MemberView]) -> tuple[MemberView, ...]:
    """Leaves out whoever claims a WireGuard key that a lower node id claims too: one key can't be two
    peers."""
    by_key: dict[WireGuardKey, MemberView] = {}
    for member in sorted(members, key=lambda one: one.node):
        by_key.setdefault(member.wireguard_key, member)
    return tuple(by_key.values())

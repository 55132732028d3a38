"""The plan: which members this node has a tunnel to, and which addresses each tunnel owns.

*Full*: everyone peers with everyone, each tunnel owns exactly the peer's own addresses. *Regional*: a node
peers with the hubs of its cell and, in a region of up to 32, with all of its region; hubs peer with all hubs
and with everyone in their cell. Whatever has no tunnel goes to the own hub, from there to the other's hub,
from there to it: three hops at most.

An address belongs to one tunnel, and WireGuard checks that on receive, too. So paths are symmetric: a pair
has a tunnel or has none, seen from either end, and all that a member sends or gets from afar passes its one
home hub.

A member that is suspected or dead keeps its tunnel: only leave, expiry and revocation end it, so a partition
heals without anyone reconfiguring anything. What doubts change is who is a hub.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from dataclasses import dataclass

from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.topology.regions import Cell, cells_of
from meshpeer.core.topology.view import MemberView, MeshView

FULL, REGIONAL = "full", "regional"
REGION_FULL_MAX = 32
"""Members of a region of more reach each other through its hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPeer:
    """One tunnel."""

    node: NodeId
    name: str
    public_key: WireGuardKey
    allowed_ips: tuple[str, ...]
    """Exact: /32 and /128; sorted, and disjoint between the peers of a plan."""
    keepalive_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPlan:
    """What one node's interface carries, before anything that only this node knows (endpoints) comes in."""

    mode: str
    """``full`` or ``regional``: which rule made the plan."""
    peers: tuple[PlannedPeer, ...]
    """In public key order."""
    hub: str | None = None
    """The name of the hub that carries this node's traffic to whom it has no tunnel; None where all is
    direct."""
    hubs: tuple[str, ...] = ()
    """The names of all active hubs."""
    standbys: tuple[str, ...] = ()
    forwards: bool = False
    """This node is a hub, or stands by: it passes on what is not its own."""
    routes: tuple[str, ...] = ()
    """Prefixes to route into the interface beyond the mesh's own."""

    def carrier_of(self, address: str) -> PlannedPeer | None:
        """Returns the peer whose tunnel an overlay address goes through, None for one that goes nowhere."""
        prefix = f"{address}/{128 if ':' in address else 32}"
        return next((peer for peer in self.peers if prefix in peer.allowed_ips), None)


def plan_mesh(view: MeshView, me: NodeId) -> MeshPlan:
    """Derives this node's tunnels from the view; pure, and the same for equal views in whatever order."""
    members = _one_per_key(view.members)
    mine = next((one for one in members if one.node == me), None)
    if mine is None:
        # Another node holds this one's key, or it is not in yet: whom it reaches, it reaches directly.
        shown = {one.wireguard_key for one in view.members if one.node == me}
        others = [one for one in members if one.wireguard_key not in shown]
    else:
        others = [one for one in members if one is not mine]
    cells = cells_of(members) if mine is not None and view.topology == REGIONAL else {}
    if mine is None or not cells:
        return MeshPlan(mode=FULL, peers=_peers([(one, one) for one in others], view))
    regional = _Regional(members, cells)
    is_hub = me in regional.hubs
    return MeshPlan(
        mode=REGIONAL,
        peers=_peers([(regional.next_hop(mine, one), one) for one in others], view),
        hub=None if is_hub else cells[mine.region].home(me).name,
        hubs=tuple(sorted({hub.name for cell in cells.values() for hub in cell.active})),
        standbys=tuple(sorted({hub.name for cell in cells.values() for hub in cell.standby})),
        forwards=is_hub,
    )


class _Regional:
    """Who has a tunnel to whom, and where to send what has none."""

    def __init__(self, members: Iterable[MemberView], cells: dict[str, Cell]) -> None:
        self._cells = cells
        self.hubs = {hub.node for cell in cells.values() for hub in cell.hubs}
        self._sizes = collections.Counter(member.region for member in members)

    def next_hop(self, here: MemberView, to: MemberView) -> MemberView:
        """Returns whose tunnel at ``here`` leads to a member, and takes what comes from it."""
        if self.adjacent(here, to):
            return to
        edge = to if here.node in self.hubs else here
        return self._cells[edge.region].home(edge.node)

    def adjacent(self, one: MemberView, other: MemberView) -> bool:
        """Says whether two members have a tunnel; the same from either end."""
        if one.region == other.region and self._sizes[one.region] <= REGION_FULL_MAX:
            return True
        hubs = [member for member in (one, other) if member.node in self.hubs]
        if len(hubs) != 1:
            return len(hubs) == 2
        edge = other if hubs[0] is one else one
        return self._cells[edge.region].serves(hubs[0].node, edge.node)


def _peers(carried: Iterable[tuple[MemberView, MemberView]], view: MeshView) -> tuple[PlannedPeer, ...]:
    """Returns the tunnels, given pairs of whose tunnel it is and whose addresses go through it."""
    owned: set[str] = set()
    tunnels: dict[NodeId, tuple[MemberView, list[str]]] = {}
    for peer, member in sorted(carried, key=lambda pair: (pair[0].node, pair[1].node)):
        _, allowed = tunnels.setdefault(peer.node, (peer, []))
        fresh = [one for one in _addresses(member) if one not in owned]
        owned.update(fresh)
        allowed += fresh
    peers = [
        PlannedPeer(
            node=peer.node,
            name=peer.name,
            public_key=peer.wireguard_key,
            allowed_ips=tuple(sorted(allowed)),
            keepalive_s=view.keepalive_s,
        )
        for peer, allowed in tunnels.values()
    ]
    return tuple(sorted(peers, key=lambda peer: peer.public_key))


def _one_per_key(members: Iterable[MemberView]) -> list[MemberView]:
    """Leaves out whoever claims a WireGuard key that a lower node id claims too: one key can't be two
    peers."""
    by_key: dict[WireGuardKey, MemberView] = {}
    for member in sorted(members, key=lambda one: one.node):
        by_key.setdefault(member.wireguard_key, member)
    return sorted(by_key.values(), key=lambda one: one.node)


def _addresses(member: MemberView) -> list[str]:
    return [f"{address}/{bits}" for address, bits in ((member.ipv4, 32), (member.ipv6, 128)) if address]

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
        members = [one for one in members if one.wireguard_key not in shown]
        return MeshPlan(mode=FULL, peers=_peers({one: [one] for one in members}, view))
    others = [one for one in members if one.node != me]
    cells = cells_of(members) if view.topology == REGIONAL else {}
    if not cells:
        return MeshPlan(mode=FULL, peers=_peers({one: [one] for one in others}, view))
    mesh = _Regional(members, cells)
    carried: dict[MemberView, list[MemberView]] = {}
    for other in others:
        carried.setdefault(mesh.next_hop(mine, other), []).append(other)
    for other in others:
        if mesh.adjacent(mine, other):
            carried.setdefault(other, [])
    active = {hub.node: hub for cell in cells.values() for hub in cell.active}
    standby = {hub.node: hub for cell in cells.values() for hub in cell.standby}
    is_hub = me in active or me in standby
    return MeshPlan(
        mode=REGIONAL,
        peers=_peers(carried, view),
        hub=None if is_hub else cells[mine.region].home(me).name,
        hubs=tuple(sorted(hub.name for hub in active.values())),
        standbys=tuple(sorted(hub.name for hub in standby.values())),
        forwards=is_hub,
    )


class _Regional:
    """Who has a tunnel to whom, and where to send what has none."""

    def __init__(self, members: Iterable[MemberView], cells: dict[str, Cell]) -> None:
        self._cells = cells
        self._hubs = {hub.node for cell in cells.values() for hub in cell.hubs}
        self._sizes: dict[str, int] = {}
        for member in members:
            self._sizes[member.region] = self._sizes.get(member.region, 0) + 1

    def adjacent(self, one: MemberView, other: MemberView) -> bool:
        if one.node in self._hubs and other.node in self._hubs:
            return True
        if one.node in self._hubs or other.node in self._hubs:
            hub, edge = (one, other) if one.node in self._hubs else (other, one)
            cell = self._cells[edge.region]
            return hub.node == cell.home(edge.node).node or hub in cell.standby or self._near(one, other)
        return self._near(one, other)

    def next_hop(self, here: MemberView, to: MemberView) -> MemberView:
        if self.adjacent(here, to):
            return to
        edge = to if here.node in self._hubs else here
        return self._cells[edge.region].home(edge.node)

    def _near(self, one: MemberView, other: MemberView) -> bool:
        return one.region == other.region and self._sizes[one.region] <= REGION_FULL_MAX


def _peers(carried: dict[MemberView, list[MemberView]], view: MeshView) -> tuple[PlannedPeer, ...]:
    owned: set[str] = set()
    peers: list[PlannedPeer] = []
    for peer, members in sorted(carried.items(), key=lambda item: item[0].node):
        allowed = sorted(
            address for member in members for address in _addresses(member) if address not in owned
        )
        owned.update(allowed)
        peers.append(
            PlannedPeer(
                node=peer.node,
                name=peer.name,
                public_key=peer.wireguard_key,
                allowed_ips=tuple(allowed),
                keepalive_s=view.keepalive_s,
            )
        )
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

"""The plan: which members this node has a tunnel to, and which addresses each tunnel owns.

*Full*: everyone peers with everyone, each tunnel owns exactly the peer's own addresses. *Regional*: a node
peers with the hubs of its cell and, in a region of up to 32, with all of its region; hubs peer with all hubs
and with everyone in their cell. Whatever has no tunnel goes to the own hub, from there to the other's hub,
from there to it: three hops at most.

An address belongs to one tunnel, and WireGuard checks that on receive, too. So paths are symmetric: a pair
has a tunnel or has none, seen from either end, and all that a member sends or gets from afar passes its one
home hub. Where a pair has not moved to what the plan gives it (``moves``), both its ends make the same
exception.

A member that is suspected or dead keeps its tunnel: only leave, expiry and revocation end it, so a partition
heals without anyone reconfiguring anything. What doubts change is who is a hub.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.topology.mode import FULL, REGIONAL, mode_of
from meshpeer.core.topology.regions import Cell, cells_of
from meshpeer.core.topology.view import MemberView, MeshView

REGION_FULL_MAX = 32
"""Members of a region of more reach each other through its hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPeer:
    """One tunnel."""

    node: NodeId
    name: str
    public_key: WireGuardKey
    allowed_ips: tuple[str, ...]
    """Exact: /32 and /128; sorted, and disjoint between the peers of a plan. None while the pair still goes
    by its hubs."""
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
    held: Held | None = None
    """Which pairs have not moved to what the rules give them; None where all have."""

    def carrier_of(self, address: str) -> PlannedPeer | None:
        """Returns the peer whose tunnel an overlay address goes through, None for one that goes nowhere."""
        prefix = f"{address}/{128 if ':' in address else 32}"
        return next((peer for peer in self.peers if prefix in peer.allowed_ips), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The pairs of this node that are still where they were, as both their ends agreed."""

    direct: frozenset[NodeId] = frozenset()
    """Keep their own tunnel, although the plan sends them by hubs."""
    carried: frozenset[NodeId] = frozenset()
    """Go by hubs, although the plan gives them a tunnel."""


NOTHING_HELD = Held()


def plan_mesh(view: MeshView, me: NodeId, held: Held = NOTHING_HELD, *, forwarded: bool = False) -> MeshPlan:
    """Derives this node's tunnels from the view; pure, and the same for equal views in whatever order."""
    return Routes(view, me).plan(held, forwarded=forwarded)


class Routes:
    """Who has a tunnel to whom, and where this node sends what has none."""

    def __init__(self, view: MeshView, me: NodeId) -> None:
        members = _one_per_key(view.members)
        mine = next((one for one in members if one.node == me), None)
        if mine is None:
            # Another node holds this one's key, or it is not in yet: whom it reaches, it reaches directly.
            shown = {one.wireguard_key for one in view.members if one.node == me}
            members = [one for one in members if one.wireguard_key not in shown]
        self._view = view
        self._mine = mine
        self._others = [one for one in members if one is not mine]
        self._sizes = collections.Counter(member.region for member in members)
        self._cells = cells_of(members, active=view.hubs) if mine is not None else {}
        self._hubs = {hub.node for cell in self._cells.values() for hub in cell.hubs}
        regional = bool(self._cells) and mode_of(view.topology, [one.mode for one in members]) == REGIONAL
        self.mode = REGIONAL if regional else FULL
        self.adjacent = {one.node for one in self._others if self._is_adjacent(one)}
        """Whom this node has a tunnel to, by the rules of the mode."""

    @property
    def members(self) -> Iterable[MemberView]:
        """Returns all others."""
        return self._others

    @property
    def mine(self) -> MemberView | None:
        """Returns this node's own view; None where it is not in."""
        return self._mine

    @property
    def cells(self) -> Mapping[str, Cell]:
        """Returns the cell of each region; empty where no hub carries anything."""
        return self._cells if self.mode == REGIONAL else {}

    def is_hub(self, node: NodeId) -> bool:
        """Says whether a member carries traffic of others, or stands by to."""
        return node in self._hubs

    def home(self, member: MemberView) -> NodeId | None:
        """Returns the hub through which all passes that a member has no tunnel for; None where nobody is
        fit."""
        cell = self._cells.get(member.region)
        return cell.home(member.node).node if cell else None

    def by_hub(self, to: MemberView, direct: Set[NodeId] = frozenset()) -> NodeId | None:
        """Returns whose tunnel leads to a member that this node has none for, and takes what comes from it.

        ``direct`` are those whom this node keeps a tunnel to beyond the rules: a hub among them brings the
        traffic of whom it serves, as does one of several hubs of this node's own region."""
        assert self._mine is not None
        there = self.home(to)
        if self._mine.node in self._hubs:
            return there
        brings = there in direct or (self.mode == REGIONAL and there in self.adjacent)
        return there if brings and to.node not in self._hubs else self.home(self._mine)

    def plan(self, held: Held = NOTHING_HELD, *, forwarded: bool = False) -> MeshPlan:
        """Returns the tunnels. ``forwarded``: this node was a hub when the mesh was regional; it carries on
        for those that still depend on it."""
        tunnels = {one.node: one for one in self._others if one.node in self.adjacent | held.direct}
        carried: list[tuple[MemberView, MemberView]] = []
        for one in self._others:
            if one.node in tunnels and one.node not in held.carried:
                carried.append((one, one))
            elif (hop := self.by_hub(one, held.direct)) in tunnels:
                carried.append((tunnels[hop], one))
        by_hubs = self._mine is not None and (self.mode == REGIONAL or bool(held.carried))
        is_hub = self._mine is not None and self._mine.node in self._hubs
        names = {one.node: one.name for one in (*self._others, *([self._mine] if self._mine else []))}
        home = self.home(self._mine) if self._mine is not None and by_hubs and not is_hub else None
        cells = self._cells.values() if by_hubs else ()
        return MeshPlan(
            mode=self.mode,
            peers=_peers(tunnels.values(), carried, self._view),
            hub=names[home] if home else None,
            hubs=tuple(sorted({hub.name for cell in cells for hub in cell.active})),
            standbys=tuple(sorted({hub.name for cell in cells for hub in cell.standby})),
            forwards=is_hub and (self.mode == REGIONAL or forwarded),
            held=held if held.direct or held.carried else None,
        )

    def _is_adjacent(self, other: MemberView) -> bool:
        """Says whether this node and another have a tunnel; the same from either end."""
        mine = self._mine
        if mine is None or self.mode == FULL:
            return True
        if mine.region == other.region and self._sizes[mine.region] <= REGION_FULL_MAX:
            return True
        hubs = [member for member in (mine, other) if member.node in self._hubs]
        if len(hubs) != 1:
            return len(hubs) == 2
        edge = other if hubs[0] is mine else mine
        return self._cell(edge).serves(hubs[0].node, edge.node)

    def _cell(self, member: MemberView) -> Cell:
        return self._cells[member.region]


def _peers(
    tunnels: Iterable[MemberView], carried: Iterable[tuple[MemberView, MemberView]], view: MeshView
) -> tuple[PlannedPeer, ...]:
    """Returns the tunnels, given pairs of whose tunnel it is and whose addresses go through it."""
    owned: set[str] = set()
    allowed: dict[NodeId, list[str]] = {one.node: [] for one in tunnels}
    for peer, member in sorted(carried, key=lambda pair: (pair[0].node, pair[1].node)):
        fresh = [one for one in _addresses(member) if one not in owned]
        owned.update(fresh)
        allowed[peer.node] += fresh
    peers = [
        PlannedPeer(
            node=peer.node,
            name=peer.name,
            public_key=peer.wireguard_key,
            allowed_ips=tuple(sorted(allowed[peer.node])),
            keepalive_s=view.keepalive_s,
        )
        for peer in tunnels
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

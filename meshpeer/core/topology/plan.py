"""The plan: which members this node has a tunnel to, and which addresses each tunnel owns.

*Full*: everyone peers with everyone, each tunnel owns exactly the peer's own addresses. *Regional*: a node
peers with the hubs of its cell and, in a region of up to 32, with all of its region; hubs peer with all hubs
and with everyone in their cell. Whatever has no tunnel goes to the own hub, from there to the other's hub,
from there to it: three hops at most. A hub that stands by has its tunnels, and nothing goes through them
before it takes over but what those that it would serve say to it: who stands by may change, and nobody else's
traffic moves. LANs behind a member go wherever its addresses go.

An address belongs to one tunnel, and WireGuard checks that on receive, too. So paths are symmetric: a pair
has a tunnel or has none, seen from either end, and all that a member sends or gets from afar passes its one
home hub. Where a pair has not moved to what the plan gives it (``moves``), both its ends make the same
exception.

A member that is suspected or dead keeps its tunnel: only leave, expiry and revocation end it, so a partition
heals without anyone reconfiguring anything. What doubts change is who is a hub.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.topology.mode import FULL, REGIONAL, judge_mode
from meshpeer.core.topology.regions import Cell
from meshpeer.core.topology.shape import Shape
from meshpeer.core.topology.view import MemberView, MeshView

REGION_FULL_MAX = 32
"""Members of a region of more reach each other through its hub."""


class PairRule(enum.Enum):
    """Why the tunnel of two members leads to either, or hubs do."""

    FULL = "full"
    """The mesh is full."""
    REGION = "region"
    """They are of one region, and that is no crowd."""
    HUBS = "hubs"
    """Both are hubs."""
    SERVED = "served"
    """One is the other's hub."""
    STANDBY = "standby"
    """One stands by to be the other's hub."""
    APART = "apart"
    """None of these: they go by hubs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPeer:
    """One tunnel."""

    node: NodeId
    name: str
    public_key: WireGuardKey
    allowed_ips: tuple[str, ...]
    """Members' addresses (/32 and /128) and the LANs behind them; sorted, no prefix in two peers of a plan.
    None while the pair still goes by its hubs."""
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
    coming: tuple[str, ...] = ()
    """The names of those among them that take over as soon as they have their tunnels."""
    forwards: bool = False
    """This node is a hub, or stands by: it passes on what is not its own."""
    routes: tuple[str, ...] = ()
    """Prefixes to route into the interface beyond the mesh's own: LANs behind others; sorted."""
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
    return Routes(Shape(view), me).plan(held, forwarded=forwarded)


class Routes:
    """Who has a tunnel to whom, and where this node sends what has none."""

    def __init__(self, shape: Shape, me: NodeId) -> None:
        self.shape = shape
        mine = self._mine = shape.by_node.get(me)
        self._others = [one for one in shape.members if one is not mine]
        self._cells, self._homes = shape.elected, shape.homes
        self._active, self._hubs = shape.active, shape.hubs
        judged = shape.judged
        if mine is None:
            # Another node holds this one's key, or it is not in yet: whom it reaches, it reaches directly.
            shown = {one.wireguard_key for one in shape.view.members if one.node == me}
            self._others = [one for one in self._others if one.wireguard_key not in shown]
            self._cells, self._homes = {}, {}
            self._active, self._hubs = frozenset(), frozenset()
            judged = judge_mode(FULL, ())
        self.mode, self.mode_rule = judged
        mates = [one for one in shape.regions[mine.region] if one is not mine] if mine is not None else []
        self._neighbours = {one.node for one in mates} if len(mates) < REGION_FULL_MAX else set()
        """Members of the own region, where that is no crowd."""
        self._carriers: Mapping[NodeId, NodeId | None] | None = None
        self.adjacent, self.tunnels = self._adjacency()
        """Whom this node reaches by a tunnel of the pair's own, by the rules of the mode (all whose
        ``pair_rule`` is not ``APART``); and those with whom it would if a hub were lost, too."""

    @property
    def members(self) -> Iterable[MemberView]:
        """Returns all others."""
        return self._others

    def carries(self, node: NodeId) -> bool:
        """Says whether a member is the hub of others now."""
        return node in self._active

    @property
    def cell(self) -> Cell | None:
        """Returns the cell of this node, in a regional mesh in which somebody is fit."""
        regional = self._mine is not None and self.mode == REGIONAL
        return self._cells.get(self._mine.region) if self._mine and regional else None

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

    def cell_of(self, member: MemberView) -> Cell:
        """Returns the hubs of a member's region; there are some in a regional mesh."""
        return self._cells[member.region]

    def pair_rule(self, other: MemberView) -> PairRule:
        """Returns why this node's own tunnel leads to another, or hubs do; the same from either end."""
        mine = self._mine
        if mine is None or self.mode == FULL:
            return PairRule.FULL
        if other.node in self._neighbours:
            return PairRule.REGION
        hubs = [one for one in (mine, other) if one.node in self._active]
        if len(hubs) == 2:
            return PairRule.HUBS
        if not hubs:
            # One that stands by is reached by those that it would serve: so they notice where it is dead.
            hubs = [one for one in (mine, other) if one.node in self._hubs]
            standing = len(hubs) == 1 and other.node in self.tunnels
            return PairRule.STANDBY if standing else PairRule.APART
        edge = other if mine in hubs else mine
        return PairRule.SERVED if self.home(edge) == hubs[0].node else PairRule.APART

    def home(self, member: MemberView) -> NodeId | None:
        """Returns the hub through which all passes that a member has no tunnel for; None where nobody is
        fit."""
        return self._homes.get(member.node)

    def by_hub(
        self,
        to: MemberView,
        direct: Set[NodeId] = frozenset(),
        carried: Set[NodeId] = frozenset(),
    ) -> NodeId | None:
        """Returns whose tunnel leads to a member that this node has none for, and takes what comes from it.

        A hub of this node's own region brings the traffic of whom it serves by the tunnel that it has to this
        node, so what goes there takes that, too. ``direct`` are those whom this node keeps a tunnel to beyond
        the rules, ``carried`` those that it goes to by hubs in spite of them."""
        assert self._mine is not None
        there = self.home(to)
        if self._mine.node in self._active:
            return there
        near = there in direct or (there in self._neighbours and there not in carried)
        return there if near and to.node not in self._active else self.home(self._mine)

    def carriers(self, held: Held = NOTHING_HELD) -> Mapping[NodeId, NodeId | None]:
        """Returns whose tunnel leads to each other member: its own, a hub's; None where no way is known."""
        if held is NOTHING_HELD and self._carriers is not None:
            return self._carriers
        direct = (self.adjacent | held.direct) - held.carried
        found = {
            one.node: one.node if one.node in direct else self.by_hub(one, held.direct, held.carried)
            for one in self._others
        }
        if held is NOTHING_HELD:
            self._carriers = found
        return found

    def plan(
        self,
        held: Held = NOTHING_HELD,
        *,
        forwarded: bool = False,
        lingering: Set[NodeId] = frozenset(),
    ) -> MeshPlan:
        """Returns the tunnels. ``forwarded``: this node was a hub when the mesh was regional; it carries on
        for those that still depend on it. ``lingering``: whose tunnels stay for a while, with no address."""
        wanted = self.tunnels | held.direct | lingering
        tunnels = {one.node: one for one in self._others if one.node in wanted}
        carriers = self.carriers(held)
        carried = [
            (hop, one) for one in self._others if (hop := carriers[one.node]) is not None and hop in tunnels
        ]
        by_hubs = self._mine is not None and (self.mode == REGIONAL or bool(held.carried))
        me = self._mine.node if self._mine is not None else None
        home = self.home(self._mine) if self._mine and by_hubs and me not in self._active else None
        cells = self._cells.values() if by_hubs else ()
        lans = {lan for _, member in carried for lan in member.lans}
        return MeshPlan(
            mode=self.mode,
            peers=_peers(self.shape, tunnels, carried),
            hub=self.shape.by_node[home].name if home else None,
            hubs=tuple(sorted({hub.name for cell in cells for hub in cell.active})),
            standbys=tuple(sorted({hub.name for cell in cells for hub in cell.standby})),
            coming=tuple(sorted({hub.name for cell in cells for hub in cell.coming})),
            forwards=me in self._hubs and (self.mode == REGIONAL or forwarded),
            routes=tuple(sorted(lans)),
            held=held if held.direct or held.carried else None,
        )

    def _adjacency(self) -> tuple[set[NodeId], set[NodeId]]:
        """Returns ``adjacent`` and ``tunnels``: what the rules of pairs come to, without asking for each."""
        mine = self._mine
        if mine is None or self.mode == FULL:
            everybody = {one.node for one in self._others}
            return everybody, everybody
        me, serving = mine.node, self._serving(mine)
        if me not in self._hubs:
            return self._neighbours | serving, self._neighbours | serving
        served = self.shape.served_by(me)
        tunnels = (self._neighbours | self._hubs | served) - {me}
        if me not in self._active:
            return self._neighbours | served | serving & self._active, tunnels
        standing = {node for node in self._hubs - self._active if self._homes[node] == me}
        return (self._neighbours | self._active | served | standing) - {me}, tunnels

    def _serving(self, member: MemberView) -> set[NodeId]:
        """Returns the hubs that a member depends on, or would."""
        cell = self._cells[member.region]
        return {hub.node for hub in cell.hubs if cell.serves(hub.node, member.node)} - {member.node}


def _peers(
    shape: Shape, tunnels: Mapping[NodeId, MemberView], carried: Iterable[tuple[NodeId, MemberView]]
) -> tuple[PlannedPeer, ...]:
    """Returns the tunnels, given pairs of whose tunnel it is and whose addresses go through it."""
    allowed: dict[NodeId, list[str]] = {node: [] for node in tunnels}
    if shape.addresses_are_distinct:
        for peer, member in carried:
            allowed[peer] += shape.addresses[member.node]
    else:
        owned: set[str] = set()
        for peer, member in sorted(carried, key=lambda pair: (pair[0], pair[1].node)):
            fresh = [one for one in shape.addresses[member.node] if one not in owned]
            owned.update(fresh)
            allowed[peer] += fresh
    peers = [
        PlannedPeer(
            node=node,
            name=peer.name,
            public_key=peer.wireguard_key,
            allowed_ips=tuple(sorted(allowed[node])),
            keepalive_s=shape.view.keepalive_s,
        )
        for node, peer in tunnels.items()
    ]
    return tuple(sorted(peers, key=lambda peer: peer.public_key))

"""Reasons: why a path between two members is what it is, as typed values; the words are made elsewhere.

Nothing is decided here: a path is followed hop by hop through the plans that the nodes on it derive, and each
reason is read from what decides (``Routes.pair_rule``, ``Routes.mode_rule``, ``rank_of``). So an explanation
can't drift from the plan.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from meshpeer.core.ids import NodeId
from meshpeer.core.topology.mode import REGIONAL, ModeRule
from meshpeer.core.topology.plan import MeshPlan, PairRule, Routes
from meshpeer.core.topology.regions import Cell, Rank, is_fit, rank_of
from meshpeer.core.topology.shape import Shape
from meshpeer.core.topology.view import MemberView, MeshView

HOPS_MAX = 3
"""Of any path through plans that were derived from equal facts."""
PASSED_OVER_MAX = 3


class Criterion(enum.Enum):
    """What makes one member its region's hub, and not the next."""

    ONLY = "only"
    """Nobody else is fit."""
    SOUND = "sound"
    """Those that depend on the next one report that it carries nothing."""
    WARM = "warm"
    """It has the tunnels of a hub, and the next one does not say so."""
    PREFERRED = "preferred"
    PUBLIC = "public"
    DRAWN = "drawn"
    """They are equals: the hash draws."""


_CRITERIA = dict(
    zip(
        Rank._fields,
        (Criterion.SOUND, Criterion.WARM, Criterion.PREFERRED, Criterion.PUBLIC, Criterion.DRAWN),
        strict=True,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeReason:
    """Why the mesh is full or regional."""

    rule: ModeRule
    mode: str
    topology: str
    """What the charter says."""
    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReason:
    """Why two members have a tunnel, or none."""

    rule: PairRule
    one: MemberView
    other: MemberView
    size: int
    """Members of the region of ``one``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubReason:
    """Why a member is the hub through which all of another's traffic to afar passes."""

    hub: MemberView
    region: str
    """Whose hub it is."""
    edge: MemberView
    criterion: Criterion
    over: MemberView | None
    """The next by rank, that it comes before by the criterion."""
    among: int
    """Active hubs of the region; of several, a hash draws one for each member."""
    standbys: tuple[MemberView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedReason:
    """A region has nobody fit to be a hub, and another one's carry it."""

    region: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOverReason:
    """A member would come before the hub, but its observers say that it is gone, or those that depend on it
    that it carries nothing, or it lacks tunnels yet."""

    member: MemberView
    region: str
    gone: bool
    reported: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IsHubReason:
    """An end of the path is a hub itself."""

    hub: MemberView
    region: str
    needs_other: bool
    """The other end is no hub, and goes by one of its own."""


PathReason = ModeReason | PairReason | HubReason | CarriedReason | PassedOverReason | IsHubReason
"""The closed union of what a plan has for reasons."""


def path_reasons(shape: Shape, source: NodeId, target: NodeId) -> tuple[PathReason, ...]:
    """Returns why the path between two members is what it is; both must be in the view."""
    view = shape.view
    members = {one.node: one for one in view.members}
    routes = Routes(shape, source)
    return (
        ModeReason(
            rule=routes.mode_rule, mode=routes.mode, topology=view.topology, members=len(view.members)
        ),
        *_pair_reasons(view, routes, members[source], members[target]),
    )


def follow(
    view: MeshView, source: NodeId, target: NodeId, plan_of: Callable[[NodeId], MeshPlan]
) -> tuple[NodeId, ...]:
    """Returns the nodes that a packet passes, the source first; it ends early where nobody knows a way on."""
    address = next(one.ipv6 for one in view.members if one.node == target)
    path = [source]
    while path[-1] != target and len(path) <= HOPS_MAX:
        carrier = plan_of(path[-1]).carrier_of(address)
        if carrier is None or carrier.node in path:
            break
        path.append(carrier.node)
    return tuple(path)


def _pair_reasons(
    view: MeshView, routes: Routes, source: MemberView, target: MemberView
) -> tuple[PathReason, ...]:
    rule = routes.pair_rule(target)
    size = sum(1 for one in view.members if one.region == source.region)
    reasons: list[PathReason] = [PairReason(rule=rule, one=source, other=target, size=size)]
    if routes.mode != REGIONAL or rule in (PairRule.FULL, PairRule.REGION, PairRule.STANDBY):
        return tuple(reasons)
    for end in (source, target):
        cell = routes.cell_of(end)
        if routes.carries(end.node):
            apart = rule is PairRule.APART
            reasons.append(IsHubReason(hub=end, region=cell.region, needs_other=apart))
        else:
            reasons += _hub_reasons(view, cell, end)
    return tuple(dict.fromkeys(reasons))


def _hub_reasons(view: MeshView, cell: Cell, edge: MemberView) -> list[PathReason]:
    reasons: list[PathReason] = []
    hub, region = cell.home(edge.node), cell.region
    if edge.region != region:
        reasons.append(CarriedReason(region=edge.region, by=region))
    others = [one for one in view.members if one.region == region and one not in cell.active]
    inside = sorted((one for one in others if one.hub != "never"), key=lambda one: rank_of(region, one).place)
    over = min(filter(is_fit, inside), key=lambda one: rank_of(region, one, cell.deposed), default=None)
    reasons.append(
        HubReason(
            hub=hub,
            region=region,
            edge=edge,
            criterion=_criterion(cell, hub, over),
            over=over,
            among=len(cell.active),
            standbys=cell.standby,
        )
    )
    better = [one for one in inside if rank_of(region, one).place < rank_of(region, hub).place]
    reasons += [
        PassedOverReason(member=one, region=region, gone=one.doubted, reported=one.node in cell.deposed)
        for one in better[:PASSED_OVER_MAX]
        if one.doubted or one.node in cell.deposed or one != over
    ]
    return reasons


def _criterion(cell: Cell, hub: MemberView, over: MemberView | None) -> Criterion:
    """Returns by which of its parts one rank comes before another."""
    if over is None:
        return Criterion.ONLY
    mine, theirs = (rank_of(cell.region, one, cell.deposed) for one in (hub, over))
    ranks = zip(Rank._fields, mine, theirs, strict=True)
    return next(_CRITERIA[field] for field, one, other in ranks if one != other)

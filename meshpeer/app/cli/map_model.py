"""The mesh as this node knows it, as one value: from the documents of the control API to what a map shows.

A node measures its own paths only. So the lines of a map are of two kinds that are never mixed: *paths*,
from this node to each other member, as they are found now; and *planned* tunnels between others, which the
plan implies: hubs with hubs, members with the hubs of their region. Of those nothing is known but that they
shall be, so they carry no state and no round trip.

Pure: no clock, no terminal.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Sequence

from meshpeer.runtime.control import Doc, Peer, Plan, Status

HUB, STANDBY = "hub", "standby"
REGIONAL = "regional"
STATES = ("alive", "suspect", "dead")
PATHS = ("direct", "hub", "relay", "link", "none")


class MapMember(Doc, frozen=True, kw_only=True):
    """One member, this node included."""

    id: str
    name: str
    region: str
    me: bool
    """It is this node."""
    hub: str
    """``hub``, ``standby`` or empty."""
    state: str
    """This node's opinion, as in ``Peer``."""


class MapPath(Doc, frozen=True, kw_only=True):
    """How this node reaches one other, as in ``Peer``."""

    source: str
    target: str
    path: str
    via: str
    rtt_ms: float | None
    """Of the control link; None where there is none, or nothing was measured yet."""


class MapPlanned(Doc, frozen=True, kw_only=True):
    """A tunnel between two others that the plan implies; whether it is up is not known here."""

    source: str
    target: str


class MapRegion(Doc, frozen=True, kw_only=True):
    """One region; the empty name stands for members that named none."""

    name: str
    members: tuple[str, ...]
    hubs: tuple[str, ...]
    standbys: tuple[str, ...]
    states: dict[str, int]
    """Members by state, those without any left out."""
    paths: dict[str, int]
    """The others of it by path from this node, those without any left out."""


class MeshMap(Doc, frozen=True, kw_only=True):
    """All that a drawing needs; names are unique among members."""

    mesh: str
    node: str
    mode: str
    """``full`` or ``regional``: the rule that made the plan."""
    states: dict[str, int]
    """Members by state, those without any left out."""
    regions: tuple[MapRegion, ...]
    """This node's first, then by name."""
    members: tuple[MapMember, ...]
    """In the order of regions, then by name."""
    paths: tuple[MapPath, ...]
    planned: tuple[MapPlanned, ...]
    left: int
    """Members that left for good, which are not drawn."""
    revoked: int = 0
    """Nodes that were shut out, likewise."""
    notes: tuple[str, ...]
    """What the lines leave out, in sentences."""


def map_mesh(status: Status, peers: Sequence[Peer], plan: Plan) -> MeshMap:
    """Returns the map of what these three documents say."""
    present = [one for one in peers if one.state not in ("left", "revoked")]
    members = _members(status, present, plan)
    regions = _regions(members, {one.name: one.path for one in present})
    at = {region.name: position for position, region in enumerate(regions)}
    ordered = tuple(sorted(members, key=lambda one: (at[one.region], one.name)))
    return MeshMap(
        mesh=status.mesh.name,
        node=status.node.name,
        mode=plan.mode,
        states=_counted((one.state for one in members), STATES),
        regions=regions,
        members=ordered,
        paths=tuple(
            _path(status.node.name, one)
            for one in sorted(present, key=lambda one: (at[one.region], one.name))
        ),
        planned=tuple(_planned(status, present, plan, regions)),
        left=sum(1 for one in peers if one.state == "left"),
        revoked=sum(1 for one in peers if one.state == "revoked"),
        notes=_notes(status, plan, regions),
    )


def round_trip(rtt_ms: float) -> str:
    """Returns a round trip for people, of at most nine letters."""
    if rtt_ms < 10_000:
        return f"{rtt_ms:.1f} ms"
    return f"{min(rtt_ms / 1_000, 999_999):.0f} s"


def _members(status: Status, present: Iterable[Peer], plan: Plan) -> list[MapMember]:
    roles = {**dict.fromkeys(plan.standbys, STANDBY), **dict.fromkeys(plan.hubs, HUB)}
    mine = MapMember(
        id=status.node.id,
        name=status.node.name,
        region=status.node.region,
        me=True,
        hub=roles.get(status.node.name, ""),
        state="alive",
    )
    others = [
        MapMember(
            id=one.id,
            name=one.name,
            region=one.region,
            me=False,
            hub=roles.get(one.name, ""),
            state=one.state,
        )
        for one in present
    ]
    return [mine, *others]


def _path(me: str, peer: Peer) -> MapPath:
    # Who is not reached may have been once: its last round trip is no longer one of a path.
    rtt_ms = None if peer.path == "none" else peer.rtt_ms
    return MapPath(source=me, target=peer.name, path=peer.path, via=peer.via, rtt_ms=rtt_ms)


def _regions(members: Sequence[MapMember], paths: dict[str, str]) -> tuple[MapRegion, ...]:
    inside: dict[str, list[MapMember]] = collections.defaultdict(list)
    for one in members:
        inside[one.region].append(one)
    mine = next(one.region for one in members if one.me)
    return tuple(
        MapRegion(
            name=region,
            members=tuple(sorted(one.name for one in inside[region])),
            hubs=tuple(sorted(one.name for one in inside[region] if one.hub == HUB)),
            standbys=tuple(sorted(one.name for one in inside[region] if one.hub == STANDBY)),
            states=_counted((one.state for one in inside[region]), STATES),
            paths=_counted((paths[one.name] for one in inside[region] if not one.me), PATHS),
        )
        for region in sorted(inside, key=lambda one: (one != mine, one))
    )


def _counted(words: Iterable[str], known: Sequence[str]) -> dict[str, int]:
    """Returns how often each word occurs, those known in their order, then any others."""
    counts = collections.Counter(words)
    return {word: counts[word] for word in (*known, *sorted(set(counts) - set(known))) if counts[word]}


def _planned(
    status: Status, present: Sequence[Peer], plan: Plan, regions: Iterable[MapRegion]
) -> Iterator[MapPlanned]:
    """Yields tunnels between others; what this node has itself is among its paths."""
    if plan.mode != REGIONAL:
        return
    carried = {prefix for peer in plan.peers for prefix in peer.allowed_ips}
    # A member whose address goes nowhere takes no part in the plan: it has no interface, or another's key.
    tunnelled = {one.name for one in present if f"{one.ipv4}/32" in carried or f"{one.ipv6}/128" in carried}
    hubs = sorted({*plan.hubs, *plan.standbys} & tunnelled)
    for one, other in itertools.combinations(hubs, 2):
        yield MapPlanned(source=one, target=other)
    for region in regions:
        for name in region.members:
            if name in tunnelled and name not in hubs:
                for hub in (*region.hubs, *region.standbys):
                    if hub != status.node.name and hub in tunnelled:
                        yield MapPlanned(source=name, target=hub)


def _notes(status: Status, plan: Plan, regions: Sequence[MapRegion]) -> tuple[str, ...]:
    if not status.node.interface:
        return ("This node has no interface: it plans no tunnels, and knows of none.",)
    if plan.mode != REGIONAL:
        return (
            "In a full mesh all that have an interface have tunnels to each other; drawn are this node's.",
        )
    notes = [
        "Of a way by a hub this node knows its own tunnel to that hub, and not what follows.",
        "Members of one region may have tunnels to each other, which are not drawn.",
    ]
    bare = [region.name or "(none)" for region in regions if not region.hubs]
    if bare:
        verb = "has" if len(bare) == 1 else "have"
        notes.append(f"{', '.join(bare)} {verb} no hub: another region's carries the traffic.")
    return tuple(notes)

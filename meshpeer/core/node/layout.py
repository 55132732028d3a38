"""The layout: what a mesh looks like to every node with the same facts, from the roster to hubs and homes.

Nothing here is this node's own, so what is made for one set of facts holds for all that depends on it: the
plan, what ``why`` explains, the digest that nodes compare.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from meshpeer.core.addressing.claims import winners
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import NodeId
from meshpeer.core.node.lans import holders_of
from meshpeer.core.node.roster import Listed, Roster
from meshpeer.core.paths.endpoints import is_public
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.routes import Network
from meshpeer.core.topology.shape import Shape
from meshpeer.core.topology.view import MemberView, MeshView
from meshpeer.core.wire.limits import MEMBERS_MAX


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Of one set of facts."""

    shape: Shape
    holders: Mapping[str, NodeId]
    """Who leads to each advertised LAN."""


def make_layout(
    roster: Roster, charter: CharterRecord, doubted: Collection[NodeId], own: Collection[Network]
) -> Layout:
    """Returns what all derive alike.

    ``doubted`` are those whose observers say that they are gone; ``own`` are the mesh's own prefixes, which
    nobody leads to."""
    members = first_of_each_key(roster)
    holders = holders_of(members, own, doubted)
    held: dict[NodeId, list[str]] = {}
    for lan, node in holders.items():
        held.setdefault(node, []).append(lan)
    lans = {node: tuple(found) for node, found in held.items()}
    return Layout(Shape(mesh_view(members, charter, doubted, lans)), holders)


def mesh_view(
    members: Iterable[Listed],
    charter: CharterRecord,
    doubted: Collection[NodeId],
    lans: Mapping[NodeId, tuple[str, ...]],
) -> MeshView:
    """Returns what the plan is made from.

    ``members`` are those with tunnels (``first_of_each_key``); ``lans`` are those that each leads to."""
    return MeshView(
        subnet=charter.subnet,
        topology=charter.topology,
        keepalive_s=charter.keepalive_s,
        mtu=charter.mtu,
        hubs=charter.hubs,
        members=tuple(_member_view(one, one.node in doubted, lans.get(one.node, ())) for one in members),
    )


def first_of_each_key(roster: Roster) -> list[Listed]:
    """Leaves out whoever shows a WireGuard key that a member admitted earlier shows too: WireGuard knows
    peers by key alone, and a node id that sorts first is soon found."""
    shown = [one for one in roster.members if one.record.wireguard_port]
    if len({one.record.wireguard_key for one in shown}) == len(shown):
        return shown
    holders = winners(one.claim(one.record.wireguard_key.hex()) for one in shown)
    return [one for one in shown if holders[one.record.wireguard_key.hex()] == one.node]


_is_public = functools.lru_cache(maxsize=MEMBERS_MAX)(is_public)


@functools.lru_cache(maxsize=MEMBERS_MAX)
def _member_view(one: Listed, doubted: bool, lans: tuple[str, ...]) -> MemberView:
    """Returns what the plan may know of one member; most facts change only one member's."""
    return MemberView(
        node=one.node,
        name=one.name,
        region=one.record.region,
        wireguard_key=one.record.wireguard_key,
        ipv4=one.ipv4,
        ipv6=one.ipv6,
        hub=one.record.hub if Capability.HUB in one.identity.capabilities else "never",
        public=one.record.configured_endpoint or any(map(_is_public, one.record.wireguard_endpoints)),
        doubted=doubted,
        warm=one.record.warm,
        incarnation=one.record.incarnation,
        mode=one.record.mode,
        lans=lans,
        reports=one.record.hubs_failed,
        answers=one.record.answers,
        distances=one.record.distances,
    )

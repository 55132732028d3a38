"""The plan: which members this node has a tunnel to, and which addresses each tunnel owns.

Full mesh: everyone peers with everyone, each tunnel owns exactly the peer's own addresses. A member that is
suspected or dead keeps its tunnel: only leave, expiry and revocation end it, so a partition heals without
anyone reconfiguring anything (the view has no liveness at all, and members that are out are not in it).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.topology.view import MemberView, MeshView


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
    """``full`` or ``regional``: which rule made the plan. This version makes ``full`` ones."""
    peers: tuple[PlannedPeer, ...]
    """In public key order."""
    hub: str | None = None
    """The name of the hub that carries this node's traffic to other regions; None where all is direct."""
    hubs: tuple[str, ...] = ()
    """The names of all active hubs."""
    routes: tuple[str, ...] = ()
    """Prefixes to route into the interface beyond the mesh's own."""


def plan_mesh(view: MeshView, me: NodeId) -> MeshPlan:
    """Derives this node's tunnels from the view; pure, and the same for equal views in whatever order."""
    members = _one_per_key(view.members)
    mine = next((member for member in view.members if member.node == me), None)
    owned: set[str] = set()
    peers: list[PlannedPeer] = []
    for member in members:
        if member.node == me or (mine is not None and member.wireguard_key == mine.wireguard_key):
            continue
        allowed = tuple(sorted(one for one in _addresses(member) if one not in owned))
        owned.update(allowed)
        peers.append(
            PlannedPeer(
                node=member.node,
                name=member.name,
                public_key=member.wireguard_key,
                allowed_ips=allowed,
                keepalive_s=view.keepalive_s,
            )
        )
    return MeshPlan(mode="full", peers=tuple(sorted(peers, key=lambda peer: peer.public_key)))


def _one_per_key(members: Iterable[MemberView]) -> list[MemberView]:
    """Leaves out whoever claims a WireGuard key that a lower node id claims too: one key can't be two
    peers."""
    by_key: dict[WireGuardKey, MemberView] = {}
    for member in sorted(members, key=lambda one: one.node):
        by_key.setdefault(member.wireguard_key, member)
    return sorted(by_key.values(), key=lambda one: one.node)


def _addresses(member: MemberView) -> list[str]:
    return [f"{address}/{bits}" for address, bits in ((member.ipv4, 32), (member.ipv6, 128)) if address]

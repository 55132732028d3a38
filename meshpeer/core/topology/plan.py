"""The plan: which members this node has a tunnel to, and which addresses each tunnel owns.

Full mesh: everyone peers with everyone, each tunnel owns exactly the peer's own addresses. A member that is suspected or dead
keeps its tunnel: only leave, expiry and revocation end it, so a partition heals without anyone reconfiguring anything.
"""

from __future__ import annotations

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
    keepalive_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPlan:
    mode: str
    """What this version plans: ``full``."""
    peers: tuple[PlannedPeer, ...]
    """In public key order."""


def plan_mesh(view: MeshView, me: NodeId) -> MeshPlan:
    """Derives this node's tunnels from the view; pure, and the same for equal views."""
    peers = [
        PlannedPeer(
            node=member.node,
            name=member.name,
            public_key=member.wireguard_key,
            allowed_ips=tuple(f"{address}/{bits}" for address, bits in ((member.ipv4, 32), (member.ipv6, 128)) if address),
            keepalive_s=view.keepalive_s,
        )
        for member in _one_per_key(view)
        if member.node != me
    ]
    return MeshPlan(mode="full", peers=tuple(sorted(peers, key=lambda peer: peer.public_key)))


def _one_per_key(view: MeshView) -> list[MemberView]:
    """Leaves out whoever claims a WireGuard key that a lower node id claims too: one key can't be two peers."""
    by_key: dict[WireGuardKey, MemberView] = {}
    for member in sorted(view.members, key=lambda one: one.node):
        by_key.setdefault(member.wireguard_key, member)
    return list(by_key.values())

"""Follows packets through the plans of a whole mesh, and asks at each hop what WireGuard would."""

from __future__ import annotations

from collections.abc import Mapping

from meshpeer.core.ids import NodeId
from meshpeer.core.topology.plan import MeshPlan
from meshpeer.core.topology.view import MeshView

HOPS_MAX = 3


def check_plans(view: MeshView, plans: Mapping[NodeId, MeshPlan]) -> None:
    """Fails unless every pair of a view is connected."""
    check_pairs({one.node: one.ipv6 for one in view.members}, plans)


def check_pairs(addresses: Mapping[NodeId, str], plans: Mapping[NodeId, MeshPlan]) -> None:
    """Fails unless every pair is connected both ways in three hops, each address has one owner and each
    tunnel two ends."""
    for one, plan in plans.items():
        owned = [address for peer in plan.peers for address in peer.allowed_ips]
        assert len(owned) == len(set(owned)), "one owner per address"
        for peer in plan.peers:
            assert one in {back.node for back in plans[peer.node].peers}, "a tunnel has two ends"
    owners = {
        one: {address: peer.node for peer in plan.peers for address in peer.allowed_ips}
        for one, plan in plans.items()
    }
    for source, source_ip in addresses.items():
        for target, target_ip in addresses.items():
            if source == target:
                continue
            here, hops = source, 0
            while here != target:
                there = owners[here].get(f"{target_ip}/128")
                assert there is not None, f"{here!r} knows no way to {target_ip}"
                assert owners[there].get(f"{source_ip}/128") == here, "the source may come by this tunnel"
                assert there == target or plans[there].forwards, "only hubs pass on"
                here, hops = there, hops + 1
                assert hops <= HOPS_MAX


def packets_path(
    plans: Mapping[NodeId, MeshPlan], source: NodeId, target: NodeId, address: str
) -> list[NodeId]:
    """Returns the nodes that a packet passes, both ends included; fails where it does not arrive."""
    path = [source]
    while path[-1] != target:
        owners = [peer.node for peer in plans[path[-1]].peers if f"{address}/128" in peer.allowed_ips]
        assert len(owners) == 1, "one owner per address"
        path += owners
        assert len(path) <= HOPS_MAX + 1
    return path

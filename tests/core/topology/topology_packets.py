"""Follows packets through the plans of a whole mesh, and asks at each hop what WireGuard would."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping

from meshpeer.core.ids import NodeId
from meshpeer.core.topology.plan import MeshPlan
from meshpeer.core.topology.view import MeshView

HOPS_MAX = 3


def check_plans(view: MeshView, plans: Mapping[NodeId, MeshPlan]) -> None:
    """Fails unless every pair of a view is connected, and every member with the LANs of all others."""
    check_pairs({one.node: one.ipv6 for one in view.members}, plans)
    check_lans(view, plans)


def check_lans(view: MeshView, plans: Mapping[NodeId, MeshPlan]) -> None:
    """Fails unless packets to a LAN arrive at whom it stands behind, and answers from it come back, each hop
    asking what WireGuard does: the longest prefix, on sending and on receiving."""
    owners = {one: _owners(plan) for one, plan in plans.items()}
    for holder in view.members:
        for lan in holder.lans:
            host = str(next(iter(ipaddress.ip_network(lan))))
            if _longest(host, (other for one in view.members for other in one.lans)) != lan:
                continue
            for one in view.members:
                if one != holder:
                    assert lan in plans[one.node].routes, "the kernel sends it into the interface"
                    _follow(one.node, holder.node, host, owners, plans, answers=one.ipv6)
            assert lan not in plans[holder.node].routes, "nobody routes its own LAN into the mesh"


def _follow(
    here: NodeId,
    target: NodeId,
    address: str,
    owners: Mapping[NodeId, Mapping[str, NodeId]],
    plans: Mapping[NodeId, MeshPlan],
    *,
    answers: str,
) -> None:
    """Follows a packet to an address behind ``target``, and the answer at each hop backwards."""
    for _ in range(HOPS_MAX):
        there = owners[here][_longest(address, owners[here])]
        back = owners[there][f"{answers}/128"]
        assert back == here, "the answer goes by the tunnel that the question came by"
        assert owners[here][_longest(address, owners[here])] == there, "and is taken from it"
        if there == target:
            return
        assert plans[there].forwards, "only hubs pass on"
        here = there
    raise AssertionError(f"no way to {address} in {HOPS_MAX} hops")


def _owners(plan: MeshPlan) -> dict[str, NodeId]:
    return {prefix: peer.node for peer in plan.peers for prefix in peer.allowed_ips}


def _longest(address: str, prefixes: Iterable[str]) -> str:
    inside = [one for one in prefixes if _holds(one, address)]
    return max(inside, key=lambda one: int(one.partition("/")[2]))


def _holds(prefix: str, address: str) -> bool:
    return (":" in prefix) == (":" in address) and _address(address) in _network(prefix)


_address = functools.cache(ipaddress.ip_address)
_network = functools.cache(ipaddress.ip_network)


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

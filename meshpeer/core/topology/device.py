"""From the plan, which every node could derive, to the interface of this one, with what only it knows:
endpoints.

A peer is installed at once, without endpoint: whatever it sends is answered. It gets its endpoint, and
keepalives with it, once it is ready (it said that its interface holds this node's key). An initiation that
comes before the other end knows the key is dropped, and the next follows 5 s later (REKEY_TIMEOUT; WireGuard
whitepaper, section 6.1).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.topology.mtus import PlannedMtus
from meshpeer.core.topology.plan import MeshPlan
from meshpeer.core.wgconf.model import DesiredDevice, DesiredPeer


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalInterface:
    """This node's own end of its tunnels."""

    interface: str
    private_key: bytes = field(repr=False)
    public_key: WireGuardKey
    listen_port: int
    mtu: int
    """Where nothing is known of paths."""
    ipv4: ipaddress.IPv4Interface | None
    """With the prefix length of the mesh's subnet; None until this node holds an address."""
    ipv6: ipaddress.IPv6Interface
    """With that of the mesh's ULA prefix."""
    fwmark: int = 0


def device_from_plan(
    plan: MeshPlan,
    local: LocalInterface,
    endpoints: Mapping[NodeId, str | None],
    left_out: Collection[str] = (),
    mtus: PlannedMtus | None = None,
    absent: Collection[WireGuardKey] = (),
    mute: Collection[NodeId] = (),
    successors: Callable[[NodeId], WireGuardKey | None] = lambda node: None,
) -> DesiredDevice:
    """Returns what the interface shall hold. ``endpoints`` has the ready peers only; None: ready, but
    nowhere to go. ``left_out`` are LANs that this machine must not route: it takes nothing from them,
    either. ``absent`` are peers that the interface is to forget, sessions and all, until they come back;
    ``mute`` are those whose tunnels answer nothing; ``successors`` returns the key that a peer changes to."""
    mtus = mtus or PlannedMtus(device=local.mtu)
    peers: list[DesiredPeer] = []
    for planned in plan.peers:
        if planned.public_key in absent:
            continue
        endpoint = endpoints.get(planned.node)
        peers.append(
            DesiredPeer(
                public_key=planned.public_key,
                allowed_ips=tuple(one for one in planned.allowed_ips if one not in left_out),
                endpoint=endpoint,
                keepalive_s=planned.keepalive_s if endpoint else 0,
                mute=bool(endpoint) and planned.node in mute,
                successor=successors(planned.node),
            )
        )
    lans = [one for one in plan.routes if one not in left_out]
    addresses = (*((str(local.ipv4),) if local.ipv4 else ()), str(local.ipv6))
    return DesiredDevice(
        interface=local.interface,
        private_key=local.private_key,
        public_key=local.public_key,
        listen_port=local.listen_port,
        mtu=mtus.device,
        addresses=addresses,
        peers=tuple(peers),
        routes=tuple(sorted({*lans, *(one.prefix for one in mtus.routes)})),
        route_mtus=tuple(one for one in mtus.routes if one.mtu),
        fwmark=local.fwmark,
    )

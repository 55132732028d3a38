"""What a node is told about itself before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshpeer.core.identity.certificates import Authority
from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey
from meshpeer.core.paths.relay import RelayLimits
from meshpeer.core.records.ledger import Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What a node is told about itself. Keys are values here; where they rest is the adapters' business."""

    key: SigningKey
    chain: Chain
    wireguard_key: WireGuardPrivateKey
    next_wireguard_key: WireGuardPrivateKey | None = None
    """What this node was about to change to when it ended; None for nothing."""
    wireguard_port: int
    """0 for a node without an interface."""
    interface: str
    control_port: int
    name: str
    region: str
    roles: tuple[str, ...]
    hub: str
    configured_endpoint: bool
    fwmark: int = 0
    """Of WireGuard's own packets; 0 for none."""
    pads_to_device: bool = False
    """WireGuard is a program: it pads packets up to the interface's MTU, whatever the route's is."""
    issuer: Authority | None = field(repr=False)
    issuer_seed: bytes = field(default=b"", repr=False)
    """Of an issuer's key that this node keeps and that no root may have signed yet."""
    advertise: tuple[str, ...] = ()
    """LANs behind this machine that its owner wants the mesh to reach."""
    masquerade: bool = True
    relay: RelayLimits | None = None
    """What this node lends to pairs that can't meet directly; None for nothing."""
    unable_to_forward: str = ""
    """Why this machine can't pass on packets; empty where it can."""
    spare: bool = False
    """Whether this node looks whether its tunnels answer, and asks members to carry links to those that it
    can't dial."""
    forwarded: tuple[str, ...] = ()
    """Control addresses that a program of the user's, such as ``ssh -L``, forwards to a member."""

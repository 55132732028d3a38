"""What the planner may look at: reconciled facts about members, and nothing that only this node saw."""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.records.kinds import HubReport, RegionDistance


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """One member that is in, with its resolved name and addresses."""

    node: NodeId
    name: str
    region: str
    wireguard_key: WireGuardKey
    ipv4: str
    """Empty where it has none (yet)."""
    ipv6: str
    hub: str = "allow"
    """``prefer``, ``allow`` or ``never``: whether its owner wants it to carry others' traffic."""
    public: bool = False
    """It says that it can be reached from anywhere: a configured endpoint, or a public address of its own."""
    doubted: bool = False
    """Its observers say, in signed facts, that it is gone."""
    warm: bool = False
    """It says that it has the tunnels of a hub: traffic can be moved to it at once."""
    incarnation: int = 0
    """Of its record: raised whenever it starts."""
    mode: str = ""
    """Which way it derives the mesh (``full`` or ``regional``); empty where it doesn't say."""
    lans: tuple[str, ...] = ()
    """Prefixes behind it that it leads to, and nobody else; sorted. They go wherever its addresses go."""
    reports: tuple[HubReport, ...] = ()
    """The hubs that carry nothing for it, as it says."""
    answers: int = 0
    """By which families it is known to answer probes: 1 is IPv4, 2 is IPv6."""
    distances: tuple[RegionDistance, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshView:
    """The mesh as every node with the same facts sees it; members in node id order."""

    subnet: str
    topology: str
    """``auto``, ``full`` or ``regional``."""
    keepalive_s: int
    mtu: int
    hubs: int = 1
    """Active hubs per region."""
    members: tuple[MemberView, ...]

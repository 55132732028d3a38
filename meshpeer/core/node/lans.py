"""Advertised LANs as one node sees them: what it offers itself, whose tunnel leads to which, and which it
must not route.

What leads where is derived from facts alone, so that both ends of every tunnel agree. Only this machine's own
interface depends on its own network: a LAN that meets one of its networks is left out, whole, and so is one
that holds the very address by which the tunnel towards it runs (tunnel in tunnel).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from meshpeer.core.addressing.lans import conflict_of, devices_towards, network_of, resolve_lans
from meshpeer.core.addressing.overlap import Route
from meshpeer.core.addressing.ula import mesh_prefix
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.node.config import NodeConfig
from meshpeer.core.node.roster import Listed, Roster
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.routes import Network, may_advertise, meets
from meshpeer.core.topology.plan import MeshPlan, PlannedPeer
from meshpeer.core.wgconf.forwarding import LanExit
from meshpeer.core.wgconf.model import ObservedPeer, handshake_is_fresh


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """A LAN that this node's own settings name, and that it does not advertise."""

    prefix: str
    why: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A LAN behind another member that this machine does not route into its tunnels."""

    prefix: str
    node: NodeId
    why: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How this node reaches one peer's tunnel."""

    candidates: tuple[str, ...]
    observed: ObservedPeer | None


class Lans:
    """One node's advertised LANs. Sans-IO."""

    def __init__(self, *, mesh: MeshId, config: NodeConfig) -> None:
        self._mesh = mesh
        self._wanted = config.advertise
        self.masquerade = config.masquerade
        self.unable = config.unable_to_forward
        """Why this machine can't forward at all; empty while it can."""
        self.routes: tuple[Route, ...] = ()
        """This machine's own, without those into the mesh."""
        self.offered: tuple[str, ...] = ()
        """What this node advertises."""
        self.withheld: tuple[Withheld, ...] = ()
        self.left_out: tuple[LeftOut, ...] = ()
        self.contested = False
        """Two members lead to one LAN, so what is said of either matters."""
        self.holders: Mapping[str, NodeId] = {}
        """Who leads to each LAN of the mesh, this node's own among them."""

    def offer(self, identity: VerifiedIdentity | None, charter: CharterRecord | None) -> tuple[str, ...]:
        """Returns what this node's record is to advertise now."""
        if identity is None or charter is None:
            return self.offered
        faults = {lan: self._fault(lan, identity, charter) for lan in self._wanted}
        self.withheld = tuple(fault for fault in faults.values() if fault is not None)
        self.offered = tuple(lan for lan, fault in faults.items() if fault is None)
        return self.offered

    @property
    def exits(self) -> tuple[LanExit, ...]:
        """Returns the LANs behind this machine, and where they are."""
        return tuple(LanExit(prefix=lan, devices=devices_towards(lan, self.routes)) for lan in self.offered)

    def leave_out(
        self, plan: MeshPlan, ways: Callable[[PlannedPeer], Ways], now_unix_s: float, *, looked: bool
    ) -> frozenset[str]:
        """Returns the LANs of a plan that this machine must not route.

        ``looked``: what the interface holds is known; else nothing is concluded from its not showing an
        endpoint.
        """
        if not plan.routes:
            self.left_out = ()
            return frozenset()
        found = {peer.node: ways(peer) for peer in plan.peers}
        working = [endpoint for one in found.values() if (endpoint := _working(one, now_unix_s))]
        left: list[LeftOut] = []
        own: list[str] = []
        for peer in plan.peers:
            for lan in peer.allowed_ips:
                if lan not in self.holders:
                    continue
                if lan in self.offered:
                    own.append(lan)
                elif fault := self._in_the_way(lan, found[peer.node], working, looked):
                    left.append(fault)
        self.left_out = tuple(sorted(left, key=lambda one: one.prefix))
        return frozenset((*own, *(one.prefix for one in left)))

    # --- rules ----------------------------------------------------------------------------------------------

    def _fault(self, lan: str, identity: VerifiedIdentity, charter: CharterRecord) -> Withheld | None:
        if not may_advertise(identity, lan):
            return Withheld(
                prefix=lan,
                why="this node's certificate does not allow it",
                hint=f"let it leave, and join with an invite made by `meshpeer invite --route {lan}`",
            )
        met = [one for one in own_prefixes(self._mesh, charter) if meets(network_of(lan), (one,))]
        if met:
            return Withheld(
                prefix=lan,
                why=f"it overlaps {met[0]}, the mesh's own",
                hint="leave it out of [node] advertise",
            )
        if self.unable:
            return Withheld(
                prefix=lan, why=f"this machine can't forward: {self.unable}", hint="restart it when it can"
            )
        if not devices_towards(lan, self.routes):
            return Withheld(
                prefix=lan,
                why="no network or route of this machine leads there",
                hint="it is advertised once one does: see `ip route`",
            )
        return None

    def _in_the_way(self, lan: str, ways: Ways, working: Iterable[str], looked: bool) -> LeftOut | None:
        node, network = self.holders[lan], network_of(lan)
        if conflict := conflict_of(lan, self.routes):
            device = f" on {conflict.device}" if conflict.device else ""
            return LeftOut(
                prefix=lan,
                node=node,
                why=f"this machine has {conflict.prefix}{device} itself",
                hint="it is routed once that is gone",
            )
        inside = next((one for one in working if _lies_in(one, network)), "")
        if not inside and looked and ways.candidates:
            seen = ways.observed.endpoint if ways.observed and ways.observed.endpoint else ""
            known = (*ways.candidates, *((seen,) if seen else ()))
            inside = known[0] if all(_lies_in(one, network) for one in known) else ""
        if inside:
            return LeftOut(
                prefix=lan,
                node=node,
                why=f"a tunnel of this node runs to {inside}, which lies in it",
                hint="it is reached as before the mesh",
            )
        return None


def own_prefixes(mesh: MeshId, charter: CharterRecord) -> tuple[Network, ...]:
    """Returns the prefixes of the mesh itself."""
    return (ipaddress.IPv4Network(charter.subnet), mesh_prefix(mesh))


def holders_of(
    members: Iterable[Listed], own: Collection[Network], doubted: Collection[NodeId]
) -> dict[str, NodeId]:
    """Returns who leads to each advertised LAN, from facts alone. ``members`` are those with tunnels."""
    claims = [one.claim(lan) for one in members for lan in one.record.routes]
    return resolve_lans(claims, mesh=own, doubted=doubted)


def is_contested(roster: Roster) -> bool:
    """Says whether two members lead to one LAN."""
    seen: set[str] = set()
    for one in roster.members:
        if not seen.isdisjoint(one.record.routes):
            return True
        seen.update(one.record.routes)
    return False


def _working(ways: Ways, now_unix_s: float) -> str:
    seen = ways.observed
    if seen is None or not handshake_is_fresh(seen.latest_handshake_unix_s, now_unix_s):
        return ""
    return seen.endpoint or ""


def _lies_in(endpoint: str, network: Network) -> bool:
    try:
        address = ipaddress.ip_address(endpoint.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return address.version == network.version and address in network

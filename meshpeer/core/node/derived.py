"""What follows from the facts and opinions of the moment: names and addresses, whom to be linked to, the
interface.

Readings only: nothing here decides who is in or alive, and every value can be made anew at any time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.carriers import address_over, choose_carriers
from meshpeer.core.membership.detector import Detector
from meshpeer.core.membership.links import Links
from meshpeer.core.membership.opinions import State
from meshpeer.core.membership.overlay import Overlay
from meshpeer.core.membership.suspicions import needed_observers
from meshpeer.core.node.channels import Channels
from meshpeer.core.node.lans import is_contested, own_prefixes
from meshpeer.core.node.layout import Layout, make_layout
from meshpeer.core.node.roster import Roster, ipv6_of, make_roster
from meshpeer.core.node.tunnels import Tunnels
from meshpeer.core.paths.path_mtus import USUAL_MTU
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.scheduler.messages import PeerView
from meshpeer.core.topology.mode import FULL, declared, mode_of
from meshpeer.core.wgconf.model import DesiredDevice

DEFAULT_CONTROL_PORT = "51821"
DOUBT_LASTS_S = 10.0
"""How long a single observer's suspicion stands before it costs a member its place as a hub."""


@dataclass(slots=True)
class Derived:
    """Reads the machines of one node."""

    ledger: Ledger
    links: Links
    overlay: Overlay
    detector: Detector
    tunnels: Tunnels
    channels: Channels | None = None
    desired: DesiredDevice | None = None
    """What the interface shall hold, as it was last asked for."""
    deadline: Deadline | None = None
    """When the interface has to be derived anew without any news."""
    _roster: Roster = field(default_factory=lambda: Roster((), {}))
    _roster_of: object = None
    _layout: Layout | None = None
    _layout_of: object = None

    @property
    def roster(self) -> Roster:
        """Returns names and addresses as the facts have them now; made when they are asked for."""
        key, dead = self._roster_key(), self.detector.dead
        if key != self._roster_of:
            self._roster = self.ledger.judge.shared(key, lambda: make_roster(self.ledger, dead=dead))
            self._roster_of = key
        return self._roster

    @property
    def depends_on_doubts(self) -> bool:
        """Says whether what members say of each other decides who is a hub, or who leads to a LAN."""
        charter = self.ledger.charter
        return charter is not None and (charter.topology != FULL or self.tunnels.lans.contested)

    def routes(self) -> tuple[str, ...]:
        """Returns the LANs that this node's record is to advertise."""
        mine = self.ledger.get(self.ledger.me) if self.ledger.me else None
        best = mine.best if mine else None
        return self.tunnels.lans.offer(best.identity if best else None, self.ledger.charter)

    def device(self, now: Instant) -> DesiredDevice | None:
        """Returns what the interface shall hold where that is something new."""
        if self.ledger.charter is None:
            return None
        self.tunnels.lans.contested = is_contested(self.roster)
        doubted, again = self.doubted(now)
        device = self.tunnels.device(
            self.roster,
            self.ledger.charter,
            self.layout(self.ledger.charter, doubted),
            link_remote=self.links.remote_of,
            gone=self.detector.dead,
            hurried=self.channels.hurried(now) if self.channels else (),
            now=now,
        )
        self.deadline = earliest(self.tunnels.next_deadline(now), again)
        if device is None or device == self.desired:
            return None
        self.desired = device
        return device

    def layout(self, charter: CharterRecord, doubted: Collection[NodeId]) -> Layout:
        """Returns what all nodes with this one's facts derive alike."""
        key = ("layout", self._roster_key(), tuple(sorted(doubted)))
        if key != self._layout_of:
            own = own_prefixes(self.ledger.mesh, charter)
            self._layout = self.ledger.judge.shared(
                key, lambda: make_layout(self.roster, charter, doubted, own)
            )
            self._layout_of = key
        assert self._layout is not None
        return self._layout

    @property
    def charter_mtu(self) -> int:
        """Returns the MTU that the charter says."""
        return self.ledger.charter.mtu if self.ledger.charter else USUAL_MTU

    def mode(self, before: str) -> str:
        """Returns what this node's record is to say of the mesh's mode; ``before`` is what it says."""
        charter = self.ledger.charter
        if charter is None:
            return before
        members = self.roster.members
        mode = (
            self.tunnels.plan.mode
            if self.desired
            else mode_of(charter.topology, [one.record.mode for one in members])
        )
        return declared(charter.topology, mode, len(members), before)

    def targets(self, now: Instant) -> dict[NodeId, tuple[str, ...]]:
        """Returns whom to keep links to, with their addresses, best first."""
        return {node: self._addresses_of(node) for node in self.overlay.wanted(now)}

    def views(self) -> tuple[PeerView, ...]:
        """Returns whom the scheduler hears of: those that it can talk to, and those that may hold work and
        are gone."""
        nodes = sorted({*self.links.peers, *self.detector.unusual})
        roster = self.roster
        return tuple(
            PeerView(
                node=node,
                alive=opinion.state is State.ALIVE,
                linked=self.links.link_to(node) is not None,
                region=member.record.region,
                dead=opinion.state is State.DEAD,
                name=listed.name if (listed := roster.get(node)) else member.record.name,
                roles=member.record.roles,
                rtt_s=self.detector.rtt_s(node) or 0.0,
            )
            for node in nodes
            if (member := self.ledger.get(node)) is not None
            and member.record is not None
            and member.is_in
            and (opinion := self.detector.opinion(node)) is not None
        )

    def carriers(self, target: NodeId) -> tuple[str, ...]:
        """Returns the carriers to ask for a link to a member, as addresses of a dial; nobody for who is
        dead."""
        opinion = self.detector.opinion(target)
        if self.channels is None or opinion.state is State.DEAD:
            return ()
        chosen = choose_carriers(
            self.ledger.me or target,
            target,
            linked=[one for one in self.links.peers if self.links.carrier_of(one) is None],
            may_carry=lambda node: self.ledger.may(node, Capability.RELAY),
            voucher=opinion.voucher,
            neighbours=self.overlay.observers(target),
        )
        return tuple(address_over(one, target) for one in chosen)

    def is_reached(self, node: NodeId) -> bool:
        """Says whether the mesh reaches a member: this node is linked to somebody, and nobody reports the
        member gone."""
        return bool(self.links.peers) and self.ledger.is_in(node) and node not in self.detector.unusual

    def doubted(self, now: Instant) -> tuple[set[NodeId], Deadline | None]:
        """Returns whose observers say that they are gone, from signed facts alone: enough of them, or one for
        a while; and when that may change without news. What this node itself sees must not count, since plans
        would differ. Nobody, where no plan depends on it."""
        doubted: set[NodeId] = set()
        deadline: Deadline | None = None
        for one in self.roster.members if self.depends_on_doubts else ():
            member = self.ledger.get(one.node)
            said = [
                suspicion.issued_at
                for suspicion in (member.suspicions if member else ())
                if self.overlay.entitled(suspicion.observer, one.node)
            ]
            if not said:
                continue
            left_s = min(said) + DOUBT_LASTS_S - now.unix_s
            if left_s <= 0 or len(said) >= needed_observers(len(self.overlay.observers(one.node))):
                doubted.add(one.node)
            else:
                deadline = earliest(deadline, Deadline(now.mono_s + left_s, "a member is doubted for long"))
        return doubted, deadline

    def _roster_key(self) -> tuple[object, ...]:
        """Returns what the roster is made of."""
        dead = tuple(sorted(self.detector.dead))
        return ("roster", self.ledger.mesh, self.ledger.fingerprint, dead)

    def _addresses_of(self, node: NodeId) -> tuple[str, ...]:
        member = self.ledger.get(node)
        if member is None or member.record is None:
            return ()
        endpoints = member.record.control_endpoints
        observed = self.tunnels.observed_peer(member.record.wireguard_key)
        if not observed or not observed.latest_handshake_unix_s:
            return endpoints
        if self.channels is not None and self.channels.is_silent(node):
            return endpoints
        port = endpoints[0].rpartition(":")[2] if endpoints else DEFAULT_CONTROL_PORT
        return (*endpoints, f"[{ipv6_of(self.ledger.mesh, node)}]:{port}")

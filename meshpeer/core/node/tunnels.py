"""Tunnels: from the roster to the interface this node wants, with an endpoint for every peer that is ready
for one.

How a peer comes in, and to its endpoint, is up to ``entries``; which pairs move, and when, to
``topology.moves``; a tunnel that goes by a relay has its endpoint from its pair (``relayed``).
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Collection, Mapping

from meshpeer.core.addressing.ula import mesh_prefix
from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.node.entries import Entries
from meshpeer.core.node.lans import Lans, Ways
from meshpeer.core.node.layout import Layout
from meshpeer.core.node.looks import TunnelLook, look_at
from meshpeer.core.node.messages import Applied, Forward
from meshpeer.core.node.roster import Listed, Roster
from meshpeer.core.node.successors import Successors
from meshpeer.core.paths.endpoints import Candidate, Source, lacks_family, rank_candidates
from meshpeer.core.paths.reflections import Reflections, SeenAt
from meshpeer.core.paths.relayed import RelayedPath
from meshpeer.core.paths.relayed_look import Phase
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.topology.device import LocalInterface, device_from_plan
from meshpeer.core.topology.moves import MoveMessage, Moves, Surroundings
from meshpeer.core.topology.mtus import plan_mtus
from meshpeer.core.topology.plan import MeshPlan, Routes
from meshpeer.core.topology.warmth import Place, Warmth
from meshpeer.core.wgconf.forwarding import NOTHING, DesiredForwarding
from meshpeer.core.wgconf.model import DesiredDevice, ObservedDevice, ObservedPeer, tunnel_works
from meshpeer.core.wire.limits import MEMBERS_MAX

LINGER_S = 120.0
"""A tunnel that the plan has no use for any more is kept for so long: a hub that comes back is there at
once."""
RANKINGS_REMEMBERED = 16_384
"""Every change of any member asks for all rankings anew."""

_Ranking = tuple[Listed, tuple[str, ...], tuple[str, tuple[str, ...], tuple[str, ...]], tuple[Candidate, ...]]
_ranked = functools.lru_cache(maxsize=RANKINGS_REMEMBERED)(rank_candidates)


class Tunnels:
    """Derives the desired interface; remembers which peers confirmed. Sans-IO."""

    def __init__(
        self,
        *,
        mesh: MeshId,
        me: NodeId,
        key: WireGuardPrivateKey,
        interface: str,
        port: int,
        lans: Lans,
        fwmark: int = 0,
        pads_to_device: bool = False,
    ) -> None:
        self.lans = lans
        self.mtus: Mapping[NodeId, int] = {}
        """Those of the peers of whose path one is known."""
        self._pads_to_device = pads_to_device
        self._mesh = mesh
        self._me = me
        self._key = key
        self._interface = interface
        self._port = port
        self._fwmark = fwmark
        self._entries = Entries(me)
        self._rankings: dict[NodeId, _Ranking] = {}
        """Each member's own endpoints as they were ranked last, and what from."""
        self._attached: tuple[str, ...] = ()
        self._routed: tuple[str, ...] = ()
        self.observed: ObservedDevice | None = None
        self._held: dict[WireGuardKey, ObservedPeer] = {}
        self.successors = Successors()
        """The next keys of peers that change theirs."""
        self.plan = MeshPlan(mode="full", peers=())
        self.routes: Routes | None = None
        """What the plan was made from; None before the first."""
        self.moves = Moves(me)
        self.reflections = Reflections()
        self.relayed: dict[NodeId, RelayedPath] = {}
        """The pairs of this node for which a relay may be used; kept by ``Relays``."""
        self.mute: Collection[NodeId] = ()
        """Whose tunnels shook hands lately and answer nothing; kept by ``Watch``."""
        self.looks = 0
        """How often the interface was looked at."""
        self._keys: dict[NodeId, WireGuardKey] = {}
        self._overlay: tuple[str, ...] = ()
        self.inside: tuple[str, ...] = ()
        """All prefixes that go into the interface."""
        self._forwarded: DesiredForwarding | None = None
        """What is passed on; None before the first plan: an agent before this one may have left it on."""
        self._warmth = Warmth()
        self._lingering: dict[NodeId, float] = {}
        """Until when tunnels stay that the plan does without (monotonic)."""

    # --- events ---------------------------------------------------------------------------------------------

    def attached(self, prefixes: tuple[str, ...], routed: tuple[str, ...] = ()) -> None:
        """Sets the prefixes of this machine's own networks, with its addresses there, and those that it
        routes into the interface, whoever said so."""
        self._attached, self._routed = prefixes, routed

    def on_applied(self, message: Applied, now: Instant) -> None:
        if message.receiver_key == self._key.public:
            self._entries.on_word(message.sender_key, now)

    def rekey(self, key: WireGuardPrivateKey) -> None:
        """Sets this node's own key; peers are told of it, as if they had been let in just now."""
        self._key = key
        self._entries.tell_again()

    def on_observed(self, device: ObservedDevice | None, now: Instant) -> None:
        self.observed = device
        self.looks += 1
        self.successors.on_observed(device, now)
        self._held = self.successors.held(now)
        if device is None:
            self._entries.tell_again()

    def on_link(self, node: NodeId) -> None:
        """A new link: tell the peer again what this interface holds."""
        self.moves.on_link(node)
        self.reflections.on_link(node)
        self.successors.on_link(node)
        self._entries.tell_again(node)

    def words(self, now: Instant) -> list[tuple[NodeId, Applied]]:
        """Returns what to tell peers whose keys the interface holds and who have not been told."""
        words = self._entries.words(self._held, self._key.public, now)
        return words + self.successors.words(self._key.public, now)

    def seen(self, linked: Callable[[NodeId], bool], now: Instant) -> list[tuple[NodeId, SeenAt]]:
        """Returns whom to tell where its packets come from."""
        held = [
            (node, self._held[key])
            for node, key in self._entries.key_of.items()
            if key in self._held and not self.goes_through_relay(node)
        ]
        return self.reflections.words(held, linked, now)

    def reflected(self, own: tuple[str, ...], now: Instant) -> tuple[tuple[str, ...], str]:
        """Returns what this node's record is to say of how others see it: endpoints, and its router.

        ``own`` are the endpoints that it publishes anyway."""
        return self.reflections.published(own, self._overlay, now)

    # --- derivation -----------------------------------------------------------------------------------------

    def device(
        self,
        roster: Roster,
        charter: CharterRecord,
        layout: Layout,
        *,
        link_remote: Callable[[NodeId], str],
        gone: Collection[NodeId] = (),
        hurried: Collection[NodeId] = (),
        now: Instant,
    ) -> DesiredDevice | None:
        """Returns what the interface shall hold now; None before this node is in the roster itself.

        ``gone`` are those that this node itself believes to be: a hub waits for no tunnel to them, nor to
        those that are doubted. ``hurried`` are those who live and whose tunnels answer nothing.
        """
        mine = roster.get(self._me)
        if mine is None:
            return None
        self.lans.holders = layout.holders
        routes = Routes(layout.shape, self._me)
        self._keys = {one.node: one.wireguard_key for one in routes.members}
        # Before moves look at tunnels, or one that went over to another key would seem to have ended.
        self._follow_keys(routes, roster, mine, now)
        around = Surroundings(tunnel=self._tunnel_to, keepalive_s=charter.keepalive_s, idle_s=charter.idle_s)
        held = self.moves.update(routes, around, now)
        wanted = routes.tunnels | held.direct
        self._let_linger(wanted, now)
        was_hub = self._forwarded is not None and self._forwarded.hub
        self.plan = routes.plan(held, forwarded=was_hub, lingering=self._lingering.keys())
        self.routes = routes
        gone = {*gone, *(one.node for one in routes.members if one.doubted)}
        works = [
            tunnel_works(self._tunnel_to(node), now.unix_s) for node in sorted(wanted) if node not in gone
        ]
        self._warmth.update(_place_of(routes, self._me), works, now)
        overlay = self._overlay = (charter.subnet, str(mesh_prefix(self._mesh)))
        endpoints: dict[NodeId, str | None] = {}

        def candidates_of(node: NodeId, forbidden: tuple[str, ...]) -> tuple[str, ...]:
            ranked = self._candidates(roster.get(node), link_remote(node), forbidden)
            return tuple(one.endpoint for one in ranked)

        left_out = self.lans.leave_out(
            self.plan,
            lambda peer: Ways(
                candidates=candidates_of(peer.node, overlay), observed=self._held.get(peer.public_key)
            ),
            now.unix_s,
            looked=self.observed is not None,
        )
        # What goes into a tunnel must not carry one.
        routed = (*self._routed, *(one for one in self.plan.routes if one not in left_out))
        inside = self.inside = tuple(dict.fromkeys((*overlay, *routed)))
        absent: set[WireGuardKey] = set()
        # Where a relay is in use its pair looks after the endpoint.
        mute = [node for node in self.mute if self._tries_itself(node)]
        for planned in self.plan.peers:
            entry = self._entries.enter(planned.node, planned.public_key, now)
            observed = self._held.get(planned.public_key)
            relayed = self.relayed.get(planned.node)
            ranked = self._candidates(roster.get(planned.node), link_remote(planned.node), inside)
            candidates = tuple(one.endpoint for one in ranked)
            direct = relayed is None or relayed.phase in (Phase.DIRECT, Phase.HELD)
            if relayed is not None and relayed.phase is Phase.TRIAL:
                direct = not relayed.waits(now)
            if relayed is not None and not direct:
                end = relayed.endpoint(now)
                if relayed.absent:
                    absent.add(planned.public_key)
                elif end is not None:
                    endpoints[planned.node] = entry.endpoint((end,), observed, now, idle=candidates)
                continue
            entry.choice.hurried = planned.node in hurried
            if entry.is_ready(ranked, now):
                endpoints[planned.node] = entry.endpoint(candidates, observed, now, mute=planned.node in mute)
        self._entries.keep({planned.public_key for planned in self.plan.peers})
        mtus = plan_mtus(
            self.plan,
            members=routes.members,
            found=self.mtus,
            usual=charter.mtu,
            mesh=overlay,
            pads_to_device=self._pads_to_device,
            left_out=left_out,
        )
        return device_from_plan(
            self.plan,
            self._local(charter, mine),
            endpoints,
            left_out,
            mtus,
            absent,
            mute,
            successors=self.successors.of,
        )

    @property
    def is_warm(self) -> bool:
        """Says whether this node is a hub, or stands by, and has the tunnels that this takes."""
        return self._warmth.warm

    def forward_change(self) -> Forward | None:
        """Returns what to pass on from now on, where that is something new."""
        exits, hub = self.lans.exits, self.plan.forwards
        wanted = NOTHING
        if hub or exits:
            wanted = DesiredForwarding(
                mesh=self._overlay,
                hub=hub,
                lans=self.plan.routes if hub else (),
                exits=exits,
                masquerade=self.lans.masquerade,
            )
        if wanted == self._forwarded:
            return None
        self._forwarded = wanted
        return Forward(forwarding=wanted)

    def offers(self, linked: Callable[[NodeId], bool], now: Instant) -> list[tuple[NodeId, MoveMessage]]:
        """Returns what to say to whom about pairs that have to move."""
        return self.moves.offers(linked, now)

    def next_deadline(self, now: Instant) -> Deadline | None:
        return earliest(
            *self._entries.next_deadlines(),
            self.moves.next_deadline(now),
            self._warmth.next_deadline(now),
            self.reflections.next_deadline(),
            Deadline(min(self._lingering.values()), "a tunnel lingered") if self._lingering else None,
        )

    def _tunnel_to(self, node: NodeId) -> ObservedPeer | None:
        key = self._keys.get(node)
        return self._held.get(key) if key else None

    def _tries_itself(self, node: NodeId) -> bool:
        """Says whether a member's endpoints are tried, and no relay is in use."""
        relayed = self.relayed.get(node)
        return relayed is None or relayed.phase is Phase.DIRECT

    def goes_through_relay(self, node: NodeId) -> bool:
        """Says whether the tunnel to a member leads to a relay."""
        relayed, peer = self.relayed.get(node), self._tunnel_to(node)
        return relayed is not None and peer is not None and relayed.goes_through(peer.endpoint)

    def candidates(self, listed: Listed, link_remote: str) -> tuple[Candidate, ...]:
        """Returns a member's own endpoints, best first."""
        return self._candidates(listed, link_remote, self.inside)

    def tries(self, node: NodeId) -> bool:
        """Says whether the interface has an endpoint to try for a member."""
        entry = self._entries.get(self._keys[node]) if node in self._keys else None
        return entry is not None and entry.choice.chosen is not None

    def look(
        self, listed: Listed, link_remote: str, now: Instant, silent_since_unix_s: float | None = None
    ) -> TunnelLook | None:
        """Returns all that is known here of the tunnel to a member; None where there is to be none.

        ``silent_since_unix_s``: since when nothing answers in it, where somebody has looked."""
        entry = self._entries.get(listed.record.wireguard_key)
        if entry is None or entry.node != listed.node:
            return None
        relayed = self.relayed.get(listed.node)
        end = relayed.endpoint(now) if relayed else None
        return look_at(
            listed.node,
            observed=self._held.get(listed.record.wireguard_key),
            candidates=(
                *((Candidate(end, Source.RELAY),) if end else ()),
                *self._candidates(listed, link_remote, self.inside),
            ),
            choice=entry.choice,
            ready=now.mono_s >= entry.ready_at_s,
            silent_since_unix_s=silent_since_unix_s,
            now=now,
            apart=lacks_family(listed.record.wireguard_endpoints, self._attached),
        )

    def shook_hands(self, node: NodeId) -> bool:
        """Says whether the tunnel to a member ever worked."""
        peer = self._tunnel_to(node)
        return peer is not None and peer.latest_handshake_unix_s > 0

    def take_moved(self) -> list[NodeId]:
        """Returns whose endpoints changed while their tunnels worked, since this was asked last."""
        return self._entries.take_moved()

    def observed_peer(self, key: WireGuardKey) -> ObservedPeer | None:
        return self._held.get(key)

    @property
    def held(self) -> Mapping[WireGuardKey, ObservedPeer]:
        """The peers that the interface holds, by the keys that their records show."""
        return self._held

    # --- rules ----------------------------------------------------------------------------------------------

    def _follow_keys(self, routes: Routes, roster: Roster, mine: Listed, now: Instant) -> None:
        """Takes the keys of those that have a tunnel or get one, and the next ones of those that change
        theirs: a tunnel that went over to another key is the same tunnel."""
        own = {self._key.public, mine.record.wireguard_key, WireGuardKey(mine.record.next_wireguard_key)}
        around = routes.tunnels.union(one.node for one in self.plan.peers)
        peers = {node: key for node, key in self._keys.items() if node in around}
        for before, key in self.successors.follow(roster.members, peers, own, now):
            self._entries.follow(before, key)
            self._held = self.successors.held(now)

    def _let_linger(self, wanted: Collection[NodeId], now: Instant) -> None:
        """Remembers whose tunnels the plan has no use for any more."""
        for planned in self.plan.peers:
            if planned.node not in wanted:
                self._lingering.setdefault(planned.node, now.mono_s + LINGER_S)
        self._lingering = {
            node: until
            for node, until in self._lingering.items()
            if node not in wanted and until > now.mono_s
        }

    def _candidates(
        self, listed: Listed | None, link_remote: str, overlay: tuple[str, ...]
    ) -> tuple[Candidate, ...]:
        if listed is None:
            return ()
        held, of = self._rankings.get(listed.node), (link_remote, overlay, self._attached)
        # Asked for at every look at a pair, and changed by little: what is equal is the same object, mostly.
        if held is not None and held[0] is listed and held[1] is self.reflections.shown_now and held[2] == of:
            return held[3]
        ranked = self._rank(listed, link_remote, overlay)
        if len(self._rankings) >= MEMBERS_MAX:
            self._rankings.clear()
        self._rankings[listed.node] = (listed, self.reflections.shown_now, of, ranked)
        return ranked

    def _rank(self, listed: Listed, link_remote: str, overlay: tuple[str, ...]) -> tuple[Candidate, ...]:
        return _ranked(
            advertised=listed.record.wireguard_endpoints,
            reflected=listed.record.reflected_endpoints,
            configured=listed.record.configured_endpoint,
            link_remote=link_remote,
            port=listed.record.wireguard_port,
            attached=self._attached,
            overlay=overlay,
            mine=self.reflections.shown_now,
            my_port=self._port,
        )

    def _local(self, charter: CharterRecord, mine: Listed) -> LocalInterface:
        subnet, prefix = ipaddress.IPv4Network(charter.subnet), mesh_prefix(self._mesh)
        return LocalInterface(
            interface=self._interface,
            private_key=self._key.secret,
            public_key=self._key.public,
            listen_port=self._port,
            mtu=charter.mtu,
            fwmark=self._fwmark,
            ipv4=ipaddress.IPv4Interface((mine.ipv4, subnet.prefixlen)) if mine.ipv4 else None,
            ipv6=ipaddress.IPv6Interface((mine.ipv6, prefix.prefixlen)),
        )


def _place_of(routes: Routes, me: NodeId) -> Place | None:
    """Returns what this node is in its cell; None where it is no hub."""
    cell = routes.cell
    if cell is None or me not in {hub.node for hub in cell.hubs}:
        return None
    return Place(active=routes.carries(me), hubs_are_warm=all(hub.warm for hub in cell.active))

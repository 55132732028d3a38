"""Relays: lends this node's ports to pairs of others, and finds relays for its own pairs.

Joins strangers: ``paths.relay`` is the desk, ``paths.relayed`` one end of a pair, ``lenders`` says which
members relay which pair. The plan says which pairs there are, the detector who seems alive.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Send, Tick
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.opinions import State
from meshpeer.core.node.config import NodeConfig
from meshpeer.core.node.derived import Derived
from meshpeer.core.node.lenders import Lenders
from meshpeer.core.node.roster import Listed
from meshpeer.core.node.successors import next_keys
from meshpeer.core.node.underlay import Underlay
from meshpeer.core.node.why import RelayReason
from meshpeer.core.paths.direct_trial import TrialMeant
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.relay import RelayDesk, RelayLimits, is_pair
from meshpeer.core.paths.relay_binding import SECRET_BYTES
from meshpeer.core.paths.relay_messages import (
    MoveEndpoint,
    RelayAble,
    RelayAnswer,
    RelayAsked,
    RelayEffect,
    RelayMembersShown,
    RelayMessage,
    RelayNews,
    RelayRefusal,
    RelayRefused,
    RelayRequest,
    RelayRequested,
    RelayStops,
    RelayWilling,
)
from meshpeer.core.paths.relayed import RelayedPath
from meshpeer.core.paths.relayed_look import PairLook, Said
from meshpeer.core.topology.plan import PlannedPeer
from meshpeer.core.wgconf.model import tunnel_works

RelayWord = RelayMessage | TrialMeant
"""What members say to each other about relays."""


class Relays:
    """Both sides of relaying, for one node. Sans-IO."""

    def __init__(
        self,
        config: NodeConfig,
        derived: Derived,
        underlay: Underlay,
        *,
        counters: Counters,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._me = config.key.public
        self._probes, self._bindings = underlay.probes, underlay.bindings
        self._counters = counters
        self._limits = config.relay or RelayLimits(ports=())
        self._derived = derived
        self._tunnels = derived.tunnels
        bind_key = entropy(SECRET_BYTES) if self._limits.ports else b""
        self.desk = RelayDesk(self._me, self._limits, counters, bind_key=bind_key)
        self.unable = ""
        """Why this machine can't relay, although it should; empty while it can."""
        self.stops = False
        """This node is about to stop: pairs that it relays go elsewhere."""
        self.has_news = False
        """A pair took up a relay, or left one: the interface has to follow."""
        self._members: object = None
        self._lenders = Lenders(self._me, derived)

    @property
    def lends(self) -> bool:
        """Says whether this node lends ports: its settings, its certificate and its machine allow it."""
        allowed = self._derived.ledger.may(self._me, Capability.RELAY)
        return bool(self._limits.ports) and allowed and not self.unable and not self.stops

    def via(self, node: NodeId) -> NodeId | None:
        """Returns the relay that the tunnel to a member goes through; None where it is direct."""
        relayed = self._tunnels.relayed.get(node)
        return relayed.used if relayed is not None and self._tunnels.goes_through_relay(node) else None

    def why(self, node: NodeId) -> RelayReason | None:
        """Returns what a relay has to do with the tunnel to a member; None where nothing."""
        relayed = self._tunnels.relayed.get(node)
        mine, listed = self._derived.roster.get(self._me), self._derived.roster.get(node)
        if relayed is None or mine is None or listed is None:
            return None
        via = self.via(node)
        outlook = self._lenders.outlook(
            mine, listed, self._tunnels.candidates(listed, self._derived.links.remote_of(node))
        )
        if via is None and relayed.asking is None and outlook is not Outlook.HOPELESS:
            return None
        return RelayReason(
            node=node,
            relay=via,
            asked=relayed.asking,
            hopeless=outlook is Outlook.HOPELESS,
            lenders=len(relayed.lent.hosts),
            shut=self._lenders.shut_among(relayed.lent.hosts),
        )

    # --- events ---------------------------------------------------------------------------------------------

    def on_message(self, peer: NodeId, message: RelayWord, now: Instant) -> list[RelayEffect]:
        """Takes what a member says: as a relay of a pair of this node, as its other end, or as an end that
        this node relays."""
        if isinstance(message, TrialMeant):
            return self._on_meant(peer, now)
        pair = message.pair
        if isinstance(message, RelayAnswer) and self._me in pair:
            other = pair[1] if pair[0] == self._me else pair[0]
            relayed = self._tunnels.relayed.get(other)
            if relayed is not None:
                relayed.on_message(peer, message, now)
            return []
        if not isinstance(message, RelayRequest):
            return []
        if isinstance(message, RelayAsked) and not self.lends and is_pair(pair) and peer in pair:
            # The desk knows ports and quotas; settings, certificate and machine are known here. What is no
            # pair is the desk's, too: an answer repeats the pair's name, and another has any length.
            return [Send(peer=peer, message=RelayRefused(pair=pair, reason=RelayRefusal.CLOSED.value))]
        return self.desk.handle(RelayRequested(peer=peer, message=message), now)

    def _on_meant(self, peer: NodeId, now: Instant) -> list[RelayEffect]:
        """A member means to try direct with this node, instead of their relay."""
        relayed = self._tunnels.relayed.get(peer)
        answer = relayed.on_meant(now) if relayed is not None else None
        return [Send(peer=peer, message=answer)] if answer is not None else []

    def on_event(self, event: RelayNews, now: Instant) -> list[RelayEffect]:
        if isinstance(event, RelayAble):
            self.unable = event.fault
            return []
        if isinstance(event, RelayStops):
            self.stops = True
            return self.desk.handle(RelayWilling(willing=False), now)
        return self.desk.handle(event, now)

    def shut(self, now: Instant) -> list[RelayEffect]:
        """Takes back at once what this node lends: it was shut out of the mesh."""
        self._members = None
        return self.desk.handle(RelayMembersShown(members=()), now)

    def follow(self, now: Instant, rests: Collection[NodeId] = ()) -> list[RelayEffect]:
        """Brings both sides in step with the roster and the plan of the moment. ``rests``: peers that are
        not looked at, since nothing changed for them."""
        return [*self._follow_members(now), *self._follow_pairs(now, rests)]

    def links_wanted(self) -> list[NodeId]:
        """Returns the relays that this node has to be linked to."""
        wanted = [relay for one in self._tunnels.relayed.values() for relay in one.links_wanted]
        return list(dict.fromkeys(wanted))

    def next_deadline(self) -> Deadline | None:
        return earliest(
            self.desk.next_deadline(), *(one.next_deadline() for one in self._tunnels.relayed.values())
        )

    # --- for pairs of others --------------------------------------------------------------------------------

    def _follow_members(self, now: Instant) -> list[RelayEffect]:
        if not self._limits.ports:
            return []
        roster = self._derived.roster
        effects = self.desk.handle(RelayWilling(willing=self.lends), now)
        if roster is not self._members:
            self._members = roster
            members = tuple(
                (one.node, one.record.wireguard_key) for one in roster.members if one.record.wireguard_port
            )
            coming = tuple(next_keys(roster.members, ()).items())
            effects += self.desk.handle(RelayMembersShown(members=members, coming=coming), now)
        due = self.desk.next_deadline()
        if due is not None and now.mono_s >= due.at_s:
            effects += self.desk.handle(Tick(), now)
        return effects

    # --- for pairs of this node -----------------------------------------------------------------------------

    def _follow_pairs(self, now: Instant, rests: Collection[NodeId]) -> list[RelayEffect]:
        self.has_news = False
        roster, held = self._derived.roster, self._tunnels.relayed
        mine = roster.get(self._me)
        self._lenders.find()
        if mine is None or (not self._lenders.all and not held):
            return []
        planned = {one.node: one for one in self._tunnels.plan.peers}
        self._lenders.look(planned, now)
        said: list[RelayEffect] = []
        linked = self._linked()
        for node in [node for node in held if node not in planned]:
            over = held.pop(node)
            self._probes.aim(node, (), now)
            self._bindings.aim(node, None, now)
            said += _sends(
                over.update(PairLook(wanted=False, relays=self._lenders.choose(over), linked=linked), now)
            )
            self._lenders.forget(node)
        for peer in planned.values():
            listed = roster.get(peer.node)
            if listed is None or peer.node in rests:
                continue
            relayed = held.get(peer.node)
            if relayed is None:
                if self._is_well(peer, now):
                    continue
                relayed = held[peer.node] = RelayedPath(self._me, peer.node)
            before = (relayed.phase, relayed.used, relayed.endpoint(now))
            look = self._look(relayed, peer, listed, mine, linked, now)
            said += [*_sends(relayed.update(look, now)), *self._moves(relayed, peer)]
            self._aim(relayed, look, now)
            self._bind(relayed, look, now)
            after = (relayed.phase, relayed.used, relayed.endpoint(now))
            self.has_news = self.has_news or before != after
            self._lenders.note(relayed.reach.take_found(), now)
            moves, hops = relayed.take_counts()
            self._counters.add(Counter.RELAYS_USED, moves)
            self._counters.add(Counter.RELAY_HOPS, hops)
            if relayed.is_idle(now) and self._is_well(peer, now):
                del held[peer.node]
                self._lenders.forget(peer.node)
        return said

    def _moves(self, relayed: RelayedPath, peer: PlannedPeer) -> list[RelayEffect]:
        move = relayed.take_move()
        if move is None:
            return []
        key = self._tunnels.successors.in_use(peer.node, peer.public_key)
        return [MoveEndpoint(public_key=key, endpoint=move.endpoint, at_s=move.at_s)]

    def _is_well(self, peer: PlannedPeer, now: Instant) -> bool:
        """Says whether a tunnel works, and its endpoint is one of the peer's own for all that is known."""
        held = self._tunnels.observed_peer(peer.public_key)
        answers = tunnel_works(held, now.unix_s) and peer.node not in self._tunnels.mute
        return answers and self._lenders.through(held.endpoint if held else None) is None

    def _look(
        self,
        relayed: RelayedPath,
        peer: PlannedPeer,
        listed: Listed,
        mine: Listed,
        linked: frozenset[NodeId],
        now: Instant,
    ) -> PairLook:
        held = self._tunnels.observed_peer(peer.public_key)
        works = tunnel_works(held, now.unix_s)
        opinion = self._derived.detector.opinion(peer.node)
        own = self._tunnels.candidates(listed, self._derived.links.remote_of(peer.node))
        endpoint = held.endpoint if held else None
        named = any(one.endpoint == endpoint for one in own)
        strange = endpoint is not None and not named and not relayed.goes_through(endpoint)
        return PairLook(
            # Tunnels outlive agents: one that works keeps its relay.
            wanted=opinion.state is not State.DEAD or (relayed.used is not None and works),
            outlook=self._lenders.outlook(mine, listed, own),
            ways=tuple(one.endpoint for one in own),
            relays=self._lenders.choose(relayed),
            linked=linked,
            held=held,
            tells=self._derived.links.link_to(peer.node) is not None,
            alone=not self._derived.links.peers,
            tries=self._tunnels.tries(peer.node),
            mute=peer.node in self._tunnels.mute,
            probes=self._probes.able,
            checks=self._probes.able and self._bindings.has_room(peer.node),
            proved=self._proved(peer.node, now),
            leaving=relayed.used is not None and all(one.node != relayed.used for one in self._lenders.all),
            bound=self._bindings.answered(peer.node),
            through=self._lenders.through(endpoint) if strange else None,
        )

    def _aim(self, relayed: RelayedPath, look: PairLook, now: Instant) -> None:
        """Probes the ways of a pair that goes by a relay and may do without, or left it just now."""
        wanted = relayed.seeks(look, now)
        if wanted or self._probes.is_aimed(relayed.peer):
            self._probes.aim(relayed.peer, look.ways if wanted else (), now)

    def _bind(self, relayed: RelayedPath, look: PairLook, now: Instant) -> None:
        """Shows a relay that the pair goes over to where this node is."""
        shaken_unix_s = look.held.latest_handshake_unix_s if look.held else 0
        place = relayed.binding(shaken_unix_s) if look.probes else None
        usable = place is not None and self._probes.desk.may_carry(place.endpoint)
        self._bindings.aim(relayed.peer, place if usable else None, now)

    def _proved(self, node: NodeId, now: Instant) -> tuple[tuple[str, float], ...]:
        return tuple(
            (one.endpoint, one.answered_at_s)
            for one in self._probes.look(node, now)
            if one.both and one.answered_at_s is not None
        )

    def _linked(self) -> frozenset[NodeId]:
        links, unusual = self._derived.links, self._derived.detector.unusual
        kept = [node for relayed in self._tunnels.relayed.values() for node in relayed.kept]
        return frozenset(
            node
            for node in (*(one.node for one in self._lenders.all), *kept)
            if links.link_to(node) is not None and node not in unusual
        )


def _sends(said: Iterable[Said]) -> list[RelayEffect]:
    return [Send(peer=relay, message=message) for relay, message in said]

"""The node: every machine of one agent, behind two doors.

``handle`` takes one event and returns all that is to be done; ``next_deadline`` says when to come back.
Inside, an event goes to the
machines that care; what they want is turned into frames on links, rows in the journal and a desired
interface. After every event
the derived state (roster, own record, links to keep, tunnels) is brought in step with the facts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

import msgspec

from meshpeer.core.addressing.claims import choose_ipv4
from meshpeer.core.addressing.ula import ula_address
from meshpeer.core.antientropy import messages as antientropy
from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Note, Persist, Persisted, Put, Send, Table, Tick, TicketCounter
from meshpeer.core.errors import LocalFault, PeerFault
from meshpeer.core.identity.admission import UsesSpent
from meshpeer.core.ids import Digest, LinkId, NodeId, Ticket
from meshpeer.core.membership import messages as membership
from meshpeer.core.membership.links import LinkEffect, Links
from meshpeer.core.membership.liveness import (
    LinkIsSilent,
    Liveness,
    LivenessEffect,
    OpinionChanged,
    PingPeer,
    State,
)
from meshpeer.core.membership.messages import (
    CloseLink,
    Dial,
    DialFailed,
    LinkClosed,
    LinkOpened,
    PeerDown,
    PeerUp,
    SendOnLink,
    WeWereRefused,
)
from meshpeer.core.node import messages as own_messages
from meshpeer.core.node.config import NodeConfig
from meshpeer.core.node.gossip import Gossip, Jitter, Outcome
from meshpeer.core.node.issuing import Issuing
from meshpeer.core.node.messages import (
    Applied,
    ApplyDevice,
    DeliverToSelf,
    DeviceObserved,
    EndpointsChanged,
    FirstSyncDone,
    FrameReceived,
    LeaveAsked,
    MembersChanged,
    RenameAsked,
    SeedFound,
    SelfMessage,
    SendFrame,
    ShowChain,
    Started,
)
from meshpeer.core.node.own import OwnRecord, Profile
from meshpeer.core.node.roster import Listed, Roster, make_roster
from meshpeer.core.node.tunnels import Tunnels
from meshpeer.core.node.unions import NodeEffect, NodeEvent
from meshpeer.core.records import envelope
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.core.scheduler import messages as jobs
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.core.wire.frames import Channel, Codec

CODEC = Codec(Channel.CONTROL, (*membership.FRAMES, *antientropy.FRAMES, *own_messages.FRAMES, *jobs.FRAMES))

_CHANGES_FACTS = (Started, Tick, EndpointsChanged, DeviceObserved, LeaveAsked, RenameAsked)


class Node:
    """One agent's mind. Sans-IO; the runtime drives it."""

    def __init__(
        self,
        config: NodeConfig,
        ledger: Ledger,
        scheduler: Scheduler,
        *,
        tickets: TicketCounter,
        jitter: Jitter,
        entropy: Callable[[int], bytes],
        now: Instant,
    ) -> None:
        self.config = config
        self.me = config.key.public
        self.ledger = ledger
        self.scheduler = scheduler
        self._tickets = tickets
        self._name = config.name
        self._control: tuple[str, ...] = ()
        self._wireguard: tuple[str, ...] = ()
        self._started = False
        self._stale = False
        """Facts changed since the derived state was last brought in step."""
        self._left = False
        self._synced = False
        self._remembered: set[str] = set()
        self._issuing = Issuing(config.issuer, entropy) if config.issuer else None
        self._desired: DesiredDevice | None = None
        self._roster = Roster((), {})
        self._chain: Chain = config.chain
        self.links = Links(
            me=self.me,
            mesh=ledger.mesh,
            chain=config.chain,
            control_port=config.control_port,
            admit=self._admit,
            jitter=jitter,
        )
        self.liveness = Liveness(self.me)
        self.gossip = Gossip(ledger, linked=lambda: self.links.peers, jitter=jitter)
        self.tunnels = Tunnels(
            mesh=ledger.mesh,
            me=self.me,
            key=config.wireguard_key,
            interface=config.interface,
            port=config.wireguard_port,
        )
        held = ledger.get(self.me)
        self.own = OwnRecord(config.key, ledger.mesh, stored=held.current if held else None, now=now)
        self._previous_ipv4 = held.record.ipv4 if held and held.record else ""

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def roster(self) -> Roster:
        return self._roster

    @property
    def desired(self) -> DesiredDevice | None:
        return self._desired

    @property
    def spent_invites(self) -> dict[NodeId, UsesSpent]:
        """Nodes that this issuer would not admit, and why."""
        return self._issuing.refused if self._issuing else {}

    def next_deadline(self) -> Deadline | None:
        profile = self._profile()
        return earliest(
            self.links.next_deadline(),
            self.liveness.next_deadline(),
            self.gossip.next_deadline(),
            self.tunnels.next_deadline() if self.config.wireguard_port else None,
            self.own.next_deadline(profile) if self._started and profile and not self._left else None,
            self.scheduler.next_deadline(),
        )

    # --- the one door ---------------------------------------------------------------------------------------

    def handle(self, event: NodeEvent, now: Instant) -> list[NodeEffect]:
        """Takes one event; returns every effect of it, in order."""
        effects = self._dispatch(event, now)
        if self._started and self._stale:
            self._stale = False
            effects += self._bring_in_step(now)
        return effects

    def _dispatch(self, event: NodeEvent, now: Instant) -> list[NodeEffect]:
        self._stale = self._stale or isinstance(event, _CHANGES_FACTS)
        match event:
            case Started():
                self._started = True
                return self._spread([self._chain], (), now)
            case Tick():
                effects = self._from_links(self.links.tick(now), now)
                effects += self._from_liveness(self.liveness.tick(now), now)
                effects += self._from_gossip(self.gossip.tick(now), None, now)
                return effects + self._from_scheduler(self.scheduler.handle(event, now), now)
            case LinkOpened():
                return self._from_links(self.links.on_opened(event, now), now)
            case LinkClosed():
                return self._from_links(self.links.on_closed(event, now), now)
            case DialFailed(target=target, refused=refused):
                effects = self._from_links(self.links.on_dial_failed(event, now), now)
                if target is not None:
                    effects += self._from_liveness(self.liveness.on_dial_failed(target, refused, now), now)
                return effects
            case FrameReceived(link=link, frame=frame):
                return self._on_frame(link, frame, now)
            case SeedFound(address=address):
                self.links.seed(address, now)
                return self._from_links(self.links.tick(now), now)
            case EndpointsChanged(control=control, wireguard=wireguard):
                self._control, self._wireguard = control, wireguard
                return []
            case DeviceObserved(device=device):
                self.tunnels.on_observed(device)
                return [effect for node, word in self.tunnels.words() for effect in self._send(node, word)]
            case SelfMessage(message=message):
                return self._on_message(self.me, message, now)
            case LeaveAsked():
                self._left = True
                return self._spread((), [self.own.leave(ttl_s=self._ttl_s(), now=now)], now)
            case RenameAsked(name=name):
                self._name = name
                return []
            case Persisted():
                return self._from_scheduler(self.scheduler.handle(event, now), now)
            case _:
                return self._from_scheduler(self.scheduler.handle(event, now), now)

    # --- frames ---------------------------------------------------------------------------------------------

    def _on_frame(self, link: LinkId, frame: bytes, now: Instant) -> list[NodeEffect]:
        try:
            message = CODEC.decode(frame)
            if message is None:
                return []
            peer, effects = self.links.on_message(link, message, now)
            done = self._from_links(effects, now)
            if peer is None:
                return done
            done += self._from_liveness(self.liveness.on_heard(peer, now), now)
            return done + self._on_message(peer, message, now)
        except PeerFault as fault:
            return self._from_links(self.links.on_fault(link, fault.what, now), now)

    def _on_message(self, peer: NodeId, message: msgspec.Struct, now: Instant) -> list[NodeEffect]:
        match message:
            case membership.Ping():
                return self._from_liveness(self.liveness.on_ping(peer, message), now)
            case membership.Pong():
                return self._from_liveness(self.liveness.on_pong(peer, message, now), now)
            case membership.Sight():
                return self._from_liveness(self.liveness.on_sight(peer, message, now), now)
            case antientropy.Digest():
                return self._from_gossip(self.gossip.on_digest(peer, message), None, now)
            case antientropy.Want():
                return self._from_gossip(self.gossip.on_want(peer, message), None, now)
            case antientropy.Facts():
                return self._from_gossip(self.gossip.on_facts(peer, message, now), peer, now)
            case antientropy.Synced():
                first, self._synced = not self._synced, True
                return [FirstSyncDone(peer=peer)] if first else []
            case Applied():
                self.tunnels.on_applied(message, now)
                self._stale = True
                return []
            case _:
                return self._from_scheduler(
                    self.scheduler.handle(jobs.MessageReceived(peer=peer, message=message), now), now
                )

    # --- what machines want ---------------------------------------------------------------------------------

    def _from_links(self, effects: Iterable[LinkEffect], now: Instant) -> list[NodeEffect]:
        done: list[NodeEffect] = []
        for effect in effects:
            match effect:
                case SendOnLink(link=link, message=message):
                    done.append(SendFrame(link=link, frame=CODEC.encode(message)))
                case PeerUp(peer=peer, remote=remote, dialled=dialled):
                    self._stale = True
                    done += self._remember(remote) if dialled else []
                    done += self._from_liveness(self.liveness.on_up(peer, now), now)
                    done += self._from_gossip(self.gossip.on_up(peer), None, now)
                    self.tunnels.on_link(peer)
                    done += [one for node, word in self.tunnels.words() for one in self._send(node, word)]
                    done += self._from_scheduler(self.scheduler.handle(jobs.PeerUp(peer=peer), now), now)
                    done.append(MembersChanged())
                case PeerDown(peer=peer, reason=reason):
                    self._stale = True
                    done += self._from_liveness(self.liveness.on_down(peer, reason, now), now)
                    done += self._from_scheduler(self.scheduler.handle(jobs.PeerDown(peer=peer), now), now)
                    done += self._from_links(self.links.tick(now), now)
                    done.append(MembersChanged())
                case Dial() | CloseLink() | WeWereRefused() | Note():
                    done.append(effect)
        return done

    def _from_liveness(self, effects: Iterable[LivenessEffect], now: Instant) -> list[NodeEffect]:
        done: list[NodeEffect] = []
        for effect in effects:
            match effect:
                case PingPeer(peer=peer, message=message):
                    done += self._send(peer, message)
                case OpinionChanged():
                    self._stale = True
                    done.append(MembersChanged())
                case LinkIsSilent(peer=peer):
                    link = self.links.link_to(peer)
                    if link is not None:
                        done.append(CloseLink(link=link, reason="silent"))
                        done += self._from_links(
                            self.links.on_closed(LinkClosed(link=link, reason="silent"), now), now
                        )
        return done

    def _from_gossip(self, outcome: Outcome, source: NodeId | None, now: Instant) -> list[NodeEffect]:
        done: list[NodeEffect] = [*outcome.notes]
        ticket: Ticket | None = None
        if outcome.changes:
            ticket = self._tickets.take()
            done.append(Persist(ticket=ticket, changes=tuple(outcome.changes)))
        own_news = self.me in outcome.touched
        for peer, message in outcome.sends:
            done += self._send(peer, message, after=ticket if own_news else None)
        if outcome.touched or outcome.charter:
            self._stale = True
            done.append(MembersChanged())
        if self.me in outcome.touched and source is not None:
            held = self.ledger.get(self.me)
            if held and held.current:
                self.own.overtake(held.current, contradicted=held.proof is not None)
        if outcome.fault and source is not None:
            link = self.links.link_to(source)
            if link is not None:
                done += self._from_links(self.links.on_fault(link, outcome.fault, now), now)
        return done + self._issue(outcome.touched, now)

    def _from_scheduler(
        self, effects: Iterable[jobs.SchedulerEffect | Send | Persist | Note], now: Instant
    ) -> list[NodeEffect]:
        done: list[NodeEffect] = []
        for effect in effects:
            if isinstance(effect, Send):
                if effect.peer == self.me and effect.after is None:
                    done += self._on_message(self.me, effect.message, now)
                elif effect.peer == self.me and effect.after is not None:
                    done.append(DeliverToSelf(message=effect.message, after=effect.after))
                else:
                    done += self._send(effect.peer, effect.message, after=effect.after)
            else:
                done.append(effect)
        return done

    def _send(self, peer: NodeId, message: msgspec.Struct, after: Ticket | None = None) -> list[NodeEffect]:
        link = self.links.link_to(peer)
        return [] if link is None else [SendFrame(link=link, frame=CODEC.encode(message), after=after)]

    def _remember(self, address: str) -> list[NodeEffect]:
        """Keeps an address that answered as a seed: the way back in after a long absence, when all records
        have expired."""
        if address in self._remembered:
            return []
        self._remembered.add(address)
        row = Put(table=Table.SEEDS, key=address, value=b"")
        return [Persist(ticket=self._tickets.take(), changes=(row,))]

    # --- derived state --------------------------------------------------------------------------------------

    def _bring_in_step(self, now: Instant) -> list[NodeEffect]:
        """Roster, own record, links to keep, tunnels, the scheduler's peers: all follow from the facts."""
        effects: list[NodeEffect] = self._adopt_chain(now)
        self._roster = make_roster(self.ledger, now.unix_s, dead=self._dead())
        effects += self._publish(now)
        present = [one for one in self._roster.members if one.node != self.me]
        self.links.want({one.node: self._addresses_of(one) for one in present} if not self._left else {}, now)
        effects += self._from_liveness(self.liveness.watch([one.node for one in present], now), now)
        effects += self._from_links(self.links.tick(now), now)
        effects += self._plan(now)
        views = tuple(
            jobs.PeerView(
                node=one.node,
                alive=(opinion := self.liveness.opinion(one.node)) is not None
                and opinion.state is State.ALIVE,
                linked=self.links.link_to(one.node) is not None,
                region=one.record.region,
                dead=opinion is not None and opinion.state is State.DEAD,
            )
            for one in present
        )
        return effects + self._from_scheduler(self.scheduler.handle(jobs.PeersChanged(peers=views), now), now)

    def _publish(self, now: Instant) -> list[NodeEffect]:
        profile = self._profile()
        if profile is None or self._left or not self.own.due(profile, now):
            return []
        effects = self._spread((), [self.own.publish(profile, ttl_s=self._ttl_s(), now=now)], now)
        self._roster = make_roster(self.ledger, now.unix_s, dead=self._dead())
        return effects

    def _profile(self) -> Profile | None:
        if self.ledger.charter is None:
            return None
        endpoints = self._wireguard if self.config.wireguard_port else ()
        return Profile(
            name=self._name,
            region=self.config.region,
            roles=self.config.roles,
            wireguard_key=self.config.wireguard_key.public,
            wireguard_port=self.config.wireguard_port,
            control_endpoints=self._control,
            wireguard_endpoints=endpoints,
            ipv4=self._claim(),
            certificate=Digest(envelope.digest_of(self._chain[0])),
            hub=self.config.hub,
            configured_endpoint=self.config.configured_endpoint,
        )

    def _claim(self) -> str:
        """Keeps the address that this node holds; claims the lowest free one where it has none or lost it."""
        if not self.config.wireguard_port or self.ledger.charter is None:
            return ""
        subnet = ipaddress.IPv4Network(self.ledger.charter.subnet)
        taken = {address: node for address, node in self._roster.taken.items() if node != self.me}
        claimed = self.own.record.ipv4 if self.own.record else self._previous_ipv4
        try:
            return choose_ipv4(subnet, self.config.roles, taken, claimed, self._roster.ahead_of(self.me))
        except LocalFault:
            return ""

    def _plan(self, now: Instant) -> list[NodeEffect]:
        if not self.config.wireguard_port or self.ledger.charter is None or self._left:
            return []
        device = self.tunnels.device(
            self._roster, self.ledger.charter, link_remote=self.links.remote_of, now=now
        )
        if device is None or device == self._desired:
            return []
        self._desired = device
        return [ApplyDevice(device=device)]

    def _addresses_of(self, one: Listed) -> tuple[str, ...]:
        overlay = (
            f"[{ula_address(self.ledger.mesh, one.node)}]:{self._port_of(one.record.control_endpoints)}",
        )
        observed = self.tunnels.observed_peer(one.record.wireguard_key)
        return (
            *one.record.control_endpoints,
            *(overlay if observed and observed.latest_handshake_unix_s else ()),
        )

    @staticmethod
    def _port_of(endpoints: Sequence[str]) -> str:
        return endpoints[0].rpartition(":")[2] if endpoints else "51821"

    def _dead(self) -> set[NodeId]:
        return {
            one.node
            for one in self._roster.members
            if (opinion := self.liveness.opinion(one.node)) and opinion.state is State.DEAD
        }

    # --- admission ------------------------------------------------------------------------------------------

    def _admit(self, chain: Sequence[bytes], now: Instant) -> NodeId:
        """Judges a greeting's chain and merges it, as if it had been gossiped."""
        self.ledger.admit(chain, now.unix_s)
        return self.ledger.identify(chain, now.unix_s).node

    def _issue(self, touched: Iterable[NodeId], now: Instant) -> list[NodeEffect]:
        if self._issuing is None:
            return []
        effects: list[NodeEffect] = []
        for node in dict.fromkeys(touched):
            chain, note = self._issuing.judge(node, self.ledger, now)
            effects += self._spread([chain], (), now) if chain else []
            effects += [note] if note else []
        return effects

    def _adopt_chain(self, now: Instant) -> list[NodeEffect]:
        """Shows the best certificate that the mesh holds for this node."""
        member = self.ledger.get(self.me)
        best = member.best if member else None
        if best is None or best.chain == self._chain:
            return []
        self._chain = best.chain
        self.links.show_chain(best.chain)
        return [ShowChain(chain=best.chain)]

    def _spread(self, chains: Iterable[Chain], records: Iterable[bytes], now: Instant) -> list[NodeEffect]:
        return self._from_gossip(self.gossip.spread(chains, records, now), None, now)

    def _ttl_s(self) -> int:
        return self.ledger.charter.away_max_s if self.ledger.charter else 7 * 86_400

"""The node: every machine of one agent, behind two doors.

``handle`` takes one event and returns all that is to be done; ``next_deadline`` says when to come back.
Inside, an event goes to the machines that care; what they want is turned into frames on links, rows in the
journal and a desired interface.

What follows from the facts (own record, links to keep, roster, tunnels) is brought in step with them at
once, and then after a pause that grows with the mesh: a thousand joiners are a thousand pieces of news, and
one plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from meshpeer.core.antientropy.messages import Compare, Facts, Synced, Want
from meshpeer.core.antientropy.rounds import Jitter
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import LagMeasured, Note, Persist, Put, Send, Table, Tick, TicketCounter
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import LinkId, NodeId, Ticket
from meshpeer.core.membership import messages as membership
from meshpeer.core.membership.carriers import CARRIERS_WANTED, over_in
from meshpeer.core.membership.detector import Detector
from meshpeer.core.membership.detector_effects import (
    DetectorEffect,
    DialFor,
    LinkIsSilent,
    OpinionChanged,
    Refute,
    SendTo,
    Suspect,
    Tell,
)
from meshpeer.core.membership.dialbacks import (
    DialBackAnswered,
    DialBackAsked,
    DialBacks,
    DialBacksWanted,
    DialledBack,
    Said,
)
from meshpeer.core.membership.links import LinkEffect, Links
from meshpeer.core.membership.messages import (
    ENOUGH_LINKS,
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
from meshpeer.core.membership.opinions import State
from meshpeer.core.membership.overlay import TRIED_S, Overlay
from meshpeer.core.membership.plumtree_messages import Graft, IHave, Prune
from meshpeer.core.membership.suspicions import SuspicionSeen
from meshpeer.core.node.agreement import Agreement
from meshpeer.core.node.channels import Channels
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.config import NodeConfig
from meshpeer.core.node.derived import Derived
from meshpeer.core.node.dues import Dues, WorkEvent, is_work
from meshpeer.core.node.farewell import Farewell
from meshpeer.core.node.gossip import Gossip, Outcome
from meshpeer.core.node.handover import (
    HandOver,
    IssuerAsked,
    IssuerKeyKept,
    IssuerKeyLost,
    IssuerKeyShown,
    IssuerKeyWanted,
    IssuerShown,
    KeepIssuerKey,
)
from meshpeer.core.node.issuing import Issuing
from meshpeer.core.node.lans import Lans
from meshpeer.core.node.messages import (
    Applied,
    ApplyDevice,
    BulkHeard,
    CharterSigned,
    DeliverToSelf,
    DeviceObserved,
    EchoAsked,
    EchoHeard,
    EndpointsChanged,
    FarewellOver,
    FirstSyncDone,
    ForwardingFailed,
    FrameReceived,
    LeaveAsked,
    LookAtDevice,
    MembersChanged,
    RenameAsked,
    RevocationSigned,
    SeedFound,
    SelfMessage,
    SendFrame,
    ShowChain,
    SignersMade,
    Started,
    TrustRoots,
)
from meshpeer.core.node.offences import Offence, note_offence
from meshpeer.core.node.presence import Presence
from meshpeer.core.node.rekeying import Rekeying, RekeyingEffect
from meshpeer.core.node.relays import Relays, RelayWord
from meshpeer.core.node.revoking import Revoking
from meshpeer.core.node.roster import Roster
from meshpeer.core.node.rotation import KeyKept, KeyTurns, RotationAsked
from meshpeer.core.node.tunnels import Tunnels
from meshpeer.core.node.underlay import Underlay
from meshpeer.core.node.unions import NodeEffect, NodeEvent
from meshpeer.core.node.watch import Watch
from meshpeer.core.paths.channel import TunnelSilent
from meshpeer.core.paths.probe_desk import ProbeHeard, ProbePortOpened, ProbeTooLong
from meshpeer.core.paths.reflections import SeenAt
from meshpeer.core.paths.relay_messages import RelayEffect, RelayNews
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import SuspectRecord, precedence
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.core.records.revocation import said_of
from meshpeer.core.scheduler import messages as jobs
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.topology.moves import Moved, MoveOffered
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.core.wire.frames import Codec

STEP_PAUSE_PER_MEMBER_S = 0.0005
"""Derived state follows the facts at most this often, times the members: a few per cent of a core."""
BAN_S = 600.0
"""How long an identity that passed on a bad signature is shut out."""

NO_PLACE = "no certificate admits this node any more"

_CHANGES_FACTS = (
    *(Started, EndpointsChanged, DeviceObserved, LeaveAsked, RenameAsked, ForwardingFailed),
    *(ProbePortOpened, RotationAsked, KeyKept),
)


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
        codec: Codec = CODEC,
        counters: Counters | None = None,
    ) -> None:
        self.config = config
        self.me = config.key.public
        self.ledger = ledger
        ledger.me = self.me
        self.scheduler = scheduler
        self.counters = counters or Counters()
        self.offences: dict[NodeId, Offence] = {}
        """Who broke the protocol, and how, last; for the operator."""
        self._codec = codec
        self._tickets = tickets
        self._now = now
        self._started = False
        self._stale = False
        """Facts changed since the derived state was last brought in step."""
        self._step_at_s = now.mono_s
        self._dues = Dues(self._next_of_others)
        self._encoded: tuple[msgspec.Struct | None, bytes] = (None, b"")
        self._remembered: set[str] = set()
        if config.issuer:
            ledger.authorize((config.issuer.certificate,), now.unix_s)
        seed = config.issuer.seed if config.issuer else config.issuer_seed
        self.issuing = Issuing(seed, ledger, entropy, now)
        self.handover = HandOver(config.key, ledger, self.issuing, entropy)
        self._trusted = ledger.roots
        self.revoking = Revoking(ledger, lambda: self.links.peers, self.counters)
        self.links = Links(
            me=self.me,
            mesh=ledger.mesh,
            chain=config.chain,
            control_port=config.control_port,
            admit=self._admit,
            jitter=jitter,
            reached=lambda node: self.derived.is_reached(node),
            over=lambda node: self.derived.carriers(node),
            forwarded=config.forwarded,
            words=self.revoking,
        )
        self.overlay = Overlay(me=self.me, mesh=ledger.mesh, dice=jitter)
        self.detector = Detector(self.me, rings=self.overlay, dice=jitter, counters=self.counters)
        self.presence = Presence(config, ledger, now)
        self.farewell = Farewell()
        self.dialbacks = DialBacks(self.counters)
        self.tunnels = Tunnels(
            mesh=ledger.mesh,
            me=self.me,
            key=config.wireguard_key,
            interface=config.interface,
            port=config.wireguard_port,
            lans=Lans(mesh=ledger.mesh, config=config),
            fwmark=config.fwmark,
            pads_to_device=config.pads_to_device,
        )
        self.underlay = Underlay(
            self.tunnels, mesh=ledger.mesh, key=config.wireguard_key, entropy=entropy, counters=self.counters
        )
        self.channels = Channels(self.me, alive=self._is_alive, entropy=entropy) if config.spare else None
        self.derived = Derived(
            ledger, self.links, self.overlay, self.detector, self.tunnels, channels=self.channels
        )
        self.rekeying = Rekeying(
            self.derived,
            self.presence,
            self.underlay,
            key=config.wireguard_key,
            next_key=config.next_wireguard_key,
            me=self.me,
            linked=self._is_linked,
            has_interface=bool(config.wireguard_port),
        )
        self.agreement = Agreement(ledger, self.derived, self.detector, self.counters)
        self.relays = Relays(config, self.derived, self.underlay, counters=self.counters, entropy=entropy)
        self.gossip = Gossip(
            ledger,
            linked=lambda: self.links.peers,
            jitter=jitter,
            counters=self.counters,
            agreement=self.agreement,
        )
        self.watch = Watch(
            self.tunnels,
            roster=lambda: self.derived.roster,
            rtt_s=self.detector.rtt_s,
            entropy=entropy,
            stored=self.presence.stored,
            channels=self.channels,
            now=now,
        )

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def roster(self) -> Roster:
        """Returns names and addresses as the facts have them now; made when they are asked for."""
        return self.derived.roster

    @property
    def desired(self) -> DesiredDevice | None:
        return self.derived.desired

    def next_deadline(self) -> Deadline | None:
        return earliest(self._dues.earliest(self._now), self.scheduler.next_deadline())

    def _next_of_others(self) -> Deadline | None:
        """Returns when any machine but the scheduler wants to come back."""
        return earliest(
            self.links.next_deadline(),
            self.overlay.next_deadline(),
            self.detector.next_deadline(),
            self.gossip.next_deadline(self._now),
            self._next_step() if self._started else None,
            self.issuing.next_deadline() if self._started and not self.presence.is_silent else None,
            self.watch.next_deadline(),
            self.underlay.next_deadline(),
            self.rekeying.next_deadline(self._now),
        )

    def _next_step(self) -> Deadline | None:
        """Returns when derived state is brought in step next: not before the pause is over, whatever is
        due."""
        if self._stale:
            return Deadline(self._step_at_s, "facts changed")
        due = self._due()
        return Deadline(max(due.at_s, self._step_at_s), due.reason) if due else None

    def _due(self) -> Deadline | None:
        """Returns when a step is due without news; never for a node that derives no interface any more."""
        if self.presence.is_silent:
            return None
        return earliest(
            self.derived.deadline,
            self.presence.next_deadline(),
            self.relays.next_deadline(),
            self.rekeying.step_deadline(),
        )

    # --- the one door ---------------------------------------------------------------------------------------

    def handle(self, event: NodeEvent, now: Instant) -> list[NodeEffect]:
        """Takes one event; returns every effect of it, in order."""
        self._now = now
        if is_work(event):
            effects = self._on_work(event, now)
        else:
            self._dues.forget()
            effects = self._dispatch(event, now)
        shown = self.revoking.take_shown()
        if shown:
            self._dues.forget()
            effects += self._from_gossip(shown, None, now)
        if self._started and self._stale and now.mono_s >= self._step_at_s:
            self._dues.forget()
            effects += self._bring_in_step(now)
        return effects

    def _on_work(self, event: WorkEvent, now: Instant) -> list[NodeEffect]:
        """Takes what the scheduler alone hears of; most events are of this kind while jobs run."""
        if isinstance(event, SelfMessage):
            event = jobs.MessageReceived(peer=self.me, message=event.message)
        return self.from_scheduler(self.scheduler.handle(event, now), now)

    def _dispatch(self, event: NodeEvent, now: Instant) -> list[NodeEffect]:
        self._stale = self._stale or isinstance(event, _CHANGES_FACTS)
        match event:
            case FrameReceived(link=link, frame=frame):
                return self._on_frame(link, frame, now)
            case BulkHeard(link=link):
                whose = self.links.peer_of(link)
                return self._from_detector(self.detector.on_heard(whose, now), now) if whose else []
            case Tick():
                return self._on_tick(event, now)
            case Started():
                self._started = True
                return [*self._look_at_self(now), *self._spread([self.presence.chain], (), now)]
            case LinkOpened():
                return self._from_links(self.links.on_opened(event, now), now)
            case LinkClosed():
                if event.fault:
                    self.counters.add(Counter.FRAMES_REFUSED)
                    note_offence(self.offences, self.links.peer_of(event.link), event.reason, now)
                return self._from_links(self.links.on_closed(event, now), now)
            case DialFailed(target=target, refused=refused):
                effects = self._from_links(self.links.on_dial_failed(event, now), now)
                if target is not None and not self._is_linked(target):
                    if not self._may_be_carried(target, event):
                        self.overlay.on_unreachable(target, now)
                    effects += self._from_detector(self.detector.on_dial_failed(target, refused, now), now)
                    self._stale = True
                return effects
            case SeedFound(address=address):
                self.links.seed(address, now)
                return self._from_links(self.links.tick(now), now)
            case EndpointsChanged():
                self.watch.on_network(event, now)
                self.presence.control, self.presence.wireguard = event.control, event.wireguard
                self.tunnels.lans.routes = event.routes
                self.underlay.on_network(event.wireguard, now)
                return []
            case DeviceObserved(device=device):
                self.tunnels.on_observed(device, now)
                self.watch.on_observed(now)
                words = (*self.tunnels.words(now), *self.tunnels.seen(self._is_linked, now))
                said = [effect for node, word in words for effect in self._send(node, word)]
                return said + self._from_parts(self.rekeying.on_observed(device, now))
            case RotationAsked() | KeyKept():
                return self._from_parts(self.rekeying.handle(event, now))
            case LeaveAsked():
                return self._leave(now)
            case ForwardingFailed(reason=reason):
                self.presence.hub, self.tunnels.lans.unable = "never", reason or "it failed"
                return []
            case CharterSigned(envelope=signed):
                return self._spread((), [signed], now)
            case RevocationSigned(envelope=signed, chain=chain):
                return self._from_gossip(self.revoking.spread(chain, signed, now), None, now)
            case SignersMade(certificates=made):
                return self._from_gossip(self.revoking.certify(made, now), None, now)
            case IssuerKeyWanted() | IssuerKeyKept() | IssuerKeyLost():
                return self._hand_over(self.handover.on_event(event, now), now)
            case RenameAsked(name=name):
                self.presence.name = name
                return []
            case EchoAsked() | EchoHeard():
                self.watch.on_echo(event, now)
                self._stale = self._stale or self.watch.has_news
                return []
            case ProbePortOpened() | ProbeHeard() | ProbeTooLong():
                probes = self.underlay.handle(event, now)
                self._stale = self._stale or self.underlay.has_news
                return [*probes]
            case DialBacksWanted() | DialledBack():
                return self._say(self.dialbacks.handle(event))
            case _ if isinstance(event, RelayNews):
                self._stale = True
                return self._from_parts(self.relays.on_event(event, now))
            case LagMeasured(lag_s=lag_s):
                self.watch.on_lag(lag_s, now)
                return self._from_detector(self.detector.on_lag(lag_s, now), now)
            case _:
                return self._on_work(event, now)

    def _on_tick(self, event: Tick, now: Instant) -> list[NodeEffect]:
        self._stale = self._stale or self._is_due(self._due(), now)
        self._stale = self.overlay.tick(now) or self._stale
        effects: list[NodeEffect] = [*self.watch.tick(now), *self.underlay.tick(now)]
        effects += self._from_parts(self.rekeying.tick(now))
        for node, word in self.channels.words() if self.channels else ():
            effects += self._send(node, word)
        self._stale = self._stale or self.watch.has_news or self.underlay.has_news
        effects += self._from_links(self.links.tick(now), now)
        effects += self._from_detector(self.detector.tick(now), now)
        effects += self._from_gossip(self.gossip.tick(now), None, now)
        renewed = [] if self.presence.is_silent else self.issuing.tick(now)
        effects += self._spread(renewed, (), now) if renewed else []
        return effects + self.from_scheduler(self.scheduler.handle(event, now), now)

    @staticmethod
    def _is_due(deadline: Deadline | None, now: Instant) -> bool:
        return deadline is not None and now.mono_s >= deadline.at_s

    # --- frames ---------------------------------------------------------------------------------------------

    def _on_frame(self, link: LinkId, frame: bytes, now: Instant) -> list[NodeEffect]:
        try:
            message = self._codec.decode(frame)
            if message is None:
                return []
            self.counters.add_kind("in", type(message).__name__, len(frame))
            peer, effects = self.links.on_message(link, message, now)
            roots = self.revoking.take_greeted_with()
            done = self._from_gossip(roots, None, now) if roots else []
            done += self._from_links(effects, now) if effects else []
            if peer is None:
                return done
            done += self._from_detector(self.detector.on_heard(peer, now), now)
            told = self.revoking.on_frame(link, peer, message, now)
            if told is not None:
                return done + self._from_gossip(told, peer, now)
            return done + self._on_message(peer, message, now)
        except PeerFault as fault:
            self.counters.add(Counter.FRAMES_REFUSED)
            note_offence(self.offences, self.links.peer_of(link), fault.what, now)
            return self._from_links(self.links.on_fault(link, fault.what, now), now)

    def _on_message(self, peer: NodeId, message: msgspec.Struct, now: Instant) -> list[NodeEffect]:
        match message:
            case membership.Ping():
                return self._from_detector(self.detector.on_ping(peer, message), now)
            case membership.Pong():
                if self.farewell.on_pong(peer, message):
                    return [FarewellOver()]
                return self._from_detector(self.detector.on_pong(peer, message, now), now)
            case membership.ProbeAsked():
                return self._from_detector(self.detector.on_probe_asked(peer, message, now), now)
            case membership.ProbeAnswered():
                return self._from_detector(self.detector.on_probe_answered(peer, message, now), now)
            case Facts():
                return self._from_gossip(self.gossip.on_facts(peer, message, now), peer, now)
            case Compare() | Want() | Synced() | IHave() | Graft() | Prune():
                return self._from_gossip(self.gossip.on_message(peer, message, now), peer, now)
            case Applied() | KeyTurns():
                self._stale = True
                return self._from_parts(self.rekeying.on_message(peer, message, now))
            case SeenAt():
                # Who sees this node by a relay sees the relay.
                if not self.tunnels.goes_through_relay(peer):
                    self._stale = self.tunnels.reflections.on_seen(peer, message, now) or self._stale
                return []
            case TunnelSilent():
                if self.channels:
                    self.channels.on_word(peer, now)
                return []
            case DialBackAsked() | DialBackAnswered():
                member, overlay = self.ledger.get(peer), self.tunnels.inside
                endpoints = member.record.control_endpoints if member and member.record else ()
                return self._say(self.dialbacks.on_message(peer, message, endpoints, overlay, now))
            case _ if isinstance(message, RelayWord):
                self._stale = True
                return self._from_parts(self.relays.on_message(peer, message, now))
            case IssuerAsked() | IssuerShown():
                return self._hand_over(self.handover.on_message(peer, message, now), now)
            case MoveOffered() | Moved():
                answer = self.tunnels.moves.on_message(peer, message, now)
                self._stale = True
                return self._send(peer, answer) if answer else []
            case _:
                if peer != self.me and isinstance(message, jobs.Grant | jobs.Offer):
                    self.overlay.need(peer, now)
                return self.from_scheduler(
                    self.scheduler.handle(jobs.MessageReceived(peer=peer, message=message), now), now
                )

    # --- what machines want ---------------------------------------------------------------------------------

    def _from_links(self, effects: Iterable[LinkEffect], now: Instant) -> list[NodeEffect]:
        done: list[NodeEffect] = []
        for effect in effects:
            match effect:
                case SendOnLink(link=link, message=message):
                    done.append(self._frame(link, message))
                case PeerUp(peer=peer, link=link, remote=remote, dialled=dialled, replaces=replaces):
                    self._stale = True
                    done += [self._frame(link, told) for told in self.revoking.on_up(link)]
                    self.counters.add(Counter.LINKS_OPENED)
                    self.overlay.on_up(peer, now)
                    done += self._remember(remote) if dialled and remote else []
                    done += self._from_detector(self.detector.on_up(peer, now), now)
                    compared = self.gossip.on_up(peer, now, opens=dialled or replaces)
                    done += self._from_gossip(compared, None, now)
                    self.tunnels.on_link(peer)
                    done += [LookAtDevice()] if self.tunnels.shook_hands(peer) else []
                    done += [one for node, word in self.tunnels.words(now) for one in self._send(node, word)]
                    done += self.from_scheduler(self.scheduler.handle(jobs.PeerUp(peer=peer), now), now)
                    done.append(MembersChanged())
                case PeerDown(peer=peer, reason=reason):
                    self._stale = True
                    done += [FarewellOver()] if self.farewell.on_down(peer) else []
                    self.overlay.on_down(peer)
                    if reason == ENOUGH_LINKS:
                        self.overlay.on_declined(peer, now)
                    done += self._from_gossip(self.gossip.on_down(peer, now), None, now)
                    done += self._from_detector(self.detector.on_down(peer, reason, now), now)
                    done += self.from_scheduler(self.scheduler.handle(jobs.PeerDown(peer=peer), now), now)
                    done += self._from_links(self.links.tick(now), now)
                    done.append(MembersChanged())
                case Dial():
                    self.counters.add(Counter.DIALS)
                    done.append(effect)
                case CloseLink() | WeWereRefused() | Note():
                    done.append(effect)
        return done

    def _from_detector(self, effects: Iterable[DetectorEffect], now: Instant) -> list[NodeEffect]:
        done: list[NodeEffect] = []
        for effect in effects:
            match effect:
                case SendTo(peer=peer, message=message):
                    done += self._send(peer, message)
                case OpinionChanged(peer=peer, opinion=opinion):
                    self._stale = True
                    self.overlay.on_opinion(peer, dead=opinion.state is State.DEAD)
                    done.append(MembersChanged())
                case LinkIsSilent(peer=peer):
                    self.watch.checks.suspect(peer, now)
                    done += self._from_links(self.links.close(peer, "silent", now), now)
                case Suspect(subject=subject, closed=closed):
                    done += self._suspect(subject, closed, now)
                case Tell(subject=subject):
                    done += self._tell(subject)
                case Refute():
                    self.counters.add(Counter.REFUTATIONS)
                    self.presence.refute()
                    self._stale = True
                case DialFor(subject=subject):
                    self.overlay.need(subject, now, TRIED_S)
                    self._stale = True
        return done

    def _suspect(self, subject: NodeId, closed: bool, now: Instant) -> list[NodeEffect]:
        """Signs what this node observed; the rest of the mesh counts it."""
        member = self.ledger.get(subject)
        if member is None or member.record is None:
            return []
        incarnation, sequence = precedence(member.record)
        record = SuspectRecord(
            observer=self.me,
            subject=subject,
            incarnation=incarnation,
            sequence=sequence,
            issued_at=int(now.unix_s),
            closed=closed,
        )
        self.counters.add(Counter.SUSPICIONS_SENT)
        return self._spread((), [envelope.sign(self.config.key, self.ledger.mesh, record)], now)

    def _leave(self, now: Instant) -> list[NodeEffect]:
        peers = self.links.peers
        told = self.gossip.tell(self.presence.leave(now), peers, now)
        told.sends += self.farewell.begin(peers)
        return [*self._from_gossip(told, None, now), *([FarewellOver()] if self.farewell.is_over else [])]

    def _tell(self, subject: NodeId) -> list[NodeEffect]:
        """Shows a suspected peer what is said of it, so that it refutes (Lifeguard's buddy system)."""
        member = self.ledger.get(subject)
        said = tuple(one.envelope for one in member.suspicions) if member else ()
        return self._send(subject, Facts(records=said)) if said else []

    def _from_gossip(self, outcome: Outcome, source: NodeId | None, now: Instant) -> list[NodeEffect]:
        done: list[NodeEffect] = [*outcome.notes]
        ticket: Ticket | None = None
        if outcome.changes:
            ticket = self._tickets.take()
            done.append(Persist(ticket=ticket, changes=tuple(outcome.changes)))
        own_news = self.me in outcome.touched
        for peer, message in outcome.sends:
            done += self._send(peer, message, after=ticket if own_news else None)
        for node, why in outcome.shut_out:
            done += self._from_links(self.links.shut(node, why, now), now)
            done += self.from_scheduler(self.scheduler.handle(jobs.PeerRevoked(peer=node), now), now)
        if outcome.revoked:
            self.revoking.written = ticket
            self.gossip.plumtree.forget_seen()
            self.issuing.look_soon(now)
            if self.ledger.roots != self._trusted:
                self._trusted = self.ledger.roots
                done.append(TrustRoots(roots=self._trusted))
            done += self._look_at_self(now)
        if outcome.touched or outcome.charter or outcome.revoked:
            self._stale = True
            done.append(MembersChanged())
        if outcome.doubted and self.derived.depends_on_doubts:
            self._stale = True
        if own_news and source is not None:
            self.presence.overtake()
        if outcome.synced:
            done += self._from_detector(self.detector.synced(now), now)
            done.append(FirstSyncDone(peer=source or self.me))
        if outcome.fault and source is not None:
            self.counters.add(Counter.PEERS_BANNED)
            note_offence(self.offences, source, outcome.fault, now)
            done += self._from_links(self.links.ban(source, BAN_S, outcome.fault, now), now)
        if outcome.offence and not outcome.fault:
            note_offence(self.offences, source, outcome.offence, now)
        for node in dict.fromkeys((*outcome.touched, *outcome.doubted)):
            done += self._weigh(node, now)
        return done + self._issue(outcome.touched, now)

    def _look_at_self(self, now: Instant) -> list[NodeEffect]:
        """Looks whether this node itself is shut out now, or (where the author of that was) no more."""
        before = self.presence.revoked
        self.presence.revoked = revoked = self.revoking.of_self(self.me, self.presence.chain, now)
        if revoked is not None:
            said = Note(level="error", fact="this node was revoked", fields=(("why", said_of(revoked)),))
            ended = self.from_scheduler(self.scheduler.handle(jobs.PeerRevoked(peer=self.me), now), now)
            return [] if before else [said, *ended]
        if before is None:
            return []
        self.presence.refute()
        return self._spread([self.presence.chain], (), now)

    def _weigh(self, node: NodeId, now: Instant) -> list[NodeEffect]:
        """Tells the detector what is said of a member now, or that it is in no more."""
        member = self.ledger.get(node)
        if member is None or not member.is_in:
            # Who left may still have something to say; whom no certificate admits any more has not.
            admitted = member is not None and member.best is not None
            shut = [] if admitted else self.links.close(node, NO_PLACE, now)
            return [*self._from_links(shut, now), *self._from_detector(self.detector.forget(node), now)]
        said = [
            SuspicionSeen(observer=one.observer, closed=one.closed, issued_at=one.issued_at)
            for one in member.suspicions
        ]
        return self._from_detector(self.detector.on_suspicions(node, said, now), now)

    def from_scheduler(
        self, effects: Iterable[jobs.SchedulerEffect | Send | Persist | Note], now: Instant
    ) -> list[NodeEffect]:
        """Gives the scheduler's words to whoever they are for, this very node included; what it wanted when
        it was restored comes in here too."""
        done: list[NodeEffect] = []
        for effect in effects:
            if isinstance(effect, Send):
                if effect.peer == self.me and effect.after is None:
                    told = jobs.MessageReceived(peer=self.me, message=effect.message)
                    done += self.from_scheduler(self.scheduler.handle(told, now), now)
                elif effect.peer == self.me and effect.after is not None:
                    done.append(DeliverToSelf(message=effect.message, after=effect.after))
                else:
                    done += self._send(effect.peer, effect.message, after=effect.after)
                    wanted = isinstance(effect.message, jobs.Offer | jobs.Capacity)
                    if wanted and not self.links.link_to(effect.peer):
                        # A result has to go home; it is offered again, and the link is there then.
                        self.overlay.need(effect.peer, now)
                        self._stale = True
                        self._dues.forget()
            else:
                done.append(effect)
        return done

    def _from_parts(self, effects: Iterable[RelayEffect | RekeyingEffect]) -> list[NodeEffect]:
        done: list[NodeEffect] = []
        for effect in effects:
            done += self._send(effect.peer, effect.message) if isinstance(effect, Send) else [effect]
        return done

    def _may_be_carried(self, target: NodeId, failed: DialFailed) -> bool:
        """Says whether a link over a member is still to be tried; looks for carriers where this node knows
        none."""
        if not self.config.spare or any(over_in(one) for one in failed.addresses):
            return False
        if self.derived.carriers(target):
            return True
        for node in self.overlay.observers(target)[:CARRIERS_WANTED]:
            self.overlay.need(node, self._now)
        return False

    def _is_alive(self, peer: NodeId) -> bool:
        return self.detector.opinion(peer).state is State.ALIVE

    def _is_linked(self, peer: NodeId) -> bool:
        return self.links.link_to(peer) is not None

    def _send(self, peer: NodeId, message: msgspec.Struct, after: Ticket | None = None) -> list[NodeEffect]:
        link = self.links.link_to(peer)
        return [] if link is None else [self._frame(link, message, after)]

    def _hand_over(
        self, said: Iterable[tuple[NodeId, msgspec.Struct] | KeepIssuerKey | IssuerKeyShown], now: Instant
    ) -> list[NodeEffect]:
        done: list[NodeEffect] = []
        for one in said:
            if not isinstance(one, tuple):
                done.append(one)
                continue
            if not self._is_linked(one[0]):
                self.overlay.need(one[0], now)
                self._stale = True
            done += self._send(*one)
        return done

    def _say(self, said: Iterable[Said]) -> list[NodeEffect]:
        done: list[NodeEffect] = []
        for one in said:
            done += self._send(*one) if isinstance(one, tuple) else [one]
        return done

    def _frame(self, link: LinkId, message: msgspec.Struct, after: Ticket | None = None) -> SendFrame:
        if message is not self._encoded[0]:
            # News goes to many links at once, one after the other.
            self._encoded = (message, self._codec.encode(message))
        frame = self._encoded[1]
        self.counters.add_kind("out", type(message).__name__, len(frame))
        return SendFrame(link=link, frame=frame, after=after)

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
        """Own record, links to keep, tunnels, the scheduler's peers: all follow from the facts."""
        self._stale = False
        self._step_at_s = now.mono_s + STEP_PAUSE_PER_MEMBER_S * len(self.ledger.ids)
        effects: list[NodeEffect] = []
        chain = self.presence.adopt_chain()
        if chain is not None:
            self.links.show_chain(chain)
            effects.append(ShowChain(chain=chain))
        if self.config.wireguard_port:
            effects += self._from_parts(self.rekeying.follow(now))
            for node in self.rekeying.links_wanted():
                self.overlay.need(node, now)
        # Before the first record, or it would be the first of two.
        self.presence.mode, self.presence.warm = self._shown()
        self.presence.reflected, self.presence.router = self.tunnels.reflected(self.presence.wireguard, now)
        self.presence.routes = self.derived.routes()
        self.presence.seen = self.watch.take()
        self.presence.relay = self.relays.lends
        own = self.presence.update(self.roster if self.config.wireguard_port else None, now)
        if own is not None:
            effects += self._spread((), [own], now)
        effects += self._keep_links(now)
        self.underlay.take()
        if self.config.wireguard_port and not self.presence.is_silent:
            device = self.derived.device(now)
            effects += [ApplyDevice(device=device)] if device else []
            forward = self.tunnels.forward_change()
            effects += [forward] if forward else []
            effects += self._settle_moves(now)
            effects += self.watch.follow_plan(now)
            self.underlay.follow_plan(self.derived.charter_mtu, now)
            effects += self._follow_relays(now)
        elif self.presence.revoked:
            effects += self._from_parts(self.relays.shut(now))
        mine = self.derived.roster.get(self.me)
        views = jobs.PeersChanged(peers=self.derived.views(), name=mine.name if mine else "")
        return effects + self.from_scheduler(self.scheduler.handle(views, now), now)

    def _settle_moves(self, now: Instant) -> list[NodeEffect]:
        """Talks to those whose pair with this node has to move."""
        for node in self.tunnels.moves.links_wanted():
            self.overlay.need(node, now)
        self._stale = self._stale or self._shown() != (self.presence.mode, self.presence.warm)
        said = self.tunnels.offers(self._is_linked, now)
        return [effect for node, word in said for effect in self._send(node, word)]

    def _follow_relays(self, now: Instant) -> list[NodeEffect]:
        """Talks to relays of pairs that can't meet directly, and lends ports to pairs of others."""
        effects = self.relays.follow(now)
        for node in self.relays.links_wanted():
            self.overlay.need(node, now)
        self._stale = self._stale or self.relays.has_news
        return self._from_parts(effects)

    def _shown(self) -> tuple[str, bool]:
        """Returns what this node's record is to say of how it derives the mesh, and of itself as a hub."""
        if not self.config.wireguard_port:
            return "", False
        return self.derived.mode(self.presence.mode), self.tunnels.is_warm

    def _keep_links(self, now: Instant) -> list[NodeEffect]:
        self.overlay.set_members(self.ledger.ids, now)
        if self.scheduler.owns_open_jobs:
            for node in self.overlay.workers():
                self.overlay.need(node, now)
        for node in self.scheduler.replicas.partners():
            self.overlay.need(node, now)
        self.links.want({} if self.presence.has_left else self.derived.targets(now), now)
        effects = self._from_links(self.links.tick(now), now)
        for peer in self.overlay.surplus(now):
            self.counters.add(Counter.LINKS_REFUSED)
            effects += self._from_links(self.links.close(peer, ENOUGH_LINKS, now), now)
        return effects

    # --- admission ------------------------------------------------------------------------------------------

    def _admit(self, chain: Sequence[bytes], now: Instant) -> NodeId:
        """Judges a greeting's chain and merges it, as if it had been gossiped."""
        self.ledger.admit(chain, now.unix_s)
        return self.ledger.identify(chain, now.unix_s).node

    def _issue(self, touched: Iterable[NodeId], now: Instant) -> list[NodeEffect]:
        if not self.issuing.seed or self.presence.revoked:
            return []
        effects: list[NodeEffect] = []
        for node in dict.fromkeys(touched):
            chain = self.issuing.judge(node, now)
            effects += self._spread([chain], (), now) if chain else []
        return effects

    def _spread(self, chains: Iterable[Chain], records: Iterable[bytes], now: Instant) -> list[NodeEffect]:
        return self._from_gossip(self.gossip.spread(chains, records, now), None, now)

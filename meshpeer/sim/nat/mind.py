"""The mind of one node as far as paths go: the very machines of ``core``, put together as ``core.node`` does,
without membership, jobs and probes of hubs.

What makes it cheap: what an interface shows and what a relay answers are news only where they are, and pairs
that go by a relay rest (``rest``). How wide paths are is not asked: that is another matter.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import AskEcho, LagMeasured, Note, Send
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.overlay import Overlay
from meshpeer.core.node.channels import Channels
from meshpeer.core.node.config import NodeConfig
from meshpeer.core.node.lans import Lans
from meshpeer.core.node.messages import (
    Applied,
    ApplyDevice,
    DeviceObserved,
    EchoHeard,
    EndpointsChanged,
    LookAtDevice,
)
from meshpeer.core.node.presence import Presence
from meshpeer.core.node.relays import Relays, RelayWord
from meshpeer.core.node.tunnels import Tunnels
from meshpeer.core.node.underlay import Underlay
from meshpeer.core.node.watch import Watch
from meshpeer.core.paths.channel import TunnelSilent
from meshpeer.core.paths.probe_desk import ProbeHeard, ProbePortOpened, ProbeTooLong, SendProbe
from meshpeer.core.paths.reflections import SeenAt
from meshpeer.core.paths.relay_messages import (
    RelayCarried,
    RelayEffect,
    RelayGranted,
    RelayNews,
    RelayRenewed,
)
from meshpeer.core.paths.relayed_look import Phase
from meshpeer.core.topology.hub_aims import NO_AIMS, Aims
from meshpeer.core.topology.moves import Moved, MoveOffered
from meshpeer.core.topology.plan import Routes
from meshpeer.core.wgconf.model import ObservedDevice, tunnel_works
from meshpeer.sim.nat.facts import Facts, SimDerived, SimDetector, SimLinks
from meshpeer.sim.nat.rest import Rest

STEP_PAUSE_S = 0.1
"""As ``core.node`` for a mesh of two hundred."""
WHOLE_STEP_S, CALM_STEP_S = 20.0, 60.0
"""How often all is derived anew without news: where a tunnel does not work, and where all do."""
RENEWED_S = 150.0
"""WireGuard renews a session that is used before it is so old."""


@dataclass(frozen=True, slots=True)
class FactsLearned:
    """Event: the ledger holds something new."""


@dataclass(frozen=True, slots=True)
class LinkCame:
    """Event: there is a link to a member, or another one."""

    peer: NodeId


@dataclass(frozen=True, slots=True)
class Told:
    """Event: a member says something over a link."""

    peer: NodeId
    message: msgspec.Struct


@dataclass(frozen=True, slots=True)
class Publish:
    """Effect: this node's record is to be spread."""

    record: bytes


class PathWatch(Watch):
    """Without probes of hubs: whom these serve is for other simulations."""

    def _aims(self, routes: Routes) -> Aims:
        return NO_AIMS

    @property
    def has_news(self) -> bool:
        turned = self._channels is not None and self._channels.has_news
        return turned or self.checks.mute != self._tunnels.mute

    def next_deadline(self) -> Deadline | None:
        return earliest(
            self.checks.next_deadline(), self._channels.next_deadline() if self._channels else None
        )

    def tick(self, now: Instant) -> list[AskEcho | Note]:
        echoes = [AskEcho(number=one.number, address=one.address) for one in self.checks.tick(now)]
        return [*echoes, *(self._channels.tick(now) if self._channels else ())]


class PathUnderlay(Underlay):
    """Without searches for how wide paths are."""

    def follow_plan(self, charter_mtu: int, now: Instant) -> None:
        if self.probes.able:
            self._follow_ways(now)

    @property
    def has_news(self) -> bool:
        return self._is_found

    def tick(self, now: Instant) -> list[SendProbe]:
        return [*self.probes.tick(now), *self.bindings.tick(now), *self.observers.tick(now)]

    def next_deadline(self) -> Deadline | None:
        return earliest(
            self.probes.next_deadline(), self.bindings.next_deadline(), self.observers.next_deadline()
        )


class PathMind:
    """Of one node. Two doors: ``handle`` and ``next_s``."""

    def __init__(
        self, config: NodeConfig, facts: Facts, place: int, dice: random.Random, now: Instant
    ) -> None:
        """``place``: that of the ledger among those of ``facts``."""
        ledger = facts.ledgers[place]
        self.me = config.key.public
        self.place = place
        counters = Counters()
        self.links = SimLinks()
        self._detector = SimDetector(facts)
        entropy: Callable[[int], bytes] = dice.randbytes
        self.presence = Presence(config, ledger, now)
        self.tunnels = Tunnels(
            mesh=ledger.mesh,
            me=self.me,
            key=config.wireguard_key,
            interface=config.interface,
            port=config.wireguard_port,
            lans=Lans(mesh=ledger.mesh, config=config),
        )
        self.underlay = PathUnderlay(
            self.tunnels, mesh=ledger.mesh, key=config.wireguard_key, entropy=entropy, counters=counters
        )
        self.channels = Channels(self.me, alive=lambda node: node not in facts.dead, entropy=entropy)
        self.derived = SimDerived(
            ledger,
            self.links,
            Overlay(me=self.me, mesh=ledger.mesh, dice=dice),
            self._detector,
            self.tunnels,
            channels=self.channels,
        )
        self.relays = Relays(config, self.derived, self.underlay, counters=counters, entropy=entropy)
        self.watch = PathWatch(
            self.tunnels,
            roster=lambda: self.derived.roster,
            rtt_s=self._detector.rtt_s,
            entropy=entropy,
            stored=self.presence.stored,
            channels=self.channels,
            now=now,
        )
        self.wanted: tuple[NodeId, ...] = ()
        """Whom a link is needed to."""
        self.steps = 0
        self._stale = self._relays_stale = False
        self._step_at_s = now.mono_s
        self._whole_step_s = float("-inf")
        self._followed = now
        self._looked_unix_s = now.unix_s
        self.rest = Rest(now)
        self._derived_s = float("inf")
        """When all is derived anew without news."""
        self._relays_s: float | None = None
        """When relays are to be followed; None: to be found out."""

    # --- doors ----------------------------------------------------------------------------------------------

    def handle(self, event: object, now: Instant) -> list[object]:
        effects = self._dispatch(event, now)
        if now.mono_s >= self._step_at_s:
            effects += self._follow(now)
        return effects

    def next_s(self) -> float:
        due = earliest(self.watch.next_deadline(), self.underlay.next_deadline())
        at_s = due.at_s if due else float("inf")
        step_s = self._step_at_s if self._stale or self._relays_stale else self._due_s()
        return min(at_s, max(step_s, self._step_at_s))

    def _due_s(self) -> float:
        return min(self._derived_s, self._relays_due_s())

    def _relays_due_s(self) -> float:
        if self._relays_s is None:
            desk = self.relays.desk.next_deadline()
            self._relays_s = min(
                self.rest.next_s(self.tunnels.relayed), desk.at_s if desk is not None else float("inf")
            )
        return self._relays_s

    def stir(self, now: Instant) -> list[tuple[NodeId, RelayRenewed]]:
        """Something happens somewhere: ends all rest; returns what relays are to hear."""
        said = self.rest.renewals(self.tunnels.relayed, now)
        self.rest.stir(now)
        self._relays_s = None
        return said

    def renewals(self, now: Instant) -> list[tuple[NodeId, RelayRenewed]]:
        """Returns what relays are to hear of pairs at rest, from time to time."""
        self._relays_s = None
        return self.rest.renewals(self.tunnels.relayed, now)

    def is_told_nothing(self, relay: NodeId, message: msgspec.Struct) -> bool:
        """Says whether a relay only answers that it still carries a pair at rest."""
        usual = isinstance(message, RelayGranted) and message.both and not message.retires
        return usual and isinstance(message, RelayGranted) and self._is_granted(relay, message)

    def is_calm(self, now: Instant) -> bool:
        """Says whether nothing happened here of late, and no pair wants anything."""
        return not self.rest.is_stirred(now) and self.rest.covers(self.tunnels.relayed)

    # --- events ---------------------------------------------------------------------------------------------

    def _dispatch(self, event: object, now: Instant) -> list[object]:
        match event:
            case Told(peer=peer, message=message):
                return self._on_message(peer, message, now)
            case DeviceObserved(device=device):
                self._stale = self._stale or self._shows_news(device, now)
                self._looked_unix_s = now.unix_s
                self.tunnels.on_observed(device, now)
                self.watch.on_observed(now)
                linked = self.links.up.__contains__
                words = [*self.tunnels.words(now), *self.tunnels.seen(linked, now)]
                return [Send(peer=node, message=word) for node, word in words]
            case EchoHeard():
                self.watch.on_echo(event, now)
                self._stale = self._stale or self.watch.has_news
            case ProbePortOpened() | ProbeHeard() | ProbeTooLong():
                probes = self.underlay.handle(event, now)
                self._stale = self._stale or self.underlay.has_news or isinstance(event, ProbePortOpened)
                return [*probes]
            case FactsLearned():
                self._stale = True
            case LinkCame(peer=peer):
                self.tunnels.on_link(peer)
                self._stale = True
                look = [LookAtDevice()] if self.tunnels.shook_hands(peer) else []
                return [*look, *(Send(peer=node, message=word) for node, word in self.tunnels.words(now))]
            case EndpointsChanged():
                self.watch.on_network(event, now)
                self.presence.control, self.presence.wireguard = event.control, event.wireguard
                self.tunnels.lans.routes = event.routes
                self.underlay.on_network(event.wireguard, now)
                self._stale = True
            case LagMeasured(lag_s=lag_s):
                self.watch.on_lag(lag_s, now)
            case RelayCarried():
                return [*self.relays.on_event(event, now)]
            case _ if isinstance(event, RelayNews):
                self._relays_stale, self._relays_s = True, None
                return [*self.relays.on_event(event, now)]
            case _:
                return self._on_tick(now)
        return []

    def _on_message(self, peer: NodeId, message: msgspec.Struct, now: Instant) -> list[object]:
        match message:
            case Applied():
                self.tunnels.on_applied(message, now)
                self._stale = True
            case SeenAt():
                if not self.tunnels.goes_through_relay(peer):
                    self._stale = self.tunnels.reflections.on_seen(peer, message, now) or self._stale
            case TunnelSilent():
                self.channels.on_word(peer, now)
            case MoveOffered() | Moved():
                answer = self.tunnels.moves.on_message(peer, message, now)
                self._stale = True
                return [Send(peer=peer, message=answer)] if answer else []
            case _ if isinstance(message, RelayWord):
                before = isinstance(message, RelayRenewed) or (
                    isinstance(message, RelayGranted) and self._is_granted(peer, message)
                )
                self._relays_stale = self._relays_stale or not before
                self._relays_s = None
                return [*self.relays.on_message(peer, message, now)]
            case _:
                raise AssertionError(message)
        return []

    def _shows_news(self, device: ObservedDevice | None, now: Instant) -> bool:
        """Says whether an interface shows anything that a step could be for, or none was made for long: a
        session that is renewed in time, and what comes through it, change nothing."""
        held = {one.public_key: one for one in self.tunnels.observed.peers} if self.tunnels.observed else {}
        all_work = True
        for one in device.peers if device else ():
            before = held.get(one.public_key)
            renewed = before is not None and now.unix_s < before.latest_handshake_unix_s + RENEWED_S
            if before is None or before.endpoint != one.endpoint:
                return True
            if before.latest_handshake_unix_s != one.latest_handshake_unix_s and not renewed:
                return True
            works = tunnel_works(one, now.unix_s)
            if works != tunnel_works(before, self._looked_unix_s):
                return True
            all_work = all_work and works
        gone = len(held) != len(device.peers if device else ())
        step_s = CALM_STEP_S if all_work and self.is_calm(now) else WHOLE_STEP_S
        return gone or now.mono_s >= self._whole_step_s + step_s

    def _is_granted(self, relay: NodeId, message: RelayGranted) -> bool:
        """Says whether a relay in use only answers that it still carries a pair."""
        other = message.pair[1] if message.pair[0] == self.me else message.pair[0]
        relayed = self.tunnels.relayed.get(other)
        settled = relayed is not None and relayed.used == relay and relayed.phase is Phase.RELAYED
        return settled and not message.frozen

    def _on_tick(self, now: Instant) -> list[object]:
        effects: list[object] = [*self.watch.tick(now), *self.underlay.tick(now)]
        effects += [Send(peer=node, message=word) for node, word in self.channels.words()]
        self._stale = self._stale or self.watch.has_news or self.underlay.has_news
        return effects

    # --- derived state --------------------------------------------------------------------------------------

    def _follow(self, now: Instant) -> list[object]:
        """Brings in step what is due: all of it, or relays alone."""
        if self._stale or now.mono_s >= self._derived_s:
            return self._bring_in_step(now)
        if self._relays_stale or now.mono_s >= self._relays_due_s():
            # Time alone gives an end its turn, and nobody tells the interface.
            if any(one.waits(self._followed) != one.waits(now) for one in self.tunnels.relayed.values()):
                return self._bring_in_step(now)
            self._relays_stale = False
            self._step_at_s = now.mono_s + STEP_PAUSE_S
            return self._follow_relays(now)
        return []

    def _bring_in_step(self, now: Instant) -> list[object]:
        self.steps += 1
        self._whole_step_s = now.mono_s
        self._stale = self._relays_stale = False
        self._step_at_s = now.mono_s + STEP_PAUSE_S
        effects: list[object] = []
        self.presence.mode, self.presence.warm = self._shown()
        self.presence.reflected, self.presence.router = self.tunnels.reflected(self.presence.wireguard, now)
        self.presence.seen = self.watch.take()
        self.presence.relay = self.relays.lends
        own = self.presence.update(self.derived.roster, now)
        if own is not None:
            effects.append(Publish(own))
        self.underlay.take()
        device = self.derived.device(now)
        effects += [ApplyDevice(device=device)] if device else []
        self._stale = self._shown() != (self.presence.mode, self.presence.warm)
        said = self.tunnels.offers(self.links.up.__contains__, now)
        effects += [Send(peer=node, message=word) for node, word in said]
        self.watch.follow_plan(now)
        self.underlay.follow_plan(self.derived.charter_mtu, now)
        due = earliest(self.derived.deadline, self.presence.next_deadline())
        self._derived_s = due.at_s if due else float("inf")
        return effects + self._follow_relays(now)

    def _follow_relays(self, now: Instant) -> list[object]:
        self._followed = now
        effects: Sequence[RelayEffect] = self.relays.follow(now, self.rest.resting(now))
        self.rest.looked(self.tunnels.relayed, now)
        self._relays_s = None
        self.wanted = tuple(dict.fromkeys((*self.relays.links_wanted(), *self.tunnels.moves.links_wanted())))
        self._stale = self._stale or self.relays.has_news
        return [*effects]

    def _shown(self) -> tuple[str, bool]:
        return self.derived.mode(self.presence.mode), self.tunnels.is_warm

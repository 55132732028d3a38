"""Two ends of a pair, real desks of relays, and a wire on which a handshake needs both ends to use the same
way. A relay carries a session once it saw its handshake, or once both ends are bound there. Messages to and
from relays may be late, or lost; probes tell what the wire carries directly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Send, Tick
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.paths.direct_trial import TrialMeant
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.relay import RelayDesk, RelayLimits
from meshpeer.core.paths.relay_binding import BindingKind
from meshpeer.core.paths.relay_messages import (
    CloseRelay,
    FreezeRelay,
    OpenRelay,
    RelayAnswer,
    RelayCarried,
    RelayEffect,
    RelayMembersShown,
    RelayOpened,
    RelayRequested,
    RelayWilling,
    WakeRelay,
)
from meshpeer.core.paths.relayed import RelayedPath
from meshpeer.core.paths.relayed_look import PairLook, Phase
from meshpeer.core.paths.upgrade import EndpointMove
from meshpeer.core.wgconf.model import ObservedPeer

UNIX_S = 1_900_000_000.0
LOW, HIGH = NodeId(b"\1" * 32), NodeId(b"\2" * 32)
RELAYS = tuple(NodeId(bytes([0x60 + number]) * 32) for number in range(3))
STEP_S = 0.25
OWN = "203.0.113.1:51820"
MUTE_AFTER_S = 4.0
SILENT_S = 15.0
BURIED_S = 10.0
"""From when an end is cut off until the rest holds it dead."""
PROBE_S, PROOF_S = 4.0, 15.0
"""As ``probes.AGAIN_S`` and ``probes.LASTS_S``."""


def host_of(relay: NodeId) -> str:
    return f"198.51.100.{RELAYS.index(relay) + 1}"


@dataclass
class End:
    """One end: its machine, and what its interface holds."""

    path: RelayedPath
    outlook: Outlook
    endpoint: str | None = None
    present: bool = True
    handshake_s: float = 0.0
    rx: int = 0
    wanted: bool = True
    alone: bool = False
    """It has no link to anybody."""
    asleep: bool = False
    load: int = 0
    """Bytes that come in each step, besides keepalives."""
    cut: set[NodeId] = field(default_factory=set)
    """Relays that it has no link to."""
    blocked: set[NodeId] = field(default_factory=set)
    """Relays that its UDP does not get to."""
    bound: tuple[str, float] | None = None
    resets: int = 0
    probes: bool = False
    """Its machine can probe."""
    answered_s: float = float("-inf")
    """When a direct probe was answered last."""
    mutes: bool = False
    """It notices a tunnel that answers nothing, although its handshake is fresh."""
    unheard: bool = False
    """Its echoes come back late: it takes any tunnel for mute."""
    moving: EndpointMove | None = None
    heard_s: float = 0.0
    """When it heard from the other end last."""
    since_s: float = 0.0
    """When it sent its first packet to where it sends now."""


class Pair:
    """``direct``: whether packets get through without a relay."""

    def __init__(
        self,
        outlook: Outlook = Outlook.HOPELESS,
        *,
        direct: bool = False,
        relays: int = 2,
        probes: bool = False,
        wire: Random | None = None,
    ) -> None:
        """``wire``: draws how late messages are, and which are lost; None: none is either."""
        self.now_s = 100.0
        self.wire = wire
        self.loss = 0.0
        self.late_s_max = 0.0
        self._on_the_way: list[tuple[float, int, Callable[[], None]]] = []
        self._sent = 0
        self.loses: tuple[NodeId, type[RelayAnswer]] | None = None
        """The next word of this kind to this end is lost."""
        self.frozen: dict[tuple[NodeId, tuple[int, int]], float] = {}
        """Since when nothing crosses two ports of a relay."""
        self.knows: dict[tuple[NodeId, tuple[int, int]], set[NodeId]] = {}
        """Which ends are proved to be where they are, at two ports of a relay."""
        self.leaving: set[NodeId] = set()
        """Relays whose records say that they are none any more."""
        self.held_max = 0
        """Reservations of the pair at one moment, at most."""
        self.direct = self._was_direct = direct
        self._direct_at_s = self._dead_at_s = float("inf")
        self.relays = RELAYS[:relays]
        self.dead: set[NodeId] = set()
        self.ends = {LOW: End(RelayedPath(LOW, HIGH), outlook), HIGH: End(RelayedPath(HIGH, LOW), outlook)}
        self.desks: dict[NodeId, RelayDesk] = {}
        self.used: list[tuple[NodeId | None, NodeId | None]] = []
        """What the two ends used, whenever that changed."""
        for end in self.ends.values():
            end.probes = probes
        for relay in self.relays:
            self.start(relay)

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, UNIX_S + self.now_s)

    def start(self, relay: NodeId, limits: RelayLimits | None = None) -> None:
        """Starts a relay, which has forgotten all."""
        desk = self.desks[relay] = RelayDesk(relay, limits or RelayLimits(), Counters(), bind_key=relay)
        for place in [one for one in self.knows if one[0] == relay]:
            del self.knows[place]
        keys = tuple((node, WireGuardKey(node)) for node in self.ends)
        desk.handle(RelayMembersShown(members=keys), self.now)
        self.dead.discard(relay)

    def retire(self, relay: NodeId, *, willing: bool = False) -> None:
        self._deliver(relay, self.desks[relay].handle(RelayWilling(willing=willing), self.now))

    def restart(self, node: NodeId) -> None:
        """Starts an end's agent anew: it knows what its interface holds."""
        end = self.ends[node]
        end.path, end.bound, end.moving = RelayedPath(node, end.path.peer), None, None

    def part(self) -> None:
        """Cuts the end with the lower id off from everybody; the rest comes to hold it dead."""
        self._was_direct, self.direct = self.direct, False
        low = self.ends[LOW]
        low.alone, low.cut, low.blocked = True, set(self.relays), set(self.relays)
        self._dead_at_s = self.now_s + BURIED_S

    def meet(self, *, tunnel_later_s: float | None) -> None:
        """Ends that. ``tunnel_later_s``: when a packet gets through directly after that; None: never."""
        low, high = self.ends.values()
        low.alone, high.wanted, self._dead_at_s = False, True, float("inf")
        low.cut, low.blocked = set(), set()
        if tunnel_later_s is not None and self._was_direct:
            self._direct_at_s = self.now_s + tunnel_later_s

    def run(self, for_s: float) -> None:
        for _ in range(round(for_s / STEP_S)):
            self.step()

    def works(self) -> bool:
        """Says whether what one end sends now arrives at the other, both ways."""
        return all(self._arrives(end) for end in self.ends.values())

    def relay(self) -> NodeId | None:
        """Returns the relay that both use."""
        low, high = (end.path.used for end in self.ends.values())
        return low if low == high else None

    def step(self) -> None:
        self.now_s += STEP_S
        if self.now_s >= self._direct_at_s:
            self.direct, self._direct_at_s = True, float("inf")
        if self.now_s >= self._dead_at_s:
            self.ends[HIGH].wanted = False
        self._arrive()
        for relay, desk in self.desks.items():
            if relay not in self.dead:
                self._deliver(relay, desk.handle(Tick(), self.now))
        self._probe()
        awake = {node: end for node, end in self.ends.items() if not end.asleep}
        for node, end in awake.items():
            for relay, message in end.path.update(self._look(end), self.now):
                if isinstance(message, TrialMeant):
                    self._mean(end)
                elif relay not in end.cut:
                    asked = RelayRequested(peer=node, message=message)
                    self._send(partial(self._ask, relay, asked))
            end.moving = end.path.take_move() or end.moving
            self._bind(node, end)
        for end in awake.values():
            self._apply(end)
        self._carry()
        self._shake()
        self.held_max = max(self.held_max, sum(len(one.reservations) for one in self.desks.values()))
        used = tuple(end.path.used for end in self.ends.values())
        if not self.used or self.used[-1] != used:
            self.used.append((used[0], used[1]))

    # --- messages -------------------------------------------------------------------------------------------

    def _send(self, arrives: Callable[[], None]) -> None:
        if self.wire is None:
            arrives()
        elif self.wire.random() >= self.loss:
            at_s = self.now_s + self.wire.uniform(0.0, self.late_s_max)
            self._sent += 1
            self._on_the_way.append((at_s, self._sent, arrives))

    def _arrive(self) -> None:
        due = sorted((one for one in self._on_the_way if one[0] <= self.now_s), key=lambda one: one[:2])
        self._on_the_way = [one for one in self._on_the_way if one[0] > self.now_s]
        for _, _, arrives in due:
            arrives()

    def _ask(self, relay: NodeId, asked: RelayRequested) -> None:
        if relay not in self.dead and relay not in self.ends[asked.peer].cut:
            self._deliver(relay, self.desks[relay].handle(asked, self.now))

    # --- the wire -------------------------------------------------------------------------------------------

    def _look(self, end: End) -> PairLook:
        linked = frozenset(one for one in self.relays if one not in self.dead and one not in end.cut)
        held = ObservedPeer(
            public_key=WireGuardKey(b"k" * 32),
            allowed_ips=(),
            endpoint=end.endpoint,
            keepalive_s=25,
            latest_handshake_unix_s=int(end.handshake_s),
            rx_bytes=end.rx,
            tx_bytes=0,
        )
        return PairLook(
            wanted=end.wanted,
            outlook=end.outlook,
            ways=(OWN,),
            relays=tuple((one, host_of(one)) for one in self.relays),
            linked=linked,
            held=held if end.present else None,
            tells=not end.alone,
            alone=end.alone,
            tries=True,
            mute=end.unheard or (end.mutes and self.now_s >= end.heard_s + MUTE_AFTER_S),
            probes=end.probes,
            checks=end.probes,
            leaving=end.path.used in self.leaving,
            bound=end.bound,
            through=self._through(end),
            proved=((OWN, end.answered_s),) if self.now_s < end.answered_s + PROOF_S else (),
        )

    def _through(self, end: End) -> NodeId | None:
        """Returns the relay that an end's endpoint is of, where its agent does not know by itself."""
        if end.endpoint is None or end.endpoint == OWN or end.path.goes_through(end.endpoint):
            return None
        return next((one for one in self.relays if end.endpoint.startswith(f"{host_of(one)}:")), None)

    def _mean(self, end: End) -> None:
        other = self.ends[end.path.peer]
        if other.path.on_meant(self.now) is not None:
            end.path.on_meant(self.now)

    def _deliver(self, relay: NodeId, effects: list[RelayEffect]) -> None:
        for effect in effects:
            match effect:
                case OpenRelay(ports=ports):
                    self.frozen.pop((relay, ports), None)
                    self._deliver(relay, self.desks[relay].handle(RelayOpened(ports=ports), self.now))
                case CloseRelay(ports=ports):
                    self.frozen.pop((relay, ports), None)
                    self.knows.pop((relay, ports), None)
                case FreezeRelay(ports=ports, at_s=at_s):
                    self.frozen[relay, ports] = at_s
                case WakeRelay(ports=ports):
                    self.frozen.pop((relay, ports), None)
                case Send(peer=peer, message=message):
                    assert isinstance(message, RelayAnswer)
                    self._send(partial(self._tell, relay, peer, message))
                case _:
                    pass

    def _tell(self, relay: NodeId, peer: NodeId, message: RelayAnswer) -> None:
        end = self.ends[peer]
        if self.loses is not None and self.loses[0] == peer and isinstance(message, self.loses[1]):
            self.loses = None
        elif not end.asleep and relay not in end.cut and relay not in self.dead:
            end.path.on_message(relay, message, self.now)

    def _probe(self) -> None:
        able = self.direct and all(end.probes and end.path.used is not None for end in self.ends.values())
        for end in self.ends.values():
            if able and self.now_s >= end.answered_s + PROBE_S:
                end.answered_s = self.now_s

    def _bind(self, node: NodeId, end: End) -> None:
        """Shows a relay where the end is, as ``Bindings`` does, and hears its answer."""
        place = end.path.binding(end.handshake_s) if end.probes else None
        if place is None:
            end.bound = None
            return
        found = self._lent(node, place.endpoint)
        if found is not None and found[0] not in end.blocked:
            end.bound = (place.endpoint, self.now_s)
            if place.kind is BindingKind.QUESTION:
                self.knows.setdefault(found, set()).add(node)

    def _apply(self, end: End) -> None:
        """Does to the interface what the agent does."""
        move = end.moving
        if move is not None and self.now_s >= move.at_s:
            end.moving = None
            if end.present:
                end.endpoint, end.since_s = move.endpoint, self.now_s
        if end.path.absent:
            end.resets += end.present
            end.present, end.endpoint, end.handshake_s, end.rx = False, None, 0.0, 0
            return
        end.present = True
        wanted = end.path.endpoint(self.now)
        trial = end.path.phase is Phase.TRIAL and not end.path.waits(self.now)
        if wanted is None and (end.path.used is None or trial or end.path.phase is Phase.HELD):
            wanted = OWN
        fresh = end.handshake_s and UNIX_S + self.now_s - end.handshake_s < 180
        if wanted is not None and not fresh and wanted != end.endpoint:
            end.endpoint, end.since_s = wanted, self.now_s

    def _arrives(self, end: End) -> bool:
        """A packet needs a way that leads to the other end, and the other to answer on the same."""
        other = next(one for one in self.ends.values() if one is not end)
        if end.asleep or other.asleep or not end.present or not other.present:
            return False
        if end.endpoint is None or other.endpoint is None:
            return False
        return self._passes(end) and other.endpoint == self._source(end)

    def _passes(self, end: End) -> bool:
        """Says whether what an end sends arrives at the other machine."""
        if end.endpoint == OWN:
            return self.direct
        place = self._place(end)
        if place is None or any(place[0] in one.blocked for one in self.ends.values()):
            return False
        session = all(one.handshake_s for one in self.ends.values()) and not self._is_silent()
        if session and len(self.knows.get(place, ())) < 2:
            return False
        return not self.now_s >= self.frozen.get(place, float("inf"))

    def _place(self, end: End) -> tuple[NodeId, tuple[int, int]] | None:
        """Returns the relay and the ports that an end sends to, where they are its pair's."""
        return self._lent(end.path.me, end.endpoint)

    def _lent(self, node: NodeId, endpoint: str | None) -> tuple[NodeId, tuple[int, int]] | None:
        for relay in self.relays:
            if relay not in self.dead:
                for held in self.desks[relay].reservations:
                    port = held.ports[held.pair.index(node)]
                    if endpoint == f"{host_of(relay)}:{port}":
                        return relay, held.ports
        return None

    def _source(self, end: End) -> str:
        """Returns where the other end sees an end's packets come from."""
        place = self._place(end)
        if place is None:
            return OWN
        relay, ports = place
        mine = f"{host_of(relay)}:{ports[0]}"
        return f"{host_of(relay)}:{ports[1]}" if end.endpoint == mine else mine

    def _carry(self) -> None:
        """Each end sends; who gets a packet of a session roams to where it came from."""
        for end, other in zip(self.ends.values(), reversed(self.ends.values()), strict=True):
            session = end.handshake_s and other.handshake_s and end.present and other.present
            asleep = end.asleep or other.asleep
            if session and not asleep and end.endpoint is not None and self._passes(end):
                other.endpoint, other.heard_s = self._source(end), self.now_s

    def _is_silent(self) -> bool:
        """Says whether nothing came for so long that WireGuard shakes hands again."""
        return any(
            end.handshake_s and self.now_s >= max(end.heard_s, end.handshake_s - UNIX_S) + SILENT_S
            for end in self.ends.values()
        )

    def _shake(self) -> None:
        if not self.works():
            return
        silent = self._is_silent()
        for relay, desk in self.desks.items():
            for held in desk.reservations if relay == self.relay() else ():
                carried = RelayCarried(ports=held.ports, packets=held.packets + 1)
                desk.handle(carried, self.now)
        for end in self.ends.values():
            end.rx += 1 + end.load
            if silent or not end.handshake_s or UNIX_S + self.now_s - end.handshake_s > 120:
                end.handshake_s = UNIX_S + self.now_s
                if (place := self._place(end)) is not None:
                    self.knows[place] = set(self.ends)

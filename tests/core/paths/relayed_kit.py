"""Two ends of a pair, real desks of relays, and a wire on which a handshake needs both ends to use the same
way."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Send, Tick
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.paths.direct_trial import TrialMeant
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.relay import RelayDesk, RelayLimits
from meshpeer.core.paths.relay_messages import (
    OpenRelay,
    RelayCarried,
    RelayEffect,
    RelayFreed,
    RelayGranted,
    RelayMembersShown,
    RelayOpened,
    RelayRefused,
    RelayRequested,
)
from meshpeer.core.paths.relayed import RelayedPath
from meshpeer.core.paths.relayed_look import PairLook, Phase
from meshpeer.core.wgconf.model import ObservedPeer

UNIX_S = 1_900_000_000.0
LOW, HIGH = NodeId(b"\1" * 32), NodeId(b"\2" * 32)
RELAYS = tuple(NodeId(bytes([0x60 + number]) * 32) for number in range(3))
STEP_S = 0.25
OWN = "203.0.113.1:51820"


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
    load: int = 0
    """Bytes that come in each step, besides keepalives."""
    cut: set[NodeId] = field(default_factory=set)
    """Relays that it has no link to."""
    resets: int = 0
    since_s: float = 0.0
    """When it sent its first packet to where it sends now."""


class Pair:
    """``direct``: whether packets get through without a relay."""

    def __init__(self, outlook: Outlook = Outlook.HOPELESS, *, direct: bool = False, relays: int = 2) -> None:
        self.now_s = 100.0
        self.direct = direct
        self.relays = RELAYS[:relays]
        self.dead: set[NodeId] = set()
        self.ends = {LOW: End(RelayedPath(LOW, HIGH), outlook), HIGH: End(RelayedPath(HIGH, LOW), outlook)}
        self.desks: dict[NodeId, RelayDesk] = {}
        self.used: list[tuple[NodeId | None, NodeId | None]] = []
        """What the two ends used, whenever that changed."""
        for relay in self.relays:
            self.start(relay)

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, UNIX_S + self.now_s)

    def start(self, relay: NodeId, limits: RelayLimits | None = None) -> None:
        """Starts a relay, which has forgotten all."""
        desk = self.desks[relay] = RelayDesk(relay, limits or RelayLimits(), Counters())
        keys = tuple((node, WireGuardKey(node)) for node in self.ends)
        desk.handle(RelayMembersShown(members=keys), self.now)
        self.dead.discard(relay)

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
        for relay, desk in self.desks.items():
            if relay not in self.dead:
                self._deliver(relay, desk.handle(Tick(), self.now))
        for node, end in self.ends.items():
            for relay, message in end.path.update(self._look(end), self.now):
                if isinstance(message, TrialMeant):
                    self._mean(end)
                elif relay not in self.dead and relay not in end.cut:
                    asked = RelayRequested(peer=node, message=message)
                    self._deliver(relay, self.desks[relay].handle(asked, self.now))
        for end in self.ends.values():
            self._apply(end)
        self._shake()
        used = tuple(end.path.used for end in self.ends.values())
        if not self.used or self.used[-1] != used:
            self.used.append((used[0], used[1]))

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
            tells=True,
            tries=True,
        )

    def _mean(self, end: End) -> None:
        other = self.ends[end.path.peer]
        if other.path.on_meant(self.now) is not None:
            end.path.on_meant(self.now)

    def _deliver(self, relay: NodeId, effects: list[RelayEffect]) -> None:
        for effect in effects:
            if isinstance(effect, OpenRelay):
                self._deliver(relay, self.desks[relay].handle(RelayOpened(ports=effect.ports), self.now))
            elif isinstance(effect, Send):
                end = self.ends[effect.peer]
                assert isinstance(effect.message, RelayGranted | RelayRefused | RelayFreed)
                if relay not in end.cut:
                    end.path.on_message(relay, effect.message, self.now)

    def _apply(self, end: End) -> None:
        """Does to the interface what the agent does."""
        if end.path.absent:
            end.resets += end.present
            end.present, end.endpoint, end.handshake_s, end.rx = False, None, 0.0, 0
            return
        end.present = True
        wanted = end.path.endpoint(self.now)
        trial = end.path.phase is Phase.TRIAL and not end.path.waits(self.now)
        if wanted is None and (end.path.used is None or trial):
            wanted = OWN
        fresh = end.handshake_s and UNIX_S + self.now_s - end.handshake_s < 180
        if wanted is not None and not fresh and wanted != end.endpoint:
            end.endpoint, end.since_s = wanted, self.now_s

    def _arrives(self, end: End) -> bool:
        """A packet needs a way that leads to the other end, and the other to answer on the same."""
        other = next(one for one in self.ends.values() if one is not end)
        if not end.present or not other.present or end.endpoint is None or other.endpoint is None:
            return False
        if end.endpoint == OWN:
            return self.direct and other.endpoint == OWN
        for relay in self.relays:
            if end.endpoint.startswith(host_of(relay) + ":") and relay not in self.dead:
                ports = [held.ports for held in self.desks[relay].reservations]
                ends = {f"{host_of(relay)}:{port}" for pair in ports for port in pair}
                return {end.endpoint, other.endpoint} == ends
        return False

    def _shake(self) -> None:
        if not self.works():
            return
        for relay, desk in self.desks.items():
            for held in desk.reservations if relay == self.relay() else ():
                carried = RelayCarried(ports=held.ports, packets=held.packets + 1)
                desk.handle(carried, self.now)
        for end in self.ends.values():
            end.rx += 1 + end.load
            if not end.handshake_s or UNIX_S + self.now_s - end.handshake_s > 120:
                end.handshake_s = UNIX_S + self.now_s

"""One pair's two ports at a relay, and what the relay says of them to each end."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Send
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.paths.relay_binding import NO_BINDS, Binds
from meshpeer.core.paths.relay_messages import Pair, RekeyRelay, RelayFrozen, RelayGranted
from meshpeer.core.paths.relay_states import RelayState, check_move

LEASE_S = 120
"""How long a reservation lasts that nobody renews; an end renews it every third of that."""
IDLE_S = 180.0
"""How long nothing may cross. A tunnel in use sends a keepalive every 25 s; a frozen pair is about to go."""
ASKED_LASTS_S = 5.0
"""How long an end's word stands that it wants the relay; it repeats it every second. One that lost its
link, or sleeps, may be elsewhere by now."""
READY_LASTS_S = 3.0
"""How long an end's word stands that it is ready to leave."""
FREEZE_AHEAD_S = 0.5
"""How far ahead the instant lies at which both leave: their links carry the word of it, and agents may be
busy."""


@dataclass(slots=True)
class Reservation:
    """One pair's two ports."""

    pair: Pair
    keys: tuple[WireGuardKey, WireGuardKey]
    ports: tuple[int, int]
    state: RelayState
    expires_s: float
    used_s: float
    """When something crossed last, or could not because the ends wanted it so."""
    coming: tuple[WireGuardKey | None, WireGuardKey | None] = (None, None)
    """The keys that the ends change to."""
    binds: Binds = NO_BINDS
    asked: dict[NodeId, float] = field(default_factory=dict)
    """The ends that asked for it, and when each last said that it still wants it."""
    planned: bool = False
    """One of them while the relay before this one still worked."""
    ready: dict[NodeId, tuple[float, bytes]] = field(default_factory=dict)
    """When an end said last that it is ready to leave, and where to."""
    frozen_at_s: float = 0.0
    frozen_to: bytes = b""
    packets: int = 0
    """Those that crossed, and those that did not, as last reported."""
    drops: int = 0

    def move_to(self, state: RelayState) -> None:
        check_move(self.state, state, story=f"reservation of ports {self.ports}")
        self.state = state

    def rekey(self) -> RekeyRelay:
        """Returns what lets the keys of both ends through, those that they change to included."""
        first, second = (
            (key,) if later is None else (key, later)
            for key, later in zip(self.keys, self.coming, strict=True)
        )
        return RekeyRelay(ports=self.ports, keys=(first, second))

    @property
    def ends_s(self) -> float:
        return min(self.expires_s, self.used_s + IDLE_S)

    def is_wanted_by(self, end: NodeId, now: Instant) -> bool:
        return end in self.asked and now.mono_s < self.asked[end] + ASKED_LASTS_S

    def are_ready(self, to: bytes, now: Instant) -> bool:
        """Says whether both ends said of late that they are ready to leave for the same place."""
        fresh = [
            end
            for end, (at_s, place) in self.ready.items()
            if now.mono_s < at_s + READY_LASTS_S and place == to
        ]
        return len(fresh) == len(self.pair)

    def grant(self, end: NodeId, now: Instant, *, retires: bool) -> Send:
        side = self.pair.index(end)
        granted = RelayGranted(
            pair=self.pair,
            port=self.ports[side],
            lasts_s=LEASE_S,
            both=all(self.is_wanted_by(one, now) for one in self.pair),
            theirs=self.is_wanted_by(self.pair[1 - side], now),
            frozen=self.state is RelayState.FROZEN,
            clock_ms=round(now.mono_s * 1000),
            bind=self.binds[side],
            checks=bool(self.binds[side]),
            planned=self.planned,
            retires=retires,
        )
        return Send(peer=end, message=granted)

    def frozen(self, end: NodeId, now: Instant) -> Send:
        in_ms = max(0, round((self.frozen_at_s - now.mono_s) * 1000))
        clock_ms = round(self.frozen_at_s * 1000)
        said = RelayFrozen(pair=self.pair, in_ms=in_ms, clock_ms=clock_ms, to=self.frozen_to)
        return Send(peer=end, message=said)

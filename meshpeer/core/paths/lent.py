"""What relays lent to one end of a pair: whom it asks, who granted what, who is passed over and for how long.

The relay is the place where the ends agree. Either may ask one first; the relay tells both, the other end
asks there, too, and a grant that says ``both`` is the word from which both use it. An end asks one relay at a
time, and says so where it asks it no more. Who leads where ends ask different ones: see ``relayed``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.back_off import FIRST_S, BackOffs
from meshpeer.core.paths.relay_binding import SECRET_BYTES
from meshpeer.core.paths.relay_messages import (
    Pair,
    RelayEnd,
    RelayFreed,
    RelayFrozen,
    RelayGranted,
    RelayRefusal,
    RelayRefused,
    RelayRequest,
)
from meshpeer.core.paths.relayed_look import Said

SAY_EVERY_S = 1.0
"""How often a relay in use, or asked, hears of this end; it answers each time."""
LINK_WAIT_S = 3.0
"""How long a link to a relay may take to come up."""
AGREE_S_MAX = 10.0
"""How long both ends may take to ask for the same relay."""
FOLLOW_S = 10.0
"""For how long a relay's word that the other end asked for it stands."""
WISH_S = 2.5
"""An end that waits for a relay asks it every second: what was asked so long ago is waited for no more."""
YIELDS_S = 2.5
"""How long the end that leads waits for the other, which asks another relay, to ask the same as itself; then
it follows that one, which may have no link there."""
READY_S = 5.0
"""For how long a relay's word stands that both asked."""
OVER_S = 3.0
"""For how long an answer counts for nothing that names ports which were given back: it was on its way."""
AGAIN_S = 2.0
"""For how long a relay is passed over that may take the pair when it is asked anew."""
ANY_PORT = 0
"""Of a relay that was asked no more before it answered."""
ENDS_REMEMBERED = 8
CLOCK_WORDS = 16
"""Of so many words of a relay the one that was on its way for the shortest time tells its clock."""


@dataclass(slots=True)
class _Grant:
    port: int
    since_s: float
    heard_s: float
    both: bool = False
    frozen_since_s: float | None = None
    bind: bytes = b""
    checks: bool = False
    both_since_s: float = 0.0
    theirs: bool = True
    planned: bool = False
    retires: bool = False
    ahead_s: tuple[float, ...] = ()
    """How far this node's clock is ahead of the relay's, by its last words, each with its time on the way."""


@dataclass(slots=True)
class Lent:
    """Of one end of one pair. Sans-IO."""

    pair: Pair
    leads: bool = False
    """This end has the lower id."""
    asking: NodeId | None = None
    """The relay that this end waits for."""
    hosts: Mapping[NodeId, str] = field(default_factory=dict)
    """Those that could relay, best first, with where this node reaches each."""
    back_off: BackOffs = field(default_factory=BackOffs)
    _grants: dict[NodeId, _Grant] = field(default_factory=dict)
    _over: dict[NodeId, tuple[int, float]] = field(default_factory=dict)
    """The port that was given back, and when."""
    _asking_since_s: float = 0.0
    _said_s: dict[tuple[NodeId, str], float] = field(default_factory=dict)
    _ends: dict[str, None] = field(default_factory=dict)
    """Endpoints of relays that were used: no handshake there is a direct one."""

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def holds_any(self) -> bool:
        return bool(self._grants)

    def holds(self, relay: NodeId) -> bool:
        return relay in self._grants

    def port_at(self, relay: NodeId) -> int:
        """Returns the port that a relay lends; 0 where it lends none."""
        grant = self._grants.get(relay)
        return grant.port if grant else 0

    def is_newer(self, relay: NodeId, used: NodeId) -> bool:
        """Says whether both ends asked a relay later than the one in use."""
        one, other = self._grants.get(relay), self._grants.get(used)
        return one is not None and (other is None or not other.both or one.both_since_s > other.both_since_s)

    def heard_s(self, relay: NodeId) -> float:
        """Returns when a relay granted, or answered last; 0 for one that lends nothing."""
        grant = self._grants.get(relay)
        return grant.heard_s if grant else 0.0

    def retires(self, relay: NodeId) -> bool:
        """Says whether a relay said that it is about to end what it lent."""
        grant = self._grants.get(relay)
        return grant is not None and grant.retires

    def is_planned(self, relay: NodeId) -> bool:
        """Says whether an end asked a relay while the one in use still worked."""
        grant = self._grants.get(relay)
        return grant is not None and grant.planned

    def secret_of(self, relay: NodeId) -> bytes:
        """Returns what this end's bindings at a relay are sealed with; empty where it can't bind there."""
        grant = self._grants.get(relay)
        return grant.bind if grant is not None else b""

    def answers_checks(self, relay: NodeId) -> bool:
        """Says whether a relay lends a port that can be asked whether it is reached."""
        grant = self._grants.get(relay)
        return grant is not None and grant.checks and bool(grant.bind) and relay in self.hosts

    def is_frozen(self, relay: NodeId, for_s: float, now: Instant) -> bool:
        """Says whether a relay has said for so long that nothing crosses."""
        grant = self._grants.get(relay)
        since_s = grant.frozen_since_s if grant else None
        return since_s is not None and now.mono_s >= since_s + for_s

    def instant_of(self, relay: NodeId, message: RelayFrozen, now: Instant) -> float:
        """Returns when it is, by this node's clock, what a relay's is to show. A word that was long on its
        way, or that a busy agent read late, does not put it off."""
        grant = self._grants.get(relay)
        latest_s = now.mono_s + message.in_ms / 1000
        if grant is None or not grant.ahead_s:
            return latest_s
        return min(latest_s, message.clock_ms / 1000 + min(grant.ahead_s))

    def end_at(self, relay: NodeId) -> str:
        """Returns the endpoint that a relay lends; empty where it lends none."""
        grant = self._grants.get(relay)
        return f"{self.hosts[relay]}:{grant.port}" if grant and relay in self.hosts else ""

    def goes_through(self, endpoint: str | None) -> bool:
        """Says whether an endpoint is that of a relay of this pair."""
        return endpoint is not None and endpoint in self._ends

    def next_one(self, used: NodeId | None, now: Instant, left: NodeId | None = None) -> NodeId | None:
        """Returns the relay to ask next: not the one that was left, which is frozen."""
        for relay in self.hosts:
            if relay not in (used, left) and not self.back_off.passes_over(relay, now):
                return relay
        return None

    def followed(self, used: NodeId | None, linked: Collection[NodeId], now: Instant) -> NodeId | None:
        """Returns the relay that the other end waits for, where this end is to ask it, too: always, unless it
        leads and waits for another one since a moment ago only."""
        holds_on = self.leads and self.asking in linked
        if holds_on and now.mono_s < self._asking_since_s + YIELDS_S:
            return None
        wished = [
            (grant.since_s, relay)
            for relay, grant in self._grants.items()
            if relay not in (used, self.asking)
            and grant.theirs
            and not grant.both
            and now.mono_s < grant.since_s + FOLLOW_S
            and now.mono_s < grant.heard_s + WISH_S
            and relay in linked
            and not (holds_on and now.mono_s < grant.since_s + YIELDS_S)
        ]
        return max(wished)[1] if wished else None

    def ready(self, used: NodeId | None, now: Instant, left: NodeId | None = None) -> NodeId | None:
        """Returns the relay that both ends asked for last, other than the one in use and the one that was
        left; no frozen one, which brings no handshake."""
        found = [
            (grant.both_since_s, relay)
            for relay, grant in self._grants.items()
            if grant.both
            and grant.frozen_since_s is None
            and relay not in (used, left)
            and now.mono_s < grant.heard_s + READY_S
        ]
        return max(found)[1] if found else None

    # --- events ---------------------------------------------------------------------------------------------

    def follow(self, relays: tuple[tuple[NodeId, str], ...]) -> None:
        """Takes those that could relay; what others lent counts for nothing any more."""
        self.hosts = dict(relays)
        for gone in [one for one in self._grants if one not in self.hosts]:
            del self._grants[gone]

    def on_message(
        self, relay: NodeId, message: RelayGranted | RelayRefused | RelayFreed, now: Instant
    ) -> None:
        """Takes a relay's word; that of whoever is none for this pair counts for nothing."""
        if relay not in self.hosts:
            return
        match message:
            case RelayGranted(port=port, both=both, frozen=frozen, clock_ms=clock_ms):
                if not 0 < port <= 65_535 or len(message.bind) > SECRET_BYTES:
                    return
                if both and self._is_over(relay, port, now):
                    return
                held = self._grants.get(relay)
                if held is None or held.port != port:
                    held = self._grants[relay] = _Grant(port, now.mono_s, now.mono_s)
                if both and not held.both:
                    held.both_since_s = now.mono_s
                held.heard_s, held.both, held.theirs = now.mono_s, both, message.theirs
                held.checks = message.checks
                held.bind, held.planned, held.retires = message.bind, message.planned, message.retires
                held.ahead_s = (*held.ahead_s, now.mono_s - clock_ms / 1000)[-CLOCK_WORDS:]
                since_s = held.frozen_since_s
                held.frozen_since_s = (now.mono_s if since_s is None else since_s) if frozen else None
            case RelayRefused(reason=reason):
                self._grants.pop(relay, None)
                at_once = reason in (RelayRefusal.PORT, RelayRefusal.UNKNOWN) and relay != self.asking
                self.fail(relay, now, AGAIN_S if at_once else FIRST_S)
            case RelayFreed():
                if self._grants.pop(relay, None) is not None:
                    self.fail(relay, now, AGAIN_S)

    def ask_for(self, relay: NodeId, now: Instant) -> None:
        if relay != self.asking:
            self.asking, self._asking_since_s = relay, now.mono_s
            if relay in self._over and self._over[relay][0] == ANY_PORT:
                del self._over[relay]

    def stop_waiting(self, linked: Collection[NodeId], now: Instant) -> list[Said]:
        """Gives up the relay that is asked where it took too long."""
        if self.asking is None:
            return []
        waited_s = now.mono_s - self._asking_since_s
        late = self.asking not in linked and waited_s >= LINK_WAIT_S
        grant = self._grants.get(self.asking)
        # The other end may have come late: what follows has its own limits.
        agreed_s = grant.both_since_s if grant is not None and grant.both else self._asking_since_s
        vain = now.mono_s >= max(agreed_s, self._asking_since_s) + AGREE_S_MAX
        if late or vain or self.asking not in self.hosts:
            said = self.withdraw(self.asking, linked, now)
            self.fail(self.asking, now)
            return said
        return []

    def say(self, relay: NodeId, message: RelayRequest, now: Instant) -> list[Said]:
        """Returns what to say to a relay: each kind of word now and then only."""
        kind = (relay, type(message).__name__)
        if now.mono_s < self._said_s.get(kind, float("-inf")) + SAY_EVERY_S:
            return []
        self._said_s = {one: at_s for one, at_s in self._said_s.items() if one[0] in self.hosts}
        self._said_s[kind] = now.mono_s
        return [(relay, message)]

    def free(self, relay: NodeId, linked: Collection[NodeId], now: Instant) -> list[Said]:
        held = self.forget(relay, now)
        return [(relay, RelayFreed(pair=self.pair))] if held and relay in linked else []

    def withdraw(self, relay: NodeId, linked: Collection[NodeId], now: Instant) -> list[Said]:
        """Asks a relay no more, whether it has answered or not; the other end may go on to."""
        self.forget(relay, now)
        self._over[relay] = (ANY_PORT, now.mono_s)
        if relay not in linked:
            return []
        return [(relay, RelayFreed(pair=self.pair, reason=RelayEnd.WITHDRAWN.value))]

    def tidy(self, kept: Collection[NodeId | None], linked: Collection[NodeId], now: Instant) -> list[Said]:
        """Withdraws from relays that heard of this end's ask too late, and of nobody else's."""
        late = [relay for relay, one in self._grants.items() if not one.theirs and relay not in kept]
        return [said for relay in sorted(late) for said in self.withdraw(relay, linked, now)]

    def forget(self, relay: NodeId, now: Instant) -> bool:
        """Takes what a relay lent for over, without a word; returns whether it lent anything."""
        held = self._grants.pop(relay, None)
        self._forget_said(relay)
        if held is not None:
            self._over = {one: over for one, over in self._over.items() if now.mono_s < over[1] + OVER_S}
            self._over[relay] = (held.port, now.mono_s)
        return held is not None

    def free_but(
        self, kept: Collection[NodeId | None], linked: Collection[NodeId], now: Instant
    ) -> list[Said]:
        """Gives back all but some."""
        surplus = sorted(one for one in self._grants if one not in kept)
        return [said for relay in surplus for said in self.free(relay, linked, now)]

    def free_all(self, linked: Collection[NodeId], now: Instant) -> list[Said]:
        self.asking = None
        return self.free_but((), linked, now)

    def fail(self, relay: NodeId, now: Instant, first_s: float = FIRST_S) -> None:
        """Passes a relay over for a while."""
        self.back_off.fail(relay, now, first_s)
        self._forget_said(relay)
        if relay == self.asking:
            self.asking = None

    def remember_end(self, relay: NodeId) -> None:
        end = self.end_at(relay)
        self._ends.pop(end, None)
        self._ends[end] = None
        while len(self._ends) > ENDS_REMEMBERED:
            del self._ends[next(iter(self._ends))]

    def _is_over(self, relay: NodeId, port: int, now: Instant) -> bool:
        over = self._over.get(relay)
        return over is not None and over[0] in (port, ANY_PORT) and now.mono_s < over[1] + OVER_S

    def _forget_said(self, relay: NodeId) -> None:
        self._said_s = {one: at_s for one, at_s in self._said_s.items() if one[0] != relay}

"""What one end of a pair holds of relays, what can be told from that, and its smallest steps.

What follows from a look at the pair is decided in ``relayed``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.bindings import Place
from meshpeer.core.paths.direct_trial import Trials
from meshpeer.core.paths.hop import Hop
from meshpeer.core.paths.lent import Lent
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.patience import Patience
from meshpeer.core.paths.reach import Reach
from meshpeer.core.paths.relay_health import STALE_RX_S, RelayHealth
from meshpeer.core.paths.relay_messages import Pair
from meshpeer.core.paths.relayed_look import PairLook, Phase
from meshpeer.core.paths.upgrade import MUTE_S, EndpointMove, Upgrade
from meshpeer.core.wgconf.model import tunnel_works

SECOND_WAITS_S = 0.3
"""As in ``node.entries``."""
HOPELESS_PROBES_S = 20.0
"""For how long a pair that is new at its relay looks for a way of its own without a hope: each end asks some
ten times."""


@dataclass(slots=True)
class RelayedState:
    """Of one end of one pair. Sans-IO."""

    me: NodeId
    peer: NodeId
    phase: Phase = Phase.DIRECT
    used: NodeId | None = None
    """The relay in use."""
    moves: int = 0
    """How often a relay was taken into use."""
    hops: int = 0
    """How often of these the session went on."""
    _counted: tuple[int, int] = (0, 0)
    lent: Lent = field(init=False)
    upgrade: Upgrade = field(default_factory=Upgrade)
    hop: Hop = field(init=False)
    reach: Reach = field(init=False)
    _since_s: float = 0.0
    """When the phase began."""
    _patience: Patience = field(default_factory=Patience)
    _health: RelayHealth = field(default_factory=RelayHealth)
    _direct_since_s: float | None = None
    _used_since_s: float = 0.0
    _used_port: int = 0
    """That of the relay in use, as it was taken up: another one is another reservation."""
    _met: bool = False
    """Both ends have shaken hands at the relay in use, which knows where they are."""
    _trials: Trials = field(init=False)
    _busy: bool = False
    _looked_s: float = 0.0

    def __post_init__(self) -> None:
        self.lent = Lent(self.pair, leads=self.me < self.peer)
        self.hop = Hop(self.lent)
        self.reach = Reach(self.lent)
        self._trials = Trials(first=self.me < self.peer)

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def pair(self) -> Pair:
        return (self.me, self.peer) if self.me < self.peer else (self.peer, self.me)

    @property
    def absent(self) -> bool:
        """Says whether the peer is to be left out of the interface now."""
        return self.phase in (Phase.CLEARING, Phase.LEAVING)

    @property
    def asking(self) -> NodeId | None:
        return self.lent.asking

    def endpoint(self, now: Instant) -> str | None:
        """Returns the relay's endpoint for this pair, where one is to be used now."""
        if self.phase not in (Phase.TRYING, Phase.RELAYED) or self.used is None:
            return None
        return None if self.waits(now) else self.lent.end_at(self.used)

    def waits(self, now: Instant) -> bool:
        """Says whether nothing is to be sent to the peer for the moment."""
        if self.phase not in (Phase.TRYING, Phase.TRIAL):
            return False
        return now.mono_s < self._since_s + self._second_waits_s

    def seeks(self, look: PairLook, now: Instant) -> bool:
        """Says whether ways of the pair's own are to be probed.

        For a while that is so without a hope, too: what a router lets in nobody can tell from outside, and
        some let in whoever knows the port (RFC 4787, endpoint-independent filtering)."""
        if self.used is None:
            return False
        new = now.mono_s < self._used_since_s + HOPELESS_PROBES_S
        return look.outlook is not Outlook.HOPELESS or new or bool(look.proved)

    def is_idle(self, now: Instant) -> bool:
        """Says whether nothing is asked for, held, used, or to be remembered."""
        if not self.upgrade.is_over(now):
            return False
        return self.phase is Phase.DIRECT and self.asking is None and not self.lent.holds_any

    def goes_through(self, endpoint: str | None) -> bool:
        """Says whether an endpoint is that of a relay of this pair."""
        return self.lent.goes_through(endpoint)

    @property
    def links_wanted(self) -> tuple[NodeId, ...]:
        """Returns the relays to have links to."""
        wanted = (self.used, self.asking, self.hop.left, *(list(self.lent.hosts)[:2] if self.used else ()))
        return tuple(dict.fromkeys(one for one in wanted if one is not None))

    @property
    def kept(self) -> tuple[NodeId, ...]:
        """Returns the relays in use, and left a moment ago: they count, whatever their records say now."""
        return tuple(one for one in (self.used, self.hop.left) if one is not None)

    def binding(self, handshake_unix_s: float) -> Place | None:
        """Returns what to ask which relay from WireGuard's own port: see ``Hop.binding``, and ``Reach``."""
        bound = self.hop.binding(self.used, handshake_unix_s)
        return self.reach.place or bound

    def take_move(self) -> EndpointMove | None:
        """Returns a move of the endpoint that has to be made, once."""
        return self.upgrade.take_move() or self.hop.take_move()

    def take_counts(self) -> tuple[int, int]:
        """Returns how often a relay was taken into use, and a session went on, since this was asked last."""
        moves, hops = self._counted
        self._counted = (self.moves, self.hops)
        return self.moves - moves, self.hops - hops

    # --- what a look tells ----------------------------------------------------------------------------------

    def _is_direct(self, look: PairLook, now: Instant) -> bool:
        """Says whether the tunnel works, and not through a relay."""
        held = look.held
        if held is None or not tunnel_works(held, now.unix_s) or self.lent.goes_through(held.endpoint):
            return False
        if self._is_way_lost(look, now) if self.phase is Phase.HELD else look.mute:
            return False
        # The other end may have lost the session, and asks for a relay.
        silent = bool(held.keepalive_s) and self._health.nothing_came_for(STALE_RX_S, now)
        return look.through is None and not (silent and self.lent.holds_any)

    def _is_way_lost(self, look: PairLook, now: Instant) -> bool:
        return self.upgrade.is_lost(look, now, mute=self._is_mute(look, now))

    def _is_mute(self, look: PairLook, now: Instant) -> bool:
        # Echoes of a machine that is busy may be late by seconds: what comes in says more.
        return look.mute and self._health.nothing_came_for(MUTE_S, now)

    def _is_faulty(self, used: NodeId, look: PairLook, now: Instant) -> bool:
        heard_s = max(self.lent.heard_s(used), self._since_s, self._used_since_s)
        return self._health.is_faulty(used, heard_s, look, now)

    def _has_agreed(self, now: Instant) -> bool:
        """Says whether a relay is there to be taken up."""
        best = self.lent.ready(self.used, now, self.hop.left)
        return best is not None and (self.used is None or self.lent.is_newer(best, self.used))

    def _needs_one(self, look: PairLook, now: Instant) -> bool:
        if self.used is not None:
            if self.hop.may_go_back(look, now):
                return False
            return self._is_faulty(self.used, look, now) or self._retires(look)
        if self._has_agreed(now):
            return False
        if look.through is not None and tunnel_works(look.held, now.unix_s):
            # It may be ours from before a restart: while something comes in, it works.
            refused = self.lent.back_off.passes_over(look.through, now)
            return refused and self._health.nothing_came_for(STALE_RX_S, now)
        over_at_s = self._patience.over_at_s
        return over_at_s is not None and now.mono_s >= over_at_s

    def _retires(self, look: PairLook) -> bool:
        return self.used is not None and (look.leaving or self.lent.retires(self.used))

    def _is_lent_anew(self) -> bool:
        """Says whether the relay in use forgot the pair, and the other end has asked it again."""
        fixed = self.phase in (Phase.CLEARING, Phase.TRYING, Phase.RELAYED)
        return fixed and self.used is not None and self.lent.port_at(self.used) != self._used_port

    def _is_planned(self, best: NodeId, look: PairLook) -> bool:
        """Says whether the relay in use is to be left for another although it works; one end may know that
        before the other."""
        return self.used is not None and (self._retires(look) or self.lent.is_planned(best))

    def _may_hop(self, best: NodeId, look: PairLook, now: Instant) -> bool:
        """Says whether the relay in use can see the pair over to another one."""
        if self.used is None or self.phase is not Phase.RELAYED or not self._is_planned(best, look):
            return False
        able = look.probes and bool(self.lent.secret_of(best)) and not self.hop.is_late(now)
        return able and self.lent.holds(self.used) and not self._is_faulty(self.used, look, now)

    def _adopts(self, look: PairLook, now: Instant) -> bool:
        return (
            self.used is None
            and look.through is not None
            and not self.lent.back_off.passes_over(look.through, now)
        )

    @property
    def _second_waits_s(self) -> float:
        fresh = self.phase is Phase.TRYING and not self._met
        return 0.0 if fresh or self.me < self.peer else SECOND_WAITS_S

    # --- steps ----------------------------------------------------------------------------------------------

    def _use(self, relay: NodeId, now: Instant) -> None:
        self.used, self.lent.asking, self._used_port = relay, None, self.lent.port_at(relay)
        self._health.begin()
        self._used_since_s = now.mono_s
        self.moves += 1
        self.lent.remember_end(relay)

    def _drop_used(self, now: Instant) -> None:
        self.used = None
        self.hop.end(now)
        self._health.begin()
        self._move_to(Phase.DIRECT, now)

    def _move_to(self, phase: Phase, now: Instant) -> None:
        self.phase, self._since_s = phase, now.mono_s

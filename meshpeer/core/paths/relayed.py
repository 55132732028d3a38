"""A pair's way by a relay, at one end: when to ask for one, which, when to change it, when to give it back.

Either end may ask first; the relay tells both, and the other end asks, too, unless its own tunnel works. Only
then is the relay used, by both from the same moment on: it knows where an end is once that end has shaken
hands there.

Where the ends want different relays, the end with the lower id leads, so that words that cross can't keep
them apart. Each asks one relay at a time, and withdraws from it when it turns to another. The other end
follows the one that leads at once, whatever it asks or uses itself. The one that leads follows the other
where it needs none itself, or where the other has insisted for ``YIELDS_S``; instead of a relay that failed
it of late it asks a better one. Of two relays that both asked, the one counts on which they agreed last; only
the end that leads gives the other one back at once. The other end does so once the tunnel works, which shows
where both are. A relay vouches for both ends only while it hears from both: who sleeps, or lost its link, has
agreed to nothing.

A handshake is forced by leaving the peer out of the interface for a moment; WireGuard would keep
a session for up to 15 s that means nothing to the new relay. Of two initiations the relay passes on the
second alone, so neither end waits: a packet that has nowhere to go yet may begin a handshake, too, and the
next would come 5 s later (wireguard-go; the kernel drops it). Where initiations can cross, the higher id
waits a moment.

A relay in use is asked every second, so one that is gone is noticed, and the next on the list takes over; one
that says that it is about to go is left for the next under the session (``hop``). The
pair leaves it for a way of its own once that is proved (``upgrade``), or, where this machine can't probe,
tries one now and then (``direct_trial``). A tunnel that works directly is never touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.direct_trial import TRIAL_S, TrialMeant, Trials
from meshpeer.core.paths.hop import Hop, HopState
from meshpeer.core.paths.lent import Lent
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.patience import Patience
from meshpeer.core.paths.relay_health import STALE_RX_S, RelayHealth
from meshpeer.core.paths.relay_messages import (
    Pair,
    RelayAnswer,
    RelayAsked,
    RelayFreezeAsked,
    RelayFrozen,
    RelayRenewed,
    RelayWakeAsked,
    RelayWoken,
)
from meshpeer.core.paths.relayed_look import PairLook, Phase, Said
from meshpeer.core.paths.upgrade import MUTE_S, EndpointMove, Upgrade
from meshpeer.core.wgconf.model import tunnel_works

TRY_S = 8.0
"""How long a relay may take to bring a handshake: each end gets two initiations."""
SECOND_WAITS_S = 0.3
"""As in ``node.tunnels``."""
SETTLES_S = 3.0
"""How long the end that leads keeps a relay that is new in use, whatever the other end seems to ask: its word
may have crossed the one by which both took this one up."""
DIRECT_HOLDS_S = 30.0
"""A tunnel that works directly for so long needs its relay no more."""
LEAVE_MS_MAX = 2_000
"""How far ahead a relay may set the instant at which the pair leaves it."""
FROZEN_S_MAX = 3.0
"""A relay that is frozen for so long while this end did not leave it is woken."""
LOOK_S = 1.0
HOPELESS_PROBES_S = 20.0
"""For how long a pair that is new at its relay looks for a way of its own without a hope: each end asks some
ten times."""


@dataclass(slots=True)
class RelayedPath:
    """One end of one pair. Doors: ``update``, ``on_message``, ``next_deadline``. Sans-IO."""

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

    def binding(self, handshake_unix_s: float) -> tuple[str, bytes] | None:
        """See ``Hop.binding``."""
        return self.hop.binding(self.used, handshake_unix_s)

    def take_move(self) -> EndpointMove | None:
        """Returns a move of the endpoint that has to be made, once."""
        return self.upgrade.take_move() or self.hop.take_move()

    def take_counts(self) -> tuple[int, int]:
        """Returns how often a relay was taken into use, and a session went on, since this was asked last."""
        moves, hops = self._counted
        self._counted = (self.moves, self.hops)
        return self.moves - moves, self.hops - hops

    def next_deadline(self) -> Deadline | None:
        begins_at_s, turn_s = self._trials.begins_at_s, self._since_s + self._second_waits_s
        if begins_at_s is not None and self._looked_s < begins_at_s < self._looked_s + LOOK_S:
            return Deadline(begins_at_s, "a direct trial")
        if self.phase in (Phase.TRYING, Phase.TRIAL) and turn_s > self._looked_s:
            return Deadline(turn_s, "a relay's turn")
        if self._busy:
            return Deadline(self._looked_s + LOOK_S, "look after a relay")
        over_at_s = self._patience.over_at_s
        if over_at_s is not None and self.lent.hosts:
            return Deadline(max(over_at_s, self._looked_s + LOOK_S), "direct tries are in vain")
        return None

    # --- events ---------------------------------------------------------------------------------------------

    def on_message(self, relay: NodeId, message: RelayAnswer, now: Instant) -> None:
        """Takes a relay's word; that of whoever is none for this pair counts for nothing."""
        match message:
            case RelayFrozen(in_ms=in_ms, to=to):
                if relay == self.used and self.phase is Phase.RELAYED and 0 <= in_ms <= LEAVE_MS_MAX:
                    at_s = self.lent.instant_of(relay, message, now)
                    if to:
                        self._go_over(to, at_s, now)
                    else:
                        self._leave(at_s, now)
            case RelayWoken():
                if relay == self.hop.left:
                    self._go_back(now)
                elif relay == self.used and self.phase in (Phase.HELD, Phase.RELAYED):
                    self._turn_back(now)
            case _:
                self.lent.on_message(relay, message, now)

    def on_meant(self, now: Instant) -> TrialMeant | None:
        """The other end means to try direct; returns what to answer, if anything."""
        takes_part = self.phase is Phase.RELAYED and self._trials.on_meant(now)
        return TrialMeant() if takes_part else None

    def update(self, look: PairLook, now: Instant) -> list[Said]:
        """Takes a look at the pair; returns what to say to which relay."""
        self._looked_s = now.mono_s
        self.lent.follow(look.relays)
        self._health.note_traffic(look, now)
        if not look.wanted:
            self._busy = False
            return self._give_back(look, now)
        said = [*self.hop.give_back(look), *self._settle(look, now)]
        said += self._ask(look, now)
        said += self._take_up(look, now)
        said += self._keep(look, now)
        said += self.lent.tidy((*self.kept, self.asking), look.linked, now)
        self._busy = self.used is not None or self.asking is not None or self._adopts(look, now)
        return said

    # --- the relay in use -----------------------------------------------------------------------------------

    def _settle(self, look: PairLook, now: Instant) -> list[Said]:
        """Follows what came of the relay in use."""
        works = tunnel_works(look.held, now.unix_s)
        direct = self._is_direct(look, now)
        self._follow_direct(look, direct, now)
        if self.used is None:
            if direct or not works or look.through is None:
                return []
            return self._adopt(look, look.through, now)
        if (not self.lent.holds(self.used) or self._is_lent_anew()) and not direct:
            back = self.hop.ask_back(look, now)
            return self._lose_used(look, now) if back is None else back
        match self.phase:
            case Phase.CLEARING:
                if look.held is None:
                    self._move_to(Phase.TRYING, now)
            case Phase.TRYING:
                if works:
                    self._move_to(Phase.RELAYED, now)
                    self._met = True
                    self.upgrade.on_relayed(look, now)
                    self._trials.on_relayed(look.facts, now)
                    self.lent.back_off.succeed(self.used)
                    # Both ends are here, so nobody goes by another one.
                    return self.lent.free_but((self.used, self.asking), look.linked, now)
                elif now.mono_s >= self._since_s + TRY_S:
                    return self._abandon(look, now)
            case Phase.RELAYED:
                since_s = self._direct_since_s
                if since_s is not None and now.mono_s >= since_s + DIRECT_HOLDS_S:
                    return self._give_back(look, now)
                if not works or self.hop.is_overdue(leaving=look.leaving, now=now):
                    return self._abandon(look, now)
                match self.hop.state:
                    case HopState.NONE:
                        return self._consider_leaving(look, now)
                    case HopState.MOVED:
                        return self._keep_left(look, now)
                    case HopState.BINDING:
                        # What comes of it shows where relays are taken up.
                        return []
            case Phase.HELD:
                return self._hold(look, now)
            case Phase.LEAVING:
                if look.held is None:
                    self._move_to(Phase.TRIAL, now)
            case Phase.TRIAL:
                if direct:
                    self._move_to(Phase.RELAYED, now)
                elif now.mono_s >= self._since_s + TRIAL_S:
                    self._move_to(Phase.CLEARING, now)
            case Phase.DIRECT:
                raise InvariantBroken(f"relay {self.used.hex()[:8]} is in use, and none is")
        return []

    def _consider_leaving(self, look: PairLook, now: Instant) -> list[Said]:
        """Says to the relay that this end is ready for a way of its own, once one is proved."""
        assert self.used is not None
        if not look.probes or self._trials.begins_at_s is not None:
            return self._consider_trial(look, now) if self._direct_since_s is None else []
        linked = self.used in look.linked
        if self.upgrade.is_ready(look, now):
            return self.lent.say(self.used, RelayFreezeAsked(pair=self.pair), now) if linked else []
        if linked and self.lent.is_frozen(self.used, FROZEN_S_MAX, now):
            return self.lent.say(self.used, RelayWakeAsked(pair=self.pair), now)
        return []

    def _leave(self, at_s: float, now: Instant) -> None:
        """Both ends are ready: the endpoint moves at the instant that the relay named."""
        if self.upgrade.leave(at_s, now):
            self.hop.end(now)
            self._move_to(Phase.HELD, now)

    def _hold(self, look: PairLook, now: Instant) -> list[Said]:
        """Looks after a way of the pair's own that is new."""
        assert self.used is not None
        if self._is_way_lost(look, now):
            if self.used in look.linked:
                return self.lent.say(self.used, RelayWakeAsked(pair=self.pair), now)
            return []
        if now.mono_s >= self._since_s + DIRECT_HOLDS_S:
            self.upgrade.succeed(now)
            return self._give_back(look, now)
        undone = look.held is not None and self.lent.goes_through(look.held.endpoint)
        self.upgrade.hold(undone=undone, now=now)
        return []

    def _is_way_lost(self, look: PairLook, now: Instant) -> bool:
        return self.upgrade.is_lost(look, now, mute=self._is_mute(look, now))

    def _is_mute(self, look: PairLook, now: Instant) -> bool:
        # Echoes of a machine that is busy may be late by seconds: what comes in says more.
        return look.mute and self._health.nothing_came_for(MUTE_S, now)

    def _turn_back(self, now: Instant) -> None:
        """The relay carries the pair again."""
        assert self.used is not None
        if end := self.lent.end_at(self.used):
            self.upgrade.turn_back(end, now)
            self._move_to(Phase.RELAYED, now)

    # --- from one relay to another --------------------------------------------------------------------------

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

    def _go_over(self, to: bytes, at_s: float, now: Instant) -> None:
        relay = self.hop.go_over(self.used, to, at_s, now) if self.used is not None else None
        if relay is not None:
            self._use(relay, now)
            self.hops += 1
            self.upgrade.on_hopped(now)

    def _keep_left(self, look: PairLook, now: Instant) -> list[Said]:
        assert self.used is not None
        lost = self._is_mute(look, now) or self._is_faulty(self.used, look, now)
        return self.hop.keep_left(self.used, look, now, lost=lost, retires=self._retires(look))

    def _go_back(self, now: Instant) -> None:
        relay = self.hop.go_back(self.used, now) if self.used is not None else None
        if relay is not None:
            self._use(relay, now)

    def _use(self, relay: NodeId, now: Instant) -> None:
        self.used, self.lent.asking, self._used_port = relay, None, self.lent.port_at(relay)
        self._health.begin()
        self._used_since_s = now.mono_s
        self.moves += 1
        self.lent.remember_end(relay)

    def _consider_trial(self, look: PairLook, now: Instant) -> list[Said]:
        if self._trials.take_due(now):
            self._move_to(Phase.LEAVING, now)
            return []
        self._trials.watch(look.facts, look.held, now)
        hopes = look.tells and look.outlook is not Outlook.HOPELESS
        return [(self.peer, TrialMeant())] if hopes and self._trials.proposes(now) else []

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

    def _follow_direct(self, look: PairLook, direct: bool, now: Instant) -> None:
        self._direct_since_s = (self._direct_since_s or now.mono_s) if direct else None
        self._patience.follow(look, served=direct or self.used is not None, now=now)

    def _adopt(self, look: PairLook, relay: NodeId, now: Instant) -> list[Said]:
        """Takes over what this node reserved before it was started again."""
        assert look.held is not None
        if self.lent.holds(relay) and self.lent.end_at(relay) == look.held.endpoint:
            self.used, self.lent.asking, self._used_port = relay, None, self.lent.port_at(relay)
            self.lent.remember_end(relay)
            self._move_to(Phase.RELAYED, now)
            return []
        if relay not in look.linked or self.lent.back_off.passes_over(relay, now):
            return []
        return self.lent.say(relay, RelayRenewed(pair=self.pair), now)

    def _adopts(self, look: PairLook, now: Instant) -> bool:
        return (
            self.used is None
            and look.through is not None
            and not self.lent.back_off.passes_over(look.through, now)
        )

    # --- another one ----------------------------------------------------------------------------------------

    def _ask(self, look: PairLook, now: Instant) -> list[Said]:
        """Asks for a relay where one is needed, and for the one that the other end asked for."""
        if self._direct_since_s is not None:
            # It does without; what it asked for comes to nothing.
            self.lent.asking = None
            return []
        said = self.lent.stop_waiting(look.linked, now)
        asked = self.asking
        wished = self._wished(look, now)
        if wished is not None:
            refused = self._better_than(wished, look, now)
            if refused is not None:
                said += self.lent.free(wished, look.linked, now)
            if asked not in (None, refused):
                said += self.lent.withdraw(asked, look.linked, now)
            asked = refused or wished
        if asked is None and self._needs_one(look, now):
            asked = self.lent.next_one(self.used, now, self.hop.left)
        if asked is None:
            return said
        self.lent.ask_for(asked, now)
        if asked not in look.linked:
            return said
        if self.lent.is_frozen(asked, FROZEN_S_MAX, now):
            said += self.lent.say(asked, RelayWakeAsked(pair=self.pair), now)
        planned = self._is_planned(asked, look) and self.phase is Phase.RELAYED
        return said + self.lent.say(asked, RelayAsked(pair=self.pair, planned=planned), now)

    def _wished(self, look: PairLook, now: Instant) -> NodeId | None:
        """Returns the relay that the other end waits for, where this one follows it."""
        new = self.used is not None and now.mono_s < self._used_since_s + SETTLES_S
        if (self.lent.leads and new) or self._has_agreed(now):
            return None
        return self.lent.followed(self.used, look.linked, now)

    def _has_agreed(self, now: Instant) -> bool:
        """Says whether a relay is there to be taken up."""
        best = self.lent.ready(self.used, now, self.hop.left)
        return best is not None and (self.used is None or self.lent.is_newer(best, self.used))

    def _better_than(self, wished: NodeId, look: PairLook, now: Instant) -> NodeId | None:
        """Returns the relay that the end that leads asks instead of one that failed it of late, if any."""
        if not self.lent.leads or not self.lent.back_off.passes_over(wished, now):
            return None
        better = self.lent.next_one(self.used, now, self.hop.left)
        return better if better in look.linked else None

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

    def _is_faulty(self, used: NodeId, look: PairLook, now: Instant) -> bool:
        heard_s = max(self.lent.heard_s(used), self._since_s, self._used_since_s)
        return self._health.is_faulty(used, heard_s, look, now)

    def _take_up(self, look: PairLook, now: Instant) -> list[Said]:
        """Uses a relay that both ends asked for."""
        best = self.lent.ready(self.used, now, self.hop.left)
        if best is None or self._direct_since_s is not None:
            self.hop.give_up(now)
            return []
        if self.phase is Phase.HELD and not self._is_way_lost(look, now):
            # Both are on a way of their own, or about to be: that counts, and needs no relay.
            return []
        if self._may_hop(best, look, now):
            assert self.used is not None
            return self.hop.show_itself(self.used, best, look, now)
        if self.used is not None and not self.lent.is_newer(best, self.used):
            return self.lent.free(best, look.linked, now) if self.lent.leads else []
        said: list[Said] = []
        if self.phase is Phase.HELD:
            self.upgrade.fail(now)
        for relay in self.kept:
            self.lent.fail(relay, now)
        # The other end keeps what it has until the new one works: its word would take from the one that leads
        # what that may have chosen meanwhile.
        if self.asking is not None and self.asking != best:
            said += self.lent.withdraw(self.asking, look.linked, now)
        if self.lent.leads:
            said += self.lent.free_but((best,), look.linked, now)
        self.hop.end(now)
        self._use(best, now)
        self._met = False
        # Even without a session: a packet that had nowhere to go may have begun a handshake, which is tried
        # again after 5 s only.
        self._move_to(Phase.CLEARING, now)
        return said

    def _keep(self, look: PairLook, now: Instant) -> list[Said]:
        if self.used is None or self.used not in look.linked or not self.lent.holds(self.used):
            return []
        return self.lent.say(self.used, RelayRenewed(pair=self.pair), now)

    # --- steps ----------------------------------------------------------------------------------------------

    def _abandon(self, look: PairLook, now: Instant) -> list[Said]:
        """Gives up the relay in use: nothing comes through it."""
        assert self.used is not None
        relay = self.used
        said = self.lent.free(relay, look.linked, now)
        self.lent.fail(relay, now)
        return said + self._lose_used(look, now)

    def _lose_used(self, look: PairLook, now: Instant) -> list[Said]:
        said = self.hop.drop_left(look, now)
        self._drop_used(now)
        self._patience.lose(now)
        return said

    def _give_back(self, look: PairLook, now: Instant) -> list[Said]:
        """Frees all that is held: the pair does without."""
        said = self.lent.free_all(look.linked, now)
        if self.used is not None:
            self._drop_used(now)
        self._direct_since_s = None
        self._patience.reset()
        return said

    def _drop_used(self, now: Instant) -> None:
        self.used = None
        self.hop.end(now)
        self._health.begin()
        self._move_to(Phase.DIRECT, now)

    def _move_to(self, phase: Phase, now: Instant) -> None:
        self.phase, self._since_s = phase, now.mono_s

    @property
    def _second_waits_s(self) -> float:
        fresh = self.phase is Phase.TRYING and not self._met
        return 0.0 if fresh or self.me < self.peer else SECOND_WAITS_S

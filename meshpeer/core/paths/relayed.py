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
agreed to nothing. Nor is one taken up whose port does not answer this end (``reach``).

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

from dataclasses import dataclass

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.direct_trial import TRIAL_S, TrialMeant
from meshpeer.core.paths.hop import HopState
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.reach import AGAIN_S
from meshpeer.core.paths.relay_messages import (
    RelayAnswer,
    RelayAsked,
    RelayFreezeAsked,
    RelayFrozen,
    RelayRenewed,
    RelayWakeAsked,
    RelayWoken,
)
from meshpeer.core.paths.relayed_look import PairLook, Phase, Said
from meshpeer.core.paths.relayed_state import RelayedState
from meshpeer.core.wgconf.model import tunnel_works

TRY_S = 8.0
"""How long a relay may take to bring a handshake: each end gets two initiations."""
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


@dataclass(slots=True)
class RelayedPath(RelayedState):
    """One end of one pair. Doors: ``update``, ``on_message``, ``next_deadline``. Sans-IO."""

    def next_deadline(self) -> Deadline | None:
        begins_at_s, turn_s = self._trials.begins_at_s, self._since_s + self._second_waits_s
        if begins_at_s is not None and self._looked_s < begins_at_s < self._looked_s + LOOK_S:
            return Deadline(begins_at_s, "a direct trial")
        if self.phase in (Phase.TRYING, Phase.TRIAL) and turn_s > self._looked_s:
            return Deadline(turn_s, "a relay's turn")
        if self._busy:
            return earliest(
                Deadline(self._looked_s + LOOK_S, "look after a relay"), self.reach.next_deadline()
            )
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
            said = self._give_back(look, now)
            self._patience.part()
            self.reach.follow(None, look, now)
            return said
        said = [*self.hop.give_back(look), *self._settle(look, now)]
        said += self._ask(look, now)
        said += self._check(look, now)
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

    def _turn_back(self, now: Instant) -> None:
        """The relay carries the pair again."""
        assert self.used is not None
        if end := self.lent.end_at(self.used):
            self.upgrade.turn_back(end, now)
            self._move_to(Phase.RELAYED, now)

    # --- from one relay to another --------------------------------------------------------------------------

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

    def _consider_trial(self, look: PairLook, now: Instant) -> list[Said]:
        if self._trials.take_due(now):
            self._move_to(Phase.LEAVING, now)
            return []
        self._trials.watch(look.facts, look.held, now)
        hopes = look.tells and look.outlook is not Outlook.HOPELESS
        return [(self.peer, TrialMeant())] if hopes and self._trials.proposes(now) else []

    def _follow_direct(self, look: PairLook, direct: bool, now: Instant) -> None:
        self._direct_since_s = (self._direct_since_s or now.mono_s) if direct else None
        self._patience.follow(look, direct=direct, relayed=self.used is not None, now=now)

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

    # --- another one ----------------------------------------------------------------------------------------

    def _ask(self, look: PairLook, now: Instant) -> list[Said]:
        """Asks for a relay where one is needed, and for the one that the other end asked for."""
        if self._direct_since_s is not None:
            # It does without; what it asked for comes to nothing.
            self.lent.asking = None
            return []
        if look.alone:
            # Nobody hears an ask, and that is no fault of a relay's.
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
        wished = self.lent.followed(self.used, look.linked, now)
        return None if wished is None or self.reach.back_off.passes_over(wished, now) else wished

    def _better_than(self, wished: NodeId, look: PairLook, now: Instant) -> NodeId | None:
        """Returns the relay that the end that leads asks instead of one that failed it of late, if any."""
        if not self.lent.leads or not self.lent.back_off.passes_over(wished, now):
            return None
        better = self.lent.next_one(self.used, now, self.hop.left)
        return better if better in look.linked else None

    def _check(self, look: PairLook, now: Instant) -> list[Said]:
        """Gives back a relay that this end's packets don't get to, before it is taken up."""
        best = self.lent.ready(self.used, now, self.hop.left)
        relay = best if best is not None else self.asking
        # A relay that works meanwhile shows by itself whether it can go over to the next (``hop``).
        spared = self._direct_since_s is not None or (relay is not None and self._may_hop(relay, look, now))
        shut = self.reach.follow(None if spared else relay, look, now)
        if shut is None:
            return []
        self.lent.fail(shut, now, AGAIN_S)
        return self.lent.free(shut, look.linked, now)

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
        if not self.reach.allows(best, now):
            return []
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

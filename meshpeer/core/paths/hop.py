"""The move of a pair from a relay that is about to end to another one, at one end, under a session that goes
on: when this end is ready, when it moves, what it keeps meanwhile.

Both ends have asked the next relay, and each shows it from WireGuard's own port where it is (``bindings``).
Who was answered says to the relay in use that it is ready; once both said so, that one lets nothing cross
from an instant on, as for a way of the pair's own (``upgrade``), and both move their endpoint at that
instant. The next relay knows both ends by then, and carries a session that it never saw begin.

The relay that was left is kept for a while. Should an end have it woken, both go back. A relay that answers
no bindings is passed over for the next one. A move that does not come about in time otherwise is none: the
pair goes over as from a relay that is gone, at the cost of its session.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from meshpeer.core.deadline import Instant
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.bindings import Place
from meshpeer.core.paths.lent import Lent
from meshpeer.core.paths.relay_messages import RelayFreed, RelayFreezeAsked, RelayWakeAsked
from meshpeer.core.paths.relayed_look import PairLook, Said
from meshpeer.core.paths.upgrade import MOVES_AGAIN_S, MUTE_S, EndpointMove

BIND_S_MAX = 2.5
"""How long an end may be without an answer to its bindings, from the moment on that both ends have asked the
next relay: then its packets don't get there, and another one is asked."""
HOP_S_MAX = 3.5
"""How long the move as a whole may take from then on."""
HOP_HOLDS_S = 15.0
"""How long the relay that was left is kept, where it goes on for so long."""
BOUND_LASTS_S = 10.0
"""How long an answer to a binding vouches for the way: two questions in a row may be lost."""
WAKE_S_MAX = 2.5
"""How long a relay that was left may take to carry the pair again, once it was asked to: two words of this
end in a row had no answer."""
LEAVING_S_MAX = 14.0
"""How long a relay is used that should relay no more: longer than it takes one to retire."""


class HopState(enum.StrEnum):
    NONE = "none"
    BINDING = "binding"
    """The next relay lends ports to both ends, and each shows it where it is."""
    MOVED = "moved"
    """The instant is named, or past; the relay that was left is kept."""


MOVES: dict[HopState, frozenset[HopState]] = {
    HopState.NONE: frozenset({HopState.BINDING}),
    HopState.BINDING: frozenset({HopState.MOVED, HopState.NONE}),
    HopState.MOVED: frozenset({HopState.NONE}),
}


@dataclass(slots=True)
class Hop:
    """Of one end of a pair. Sans-IO."""

    lent: Lent
    state: HopState = HopState.NONE
    target: NodeId | None = None
    """The next relay; that in use, once the pair moved."""
    left: NodeId | None = None
    """The one that is kept."""
    _since_s: float = 0.0
    _moved_s: float = 0.0
    _moved_unix_s: float | None = None
    """When the pair moved last (Unix seconds), for as long as its relay saw no handshake of it."""
    _move: EndpointMove | None = None
    _leaving_since_s: float | None = None
    _owed: NodeId | None = None
    """The relay that the pair went back from, until it is told."""
    _waking_since_s: float | None = None
    """Since when this end has wanted the relay woken that was left."""

    # --- reading --------------------------------------------------------------------------------------------

    def is_late(self, now: Instant) -> bool:
        """Says whether a move did not come about in time."""
        return self.state is HopState.BINDING and now.mono_s >= self._since_s + HOP_S_MAX

    def is_under_way(self, now: Instant) -> bool:
        """Says whether the pair is between two relays: until the instant is past."""
        return self.state is HopState.BINDING or (self.state is HopState.MOVED and now.mono_s < self._moved_s)

    def is_overdue(self, *, leaving: bool, now: Instant) -> bool:
        """Says whether a relay that should relay no more is used for too long."""
        if not leaving:
            self._leaving_since_s = None
        elif self._leaving_since_s is None:
            self._leaving_since_s = now.mono_s
        since_s = self._leaving_since_s
        return since_s is not None and now.mono_s >= since_s + LEAVING_S_MAX

    def binding(self, used: NodeId | None, handshake_unix_s: float) -> Place | None:
        """Returns the lent endpoint to show where this end is, and the secret of that; None where to none.

        It goes on after the move: a relay that saw no handshake of a pair can't tell a packet of an end that
        is elsewhere suddenly. ``handshake_unix_s``: when the tunnel shook hands last."""
        if self._moved_unix_s is not None and handshake_unix_s > self._moved_unix_s + 1.0:
            self._moved_unix_s = None
        relay = self.target if self.state is HopState.BINDING else used
        if relay is None or (self.state is not HopState.BINDING and self._moved_unix_s is None):
            return None
        end, secret = self.lent.end_at(relay), self.lent.secret_of(relay)
        return Place(end, secret) if end and secret else None

    def take_move(self) -> EndpointMove | None:
        """Returns a move that has to be made, once."""
        move, self._move = self._move, None
        return move

    # --- steps ----------------------------------------------------------------------------------------------

    def show_itself(self, used: NodeId, best: NodeId, look: PairLook, now: Instant) -> list[Said]:
        """Binds at the next relay, which both ends have asked, and says to the one in use that this end is
        ready once that is done."""
        if self.state is HopState.BINDING and best != self.target:
            self._move_to(HopState.NONE, now)
        if self.state is HopState.NONE:
            self._move_to(HopState.BINDING, now)
        self.target = best
        # What comes from there is not the peer itself, even where it came by chance.
        self.lent.remember_end(best)
        end, answered_s = look.bound or ("", 0.0)
        bound = bool(end) and end == self.lent.end_at(best) and now.mono_s < answered_s + BOUND_LASTS_S
        if not bound and now.mono_s >= self._since_s + BIND_S_MAX:
            self.end(now)
            self.lent.fail(best, now)
            return self.lent.free(best, look.linked, now)
        if not bound or used not in look.linked:
            return []
        return self.lent.say(used, RelayFreezeAsked(pair=self.lent.pair, to=best), now)

    def go_over(self, used: NodeId, to: bytes, at_s: float, now: Instant) -> NodeId | None:
        """The relay in use named the instant; returns the one that is in use from now on, or None where this
        end does not go along."""
        end = self.lent.end_at(self.target) if self.target is not None and self.target == to else ""
        if self.state is not HopState.BINDING or not end:
            return None
        self._move_to(HopState.MOVED, now)
        self.left = used
        self._order(end, at_s, now)
        self._moved_unix_s = now.unix_s + self._moved_s - now.mono_s
        return self.target

    def keep_left(
        self, used: NodeId, look: PairLook, now: Instant, *, lost: bool, retires: bool
    ) -> list[Said]:
        """Looks after the relay that was left, for as long as there may be a way back to it.

        ``lost``: nothing comes by the one in use, or it is gone; ``retires`` is said of that one, too."""
        left = self.left
        if left is None or not self.lent.holds(left):
            self.end(now)
            return []
        if not lost:
            self._waking_since_s = None
        elif now.mono_s >= self._moved_s + MUTE_S:
            back = self.ask_back(look, now)
            return self.drop_left(look, now) if back is None else back
        if retires or now.mono_s >= self._since_s + HOP_HOLDS_S:
            return self.drop_left(look, now)
        undone = look.held is not None and look.held.endpoint == self.lent.end_at(left)
        if undone and now.mono_s >= self._moved_s + MOVES_AGAIN_S:
            self._order(self.lent.end_at(used), now.mono_s, now)
        return self.lent.free_but((used, left, self.lent.asking), look.linked, now)

    def may_go_back(self, look: PairLook, now: Instant) -> bool:
        """Says whether the relay that was left can be had woken still."""
        left, since_s = self.left, self._waking_since_s
        if left is None or not self.lent.holds(left) or left not in look.linked:
            return False
        return since_s is None or now.mono_s < since_s + WAKE_S_MAX

    def ask_back(self, look: PairLook, now: Instant) -> list[Said] | None:
        """Has the relay woken that was left, since the one in use carries nothing; None where there is no way
        back: none is kept, it can't be told, or it did not answer in time."""
        left = self.left
        if left is None or not self.may_go_back(look, now):
            return None
        if self._waking_since_s is None:
            self._waking_since_s = now.mono_s
        return self.lent.say(left, RelayWakeAsked(pair=self.lent.pair), now)

    def drop_left(self, look: PairLook, now: Instant) -> list[Said]:
        """Gives back the relay that was left: it is frozen, and nobody is to take it up as it is."""
        left = self.left
        self.end(now)
        if left is None:
            return []
        self.lent.fail(left, now)
        return self.lent.free(left, look.linked, now)

    def go_back(self, used: NodeId, now: Instant) -> NodeId | None:
        """The relay that was left carries the pair again; returns it, which is in use from now on."""
        left = self.left
        end = self.lent.end_at(left) if left is not None else ""
        if not end:
            return None
        self.lent.fail(used, now)
        if self.lent.forget(used, now):
            self._owed = used
        self._order(end, now.mono_s, now)
        self._moved_unix_s = None
        self.end(now)
        return left

    def give_back(self, look: PairLook) -> list[Said]:
        """Gives back the relay that the pair went back from, if any."""
        owed, self._owed = self._owed, None
        if owed is None or owed not in look.linked:
            return []
        return [(owed, RelayFreed(pair=self.lent.pair))]

    def give_up(self, now: Instant) -> None:
        """There is no next relay any more, or no need of one."""
        if self.state is HopState.BINDING:
            self.end(now)

    def end(self, now: Instant) -> None:
        """Nothing is under way, or kept, any more."""
        if self.state is not HopState.NONE:
            self._move_to(HopState.NONE, now)
        self.target = self.left = self._waking_since_s = None

    def _order(self, endpoint: str, at_s: float, now: Instant) -> None:
        self._move, self._moved_s = EndpointMove(endpoint=endpoint, at_s=at_s), max(at_s, now.mono_s)

    def _move_to(self, state: HopState, now: Instant) -> None:
        check_hop(self.state, state)
        self.state, self._since_s = state, now.mono_s


def check_hop(before: HopState, after: HopState) -> None:
    """Raises ``InvariantBroken`` for a move that the table does not have."""
    if after not in MOVES[before]:
        raise InvariantBroken(f"to another relay: {before} to {after}")

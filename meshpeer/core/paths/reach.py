"""Whether this end's packets get to the relay that its pair is about to take up, and answers come back.

A relay says that it lends ports, and can't tell whether its own firewall, or a router before it that forwards
one port alone, lets anybody in. To take one up costs a session, and then 8 s until it is given up again. So
an end that can probe asks first: a check (as ICE calls it, RFC 8445, section 7) goes from WireGuard's own
port to the port that is lent, sealed as bindings are (``relay_binding``), while both ends still agree on the
relay. Direct tries go on meanwhile, and the peer stays in the interface. A relay that answers nothing is
given back, and not followed to for a while either. Where nothing can be asked, it is taken at its word.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.back_off import BackOffs
from meshpeer.core.paths.bindings import Place
from meshpeer.core.paths.lent import Lent
from meshpeer.core.paths.relay_binding import BindingKind
from meshpeer.core.paths.relayed_look import PairLook

REACH_S = 1.5
"""How long a relay may take to answer the first check: five of them go out by then."""
LATE_S = 1.8
"""An end looks at a relay that it asks every second, and in a mesh of a thousand half a second later: one
that did so later still was not let run, and has answers unread."""
AGAIN_S = 5.0
"""For how long a relay is left alone that answered nothing; twice as long each time in a row."""
REACHED_LASTS_S = 10.0
"""How long an answer vouches for the way: two checks in a row may be lost."""


@dataclass(slots=True)
class Reach:
    """Of one end of a pair. Sans-IO."""

    lent: Lent
    back_off: BackOffs = field(default_factory=BackOffs)
    """For how long which relay is not asked again, nor followed to."""
    _relay: NodeId | None = None
    """The relay that is checked."""
    _end: str = ""
    _since_s: float = 0.0
    _answered_s: float = float("-inf")
    _looked_s: float = 0.0
    _found: dict[NodeId, bool] = field(default_factory=dict)

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def place(self) -> Place | None:
        """Returns what is to be checked, and how; None where nothing is."""
        if self._relay is None:
            return None
        secret = self.lent.secret_of(self._relay)
        return Place(self._end, secret, BindingKind.CHECK) if secret else None

    def allows(self, relay: NodeId, now: Instant) -> bool:
        """Says whether a relay may be taken up: it answered, or nothing can be asked."""
        return relay != self._relay or now.mono_s < self._answered_s + REACHED_LASTS_S

    def next_deadline(self) -> Deadline | None:
        if self._relay is None or self._answered_s > self._since_s:
            return None
        return Deadline(self._since_s + REACH_S, "a relay answers nothing")

    def take_found(self) -> dict[NodeId, bool]:
        """Returns which relays answered, and which did not, since this was asked last."""
        found, self._found = self._found, {}
        return found

    # --- events ---------------------------------------------------------------------------------------------

    def follow(self, relay: NodeId | None, look: PairLook, now: Instant) -> NodeId | None:
        """Takes the relay that is asked, or is to be taken up; returns it where it answers nothing, once."""
        if relay is None or not (look.checks and self.lent.answers_checks(relay)):
            self._relay = None
            return None
        end = self.lent.end_at(relay)
        if (relay, end) != (self._relay, self._end):
            self._relay, self._end = relay, end
            self._since_s, self._answered_s = now.mono_s, float("-inf")
        elif now.mono_s >= self._looked_s + LATE_S:
            self._since_s = now.mono_s
        self._looked_s = now.mono_s
        bound, answered_s = look.bound or ("", 0.0)
        if bound == end and answered_s > self._answered_s:
            self._answered_s = answered_s
            self._found[relay] = True
            self.back_off.succeed(relay)
        if self.allows(relay, now) or now.mono_s < self._since_s + REACH_S:
            return None
        self._relay = None
        self._found[relay] = False
        self.back_off.fail(relay, now, AGAIN_S)
        return relay

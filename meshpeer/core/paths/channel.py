"""A pair's channel: whether its tunnel answers, or control links have to do without it.

WireGuard says when hands were shaken last, and keeps quiet about what became of the packets since. So the
machine counts what proves something, and asks where nothing does:

- A new handshake, or a probe's echo, went both ways. Bytes that came in went one way only; an initiation
  that came in proves nothing at all, since the answer to it may never arrive.
- A tunnel with a keepalive is never quiet for longer than that. One that is, or that sends and hears nothing,
  is *doubted*: probes go through it. Also those that a firewall inside the tunnel drops are answered, by an
  empty packet within KEEPALIVE_TIMEOUT (10 s; WireGuard whitepaper, section 6.5).
- A session that is due to be renewed, and is not, is asked, too. The end that answers a handshake takes it
  for done with the first packet that follows (whitepaper, 5.4.4), which may be lost, and the next one is a
  keepalive of its own: it would find its tunnel dead while all of it works.
- What is *silent* goes on being probed. Any packet makes WireGuard shake hands anew every REKEY_TIMEOUT
  (5 s); by itself it gives up after 90 s, and a keepalive would wake it 25 s later.
- What *returns* has to answer for a while before it counts, the longer the more often it broke off: who
  flaps between two channels has neither.

Knows nothing of links, names and addresses. All spans are seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.wgconf.model import HANDSHAKE_FRESH_S, ObservedPeer, handshake_is_fresh

QUIET_S = 10.0
"""How long beyond its keepalive a tunnel may be quiet."""
UNANSWERED_S = 4.0
"""How long what was sent may go unanswered before somebody asks."""
UNANSWERED_BYTES = 96
"""More than keepalives that cross: a packet with something in it."""
INITIATION_BYTES = 148
"""WireGuard whitepaper, section 5.4.2."""
DOUBT_EVERY_S = 2.0
DOUBT_PROVEN_S = 6.0
"""How long a tunnel is doubted whose far end answered probes before."""
DOUBT_S = 13.0
"""The same where it never did: KEEPALIVE_TIMEOUT and a moment."""
DOUBT_PROBES_MIN = 3
"""A machine that slept has asked once."""
FIND_OUT_EVERY_S, FIND_OUT_MAX = 5.0, 3
"""How often, and how many times, a tunnel that works is asked whether its far end answers probes at all."""
RENEWED_S = 152.0
"""By when a session with a keepalive is renewed: REKEY_AFTER_TIME (120 s, section 6.2), a keepalive and one
initiation that was lost."""
SILENT_EVERY_LOWER_S, SILENT_EVERY_HIGHER_S = 5.0, 7.0
"""Of two initiations that cross each other both answers are lost: the two ends keep different times."""
RETURN_EVERY_S = 1.0
STEADY_FIRST_S, STEADY_MAX_S = 2.0, 12.0
"""How long a tunnel that returns must answer; twice as long after each time that it broke off early."""
RETURN_GAP_S = 6.0
"""A tunnel that returns and is quiet for so long is silent again; ``DOUBT_S`` where its far end never
answered a probe."""
EARLY_S = 60.0
"""A tunnel that worked for less than that broke off early."""


class TunnelSilent(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="tunnel.silent"):
    """The sender hears nothing from the receiver through their tunnel: what goes one way alone looks well at
    one end."""


class ChannelState(enum.StrEnum):
    ANSWERING = "answering"
    DOUBTED = "doubted"
    """It worked when it was heard last, and is being asked."""
    IDLE = "idle"
    """Nothing was sent and nothing was heard: whether it works is not known."""
    SILENT = "silent"
    RETURNING = "returning"
    """It answers again, not for long enough yet."""


MOVES: dict[ChannelState, frozenset[ChannelState]] = {
    ChannelState.ANSWERING: frozenset({ChannelState.DOUBTED, ChannelState.IDLE}),
    ChannelState.DOUBTED: frozenset({ChannelState.ANSWERING, ChannelState.SILENT}),
    ChannelState.IDLE: frozenset({ChannelState.ANSWERING, ChannelState.DOUBTED}),
    ChannelState.SILENT: frozenset({ChannelState.ANSWERING, ChannelState.RETURNING}),
    ChannelState.RETURNING: frozenset({ChannelState.ANSWERING, ChannelState.SILENT}),
}
"""The lifecycle. ``SILENT`` to ``ANSWERING`` only where it was never heard before."""


@dataclass(slots=True)
class Channel:
    """One tunnel. Events: ``observe``, ``echoed``, ``told``; ``tick`` says whether to send a probe now."""

    since_unix_s: float
    """Since when this node watches it."""
    lower: bool
    """This node has the lower id of the two."""
    state: ChannelState = ChannelState.SILENT
    heard_unix_s: float | None = None
    """When anything last came in that proves something; None for never."""
    proven: bool = False
    """The far end has answered a probe."""
    _keepalive_s: int = 0
    _heard_s: float = float("-inf")
    _strict: bool = False
    """The far end says that it hears nothing: where it answers probes, only what goes both ways ends this
    doubt."""
    _finds: int = 0
    _entered_s: float = float("-inf")
    _worked_s: float = float("-inf")
    """Since when it has been answering."""
    _early: int = 0
    _probe_at_s: float = 0.0
    _probes: int = 0
    _rx: int | None = None
    _tx: int = 0
    _sent_s: float | None = None
    """When it was first seen that something was sent after what was heard last."""
    _handshake_s: float = 0.0
    _renewed_by_s: float = float("inf")
    """When a session that was not renewed by then is asked about (monotonic)."""

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def works(self) -> bool | None:
        """Says whether the tunnel works; None where it is not known."""
        if self.state is ChannelState.IDLE:
            return None
        return self.state in (ChannelState.ANSWERING, ChannelState.DOUBTED)

    @property
    def is_silent(self) -> bool:
        return self.state in (ChannelState.SILENT, ChannelState.RETURNING)

    @property
    def silent_since_unix_s(self) -> float | None:
        """Returns since when nothing answered; None where it works, or that is not known.

        For what was never heard, that is since when this node watches it."""
        if not self.is_silent:
            return None
        return self.since_unix_s if self.heard_unix_s is None else self.heard_unix_s

    def next_deadline(self) -> Deadline | None:
        """Returns when ``tick`` has something to do; None where only news changes anything."""
        if self.state in (ChannelState.ANSWERING, ChannelState.IDLE):
            quiet = Deadline(self._heard_s + self._quiet_s(), "a tunnel has been quiet")
            sent = self._sent_s
            unanswered = (
                Deadline(sent + UNANSWERED_S, "a tunnel did not answer") if sent is not None else None
            )
            find_out = Deadline(self._probe_at_s, "find out whether a member answers probes")
            renewed = Deadline(max(self._renewed_by_s, self._probe_at_s), "a session is to be renewed")
            return earliest(
                quiet if self.state is ChannelState.ANSWERING else None,
                unanswered,
                find_out if self._finds_out else None,
                renewed if self._renews else None,
            )
        return Deadline(self._probe_at_s, "probe a tunnel")

    # --- events ---------------------------------------------------------------------------------------------

    def observe(self, seen: ObservedPeer, keepalive_s: int, now: Instant) -> None:
        """Takes what the interface says of the peer."""
        self._keepalive_s = keepalive_s
        first = self._rx is None
        gained = 0 if self._rx is None else seen.rx_bytes - self._rx
        shaken = seen.latest_handshake_unix_s > self._handshake_s
        self._rx, self._handshake_s = seen.rx_bytes, seen.latest_handshake_unix_s
        fresh = handshake_is_fresh(self._handshake_s, now.unix_s)
        ends_s = now.mono_s + self._handshake_s - now.unix_s + RENEWED_S
        self._renewed_by_s = ends_s if fresh and keepalive_s else float("inf")
        if first:
            self._tx = seen.tx_bytes
            if self.heard_unix_s is None and handshake_is_fresh(seen.latest_handshake_unix_s, now.unix_s):
                self._begin(seen.latest_handshake_unix_s, now)
        elif shaken and handshake_is_fresh(seen.latest_handshake_unix_s, now.unix_s):
            self._hear(now, both_ways=True)
        elif gained > 0 and gained % INITIATION_BYTES:
            self._hear(now, both_ways=False)
        if self._heard_s >= now.mono_s:
            self._tx, self._sent_s = seen.tx_bytes, None
        elif self._sent_s is None and seen.tx_bytes - self._tx >= UNANSWERED_BYTES:
            self._sent_s = now.mono_s

    def echoed(self, now: Instant) -> None:
        """A probe came back."""
        self.proven = True
        self._sent_s = None
        self._hear(now, both_ways=True)

    def told(self, now: Instant) -> None:
        """The far end hears nothing of this node."""
        if self.state in (ChannelState.ANSWERING, ChannelState.IDLE):
            self._move(ChannelState.DOUBTED, now)
        self._strict = True

    def hasten(self, now: Instant) -> None:
        """The far end's agent lives again: a tunnel that had worked is probed at once, by the end with the
        lower id, since two initiations that cross lose both answers."""
        if self.lower and self.state is ChannelState.SILENT and self._handshake_s:
            self._probe_at_s = now.mono_s

    def tick(self, now: Instant, *, askable: bool = True) -> bool:
        """Lets time pass; says whether to send a probe now. ``askable``: there is somewhere to send it."""
        match self.state:
            case ChannelState.ANSWERING | ChannelState.IDLE:
                unanswered = self._sent_s is not None and now.mono_s >= self._sent_s + UNANSWERED_S
                quiet = now.mono_s >= self._heard_s + self._quiet_s()
                if unanswered or (quiet and self._keepalive_s):
                    self._move(ChannelState.DOUBTED, now)
                elif quiet and self.state is ChannelState.ANSWERING:
                    self._move(ChannelState.IDLE, now)
            case ChannelState.DOUBTED:
                doubt_s = DOUBT_PROVEN_S if self.proven else DOUBT_S
                if self._probes >= DOUBT_PROBES_MIN and now.mono_s >= self._entered_s + doubt_s:
                    self._fall_silent(now)
            case ChannelState.RETURNING:
                if now.mono_s >= self._heard_s + (RETURN_GAP_S if self.proven else DOUBT_S):
                    self._move(ChannelState.SILENT, now)
            case ChannelState.SILENT:
                pass
        settled = self.state in (ChannelState.ANSWERING, ChannelState.IDLE)
        late = self._renews and now.mono_s >= self._renewed_by_s
        if now.mono_s < self._probe_at_s or (settled and not self._finds_out and not late):
            return False
        self._finds += settled and askable and self._finds_out
        self._probes += 1
        self._probe_at_s = now.mono_s + self._every_s()
        return True

    # --- rules ----------------------------------------------------------------------------------------------

    @property
    def _finds_out(self) -> bool:
        return self.state is ChannelState.ANSWERING and not self.proven and self._finds < FIND_OUT_MAX

    @property
    def _renews(self) -> bool:
        return self.state is ChannelState.ANSWERING and self._renewed_by_s < float("inf")

    def _begin(self, handshake_unix_s: float, now: Instant) -> None:
        """A tunnel that is older than this agent: it shook hands, and what came since is not known."""
        ago_s = max(0.0, now.unix_s - handshake_unix_s)
        self.heard_unix_s = min(handshake_unix_s, now.unix_s)
        self._heard_s = now.mono_s - ago_s
        self._move(ChannelState.ANSWERING, now)
        if ago_s >= QUIET_S:
            self._move(ChannelState.DOUBTED, now)

    def _hear(self, now: Instant, *, both_ways: bool) -> None:
        if both_ways:
            self._strict = False
        elif self.state is ChannelState.SILENT or (self.is_silent and self.proven):
            return
        never = self.heard_unix_s is None
        self._heard_s = now.mono_s
        match self.state:
            case ChannelState.SILENT if never:
                self._move(ChannelState.ANSWERING, now)
            case ChannelState.SILENT:
                self._move(ChannelState.RETURNING, now)
            case ChannelState.RETURNING if now.mono_s >= self._entered_s + self._steady_s():
                self._move(ChannelState.ANSWERING, now)
            case ChannelState.DOUBTED if not (self._strict and self.proven):
                self._move(ChannelState.ANSWERING, now)
            case ChannelState.IDLE:
                self._move(ChannelState.ANSWERING, now)
            case _:
                pass
        if not self.is_silent:
            self.heard_unix_s = now.unix_s

    def _fall_silent(self, now: Instant) -> None:
        lasted_s = self._heard_s - self._worked_s
        self._early = self._early + 1 if lasted_s < EARLY_S else 0
        self._move(ChannelState.SILENT, now)

    def _move(self, state: ChannelState, now: Instant) -> None:
        before = self.state
        if state not in MOVES[before]:
            raise InvariantBroken(f"channel watched since {self.since_unix_s}: {before} to {state}")
        if state is ChannelState.ANSWERING:
            if before in (ChannelState.SILENT, ChannelState.RETURNING):
                self._worked_s = now.mono_s
            self._strict, self._sent_s = False, None
        self.state, self._entered_s, self._probes = state, now.mono_s, 0
        asked = state is ChannelState.SILENT or (state is ChannelState.ANSWERING and self._finds > 0)
        self._probe_at_s = now.mono_s + (self._every_s() if asked else 0.0)

    def _quiet_s(self) -> float:
        return self._keepalive_s + QUIET_S if self._keepalive_s else float(HANDSHAKE_FRESH_S)

    def _steady_s(self) -> float:
        return min(STEADY_FIRST_S * 2.0 ** min(self._early, 8), STEADY_MAX_S)

    def _every_s(self) -> float:
        match self.state:
            case ChannelState.DOUBTED:
                return DOUBT_EVERY_S
            case ChannelState.RETURNING:
                return RETURN_EVERY_S
            case ChannelState.SILENT:
                return SILENT_EVERY_LOWER_S if self.lower else SILENT_EVERY_HIGHER_S
            case _:
                return FIND_OUT_EVERY_S

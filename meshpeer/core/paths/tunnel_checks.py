"""Tunnel checks: whether a tunnel that shook hands lately still carries anything, found out within two
seconds.

A handshake vouches for three minutes (WireGuard's REJECT_AFTER_TIME), and in those an address may change, a
router may restart, a laptop may sleep. So a tunnel is *checked* where something happened that may have cut
it: this machine's network changed, this process was not let run, the peer shows other endpoints, its link
fell silent, or a tunnel that was busy brought nothing more. A check sends echoes into the tunnel. That alone
mends most of it, since whoever gets a packet from a new address sends there from then on. A tunnel that
answers nothing is *mute*, and a mute one is a tunnel without a fresh handshake to those who choose endpoints
(RFC 7675 asks ICE for the same, and calls it consent; RFC 9000, section 8.2, calls it path validation).

Silence is held only against a peer that has answered before, on this very tunnel: a firewall may drop echoes
and pass all else. Any bytes that come from a mute tunnel, or a handshake, clear it; where that happens
without an answer, its silence says nothing until it answers again (its agent may be stopped; tunnels outlive
it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import AskEcho
from meshpeer.core.ids import NodeId

ASK_GAPS_S = (0.3, 0.4, 0.5)
"""Between the first echoes of a check."""
VERDICT_S, VERDICT_MIN_S = 2.0, 1.0
"""A check without an answer by then ends: longer than any path's round trip. Sooner, where the last one is
known to have been short."""
MUTE_ASK_S = 1.0
"""A mute tunnel is asked so often: each of its endpoints gets an echo in its turn."""
LEARN_S = (0.0, 5.0, 60.0)
"""After a new tunnel's first handshake it is asked whether it answers at all; then at each check."""
CHECKS_MAX = 32
"""At once; others wait their turn."""
AROUND = 2
"""A silence is often this machine's own: so many other tunnels are asked with the first that shows one, and
whoever is behind them sees at once where this node's packets come from now."""
CHECKED_LATELY_S = 10.0
BUSY_BYTES = 1_000
"""What a tunnel brings between two looks if it is busy: keepalives are 32 bytes, echoes 53."""
LOOKS_APART_S = 1.0
ASKED_MAX = 256
NUMBER_BYTES = 8
FORGOTTEN_AFTER_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelSeen:
    """One tunnel of this node, as its interface was seen last."""

    addresses: tuple[str, ...]
    """The peer's own, on the overlay, that lead into this very tunnel."""
    fresh: bool
    """Its last handshake is so."""
    handshake_unix_s: int
    rx_bytes: int
    endpoint: str | None


@dataclass(slots=True)
class _Check:
    since_s: float
    next_s: float
    look: int
    """The last look before it."""
    handshake_unix_s: int
    asked: int = 0
    rx_bytes: int | None = None
    """As a look that surely came after its beginning saw it."""
    mute_since_s: float | None = None


@dataclass(slots=True)
class _Known:
    seen: TunnelSeen
    answers: bool = False
    rtt_s: float = VERDICT_S
    """Of its last answer."""
    shook: bool = False
    """It had a fresh handshake at the last update."""
    checked_s: float = float("-inf")
    rx: tuple[int, float] = (0, float("-inf"))
    """Bytes at the last look that counted, and when that was."""
    busy: bool = False


@dataclass(slots=True)
class TunnelChecks:
    """Of one node. Sans-IO: ``tick`` returns echoes, ``on_answer`` takes what comes back."""

    entropy: Callable[[int], bytes]
    _known: dict[NodeId, _Known] = field(default_factory=dict)
    _learns: dict[NodeId, tuple[float, ...]] = field(default_factory=dict)
    """When those are to be asked of whom it is not known whether they answer."""
    _checks: dict[NodeId, _Check] = field(default_factory=dict)
    _waiting: dict[NodeId, None] = field(default_factory=dict)
    _asked: dict[int, tuple[NodeId, float]] = field(default_factory=dict)
    _look: int = 0

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def mute(self) -> tuple[NodeId, ...]:
        """Returns whose tunnels answer nothing, in id order."""
        return tuple(sorted(node for node, one in self._checks.items() if one.mute_since_s is not None))

    def next_deadline(self) -> Deadline | None:
        checks = [one.next_s for one in self._checks.values()]
        learns = [times_s[0] for times_s in self._learns.values()]
        return earliest(
            Deadline(min(checks), "a tunnel is checked") if checks else None,
            Deadline(min(learns), "find out whether a tunnel answers") if learns else None,
        )

    # --- events ---------------------------------------------------------------------------------------------

    def update(self, tunnels: Mapping[NodeId, TunnelSeen], look: int, now: Instant) -> None:
        """Takes what the interface held when it was looked at last; ``look`` counts looks."""
        for node in [one for one in self._known if one not in tunnels]:
            del self._known[node]
            self._learns.pop(node, None)
            self._checks.pop(node, None)
            self._waiting.pop(node, None)
        quiet: list[NodeId] = []
        for node, seen in sorted(tunnels.items()):
            known = self._known.get(node)
            if known is None:
                known = self._known[node] = _Known(seen)
            if seen.fresh and not known.shook and not known.answers:
                self._learns[node] = tuple(now.mono_s + pause_s for pause_s in LEARN_S)
            known.seen, known.shook = seen, seen.fresh
            self._follow(node, known, look, now)
            if look != self._look and self._has_gone_quiet(known, now):
                quiet.append(node)
        self._look = look
        for node in quiet:
            self._suspect_around(node, now)

    def suspect(self, node: NodeId, now: Instant) -> None:
        """Something happened that may have cut this tunnel: checks it."""
        known = self._known.get(node)
        if known is None or known.seen.endpoint is None or node in self._checks or node in self._waiting:
            return
        known.checked_s = now.mono_s
        self._waiting[node] = None
        self._begin_waiting(now)

    def suspect_all(self, now: Instant) -> None:
        """This machine's network changed, or it slept: any tunnel may be cut."""
        for node in sorted(self._known):
            check = self._checks.get(node)
            if check is not None and check.mute_since_s is not None:
                check.next_s = now.mono_s
            elif check is not None:
                # What it waits for may have been lost before the change.
                self._begin(node, self._known[node], now)
            else:
                self.suspect(node, now)

    def on_lag(self, now: Instant) -> None:
        """This process ran late: answers may lie unread."""
        for node, check in list(self._checks.items()):
            if check.mute_since_s is None:
                self._begin(node, self._known[node], now)

    def on_answer(self, number: int, source: str, now: Instant) -> bool:
        """Takes what came back; says whether it was one of these echoes."""
        asked = self._asked.get(number)
        known = self._known.get(asked[0]) if asked else None
        if asked is None or known is None or source not in known.seen.addresses:
            return False
        del self._asked[number]
        known.answers, known.rtt_s = True, now.mono_s - asked[1]
        self._learns.pop(asked[0], None)
        self._end(asked[0], now)
        return True

    def tick(self, now: Instant) -> list[AskEcho]:
        """Returns the echoes that are due."""
        self._forget(now)
        echoes: list[AskEcho] = []
        for node, times_s in list(self._learns.items()):
            if now.mono_s >= times_s[0]:
                left = tuple(at_s for at_s in times_s if at_s > now.mono_s)
                if left:
                    self._learns[node] = left
                else:
                    del self._learns[node]
                echoes += self._ask(node, now)
        for node, check in list(self._checks.items()):
            if now.mono_s >= check.next_s:
                echoes += self._step(node, check, now)
        self._begin_waiting(now)
        return echoes

    # --- rules ----------------------------------------------------------------------------------------------

    def _begin(self, node: NodeId, known: _Known, now: Instant) -> None:
        self._waiting.pop(node, None)
        self._checks[node] = _Check(now.mono_s, now.mono_s, self._look, known.seen.handshake_unix_s)

    def _end(self, node: NodeId, now: Instant) -> None:
        self._checks.pop(node, None)
        self._begin_waiting(now)

    def _begin_waiting(self, now: Instant) -> None:
        """Begins what waits for its turn. Who is mute has had it."""
        while self._waiting and len(self._checks) - len(self.mute) < CHECKS_MAX:
            node = next(iter(self._waiting))
            self._begin(node, self._known[node], now)

    def _step(self, node: NodeId, check: _Check, now: Instant) -> list[AskEcho]:
        known = self._known[node]
        if check.mute_since_s is not None:
            check.next_s = now.mono_s + MUTE_ASK_S
            return self._ask(node, now)
        verdict_s = check.since_s + min(VERDICT_S, VERDICT_MIN_S + 4 * known.rtt_s)
        if now.mono_s >= verdict_s:
            if not (known.answers and known.seen.fresh):
                self._end(node, now)
                return []
            check.mute_since_s, check.next_s = now.mono_s, now.mono_s
            self._suspect_around(node, now)
            return []
        gap_s = ASK_GAPS_S[check.asked] if check.asked < len(ASK_GAPS_S) else VERDICT_S
        check.asked += 1
        check.next_s = min(now.mono_s + gap_s, verdict_s)
        return self._ask(node, now)

    def _follow(self, node: NodeId, known: _Known, look: int, now: Instant) -> None:
        """Ends a check of a mute tunnel by what the interface shows: bytes, a handshake, or no fresh one for
        so long that nothing has to be found out any more."""
        check, seen = self._checks.get(node), known.seen
        if check is None:
            return
        before = check.rx_bytes
        # The first look may have been made before the check began, and be told only now.
        if look >= check.look + 2 and (before is None or seen.rx_bytes < before):
            check.rx_bytes = seen.rx_bytes
        if check.mute_since_s is None:
            return
        shaken = seen.handshake_unix_s > check.handshake_unix_s
        if shaken or (before is not None and seen.rx_bytes > before):
            known.answers, self._learns[node] = False, (now.mono_s,)
            self._end(node, now)
        elif not seen.fresh:
            self._end(node, now)

    def _has_gone_quiet(self, known: _Known, now: Instant) -> bool:
        """Says whether a tunnel that was busy between the last two looks brought nothing since."""
        bytes_before, at_s = known.rx
        if now.mono_s < at_s + LOOKS_APART_S:
            return False
        grown = known.seen.rx_bytes - bytes_before
        known.rx = (known.seen.rx_bytes, now.mono_s)
        quiet = known.busy and grown == 0
        known.busy = grown >= BUSY_BYTES and at_s > 0
        return quiet

    def _suspect_around(self, node: NodeId, now: Instant) -> None:
        self.suspect(node, now)
        others = sorted(
            (one for one, known in self._known.items() if known.seen.fresh and one != node),
            key=lambda one: (not self._known[one].answers, self._known[one].checked_s, one),
        )
        for other in others[:AROUND]:
            if now.mono_s >= self._known[other].checked_s + CHECKED_LATELY_S:
                self.suspect(other, now)

    # --- echoes ---------------------------------------------------------------------------------------------

    def _ask(self, node: NodeId, now: Instant) -> list[AskEcho]:
        echoes: list[AskEcho] = []
        for address in self._known[node].seen.addresses:
            while len(self._asked) >= ASKED_MAX:
                del self._asked[next(iter(self._asked))]
            number = int.from_bytes(self.entropy(NUMBER_BYTES))
            self._asked[number] = (node, now.mono_s)
            echoes.append(AskEcho(number=number, address=address))
        return echoes

    def _forget(self, now: Instant) -> None:
        old_s = now.mono_s - FORGOTTEN_AFTER_S
        for number in [number for number, (_, at_s) in self._asked.items() if at_s <= old_s]:
            del self._asked[number]

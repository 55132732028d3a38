"""How wide one path is: a search by packets that are not fragmented, of which the other end answers those
that arrive.

Silence says that a packet was too long, not the routers' ICMP messages, which many networks drop (black
holes; RFC 4821 and RFC 8899 are this for a transport). Known widths are tried first and all at once, since
most paths have one of them; then the gap between what passed and what did not is halved. What was found is
asked again every minute, and everything anew every ten: routes change without a word.

All sizes are those of IP packets on the underlay. A path that answers nothing at all, not even the smallest
probe (a relay, an end without the right to raw sockets, one of an earlier version), tells nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from meshpeer.core.deadline import Instant

KNOWN = (9_040, 9_020, 9_000, 1_500, 1_492, 1_400, 1_280)
"""Jumbo frames that carry 8,960 bytes through a tunnel over IPv6 and over IPv4; usual ones; Ethernet; PPPoE;
tunnels of various kinds; the least that IPv6 has (RFC 8200, section 5)."""
GRAIN = 8
"""The search ends when no more than this is open."""
TRIES = 3
GAP_S = 0.7
"""Between tries of one size; as long after the last it counts as lost."""
CHECK_S = 60.0
SEARCH_S = 600.0
DEAF_FIRST_S, DEAF_MAX_S = 10.0, 600.0
"""A path that answers nothing is asked again after so long, twice as long each time."""


class Phase(enum.Enum):
    """What the questions under way are for."""

    ALIVE = "alive"
    """Whether the path answers at all."""
    STEPS = "steps"
    HALVES = "halves"
    CHECK = "check"
    """Whether it still carries what it did."""
    REST = "rest"


@dataclass(slots=True)
class _Try:
    due_s: float
    sent: int = 0


class MtuSearch:
    """Of one path. Sans-IO: ``due`` says which sizes to send, and whoever sends them says what came of it."""

    def __init__(self, *, least: int, top: int, now: Instant) -> None:
        """``least``: the size of the smallest probe. ``top``: more than this is of no use."""
        self.found: int | None = None
        """The widest that passed; None: nothing is known."""
        self.phase = Phase.ALIVE
        self._least, self._top = least, top
        self._floor, self._ceiling = least, top + 1
        """What passed, and what did not."""
        self._too_long = top + 1
        """This machine's own way out does not take this."""
        self._asked: tuple[int, ...] = ()
        self._open: dict[int, _Try] = {}
        self._passed: set[int] = set()
        self._rests_until_s = now.mono_s
        self._searched_at_s = float("-inf")
        self._deaf_s = DEAF_FIRST_S
        self._begin(Phase.ALIVE, (least,), now)

    def due(self, now: Instant) -> tuple[int, ...]:
        """Returns the sizes to send now, the smallest first; from then on they are under way."""
        if self.phase is Phase.REST and now.mono_s >= self._rests_until_s:
            self._wake(now)
        self._settle(now)
        sizes = sorted(size for size, one in self._open.items() if now.mono_s >= one.due_s)
        for size in sizes:
            self._open[size].sent += 1
            self._open[size].due_s = now.mono_s + GAP_S
        return tuple(sizes)

    def next_s(self) -> float:
        """Returns when there is something to do (monotonic)."""
        return min((one.due_s for one in self._open.values()), default=self._rests_until_s)

    def on_answer(self, size: int, now: Instant) -> None:
        """A packet of this size arrived. One that nobody waits for any more changes nothing."""
        if size in self._open:
            self._passed.add(size)
            # It answers for all that are smaller.
            self._open = {one: tried for one, tried in self._open.items() if one > size}
            self._settle(now)

    def on_too_long(self, size: int, now: Instant) -> None:
        """This machine's own way out is too narrow for a packet of this size."""
        self._too_long = min(self._too_long, size)
        self._open = {one: tried for one, tried in self._open.items() if one < size}
        self._settle(now)

    def look_again(self, now: Instant) -> None:
        """This machine's network changed: everything is asked anew. What was found holds meanwhile."""
        self._too_long, self._deaf_s = self._top + 1, DEAF_FIRST_S
        self._searched_at_s = float("-inf")
        self._begin(Phase.ALIVE, (self._least,), now)

    # --- rules ----------------------------------------------------------------------------------------------

    def _begin(self, phase: Phase, sizes: tuple[int, ...], now: Instant) -> None:
        self.phase, self._asked, self._passed = phase, sizes, set()
        self._open = {size: _Try(now.mono_s) for size in sizes if size < self._too_long}

    def _settle(self, now: Instant) -> None:
        """Goes on where all that was asked is answered or lost."""
        self._open = {
            size: one for size, one in self._open.items() if one.sent < TRIES or now.mono_s < one.due_s
        }
        while self.phase is not Phase.REST and not self._open:
            self._go_on(now)

    def _go_on(self, now: Instant) -> None:
        match self.phase:
            case Phase.ALIVE if not self._passed:
                self._rest(now, self._deaf_s)
                self._deaf_s = min(2 * self._deaf_s, DEAF_MAX_S)
            case Phase.ALIVE:
                self._deaf_s = DEAF_FIRST_S
                self._floor, self._ceiling = self._least, self._top + 1
                before = () if self.found is None else (self.found,)
                steps = {self._top, *(one for one in KNOWN if one < self._top), *before}
                self._begin(Phase.STEPS, tuple(sorted(steps)), now)
            case Phase.STEPS:
                self._narrow()
                self._searched_at_s = now.mono_s
                # What was found before was among them, so this falls only where that got lost.
                self.found = self._floor
                self._halve(now)
            case Phase.HALVES:
                self._narrow()
                self._halve(now)
            case Phase.CHECK if self._passed == {self._least}:
                # The end is there, and no more gets that far.
                self._begin(Phase.ALIVE, (self._least,), now)
            case Phase.CHECK | Phase.REST:
                self._rest(now, CHECK_S)

    def _narrow(self) -> None:
        """Takes what came of the steps, or of a half."""
        self._floor = max(self._floor, *self._passed) if self._passed else self._floor
        lost = [one for one in self._asked if one > self._floor]
        self._ceiling = min(self._ceiling, self._too_long, *lost)

    def _halve(self, now: Instant) -> None:
        while self._ceiling - self._floor > GRAIN:
            half = (self._floor + self._ceiling) // 2
            if half < self._too_long:
                self._begin(Phase.HALVES, (half,), now)
                return
            self._ceiling = half
        self.found = self._floor
        self._rest(now, CHECK_S)

    def _rest(self, now: Instant, for_s: float) -> None:
        self.phase, self._open = Phase.REST, {}
        self._rests_until_s = now.mono_s + for_s

    def _wake(self, now: Instant) -> None:
        if self.found is None or now.mono_s >= self._searched_at_s + SEARCH_S:
            # A way out that was too narrow may be wider by now.
            self._too_long = self._top + 1
            self._begin(Phase.ALIVE, (self._least,), now)
        else:
            self._begin(Phase.CHECK, (self._least, self.found), now)

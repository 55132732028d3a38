"""Doubts: what this node does about a member that it can't reach, before it says so to others.

- *redial*: the link was lost. Whoever keeps links dials again; if that tells nothing in time, helpers are
  asked.
- *asked*: up to three linked peers try to reach it (SWIM's ping-req). One that does settles it.
- *given*: nobody reached it. A suspicion was signed, and there is nothing left to do but to hear of it.
- *settled*: somebody reached it. Its own failing links say nothing new for a while.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId

HELPERS = 3
REDIAL_WAIT_S = 5.0
"""A redial that has said nothing by then counts as failed: an address that drops packets says nothing for
long."""
ANSWER_WAIT_S = 1.5
"""Helpers try for a second; half a one is left for the way."""
SETTLED_S = 30.0


class Dice(Protocol):
    def random(self) -> float: ...


class Phase(enum.Enum):
    REDIAL = "redial"
    ASKED = "asked"
    GIVEN = "given"
    SETTLED = "settled"


@dataclass(slots=True)
class _Doubt:
    phase: Phase
    because: str
    until_s: float
    closed: bool = False
    number: int = 0
    helpers: list[NodeId] = field(default_factory=list)
    """Those that have not answered yet."""


@dataclass(slots=True)
class Doubts:
    """One doubt per member at most."""

    _held: dict[NodeId, _Doubt] = field(default_factory=dict)
    _numbers: int = 0

    def begin(self, node: NodeId, because: str, now: Instant) -> None:
        """Starts to doubt a member that lived a moment ago."""
        held = self._held.get(node)
        if held is None or held.phase in (Phase.GIVEN, Phase.SETTLED):
            self._held[node] = _Doubt(Phase.REDIAL, because, now.mono_s + REDIAL_WAIT_S)

    def dial_failed(self, node: NodeId, because: str, refused: bool, now: Instant) -> bool:
        """Takes a failed dial; says whether helpers are to be asked now."""
        held = self._held.get(node)
        if held is None:
            self._held[node] = _Doubt(Phase.REDIAL, because, now.mono_s, closed=refused)
            return True
        if held.phase is Phase.SETTLED and now.mono_s >= held.until_s:
            self._held[node] = _Doubt(Phase.REDIAL, because, now.mono_s, closed=refused)
            return True
        held.closed = held.closed or refused
        if held.phase is not Phase.REDIAL:
            return False
        held.because = because if refused else held.because
        return True

    def ask(
        self, node: NodeId, candidates: Sequence[NodeId], dice: Dice, until_s: float
    ) -> tuple[int, list[NodeId]]:
        """Chooses helpers; returns the number of the question and whom to put it to."""
        left = list(candidates)
        helpers: list[NodeId] = []
        while left and len(helpers) < HELPERS:
            helpers.append(left.pop(int(dice.random() * len(left))))
        self._numbers += 1
        held = self._held[node]
        held.phase, held.number, held.helpers, held.until_s = (
            Phase.ASKED,
            self._numbers,
            list(helpers),
            until_s,
        )
        return self._numbers, helpers

    def answered(self, node: NodeId, helper: NodeId, number: int) -> bool:
        """Takes a helper's answer; says whether it was awaited."""
        held = self._held.get(node)
        if held is None or held.phase is not Phase.ASKED or held.number != number:
            return False
        if helper not in held.helpers:
            return False
        held.helpers.remove(helper)
        return True

    def all_answered(self, node: NodeId) -> bool:
        held = self._held.get(node)
        return held is not None and held.phase is Phase.ASKED and not held.helpers

    def silent_helpers(self, node: NodeId) -> int | None:
        """Returns how many helpers said nothing, None where none was asked yet."""
        held = self._held[node]
        return len(held.helpers) if held.phase is Phase.ASKED else None

    def give_up(self, node: NodeId) -> tuple[str, bool]:
        """Nobody reached it; returns why, and whether its host refused."""
        held = self._held[node]
        held.phase, held.helpers = Phase.GIVEN, []
        return held.because, held.closed

    def settle(self, node: NodeId, now: Instant) -> None:
        held = self._held.get(node)
        if held is not None:
            held.phase, held.helpers, held.until_s = Phase.SETTLED, [], now.mono_s + SETTLED_S
            held.closed = False

    def drop(self, node: NodeId) -> None:
        self._held.pop(node, None)

    def postpone(self, by_s: float) -> None:
        for held in self._held.values():
            held.until_s += by_s

    def due(self, now: Instant) -> list[NodeId]:
        """Returns the members whose redial or helpers have run out of time, in id order."""
        return sorted(
            node
            for node, held in self._held.items()
            if held.phase in (Phase.REDIAL, Phase.ASKED) and now.mono_s >= held.until_s
        )

    def next_deadline(self) -> Deadline | None:
        waits = [held.until_s for held in self._held.values() if held.phase in (Phase.REDIAL, Phase.ASKED)]
        return Deadline(min(waits), "a doubt runs out") if waits else None


def ask_deadline(now: Instant, factor: float) -> float:
    """Returns until when helpers may answer."""
    return now.mono_s + ANSWER_WAIT_S * factor

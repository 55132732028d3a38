"""From whom to get a file, and for how long to go on trying.

Who needs a file knows some nodes that should have it, the best first. They are asked in rounds, one after the
other. A link that is cut is nobody's fault: the next one is asked, and whoever has sent something is waited
for as long as an agent takes to start anew. Who says that it has nothing may be about to have it, and is
believed the third time. Who sent other content than was announced is not asked again.

Knows no time: between two rounds the caller pauses for ``PAUSE_S``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from meshpeer.core.ids import NodeId

PAUSE_S = 1.0
ROUNDS_MAX = 3
"""Rounds without a byte, before the first one came."""
PATIENT_ROUNDS_MAX = 20
"""The same, once something came: it is all there still, and an agent starts anew within some ten seconds."""
MISSES_MAX = 3


class Next(enum.Enum):
    """What to do when there is nobody to ask at this moment."""

    PAUSE = "pause"
    GIVE_UP = "give up"


class Search:
    """The search for one file."""

    def __init__(self, holders: Iterable[NodeId]) -> None:
        self._holders = list(dict.fromkeys(holders))
        self._misses: dict[NodeId, int] = {}
        self._round: list[NodeId] = list(self._holders)
        self._fruitless = 0
        self._rounds_max = ROUNDS_MAX
        self.reason = "nobody holds it"
        """Why it is not here yet, in words."""

    @property
    def holders(self) -> tuple[NodeId, ...]:
        """Those that are still asked."""
        return tuple(self._holders)

    def next(self) -> NodeId | Next:
        """Returns whom to ask now. After ``PAUSE`` a new round begins."""
        if not self._holders:
            return Next.GIVE_UP
        if self._round:
            return self._round.pop(0)
        self._fruitless += 1
        if self._fruitless >= self._rounds_max:
            return Next.GIVE_UP
        self._round = list(self._holders)
        return Next.PAUSE

    def on_cut(self, holder: NodeId, reason: str, *, moved: bool) -> None:
        """It could not be reached, or no more of it; ``moved``: it sent something before."""
        self.reason = reason
        if moved:
            self._fruitless, self._rounds_max = 0, PATIENT_ROUNDS_MAX

    def on_missing(self, holder: NodeId, reason: str) -> None:
        """It says that it does not have the file."""
        self.reason = reason
        self._misses[holder] = self._misses.get(holder, 0) + 1
        if self._misses[holder] >= MISSES_MAX:
            self._leave_out(holder)

    def on_wrong(self, holder: NodeId, reason: str) -> None:
        """It sent what was not asked for; what came is dropped."""
        self.reason = reason
        self._leave_out(holder)

    def _leave_out(self, holder: NodeId) -> None:
        self._holders.remove(holder)
        self._round = [one for one in self._round if one != holder]

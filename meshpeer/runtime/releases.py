"""Holds what may not overtake the disk: an effect waits for its persist ticket, in order, or never
happens.

An acknowledgement that names ``after=7`` is a promise backed by write 7. It is performed once the journal
has said ``Committed`` of 7, and dropped for good where the journal has said ``CommitFailed``. A ticket
that nobody has spoken of yet is waited for, so it does not matter whether the write or what depends on it
is handed over first.

Pure: it knows neither the journal nor what it holds; performing is the caller's.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import Ticket

GAP_TICKETS_MAX = 10_000
"""Committed tickets beyond the lowest that is not: more of them means that a ticket was taken and never
written.
"""

Held = TypeVar("Held")


class Verdict(enum.Enum):
    """What the caller does with what it offered."""

    PERFORM = "perform"
    """The write is on disk, or none is waited for: perform it now."""
    HELD = "held"
    """It comes back from ``committed``, or from ``failed``."""
    DROPPED = "dropped"
    """The write failed: it must never be performed."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Held]):
    order: int
    what: Held


class Releases(Generic[Held]):
    """One per opened store: after a failure that store commits nothing more, so nothing more is released."""

    def __init__(self) -> None:
        self._waiting: dict[Ticket, list[_Waiting[Held]]] = {}
        self._order = 0
        self._floor = 0
        """Every ticket up to this one is on disk."""
        self._above: set[Ticket] = set()
        """On disk too, beyond the first that is not."""
        self._broken = False

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def hold(self, after: Ticket | None, what: Held) -> Verdict:
        """Takes what depends on a ticket, and says what becomes of it."""
        if after is None or self._on_disk(after):
            return Verdict.PERFORM
        if self._broken:
            return Verdict.DROPPED
        self._order += 1
        self._waiting.setdefault(after, []).append(_Waiting(self._order, what))
        return Verdict.HELD

    def committed(self, tickets: Sequence[Ticket]) -> tuple[Held, ...]:
        """Returns what waited for these tickets, in the order in which it was held; the caller performs it.

        Raises ``InvariantBroken`` where the tickets show that one was taken and never written.
        """
        self._above.update(ticket for ticket in tickets if ticket > self._floor)
        while self._floor + 1 in self._above:
            self._floor += 1
            self._above.remove(Ticket(self._floor))
        if len(self._above) > GAP_TICKETS_MAX:
            raise InvariantBroken(
                f"ticket {self._floor + 1} was taken and never written: {len(self._above)} came after it"
            )
        return self._take(tickets)

    def failed(self, tickets: Sequence[Ticket]) -> tuple[Held, ...]:
        """Drops what waited for these tickets and returns it, for who has to be told."""
        self._broken = True
        return self._take(tickets)

    def check(self) -> None:
        """Raises ``InvariantBroken`` where something waits for a ticket that is on disk."""
        for ticket in self._waiting:
            if self._on_disk(ticket):
                raise InvariantBroken(
                    f"{self._waiting[ticket]} still waits for ticket {ticket}, which is on disk"
                )

    def _on_disk(self, ticket: Ticket) -> bool:
        return ticket <= self._floor or ticket in self._above

    def _take(self, tickets: Sequence[Ticket]) -> tuple[Held, ...]:
        taken = [one for ticket in tickets for one in self._waiting.pop(ticket, ())]
        taken.sort(key=lambda one: one.order)
        return tuple(one.what for one in taken)

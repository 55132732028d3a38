"""The lifecycle of a reservation, as a table of allowed moves."""

from __future__ import annotations

import enum

from meshpeer.core.errors import InvariantBroken


class RelayState(enum.StrEnum):
    OPENING = "opening"
    """Its ports are being opened; nobody was told of it."""
    OPEN = "open"
    FROZEN = "frozen"
    """The ends agreed that nothing crosses, from an instant on that may still be ahead."""
    CLOSED = "closed"


MOVES: dict[RelayState, frozenset[RelayState]] = {
    RelayState.OPENING: frozenset({RelayState.OPEN, RelayState.CLOSED}),
    RelayState.OPEN: frozenset({RelayState.FROZEN, RelayState.CLOSED}),
    RelayState.FROZEN: frozenset({RelayState.OPEN, RelayState.CLOSED}),
    RelayState.CLOSED: frozenset(),
}


def check_move(before: RelayState, after: RelayState, *, story: str) -> None:
    """Raises ``InvariantBroken`` for a move that the table does not have."""
    if after not in MOVES[before]:
        raise InvariantBroken(f"{story}: {before} to {after}")

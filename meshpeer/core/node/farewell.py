"""The last word of a node that leaves: every linked peer is told at once, and answers.

Plumtree may only announce to a peer, and waits between pushes; a node that goes has no time for either. The
answer to a ping that follows the tombstone on the same link shows that the tombstone was read.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshpeer.core.ids import NodeId
from meshpeer.core.membership.messages import Ping, Pong

FAREWELL_NUMBER = 0
"""Number of the ping behind a tombstone; the detector counts from 1."""


class Farewell:
    """Whom a leaving node has told. Sans-IO."""

    def __init__(self) -> None:
        self._waits_for: set[NodeId] = set()
        self._said = False
        self.told: set[NodeId] = set()
        """Peers that have read the tombstone."""

    @property
    def is_over(self) -> bool:
        """Says whether everybody who was linked has answered, or is linked no more."""
        return self._said and not self._waits_for

    @property
    def addressed(self) -> int:
        """How many peers answered or may still answer."""
        return len(self.told) + len(self._waits_for)

    def begin(self, peers: Iterable[NodeId]) -> list[tuple[NodeId, Ping]]:
        """Returns what is sent behind the tombstone, on the same links."""
        self._said = True
        self._waits_for = set(peers)
        return [(peer, Ping(number=FAREWELL_NUMBER)) for peer in sorted(self._waits_for)]

    def on_pong(self, peer: NodeId, pong: Pong) -> bool:
        """Takes an answer; says whether it ended the farewell."""
        if pong.number != FAREWELL_NUMBER or peer not in self._waits_for:
            return False
        self._waits_for.remove(peer)
        self.told.add(peer)
        return not self._waits_for

    def on_down(self, peer: NodeId) -> bool:
        """Waits no more for a peer without a link; says whether that ended the farewell."""
        if peer not in self._waits_for:
            return False
        self._waits_for.remove(peer)
        return not self._waits_for

"""The rings: who is to be linked to whom, and who may say that somebody is dead.

Four orders of all members, each by a hash that the mesh id salts. A node keeps links to its neighbours on
each, as in Rapid (L. Suresh et al., "Stable and Consistent Membership at Scale with Rapid", USENIX ATC
2018): the graph is an expander, so it stays connected when half of it dies at once, and everybody can check
who observes whom, since the rings follow from the member list alone."""

from __future__ import annotations

import bisect
import functools
import hashlib
from collections.abc import Iterator, Sequence

from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.wire.limits import MEMBERS_MAX

RINGS = 4
OBSERVERS_PER_RING = 16
"""The first so many members after a node on a ring may observe it: its neighbour, and those who step in."""
OBSERVERS_REMEMBERED = 1_024
"""Subjects whose observers are looked up again and again: neighbours, and those of whom something is said."""
RINGS_REMEMBERED = 4
"""Member lists whose rings are kept; nodes of one simulation share them."""


class Rings:
    """The rings of one member list. Immutable."""

    __slots__ = ("_mesh", "_nodes", "_observers", "_positions", "_size")

    def __init__(self, mesh: MeshId, members: Sequence[NodeId]) -> None:
        self._mesh = mesh
        self._size = len(members)
        ordered = [sorted((position(mesh, ring, node), node) for node in members) for ring in range(RINGS)]
        self._positions = [[place for place, _ in ring] for ring in ordered]
        self._observers: dict[NodeId, tuple[NodeId, ...]] = {}
        self._nodes = [[node for _, node in ring] for ring in ordered]

    def __len__(self) -> int:
        return self._size

    def holds(self, node: NodeId) -> bool:
        """Says whether a node is on the rings."""
        if not self._size:
            return False
        index = bisect.bisect_left(self._positions[0], position(self._mesh, 0, node))
        return index < self._size and self._nodes[0][index] == node

    def after(self, ring: int, node: NodeId) -> Iterator[NodeId]:
        """Walks the ring upwards from a node, which need not be on it, once around; the node itself is left
        out."""
        nodes = self._nodes[ring]
        start = bisect.bisect_right(self._positions[ring], position(self._mesh, ring, node))
        for step in range(len(nodes)):
            other = nodes[(start + step) % len(nodes)]
            if other != node:
                yield other

    def before(self, ring: int, node: NodeId) -> Iterator[NodeId]:
        """Walks the ring downwards."""
        nodes = self._nodes[ring]
        start = bisect.bisect_left(self._positions[ring], position(self._mesh, ring, node))
        for step in range(1, len(nodes) + 1):
            other = nodes[(start - step) % len(nodes)]
            if other != node:
                yield other

    def observers(self, subject: NodeId) -> tuple[NodeId, ...]:
        """Returns who may observe a node, in id order."""
        known = self._observers.get(subject)
        if known is not None:
            return known
        found: dict[NodeId, None] = {}
        for ring in range(RINGS):
            for _, other in zip(range(OBSERVERS_PER_RING), self.after(ring, subject), strict=False):
                found[other] = None
        if len(self._observers) < OBSERVERS_REMEMBERED:
            self._observers[subject] = tuple(sorted(found))
        return tuple(sorted(found))

    def entitled(self, observer: NodeId, subject: NodeId) -> bool:
        """Says whether one node may observe another."""
        return observer in self.observers(subject)


@functools.lru_cache(maxsize=RINGS_REMEMBERED)
def rings_of(mesh: MeshId, members: tuple[NodeId, ...]) -> Rings:
    """Returns the rings of a member list."""
    return Rings(mesh, members)


@functools.lru_cache(maxsize=RINGS * MEMBERS_MAX)
def position(mesh: MeshId, ring: int, node: NodeId) -> int:
    """Returns where a node stands on a ring: 64 bits of BLAKE2b (RFC 7693), salted with mesh and ring."""
    digest = hashlib.blake2b(node, digest_size=8, key=mesh[:32], salt=ring.to_bytes(2))
    return int.from_bytes(digest.digest())

#!/usr/bin/env python3
"""Counts what reconciliation costs on the wire, the facts themselves left out.

Two sides hold the same members but for a few; a round is played through the real codec and its frames are
counted, both ways. Ids and items are hashes of numbers, so every run prints the same table.

    python scripts/bench/antientropy.py
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from meshpeer.core.antientropy.messages import FRAMES, Compare, Synced
from meshpeer.core.antientropy.ranges import Reconciler
from meshpeer.core.ids import NodeId
from meshpeer.core.wire.frames import Channel, Codec

CASES = (
    ("identical", 1_000, 0),
    ("identical", 10_000, 0),
    ("10 differ", 1_000, 10),
    ("10 differ", 10_000, 10),
    ("all differ", 1_000, 1_000),
    ("all differ", 10_000, 10_000),
    ("one side is empty", 1_000, -1),
    ("one side is empty", 10_000, -1),
)
ROUNDS_MAX = 200
CODEC = Codec(Channel.CONTROL, FRAMES)

Watcher = Callable[[NodeId, bytes | None, bytes | None], None]


class Side:
    """Versions by member; the higher one wins."""

    def __init__(self, versions: dict[NodeId, int]) -> None:
        self.versions = dict(versions)
        self._watchers: list[Watcher] = []
        self.reconciler = Reconciler(self)

    def item_of(self, node: NodeId) -> bytes | None:
        version = self.versions.get(node)
        return None if version is None else hashlib.sha256(node + version.to_bytes(4)).digest()

    def watch(self, watcher: Watcher, *, from_now: bool = False) -> None:
        self._watchers.append(watcher)
        for node in () if from_now else self.versions:
            watcher(node, None, self.item_of(node))

    def take(self, node: NodeId, version: int) -> None:
        if version > self.versions.get(node, -1):
            held = self.item_of(node)
            self.versions[node] = version
            for watcher in self._watchers:
                watcher(node, held, self.item_of(node))


def main() -> None:
    print(f"{'':20}{'members':>9}{'bytes':>10}{'frames':>8}{'rounds':>8}{'facts moved':>13}")
    for name, size, differing in CASES:
        cost, frames, rounds, moved = play(*sides_of(size, differing))
        print(f"{name:20}{size:>9,}{cost:>10,}{frames:>8}{rounds:>8}{moved:>13,}")


def sides_of(size: int, differing: int) -> tuple[Side, Side]:
    """Every second difference is the left side's news; fewer than none: the left side has nothing."""
    nodes = [NodeId(hashlib.sha256(number.to_bytes(4)).digest()) for number in range(size)]
    left, right = Side({} if differing < 0 else dict.fromkeys(nodes, 0)), Side(dict.fromkeys(nodes, 0))
    for number, node in enumerate(nodes[: max(0, differing)]):
        (right if number % 2 else left).take(node, 1)
    return left, right


def play(left: Side, right: Side) -> tuple[int, int, int, int]:
    """Plays rounds until both hold the same; returns bytes, frames, rounds, and facts moved."""
    cost = frames = rounds = moved = 0
    while rounds == 0 or left.versions != right.versions:
        rounds += 1
        if rounds > ROUNDS_MAX:
            raise SystemExit(f"not equal after {ROUNDS_MAX} rounds")
        message: Compare | Synced = left.reconciler.open()
        me, peer = right, left
        while True:
            cost += len(CODEC.encode(message))
            frames += 1
            if isinstance(message, Synced):
                break
            answer = me.reconciler.on_compare(message)
            for node in answer.push:
                peer.take(node, me.versions[node])
            moved += len(answer.push)
            message, me, peer = answer.reply, peer, me
    return cost, frames, rounds, moved


if __name__ == "__main__":
    main()

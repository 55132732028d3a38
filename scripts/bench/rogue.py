#!/usr/bin/env python3
"""What a rogue member costs an honest one: processor time of a simulated mesh with it, less that without.

    scripts/bench/rogue.py [KIND[:PER_S[:USES]] ...]

Twenty hosts; the rogue sends one kind of rubbish to eight of them for a minute. Timed is what happens inside
the honest nodes (their core: no TLS, no sockets); printed is all that they spend more than without a rogue,
as a share of a core for each of those eight.
"""

from __future__ import annotations

import sys
import time

from meshpeer.core.deadline import Instant
from meshpeer.core.node.node import Node
from meshpeer.core.node.unions import NodeEffect, NodeEvent
from meshpeer.sim.result import Result
from meshpeer.sim.rogue import VICTIMS
from meshpeer.sim.runner import Run
from meshpeer.sim.scenario import parse_scenario

SIZE = 20
FOR_S = 60
MESH = f'size = {SIZE}\nseed = 3\nboot = "warm"\nduration_s = {FOR_S + 10}\nlatency_ms = 10\n'
KINDS = (
    "forged:200",
    "counters:200",
    "equivocation:200",
    "replay:200",
    "identities:200",
    "identities:200:1000",
    "big-frames:5",
    "slow:5",
)


def main() -> int:
    spent = watch_nodes()
    base_s = min(run(MESH, spent)[0] for _ in range(2))
    print(f"{'kind':14}{'a second':>9}{'uses':>6}{'sent':>9}{'core, each':>12}  what went wrong")
    for asked in sys.argv[1:] or KINDS:
        kind, *rest = asked.split(":")
        per_s, uses = (*rest, *("10", "1")[len(rest) :])[:2]
        event = f'[[events]]\nat_s = 5\ndo = "rogue"\nkind = "{kind}"\nfor_s = {FOR_S}\n'
        spent_s, result = run(f"{MESH}{event}per_s = {per_s}\nuses = {uses}\n", spent)
        share = (spent_s - base_s) / FOR_S / VICTIMS
        sent = int(float(per_s) * FOR_S * VICTIMS)
        wrong = "; ".join(result.failures)
        print(f"{kind:14}{per_s:>9}{uses:>6}{sent:>9}{share:>12.2%}  {wrong}", flush=True)
    return 0


def watch_nodes() -> list[float]:
    """Returns a list whose only item grows by the processor time of each step of an honest node."""
    spent = [0.0]
    real = Node.handle

    def timed(self: Node, event: NodeEvent, now: Instant) -> list[NodeEffect]:
        begun = time.thread_time()
        try:
            return real(self, event, now)
        finally:
            spent[0] += time.thread_time() - begun

    Node.handle = timed  # type: ignore[method-assign]
    return spent


def run(text: str, spent: list[float]) -> tuple[float, Result]:
    spent[0] = 0.0
    result = Run(parse_scenario(text, "rogue")).run()
    return spent[0], result


if __name__ == "__main__":
    sys.exit(main())

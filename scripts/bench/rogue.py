#!/usr/bin/env python3
"""What a rogue member costs an honest one: processor time of a simulated mesh with it, less that without.

    scripts/bench/rogue.py [KIND[:PER_S[:USES]] ...]

Twenty hosts; the rogue sends one kind of rubbish to eight of them for a minute. What the rogue itself takes
is left out. Printed is all that the mesh spends more, as a share of a core for each of those eight; without
TLS.
"""

from __future__ import annotations

import sys
import time

from meshpeer.sim.result import Result
from meshpeer.sim.rogue import VICTIMS, Rogue
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
    rogue_s = watch_the_rogue()
    base_s = min(run(MESH)[0] for _ in range(2))
    print(f"{'kind':14}{'a second':>9}{'uses':>6}{'sent':>9}{'core, each':>12}  what went wrong")
    for asked in sys.argv[1:] or KINDS:
        kind, per_s, uses = (*asked.split(":"), "", "")[:3]
        rogue_s.clear()
        event = f'[[events]]\nat_s = 5\ndo = "rogue"\nkind = "{kind}"\nfor_s = {FOR_S}\n'
        spent_s, result = run(f"{MESH}{event}per_s = {per_s or 10}\nuses = {uses or 1}\n")
        share = (spent_s - base_s - sum(rogue_s)) / FOR_S / VICTIMS
        sent = int(float(per_s or 10) * FOR_S * VICTIMS)
        print(
            f"{kind:14}{per_s or 10:>9}{uses or 1:>6}{sent:>9}{share:>12.2%}  {'; '.join(result.failures)}",
            flush=True,
        )
    return 0


def watch_the_rogue() -> list[float]:
    """Returns a list that the processor time of each step of the rogue is added to."""
    spent: list[float] = []
    honest = Rogue.handle

    def timed(self: Rogue, *arguments: object) -> list[object]:
        begun = time.process_time()
        try:
            return honest(self, *arguments)  # type: ignore[arg-type]
        finally:
            spent.append(time.process_time() - begun)

    Rogue.handle = timed  # type: ignore[method-assign, assignment]
    return spent


def run(text: str) -> tuple[float, Result]:
    begun = time.process_time()
    result = Run(parse_scenario(text, "rogue")).run()
    return time.process_time() - begun, result


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Mixes of NATs in virtual time: whether every pair gets the best way that theory allows, and stays there.

Each mix draws machines behind routers of all kinds, boots them, and then a router reboots, an address
changes, a relay is off for a while and a machine sleeps. Exits with 1 where any pair has another way than it
could have, or changes without a reason. One seed replays a mix: `--seed N --mixes 1`.

    .venv/bin/python scripts/bench/nat_mixes.py [--mixes 50] [--nodes 100] [--hours 1] [--seed 1]
        [--jobs 1] [--out FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from meshpeer.sim.nat.mixes import Way
from meshpeer.sim.nat.run import LEAST_S, MixResult, run_mix

VIOLATIONS_SHOWN = 10
NODES = range(6, 251)


def main() -> int:
    asked = _parsed()
    results: list[MixResult] = []
    seeds = range(asked.seed, asked.seed + asked.mixes)
    with ProcessPoolExecutor(asked.jobs, max_tasks_per_child=1) as pool:
        for one in as_completed(pool.submit(run_mix, seed, asked.nodes, asked.hours) for seed in seeds):
            results.append(one.result())
            show(results[-1])
            if asked.out is not None:
                # One line each, at once: a run that is cut off leaves what it found.
                with asked.out.open("a") as out:
                    out.write(json.dumps(_document(results[-1])) + "\n")
    failed = sorted(one.seed for one in results if one.violations)
    cpu_s = sum(one.cpu_s for one in results)
    print(f"{len(results)} mixes of {asked.nodes} nodes, {asked.hours:g} h each: ", end="")
    print(f"{len(results) - len(failed)} without a violation; {cpu_s:.0f} s of a processor")
    if failed:
        print(f"seeds with violations: {', '.join(map(str, failed))}")
    return 1 if failed else 0


def show(result: MixResult) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(result.kinds.items()))
    print(f"seed {result.seed}: {'ok' if not result.violations else 'FAILED'} ({result.cpu_s:.0f} s)")
    print(f"  machines    {kinds}")
    for (best, way), count in sorted(result.ways.items(), key=lambda one: (one[0][0], one[0][1] or "")):
        has = way or ("link" if best is Way.LINK else "nothing")
        print(f"  pairs       {count // 2} could have {best}, have {has}")
    print(f"  pairs       {result.carried // 2} go by hubs")
    for name, spread in (("boot", result.boot_s), ("events", result.events_s)):
        print(
            f"  {name:<11} settled after {spread[0]:.1f} s p50, {spread[1]:.1f} s p99, {spread[2]:.1f} s max"
        )
    print(f"  afterwards  {result.late_changes} changes; worst pair: {result.worst or 'none'}")
    for one in result.happened:
        print(f"  happened    {one}")
    for one in result.violations[:VIOLATIONS_SHOWN]:
        print(f"  violation   {one}")
    if len(result.violations) > VIOLATIONS_SHOWN:
        print(f"  violation   and {len(result.violations) - VIOLATIONS_SHOWN} more")
    sys.stdout.flush()


def _document(result: MixResult) -> dict[str, object]:
    ways = [
        {"could_have": best, "have": way, "pairs": count // 2} for (best, way), count in result.ways.items()
    ]
    return dataclasses.asdict(dataclasses.replace(result, ways={})) | {"ways": ways}


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mixes", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes; mixes are shown as they end")
    parser.add_argument("--out", type=Path, help="a file to which each result is added, as a line of JSON")
    asked = parser.parse_args()
    if asked.nodes not in NODES:
        parser.error(f"--nodes goes from {NODES[0]} to {NODES[-1]}")
    if asked.hours * 3_600 < LEAST_S:
        parser.error(f"--hours is at least {LEAST_S / 3_600:.2f}: pairs need their time to settle")
    return asked


if __name__ == "__main__":
    sys.exit(main())

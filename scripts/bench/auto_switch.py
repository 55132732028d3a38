#!/usr/bin/env python3
"""What a mesh of topology ``auto`` loses while it goes from full to regional and back, under load.

Makes a lab of ten nodes in three regions with the commands that a user types, pings every pair every 20 ms,
keeps TCP connections talking, lets the eleventh join, waits, lets three leave, waits. Needs root.

    .venv/bin/python scripts/bench/auto_switch.py [IDLE_S]

``IDLE_S``: how long a tunnel has to be idle before hubs take over (180, as in a new mesh). With 0 all pairs
move at once, whatever they carry.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab, Node, Traffic

REGIONS = ("eu", "us", "ap")
NAMES = (
    *("alpha", "bravo", "charlie", "delta", "echo", "foxtrot"),
    *("golf", "hotel", "india", "juliett", "kilo"),
)
REGION_OF = {name: REGIONS[number % len(REGIONS)] for number, name in enumerate(NAMES)}
GROWN_UP_S = 40.0
"""A little longer than one stands by before it takes over: hubs change until then."""
WAIT_S, BUSY_S, SETTLE_S = 240.0, 30.0, 5.0


def main() -> None:
    idle_s = int(sys.argv[1]) if len(sys.argv) > 1 else 180
    nodes = "".join(f'[nodes.{name}]\nlans = ["lan0"]\n' for name in NAMES)
    with Lab.from_toml(f'name = "auto"\n[lans.lan0]\nipv4 = "192.168.77.0/24"\n{nodes}') as lab:
        *first, eleventh = NAMES
        founder = lab.node(first[0])
        founder.run(["meshpeer", "init", "--name", first[0], "--region", REGIONS[0], "--detach", "--quiet"])
        founder.run(["meshpeer", "charter", "set", "--idle", f"{idle_s}s", "--quiet"])
        invite = founder.run(["meshpeer", "invite", "--quiet", "--uses", "10"]).stdout.strip()
        for name in first[1:]:
            join(lab.node(name), invite)
        until(lambda: modes(lab, first) == {"full"} and all_direct(lab, first), "all have tunnels")
        staying, leaving = first[:-2], [*first[-2:], eleventh]
        addresses = {name: ipv4_of(lab.node(name)) for name in first}
        time.sleep(GROWN_UP_S)
        with Traffic(lab) as traffic:
            for one, other in itertools.combinations(first, 2):
                traffic.ping(one, other, addresses[other])
                if REGION_OF[one] != REGION_OF[other]:
                    traffic.talk(one, other, addresses[other])
            time.sleep(SETTLE_S)
            joined = time.time()
            join(lab.node(eleventh), invite)
            until(lambda: modes(lab, NAMES) == {"regional"}, "all are regional")
            print(f"eleven: all are regional {time.time() - joined:.1f} s after the join began", flush=True)
            if idle_s == 0:
                until(lambda: not held(lab, NAMES), "all pairs have moved")
            time.sleep(BUSY_S)
            show(lab, traffic, "from ten to eleven", joined, NAMES)
            left = time.time()
            for name in leaving:
                lab.node(name).run(["meshpeer", "leave", "--quiet"])
            until(lambda: modes(lab, staying) == {"full"}, "all are full")
            until(lambda: all_direct(lab, staying), "all have tunnels of their own")
            print(f"eight: all have tunnels of their own {time.time() - left:.1f} s after", flush=True)
            time.sleep(BUSY_S)
            show(lab, traffic, "back to eight", left, staying)


def show(lab: Lab, traffic: Traffic, what: str, since: float, names: Sequence[str]) -> None:
    pings = [one for one in traffic.pings if {one.source, one.target} <= set(names)]
    talks = [one for one in traffic.talks if {one.source, one.target} <= set(names)]
    worst = sorted(pings, key=lambda one: -one.longest_s(since))[:3]
    lost = [one for one in talks if one.lost()]
    over = [one for one in pings if one.longest_s(since) > 1.0]
    before = max(one.longest_s(0, since - 0.5) for one in pings)
    print(f"{what}: {len(pings)} pairs, longest silence before {before:.2f} s, since:", end=" ")
    print(", ".join(f"{one.source}-{one.target} {one.longest_s(since):.2f} s" for one in worst), end=" ")
    print(f"({len(over)} over 1 s)")
    quiet = max(one.longest_s(since) for one in talks)
    print(f"  {len(talks)} TCP connections, {len(lost)} lost, longest silence {quiet:.2f} s", end="; ")
    print(f"pairs on hubs {by_hubs(lab, names)}, held {held(lab, names)}", flush=True)
    for one in over:
        gaps = [f"{gap.length_s:.2f} s at {gap.began_s - since:.1f}" for gap in one.gaps(since, least_s=0.3)]
        print(f"    {one.source}-{one.target}: {', '.join(gaps)}", flush=True)


def join(node: Node, invite: str) -> None:
    words = ["meshpeer", "join", invite, "--name", node.name, "--region", REGION_OF[node.name]]
    node.run([*words, "--detach", "--quiet"])


def ask(node: Node, what: str) -> object:
    return json.loads(node.run(["meshpeer", what, "--json"]).stdout)


def modes(lab: Lab, names: Sequence[str]) -> set[str]:
    return {ask(lab.node(name), "plan")["mode"] for name in names}  # type: ignore[index]


def paths(lab: Lab, names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        found += [one["path"] for one in ask(lab.node(name), "peers") if one["name"] in names]  # type: ignore[attr-defined]
    return found


def all_direct(lab: Lab, names: Sequence[str]) -> bool:
    return set(paths(lab, names)) == {"direct"}


def by_hubs(lab: Lab, names: Sequence[str]) -> int:
    return paths(lab, names).count("hub") // 2


def held(lab: Lab, names: Sequence[str]) -> int:
    """Returns how many ends of pairs have not moved to where the plan wants them."""
    plans = [ask(lab.node(name), "plan") for name in names]
    return sum(len(plan["keeps"]) + len(plan["waits_for"]) for plan in plans)  # type: ignore[index]


def ipv4_of(node: Node) -> str:
    shown = node.run(["ip", "-4", "-o", "address", "show", "dev", "wg0"]).stdout
    found = re.search(r"inet ([\d.]+)/", shown)
    assert found, f"{node.name} has no address"
    return found[1]


def until(holds: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > ends:
            raise SystemExit(f"waited {WAIT_S:.0f} s in vain until {what}")
        time.sleep(0.3)


if __name__ == "__main__":
    main()

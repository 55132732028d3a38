#!/usr/bin/env python3
"""What connections notice while a node changes its WireGuard key.

Each run is a lab: two machines on one network, and two behind routers that give every destination another
port, so that these two go by a relay. In turn the machine behind a router and the one that is the relay
change their keys (`meshpeer rotate-key`), while two peers ping it every 20 ms and have a word answered every
20 ms on a TCP connection to it. Printed: how long the command took, and for each peer the pings lost and the
longest gap between two answers within 3 s of the change; pings lost in all other seconds together, which is
what this machine loses without any change; whether each connection lived, and its longest silence.
Needs root.

    .venv/bin/python scripts/bench/rotate_key.py [--runs 5]
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab, Node, Traffic

LAB = """
name = "rotate"
[lans.net]
ipv4 = "198.51.100.0/24"
[lans.home]
ipv4 = "192.168.1.0/24"
[lans.office]
ipv4 = "192.168.2.0/24"
[nodes.one]
lans = ["net"]
[nodes.two]
lans = ["net"]
[nodes.alpha]
lans = ["home"]
[nodes.bravo]
lans = ["office"]
[routers.r1]
outside = "net"
inside = ["home"]
nat = "symmetric"
[routers.r2]
outside = "net"
inside = ["office"]
nat = "symmetric"
"""
TURNS = (("alpha", ("two", "bravo")), ("one", ("two", "bravo")))
"""Who changes its key, and who watches."""
WAIT_S_MAX = 60.0
TALK_EVERY_S = 0.02
NEAR_S = 3.0


@dataclass
class Seen:
    lost: int
    gap_s: float
    elsewhere: int
    broke: str
    silence_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"{runs} runs on {os.cpu_count()} cores\n")
    print(
        "| Run | Changes | Took | Watched by | Lost | Longest gap | Lost elsewhere | TCP | Longest silence |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for number in range(1, runs + 1):
        with Lab.from_toml(LAB) as lab:
            build(lab)
            for changes, watchers in TURNS:
                took_s, seen = measure(lab, changes, watchers)
                for watcher, one in seen.items():
                    print(
                        f"| {number} | {changes} | {took_s:.1f} s | {watcher} | {one.lost} "
                        f"| {one.gap_s * 1000:.0f} ms | {one.elsewhere} | {one.broke or 'lived'} "
                        f"| {one.silence_s * 1000:.0f} ms |",
                        flush=True,
                    )


def build(lab: Lab) -> None:
    founder = lab.node("one")
    founder.run(["meshpeer", "init", "--name", "one", "--detach", "--quiet"])
    invite = founder.run(["meshpeer", "invite", "--quiet", "--uses", "3"]).stdout.strip()
    for name in ("two", "alpha", "bravo"):
        lab.node(name).run(["meshpeer", "join", invite, "--name", name, "--detach", "--quiet"])
    for source, target in itertools.permutations(("one", "two", "alpha", "bravo"), 2):
        wait_for(lambda: pings(lab.node(source), target), f"{source} reaches {target}")  # noqa: B023
    # News of joining settles.
    time.sleep(8)


def measure(lab: Lab, changes: str, watchers: tuple[str, ...]) -> tuple[float, dict[str, Seen]]:
    with Traffic(lab) as traffic:
        pings = {one: traffic.ping(one, changes, f"{changes}.mesh") for one in watchers}
        talks = {one: traffic.talk(one, changes, f"{changes}.mesh", TALK_EVERY_S) for one in watchers}
        time.sleep(3)
        begun = time.monotonic()
        lab.node(changes).run(["meshpeer", "rotate-key", "--quiet"], timeout=100)
        took_s, turned_s = time.monotonic() - begun, time.time()
        time.sleep(NEAR_S + 3)
        near = (turned_s - NEAR_S, turned_s + NEAR_S)
        seen: dict[str, Seen] = {}
        for one in watchers:
            lost = pings[one].missed(*near)
            seen[one] = Seen(
                lost=lost,
                gap_s=pings[one].longest_s(*near),
                elsewhere=pings[one].missed() - lost,
                broke=talks[one].lost(),
                silence_s=talks[one].longest_s(*near),
            )
    return took_s, seen


def pings(node: Node, target: str) -> bool:
    return node.run(["ping", "-c1", "-W1", f"{target}.mesh"], check=False).returncode == 0


def wait_for(condition: object, what: str) -> None:
    until = time.monotonic() + WAIT_S_MAX
    while not condition():  # type: ignore[operator]
        if time.monotonic() > until:
            raise SystemExit(f"not within {WAIT_S_MAX:.0f} s: {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""For how long nothing passes when a machine moves, sleeps, or its router starts anew.

The lab of scripts/netns/labs/roaming.toml: pings every 20 ms to the machine that moves, from one that
everybody reaches and from one behind another router. Printed is the longest silence of each after the event,
in seconds from the event, or from the end of a sleep. With --asleep, the machine's agent and its WireGuard
program are stopped (SIGSTOP) for so long. Needs root.

    .venv/bin/python scripts/bench/roaming.py [--rounds 3] [--asleep 300]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab
from meshlab.traffic import Traffic

LAB = Path(__file__).resolve().parents[1] / "netns" / "labs" / "roaming.toml"
SOURCES = ("public", "still")
SETTLE_S = 4.0
AFTER_S = 30.0
NEVER = float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--asleep", type=float, default=20.0, metavar="S", help="seconds of the sleep")
    asked = parser.parse_args()
    found: dict[str, list[tuple[float, ...]]] = {}
    for number in range(asked.rounds):
        with Lab.from_toml(LAB) as lab:
            found_mesh(lab)
            for event, cause in events(lab, number, asked.asleep):
                found.setdefault(event, []).append(silences(lab, cause))
    print(f"{asked.rounds} rounds on {os.cpu_count()} cores\n")
    print("| What happens | From one that is open | From one behind another router |")
    print("| --- | --- | --- |")
    for event, rounds in found.items():
        print(f"| {event} | " + " | ".join(shown(spans) for spans in zip(*rounds, strict=True)) + " |")


def events(lab: Lab, number: int, asleep_s: float) -> list[tuple[str, Callable[[], float]]]:
    """Returns what happens to the mobile machine, in turn; each returns when it is over (Unix seconds)."""
    mobile = lab.node("mobile")

    def another_address() -> float:
        begun = time.time()
        mobile.run(["ip", "address", "flush", "dev", "home"])
        mobile.run(["ip", "address", "add", "192.168.1.99/24", "brd", "+", "dev", "home"])
        mobile.run(["ip", "route", "replace", "default", "via", "192.168.1.1"])
        return begun

    def another_network() -> float:
        begun = time.time()
        lab.unplug("mobile", "home")
        mobile.run(["ip", "route", "replace", "default", "via", "192.168.2.1"])
        return begun

    def sleep() -> float:
        mobile.pause()
        time.sleep(asleep_s)
        mobile.resume()
        return time.time()

    def forgets() -> float:
        lab.reboot_router("r2")
        return time.time()

    def moves() -> float:
        begun = time.time()
        lab.reboot_router("r2", f"198.51.100.{77 + number}/24")
        return begun

    return [
        ("another address on the same network", another_address),
        ("another network, the first without a carrier", another_network),
        (f"asleep for {asleep_s:.0f} s, from its end", sleep),
        ("its router forgets its translations", forgets),
        ("its router gets another address", moves),
    ]


def silences(lab: Lab, cause: Callable[[], float]) -> tuple[float, ...]:
    """Returns for how long each source's pings are in vain after the event."""
    with Traffic(lab) as traffic:
        flows = [traffic.ping(source, "mobile", overlay_of(lab, source)) for source in SOURCES]
        time.sleep(SETTLE_S)
        over_s = cause()
        time.sleep(AFTER_S)
        return tuple(silence_of(flow.answers(), over_s) for flow in flows)


def silence_of(answers: list[float], over_s: float) -> float:
    """Returns the longest time without an answer after a moment, up to the last answer."""
    after = [at for at in answers if at >= over_s]
    if not after or after[-1] < over_s + AFTER_S - 2:
        return NEVER
    return max(later - earlier for earlier, later in itertools.pairwise([over_s, *after]))


def shown(spans_s: tuple[float, ...]) -> str:
    there = sorted(one for one in spans_s if one != NEVER)
    if not there:
        return "not back"
    text = f"{statistics.median(there):.1f} s ({there[0]:.1f} to {there[-1]:.1f})"
    return text if len(there) == len(spans_s) else f"{text}, {len(spans_s) - len(there)} times not back"


def found_mesh(lab: Lab) -> None:
    founder = lab.node("public")
    founder.run(["meshpeer", "init", "--name", "public", "--detach", "--quiet"])
    invite = founder.run(["meshpeer", "invite", "--quiet", "--uses", "2"]).stdout.strip()
    for name in ("still", "mobile"):
        lab.node(name).run(["meshpeer", "join", invite, "--name", name, "--detach", "--quiet"])
    for source in SOURCES:
        while lab.node(source).run(["ping", "-c1", "-W1", "mobile.mesh"], check=False).returncode != 0:
            pass
    time.sleep(10)


def overlay_of(lab: Lab, source: str) -> str:
    peers = json.loads(lab.node(source).run(["meshpeer", "peers", "--json"]).stdout)
    return str(next(peer["ipv4"] for peer in peers if peer["name"] == "mobile"))


if __name__ == "__main__":
    main()

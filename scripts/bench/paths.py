#!/usr/bin/env python3
"""How long two members need to reach each other, by what stands before each: nothing, a router that keeps
ports, one that gives every destination another port, or one router for both.

For each pair a lab: two machines with public addresses that may relay, and the two. They join one after the
other; measured is the time from when `meshpeer join` of the second returns until the first of its pings to
the other is answered, the path that `meshpeer peers` names then, and when both ends say `direct`. With
--failures: how long nothing passes between two behind symmetric routers when their relay fails, by pings
every 50 ms. Needs root.

    .venv/bin/python scripts/bench/paths.py [--rounds 3] [--only KIND] [--failures]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab, Node

KINDS = {"none": "", "port-keeping": "masquerade", "symmetric": "symmetric"}
PAIRS = [
    *itertools.combinations_with_replacement(KINDS, 2),
    ("same port-keeping",) * 2,
    ("same symmetric",) * 2,
]
FAILURES = ("loses its process", "loses its agent", "is unplugged")
WAIT_S_MAX = 40.0
DIRECT_S_MAX = 25.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="pairs that have a kind whose name begins with this")
    parser.add_argument("--failures", action="store_true", help="measure failures of relays instead")
    asked = parser.parse_args()
    rounds = asked.rounds
    print(f"{rounds} rounds on {os.cpu_count()} cores\n")
    if asked.failures:
        print("| The relay in use | Nothing passes for |")
        print("| --- | --- |")
        for how in FAILURES:
            gaps = sorted(outage(how) for _ in range(rounds))
            print(
                f"| {how} | {statistics.median(gaps):.1f} s ({gaps[0]:.1f} to {gaps[-1]:.1f}) |", flush=True
            )
        return
    print("| Before the one | Before the other | First ping after | Path then | Direct after |")
    print("| --- | --- | --- | --- | --- |")
    for one, other in PAIRS:
        if not any(kind.startswith(asked.only) for kind in (one, other)):
            continue
        found = [measure(one, other) for _ in range(rounds)]
        paths = " or ".join(sorted({path for _, path, _ in found}))
        first = spread([wait for wait, _, _ in found])
        direct = [wait for _, _, wait in found if wait is not None]
        shown = spread(direct) if direct else "never"
        if 0 < len(direct) < len(found):
            shown += f", in {len(direct)} of {len(found)}"
        print(f"| {one} | {other} | {first} | {paths} | {shown} |", flush=True)


def spread(waits: list[float]) -> str:
    return f"{statistics.median(waits):.1f} s ({min(waits):.1f} to {max(waits):.1f})"


def measure(one: str, other: str) -> tuple[float, str, float | None]:
    """Returns seconds to the first ping, the path then, and seconds until it is direct, of one fresh pair."""
    with Lab.from_toml(lab_of(one, other)) as lab:
        second = lab.node("bravo")
        found(lab)
        begun = time.monotonic()
        while second.run(["ping", "-c1", "-W1", "alpha.mesh"], check=False).returncode != 0:
            if time.monotonic() > begun + WAIT_S_MAX:
                return WAIT_S_MAX, "none", None
        waited = time.monotonic() - begun
        # The interface is looked at every other second.
        path = path_of(second, "alpha")[0]
        while path not in ("direct", "relay") and time.monotonic() < begun + DIRECT_S_MAX:
            path = path_of(second, "alpha")[0]
        while time.monotonic() < begun + DIRECT_S_MAX:
            if path_of(second, "alpha")[0] == "direct" and path_of(lab.node("alpha"), "bravo")[0] == "direct":
                return waited, path, time.monotonic() - begun
        return waited, path, None


def outage(how: str) -> float:
    """Returns for how many seconds nothing passed when the relay of a pair failed."""
    with Lab.from_toml(lab_of("symmetric", "symmetric")) as lab:
        found(lab)
        second = lab.node("bravo")
        until = time.monotonic() + WAIT_S_MAX
        while path_of(second, "alpha")[0] != "relay":
            if time.monotonic() > until:
                raise SystemExit(f"no relay within {WAIT_S_MAX:.0f} s")
            time.sleep(0.2)
        time.sleep(10)
        relay = lab.node(path_of(second, "alpha")[1])
        with second.popen(["ping", "-n", "-i", "0.05", "alpha.mesh"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            time.sleep(2)
            if how == "is unplugged":
                lab.unplug(relay.name)
            else:
                victims = relay.pgrep(r"meshpeer (init|join|up)\b" if "agent" in how else r"relay\.helper")
                for pid in victims:
                    relay.kill(pid, signal.SIGKILL)
            time.sleep(25)
            process.send_signal(signal.SIGINT)
            numbers = [int(one) for one in re.findall(r"icmp_seq=(\d+) ttl", process.stdout.read())]
    return max(later - earlier for earlier, later in itertools.pairwise(numbers)) * 0.05


def found(lab: Lab) -> None:
    """Founds a mesh of all four, the two of the pair last."""
    founder = lab.node("one")
    founder.run(["meshpeer", "init", "--name", "one", "--detach", "--quiet"])
    invite = founder.run(["meshpeer", "invite", "--quiet", "--uses", "3"]).stdout.strip()
    for name in ("two", "alpha", "bravo"):
        lab.node(name).run(["meshpeer", "join", invite, "--name", name, "--detach", "--quiet"])


def path_of(node: Node, other: str) -> tuple[str, str]:
    """Returns the path to another, and by whom."""
    peers = json.loads(node.run(["meshpeer", "peers", "--json"]).stdout)
    return next((peer["path"], peer["via"]) for peer in peers if peer["name"] == other)


def lab_of(one: str, other: str) -> str:
    """Returns the text of a lab."""
    text = 'name = "paths"\n[lans.net]\nipv4 = "198.51.100.0/24"\n'
    machines = '[nodes.one]\nlans = ["net"]\n[nodes.two]\nlans = ["net"]\n'
    routers = ""
    homes = ("home", "home") if one.startswith("same ") else ("home", "office")
    for name, kind, home in zip(("alpha", "bravo"), (one, other), homes, strict=True):
        nat = KINDS[kind.removeprefix("same ")]
        machines += f'[nodes.{name}]\nlans = ["{home if nat else "net"}"]\n'
        if nat and f"[lans.{home}]" not in text:
            text += f'[lans.{home}]\nipv4 = "192.168.{1 + len(home)}.0/24"\n'
            routers += f'[routers.r{len(home)}]\noutside = "net"\ninside = ["{home}"]\nnat = "{nat}"\n'
    return text + machines + routers


if __name__ == "__main__":
    main()

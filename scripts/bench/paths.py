#!/usr/bin/env python3
"""How long two members need to reach each other, by what stands before each: nothing, a router that keeps
ports, one that gives every destination another port, or one router for both.

For each pair a lab: two machines with public addresses that may relay, and the two. They join one after the
other; measured is the time from when `meshpeer join` of the second returns until the first of its pings
to the other is answered, and the path that `meshpeer peers` names then. Needs root.

    .venv/bin/python scripts/bench/paths.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
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
WAIT_S_MAX = 40.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"{rounds} rounds on {os.cpu_count()} cores\n")
    print("| Before the one | Before the other | First ping after | Path |")
    print("| --- | --- | --- | --- |")
    for one, other in PAIRS:
        found = [measure(one, other) for _ in range(rounds)]
        waits = sorted(wait for wait, _ in found)
        paths = " or ".join(sorted({path for _, path in found}))
        shown = f"{statistics.median(waits):.1f} s ({waits[0]:.1f} to {waits[-1]:.1f})"
        print(f"| {one} | {other} | {shown} | {paths} |", flush=True)


def measure(one: str, other: str) -> tuple[float, str]:
    """Returns seconds and the path of one fresh pair."""
    with Lab.from_toml(lab_of(one, other)) as lab:
        first, second = lab.node("alpha"), lab.node("bravo")
        founder = lab.node("one")
        founder.run(["meshpeer", "init", "--name", "one", "--detach", "--quiet"])
        invite = founder.run(["meshpeer", "invite", "--quiet", "--uses", "3"]).stdout.strip()
        for node in (lab.node("two"), first, second):
            node.run(["meshpeer", "join", invite, "--name", node.name, "--detach", "--quiet"])
        begun = time.monotonic()
        while second.run(["ping", "-c1", "-W1", "alpha.mesh"], check=False).returncode != 0:
            if time.monotonic() > begun + WAIT_S_MAX:
                return WAIT_S_MAX, "none"
        waited = time.monotonic() - begun
        return waited, path_of(second)


def path_of(node: Node) -> str:
    # The interface is looked at every other second.
    time.sleep(3)
    peers = json.loads(node.run(["meshpeer", "peers", "--json"]).stdout)
    return str(next(peer["path"] for peer in peers if peer["name"] == "alpha"))


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

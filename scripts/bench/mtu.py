#!/usr/bin/env python3
"""What a tunnel carries with the MTU that meshpeer finds for a jumbo underlay, beside what it carries with
1420.

For each underlay (9,020 bytes by IPv4, 9,040 by IPv6, and 9,000 by either) two machines in namespaces found a
mesh; their agents probe the path and set the interface's MTU, and stop. Rounds then alternate between that
MTU and 1420 on the same tunnel. TCP by iperf3 (one stream). Needs root, and iperf3.

    .venv/bin/python scripts/bench/mtu.py [--rounds 4] [--seconds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "netns")]

from meshlab import Lab, Node  # noqa: E402
from throughput import answers, mbit_per_s, until  # noqa: E402

UNDERLAYS = ((4, 9_020), (6, 9_040), (4, 9_000), (6, 9_000))
USUAL = 1_420
PREFIXES = {4: 'ipv4 = "192.168.77.0/24"', 6: 'ipv6 = "fd77:77::/64"'}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=3)
    asked = parser.parse_args()
    rounds = f"{asked.rounds} rounds of {asked.seconds} s"
    print(f"{os.cpu_count()} cores, {rounds}; Mbit/s, medians (lowest to highest)")
    for family, wide in UNDERLAYS:
        measure(family, wide, asked.rounds, asked.seconds)


def measure(family: int, wide: int, rounds: int, seconds: int) -> None:
    lab_file = f'name = "mtu"\n[lans.lan0]\nmtu = {wide}\n{PREFIXES[family]}\n'
    lab_file += "".join(f'[nodes.{name}]\nlans = ["lan0"]\n' for name in ("alpha", "bravo"))
    with Lab.from_toml(lab_file) as lab:
        alpha, bravo = nodes = (lab.node("alpha"), lab.node("bravo"))
        alpha.run(["meshpeer", "init", "--name", "alpha", "--detach"])
        invite = alpha.run(["meshpeer", "invite", "--quiet"]).stdout.strip()
        bravo.run(["meshpeer", "join", invite, "--name", "bravo", "--detach"])
        until(lambda: all(mtu_of(node) > USUAL for node in nodes), "both find the path's MTU")
        found = mtu_of(alpha)
        status = json.loads(alpha.run(["meshpeer", "status", "--json"]).stdout)
        (peer,) = json.loads(alpha.run(["meshpeer", "peers", "--json"]).stdout)
        for node in nodes:
            # Tunnels outlive their agents, which would put the MTU back.
            node.run(["meshpeer", "stop"])
        serve = bravo.popen(["iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            flow = flows(nodes, peer["ipv4"], (found, USUAL), rounds, seconds)
        finally:
            serve.terminate()
    ratios = sorted(wide_one / usual for wide_one, usual in zip(flow[found], flow[USUAL], strict=True))
    shown = "; ".join(
        f"MTU {mtu}: {statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"
        for mtu, values in flow.items()
    )
    print(
        f"{status['node']['backend']}, underlay {wide} by IPv{family}: {shown};"
        f" ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def flows(
    nodes: tuple[Node, Node], target: str, mtus: tuple[int, int], rounds: int, seconds: int
) -> dict[int, list[float]]:
    flow: dict[int, list[float]] = {mtu: [] for mtu in mtus}
    for number in range(rounds):
        for mtu in mtus if number % 2 == 0 else reversed(mtus):
            for node in nodes:
                node.run(["ip", "link", "set", "wg0", "mtu", str(mtu)])
            until(lambda: answers(nodes[0], target), "the tunnel works")
            flow[mtu].append(mbit_per_s(nodes[0], target, seconds))
    return flow


def mtu_of(node: Node) -> int:
    (shown,) = json.loads(node.run(["ip", "-json", "link", "show", "dev", "wg0"]).stdout)
    return int(shown["mtu"])


if __name__ == "__main__":
    main()

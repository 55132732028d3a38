#!/usr/bin/env python3
"""What a tunnel that meshpeer made carries, beside one that was configured by hand.

Two machines in namespaces have both at once, through the same WireGuard (the kernel's, or else
wireguard-go), with the same MTU: meshpeer's interface, and a second one made with `wg` and `ip` alone. Rounds
alternate which goes first, so that whatever else the machine does falls on both alike. TCP by iperf3 (one
stream), round trips by `ping -i 0.01`, there and back again in each round. Needs root, and iperf3.

    .venv/bin/python scripts/bench/throughput.py [--rounds 10] [--seconds 4]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab, Node

LAB = Path(__file__).resolve().parents[1] / "netns" / "labs" / "two-nodes.toml"
HAND, HAND_PORT, KEEPALIVE_S = "wghand", 51900, 25
HAND_ADDRESSES = ("10.99.0.1", "10.99.0.2")
OMITTED_S, TRIES, WAIT_S = 1, 3, 30.0
PINGS, SLICES = 21, 10
"""Short slices, by turns: what else the machine does meanwhile falls on both alike."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=4)
    asked = parser.parse_args()
    if shutil.which("iperf3") is None:
        raise SystemExit("iperf3 is missing: apt install iperf3")
    with Lab.from_toml(LAB) as lab, contextlib.ExitStack() as ends:
        first, second = lab.node("alpha"), lab.node("bravo")
        backend, mtu, address = found(first, second)
        for process in by_hand(first, second, backend, mtu):
            ends.callback(process.wait)
            ends.callback(process.terminate)
        server = second.popen(["iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends.callback(server.wait)
        ends.callback(server.terminate)
        targets = {"meshpeer": address, "by hand": HAND_ADDRESSES[1]}
        for target in targets.values():
            until(lambda: answers(first, target), f"{target} answers")  # noqa: B023
        print(f"{backend} on {os.cpu_count()} cores, MTU {mtu}, {asked.rounds} rounds of {asked.seconds} s")
        flow: dict[str, list[float]] = {name: [] for name in targets}
        trip: dict[str, list[float]] = {name: [] for name in targets}
        for number in range(asked.rounds):
            order = list(targets) if number % 2 == 0 else list(reversed(targets))
            slices: dict[str, list[float]] = {name: [] for name in targets}
            for name in (*order, *reversed(order)) * SLICES:
                slices[name] += round_trips_ms(first, targets[name])
            for name in order:
                trip[name].append(statistics.median(slices[name]))
            for name in order:
                flow[name].append(mbit_per_s(first, targets[name], asked.seconds))
    show("TCP, Mbit/s", flow, lambda mine, other: mine / other)
    show("round trip, ms", trip, lambda mine, other: other / mine)


# --- two tunnels ----------------------------------------------------------------------------------------


def found(first: Node, second: Node) -> tuple[str, int, str]:
    """Makes a mesh of two; returns its backend, its MTU and the other's address in it."""
    first.run(["meshpeer", "init", "--name", "first", "--detach", "--quiet"])
    invite = first.run(["meshpeer", "invite", "--quiet"]).stdout.strip()
    second.run(["meshpeer", "join", invite, "--name", "second", "--detach", "--quiet"])
    node = json.loads(second.run(["meshpeer", "status", "--json"]).stdout)["node"]
    return str(node["backend"]), int(node["mtu"]), str(node["ipv4"])


def by_hand(first: Node, second: Node, backend: str, mtu: int) -> Iterator[subprocess.Popen[str]]:
    """Makes a second tunnel between the two, as a person would; yields the programs that serve it."""
    secrets = [node.run(["wg", "genkey"]).stdout for node in (first, second)]
    publics = [
        node.run(["wg", "pubkey"], input=key).stdout.strip()
        for node, key in zip((first, second), secrets, strict=True)
    ]
    for mine, node in enumerate((first, second)):
        other = 1 - mine
        if backend == "kernel":
            node.run(["ip", "link", "add", HAND, "type", "wireguard"])
        else:
            # As meshpeer starts it: in the foreground, without its notice about the kernel's module, and in a
            # session of its own, as every service. The scheduler shares out processors by session (sched(7),
            # autogroup): one in iperf3's session carries a sixth more on two cores, whoever configured it.
            alone = {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
            program = ["setsid", "wireguard-go", "--foreground", HAND]
            yield node.popen(program, env=alone, stdout=subprocess.DEVNULL)
            until(lambda: node.run(["wg", "show", HAND], check=False).returncode == 0, "wireguard-go serves")  # noqa: B023
        endpoint = f"{(first, second)[other].address()}:{HAND_PORT}"
        peer = ["peer", publics[other], "allowed-ips", f"{HAND_ADDRESSES[other]}/32", "endpoint", endpoint]
        words = ["listen-port", str(HAND_PORT), "private-key", "/dev/stdin", *peer]
        node.run(["wg", "set", HAND, *words, "persistent-keepalive", str(KEEPALIVE_S)], input=secrets[mine])
        node.run(["ip", "address", "add", f"{HAND_ADDRESSES[mine]}/24", "dev", HAND])
        node.run(["ip", "link", "set", HAND, "mtu", str(mtu), "up"])


def answers(node: Node, target: str) -> bool:
    return node.run(["ping", "-c", "1", "-W", "1", target], check=False).returncode == 0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {WAIT_S:.0f} s: {what}")
        time.sleep(0.05)


# --- figures --------------------------------------------------------------------------------------------


def round_trips_ms(node: Node, target: str) -> list[float]:
    said = node.run(["ping", "-n", "-i", "0.01", "-c", str(PINGS), target]).stdout
    times = [float(one) for one in re.findall(r"time=([\d.]+) ms", said)]
    if len(times) < PINGS * 0.95:
        raise SystemExit(f"only {len(times)} of {PINGS} pings to {target} were answered")
    return times[1:]


def mbit_per_s(node: Node, target: str, seconds: int) -> float:
    words = ["iperf3", "-J", "-c", target, "-t", str(seconds), "-O", str(OMITTED_S)]
    for _ in range(TRIES):
        said = json.loads(node.run(words, check=False, timeout=seconds + WAIT_S).stdout)
        if "sum_received" in said["end"]:
            return float(said["end"]["sum_received"]["bits_per_second"]) / 1e6
        print(
            f"again: iperf3 to {target} ended without a sum: {said.get('error', 'no error said')}", flush=True
        )
    raise SystemExit(f"iperf3 to {target} failed {TRIES} times")


def show(what: str, found: dict[str, list[float]], better: Callable[[float, float], float]) -> None:
    """Prints medians with their spread, and the ratio of each round: above 1 meshpeer is the better."""
    for name, values in found.items():
        low, high = min(values), max(values)
        print(f"{what:15} {name:9} median {statistics.median(values):9.3f}  ({low:.3f} to {high:.3f})")
    mine, other = found.values()
    ratios = sorted(better(one, two) for one, two in zip(mine, other, strict=True))
    of_medians = better(statistics.median(mine), statistics.median(other))
    spread = f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
    print(
        f"{what:15} ratio     median {statistics.median(ratios):9.3f}  {spread}, of medians {of_medians:.3f}"
    )


if __name__ == "__main__":
    main()

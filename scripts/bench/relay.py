#!/usr/bin/env python3
"""What a tunnel carries through a relay, beside what it carries directly.

Two machines in namespaces with one WireGuard tunnel (the kernel's, or else wireguard-go), a third one that
relays. Each round measures the tunnel directly, through the relay with nftables, and through the relay's
process alone; rounds alternate the order, so that whatever else the machine does falls on all alike. TCP by
iperf3 (one stream), round trips by `ping -i 0.01`. The relay stops the pair before each change, as two agents
would agree: packets in flight would move the tunnel back. Needs root, and iperf3.

    .venv/bin/python scripts/bench/relay.py [--rounds 6] [--seconds 4]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "netns")]

from meshlab import Lab, Node  # noqa: E402
from throughput import answers, mbit_per_s, round_trips_ms, until  # noqa: E402

DRIVER = str(HERE.parents[2] / "tests" / "netns" / "relay_driver.py")
LAB = 'name = "relay"\n[lans.lan0]\nipv4 = "192.168.77.0/24"\n' + "".join(
    f'[nodes.{name}]\nlans = ["lan0"]\n' for name in ("alpha", "bravo", "relay")
)
OVERLAY = ("10.99.0.1", "10.99.0.2")
PORTS = (51830, 51831)
WAYS = ("direct", "nftables", "process")
Say = Callable[[str], dict[str, object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=4)
    asked = parser.parse_args()
    flow: dict[str, list[float]] = {way: [] for way in WAYS}
    trip: dict[str, list[float]] = {way: [] for way in WAYS}
    with Lab.from_toml(LAB) as lab, contextlib.ExitStack() as ends:
        nodes = (lab.node("alpha"), lab.node("bravo"))
        backend, keys = tunnel(nodes, ends)
        ends.enter_context(serving(nodes[1], ["iperf3", "-s"]))
        print(f"{backend} on {os.cpu_count()} cores, {asked.rounds} rounds of {asked.seconds} s")
        for number in range(asked.rounds):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                with on_the_way(lab, nodes, keys, way):
                    trip[way].append(statistics.median(round_trips_ms(nodes[0], OVERLAY[1])))
                    flow[way].append(mbit_per_s(nodes[0], OVERLAY[1], asked.seconds))
    for what, found in (("TCP, Mbit/s", flow), ("round trip, ms", trip)):
        for way, values in found.items():
            ratios = sorted(one / direct for one, direct in zip(values, found["direct"], strict=True))
            print(
                f"{what:15} {way:9} median {statistics.median(values):8.3f}"
                f" ({min(values):.3f} to {max(values):.3f}),"
                f" of direct {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
            )


def tunnel(nodes: tuple[Node, Node], ends: contextlib.ExitStack) -> tuple[str, list[str]]:
    """Makes the interfaces, without endpoints; returns their kind, and their keys."""
    backend, secrets, keys = "kernel", [], []
    for node in nodes:
        if node.run(["ip", "link", "add", "wg0", "type", "wireguard"], check=False).returncode != 0:
            backend = "wireguard-go"
            alone = {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
            ends.enter_context(serving(node, ["setsid", "wireguard-go", "--foreground", "wg0"], alone))
            until(lambda: node.run(["wg", "show", "wg0"], check=False).returncode == 0, "wireguard-go serves")  # noqa: B023
        secrets.append(node.run(["wg", "genkey"]).stdout)
        keys.append(node.run(["wg", "pubkey"], input=secrets[-1]).stdout.strip())
    for number, node in enumerate(nodes):
        peer = ["peer", keys[1 - number], "allowed-ips", f"{OVERLAY[1 - number]}/32"]
        words = ["listen-port", "51820", "private-key", "/dev/stdin", *peer, "persistent-keepalive", "25"]
        node.run(["wg", "set", "wg0", *words], input=secrets[number])
        node.run(["ip", "address", "add", f"{OVERLAY[number]}/24", "dev", "wg0"])
        node.run(["ip", "link", "set", "wg0", "mtu", "1420", "up"])
    return backend, keys


@contextlib.contextmanager
def on_the_way(lab: Lab, nodes: tuple[Node, Node], keys: list[str], way: str) -> Iterator[None]:
    """Leads the tunnel that way, and sees it work."""
    if way == "direct":
        point(nodes, keys, [f"{node.address()}:51820" for node in reversed(nodes)])
        yield
        return
    relay = lab.node("relay")
    with driving(relay, keys, "fast" if way == "nftables" else "process") as say:
        say("ask 0")
        point(nodes, keys, [f"{relay.address()}:{port}" for port in PORTS])
        until(lambda: shown(say)["fast"] is (way == "nftables"), f"{way} carries the pair")
        yield
        before = shown(say)
        until(lambda: answers(nodes[0], OVERLAY[1]), "the tunnel still works")
        if sum(shown(say)["packets"]) <= sum(before["packets"]):  # type: ignore[call-overload]
            raise SystemExit("the tunnel left the relay")
        say("freeze 0 0")


def point(nodes: tuple[Node, Node], keys: list[str], endpoints: list[str]) -> None:
    """Sets both endpoints. Taking the peer's session away first makes both ends shake hands anew: a relay
    knows no older session."""
    for number, node in enumerate(nodes):
        peer = ["peer", keys[1 - number]]
        node.run(["wg", "set", "wg0", *peer, "remove"])
        allowed = ["allowed-ips", f"{OVERLAY[1 - number]}/32", "persistent-keepalive", "25"]
        node.run(["wg", "set", "wg0", *peer, *allowed, "endpoint", endpoints[number]])
    until(lambda: answers(nodes[0], OVERLAY[1]), "the tunnel works")


def shown(say: Say) -> dict[str, object]:
    (pair,) = say("look")["pairs"]  # type: ignore[misc]
    return pair  # type: ignore[no-any-return]


@contextlib.contextmanager
def driving(relay: Node, keys: list[str], way: str) -> Iterator[Say]:
    argv = [sys.executable, "-u", DRIVER, *keys, way]
    with relay.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        words, said = driver.stdin, driver.stdout

        def say(line: str) -> dict[str, object]:
            words.write(line + "\n")
            words.flush()
            answer: dict[str, object] = json.loads(said.readline())
            if answer["fault"]:
                raise SystemExit(f"no fast path: {answer['fault']}")
            return answer

        yield say
        words.close()


@contextlib.contextmanager
def serving(node: Node, argv: list[str], env: dict[str, str] | None = None) -> Iterator[None]:
    process = node.popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How long it takes to settle an IPv4 address that two sides of a partition gave to two nodes.

Makes a lab of six nodes with the commands that a user types: two on each side, and one that joins on each
while the sides are apart. Pings every 20 ms within the sides and across. Needs root.

    .venv/bin/python scripts/bench/address_conflict.py [RUNS]
"""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab, Node

SIDES = (("alpha", "bravo"), ("charlie", "delta"))
JOINERS = ("echo", "foxtrot")
NAMES = (*SIDES[0], *SIDES[1], *JOINERS)
APART_S, AFTER_S = 15.0, 15.0
WAIT_S = 90.0
POLL_S = 0.02


def main() -> None:
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        nodes = "".join(f'[nodes.{name}]\nlans = ["lan0"]\n' for name in NAMES)
        text = f'name = "conflict-{number}"\n[lans.lan0]\nipv4 = "192.168.77.0/24"\n{nodes}'
        with Lab.from_toml(text) as lab, tempfile.TemporaryDirectory() as folder:
            measure(lab, Path(folder))


def measure(lab: Lab, folder: Path) -> None:
    alpha, bravo, charlie, delta, winner, loser = (lab.node(name) for name in NAMES)
    alpha.run(["meshpeer", "init", "--name", "alpha", "--detach", "--quiet"])
    invite = alpha.run(["meshpeer", "invite", "--quiet", "--uses", "5"]).stdout.strip()
    for node in (bravo, charlie, delta):
        join(node, alpha, invite)
    lab.partition([*SIDES[0], JOINERS[0]], [*SIDES[1], JOINERS[1]])
    for joiner, seed in ((winner, alpha), (loser, charlie)):
        join(joiner, seed, invite)
    contested = ipv4_of(loser)
    assert ipv4_of(winner) == contested, (ipv4_of(winner), contested)
    key = winner.run(["wg", "show", "wg0", "public-key"]).stdout.strip()
    within = [(alpha, bravo), (winner, alpha), (charlie, delta), (loser, charlie)]
    across = [(bravo, charlie), (winner, loser)]
    time.sleep(APART_S)
    with contextlib.ExitStack() as stack:
        traffic = {
            (node, peer): stack.enter_context(
                pinging(node, ipv6_of(peer), folder / f"{node.name}-{peer.name}")
            )
            for node, peer in within + across
        }
        time.sleep(1)
        healed = time.time()
        lab.heal()
        linked = until(lambda: any(at > healed for pair in across for at in replies(traffic[pair])))
        known = until(lambda: key in loser.run(["wg", "show", "wg0", "peers"]).stdout)
        moved = until(lambda: ipv4_of(loser) not in ("", contested))
        fresh = ipv4_of(loser)
        answered = {node.name: until(lambda: answers(node, fresh)) for node in (charlie, alpha, winner)}  # noqa: B023
        time.sleep(AFTER_S)
    print(f"{contested}: {loser.name} moves to {fresh}")
    print(f"  {linked - healed:.2f} s after the cut ended the first packet goes across,", end=" ")
    print(f"after {known - healed:.2f} s the loser knows the winner")
    print(f"  {moved - known:.2f} s later it has its new address; it answers on it", end=" ")
    print(", ".join(f"{name} {at - known:.2f} s" for name, at in answered.items()))
    for (node, peer), out in traffic.items():
        at = replies(out)
        if (node, peer) in within:
            print(f"  IPv6 within {node.name:8} -> {peer.name:8} longest gap {1000 * longest_gap(at):.0f} ms")
        else:
            after = [one for one in at if one > healed]
            print(
                f"  IPv6 across {node.name:8} -> {peer.name:8} after {after[0] - healed:.2f} s,",
                f"then longest gap {1000 * longest_gap(after):.0f} ms",
            )
    print(flush=True)


def join(node: Node, seed: Node, invite: str) -> None:
    where = [f"{seed.address()}:51821", "--invite", invite]
    node.run(["meshpeer", "join", *where, "--name", node.name, "--detach", "--quiet"])


def ipv4_of(node: Node) -> str:
    shown = node.run(["ip", "-4", "-o", "address", "show", "dev", "wg0"]).stdout
    found = re.search(r"inet ([\d.]+)/", shown)
    return found[1] if found else ""


def ipv6_of(node: Node) -> str:
    shown = node.run(["ip", "-6", "-o", "address", "show", "dev", "wg0", "scope", "global"]).stdout
    return re.findall(r"inet6 ([\da-f:]+)/", shown)[0]


def answers(node: Node, address: str) -> bool:
    return node.run(["ping", "-c1", "-W0.2", "-n", address], check=False).returncode == 0


@contextlib.contextmanager
def pinging(node: Node, target: str, out: Path) -> Iterator[Path]:
    with out.open("w") as said:
        ping = node.popen(["ping", "-n", "-D", "-i", "0.02", target], stdout=said, stderr=subprocess.DEVNULL)
        try:
            yield out
        finally:
            ping.send_signal(signal.SIGINT)
            ping.wait()


def replies(out: Path) -> list[float]:
    """Returns when pings were answered, in Unix seconds."""
    return [float(at) for at in re.findall(r"^\[([\d.]+)\].*time=", out.read_text(), re.MULTILINE)]


def longest_gap(times: list[float]) -> float:
    return max((later - at for at, later in itertools.pairwise(times)), default=float("nan"))


def until(condition: Callable[[], bool]) -> float:
    """Waits for a condition; returns when it held."""
    deadline = time.time() + WAIT_S
    while not condition():
        if time.time() > deadline:
            raise TimeoutError("the mesh did not settle")
        time.sleep(POLL_S)
    return time.time()


if __name__ == "__main__":
    main()

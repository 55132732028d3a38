#!/usr/bin/env python3
"""What a pair in use notices when it leaves its relay for a tunnel of its own, or for another relay.

Each run is a lab: two machines that may relay, and two behind routers. These keep ports, and at first let
nothing through between each other; with ``--to relay`` they give each destination another port, and the two
never meet. Once the pair goes by a relay, a ping every 20 ms and an iperf3 stream run through the tunnel; the
routers are joined, or `meshpeer down` is said on the relay, and the pair moves. Printed: pings lost and the
longest gap between two answers within 2 s of the move; pings lost in all other seconds together, which is
what this machine loses without any move; what the stream carried and its poorest second; and how often
either interface sent elsewhere again within the 40 s that follow. For another relay also: whether the
counters of the peer went on, as they do with its session. Needs root.

    .venv/bin/python scripts/bench/upgrade.py [--runs 10] [--to relay]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab, Node, Traffic

LAB = Path(__file__).resolve().parents[1] / "netns" / "labs" / "relays.toml"
RELAYS = ("one", "two")
PAIRS = {"direct": ("carol", "david"), "relay": ("alpha", "bravo")}
WAIT_S_MAX = 40.0
AFTER_S = 40.0
"""More than a relay is kept."""
NEAR_S = 2.0


@dataclass
class Run:
    after_s: float
    lost: int
    gap_s: float
    lost_elsewhere: int
    mbit: float
    poorest_mbit: float
    alive: bool
    back: int
    kept: bool
    """The session."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--to", choices=tuple(PAIRS), default="direct")
    asked = parser.parse_args()
    print(f"{asked.runs} runs to {asked.to} on {os.cpu_count()} cores\n")
    print(
        "| Run | Moved after | Lost | Longest gap | Lost elsewhere | Stream | Poorest second | Fell back "
        "| Session |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for number in range(1, asked.runs + 1):
        run = measure(asked.to)
        stream = f"{run.mbit:.0f} Mbit/s" if run.alive else "broke"
        print(
            f"| {number} | {run.after_s:.1f} s | {run.lost} | {run.gap_s * 1000:.0f} ms "
            f"| {run.lost_elsewhere} | {stream} | {run.poorest_mbit:.0f} Mbit/s | {run.back} times "
            f"| {'kept' if run.kept else 'dropped'} |",
            flush=True,
        )


def measure(to: str) -> Run:
    with Lab.from_toml(LAB) as lab:
        founder = lab.node("one")
        alpha, bravo = (lab.node(name) for name in PAIRS[to])
        if to == "direct":
            lab.partition(["r3"], ["r4"])
        founder.run(["meshpeer", "init", "--name", "one", "--detach", "--quiet"])
        invite = founder.run(["meshpeer", "invite", "--quiet", "--uses", "3"]).stdout.strip()
        for node in (lab.node("two"), alpha, bravo):
            node.run(["meshpeer", "join", invite, "--name", node.name, "--detach", "--quiet"])
        wait_for(lambda: relay_of(alpha, bravo) is not None, "the pair goes by a relay")
        wait_for(
            lambda: bravo.run(["ping", "-c1", "-W1", f"{alpha.name}.mesh"], check=False).returncode == 0,
            "a ping",
        )
        # What others see of both is known by then.
        time.sleep(8)
        server = alpha.popen(["iperf3", "--server", "--one-off"], stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        seconds = str(int(AFTER_S + 30))
        client = bravo.popen(
            ["iperf3", "--client", f"{alpha.name}.mesh", "--time", seconds, "--json", "--bitrate", "50M"],
            stdout=subprocess.PIPE,
        )
        with server, client, Traffic(lab) as traffic:
            assert client.stdout is not None
            pings = traffic.ping(bravo.name, alpha.name, f"{alpha.name}.mesh")
            time.sleep(3)
            relay = relay_of(alpha, bravo)
            if relay is None:
                raise SystemExit(f"the pair left its relay too soon: {ways(alpha, bravo)}")
            counts = [came(alpha, bravo)]
            begun = time.monotonic()
            if to == "direct":
                lab.heal()
                wanted = {"direct"}
            else:
                lab.node(relay).popen(["meshpeer", "down", "--quiet"])
                wanted = {one for one in RELAYS if one != relay}
            wait_for(lambda: ways(alpha, bravo) == wanted, "the pair moves")
            after_s, moved_unix_s = time.monotonic() - begun, time.time()
            back = 0
            while time.monotonic() < begun + after_s + AFTER_S:
                back += ways(alpha, bravo) != wanted
                counts.append(came(alpha, bravo))
                time.sleep(0.2)
            near = (moved_unix_s - NEAR_S, moved_unix_s + NEAR_S)
            gap_s, lost, lost_in_all = pings.longest_s(*near), pings.missed(*near), pings.missed()
            shown = json.loads(client.stdout.read())
            server.wait()
    # The last one is no whole second.
    rates = [one["sum"]["bits_per_second"] / 1e6 for one in shown.get("intervals", [])[:-1]]
    alive = "error" not in shown and bool(rates)
    mbit = sum(rates) / len(rates) if rates else 0.0
    kept = counts == sorted(counts)
    return Run(after_s, lost, gap_s, lost_in_all - lost, mbit, min(rates, default=0.0), alive, back, kept)


def relay_of(*ends: Node) -> str | None:
    """Returns the relay that both ends send to; None where they do not, or not to the same one."""
    found = ways(*ends)
    return next(iter(found)) if len(found) == 1 and found < set(RELAYS) else None


def ways(*ends: Node) -> set[str]:
    """Returns by what way each end sends to the other, as its interface says: ``direct``, ``none``, or the
    name of a relay."""
    return {_way(end, other) for end, other in zip(ends, reversed(ends), strict=True)}


def _way(end: Node, other: Node) -> str:
    endpoint = _shown(end, other, "endpoints")
    host, _, port = endpoint.rpartition(":")
    if endpoint in ("", "(none)"):
        return "none"
    if not 51_830 <= int(port) <= 51_929:
        return "direct"
    return next((name for number, name in enumerate(RELAYS, 11) if host == f"198.51.100.{number}"), "direct")


def came(end: Node, other: Node) -> int:
    """Returns the bytes that came from the other end in this session and those before it; a peer that is made
    anew begins with none."""
    return int(_shown(end, other, "transfer") or 0)


def _shown(end: Node, other: Node, what: str) -> str:
    key = other.run(["wg", "show", "wg0", "public-key"]).stdout.strip()
    lines = [line.split() for line in end.run(["wg", "show", "wg0", what]).stdout.splitlines()]
    return next((line[1] for line in lines if line[0] == key), "")


def wait_for(condition: object, what: str) -> None:
    until = time.monotonic() + WAIT_S_MAX
    while not condition():  # type: ignore[operator]
        if time.monotonic() > until:
            raise SystemExit(f"not within {WAIT_S_MAX:.0f} s: {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()

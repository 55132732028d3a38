#!/usr/bin/env python3
"""What a pair in use notices when it leaves its relay for a tunnel of its own.

Each run is a lab: two machines that may relay, and two behind routers that keep ports, which at first let
nothing through between each other. Once the pair goes by a relay, a ping every 20 ms and an iperf3 stream
run through the tunnel, the routers are joined, and the pair moves. Printed: pings lost and the longest gap
between two answers within 2 s of the move; pings lost in all other seconds together, which is what this
machine loses without any move; what the stream carried and its poorest second; and how often either
interface sent to a relay again within the 40 s that follow, in which the relay is given back. Needs root.

    .venv/bin/python scripts/bench/upgrade.py [--runs 10]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab, Node

LAB = """
name = "upgrade"
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
nat = "masquerade"
[routers.r2]
outside = "net"
inside = ["office"]
nat = "masquerade"
"""
WAIT_S_MAX = 40.0
AFTER_S = 40.0
"""More than a relay is kept."""
PING_S = 0.02
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    print(f"{runs} runs on {os.cpu_count()} cores\n")
    print("| Run | Moved after | Lost | Longest gap | Lost elsewhere | Stream | Poorest second | Fell back |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for number in range(1, runs + 1):
        run = measure()
        stream = f"{run.mbit:.0f} Mbit/s" if run.alive else "broke"
        print(
            f"| {number} | {run.after_s:.1f} s | {run.lost} | {run.gap_s * 1000:.0f} ms "
            f"| {run.lost_elsewhere} | {stream} | {run.poorest_mbit:.0f} Mbit/s | {run.back} times |",
            flush=True,
        )


def measure() -> Run:
    with Lab.from_toml(LAB) as lab:
        founder, alpha, bravo = (lab.node(name) for name in ("one", "alpha", "bravo"))
        lab.partition(["r1"], ["r2"])
        founder.run(["meshpeer", "init", "--name", "one", "--detach", "--quiet"])
        invite = founder.run(["meshpeer", "invite", "--quiet", "--uses", "3"]).stdout.strip()
        for name in ("two", "alpha", "bravo"):
            lab.node(name).run(["meshpeer", "join", invite, "--name", name, "--detach", "--quiet"])
        wait_for(lambda: ways(alpha, bravo) == {"relay"}, "the pair goes by a relay")
        wait_for(
            lambda: bravo.run(["ping", "-c1", "-W1", "alpha.mesh"], check=False).returncode == 0, "a ping"
        )
        # What others see of both is known by then.
        time.sleep(8)
        server = alpha.popen(["iperf3", "--server", "--one-off"], stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        seconds = str(int(AFTER_S + 30))
        client = bravo.popen(
            ["iperf3", "--client", "alpha.mesh", "--time", seconds, "--json", "--bitrate", "50M"],
            stdout=subprocess.PIPE,
        )
        pings = bravo.popen(["ping", "-n", "-D", "-i", str(PING_S), "alpha.mesh"], stdout=subprocess.PIPE)
        with server, client, pings:
            assert client.stdout is not None
            assert pings.stdout is not None
            time.sleep(3)
            if ways(alpha, bravo) != {"relay"}:
                raise SystemExit(f"the pair left its relay too soon: {ways(alpha, bravo)}")
            begun = time.monotonic()
            lab.heal()
            wait_for(lambda: ways(alpha, bravo) == {"direct"}, "the pair moves")
            after_s, moved_unix_s = time.monotonic() - begun, time.time()
            back = 0
            while time.monotonic() < begun + after_s + AFTER_S:
                back += ways(alpha, bravo) != {"direct"}
                time.sleep(0.2)
            pings.send_signal(signal.SIGINT)
            said = pings.stdout.read()
            shown = json.loads(client.stdout.read())
            server.wait()
    near, lost, elsewhere = gaps_of(said, moved_unix_s)
    # The last one is no whole second.
    rates = [one["sum"]["bits_per_second"] / 1e6 for one in shown.get("intervals", [])[:-1]]
    alive = "error" not in shown and bool(rates)
    mbit = sum(rates) / len(rates) if rates else 0.0
    return Run(after_s, lost, near, elsewhere, mbit, min(rates, default=0.0), alive, back)


def gaps_of(said: str, moved_unix_s: float) -> tuple[float, int, int]:
    """Returns the longest gap between answers near the move, pings lost there, and pings lost elsewhere."""
    found = [(float(at), int(seq)) for at, seq in re.findall(r"\[([\d.]+)\].*icmp_seq=(\d+) ttl", said)]
    gap_s, lost, elsewhere = 0.0, 0, 0
    for (at, seq), (later, after) in itertools.pairwise(sorted(found, key=lambda one: one[1])):
        missing = after - seq - 1
        if at - NEAR_S <= moved_unix_s <= later + NEAR_S:
            lost += missing
            gap_s = max(gap_s, later - at)
        else:
            elsewhere += missing
    return gap_s, lost, elsewhere


def ways(*ends: Node) -> set[str]:
    """Returns by what way each end sends to the other: ``direct`` or ``relay``, as its interface says."""
    return {_way(end, other) for end, other in zip(ends, reversed(ends), strict=True)}


def _way(end: Node, other: Node) -> str:
    key = other.run(["wg", "show", "wg0", "public-key"]).stdout.strip()
    for line in end.run(["wg", "show", "wg0", "endpoints"]).stdout.splitlines():
        if line.split()[0] == key:
            endpoint = line.split()[1]
            host, _, port = endpoint.rpartition(":")
            lent = host.startswith("198.51.100.1") and 51_830 <= int(port) <= 51_929
            return "none" if endpoint == "(none)" else "relay" if lent else "direct"
    return "none"


def wait_for(condition: object, what: str) -> None:
    until = time.monotonic() + WAIT_S_MAX
    while not condition():  # type: ignore[operator]
        if time.monotonic() > until:
            raise SystemExit(f"not within {WAIT_S_MAX:.0f} s: {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()

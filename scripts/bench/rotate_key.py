#!/usr/bin/env python3
"""What connections notice while a node changes its WireGuard key.

Each run is a lab: two machines on one network, and two behind routers that give every destination another
port, so that these two go by a relay. In turn the machine behind a router and the one that is the relay
change their keys (`meshpeer rotate-key`), while two peers ping it every 20 ms and hold a TCP connection to it
that echoes 1 kB every 20 ms. Printed: how long the command took, and for each peer the pings lost and the
longest gap between two answers within 3 s of the change; pings lost in all other seconds together, which is
what this machine loses without any change; whether each connection lived, and its longest wait for an echo.
Needs root.

    .venv/bin/python scripts/bench/rotate_key.py [--runs 5]
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab, Node

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
PING_S = 0.02
NEAR_S = 3.0
ECHO = """
import socket, threading
def echo(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
with socket.create_server(("::", 7777), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print("ready", flush=True)
    while True:
        threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()
"""
TALK = """
import signal, socket, sys, time
ended, longest = [], 0.0
signal.signal(signal.SIGINT, lambda *_: ended.append(1))
with socket.create_connection((sys.argv[1], 7777), timeout=20) as connection:
    while not ended:
        sent, begun, came = bytes(1000), time.monotonic(), b""
        connection.sendall(sent)
        while len(came) < len(sent):
            came += connection.recv(65536) or sys.exit("closed")
        longest = max(longest, time.monotonic() - begun)
        time.sleep(0.02)
print(f"lived {longest:.3f}")
"""


@dataclass
class Seen:
    lost: int
    gap_s: float
    elsewhere: int
    talk: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"{runs} runs on {os.cpu_count()} cores\n")
    print("| Run | Changes | Took | Watched by | Lost | Longest gap | Lost elsewhere | TCP | Longest echo |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for number in range(1, runs + 1):
        with Lab.from_toml(LAB) as lab:
            build(lab)
            for changes, watchers in TURNS:
                took_s, seen = measure(lab, changes, watchers)
                for watcher, one in seen.items():
                    state, _, longest = one.talk.partition(" ")
                    echo = f"{float(longest) * 1000:.0f} ms" if longest else "-"
                    print(
                        f"| {number} | {changes} | {took_s:.1f} s | {watcher} | {one.lost} "
                        f"| {one.gap_s * 1000:.0f} ms | {one.elsewhere} | {state or 'broke'} | {echo} |",
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
    node = lab.node(changes)
    server = node.popen(["python3", "-u", "-c", ECHO], stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    # More than a pipe holds.
    shown = {one: tempfile.TemporaryFile("w+") for one in watchers}  # noqa: SIM115
    pinging = {one: lab.node(one).popen(_ping(changes), stdout=shown[one]) for one in watchers}
    talking = {
        one: lab.node(one).popen(["python3", "-c", TALK, f"{changes}.mesh"], stdout=subprocess.PIPE)
        for one in watchers
    }
    time.sleep(3)
    begun = time.monotonic()
    node.run(["meshpeer", "rotate-key", "--quiet"], timeout=100)
    took_s, turned_unix_s = time.monotonic() - begun, time.time()
    time.sleep(NEAR_S + 3)
    seen: dict[str, Seen] = {}
    for one in watchers:
        for process in (pinging[one], talking[one]):
            process.send_signal(signal.SIGINT)
        pinging[one].wait(timeout=30)
        said = talking[one].communicate(timeout=30)[0]
        with shown[one] as file:
            file.seek(0)
            lost, gap_s, elsewhere = gaps_of(file.read(), turned_unix_s)
        seen[one] = Seen(lost, gap_s, elsewhere, said.strip())
    server.kill()
    server.communicate()
    return took_s, seen


def _ping(target: str) -> list[str]:
    return ["ping", "-n", "-D", "-i", str(PING_S), f"{target}.mesh"]


def gaps_of(said: str, turned_unix_s: float) -> tuple[int, float, int]:
    """Returns pings lost near the change, the longest gap between answers there, and pings lost elsewhere."""
    found = [(float(at), int(seq)) for at, seq in re.findall(r"\[([\d.]+)\].*icmp_seq=(\d+) ttl", said)]
    gap_s, lost, elsewhere = 0.0, 0, 0
    for (at, seq), (later, after) in itertools.pairwise(sorted(found, key=lambda one: one[1])):
        if at - NEAR_S <= turned_unix_s <= later + NEAR_S:
            lost += after - seq - 1
            gap_s = max(gap_s, later - at)
        else:
            elsewhere += after - seq - 1
    return lost, gap_s, elsewhere


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

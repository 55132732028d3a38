#!/usr/bin/env python3
"""How long traffic between two regions stands still when their hub is lost, and when it is back.

Makes a lab of three regions of three nodes with the commands that a user types, pings across every 20 ms, and
keeps a TCP connection between every two regions talking. Needs root; ``pairs`` needs iperf3.

    .venv/bin/python scripts/bench/hub_failover.py [pairs] [lost] [killed] [closed] [stuck]
"""

from __future__ import annotations

import itertools
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab, Node, Traffic

REGIONS = {
    "eu": ("alpha", "bravo", "charlie"),
    "us": ("delta", "echo", "foxtrot"),
    "ap": ("golf", "hotel", "india"),
}
REGION_OF = {name: region for region, names in REGIONS.items() for name in names}
SETTLE_S, LOST_S, BACK_S = 35.0, 20.0, 45.0
TUNNEL_BACK_S = 100.0
"""A hub whose tunnel was dead has to answer for a minute first."""
PORT_CLOSED = """table inet fault {
  chain i { type filter hook input priority 0; udp dport 51820 drop; }
  chain o { type filter hook output priority 0; udp sport 51820 drop; }
}"""
"""Links live, tunnels carry nothing."""
FORWARDS_NOTHING = """table inet fault {
  chain f { type filter hook forward priority 0; policy drop; }
}"""
MENDED = "delete table inet fault"


def main() -> None:
    nodes = "".join(f'[nodes.{name}]\nlans = ["lan0"]\n' for name in REGION_OF)
    with Lab.from_toml(f'name = "hubs"\n[lans.lan0]\nipv4 = "192.168.77.0/24"\n{nodes}') as lab:
        found(lab)
        time.sleep(SETTLE_S)
        cases = sys.argv[1:] or ["pairs", "lost", "killed", "closed", "stuck"]
        if "pairs" in cases:
            every_pair(lab)
        with Traffic(lab) as talks:
            for one, other in itertools.permutations(REGION_OF, 2):
                if REGION_OF[one] < REGION_OF[other]:
                    talks.talk(one, other, address_of(lab.node(other)))
            for case in cases:
                if case != "pairs":
                    run_case(lab, case, talks)


def every_pair(lab: Lab) -> None:
    """Lets a second of TCP through every pair, one after the other."""
    rates: dict[tuple[str, str], float] = {}
    for name in REGION_OF:
        node = lab.node(name)
        server = node.popen(["iperf3", "-s"], stdout=subprocess.DEVNULL)
        time.sleep(0.3)
        for other in REGION_OF:
            if other != name:
                words = ["iperf3", "-c", address_of(node), "-t", "1", "-J"]
                told = json.loads(lab.node(other).run(words).stdout)
                rates[other, name] = told["end"]["sum_received"]["bits_per_second"] / 1e6
        server.terminate()
        server.wait()
    for what, pairs in (
        ("in a region", [one for pair, one in rates.items() if REGION_OF[pair[0]] == REGION_OF[pair[1]]]),
        ("across", [one for pair, one in rates.items() if REGION_OF[pair[0]] != REGION_OF[pair[1]]]),
    ):
        middle = statistics.median(pairs)
        print(f"{len(pairs)} pairs {what}: {min(pairs):.0f} to {max(pairs):.0f}, median {middle:.0f} Mbit/s")


def run_case(lab: Lab, case: str, talks: Traffic) -> None:
    lost, near, far = pick(lab)
    hub = lab.node(lost)
    match case:
        case "lost":
            measure(lab, near, far, "machine lost", lambda: lab.unplug(lost), lambda: lab.plug(lost))
        case "killed":
            up = ["meshpeer", "up", "--detach"]
            measure(lab, near, far, "agent killed", lambda: kill_agent(hub), lambda: hub.run(up))
        case "closed":
            mend = lambda: nft(hub, MENDED)  # noqa: E731
            measure(lab, near, far, "port closed", lambda: nft(hub, PORT_CLOSED), mend, TUNNEL_BACK_S)
        case "stuck":
            mend = lambda: nft(hub, MENDED)  # noqa: E731
            measure(lab, near, far, "forwards nothing", lambda: nft(hub, FORWARDS_NOTHING), mend)
        case _:
            raise SystemExit(f"there is no case {case}")
    hubs = plan_of(lab.node(near))["hubs"]
    broken = [f"{one.source}-{one.target}: {one.lost()}" for one in talks.talks if one.lost()]
    print(f"{'':16} hubs are {', '.join(hubs)} then;", end=" ")
    print(f"of {len(talks.talks)} TCP connections lost so far: {', '.join(broken) or 'none'}", flush=True)


def pick(lab: Lab) -> tuple[str, str, str]:
    """Returns a hub, a member whose home it is, and a member of another region."""
    plan = plan_of(lab.node("alpha"))
    lost = next(name for name in plan["hubs"] if REGION_OF[name] != "eu")
    spare = {*plan["hubs"], *plan["standbys"]}
    near = next(name for name in REGIONS[REGION_OF[lost]] if name not in spare)
    far = next(name for name in REGIONS["eu"] if name not in spare)
    print(f"{near} pings {far} by {lost}, every 20 ms")
    return lost, near, far


def measure(
    lab: Lab,
    near: str,
    far: str,
    what: str,
    lose: Callable[[], object],
    mend: Callable[[], object],
    back_s: float = BACK_S,
) -> None:
    with Traffic(lab) as traffic:
        ping = traffic.ping(near, far, address_of(lab.node(far)))
        time.sleep(3)
        lost_at = time.time()
        lose()
        time.sleep(LOST_S)
        back_at = time.time()
        mend()
        time.sleep(back_s)
        gaps = [(gap.began_s, gap.length_s) for gap in ping.gaps()]
    while_lost = [round(gap, 2) for at, gap in gaps if at < back_at]
    once_back = [round(gap, 2) for at, gap in gaps if at >= back_at]
    after = f"first {gaps[0][0] - lost_at:.1f} s after it" if while_lost else ""
    print(f"{what:16} gaps {while_lost or 'none'} s {after}; back again: {once_back or 'none'} s", flush=True)


def found(lab: Lab) -> None:
    founder = lab.node("alpha")
    init = ["meshpeer", "init", "--name", "alpha", "--region", "eu", "--topology", "regional"]
    founder.run([*init, "--detach", "--quiet"])
    invite = founder.run(["meshpeer", "invite", "--quiet", "--uses", "8"]).stdout.strip()
    for name, region in REGION_OF.items():
        if name != "alpha":
            join = ["meshpeer", "join", invite, "--name", name, "--region", region]
            lab.node(name).run([*join, "--detach", "--quiet"])


def nft(node: Node, rules: str) -> None:
    node.run(["nft", "-f", "-"], input=rules)


def kill_agent(node: Node) -> None:
    for pid in node.pgrep(r"meshpeer (init|join|up)\b"):
        node.kill(pid, signal.SIGKILL)


def address_of(node: Node) -> str:
    status = json.loads(node.run(["meshpeer", "status", "--json"]).stdout)
    address: str = status["node"]["ipv4"]
    return address


def plan_of(node: Node) -> dict[str, list[str]]:
    plan: dict[str, list[str]] = json.loads(node.run(["meshpeer", "plan", "--json"]).stdout)
    return plan


if __name__ == "__main__":
    main()

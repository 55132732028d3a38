#!/usr/bin/env python3
"""A regional mesh of a thousand simulated nodes: its tunnels, and what the loss of a hub moves.

Steps the same code as agents run, in virtual time, with interfaces in memory; follows packets of random pairs
through the plans that the nodes derived themselves, and asks at each hop what WireGuard would.

    .venv/bin/python scripts/bench/regions.py [NODES] [REGIONS]
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import time
from collections.abc import Sequence

from meshpeer.core.ids import NodeId
from meshpeer.core.topology.plan import MeshPlan
from meshpeer.sim.host import Host
from meshpeer.sim.world import World

WAKE_S, SETTLE_S, LOST_S = 10.0, 5.0, 30.0
PAIRS = 20_000
HOPS_MAX = 3


def main() -> None:
    count, regions = (int(one) for one in (*sys.argv[1:], *("1000", "10")[len(sys.argv) - 1 :]))
    began = time.perf_counter()
    world = World(1, latency_s=0.02)
    hosts = world.grow(count, topology="regional", places=[f"r{number}" for number in range(regions)])
    world.run(WAKE_S + SETTLE_S)
    print(f"{count} nodes in {regions} regions, {WAKE_S + SETTLE_S:.0f} s of virtual time", end=" ")
    print(f"in {time.perf_counter() - began:.0f} s")
    show(hosts)
    before = {host.id: tunnels(host) for host in hosts}
    lost = next(host for host in hosts if host.name == plan_of(hosts[0]).hubs[0])
    rest = [host for host in hosts if host is not lost]
    world.crash(lost, silent=True)
    lost_at_s = world.now_s
    world.run_until(lambda: all(lost.name not in plan_of(host).hubs for host in rest), within_s=LOST_S)
    print(f"{lost.name}, a hub, falls silent: replaced on all nodes after {world.now_s - lost_at_s:.2f} s")
    world.run(5)
    show(rest)
    moved = [host for host in rest if tunnels(host) != before[host.id]]
    inside = sum(host.place == lost.place for host in moved)
    print(f"  {len(moved)} nodes made or ended tunnels, {inside} of them in its region")
    print(f"{time.perf_counter() - began:.0f} s in all")


def show(hosts: Sequence[Host]) -> None:
    plans = {host.id: plan_of(host) for host in hosts}
    views = {(plan.mode, plan.hubs, plan.standbys) for plan in plans.values()}
    hubs = {name for _, active, standbys in views for name in (*active, *standbys)}
    edges = [len(plans[host.id].peers) for host in hosts if host.name not in hubs]
    centres = [len(plans[host.id].peers) for host in hosts if host.name in hubs]
    total = (sum(edges) + sum(centres)) // 2
    print(f"  they agree: {'yes' if len(views) == 1 else f'no, {len(views)} views'};", end=" ")
    print(f"tunnels: {statistics.median(edges):.0f} an edge (at most {max(edges)}),", end=" ")
    print(f"{statistics.median(centres):.0f} a hub (at most {max(centres)}),", end=" ")
    print(f"{total:,} in all; a full mesh has {len(hosts) * (len(hosts) - 1) // 2:,}")
    dice = random.Random(2)
    pairs = [dice.sample(hosts, 2) for _ in range(PAIRS)]
    lengths = [hops(plans, one, other) for one, other in pairs]
    counts = {length: lengths.count(length) for length in sorted({one for one in lengths if one})}
    print(f"  of {PAIRS:,} pairs, by hops: {counts}; not connected: {lengths.count(0)}")


def hops(plans: dict[NodeId, MeshPlan], one: Host, other: Host) -> int:
    """Returns how many hops a packet takes; 0 where it doesn't arrive, or WireGuard would drop it."""
    here, mine, theirs = one.id, address_of(one), address_of(other)
    for hop in itertools.count(1):
        carrier = plans[here].carrier_of(theirs)
        back = plans[carrier.node].carrier_of(mine) if carrier and carrier.node in plans else None
        if carrier is None or hop > HOPS_MAX or back is None or back.node != here:
            return 0
        here = carrier.node
        if here == other.id:
            return hop
    raise AssertionError


def tunnels(host: Host) -> set[NodeId]:
    return {peer.node for peer in plan_of(host).peers}


def plan_of(host: Host) -> MeshPlan:
    assert host.node is not None
    return host.node.tunnels.plan


def address_of(host: Host) -> str:
    assert host.node is not None
    listed = host.node.roster.get(host.id)
    assert listed is not None
    return listed.ipv6


if __name__ == "__main__":
    main()

"""Documents of meshes to draw: any number of members in any number of regions, as one of them sees it."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
from fake_control_api import make_peer, make_status

from meshpeer.app.cli.map_model import MeshMap, map_mesh
from meshpeer.runtime.control import Peer, Plan, PlanPeer, Status

REGIONS = ("eu-central-1", "us", "ap-southeast-2", "sa", "af")
RTT_MS = (None, 0.04, 12.5, 299.9, 9_999.9, 75_000.0)


def documents(
    size: int,
    regions: int,
    *,
    mode: str = "regional",
    me: int = -1,
    named: Callable[[int], str] = "node{:03}".format,
) -> tuple[Status, list[Peer], Plan]:
    """Returns status, peers and plan; the first two of each region are its hub and its standby."""
    draw = random.Random(size * 100 + regions)
    names = [named(number) for number in range(size)]
    region_of = {name: REGIONS[number % regions] for number, name in enumerate(names)}
    mine = names[me]
    regional = mode == "regional"
    hubs, standbys = (names[:regions], names[regions : 2 * regions]) if regional else ([], [])
    home = next((hub for hub in hubs if region_of[hub] == region_of[mine]), None)
    peers = []
    for number, name in enumerate(names):
        if name == mine:
            continue
        near = not regional or region_of[name] == region_of[mine]
        path = draw.choices(("direct" if near else "hub", "link", "none"), (8, 1, 1))[0]
        peers.append(
            make_peer(
                id=f"id{number}",
                name=name,
                region=region_of[name],
                ipv4=address(number),
                ipv6="",
                state=draw.choices(("alive", "suspect", "dead"), (8, 1, 1))[0],
                path=path,
                via=home or "" if path == "hub" else "",
                rtt_ms=draw.choice(RTT_MS),
            )
        )
    status = make_status()
    node = msgspec.structs.replace(status.node, id="me", name=mine, region=region_of[mine])
    tunnels = PlanPeer(
        name=names[0],
        public_key="kkkk=",
        endpoint=None,
        allowed_ips=tuple(f"{address(number)}/32" for number in range(size)),
        keepalive_s=25,
    )
    plan = Plan(
        mode=mode,
        hub=home,
        hubs=tuple(hubs),
        standbys=tuple(standbys),
        peers=(tunnels,),
        routes=(),
        changes=(),
    )
    return msgspec.structs.replace(status, node=node), peers, plan


def mesh(size: int, regions: int, **changes: object) -> MeshMap:
    return map_mesh(*documents(size, regions, **changes))  # type: ignore[arg-type]


def address(number: int) -> str:
    return f"10.10.{number // 250}.{number % 250 + 1}"

"""Documents of a mesh, to make the dashboard's tables of."""

from __future__ import annotations

import msgspec

from meshpeer.app.board.build import Room, Seen, mesh_tables
from meshpeer.runtime.board import View
from meshpeer.runtime.control import (
    Agreement,
    Job,
    MemberCounts,
    MeshInfo,
    NodeInfo,
    Peer,
    Plan,
    Status,
    TaskCounts,
)

AT = "2026-01-31T08:15:00.000000Z"
NOW_S = 1_800_000_000.0


def status(**changes: object) -> Status:
    made = Status(
        mesh=MeshInfo(id="m", name="home", subnet="10.1.0.0/16", topology="auto", topology_mode="full"),
        node=NodeInfo(
            id="id-alpha",
            name="alpha",
            region="eu",
            roles=("compute",),
            ipv4="10.1.0.1",
            ipv6="fd00::1",
            public_key="k",
            backend="kernel",
            interface="wg0",
            port=51820,
            mtu=1420,
            control_port=51821,
            isolation="x",
            slots=2,
            admission="durable",
            certificate_ends=AT,
            version="1.2.3",
            uptime_s=5.0,
        ),
        members=MemberCounts(total=2, alive=2, suspect=0, dead=0, left=0),
        health="ok",
        warnings=(),
        jobs={},
        agreement=Agreement(agree=2, total=2),
    )
    return msgspec.structs.replace(made, **changes)


def peer(name: str, **changes: object) -> Peer:
    made = Peer(
        id=f"id-{name}",
        name=name,
        region="eu",
        roles=(),
        ipv4="10.1.0.2",
        ipv6="",
        state="alive",
        since=AT,
        because="it answers",
        link="up",
        path="direct",
        via="",
        endpoint="",
        last_handshake_s=1.0,
        rtt_ms=2.5,
        rx_bytes=1,
        tx_bytes=1,
        work="accepts",
    )
    return msgspec.structs.replace(made, **changes)


def job(name: str = "flipbook", **changes: object) -> Job:
    counts = TaskCounts(
        total=24, waiting=0, ready=6, running=2, succeeded=15, failed=1, skipped=0, cancelled=0
    )
    made = Job(
        id=f"j{name}",
        name=name,
        state="running",
        owner="alpha",
        durability="this_node",
        tasks=counts,
        submitted_at=AT,
        finished_at=None,
    )
    return msgspec.structs.replace(made, **changes)


def plan(**changes: object) -> Plan:
    return msgspec.structs.replace(
        Plan(mode="full", hub=None, hubs=(), peers=(), routes=(), changes=()), **changes
    )


def view(
    *peers: Peer,
    of: Status | None = None,
    by: Plan | None = None,
    jobs: tuple[Job, ...] = (),
    rooms: dict[str, Room] | None = None,
) -> View:
    seen = Seen(
        status=of or status(),
        peers=peers,
        plan=by or plan(),
        rooms=rooms or {},
        jobs=jobs,
        now_unix_s=NOW_S,
    )
    return View(mesh_tables(seen))

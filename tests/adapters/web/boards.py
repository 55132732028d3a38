"""Dashboards for tests: one that nobody opens, and one that shows what it is given."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from meshpeer.adapters.web.access import Access
from meshpeer.adapters.web.dashboard import Dashboard
from meshpeer.runtime.control import (
    Job,
    MemberCounts,
    MeshInfo,
    NodeInfo,
    Peer,
    Status,
    TaskCounts,
)

AT = "2026-01-31T08:15:00.000000Z"


@dataclass
class BoardViews:
    """What is shown, to be changed at will."""

    health: str = "ok"
    warnings: tuple[str, ...] = ()
    names: list[str] = field(default_factory=lambda: ["alpha", "bravo"])
    job_names: list[str] = field(default_factory=lambda: ["flipbook"])
    now_s: float = 0.0
    looks: int = 0

    async def status(self) -> Status:
        self.looks += 1
        return Status(
            mesh=MeshInfo(id="m", name="home", subnet="10.1.0.0/16", topology="auto", topology_mode="full"),
            node=NodeInfo(
                id="id-0",
                name=self.names[0],
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
            members=MemberCounts(total=len(self.names), alive=len(self.names), suspect=0, dead=0, left=0),
            health=self.health,
            warnings=self.warnings,
            jobs={},
        )

    async def peers(self) -> list[Peer]:
        return [
            Peer(
                id=f"id-{place}",
                name=name,
                region="eu",
                roles=(),
                ipv4=f"10.1.0.{place + 1}",
                ipv6="",
                state="alive",
                since=AT,
                because="",
                link="up",
                path="direct",
                via="",
                endpoint="",
                last_handshake_s=1.0,
                rtt_ms=2.5,
                rx_bytes=1,
                tx_bytes=1,
            )
            for place, name in enumerate(self.names)
            if place
        ]

    async def jobs(self) -> list[Job]:
        counts = TaskCounts(
            total=24, waiting=0, ready=6, running=2, succeeded=15, failed=1, skipped=0, cancelled=0
        )
        return [
            Job(
                id="jaaaaaaaaaaaaaaaaaaa",
                name=name,
                state="running",
                owner="alpha",
                durability="this_node",
                tasks=counts,
                submitted_at=AT,
                finished_at=None,
            )
            for name in self.job_names
        ]


def board(views: BoardViews) -> Dashboard:
    return Dashboard(access=Access(os.urandom, lambda: views.now_s), views=views)


def closed_board() -> Dashboard:
    return board(BoardViews())

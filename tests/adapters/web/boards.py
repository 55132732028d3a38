"""Dashboards for tests: one that nobody opens, and one that shows what it is given; and documents to make
views of."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from meshpeer.adapters.web.access import Access
from meshpeer.adapters.web.dashboard import Dashboard
from meshpeer.core.errors import LocalFault
from meshpeer.runtime.board import Order, View
from meshpeer.runtime.control import (
    Doc,
    Job,
    LogPiece,
    MemberCounts,
    MeshInfo,
    NodeInfo,
    Peer,
    Status,
    TaskCounts,
    Why,
    WhyRule,
)
from meshpeer.runtime.job_docs import JobWhy

AT = "2026-01-31T08:15:00.000000Z"


class NameRow(Doc, frozen=True, kw_only=True):
    name: str


@dataclass
class FakeBoard:
    """Shows names, to be changed at will, and remembers what it was told."""

    names: list[str] = field(default_factory=lambda: ["alpha", "bravo"])
    pieces: list[LogPiece] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    jobs_asked_for: list[str] = field(default_factory=list)
    now_s: float = 0.0
    looks: int = 0

    async def view(self, job: str, *, narrow: bool) -> View:
        self.looks += 1
        self.jobs_asked_for.append(job)
        return View({"members": {one: NameRow(name=one) for one in self.names}})

    async def log(self, job: str, task: str, stream: str, offset: int, attempt: int) -> LogPiece:
        if not self.pieces:
            raise LocalFault(f"there is no task {task!r}", "look again")
        return self.pieces.pop(0)

    async def why_member(self, name: str) -> Why:
        return Why(
            source="alpha",
            target=name,
            verdict="direct",
            answer=f"{name} is reached directly",
            path=("alpha", name),
            rule=(WhyRule(code="full", text="the mesh is full"),),
            tunnels=(),
            candidates=(),
            unknown=(),
            todo=(),
        )

    async def why_job(self, job: str, task: str) -> JobWhy:
        return JobWhy(job=job, name="flipbook", state="running", owner="alpha", paused=False, reasons=())

    async def order(self, order: Order) -> str:
        if order.what == "explode":
            raise LocalFault("there is no order 'explode'", "reload the page")
        self.orders.append(order)
        return f"{order.what} is done"


def status_of(name: str, *, region: str = "eu", total: int = 1) -> Status:
    return Status(
        mesh=MeshInfo(id="m", name="home", subnet="10.1.0.0/16", topology="auto", topology_mode="full"),
        node=NodeInfo(
            id="id-0",
            name=name,
            region=region,
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
        members=MemberCounts(total=total, alive=total, suspect=0, dead=0, left=0),
        health="ok",
        warnings=(),
        jobs={},
    )


def peer_of(place: int, name: str) -> Peer:
    return Peer(
        id=f"id-{place}",
        name=name,
        region="eu",
        roles=(),
        ipv4=f"10.1.{place // 250}.{place % 250 + 1}",
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


def counts_of(**counts: int) -> TaskCounts:
    none = dict.fromkeys(
        ("total", "waiting", "ready", "running", "succeeded", "failed", "skipped", "cancelled"), 0
    )
    return TaskCounts(**{**none, **counts})


def job_of(name: str, *, key: str = "jaaaaaaaaaaaaaaaaaaa", state: str = "running", tasks: TaskCounts) -> Job:
    return Job(
        id=key,
        name=name,
        state=state,
        owner="alpha",
        durability="this_node",
        tasks=tasks,
        submitted_at=AT,
        finished_at=None,
    )


def board(shown: FakeBoard) -> Dashboard:
    return Dashboard(access=Access(os.urandom, lambda: shown.now_s), board=shown)


def closed_board() -> Dashboard:
    return board(FakeBoard())

"""Dashboards for tests: one that nobody opens, and one that shows what it is given."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from meshpeer.adapters.web.access import Access
from meshpeer.adapters.web.dashboard import Dashboard
from meshpeer.core.errors import LocalFault
from meshpeer.runtime.board import Order, View
from meshpeer.runtime.control import Doc, LogPiece, Why, WhyRule
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


def board(shown: FakeBoard) -> Dashboard:
    return Dashboard(access=Access(os.urandom, lambda: shown.now_s), board=shown)


def closed_board() -> Dashboard:
    return board(FakeBoard())

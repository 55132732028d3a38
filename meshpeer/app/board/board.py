"""Looks at the agent for the dashboard, and does what its buttons say.

One look serves all pages. It is kept for ``LOOK_S``, and for longer where looking takes long, so that pages
cost the agent a bounded share of its time. Other nodes are asked for their jobs seldom, and only while a page
follows. The story is kept all along, from a look now and then.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import trio

from meshpeer.app.board.build import Room, Seen, map_tables, mesh_tables
from meshpeer.app.board.rows import MemberRow, StoryRow
from meshpeer.app.board.story import LOGGED_MAX, STORY_MAX, tell, tell_logged
from meshpeer.app.board.watched import LOOK_S, SHARE, WatchedJob
from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import key_text
from meshpeer.runtime.board import Order, Table, View
from meshpeer.runtime.control import Job, LogPiece, Why
from meshpeer.runtime.job_docs import JobWhy

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

STORY_S = 5.0
"""Between two looks that are for the story alone."""
FAR_S = 15.0
"""After which members are asked for their jobs anew."""
WATCHED_MAX = 16
"""Jobs whose tables are kept; the one that was looked at longest ago goes first."""
NAMED_MAX = 1_000
"""Tasks that one order may name."""


class Board:
    """Implements ``adapters.web.dashboard.Board`` for one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._mesh = View()
        self._until_s = -math.inf
        self._maps: dict[bool, tuple[object, dict[str, Table]]] = {}
        self._watched: dict[str, WatchedJob] = {}
        self._story: collections.deque[tuple[int, StoryRow]] = collections.deque(maxlen=STORY_MAX)
        self._logged: collections.deque[tuple[int, StoryRow]] = collections.deque(maxlen=LOGGED_MAX)
        self._told = 0
        self._far: Sequence[Job] = ()
        self._silent: tuple[str, ...] = ()
        self._far_at = 0.0
        self._far_until_s = -math.inf
        agent.log.listener = self._hear

    async def keep_story(self) -> None:
        """Looks now and then, so that there is a story when a page is opened; runs until cancelled."""
        while True:
            try:
                await self._look()
            except Exception as bug:  # noqa: BLE001  a page that can't be drawn must not end this agent
                fields = (("error", repr(bug)[:200]),)
                self._agent.log.write("error", "the dashboard could not look at this node", fields)
            await trio.sleep(STORY_S)

    # --- looking --------------------------------------------------------------------------------------------

    async def view(self, job: str, *, narrow: bool) -> View:
        """Returns what a page shows that looks at a job (empty for none), on a narrow screen or a wide."""
        if trio.current_time() >= self._far_until_s:
            self._far_until_s = math.inf
            self._agent.spawn(self._ask_others)
        await self._look()
        return View(
            {**self._mesh.tables, **self._map(narrow=narrow), **(await self._job(job) if job else {})}
        )

    async def _look(self) -> None:
        """Looks anew where the last look is old, and tells what changed."""
        began_s = trio.current_time()
        if began_s < self._until_s:
            return
        # Nobody else looks meanwhile.
        self._until_s = math.inf
        try:
            new = View(mesh_tables(await self._seen()))
        finally:
            self._until_s = began_s + LOOK_S
        for row in tell(self._mesh, new, self._agent.clock.now().unix_s):
            self._told += 1
            self._story.append((self._told, row))
        story = {str(number): row for number, row in (*self._logged, *self._story)}
        self._mesh = View({**new.tables, "story": story})
        took_s = trio.current_time() - began_s
        self._until_s = trio.current_time() + max(LOOK_S, SHARE * took_s)

    def _hear(self, level: str, fact: str, fields: tuple[tuple[str, str], ...]) -> None:
        """Keeps what the agent logged, for the next look."""
        self._told += 1
        names = {key: cast(MemberRow, row).name for key, row in self._mesh.table("members").items()}
        row = tell_logged(level, fact, fields, names, self._agent.clock.now().unix_s)
        self._logged.append((self._told, row))

    async def _seen(self) -> Seen:
        agent, api = self._agent, self._agent.api
        own = api.owned_jobs()
        mine = {one.id for one in own}
        jobs = [*own, *(one for one in self._far if one.id not in mine)]
        return Seen(
            status=await api.status(),
            peers=await api.peers(),
            plan=await api.plan(),
            rooms={
                key_text(seat.node): Room(
                    slots=seat.slots,
                    memory=seat.profile.memory_bytes,
                    resources=dict(seat.profile.resources),
                )
                for seat in agent.node.scheduler.seats
            },
            jobs=sorted(jobs, key=lambda one: one.submitted_at, reverse=True),
            now_unix_s=agent.clock.now().unix_s,
            silent=self._silent,
            jobs_as_of=self._far_at,
        )

    async def _ask_others(self) -> None:
        """Asks members for their jobs: they may be replicas of this node's own, which knows better."""
        try:
            found = await self._agent.api.all_jobs()
            self._far, self._silent = found.jobs, found.silent
            self._far_at = round(self._agent.clock.now().unix_s)
        finally:
            self._far_until_s = trio.current_time() + FAR_S

    def _map(self, *, narrow: bool) -> dict[str, Table]:
        """Returns where everything stands; anew only where somebody came, went, or became a hub."""
        members = {key: cast(MemberRow, row) for key, row in self._mesh.table("members").items()}
        stand = [
            (key, row.name, row.region, row.hub, row.state in ("left", "revoked"))
            for key, row in members.items()
        ]
        known = self._maps.get(narrow)
        if known is None or known[0] != stand:
            known = self._maps[narrow] = (stand, map_tables(members, narrow=narrow))
        return known[1]

    async def _job(self, job: str) -> dict[str, Table]:
        watched = self._watched.pop(job, None)
        if watched is None:
            watched = WatchedJob(self._agent, job)
            while len(self._watched) >= WATCHED_MAX:
                del self._watched[next(iter(self._watched))]
        self._watched[job] = watched
        return dict(await watched.tables())

    # --- questions and orders -------------------------------------------------------------------------------

    async def log(self, job: str, task: str, stream: str, offset: int, attempt: int) -> LogPiece:
        return await self._agent.api.log(job, task, stream, offset, wait=True, attempt=attempt)

    async def why_member(self, name: str) -> Why:
        return await self._agent.api.why("", name)

    async def why_job(self, job: str, task: str) -> JobWhy:
        return await self._agent.api.why_task(job, task)

    async def order(self, order: Order) -> str:
        """Does what a button says; returns what was done, in words."""
        try:
            return await self._obey(order)
        finally:
            # What it led to is seen at once, here and at others.
            self._until_s = self._far_until_s = -math.inf

    async def _obey(self, order: Order) -> str:
        api = self._agent.api
        match order.what:
            case "cancel":
                return f"{(await api.cancel(order.job)).name} is cancelled"
            case "retry":
                if len(order.tasks) > NAMED_MAX:
                    raise LocalFault(f"{len(order.tasks)} tasks are too many to name", "name none for all")
                return f"{(await api.retry(order.job, order.tasks)).name} runs again what failed"
            case "pause" | "resume":
                done = await api.pause(order.job, order.what == "pause")
                return f"{done.name} is {'paused' if done.paused else 'not paused any more'}"
            case "drain" | "undrain":
                drain = await api.drain(order.node, order.what == "drain")
                return f"{drain.node} {'takes no new work' if drain.drained else 'takes work again'}"
            case _:
                raise LocalFault(f"there is no order {order.what!r}", "reload the page")

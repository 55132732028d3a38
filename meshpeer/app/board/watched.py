"""Looks at one job for the pages that show it: this node's own, or another's by asking its owner."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from meshpeer.app import views
from meshpeer.app.board.build import job_row
from meshpeer.app.board.job import TASKS_MAX, GraphTables, TaskTable, rows_of
from meshpeer.app.board.rows import JobRow
from meshpeer.core.errors import MeshpeerError
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.runtime.board import Table
from meshpeer.runtime.control import Job, Task

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

LOOK_S = 0.5
FAR_S = 2.0
"""After which the owner of another node's job is asked anew."""
SHARE = 20
"""A look is kept for as many times as long as it took, so that looking has a bounded share of the agent."""


class WatchedJob:
    """The tables of one job, as they were looked at last."""

    def __init__(self, agent: Agent, job: str) -> None:
        self._agent, self._job = agent, job
        self._rows = TaskTable(lambda node: views.name_of(agent.node, node))
        self._graph = GraphTables()
        self._tables: dict[str, Table] = {}
        self._until_s = -math.inf
        self._looks = False
        self._known: Job | None = None

    async def tables(self) -> Mapping[str, Table]:
        """Returns the tables; looks anew where the last look is old."""
        if trio.current_time() >= self._until_s and not self._looks:
            self._looks = True
            try:
                await self._look_for_a_while()
            finally:
                self._looks = False
        return self._tables

    async def _look_for_a_while(self) -> None:
        began_s, pause_s = trio.current_time(), FAR_S
        owner = self._agent.api.owns(self._job)
        try:
            if owner is not None:
                pause_s = LOOK_S
                await self._look_here(owner)
            else:
                await self._look_there()
        except MeshpeerError as fault:
            said = ": ".join(one for one in (fault.what, fault.hint) if one)
            self._known = None
            self._tables = {"job": {self._job: _unknown(said)}}
        now_s = trio.current_time()
        self._until_s = now_s + max(pause_s, SHARE * (now_s - began_s))

    async def _look_here(self, owner: JobOwner) -> None:
        api = self._agent.api
        job = await api.job(self._job)
        if job == self._known and job.finished_at is not None:
            return
        if job != self._known:
            self._tables |= self._graph.look(await api.graph(self._job))
        self._tables["tasks"] = self._rows.look(owner)
        self._told(job)

    async def _look_there(self) -> None:
        api = self._agent.api
        job = await api.job(self._job)
        if job == self._known:
            return
        if job.as_of is None:
            self._tables |= self._graph.look(await api.graph(job.id))
        self._tables["tasks"] = _changed(self._tables.get("tasks", {}), await api.tasks(job.id))
        self._told(job)

    def _told(self, job: Job) -> None:
        shown = min(job.tasks.total, TASKS_MAX)
        self._tables["job"] = {job.id: job_row(job, shown=shown)}
        self._known = job


def _changed(before: Table, tasks: list[Task]) -> Table:
    rows = rows_of(tasks)
    return before if rows == before else rows


def _unknown(trouble: str) -> JobRow:
    return JobRow(name="", state="unknown", owner="", submitted="", trouble=trouble)

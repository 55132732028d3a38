"""Answers what functions of jobs returned, as they end: one stream in place of a question per task."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from meshpeer.app import views
from meshpeer.app.api_jobs import JobAnswers, TakenOver
from meshpeer.core.errors import LocalFault, MeshpeerError
from meshpeer.core.ids import TaskIndex
from meshpeer.core.jobs.python import report_path, result_path
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.tables import COMMITTED, TaskState
from meshpeer.core.scheduler.views import task_state
from meshpeer.runtime.control import CallResult
from meshpeer.runtime.ports import BlobRef

RESULT_INLINE_BYTES_MAX = 256 * 1024
"""A larger one is asked for by itself, as any output file is."""
CHANGES_S = 0.02
"""Between two looks at a job that changes all the time."""
LOOK_S = 5e-6
"""More for each of its tasks that is open: a look passes over all of them."""
FETCHED_AT_ONCE = 32


class CallAnswers(JobAnswers):
    """The part of the control API that is about what functions returned."""

    async def results(self, job: str) -> AsyncIterator[CallResult]:
        """Yields what became of each function, in the order in which they ended and are on disk; ends with
        the job. Raises ``LocalFault`` for a job that has none."""
        owner = self._owner(job)
        graph = owner.graph
        rows = [row for row in range(graph.rows) if owner.record.spec.tasks[row].python is not None]
        left = [TaskIndex(task) for row in rows for task in graph.tasks_of_row(row)]
        if not left:
            raise LocalFault(f"{job} has no task that is a function", "see `meshpeer jobs result`")
        counted = -1
        while left:
            event = self._watchers.setdefault(owner.job, trio.Event())
            committed = sum(owner.counts[state] for state in COMMITTED)
            ended = [one for one in left if owner.states[one] in COMMITTED] if committed != counted else []
            counted = committed
            if ended:
                await self._settled(owner, owner.last_ticket)
                gone = set(ended)
                left = [one for one in left if one not in gone]
                for at in range(0, len(ended), FETCHED_AT_ONCE):
                    for result in await self._results_of(owner, ended[at : at + FETCHED_AT_ONCE]):
                        yield result
                continue
            await event.wait()
            if self._failure is not None:
                raise self._failure
            if self._agent.node.scheduler.owned.get(owner.job) is not owner:
                raise TakenOver(
                    "another node owns the job now", "connect to that one, and ask it for the results"
                )
            await trio.sleep(CHANGES_S + LOOK_S * len(left))

    async def _results_of(self, owner: JobOwner, tasks: list[TaskIndex]) -> list[CallResult]:
        """Returns results in the order of their tasks; those that are elsewhere are fetched side by side."""
        found: dict[TaskIndex, CallResult] = {}

        async def fetch(task: TaskIndex) -> None:
            found[task] = await self._result_of(owner, task)

        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(fetch, task)
        return [found[task] for task in tasks]

    async def _result_of(self, owner: JobOwner, task: TaskIndex) -> CallResult:
        spec, element = owner.graph.spec_of(task), owner.graph.element_of(task)
        row = owner.results.get(task)
        succeeded = owner.states[task] is TaskState.SUCCEEDED
        path = result_path(spec, element) if succeeded else report_path(spec, element)
        size, data, trouble = 0, None, ""
        try:
            file = next((one for one in await self._manifest(owner, task) if one.path == path), None)
            if file is not None:
                size = file.size
                if size <= RESULT_INLINE_BYTES_MAX:
                    await self._have(BlobRef(digest=file.digest, size=size), owner, task)
                    data = await self._agent.blobs.read(file.digest, 0, size)
        except MeshpeerError as fault:
            trouble = fault.what
        return CallResult(
            task=owner.graph.id_of(task),
            index=element,
            state=task_state(owner, task),
            node=views.name_of(self._agent.node, row.node) if row is not None else None,
            error=(row.error if row is not None else "") or trouble,
            path=path if size else "",
            size=size,
            data=data,
        )

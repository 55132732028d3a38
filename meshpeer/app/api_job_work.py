"""Answers what is asked about jobs and nodes at work: why a task waits, pause, retry, priority, drain; for
what this node owns, and for itself."""

from __future__ import annotations

import collections

from meshpeer.app import views
from meshpeer.app.api_jobs import JobAnswers
from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import TaskIndex
from meshpeer.core.scheduler.control_messages import DrainAsked, PauseAsked, PriorityAsked, RetryAsked
from meshpeer.core.scheduler.explaining import Explainer, Group, listed
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.tables import TaskState
from meshpeer.core.scheduler.views import job_state, task_state
from meshpeer.runtime.control import Job
from meshpeer.runtime.job_docs import Drain, GraphTask, JobGraph, JobWhy, WhyTasks

PRIORITY_MAX = 1_000
"""Either way from 0, the usual."""
RETRIED_MAX = 1_000
"""Tasks that one request may name."""


class JobWork(JobAnswers):
    """The part of the control API that has an effect on work, or explains it."""

    async def pause(self, job: str, paused: bool) -> Job:
        owner = self._open(job)
        self._agent.driver.step_now(PauseAsked(job=owner.job, paused=paused))
        return await self._kept(owner)

    async def prioritise(self, job: str, priority: int) -> Job:
        owner = self._open(job)
        if not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
            raise LocalFault(
                f"{priority} is no priority", f"use -{PRIORITY_MAX} to {PRIORITY_MAX}; 0 is the usual"
            )
        self._agent.driver.step_now(PriorityAsked(job=owner.job, priority=priority))
        return await self._kept(owner)

    async def retry(self, job: str, tasks: tuple[str, ...]) -> Job:
        owner = self._owner(job)
        chosen = _to_retry(owner, tasks)
        record = owner.record
        gone = [one.path for one in record.spec.files if self._agent.blobs.path(one.digest) is None]
        if gone:
            raise LocalFault(
                f"{gone[0]}, a file of the job, made room for others since it ended", "submit the job again"
            )
        kept = [owner.digest, *(one.digest for one in record.spec.files)]
        await self._agent.files.note_submitted(owner.job, kept, record.spec.keep_s)
        self._agent.driver.step_now(RetryAsked(job=owner.job, tasks=chosen))
        return await self._kept(owner)

    async def why_task(self, job: str, task: str) -> JobWhy:
        owner, node = self._owner(job), self._agent.node
        scheduler = node.scheduler
        explainer = Explainer(
            owner,
            [one for one in scheduler.owned.values() if not one.finished],
            scheduler.seats,
            lambda who: views.name_of(node, who),
            self._agent.clock.now().mono_s,
        )
        if task:
            index = owner.graph.find(task)
            reason = explainer.explain(index)
            groups = [Group(state=task_state(owner, index), reason=reason, count=1, examples=(index,))]
        else:
            groups = explainer.groups()
        return JobWhy(
            job=owner.job,
            name=owner.record.spec.name,
            state=job_state(owner),
            owner=views.name_of(node, node.me),
            paused=owner.paused,
            reasons=tuple(
                WhyTasks(
                    state=one.state,
                    code=one.reason.code,
                    text=one.reason.text,
                    count=one.count,
                    tasks=tuple(owner.graph.id_of(index) for index in one.examples),
                )
                for one in groups
            ),
        )

    async def graph(self, job: str) -> JobGraph:
        owner = self._owner(job)
        return JobGraph(
            job=owner.job,
            name=owner.record.spec.name,
            state=job_state(owner),
            tasks=tuple(_graph_task(owner, row) for row in range(owner.graph.rows)),
        )

    async def drain_here(self, drained: bool) -> Drain:
        node = self._agent.node
        if drained and not node.scheduler.worker.accepting and not node.scheduler.worker.drained:
            name = views.name_of(node, node.me)
            raise LocalFault(
                f"{name} takes no work as it is", "its settings ([jobs] accept) or its certificate say so"
            )
        self._agent.driver.step_now(DrainAsked(drained=drained))
        await self._on_disk(node.scheduler.drain_ticket)
        return self.drained_here()

    def drained_here(self) -> Drain:
        node = self._agent.node
        worker = node.scheduler.worker
        return Drain(
            node=views.name_of(node, node.me),
            drained=worker.drained,
            running=worker.active,
            waiting=worker.queued,
            results=worker.unacknowledged,
        )

    # --- helpers --------------------------------------------------------------------------------------------

    async def _kept(self, owner: JobOwner) -> Job:
        await self._settled(owner, owner.last_ticket)
        return self._view(owner)

    def _open(self, job: str) -> JobOwner:
        owner = self._owner(job)
        if owner.finished:
            raise LocalFault(
                f"{owner.job} ({owner.record.spec.name}) has ended: it is {job_state(owner)}",
                "run what failed of it again with `meshpeer jobs retry`, or submit it again",
            )
        return owner


def _to_retry(owner: JobOwner, tasks: tuple[str, ...]) -> tuple[TaskIndex, ...]:
    """Returns what is to run again; raises ``LocalFault`` where there is nothing, or it can't."""
    name = f"{owner.job} ({owner.record.spec.name})"
    if owner.cancelled:
        raise LocalFault(f"{name} was cancelled, and that is for good", "submit it again")
    if len(tasks) > RETRIED_MAX:
        raise LocalFault(
            f"{len(tasks)} tasks are too many to name", "leave them out: all that failed run again"
        )
    if not tasks:
        failed = [TaskIndex(number) for number, state in enumerate(owner.states) if state is TaskState.FAILED]
        if not failed:
            raise LocalFault(f"no task of {name} has failed", f"its state: {job_state(owner)}")
        return tuple(failed)
    chosen: dict[TaskIndex, None] = {}
    wrong: list[str] = []
    for task in tasks:
        for index in _named(owner, task):
            state = owner.states[index]
            if state is TaskState.FAILED:
                chosen[index] = None
            elif "[" in task or len(_named(owner, task)) == 1:
                wrong.append(f"{owner.graph.id_of(index)} is {task_state(owner, index)}")
    if wrong:
        hint = "name those that failed (`meshpeer jobs why` lists them); what was skipped goes along"
        raise LocalFault(f"only what failed is run again, and {listed(wrong)}", hint)
    if not chosen:
        raise LocalFault(f"no task of {', '.join(tasks)} has failed", "see `meshpeer jobs tasks`")
    return tuple(chosen)


def _named(owner: JobOwner, task: str) -> tuple[TaskIndex, ...]:
    """Returns a task by its id, or all of an array by its name."""
    if "[" in task:
        return (owner.graph.find(task),)
    return tuple(TaskIndex(one) for one in owner.graph.tasks_named(task))


def _graph_task(owner: JobOwner, row: int) -> GraphTask:
    tasks = owner.graph.tasks_of_row(row)
    spec = owner.graph.spec_of(TaskIndex(tasks.start))
    states = collections.Counter(task_state(owner, TaskIndex(one)) for one in tasks)
    return GraphTask(
        name=spec.name,
        count=len(tasks),
        array=spec.array is not None,
        needs=tuple(dict.fromkeys(need.task for need in spec.needs)),
        states=dict(sorted(states.items())),
    )

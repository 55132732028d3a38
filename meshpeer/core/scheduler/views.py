"""Read models of owned jobs: states as people see them. Reads only."""

from __future__ import annotations

from meshpeer.core.ids import TaskIndex
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.tables import TaskState


def job_state(owner: JobOwner) -> str:
    """Returns ``pending``, ``running``, ``succeeded``, ``failed`` or ``cancelled``."""
    counts = owner.counts
    if owner.finished:
        if owner.cancelled:
            return "cancelled"
        # What is skipped beside no failure was to run only after one.
        return "failed" if counts[TaskState.FAILED] else "succeeded"
    started = owner.running or counts[TaskState.SUCCEEDED] or counts[TaskState.FAILED]
    return "running" if started else "pending"


def task_state(owner: JobOwner, task: TaskIndex) -> str:
    """Returns a task's state; LEASED reads ``running`` once its attempt runs, ``ready`` before."""
    state = owner.states[task]
    if state is TaskState.LEASED:
        return "running" if owner.leases[task].running else "ready"
    return str(state.value)


def task_counts(owner: JobOwner) -> dict[str, int]:
    """Returns the number of tasks by state as people see it, and ``total``; constant cost."""
    counts = owner.counts
    return {
        "total": len(owner.graph),
        "waiting": counts[TaskState.WAITING],
        "ready": counts[TaskState.READY] + counts[TaskState.LEASED] - owner.running,
        "running": owner.running,
        "succeeded": counts[TaskState.SUCCEEDED],
        "failed": counts[TaskState.FAILED],
        "skipped": counts[TaskState.SKIPPED],
        "cancelled": counts[TaskState.CANCELLED],
    }

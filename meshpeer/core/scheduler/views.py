"""Read models of owned jobs: states as people see them, and why a task is where it is. Reads only."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import assert_never

from meshpeer.core.ids import NodeId, TaskIndex
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.seats import Seats
from meshpeer.core.scheduler.tables import COMMITTED, TaskState
from meshpeer.core.scheduler.waiting import why_waiting

NAMED_MAX = 3
"""Needs that a reason names before it counts the rest."""


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


def why(owner: JobOwner, seats: Seats, task: TaskIndex, name_of: Callable[[NodeId], str]) -> str:
    """Returns one line that says why a task is in its state; ``name_of`` says what people call a node."""
    state = owner.states[task]
    match state:
        case TaskState.WAITING:
            return _why_waiting(owner, task)
        case TaskState.READY:
            return _why_ready(owner, seats, task, name_of)
        case TaskState.LEASED:
            lease = owner.leases[task]
            stolen = f", stolen from {name_of(lease.stolen_from)}" if lease.stolen_from else ""
            doing = "runs on" if lease.running else "is in line on"
            return f"{doing} {name_of(lease.node)}, attempt {lease.attempt.number}{stolen}"
        case TaskState.SUCCEEDED:
            return f"succeeded on {name_of(owner.results[task].node)}"
        case TaskState.FAILED:
            row = owner.results[task]
            return f"failed on {name_of(row.node)}: {row.error}"
        case TaskState.SKIPPED:
            return "skipped: something that it needs has failed"
        case TaskState.CANCELLED:
            return "cancelled with its job" if owner.cancelled else "cancelled: another task has failed"
        case _:
            assert_never(state)


def _why_waiting(owner: JobOwner, task: TaskIndex) -> str:
    open_needs = (
        owner.graph.id_of(needed)
        for needed, _ in owner.graph.needs_of(task)
        if owner.states[needed] not in COMMITTED
    )
    named = list(itertools.islice(open_needs, NAMED_MAX))
    more = sum(1 for _ in open_needs)
    return f"waits for {', '.join(named)}" + (f" and {more} more" if more else "")


def _why_ready(owner: JobOwner, seats: Seats, task: TaskIndex, name_of: Callable[[NodeId], str]) -> str:
    if owner.backlog.retry_at_s(task) is not None:
        return "failed, and waits before it is tried again"
    if owner.backlog.suspects:
        heard = ", ".join(name_of(node) for node in owner.backlog.suspects)
        return f"its owner was started again and waits to hear what {heard} may be running"
    resting = [seat.node for seat in seats if owner.granting.rests(seat.node)]
    takers = [seat for seat in seats if seat.slots and seat.linked and seat.node not in resting]
    if not takers:
        return "no worker with a link takes this job now"
    spec = owner.graph.spec_of(task)
    reason = why_waiting(spec, seats.profiles(without=resting))
    if reason:
        return f"waiting: {reason}"
    if spec.group and owner.granting.is_full(spec.group):
        return f"waiting: group {spec.group} has as many at once as it may"
    return f"every slot is taken: {len(takers)} workers, {sum(seat.slots for seat in takers)} slots"

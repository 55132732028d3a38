"""The two lives: of a task at its owner, and of an attempt at its worker, as tables of allowed moves."""

from __future__ import annotations

import enum

from meshpeer.core.errors import InvariantBroken


class TaskState(enum.Enum):
    """A task at its owner. The four last are committed: one journal row, never changed within a round."""

    WAITING = "waiting"
    READY = "ready"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


COMMITTED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})

TASK_MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.WAITING: frozenset({TaskState.READY, TaskState.SKIPPED, TaskState.CANCELLED}),
    TaskState.READY: frozenset(
        {TaskState.LEASED, TaskState.CANCELLED, TaskState.SUCCEEDED, TaskState.FAILED}
    ),
    TaskState.LEASED: frozenset(
        {TaskState.READY, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED}
    ),
    TaskState.SUCCEEDED: frozenset({TaskState.READY}),
    TaskState.FAILED: frozenset(),
    TaskState.SKIPPED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}
"""READY to a result: one that was granted before a restart or an expired lease arrived after all. SUCCEEDED
to READY: a new round,
because every holder of its outputs is gone."""


class AttemptState(enum.StrEnum):
    """An attempt at its worker."""

    GRANTED = "granted"
    STAGING = "staging"
    RUNNING = "running"
    STORED = "stored"
    OFFERED = "offered"
    ACKED = "acked"
    LOST = "lost"
    STOPPED = "stopped"


ATTEMPT_MOVES: dict[AttemptState, frozenset[AttemptState]] = {
    AttemptState.GRANTED: frozenset({AttemptState.STAGING, AttemptState.STOPPED, AttemptState.LOST}),
    AttemptState.STAGING: frozenset(
        {AttemptState.RUNNING, AttemptState.STORED, AttemptState.STOPPED, AttemptState.LOST}
    ),
    AttemptState.RUNNING: frozenset({AttemptState.STORED, AttemptState.STOPPED, AttemptState.LOST}),
    AttemptState.STORED: frozenset({AttemptState.OFFERED}),
    AttemptState.OFFERED: frozenset({AttemptState.OFFERED, AttemptState.ACKED}),
    AttemptState.ACKED: frozenset(),
    AttemptState.LOST: frozenset(),
    AttemptState.STOPPED: frozenset(),
}


def move_task(story: str, before: TaskState, after: TaskState) -> TaskState:
    """Returns ``after`` where the move is allowed; else raises ``InvariantBroken`` with the task's story."""
    if after not in TASK_MOVES[before]:
        raise InvariantBroken(f"task {story} can't go from {before.value} to {after.value}")
    return after


def move_attempt(story: str, before: AttemptState, after: AttemptState) -> AttemptState:
    """Returns ``after`` where the move is allowed; else raises ``InvariantBroken`` with the attempt's
    story."""
    if after not in ATTEMPT_MOVES[before]:
        raise InvariantBroken(f"attempt {story} can't go from {before.value} to {after.value}")
    return after

"""The two lives: of a task at its owner, and of an attempt at its worker, as tables of allowed moves.

An attempt whose work a service does goes through more while it is RUNNING: the third table.
"""

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
    # To a result: a journal replayed by key, or one that arrives although a need was opened again.
    TaskState.WAITING: frozenset(
        {TaskState.READY, TaskState.SKIPPED, TaskState.CANCELLED, TaskState.SUCCEEDED, TaskState.FAILED}
    ),
    # To a result: of an attempt granted before a restart, or whose lease had run out. To WAITING: a need was
    # opened again.
    TaskState.READY: frozenset(
        {TaskState.LEASED, TaskState.WAITING, TaskState.CANCELLED, TaskState.SUCCEEDED, TaskState.FAILED}
    ),
    TaskState.LEASED: frozenset(
        {
            TaskState.READY,
            TaskState.WAITING,
            TaskState.SUCCEEDED,
            TaskState.FAILED,
            TaskState.SKIPPED,
            TaskState.CANCELLED,
        }
    ),
    # A new round: every holder of the outputs is gone.
    TaskState.SUCCEEDED: frozenset({TaskState.READY, TaskState.WAITING}),
    # A new round that a person asked for; what was skipped because of it waits again.
    TaskState.FAILED: frozenset({TaskState.WAITING}),
    TaskState.SKIPPED: frozenset({TaskState.WAITING}),
    # With a task whose failure had ended the rest; never what a person cancelled.
    TaskState.CANCELLED: frozenset({TaskState.WAITING}),
}


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
    SUPERSEDED = "superseded"


_UNDONE = frozenset({AttemptState.STOPPED, AttemptState.LOST})

ATTEMPT_MOVES: dict[AttemptState, frozenset[AttemptState]] = {
    AttemptState.GRANTED: _UNDONE | {AttemptState.STAGING},
    # Straight to STORED: an attempt that failed before anything ran, such as two inputs with one path.
    AttemptState.STAGING: _UNDONE | {AttemptState.RUNNING, AttemptState.STORED},
    AttemptState.RUNNING: _UNDONE | {AttemptState.STORED},
    AttemptState.STORED: frozenset({AttemptState.OFFERED}),
    AttemptState.OFFERED: frozenset({AttemptState.ACKED, AttemptState.SUPERSEDED}),
    AttemptState.ACKED: frozenset(),
    AttemptState.LOST: frozenset(),
    AttemptState.STOPPED: frozenset(),
    AttemptState.SUPERSEDED: frozenset(),
}


def check_attempt_move(story: str, before: AttemptState, after: AttemptState) -> None:
    """Raises ``InvariantBroken`` with the attempt's story where the table has no such move."""
    if after not in ATTEMPT_MOVES[before]:
        raise InvariantBroken(f"{story}: an attempt can't go from {before.value} to {after.value}")


class WebhookState(enum.StrEnum):
    """An attempt that is RUNNING, and that a service works on."""

    DISPATCHED = "dispatched"
    """It is being sent; the service may have it, or not."""
    ACCEPTED = "accepted"
    """The service has it (202), and will call back."""
    ANSWERED = "answered"
    """How it ended is in the journal."""
    SETTLED = "settled"
    """Nobody needs the result from here any more; its tokens are remembered."""


WEBHOOK_MOVES: dict[WebhookState, frozenset[WebhookState]] = {
    # Straight to ANSWERED: answered at once, called back before the 202, refused, or timed out.
    WebhookState.DISPATCHED: frozenset({WebhookState.ACCEPTED, WebhookState.ANSWERED}),
    WebhookState.ACCEPTED: frozenset({WebhookState.ANSWERED}),
    WebhookState.ANSWERED: frozenset({WebhookState.SETTLED}),
    WebhookState.SETTLED: frozenset(),
}


def check_webhook_move(story: str, before: WebhookState, after: WebhookState) -> None:
    """Raises ``InvariantBroken`` with the attempt's story where the table has no such move."""
    if after not in WEBHOOK_MOVES[before]:
        raise InvariantBroken(f"{story}: a webhook can't go from {before.value} to {after.value}")

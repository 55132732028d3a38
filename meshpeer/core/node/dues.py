"""When a node's machines want to come back, all but the scheduler.

A job of a thousand tasks is several thousand events that the scheduler alone hears of, and asking ten other
machines for their deadlines after each of them costs more than the events. So their answer is kept until an
event that another machine may have heard of. What depends on the wall clock (records expire by it) is never
older than ``FRESH_S``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard, get_args

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Tick
from meshpeer.core.node.messages import SelfMessage
from meshpeer.core.scheduler.messages import SchedulerEvent

FRESH_S = 1.0
"""How long an answer is kept at most: the clock on the wall may have been set."""
WorkEvent = SelfMessage | SchedulerEvent
_WORK = frozenset({*get_args(WorkEvent)} - {Tick})


def is_work(event: object) -> TypeGuard[WorkEvent]:
    """Says whether an event is the scheduler's alone: no other machine of a node hears of it."""
    return type(event) in _WORK


class Dues:
    """Keeps the earliest deadline of machines that did not change since it was worked out."""

    def __init__(self, work_out: Callable[[], Deadline | None]) -> None:
        self._work_out = work_out
        self._earliest: Deadline | None = None
        self._known = False
        self._known_at_s = 0.0

    def forget(self) -> None:
        """A machine may have changed."""
        self._known = False

    def earliest(self, now: Instant) -> Deadline | None:
        """Returns the earliest deadline of all; ``now`` is when the last event came."""
        if not self._known or not 0.0 <= now.mono_s - self._known_at_s < FRESH_S:
            self._earliest, self._known, self._known_at_s = self._work_out(), True, now.mono_s
        return self._earliest

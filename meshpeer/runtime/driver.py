"""The driver: one task that feeds events to the node and hands its effects to performers.

It takes an event from the inbox, lets the node handle it, performs the effects, and sleeps until the next
event or deadline.
Performing never blocks: a performer starts work elsewhere and reports by an event. What waits for the journal
is held in
``Releases`` until its ticket is on disk. The last events and what followed from them are kept as the story.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import trio

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Persisted, Tick
from meshpeer.runtime.ports import Clock

STORY_LENGTH = 2_000
BATCH_MAX = 256
"""Events handled before other tasks get a turn."""


Event = TypeVar("Event", contravariant=True)


class Machine(Protocol[Event]):
    """What the driver drives: a machine with two doors."""

    def handle(self, event: Event, now: Instant) -> Sequence[object]: ...

    def next_deadline(self) -> Deadline | None: ...


@dataclass(frozen=True, slots=True)
class Chapter:
    """One event and what followed from it, for ``meshpeer story``."""

    number: int
    unix_s: float
    event: object
    effects: tuple[object, ...]


class Driver:
    """Owns the inbox and the machine; everything else talks to the machine through ``post``."""

    def __init__(self, machine: Machine[Any], clock: Clock, perform: Callable[[object], None]) -> None:
        self._machine = machine
        self._clock = clock
        self._perform = perform
        self._inbox: collections.deque[object] = collections.deque()
        self._wake = trio.Event()
        self._number = 0
        self.lag_s = 0.0
        """How late the last tick was: the event loop's own lag."""
        self.story: collections.deque[Chapter] = collections.deque(maxlen=STORY_LENGTH)

    def post(self, event: object) -> None:
        """Queues an event; may be called from any trio task."""
        self._inbox.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            handled = 0
            while self._inbox and handled < BATCH_MAX:
                self._step(self._inbox.popleft())
                handled += 1
            await self._rest()

    def step_now(self, event: object) -> None:
        """Handles an event at once, for callers that must see its result; only between two steps of the
        driver."""
        self._step(event)
        self._wake.set()

    def _step(self, event: object) -> None:
        now = self._clock.now()
        effects = tuple(self._machine.handle(event, now))
        self._number += 1
        if effects and not isinstance(event, Tick | Persisted):
            self.story.append(Chapter(self._number, now.unix_s, event, effects))
        for effect in effects:
            self._perform(effect)

    async def _rest(self) -> None:
        if self._inbox:
            await trio.lowlevel.checkpoint()
            return
        self._wake = trio.Event()
        deadline = self._machine.next_deadline()
        now_s = self._clock.now().mono_s
        wait_s = deadline.at_s - now_s if deadline else 3_600.0
        with trio.move_on_after(max(0.0, wait_s)) as timer:
            await self._wake.wait()
        if timer.cancelled_caught:
            self.lag_s = max(0.0, self._clock.now().mono_s - now_s - max(0.0, wait_s))
            self._inbox.append(Tick())

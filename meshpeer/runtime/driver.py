"""The driver: one task that feeds events to the node and hands its effects to performers.

It takes an event from the inbox, lets the node handle it, performs the effects, and sleeps until the next
event or deadline.
Performing never blocks: a performer starts work elsewhere and reports by an event. What waits for the journal
is held in
``Releases`` until its ticket is on disk. The last events and what followed from them are kept as the story.

It also measures how late it runs: how long an event waited, how long a batch took, how late a timer woke it.
A busy machine, a stopped process and a handler that takes too long all show there, and Lifeguard (DSN 2018)
asks for just that: who is late himself must not call others dead.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import trio

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import LagMeasured, Tick
from meshpeer.runtime.ports import Clock

STORY_LENGTH = 2_000
BATCH_MAX = 256
"""Events handled before other tasks get a turn."""
LAG_LOOK_S = 1.0
"""Longest sleep: a driver with nothing to do still notices that it was not let run."""
LAG_WINDOW_S = 10.0
"""How long a measured lag counts into ``lag_s``."""
LAG_TOLD_S = 0.1
"""Lag from which on the machine is told."""
LAG_TOLD_INTERVAL_S = 1.0


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

    def __init__(
        self,
        machine: Machine[Any],
        clock: Clock,
        perform: Callable[[object], None],
        *,
        tell_lag: bool = False,
    ) -> None:
        """``tell_lag``: the machine takes ``LagMeasured``, before anything that came while it was late."""
        self._machine = machine
        self._clock = clock
        self._perform = perform
        self._inbox: collections.deque[object] = collections.deque()
        self._wake = trio.Event()
        self._number = 0
        self._waiting_since_s = 0.0
        self._tell_lag = tell_lag
        self._lags: collections.deque[tuple[float, float]] = collections.deque()
        self._worst_untold_s = 0.0
        self._told_at_s = -LAG_TOLD_INTERVAL_S
        self.story: collections.deque[Chapter] = collections.deque(maxlen=STORY_LENGTH)

    @property
    def lag_s(self) -> float:
        """The event loop's own lag: the worst of the last ``LAG_WINDOW_S``."""
        self._forget_lags(self._clock.now().mono_s)
        return self._lags[0][1] if self._lags else 0.0

    def post(self, event: object) -> None:
        """Queues an event; may be called from any trio task."""
        if not self._inbox:
            self._waiting_since_s = self._clock.now().mono_s
        self._inbox.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            if self._inbox:
                began_s = self._clock.now().mono_s
                self._note_lag(began_s - self._waiting_since_s, began_s)
                handled = 0
                while self._inbox and handled < BATCH_MAX:
                    self._step(self._inbox.popleft())
                    handled += 1
                self._waiting_since_s = self._clock.now().mono_s
                self._note_lag(self._waiting_since_s - began_s, self._waiting_since_s)
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
        if effects and not isinstance(event, Tick):
            self.story.append(Chapter(self._number, now.unix_s, event, effects))
        for effect in effects:
            self._perform(effect)

    async def _rest(self) -> None:
        if self._inbox:
            await trio.lowlevel.checkpoint()
            # Whoever keeps the inbox full must not stop time.
            due = self._machine.next_deadline()
            if due and self._clock.now().mono_s >= due.at_s:
                self._step(Tick())
            return
        self._wake = trio.Event()
        deadline = self._machine.next_deadline()
        now_s = self._clock.now().mono_s
        wait_s = min(max(0.0, deadline.at_s - now_s), LAG_LOOK_S) if deadline else LAG_LOOK_S
        with trio.move_on_after(wait_s):
            await self._wake.wait()
        woken_s = self._clock.now().mono_s
        self._note_lag(woken_s - now_s - wait_s, woken_s)
        if deadline and woken_s >= deadline.at_s and not self._inbox:
            self.post(Tick())

    def _note_lag(self, lag_s: float, now_s: float) -> None:
        if lag_s <= 0.0:
            return
        self._forget_lags(now_s)
        # Only what is worse than all after it can ever be the worst of a window.
        while self._lags and self._lags[-1][1] <= lag_s:
            self._lags.pop()
        self._lags.append((now_s, lag_s))
        self._worst_untold_s = max(self._worst_untold_s, lag_s)
        if self._worst_untold_s < LAG_TOLD_S or now_s < self._told_at_s + LAG_TOLD_INTERVAL_S:
            return
        worst_s, self._worst_untold_s, self._told_at_s = self._worst_untold_s, 0.0, now_s
        if self._tell_lag:
            self._step(LagMeasured(lag_s=worst_s))

    def _forget_lags(self, now_s: float) -> None:
        while self._lags and self._lags[0][0] <= now_s - LAG_WINDOW_S:
            self._lags.popleft()

"""The event heap: virtual time, and what is due when.

An entry is a function and its arguments, never a closure: a world of ten thousand hosts holds a million of
them. Entries of one moment come out in the order in which they went in, so one seed gives one history.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[..., None]


class EventHeap:
    """Knows what time it is, and runs what is due."""

    __slots__ = ("_entries", "_order", "now_s", "steps")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.steps = 0
        """Entries that were run so far."""
        self._entries: list[tuple[float, int, Action, tuple[object, ...]]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._entries)

    def after(self, delay_s: float, action: Action, *arguments: object) -> None:
        """Runs the action so much later."""
        self.at(self.now_s + delay_s, action, *arguments)

    def at(self, at_s: float, action: Action, *arguments: object) -> None:
        """Runs the action at a moment; one that has passed is now."""
        self._order += 1
        heapq.heappush(self._entries, (at_s, self._order, action, arguments))

    def run(self, seconds: float) -> None:
        """Runs all that is due within so much virtual time."""
        end, entries, pop = self.now_s + seconds, self._entries, heapq.heappop
        while entries and entries[0][0] <= end:
            at, _, action, arguments = pop(entries)
            if at > self.now_s:
                self.now_s = at
            self.steps += 1
            action(*arguments)
        self.now_s = end

    def run_until(self, condition: Callable[[], bool], *, within_s: float) -> bool:
        """Runs until the condition holds; says whether it did within the bound."""
        end = self.now_s + within_s
        while not condition():
            if not self._entries or self._entries[0][0] > end:
                self.now_s = end
                return condition()
            at, _, action, arguments = heapq.heappop(self._entries)
            self.now_s = max(self.now_s, at)
            self.steps += 1
            action(*arguments)
        return True

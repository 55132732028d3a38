"""A queue with ranks: the higher rank first, within one in order of arrival, and nobody waits for ever.

One in ``ELDEST_EVERY`` goes to whoever came first, whatever its rank: however many of higher rank keep
coming, who waits has at most that many times those before it to wait for.
"""

from __future__ import annotations

import bisect
import collections
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
ELDEST_EVERY = 8
Rank = tuple[int, ...]
"""Compared from the left; of one length within a queue."""


class Arrivals:
    """Numbers items as they come; queues whose items are to be compared share one."""

    __slots__ = ("_first", "_last")

    def __init__(self) -> None:
        self._first = self._last = 0

    def next(self) -> int:
        self._last += 1
        return self._last

    def before_all(self) -> int:
        self._first -= 1
        return self._first


class Ranked(Generic[Item]):
    """Items by rank and arrival. ``is_live`` tells which are still wanted; others are dropped when met."""

    __slots__ = ("_arrivals", "_is_live", "_levels", "_ranks", "_turns")

    def __init__(self, is_live: Callable[[Item], bool], arrivals: Arrivals | None = None) -> None:
        self._is_live = is_live
        self._arrivals = arrivals or Arrivals()
        self._levels: dict[Rank, collections.deque[tuple[int, Item]]] = {}
        self._ranks: list[Rank] = []
        """Of the levels that hold anything, negated and ascending: the highest rank first."""
        self._turns = 0

    def __len__(self) -> int:
        """Counts everything that is kept, wanted or not."""
        return sum(map(len, self._levels.values()))

    def add(self, item: Item, rank: Rank) -> None:
        self._level(rank).append((self._arrivals.next(), item))

    def add_first(self, item: Item, rank: Rank) -> None:
        """Puts an item before all others of its rank: it had its turn before."""
        self._level(rank).appendleft((self._arrivals.before_all(), item))

    def first(self) -> Item | None:
        """Returns whose turn it is, without taking it."""
        found = self._first()
        return self._levels[found][0][1] if found is not None else None

    def order(self) -> tuple[Rank, int] | None:
        """Returns what compares the first with those of other queues: the lower one comes first."""
        found = self._first()
        return (found, self._levels[found][0][0]) if found is not None else None

    def pop(self) -> Item:
        """Takes whose turn it is; raises ``IndexError`` where there is nobody."""
        found = self._first()
        if found is None:
            raise IndexError("nobody waits")
        self._turns += 1
        return self._take(found, 0)

    def waiting(self, most: int) -> Iterator[tuple[Rank, int, Item]]:
        """Yields up to ``most`` items, whose turn it is first, then in order of rank, each with its place."""
        head = self._first()
        if head is None:
            return
        seen = 1
        yield head, 0, self._levels[head][0][1]
        for rank in list(self._ranks):
            for place, (_, item) in enumerate(self._levels[rank]):
                if seen >= most:
                    return
                if (rank, place) != (head, 0) and self._is_live(item):
                    seen += 1
                    yield rank, place, item

    def take(self, rank: Rank, place: int) -> Item:
        """Takes what ``waiting`` has just yielded; whose turn it is keeps it until it is taken itself."""
        self._turns += (rank, place) == (self._first(), 0)
        return self._take(rank, place)

    def pass_turn(self) -> None:
        """Counts a turn of somebody who was taken without being met here."""
        self._turns += 1

    def latest(self) -> Iterator[Item]:
        """Yields everybody, who would come last first."""
        for rank in list(reversed(self._ranks)):
            level = self._levels[rank]
            while level and not self._is_live(level[-1][1]):
                level.pop()
            if not level:
                self._remove(rank)
                continue
            yield from (item for _, item in list(reversed(level)) if self._is_live(item))

    def items(self) -> Iterator[Item]:
        """Yields everything that is kept, wanted or not, in no promised order."""
        for level in self._levels.values():
            yield from (item for _, item in level)

    def clear(self) -> None:
        self._levels.clear()
        self._ranks.clear()

    def _first(self) -> Rank | None:
        """Returns the level whose first has its turn."""
        for rank in list(self._ranks):
            self._drop_dead(rank)
        if len(self._ranks) > 1 and self._turns % ELDEST_EVERY == ELDEST_EVERY - 1:
            return min(self._ranks, key=lambda rank: self._levels[rank][0][0])
        return self._ranks[0] if self._ranks else None

    def _drop_dead(self, rank: Rank) -> None:
        level = self._levels[rank]
        while level and not self._is_live(level[0][1]):
            level.popleft()
        if not level:
            self._remove(rank)

    def _take(self, rank: Rank, place: int) -> Item:
        level = self._levels[rank]
        item = level[place][1]
        del level[place]
        if not level:
            self._remove(rank)
        return item

    def _level(self, rank: Rank) -> collections.deque[tuple[int, Item]]:
        key = tuple(-one for one in rank)
        level = self._levels.get(key)
        if level is None:
            level = self._levels[key] = collections.deque()
            bisect.insort(self._ranks, key)
        return level

    def _remove(self, rank: Rank) -> None:
        del self._levels[rank]
        self._ranks.remove(rank)

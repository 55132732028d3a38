"""Stored results until they are acknowledged: when each is offered again.

An offer is repeated after 1 s, 2 s, 4 s and so on up to ``OFFER_MAX_S``, each with jitter, and on every new
link to who may own the job; it is given up only when its owner says so, or a replica that knows the job's
end. Where the owner is silent, the others that the job's record names are asked by turns. The order of due
offers comes from a heap with lazy deletion.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from meshpeer.core.deadline import Deadline
from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.scheduler.messages import Attempt
from meshpeer.core.scheduler.rows import ResultRow

OFFER_FIRST_S, OFFER_MAX_S = 1.0, 30.0
PATIENCE_TIMES = 4
"""After so many offers to the owner every other one goes to somebody else that may own the job by now."""

Key = tuple[JobId, Attempt]


class Dice(Protocol):
    """A source of chance; ``random.Random`` fits."""

    def random(self) -> float:
        """Returns a float in [0, 1)."""
        ...


@dataclass(slots=True)
class Offering:
    """One result and when it is offered next."""

    row: ResultRow
    next_at_s: float
    times: int = 0
    retargeted: bool = False
    """Its row was written for another owner than the present one."""

    def addressee(self) -> NodeId:
        """Returns whom it is offered to next."""
        late, odd = divmod(self.times - PATIENCE_TIMES, 2)
        others = [one for one in dict.fromkeys(self.row.owners) if one != self.row.owner]
        return others[late % len(others)] if others and late >= 0 and odd else self.row.owner


class Offers:
    """All results of this node that await acknowledgement."""

    __slots__ = ("_by_key", "_dice", "_due", "_jobs", "_pushed")

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._by_key: dict[Key, Offering] = {}
        self._jobs: dict[JobId, int] = {}
        self._due: list[tuple[float, int, Key]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: Key) -> bool:
        return key in self._by_key

    def get(self, key: Key) -> Offering | None:
        return self._by_key.get(key)

    def has_any_of(self, job: JobId) -> bool:
        return job in self._jobs

    def for_owner(self, owner: NodeId) -> Iterator[Offering]:
        """Yields what awaits this owner's word, oldest first."""
        return (one for one in self._by_key.values() if one.row.owner == owner)

    def for_possible_owner(self, peer: NodeId) -> Iterator[Offering]:
        """Yields what awaits the word of this node, or might, since it may own the job by now."""
        return (one for one in self._by_key.values() if peer == one.row.owner or peer in one.row.owners)

    def add(self, row: ResultRow, now_s: float) -> Offering:
        """Files a result that is offered for the first time now."""
        key = (row.offer.job, row.offer.attempt)
        offering = self._by_key[key] = Offering(row, now_s)
        self._jobs[row.offer.job] = self._jobs.get(row.offer.job, 0) + 1
        self.said(offering, now_s)
        return offering

    def said(self, offering: Offering, now_s: float) -> None:
        """Notes that it is offered now, and when it will be again."""
        wait_s = min(OFFER_MAX_S, OFFER_FIRST_S * 2.0 ** min(offering.times, 10))
        offering.times += 1
        offering.next_at_s = now_s + wait_s * (0.75 + 0.5 * self._dice.random())
        self._pushed += 1
        key = (offering.row.offer.job, offering.row.offer.attempt)
        heapq.heappush(self._due, (offering.next_at_s, self._pushed, key))

    def forget(self, key: Key) -> Offering | None:
        """Drops a result; returns it, or None where there was none."""
        offering = self._by_key.pop(key, None)
        if offering is not None:
            self._jobs[key[0]] -= 1
            if not self._jobs[key[0]]:
                del self._jobs[key[0]]
        return offering

    def forget_job(self, job: JobId) -> list[Offering]:
        """Drops every result of a job; returns them."""
        if job not in self._jobs:
            return []
        found = [key for key in self._by_key if key[0] == job]
        return [one for key in found if (one := self.forget(key)) is not None]

    def retarget(self, job: JobId, owner: NodeId) -> None:
        """Offers a job's results to another owner from now on."""
        if job in self._jobs:
            for key, offering in self._by_key.items():
                if key[0] == job:
                    offering.row = msgspec.structs.replace(offering.row, owner=owner)
                    offering.retargeted = True

    def take_due(self, now_s: float) -> list[Offering]:
        """Returns what is to be offered again by now; the caller calls ``said``."""
        due: list[Offering] = []
        while self._due and self._due[0][0] <= now_s:
            at_s, _, key = heapq.heappop(self._due)
            offering = self._by_key.get(key)
            if offering is not None and offering.next_at_s == at_s:
                due.append(offering)
        return due

    def next_deadline(self) -> Deadline | None:
        while self._due:
            at_s, _, key = self._due[0]
            offering = self._by_key.get(key)
            if offering is not None and offering.next_at_s == at_s:
                return Deadline(at_s, "offer a result again")
            heapq.heappop(self._due)
        return None

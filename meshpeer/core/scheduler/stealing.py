"""Stealing: an idle node asks a random other for half of what it can spare, twice; then it waits on
lifelines.

After the two misses the asked ones remember who is hungry and push when they have more (lifelines: Saraswat
et al., PPoPP 2011), so
an idle mesh is silent. Victims are random, four in five of the first try from the thief's own region. A
victim keeps what it
handed over until the thief says that it has it; what is not taken up comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Send
from meshpeer.core.ids import NodeId
from meshpeer.core.scheduler.messages import Grant, PeerView, SchedulerEffect, StealNone, StealRequest, Taken
from meshpeer.core.scheduler.worker import JobWorker

MISSES_MAX = 2
OWN_REGION_FIRST = 0.8
OWN_REGION_AGAIN = 0.4
UNTAKEN_S = 3.0
ANSWER_S = 2.0
"""A victim that does not answer for this long counts as a miss."""
IDLE_RETRY_S = 30.0
"""How often a node that stays idle asks again: lifelines are soft state, and their holders may have
restarted."""


class Dice(Protocol):
    def random(self) -> float: ...


@dataclass(slots=True)
class _HandedOver:
    grant: Grant
    until_s: float


@dataclass(slots=True)
class Stealing:
    """Thief and victim of one node. Sans-IO."""

    worker: JobWorker
    dice: Dice
    region: str = ""
    _asked: NodeId | None = None
    _asked_at_s: float = 0.0
    _misses: int = 0
    _next_at_s: float = 0.0
    _hungry: dict[NodeId, int] = field(default_factory=dict)
    _handed: list[_HandedOver] = field(default_factory=list)

    # --- thief ----------------------------------------------------------------------------------------------

    def seek(self, peers: Sequence[PeerView], now: Instant) -> list[SchedulerEffect]:
        """Asks somebody, where slots are idle and it is time to ask."""
        if self._asked is not None and now.mono_s < self._asked_at_s + ANSWER_S:
            return []
        if self._asked is not None:
            self._miss(now)
        if not self.worker.accepting or not self.worker.idle_slots or now.mono_s < self._next_at_s:
            return []
        victim = self._choose([peer for peer in peers if peer.linked])
        if victim is None:
            return []
        self._asked, self._asked_at_s = victim, now.mono_s
        return [Send(peer=victim, message=StealRequest(slots=self.worker.idle_slots, wait=True))]

    def on_none(self, peer: NodeId, now: Instant) -> None:
        if peer == self._asked:
            self._miss(now)

    def on_booty(self, peer: NodeId, grant: Grant, now: Instant) -> list[SchedulerEffect]:
        """What a victim handed over, asked for or pushed."""
        self._asked = None
        self._misses = 0
        self._next_at_s = now.mono_s
        return [
            Send(peer=peer, message=Taken(job=grant.job, attempts=tuple(one.attempt for one in grant.tasks)))
        ]

    def work_ended(self, now: Instant) -> None:
        """Something ended here: this node may be idle now, so it may ask again."""
        if self.worker.idle_slots and self._misses < MISSES_MAX:
            self._next_at_s = min(self._next_at_s, now.mono_s)

    # --- victim ---------------------------------------------------------------------------------------------

    def on_request(self, thief: NodeId, request: StealRequest, now: Instant) -> list[SchedulerEffect]:
        spare = self._spare()
        if not spare:
            if request.wait:
                self._hungry[thief] = request.slots
            return [Send(peer=thief, message=StealNone())]
        self._hungry.pop(thief, None)
        return self._hand_over(thief, spare, now)

    def feed(self, now: Instant) -> list[SchedulerEffect]:
        """Pushes to the hungry what this node can spare now."""
        effects: list[SchedulerEffect] = []
        while self._hungry and (spare := self._spare()):
            thief = next(iter(self._hungry))
            del self._hungry[thief]
            effects += self._hand_over(thief, spare, now)
        return effects

    def on_taken(self, message: Taken) -> None:
        taken = (message.job, set(message.attempts))
        self._handed = [
            one
            for one in self._handed
            if not (one.grant.job == taken[0] and {task.attempt for task in one.grant.tasks} <= taken[1])
        ]

    def forget(self, peer: NodeId) -> None:
        self._hungry.pop(peer, None)
        if self._asked == peer:
            self._asked = None

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> list[SchedulerEffect]:
        effects: list[SchedulerEffect] = []
        for one in [one for one in self._handed if one.until_s <= now.mono_s]:
            self._handed.remove(one)
            effects += self.worker.take_back(one.grant, now)
        return effects

    def next_deadline(self, anybody: bool) -> Deadline | None:
        waits = [Deadline(one.until_s, "a steal was not taken up") for one in self._handed]
        if self._asked is not None:
            waits.append(Deadline(self._asked_at_s + ANSWER_S, "a victim does not answer"))
        elif anybody and self.worker.accepting and self.worker.idle_slots:
            waits.append(Deadline(self._next_at_s, "idle: ask for work"))
        return min(waits, key=lambda one: one.at_s, default=None)

    # --- rules ----------------------------------------------------------------------------------------------

    def _spare(self) -> int:
        """Half of what waits here, rounded down: the one that the next free slot will take stays."""
        return self.worker.queued // 2

    def _hand_over(self, thief: NodeId, count: int, now: Instant) -> list[SchedulerEffect]:
        effects: list[SchedulerEffect] = []
        for grant in self.worker.give(count):
            self._handed.append(_HandedOver(grant, now.mono_s + UNTAKEN_S))
            effects.append(Send(peer=thief, message=grant))
        return effects or [Send(peer=thief, message=StealNone())]

    def _choose(self, peers: Sequence[PeerView]) -> NodeId | None:
        if not peers:
            return None
        near = [peer for peer in peers if peer.region == self.region]
        bias = OWN_REGION_FIRST if self._misses == 0 else OWN_REGION_AGAIN
        pool = near if near and self.dice.random() < bias else list(peers)
        return pool[int(self.dice.random() * len(pool))].node

    def _miss(self, now: Instant) -> None:
        self._asked = None
        self._misses += 1
        if self._misses >= MISSES_MAX:
            self._misses = 0
            self._next_at_s = now.mono_s + IDLE_RETRY_S * (0.75 + 0.5 * self.dice.random())

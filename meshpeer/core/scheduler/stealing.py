"""Stealing: an idle node asks a random other for half of what waits there, twice; then it waits on lifelines.

After two misses the asked ones remember who is hungry and push when they have more (lifelines: Saraswat et
al., "Lifeline-based global load balancing", PPoPP 2011); the next round of asking comes later each time, so
that an idle mesh is silent. Victims are random: gossiped load would send every thief to the same one. Four in
five of the first tries stay in the thief's own region, two in five of the second.

What is handed over is what the thief may and can run, and what is worth its way (``spoils``). The victim
journals what it hands over, then sends it, and keeps it in its renewals until the thief says that
it has it; what is not taken up is queued again. A thief that took it up late runs it twice, which its owner
settles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Change, Persist, Send, TicketCounter
from meshpeer.core.ids import NodeId
from meshpeer.core.scheduler.fitting import Profile
from meshpeer.core.scheduler.messages import (
    Grant,
    PeerView,
    SchedulerEffect,
    StealNone,
    StealRequest,
    Taken,
    batches,
)
from meshpeer.core.scheduler.offers import Dice, Key
from meshpeer.core.scheduler.rows import GivenRow, delete_given, put_given
from meshpeer.core.scheduler.spoils import Appetite
from meshpeer.core.scheduler.worker import JobWorker

MISSES_MAX = 2
OWN_REGION_FIRST, OWN_REGION_AGAIN = 0.8, 0.4
UNTAKEN_S = 3.0
"""What a thief has not confirmed for this long comes back to its victim."""
ANSWER_S = 2.0
"""A victim that does not answer for this long counts as a miss."""
IDLE_FIRST_S, IDLE_MAX_S = 0.25, 30.0
"""How long a node waits on its lifelines before it asks again; doubles while nothing is found."""
HUNGER_S = 60.0
"""How long a victim remembers who is hungry; the thief asks again before that."""
HUNGRY_MAX = 256
IN_VAIN_MAX = 4
"""Hungry thieves that are looked at in vain at a time: each look goes through the queue."""


@dataclass(slots=True)
class _Hungry:
    request: StealRequest
    until_s: float


class Stealing:
    """Thief and victim of one node. Sans-IO."""

    def __init__(
        self,
        *,
        worker: JobWorker,
        region: str,
        tickets: TicketCounter,
        dice: Dice,
        profile_of: Callable[[NodeId], Profile],
    ) -> None:
        """``profile_of`` says what is known of a thief."""
        self._worker = worker
        self._profile_of = profile_of
        self._region = region
        self._tickets = tickets
        self._dice = dice
        self._victims: tuple[PeerView, ...] = ()
        self._asked: NodeId | None = None
        self._answer_by_s = 0.0
        self._misses = 0
        self._idle_s = IDLE_FIRST_S
        self._next_at_s = 0.0
        self._hungry: dict[NodeId, _Hungry] = {}
        self._given: dict[Key, tuple[float, NodeId]] = {}
        """What was handed over unconfirmed, until when and to whom; in order of time."""

    def may_rob(self, victims: Iterable[PeerView]) -> None:
        """Sets who can be asked: peers with a link and slots of their own."""
        self._victims = tuple(victims)
        present = {one.node for one in self._victims}
        self._hungry = {node: one for node, one in self._hungry.items() if node in present}
        if self._asked is not None and self._asked not in present:
            self._asked = None

    # --- thief --------------------------------------------------------------------------------------------

    def seek(self, now: Instant) -> list[SchedulerEffect]:
        """Asks somebody, where slots are idle and it is time to ask."""
        worker = self._worker
        if not worker.idle_slots or not worker.accepting or not self._victims:
            return []
        if self._asked is not None:
            if now.mono_s < self._answer_by_s:
                return []
            self._missed(now)
        if now.mono_s < self._next_at_s:
            return []
        self._asked, self._answer_by_s = self._choose(), now.mono_s + ANSWER_S
        request = StealRequest(
            idle=worker.idle_slots,
            width=worker.slots,
            wait=True,
            free=worker.free,
            without=worker.sated,
        )
        return [Send(peer=self._asked, message=request)]

    def on_none(self, peer: NodeId, now: Instant) -> list[SchedulerEffect]:
        if peer == self._asked:
            self._missed(now)
        return self.seek(now)

    def on_booty(self, peer: NodeId, grant: Grant, now: Instant) -> list[SchedulerEffect]:
        """Confirms what came from a victim, asked for or pushed, as far as it was taken up here."""
        taken = tuple(one.attempt for one in grant.tasks if self._worker.has(grant.job, one.attempt))
        if peer == self._asked:
            self._asked = None
        self._misses = 0
        self._idle_s = IDLE_FIRST_S
        self._next_at_s = now.mono_s
        return [Send(peer=peer, message=Taken(job=grant.job, attempts=taken))] if taken else []

    def _missed(self, now: Instant) -> None:
        self._asked = None
        self._misses += 1
        if self._misses >= MISSES_MAX:
            self._misses = 0
            self._next_at_s = now.mono_s + self._idle_s * (0.75 + 0.5 * self._dice.random())
            self._idle_s = min(IDLE_MAX_S, 2 * self._idle_s)

    def _choose(self) -> NodeId:
        near = [one for one in self._victims if one.region == self._region]
        bias = OWN_REGION_FIRST if not self._misses else OWN_REGION_AGAIN
        pool = near if near and self._dice.random() < bias else self._victims
        return pool[int(self._dice.random() * len(pool))].node

    # --- victim -------------------------------------------------------------------------------------------

    def on_request(self, thief: NodeId, request: StealRequest, now: Instant) -> list[SchedulerEffect]:
        self._hungry.pop(thief, None)
        effects = self._hand_over(thief, request, now)
        if effects:
            return effects
        if request.wait and len(self._hungry) < HUNGRY_MAX:
            self._hungry[thief] = _Hungry(request, now.mono_s + HUNGER_S)
        return [Send(peer=thief, message=StealNone())]

    def feed(self, now: Instant) -> list[SchedulerEffect]:
        """Pushes to the hungry what waits here, to who asked first, first."""
        effects: list[SchedulerEffect] = []
        in_vain = 0
        for thief, hungry in list(self._hungry.items()) if self._hungry and self._worker.queued else ():
            del self._hungry[thief]
            if hungry.until_s <= now.mono_s:
                continue
            pushed = self._hand_over(thief, hungry.request, now)
            effects += pushed
            if not pushed:
                # Nothing that waits is for this one: others come before it next time.
                self._hungry[thief] = hungry
                in_vain += 1
                if in_vain == IN_VAIN_MAX:
                    break
        return effects

    def on_taken(self, thief: NodeId, message: Taken) -> list[SchedulerEffect]:
        changes: list[Change] = []
        for attempt in message.attempts:
            key = (message.job, attempt)
            given = self._given.get(key)
            if given is not None and given[1] == thief:
                del self._given[key]
                self._worker.given_up(key)
                changes.append(delete_given(*key))
        return [Persist(ticket=self._tickets.take(), changes=tuple(changes))] if changes else []

    def restore(self, rows: Iterable[GivenRow], now: Instant) -> None:
        """Takes up what was being handed over when the agent stopped."""
        for row in rows:
            grant = Grant(
                job=row.job,
                generation=row.generation,
                epoch=row.epoch,
                record=row.record,
                tasks=(row.granted,),
                stolen_from=row.stolen_from,
            )
            self._worker.restore_given(grant, now)
            self._given[row.job, row.granted.attempt] = (now.mono_s + UNTAKEN_S, row.thief)

    def _hand_over(self, thief: NodeId, request: StealRequest, now: Instant) -> list[SchedulerEffect]:
        """Hands half of what waits here over, rounded up: all slots are busy, or it would not wait."""
        rtt_s = next((one.rtt_s for one in self._victims if one.node == thief), 0.0)
        wait_s = self._worker.wait_s
        appetite = Appetite(self._profile_of(thief), request, wait_s=wait_s, rtt_s=rtt_s, now_s=now.mono_s)
        given = self._worker.give((self._worker.queued + 1) // 2, appetite.takes)
        if not given:
            return []
        changes: list[Change] = []
        grants: dict[str, list[Grant]] = {}
        for holding, known in given:
            self._given[holding.key] = (now.mono_s + UNTAKEN_S, thief)
            if known.blob is None:
                continue
            grant = Grant(
                job=holding.job,
                generation=known.generation,
                epoch=known.epoch,
                record=known.blob,
                tasks=(holding.granted,),
                stolen_from=self._worker.me,
            )
            grants.setdefault(holding.job, []).append(grant)
            changes.append(
                put_given(
                    GivenRow(
                        job=grant.job,
                        generation=grant.generation,
                        epoch=grant.epoch,
                        record=grant.record,
                        granted=holding.granted,
                        thief=thief,
                        stolen_from=holding.stolen_from,
                    )
                )
            )
        ticket = self._tickets.take()
        effects: list[SchedulerEffect] = [Persist(ticket=ticket, changes=tuple(changes))]
        for ones in grants.values():
            for batch in batches(granted for one in ones for granted in one.tasks):
                grant = Grant(
                    job=ones[0].job,
                    generation=ones[0].generation,
                    epoch=ones[0].epoch,
                    record=ones[0].record,
                    tasks=batch,
                    stolen_from=self._worker.me,
                )
                effects.append(Send(peer=thief, message=grant, after=ticket))
        return effects

    # --- time ---------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> list[SchedulerEffect]:
        """Takes back what no thief confirmed."""
        effects: list[SchedulerEffect] = []
        changes: list[Change] = []
        for key in [key for key, (until_s, _) in self._given.items() if until_s <= now.mono_s]:
            del self._given[key]
            changes.append(delete_given(*key))
            effects += self._worker.take_back(key)
        if changes:
            effects.append(Persist(ticket=self._tickets.take(), changes=tuple(changes)))
        return effects

    def next_deadline(self) -> Deadline | None:
        waits: list[Deadline] = []
        if self._given:
            waits.append(Deadline(next(iter(self._given.values()))[0], "a steal was not taken up"))
        if self._worker.idle_slots and self._worker.accepting and self._victims:
            if self._asked is not None:
                waits.append(Deadline(self._answer_by_s, "a victim does not answer"))
            else:
                waits.append(Deadline(self._next_at_s, "idle: ask for work"))
        return min(waits, key=lambda one: one.at_s, default=None)

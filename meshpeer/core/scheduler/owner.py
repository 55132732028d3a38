"""The owner of one job: who has a lease on which task, what is granted next, and what is committed.

A lease lives as long as its worker names it in
``Renew``. The first valid result of a round is committed: written to the journal, then acknowledged;
duplicates are acknowledged again, losers stopped. Failures count against a task's ``retries``; workers lost
under it against the crash limit; nothing else counts.

After a restart the owner takes a new epoch and listens before it grants what may already be running: the
journal names the workers that were given attempts, each says on its new link all that it has, and who stays
silent is waited for during one lease. Tasks that become ready meanwhile can't have been granted and are not
held back.

Grants wait for the writes that made their tasks ready (a dependent must not run on a result that may be lost
with this machine), and never for later ones.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterable

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Change, Note, Persist, Send, TicketCounter
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex, Ticket, key_text
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.jobs.rules import FAIL_FAST
from meshpeer.core.scheduler.book import FAILED, LOST, TaskBook
from meshpeer.core.scheduler.granting import Granting
from meshpeer.core.scheduler.leases import LEASE_S, Lease, Leases
from meshpeer.core.scheduler.messages import (
    Ack,
    Attempt,
    Blob,
    Epoch,
    Held,
    JobChanged,
    Lost,
    Offer,
    SchedulerEffect,
    Stolen,
    Stop,
    recalls,
)
from meshpeer.core.scheduler.retrying import RETRY_MAX_S, retry_wait_s
from meshpeer.core.scheduler.rows import JobRow, TaskRow, Try, delete_seat, put_job, put_seat, put_task
from meshpeer.core.scheduler.seals import NUMBER_MAX, FormerHolders, Seals, proves
from meshpeer.core.scheduler.seats import Seats
from meshpeer.core.scheduler.speculation import Speculation
from meshpeer.core.scheduler.tables import COMMITTED, TaskState

CRASH_LIMIT = 3
"""A task that took this many workers down with it is given up; so is one whose inputs were lost as often."""
HOLDER_GONE_S = 10.0
"""Outputs count as lost when their holder has had no link for this long; an agent restarts faster."""
UNSTAGED_MAX = 3
"""Outputs count as lost, link or no link, when they could not be had this often."""


class JobOwner:
    """One owned job. Sans-IO; ``machine.Scheduler`` calls it."""

    def __init__(
        self,
        *,
        me: NodeId,
        record: JobRecord,
        signed: bytes,
        digest: Digest,
        epoch: Epoch,
        tickets: TicketCounter,
        seats: Seats,
        seals: Seals,
        accepted_at_us: int,
        crash_limit: int = CRASH_LIMIT,
        may_grant: Callable[[Instant], bool] = lambda now: True,
        replicated: bool = False,
    ) -> None:
        """``may_grant`` says whether this node still owns the job, as far as it can know; ``replicated``
        that others keep it, too, so that every task's end has to be a row."""
        self.record = record
        self.signed = signed
        self.digest = digest
        self.blob = Blob(digest, len(signed))
        self.epoch = epoch
        self.accepted_at_us = accepted_at_us
        self.finished_at_us = 0
        self.cancelled = False
        self.paused = False
        """Nothing of it is granted; what runs goes on."""
        self.untold = False
        """Its end is still to be told (``outbox``)."""
        self.told = False
        """An end of it was told, and is not told again after a retry."""
        self.given_priority: int | None = None
        """What a person gave it after it was submitted."""
        self.in_turn = False
        """Others have work to give away too: when this one grants is not up to it (``turns``)."""
        self.wants_turn = False
        self.accept_ticket: Ticket | None = None
        """The write that backs the submitter's answer; None after a restart, when it is long done."""
        self.graph = Graph.of(record.spec)
        self.book = TaskBook(record.job, self.graph)
        self._leases = Leases(record.job, seats)
        self.granting = Granting(record, self.blob, self.book, self._leases, seats, seals)
        self.backlog = self.granting.backlog
        self.speculation = Speculation(record.job, self.graph, seats)
        self._me = me
        self._tickets = tickets
        self._seats = seats
        self._crash_limit = crash_limit
        self._may_grant = may_grant
        self._replicated = replicated
        self._last_ticket: Ticket | None = None
        self._epoch_ticket: Ticket | None = None
        """The write of the present epoch; no grant overtakes it."""
        self._workers: set[NodeId] = set()
        """Workers that the journal knows to have been given attempts."""
        self._former = FormerHolders()

    # --- reading ------------------------------------------------------------------------------------------

    @property
    def job(self) -> JobId:
        return self.record.job

    @property
    def finished(self) -> bool:
        return bool(self.finished_at_us)

    @property
    def priority(self) -> int:
        """Among the jobs of one submitter; the higher goes first."""
        return self.record.spec.priority if self.given_priority is None else self.given_priority

    @property
    def states(self) -> list[TaskState]:
        return self.book.states

    @property
    def counts(self) -> collections.Counter[TaskState]:
        return self.book.counts

    @property
    def results(self) -> dict[TaskIndex, TaskRow]:
        return self.book.results

    @property
    def done_on(self) -> collections.Counter[NodeId]:
        return self.book.done_on

    @property
    def last_ticket(self) -> Ticket | None:
        """The newest write of this job: whoever waits for it knows that all before it is on disk."""
        return self._last_ticket

    @property
    def leases(self) -> dict[TaskIndex, Lease]:
        return self._leases.by_task

    @property
    def running(self) -> int:
        """Counts the leases whose attempt runs."""
        return self._leases.running

    def tries_of(self, task: TaskIndex) -> list[Try]:
        """Returns the attempts so far, the present one included."""
        tries = self.book.tries_of(task)
        lease = self.leases.get(task)
        for one in (lease, self.speculation.of(task)):
            if one is not None:
                tries.append(self._try_of(one, "running" if one.running else "granted"))
        return tries

    # --- start and end ------------------------------------------------------------------------------------

    def accept(self) -> list[SchedulerEffect]:
        """Writes the job down; what is granted from here on waits for that."""
        persist = self._persist_job()
        self.accept_ticket = persist.ticket
        self.backlog.add(self.book.take_ready(), persist.ticket)
        return [persist, JobChanged(job=self.job)]

    def restore(
        self, rows: Iterable[tuple[TaskIndex, TaskRow]], row: JobRow, workers: Iterable[NodeId], now: Instant
    ) -> list[SchedulerEffect]:
        """Takes up a job from the journal: replays it, raises the epoch, and listens before it grants."""
        ready = self.recall(rows, row)
        if self.finished:
            return []
        self.epoch = Epoch(row.epoch.counter + 1, self._me)
        self._workers.update(workers)
        self._former = FormerHolders(restored=frozenset(self._workers))
        effects: list[SchedulerEffect] = [self._persist_job()]
        self.backlog.withhold(ready, self._workers - {self._me}, now.mono_s + LEASE_S)
        return [*effects, *self._finish_if_done(now)]

    def recall(self, rows: Iterable[tuple[TaskIndex, TaskRow]], row: JobRow) -> list[TaskIndex]:
        """Takes up what was committed, and does nothing about it; returns what is ready."""
        self.book.restore(rows)
        ready = self.book.take_ready()
        self.cancelled, self.finished_at_us = row.cancelled, row.finished_at_us
        self.paused, self.given_priority = row.paused, row.priority
        # With one replica the outbox is in the same journal, and knows.
        self.untold = row.untold if self._replicated else self.finished
        self.told = row.told
        if row.cancelled or self.book.failed_fast:
            self.book.cancel_open()
        return ready

    def cancel(self, now: Instant, reason: str = "cancelled") -> list[SchedulerEffect]:
        """Ends every open task as cancelled; its attempts are stopped, and their workers told why. Results
        that were committed before stay.
        """
        if self.finished:
            return []
        self.cancelled = True
        effects = self._end_rest(reason, now)
        return [*effects, JobChanged(job=self.job)]

    def note_told(self) -> list[SchedulerEffect]:
        """Writes, for other replicas, that the end was told: none of them needs to."""
        if not (self.untold and self.finished):
            return []
        self.untold, self.told = False, True
        return [self._persist_job()] if self._replicated else []

    def abandon(self) -> None:
        """Lets go of all leases: another node owns the job now."""
        for node in self.speculation.leases.holders():
            self.speculation.drop(node)
        for lease in list(self.leases.values()):
            self._leases.release(lease)

    # --- what people ask for ------------------------------------------------------------------------------

    def pause(self, paused: bool, now: Instant) -> list[SchedulerEffect]:
        """Grants nothing more and calls back what waits at workers; or goes on. What runs is left alone."""
        if self.finished or paused == self.paused:
            return []
        self.paused = paused
        effects: list[SchedulerEffect] = [self._persist_job(), JobChanged(job=self.job)]
        if not paused:
            return [*effects, *self.dispatch(now)]
        for node in self._leases.holders():
            queued = tuple(one.attempt for one in self._leases.of_node(node) if not one.running)
            # Grants may still wait for the disk, or for a quorum: a recall must not overtake them.
            effects += [
                Send(peer=node, message=one, after=self._last_ticket)
                for one in recalls(self.record, self.epoch, queued)
            ]
        return effects

    def prioritise(self, priority: int) -> list[SchedulerEffect]:
        """Takes another priority."""
        if self.finished or priority == self.priority:
            return []
        self.given_priority = priority
        return [self._persist_job(), JobChanged(job=self.job)]

    def retry(self, tasks: Iterable[TaskIndex], now: Instant) -> list[SchedulerEffect]:
        """Opens the next round of failed tasks, and the job with them where it had ended; always of those
        whose failure ends the rest."""
        wanted = set(tasks)
        chosen = [
            task
            for task, row in self.results.items()
            if row.state == FAILED and (task in wanted or self.graph.spec_of(task).on_failure == FAIL_FAST)
        ]
        if self.cancelled or not wanted or not chosen:
            return []
        nodes = {task: self.results[task].node for task in chosen}
        ended = [
            one for one in map(TaskIndex, range(len(self.states))) if self.states[one] is TaskState.CANCELLED
        ]
        fresh = self.book.reopen(chosen)
        # The failures come last: a takeover that has but the first rows must not see tasks that were
        # cancelled and no failure that did it, or it takes the job for one that a person cancelled.
        nodes = {one: self._me for one in ended if self.states[one] is not TaskState.CANCELLED} | nodes
        if self.finished:
            # A pause ends with the job: who has it run again means it.
            self.finished_at_us, self.paused, self.untold = 0, False, False
            self._workers.clear()
        rows = (put_task(self.job, task, self.book.open_row(task, node)) for task, node in nodes.items())
        effects: list[SchedulerEffect] = [self._persist_job(*rows), *self._stop_skipped()]
        self.backlog.add(fresh, self._last_ticket)
        return [*effects, *self._finish_if_done(now), JobChanged(job=self.job), *self.dispatch(now)]

    # --- time ---------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> list[SchedulerEffect]:
        if self.finished:
            return []
        self.granting.tick(now, self._last_ticket)
        effects = self._expire(now)
        return [*effects, *self.dispatch(now), *self._speculate(now)]

    def next_deadline(self) -> Deadline | None:
        if self.finished:
            return None
        expiry_s = self._leases.next_expiry_s()
        return earliest(
            Deadline(expiry_s, "a lease may have run out") if expiry_s is not None else None,
            self.granting.next_deadline(),
            None if self.backlog or self.paused else self.speculation.next_deadline(self._leases),
        )

    def spare(self, now: Instant) -> None:
        """Forgives all leases for one more: this machine slept, so nobody could renew them."""
        self._leases.spared_until_s = now.mono_s + LEASE_S

    # --- granting -----------------------------------------------------------------------------------------

    def dispatch(
        self, now: Instant, *, only: NodeId | None = None, most: int | None = None
    ) -> list[SchedulerEffect]:
        """Grants what is ready to the workers that have room; for ``only`` and ``most`` see ``grant``."""
        if not self.backlog or self.paused or not self._may_grant(now):
            return []
        if self.in_turn and most is None:
            self.wants_turn = True
            return []
        self.wants_turn = False
        effects, nodes = self.granting.grant(now, self.epoch, self._epoch_ticket, only=only, most=most)
        return [*self._remember(nodes), *effects]

    def refill(self, node: NodeId, now: Instant) -> list[SchedulerEffect]:
        """Grants more where this worker has come to hold little."""
        if self.record.spec.groups:
            # What has ended here may have made room in a group for a task of another node.
            return self.dispatch(now)
        return self.dispatch(now, only=node) if self.backlog and self.granting.is_low(node) else []

    # --- workers' words -----------------------------------------------------------------------------------

    def on_held(self, node: NodeId, held: Held, now: Instant) -> list[SchedulerEffect]:
        """Renews what the worker names; what has no lease is adopted where its task is free, else stopped."""
        stolen = {one.attempt: one for one in held.stolen}
        running = set(held.running)
        useless: list[Attempt] = []
        changed = False
        for attempt in held.open:
            lease = self._lease_of(attempt, node, stolen.get(attempt), now)
            if lease is None:
                useless.append(attempt)
                continue
            lease.renewed_at_s = now.mono_s
            if attempt in running and not lease.running:
                second = lease is self.speculation.of(lease.task)
                (self.speculation.leases if second else self._leases).mark_running(lease, now)
                changed = True
        for attempt in held.offered:
            lease = self._lease_of(attempt, node, stolen.get(attempt), now)
            if lease is not None:
                lease.renewed_at_s = now.mono_s
        effects: list[SchedulerEffect] = [JobChanged(job=self.job)] if changed else []
        if self._leases.of_node(node):
            effects += self._remember([node])
        if useless:
            stop = self._stop(tuple(useless), "another attempt has this task, or it is done")
            effects.append(Send(peer=node, message=stop, after=self._last_ticket))
        return effects

    def on_whole(
        self, node: NodeId, held: Held | None, rebooted: bool, now: Instant
    ) -> list[SchedulerEffect]:
        """Takes back what a worker has not, by its own account: grants lost with a link, or its agent
        restarted.
        """
        named = {*held.open, *held.offered} if held is not None else set()
        self._drop_seconds(node, named)
        gone = [lease for lease in self._leases.of_node(node) if lease.attempt not in named]
        effects = self._lose(gone, "its agent was restarted" if rebooted else "", now, crashed=rebooted)
        self.backlog.heard(node)
        return [*effects, *self.dispatch(now)]

    def on_dead(self, node: NodeId, now: Instant) -> list[SchedulerEffect]:
        """Membership takes the worker for dead: its tasks go elsewhere without waiting for the leases.

        Nothing is lost where that is wrong: attempts overlap, and one result a task is committed.
        """
        self._drop_seconds(node)
        effects = self._lose(self._leases.of_node(node), "its node is taken for dead", now, crashed=True)
        self.backlog.heard(node)
        return [*effects, *self.dispatch(now)]

    def on_revoked(self, node: NodeId, now: Instant) -> list[SchedulerEffect]:
        """The worker was shut out for good: its leases are void at once. It did not crash, so no attempt
        counts against a limit."""
        self._drop_seconds(node)
        effects = self._lose(self._leases.of_node(node), "", now)
        self.backlog.heard(node)
        return [*effects, *self.dispatch(now)]

    def on_lost(self, node: NodeId, message: Lost, now: Instant) -> list[SchedulerEffect]:
        """Grants elsewhere what a worker will not bring to an end, and runs lost inputs again."""
        mine = [
            lease
            for attempt in dict.fromkeys(message.attempts)
            if (lease := self.leases.get(TaskIndex(attempt.task))) is not None
            and lease.node == node
            and lease.attempt == attempt
        ]
        kept = {one.attempt for one in self.speculation.leases.of_node(node)} - {*message.attempts}
        self._drop_seconds(node, kept)
        if message.recalled:
            return [*self._lose(mine, "", now), *self.dispatch(now)]
        if message.declined:
            self.granting.rest(node, now, declined=True)
            return [*self._lose(mine, "", now), *self.dispatch(now)]
        effects: list[SchedulerEffect] = [
            self._note("an attempt could not be run", lease, message.reason) for lease in mine
        ]
        if not message.missing:
            self.granting.rest(node, now, declined=False)
            return [*effects, *self._lose(mine, "", now), *self.dispatch(now)]
        for lease in mine:
            # The one before may have ended the job, or this task.
            if self.leases.get(lease.task) is lease:
                effects += self._on_unstaged(lease, message, now)
        return [*effects, *self.dispatch(now)]

    def on_offer(self, node: NodeId, offer: Offer, now: Instant) -> list[SchedulerEffect]:
        """Commits the first valid result of the round; acknowledges it once it is on disk, and any other
        again.
        """
        task = TaskIndex(offer.attempt.task)
        if not self.book.has(task):
            return [self._ack(node, offer, superseded=True)]
        row = self.results.get(task)
        if self.states[task] in COMMITTED or offer.attempt.round != self.book.round_of(task):
            won = row is not None and any(
                one.number == offer.attempt.number and one.node == node and one.round == offer.attempt.round
                for one in row.tries[-1:]
            )
            return [self._ack(node, offer, superseded=not won)]
        history = self.book.history(task)
        if history.has_ended(offer.attempt, node):
            return [self._ack(node, offer)]
        if (second := self.speculation.of(task)) is not None and second.attempt == offer.attempt:
            self._swap(task)
        lease = self.leases.get(task)
        if not self._was_given(task, node, offer, lease):
            refused = self._note_task("a result was refused: its node had no such attempt", task, node)
            return [refused, self._ack(node, offer, superseded=True)]
        history.number = max(history.number, offer.attempt.number)
        own = lease is not None and lease.attempt == offer.attempt
        history.tries.append(_try_of_offer(node, offer, lease.stolen_from if own and lease else None))
        self.granting.learn_pace(offer)
        self.speculation.learn(offer)
        had_backlog = bool(self.backlog)
        spent = history.failures > self.graph.spec_of(task).retries
        final = offer.succeeded or (spent and not (own and self.speculation.of(task) is not None))
        effects: list[SchedulerEffect] = []
        if lease is not None and (final or own):
            if lease.node != node or not own:
                stop = self._stop((lease.attempt,), "another attempt was first")
                effects.append(Send(peer=lease.node, message=stop))
            self._leases.release(lease)
            self._promote(task)
        if final:
            effects += self._write_result(task, self.book.committed_row(task, node, offer), now)
        else:
            effects.append(self._persist((put_task(self.job, task, self.book.open_row(task, node)),)))
            if self.states[task] is TaskState.LEASED and task not in self.leases:
                self._try_later(task, retry_wait_s(self.graph.spec_of(task), history.failures), now)
            effects.append(JobChanged(job=self.job))
        effects.append(self._ack(node, offer))
        return [*effects, *(self.refill(node, now) if had_backlog else self.dispatch(now))]

    def dismiss(self, node: NodeId, offer: Offer) -> list[SchedulerEffect]:
        """Takes no result from a worker that may not run tasks any more; what it had is granted anew."""
        return [self._ack(node, offer, superseded=True)]

    def refuse(self, node: NodeId) -> list[SchedulerEffect]:
        """Ends what a worker has of an older generation."""
        stop = self._stop((), "the job was adopted by force since")
        return [Send(peer=node, message=stop, after=self._last_ticket)]

    # --- rules --------------------------------------------------------------------------------------------

    def _was_given(self, task: TaskIndex, node: NodeId, offer: Offer, lease: Lease | None) -> bool:
        """Says whether a worker had the attempt whose result it offers, now or before, from this owner or a
        victim."""
        shown = lease is not None and lease.attempt == offer.attempt
        if lease is not None and shown and (lease.node == node or proves(lease.token, offer.seal)):
            return True
        return self._had(task, offer.attempt, node, offer.seal)

    def _had(self, task: TaskIndex, attempt: Attempt, node: NodeId, shown: bytes) -> bool:
        """Says whether a node had an attempt that has no lease any more, or none yet since a restart. What
        this machine's own worker holds is beyond doubt."""
        if attempt.number > NUMBER_MAX:
            return False
        if node == self._me:
            return True
        return self._former.had(task, attempt, node, shown) or self.granting.gave(
            task, attempt, self._me, shown
        )

    def _lease_of(self, attempt: Attempt, node: NodeId, claim: Stolen | None, now: Instant) -> Lease | None:
        """Returns the lease that this worker has on this attempt, after adopting or handing over; None where
        it has none.
        """
        task = TaskIndex(attempt.task)
        if not self.book.has(task):
            return None
        second = self.speculation.of(task)
        if second is not None and second.attempt == attempt:
            if second.node != node and claim is not None and proves(second.token, claim.seal):
                self._former.add(task, attempt, second.node, second.token)
                self.speculation.leases.hand_over(second, node)
            return second if second.node == node else None
        victim, shown = (claim.victim, claim.seal) if claim is not None else (None, b"")
        lease = self.leases.get(task)
        if lease is None:
            if self.states[task] is not TaskState.READY or attempt.round != self.book.round_of(task):
                return None
            if not self._had(task, attempt, node, shown):
                return None
            # Granted before this owner restarted, or its lease had run out.
            history = self.book.history(task)
            history.number = max(history.number, attempt.number)
            lease = self.granting.new_lease(attempt, node, now, self._former.token_of(task, attempt))
            lease.stolen_from = victim
            self.book.move(task, TaskState.LEASED)
            self._leases.add(lease)
        elif (
            lease.attempt == attempt
            and lease.node != node
            and claim is not None
            and (proves(lease.token, shown) or self._had(task, attempt, node, shown))
        ):
            self._former.add(task, attempt, lease.node, lease.token)
            self._leases.hand_over(lease, node)
        return lease if lease.attempt == attempt and lease.node == node else None

    def _on_unstaged(self, lease: Lease, message: Lost, now: Instant) -> list[SchedulerEffect]:
        """Waits for a holder that may come back; opens the next round of tasks whose outputs are lost."""
        task = lease.task
        history = self.book.history(task)
        history.unstaged += 1
        needed = {one for one, _ in self.graph.needs_of(task)}
        absent = [
            TaskIndex(one)
            for one in message.missing
            if one in needed and self.states[one] is TaskState.SUCCEEDED
        ]
        lost = [
            one
            for one in sorted(set(absent))
            if history.unstaged >= UNSTAGED_MAX
            or self._seats.gone_for_s(self.results[one].node, now.mono_s) >= HOLDER_GONE_S
        ]
        self._leases.release(lease)
        if self._promote(task):
            return [JobChanged(job=self.job)]
        if not lost:
            self._try_later(task, min(RETRY_MAX_S, 2.0 ** (history.unstaged - 1)), now)
            return [JobChanged(job=self.job)]
        history.unstaged = 0
        worn = next((one for one in lost if self.book.losses_of(one) >= self._limit_of(one)), None)
        if worn is not None:
            limit = self._limit_of(worn)
            error = f"given up: the outputs of {self.graph.id_of(worn)} were lost {limit} times"
            return self._write_result(task, self.book.given_up_row(task, lease.node, error), now)
        self.book.move(task, TaskState.WAITING)
        fresh = self.book.reopen(lost)
        rows = tuple(put_task(self.job, one, self.book.open_row(one, lease.node)) for one in lost)
        effects: list[SchedulerEffect] = [self._persist(rows), *self._stop_skipped()]
        self.backlog.add(fresh, self._last_ticket)
        for one in lost:
            fields = (
                ("job", self.job),
                ("task", self.graph.id_of(one)),
                ("round", str(self.book.round_of(one))),
            )
            effects.append(Note(level="warning", fact="outputs are lost: the task runs again", fields=fields))
        return [*effects, *self._finish_if_done(now), JobChanged(job=self.job)]

    def _write_result(self, task: TaskIndex, row: TaskRow, now: Instant) -> list[SchedulerEffect]:
        """Commits: book, journal, then what follows from it."""
        effects: list[SchedulerEffect] = []
        self._former.forget(task)
        if (second := self.speculation.take(task) or self._take_first(task)) is not None:
            stop = self._stop((second.attempt,), "another attempt was first")
            effects.append(Send(peer=second.node, message=stop))
        for skipped in self.book.commit(task, row):
            effects += self._stop_attempts(skipped)
        effects.append(self._persist((put_task(self.job, task, row),)))
        if self.book.failed_fast:
            return [*effects, *self._end_rest("another task has failed", now), JobChanged(job=self.job)]
        self.backlog.add(self.book.take_ready(), self._last_ticket)
        return [*effects, *self._finish_if_done(now), JobChanged(job=self.job)]

    def _stop_skipped(self) -> list[SchedulerEffect]:
        """Stops what was skipped because tasks were opened again: a need that ended otherwise than before."""
        skipped = [task for task in self.leases if self.states[task] is TaskState.SKIPPED]
        return [effect for task in skipped for effect in self._stop_attempts(task)]

    def _stop_attempts(self, task: TaskIndex) -> list[SchedulerEffect]:
        effects: list[SchedulerEffect] = []
        for lease in (self.speculation.take(task), self._take_first(task)):
            if lease is not None:
                stop = self._stop((lease.attempt,), "what it needs has failed")
                effects.append(Send(peer=lease.node, message=stop))
        return effects

    def _end_rest(self, reason: str, now: Instant) -> list[SchedulerEffect]:
        """Ends every open task as cancelled, and what runs of it."""
        holders = list(dict.fromkeys((*self._leases.holders(), *self.speculation.leases.holders())))
        for node in holders:
            self.speculation.drop(node)
        for lease in list(self.leases.values()):
            self._leases.release(lease)
        effects: list[SchedulerEffect] = []
        if self._replicated:
            rows = [(task, self.book.cancelled_row(task, self._me)) for task in self.book.open_tasks()]
            effects.append(self._persist(tuple(put_task(self.job, task, row) for task, row in rows)))
        self.book.cancel_open()
        effects += self._finish_if_done(now)
        stop, after = self._stop((), reason), self._last_ticket
        return [*effects, *(Send(peer=node, message=stop, after=after) for node in holders)]

    def _lose(
        self, leases: list[Lease], reason: str, now: Instant, *, crashed: bool = False
    ) -> list[SchedulerEffect]:
        """Takes leases of one worker back. Those that may have been running when it crashed count against the
        limit.

        A worker starts what it was given first, first: beyond those known to run, the oldest that its slots
        could hold are suspects (a task that kills its agent at once is never reported as running).
        """
        # A loss in the same tick may have ended the job, and all its leases, before.
        leases = [one for one in leases if self.leases.get(one.task) is one]
        if not leases:
            return []
        seat = self._seats.of(leases[0].node)
        suspects = {id(one) for one in leases[: max(1, seat.slots)]}
        effects: list[SchedulerEffect] = []
        changes: list[Change] = []
        given_up: list[tuple[TaskIndex, TaskRow]] = []
        returned: list[TaskIndex] = []
        for lease in leases:
            task = lease.task
            history = self.book.history(task)
            self._former.add(task, lease.attempt, lease.node, lease.token)
            self._leases.release(lease)
            if not crashed or not (lease.running or id(lease) in suspects):
                returned.append(task)
                continue
            finished_us = int(now.unix_s * 1e6)
            history.tries.append(self._try_of(lease, LOST, finished_us=finished_us, error=reason))
            effects.append(self._note("an attempt was lost with its worker", lease, reason))
            if history.losses >= self._limit_of(task):
                lost = f"{history.losses} worker{'s were' if history.losses > 1 else ' was'} lost"
                error = f"given up: {lost} while they had it, its crash_limit (last: {reason})"
                given_up.append((task, self.book.given_up_row(task, lease.node, error)))
            else:
                returned.append(task)
                changes.append(put_task(self.job, task, self.book.open_row(task, lease.node)))
        if changes:
            effects.append(self._persist(tuple(changes)))
        for task, row in given_up:
            if self.states[task] not in COMMITTED:
                effects += self._write_result(task, row, now)
        self._back(returned)
        return [*effects, JobChanged(job=self.job)]

    def _limit_of(self, task: TaskIndex) -> int:
        """Returns how many lost workers, or lost outputs, a task is worth."""
        return self.graph.spec_of(task).crash_limit or self._crash_limit

    def _expire(self, now: Instant) -> list[SchedulerEffect]:
        """Takes back leases that ran out; a worker that still speaks has merely lost them, a silent one has
        crashed.
        """
        effects: list[SchedulerEffect] = []
        for second in self.speculation.expire(now.mono_s):
            self._former.add(second.task, second.attempt, second.node, second.token)
        for leases in self._leases.expired(now.mono_s):
            seat = self._seats.of(leases[0].node)
            silent = seat.heard_at_s + LEASE_S <= now.mono_s
            seat.silent = seat.silent or (silent and seat.node != self._me)
            effects += self._lose(leases, "its worker was silent for a whole lease", now, crashed=silent)
        return effects

    def _back(self, tasks: list[TaskIndex]) -> None:
        """Puts tasks that lost their leases first in line, or lets them wait for a need that was opened
        again.
        """
        for task in reversed(tasks):
            if self.states[task] is not TaskState.LEASED or self._promote(task):
                continue
            if self.book.may_run(task):
                self.book.move(task, TaskState.READY)
                self.backlog.add_first(task, self._last_ticket)
            else:
                self.book.move(task, TaskState.WAITING)

    # --- second attempts ----------------------------------------------------------------------------------

    def _speculate(self, now: Instant) -> list[SchedulerEffect]:
        """Grants a second attempt beside those that take too long, where nothing else waits."""
        effects: list[SchedulerEffect] = []
        idle = not self.backlog and not self.paused and self._may_grant(now)
        for lease in self.speculation.slow(self._leases, now, idle=idle):
            found = self.granting.second(lease, self.epoch, self._epoch_ticket, now)
            if found is None:
                break
            second, sent = found
            self.speculation.leases.add(second)
            effects += [*self._remember([second.node]), *sent, JobChanged(job=self.job)]
        return effects

    def _drop_seconds(self, node: NodeId, but: Collection[Attempt] = ()) -> None:
        """Takes second attempts back from a worker; a result that it brings still counts."""
        for lease in self.speculation.drop(node, but):
            self._former.add(lease.task, lease.attempt, lease.node, lease.token)

    def _promote(self, task: TaskIndex) -> bool:
        """Puts the second attempt of a task, if there is one, in the place of the first that is gone."""
        second = self.speculation.take(task)
        if second is not None:
            self._leases.add(second)
        return second is not None

    def _swap(self, task: TaskIndex) -> None:
        """Lets the second attempt be the first, and the other way round."""
        second, first = self.speculation.take(task), self._take_first(task)
        if second is not None and first is not None:
            self._leases.add(second)
            self.speculation.leases.add(first)

    def _take_first(self, task: TaskIndex) -> Lease | None:
        lease = self.leases.get(task)
        if lease is not None:
            self._leases.release(lease)
        return lease

    def _try_later(self, task: TaskIndex, wait_s: float, now: Instant) -> None:
        if not self.book.may_run(task):
            self.book.move(task, TaskState.WAITING)
            return
        self.book.move(task, TaskState.READY)
        self.backlog.add_later(task, now.mono_s + wait_s)

    def _finish_if_done(self, now: Instant) -> list[SchedulerEffect]:
        if self.finished or not self.book.all_committed:
            return []
        self.finished_at_us = int(now.unix_s * 1e6)
        self.untold = not self.told and bool(self.record.spec.on_complete or self.record.spec.on_failure)
        forgotten = tuple(delete_seat(self.job, node) for node in sorted(self._workers))
        self.backlog.clear()
        return [self._persist_job(*forgotten)]

    def _remember(self, nodes: list[NodeId]) -> list[SchedulerEffect]:
        """Notes in the journal who may hold attempts. No grant waits for it: at worst a task runs twice."""
        fresh = [node for node in nodes if node not in self._workers and node != self._me]
        if not fresh:
            return []
        self._workers.update(fresh)
        changes = tuple(put_seat(self.job, node) for node in fresh)
        return [Persist(ticket=self._tickets.take(), changes=changes)]

    @property
    def workers(self) -> frozenset[NodeId]:
        """Those that the journal knows to have been given attempts."""
        return frozenset(self._workers)

    def row(self) -> JobRow:
        """Returns the job's own row as of now."""
        return JobRow(
            signed=self.signed,
            epoch=self.epoch,
            accepted_at_us=self.accepted_at_us,
            cancelled=self.cancelled,
            finished_at_us=self.finished_at_us,
            paused=self.paused,
            priority=self.given_priority,
            untold=self.untold and self._replicated,
            told=self.told,
        )

    def _persist_job(self, *more: Change) -> Persist:
        persist = self._persist((put_job(self.job, self.row()), *more))
        self._epoch_ticket = persist.ticket
        return persist

    def _persist(self, changes: tuple[Change, ...]) -> Persist:
        self._last_ticket = self._tickets.take()
        return Persist(ticket=self._last_ticket, changes=changes)

    def _ack(self, node: NodeId, offer: Offer, *, superseded: bool = False) -> Send:
        ack = Ack(
            job=self.job,
            generation=self.record.generation,
            epoch=self.epoch,
            attempt=offer.attempt,
            superseded=superseded,
        )
        return Send(peer=node, message=ack, after=self._last_ticket)

    def _stop(self, attempts: tuple[Attempt, ...], reason: str) -> Stop:
        return Stop(
            job=self.job,
            generation=self.record.generation,
            epoch=self.epoch,
            attempts=attempts,
            reason=reason,
        )

    def _try_of(self, lease: Lease, state: str, *, finished_us: int = 0, error: str = "") -> Try:
        return Try(
            number=lease.attempt.number,
            round=lease.attempt.round,
            node=lease.node,
            state=state,
            started_us=lease.started_us,
            finished_us=finished_us,
            stolen_from=lease.stolen_from,
            error=error,
        )

    def _note(self, fact: str, lease: Lease, reason: str) -> Note:
        return self._note_task(fact, lease.task, lease.node, ("reason", reason))

    def _note_task(self, fact: str, task: TaskIndex, node: NodeId, *more: tuple[str, str]) -> Note:
        fields = (("job", self.job), ("task", self.graph.id_of(task)), ("node", key_text(node)[:10]), *more)
        return Note(level="warning", fact=fact, fields=fields)

    def check(self) -> None:
        """Raises ``InvariantBroken`` where book, leases and counts disagree."""
        self.book.check()
        leased = {TaskIndex(task) for task, state in enumerate(self.states) if state is TaskState.LEASED}
        if leased != self.leases.keys():
            raise InvariantBroken(f"{self.job}: leased {sorted(leased)}, but leases on {sorted(self.leases)}")
        self._leases.check()
        self.speculation.check(self._leases)
        if self.finished and (self.leases or not self.book.all_committed):
            raise InvariantBroken(f"{self.job}: finished with open tasks or leases")
        if not self.finished and not self.leases and not self.book.all_committed:
            waiting = self.backlog.tasks()
            ready = {TaskIndex(task) for task, state in enumerate(self.states) if state is TaskState.READY}
            if not ready or not ready <= waiting:
                raise InvariantBroken(
                    f"{self.job}: stuck with ready {sorted(ready)} and queued {sorted(waiting)}"
                )


def _try_of_offer(node: NodeId, offer: Offer, stolen_from: NodeId | None) -> Try:
    return Try(
        number=offer.attempt.number,
        round=offer.attempt.round,
        node=node,
        state="succeeded" if offer.succeeded else "failed",
        exit_code=offer.exit_code,
        started_us=offer.started_us,
        finished_us=offer.finished_us,
        stolen_from=stolen_from,
        error=offer.error,
    )

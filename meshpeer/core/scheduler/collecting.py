"""Jobs that are over long enough: what the journal has of them goes, and a word that they were here stays.

A job goes ``Terms.history_s`` after its end, and not before its results may. It stays as long as anything of
it is open on this node: a result that its owner has not acknowledged, an attempt, an end that is still to be
told, a row that a quorum does not have. Each replica forgets it for itself, by its own clock.

What stays is a ``GoneRow``: it tells whoever comes late that the job has ended, workers with a result and,
above all, a replica that was away since before the end. Without it that one would find two nodes that know
nothing of the job, make them replicas of it again, and run it anew. It is kept for longer than a certificate
lasts: whoever is away longer has to join as a new node.

The first write deletes the job's own row and adds that word. The rows of its tasks and registers go after it,
some at a time; what a crash leaves of them is deleted at the next start.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Change, Delete, Note, Persist, Put, Table, TicketCounter
from meshpeer.core.ids import JobId
from meshpeer.core.jobs.model import JobSpec
from meshpeer.core.scheduler.messages import JobForgotten, SchedulerEffect
from meshpeer.core.scheduler.outbox import Outbox
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.replica_rows import Journalled, keys_of
from meshpeer.core.scheduler.replicas import Replicas
from meshpeer.core.scheduler.rows import ROW_BYTES_MAX
from meshpeer.core.scheduler.worker import JobWorker
from meshpeer.core.wire import cbor

DAY_S = 86_400.0
LOOK_S = 600.0
"""How often jobs are looked at that are over."""
LOOK_FIRST_S = 20.0
"""After a start: a machine may never be on for long."""
SLICE_ROWS = 2_000
SLICE_PAUSE_S = 0.05
"""Rows of tasks are deleted so many at a time, so that no write waits for long behind them."""
GONE_KEPT_S = 400 * DAY_S
"""Longer than the year that a certificate lasts."""
GONE_MAX = 65_536
"""Of more jobs the word of those that ended first goes."""
_GONE = "gone/"


class GoneRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has ended and was forgotten."""

    job: JobId
    finished_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long things of a job stay after its end, by this node's settings."""

    history_s: float = 30 * DAY_S
    """The job itself, and what became of its tasks."""
    results_s: float = 7 * DAY_S
    """What it made, where the job does not say how long."""
    keep_s_max: float = 365 * DAY_S
    """What a job may ask for at most."""

    def keep_s(self, asked_s: int) -> float:
        """Returns how long results of a job stay that says so much, or 0 for nothing."""
        return min(float(asked_s), self.keep_s_max) if asked_s else self.results_s

    def ends_at_s(self, spec: JobSpec, finished_at_us: int) -> float:
        """Returns when a job may be forgotten, in Unix seconds."""
        return finished_at_us / 1e6 + max(self.history_s, self.keep_s(spec.keep_s))


class Collector:
    """What this node forgets, and has forgotten. Sans-IO; ``machine.Scheduler`` calls it."""

    def __init__(
        self,
        *,
        terms: Terms,
        tickets: TicketCounter,
        owned: dict[JobId, JobOwner],
        replicas: Replicas,
        worker: JobWorker,
        outbox: Outbox,
    ) -> None:
        """Jobs go from ``owned``, ``replicas`` and ``outbox`` when they are forgotten."""
        self.terms = terms
        self.gone: dict[JobId, GoneRow] = {}
        """By the time of their ends, the first that ended first, as far as that was their order here."""
        self._tickets = tickets
        self._owned = owned
        self._replicas = replicas
        self._worker = worker
        self._outbox = outbox
        self._look_at_s: float | None = None
        self._rest: collections.deque[Delete] = collections.deque()

    # --- start --------------------------------------------------------------------------------------------

    def restore(
        self,
        grants: Iterable[tuple[str, bytes]],
        tasks: Mapping[JobId, Iterable[int]],
        copies: Mapping[JobId, Journalled],
        now: Instant,
    ) -> list[SchedulerEffect]:
        """Takes up what was forgotten; deletes what a crash left of that."""
        rows = [
            cbor.decode(value, GoneRow, bytes_max=ROW_BYTES_MAX)
            for key, value in grants
            if key.startswith(_GONE)
        ]
        self.gone = {row.job: row for row in sorted(rows, key=lambda one: (one.finished_at_us, one.job))}
        for job in self.gone:
            self._rest += [_task_row(job, task) for task in tasks.get(job, ())]
            if job in copies:
                self._rest += _replica_rows(job, copies[job])
        effects = self._delete_some(now)
        if not self._rest:
            self.begin(now)
        return effects

    def begin(self, now: Instant) -> None:
        """Looks for the first time soon after the start."""
        self._look_at_s = now.mono_s + LOOK_FIRST_S

    # --- time ---------------------------------------------------------------------------------------------

    def next_deadline(self) -> Deadline | None:
        if self._look_at_s is None or not (self._rest or self._owned or self._replicas.copies or self.gone):
            return None
        return Deadline(self._look_at_s, "forget jobs that are long over")

    def tick(self, now: Instant) -> list[SchedulerEffect]:
        """Forgets what is due."""
        if self._look_at_s is None or now.mono_s < self._look_at_s:
            return []
        if self._rest:
            return self._delete_some(now)
        self._look_at_s = now.mono_s + LOOK_S
        effects = [effect for job, ended in self._due(now) for effect in self.forget(job, ended, now)]
        old = [
            row
            for place, row in enumerate(self.gone.values())
            if place < len(self.gone) - GONE_MAX or row.finished_at_us / 1e6 + GONE_KEPT_S < now.unix_s
        ][:SLICE_ROWS]
        if old:
            for row in old:
                del self.gone[row.job]
            gone = tuple(Delete(table=Table.GRANTS, key=_GONE + row.job) for row in old)
            effects.append(Persist(ticket=self._tickets.take(), changes=gone))
        return effects

    def _due(self, now: Instant) -> list[tuple[JobId, int]]:
        """Returns the jobs that may be forgotten, and when they ended."""
        ends = {
            job: (owner.record.spec, owner.finished_at_us)
            for job, owner in self._owned.items()
            if owner.finished
        } | {
            job: (copy.record.spec, copy.ended_at_us)
            for job, copy in self._replicas.copies.items()
            if copy.over
        }
        return [
            (job, ended)
            for job, (spec, ended) in ends.items()
            if self.terms.ends_at_s(spec, ended) <= now.unix_s and self._is_idle(job)
        ]

    def _is_idle(self, job: JobId) -> bool:
        """Says whether nothing of an ended job is under way here."""
        return not (
            self._worker.has_any_of(job) or self._outbox.is_waiting(job) or not self._replicas.is_idle(job)
        )

    # --- rules --------------------------------------------------------------------------------------------

    def forget(self, job: JobId, finished_at_us: int, now: Instant) -> list[SchedulerEffect]:
        """Forgets a job that has ended, be it by the word of those who had forgotten it before."""
        owner = self._owned.pop(job, None)
        copy = self._replicas.forget(job)
        events = self._outbox.forget(job)
        row = self.gone[job] = GoneRow(job=job, finished_at_us=finished_at_us)
        if owner is not None and copy is None:
            self._rest += (_task_row(job, task) for task in owner.book.noted_tasks())
        if copy is not None:
            held = Journalled(copy.acceptor.vote, list(copy.acceptor.rows.values()))
            self._rest += _replica_rows(job, held)
        if self._rest:
            self._look_at_s = now.mono_s + SLICE_PAUSE_S
        changes: tuple[Change, ...] = (
            Put(table=Table.GRANTS, key=_GONE + job, value=cbor.encode(row)),
            Delete(table=Table.JOBS, key=job),
            *(Delete(table=Table.GRANTS, key=key) for key in events),
        )
        persist = Persist(ticket=self._tickets.take(), changes=changes)
        note = Note(level="info", fact="a job that is long over is forgotten", fields=(("job", job),))
        return [persist, note, JobForgotten(job=job, after=persist.ticket)]

    def _delete_some(self, now: Instant) -> list[SchedulerEffect]:
        some: Sequence[Delete] = [self._rest.popleft() for _ in range(min(SLICE_ROWS, len(self._rest)))]
        self._look_at_s = now.mono_s + (SLICE_PAUSE_S if self._rest else LOOK_S)
        return [Persist(ticket=self._tickets.take(), changes=tuple(some))] if some else []


def _task_row(job: JobId, task: int) -> Delete:
    return Delete(table=Table.TASKS, key=f"{job}/{task:06d}")


def _replica_rows(job: JobId, held: Journalled) -> Iterator[Delete]:
    return (Delete(table=Table.REPLICAS, key=key) for key in keys_of(job, held))

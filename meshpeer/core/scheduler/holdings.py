"""What a worker has, what it knows of the jobs behind it, and how it tells their owners.

A word about a job is believed by its fence, the pair (generation, epoch): never one that is lower than a pair
heard before, and none from a node that the job's record does not name as submitter or replica. Where another
record is shown with the word, signed by the same submitter, that one is fetched and says who may own the job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshpeer.core.effects import Send
from meshpeer.core.ids import JobId, NodeId, TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.fitting import PLAIN, Demand, Demands
from meshpeer.core.scheduler.messages import (
    RENEW_BYTES_MAX,
    Attempt,
    Blob,
    Epoch,
    Granted,
    Held,
    Renew,
    SchedulerEffect,
    Stolen,
)
from meshpeer.core.scheduler.offers import Key, Offering
from meshpeer.core.scheduler.ranked import Rank
from meshpeer.core.scheduler.rows import WebhookRow
from meshpeer.core.scheduler.tables import AttemptState, WebhookState, check_attempt_move

_JOB_BYTES, _ATTEMPT_BYTES, _STOLEN_BYTES = 96, 22, 144
"""What a renewal takes per job, per attempt (named once more where it runs), per attempt that was stolen."""


@dataclass(slots=True)
class Holding:
    """One attempt that this worker has."""

    job: JobId
    owner: NodeId
    granted: Granted
    demand: Demand = PLAIN
    """What it takes; not known before its job's record is."""
    state: AttemptState = AttemptState.GRANTED
    stolen_from: NodeId | None = None
    given: bool = False
    """Handed to a thief that has not confirmed: not in the deque any more."""
    inherited: bool = False
    """An owner granted it that owns the job no more: its seal would tell a thief nothing."""
    told: bool = False
    """The owner knows that it runs."""
    submitter: NodeId | None = None
    """Whose share it is started from; not known before its job's record is."""
    charged: float = 0.0
    """What that share was charged for it."""
    overtaken: int = 0
    """How often others were started before it because they fitted and it did not."""
    since_s: float = 0.0
    """When it came into the line (monotonic)."""

    @property
    def key(self) -> Key:
        return (self.job, self.granted.attempt)

    def move(self, after: AttemptState) -> None:
        check_attempt_move(f"{self.job} {self.granted.attempt}", self.state, after)
        self.state = after


@dataclass(slots=True)
class Known:
    """A job whose attempts this worker has had."""

    generation: int
    epoch: Epoch
    blob: Blob | None
    """The signed record; None for what is only known from stored results."""
    record: JobRecord | None = None
    graph: Graph | None = None
    demands: Demands | None = None
    sought: Blob | None = None
    """The record that is being fetched."""
    claim: tuple[int, Epoch] | None = None
    """Who says that he owns the job by that record, and by the one that is known does not: his fence."""
    held: int = 0
    owners: tuple[NodeId, ...] = ()
    """Who may own the job, where the record is not known: a stored result names them."""

    @property
    def fence(self) -> tuple[int, Epoch]:
        return (self.generation, self.epoch)

    @property
    def is_blank(self) -> bool:
        """Whether nothing is known but the fence, and nothing held."""
        return not (self.held or self.owners or self.record or self.blob or self.sought)

    @property
    def possible_owners(self) -> tuple[NodeId, ...]:
        """Who may own the job, as far as that is known. Where its record is not, nobody but who spoke first
        can be told from a usurper."""
        return owners_of(self.record) if self.record else self.owners or (self.epoch.node,)

    def believes(self, generation: int, epoch: Epoch) -> bool:
        """Tells whether a word with this fence counts: not outdated, and from who may own the job, whatever
        generation it speaks of."""
        if (generation, epoch) < self.fence:
            return False
        return epoch.node in self.possible_owners

    def learn(self, job: JobId, record: JobRecord) -> bool:
        """Takes the record up; refuses one of another job or generation, or that does not name the owner. In
        place of another one it may differ in its replicas alone."""
        if (
            record.job != job
            or record.generation != self.generation
            or self.epoch.node not in owners_of(record)
            or (self.claim is not None and self.claim[1].node not in owners_of(record))
        ):
            return False
        if self.record is not None:
            if (record.submitter, record.spec) != (self.record.submitter, self.record.spec):
                return False
            self.record = record
            return True
        self.record, self.graph = record, Graph.of(record.spec)
        self.demands = Demands(self.graph)
        return True

    def forget_record(self) -> None:
        """Forgets what an older generation's record said."""
        self.blob, self.record, self.graph, self.demands = None, None, None, None
        self.sought, self.claim = None, None

    def demand_of(self, attempt: Attempt) -> Demand | None:
        """Returns what an attempt takes; None for one that the job does not have."""
        if self.graph is None or self.demands is None or not 0 <= attempt.task < len(self.graph):
            return None
        return self.demands.of(TaskIndex(attempt.task))

    def rank_of(self, attempt: Attempt) -> Rank:
        """Returns what comes first among the attempts of one submitter."""
        if self.record is None or self.graph is None:
            return (0, 0)
        return (self.record.spec.priority, self.graph.spec_of(TaskIndex(attempt.task)).priority)


def renewals(
    boot: bytes,
    owner: NodeId,
    mine: Iterable[Holding],
    offered: Iterable[Offering],
    jobs: Mapping[JobId, Known],
    *,
    whole: bool = False,
    of: JobId | None = None,
) -> list[SchedulerEffect]:
    """Says what a worker has of an owner's jobs, or of one; what takes more than one frame is not the
    whole."""
    frames: list[dict[JobId, list[Holding | Offering]]] = [{}]
    size = 0
    everything: list[Holding | Offering] = [*mine, *offered]
    for one in everything:
        job = one.job if isinstance(one, Holding) else one.row.offer.job
        cost = (0 if job in frames[-1] else _JOB_BYTES) + (
            _STOLEN_BYTES if _is_stolen(one) else _ATTEMPT_BYTES
        )
        if size + cost > RENEW_BYTES_MAX:
            frames.append({})
            size, cost = 0, cost + _JOB_BYTES
        frames[-1].setdefault(job, []).append(one)
        size += cost
    effects: list[SchedulerEffect] = []
    for part in frames:
        held = tuple(held_of(job, jobs[job], ones) for job, ones in part.items())
        renew = Renew(jobs=held, boot=boot, whole=whole and len(frames) == 1, of=of)
        effects.append(Send(peer=owner, message=renew))
    return effects


def webhook_row(holding: Holding, known: Known, started_us: int) -> WebhookRow:
    """Returns a row for an attempt that is about to be sent to a service."""
    assert known.blob is not None
    return WebhookRow(
        job=holding.job,
        generation=known.generation,
        epoch=known.epoch,
        record=known.blob,
        owner=holding.owner,
        granted=holding.granted,
        cpu=holding.demand.cpu,
        amounts=holding.demand.amounts,
        state=WebhookState.DISPATCHED,
        started_us=started_us,
        stolen_from=holding.stolen_from,
    )


def held_of(job: JobId, known: Known, part: Sequence[Holding | Offering]) -> Held:
    """Returns what a worker has of one job, as it tells its owner."""
    mine = [one for one in part if isinstance(one, Holding)]
    for one in mine:
        one.told = one.told or one.state is AttemptState.RUNNING
    return Held(
        job=job,
        generation=known.generation,
        epoch=known.epoch,
        open=tuple(one.granted.attempt for one in mine),
        running=tuple(one.granted.attempt for one in mine if one.state is AttemptState.RUNNING),
        offered=tuple(one.row.offer.attempt for one in part if isinstance(one, Offering)),
        stolen=tuple(
            Stolen(one.granted.attempt, one.stolen_from, one.granted.seal) for one in mine if one.stolen_from
        ),
    )


def _is_stolen(one: Holding | Offering) -> bool:
    return isinstance(one, Holding) and one.stolen_from is not None


def owners_of(record: JobRecord) -> tuple[NodeId, ...]:
    """Returns who may own a job."""
    return (record.submitter, *record.replicas)

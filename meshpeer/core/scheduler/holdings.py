"""What a worker has, what it knows of the jobs behind it, and how it tells their owners.

A word about a job is believed by its fence, the pair (generation, epoch): never one that is lower than a pair
heard before, and none from a node that the job's record does not name as submitter or replica.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshpeer.core.effects import Send
from meshpeer.core.ids import JobId, NodeId, TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.messages import (
    RENEW_ATTEMPTS_MAX,
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
from meshpeer.core.scheduler.tables import AttemptState, check_attempt_move


@dataclass(slots=True)
class Holding:
    """One attempt that this worker has."""

    job: JobId
    owner: NodeId
    granted: Granted
    cpu: int = 1
    state: AttemptState = AttemptState.GRANTED
    stolen_from: NodeId | None = None
    given: bool = False
    """Handed to a thief that has not confirmed: not in the deque any more."""
    told: bool = False
    """The owner knows that it runs."""

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
    asked: bool = False
    refused: str = ""
    held: int = 0

    @property
    def fence(self) -> tuple[int, Epoch]:
        return (self.generation, self.epoch)

    def believes(self, generation: int, epoch: Epoch) -> bool:
        """Tells whether a word with this fence counts: not outdated, and from who may own the job."""
        if (generation, epoch) < self.fence:
            return False
        return generation > self.generation or self.record is None or epoch.node in _owners(self.record)

    def learn(self, job: JobId, record: JobRecord) -> bool:
        """Takes the record up; refuses one of another job or generation, or that does not name the owner."""
        if (
            record.job != job
            or record.generation != self.generation
            or self.epoch.node not in _owners(record)
        ):
            return False
        self.record, self.graph = record, Graph.of(record.spec)
        return True

    def forget_record(self) -> None:
        """Forgets what an older generation's record said."""
        self.blob, self.record, self.graph, self.asked, self.refused = None, None, None, False, ""

    def cpu_of(self, attempt: Attempt) -> int | None:
        """Returns how many slots an attempt takes; None for one that the job does not have."""
        if self.graph is None or not 0 <= attempt.task < len(self.graph):
            return None
        return self.graph.spec_of(TaskIndex(attempt.task)).cpu


def renewals(
    boot: bytes,
    owner: NodeId,
    mine: Iterable[Holding],
    offered: Iterable[Offering],
    jobs: Mapping[JobId, Known],
    *,
    whole: bool = False,
) -> list[SchedulerEffect]:
    """Says what a worker has of an owner's jobs; what takes more than one frame is not the whole."""
    everything: list[Holding | Offering] = [*mine, *offered]
    rest = iter(everything)
    frames: list[list[Holding | Offering]] = []
    while chunk := list(itertools.islice(rest, RENEW_ATTEMPTS_MAX)):
        frames.append(chunk)
    if not frames:
        frames.append([])
    effects: list[SchedulerEffect] = []
    for chunk in frames:
        held = tuple(_held(job, jobs[job], part) for job, part in _by_job(chunk).items())
        renew = Renew(jobs=held, boot=boot, whole=whole and len(frames) == 1)
        effects.append(Send(peer=owner, message=renew))
    return effects


def _held(job: JobId, known: Known, part: list[Holding | Offering]) -> Held:
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
        stolen=tuple(Stolen(one.granted.attempt, one.stolen_from) for one in mine if one.stolen_from),
    )


def _by_job(chunk: list[Holding | Offering]) -> dict[JobId, list[Holding | Offering]]:
    jobs: dict[JobId, list[Holding | Offering]] = {}
    for one in chunk:
        jobs.setdefault(one.job if isinstance(one, Holding) else one.row.offer.job, []).append(one)
    return jobs


def _owners(record: JobRecord) -> tuple[NodeId, ...]:
    return (record.submitter, *record.replicas)

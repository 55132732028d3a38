"""What is kept of deadlines is what working them out anew would give, whatever happened."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import pytest

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import LagMeasured
from meshpeer.core.ids import Digest, JobId
from meshpeer.core.jobs.model import Array, JobRecord, JobSpec, TaskSpec
from meshpeer.core.node.dues import FRESH_S, Dues
from meshpeer.core.node.messages import RenameAsked
from meshpeer.core.scheduler.book import NOTHING
from meshpeer.core.scheduler.messages import (
    AttemptFinished,
    AttemptRunning,
    CancelAsked,
    FetchJob,
    JobLearned,
    JobSubmitted,
    Offer,
    StartAttempt,
)
from meshpeer.core.wire import cbor
from meshpeer.sim.host import Host
from meshpeer.sim.world import World


def test_kept_deadline_is_the_one_worked_out_after_every_event() -> None:
    world = World(8)
    watched = Watched(world)
    alpha = world.found("alpha")
    world.run(0.5)
    beta = world.join("beta", alpha)
    world.join("gamma", alpha)
    world.run(1)
    first = watched.submit(alpha, 20)
    world.run(1)
    world.post(beta, RenameAsked(name="bravo"))
    world.post(alpha, LagMeasured(lag_s=0.5))
    second = watched.submit(beta, 20)
    world.run(0.3)
    world.crash(world.hosts["gamma"])
    world.post(beta, CancelAsked(job=second))
    world.run(4)
    assert alpha.node is not None
    assert alpha.node.scheduler.owned[first].finished
    assert watched.kept > 100


def test_deadline_is_worked_out_anew_when_a_machine_changed_or_the_answer_is_old() -> None:
    answers = iter(Deadline(float(number), "") for number in range(5))
    dues = Dues(lambda: next(answers))
    at = [dues.earliest(Instant(now_s, 0.0)) for now_s in (5.0, 5.5, 5.0 + FRESH_S, 4.0)]
    dues.forget()
    at.append(dues.earliest(Instant(4.0, 0.0)))
    assert [one and one.at_s for one in at] == [0.0, 0.0, 1.0, 2.0, 3.0]


class Watched:
    """Runs tasks of a simulated mesh, and compares deadlines after every event."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kept = 0
        """How often an answer was kept."""
        self._records: dict[JobId, JobRecord] = {}
        self._dice = random.Random(5)
        world.watchers.append(self._look)

    def submit(self, host: Host, tasks: int) -> JobId:
        task = TaskSpec(name="t", argv=("true",), array=Array(size=tasks), retries=2)
        record = JobRecord(
            job=JobId(f"j{len(self._records):019d}"),
            submitter=host.id,
            submitted_at_us=1,
            spec=JobSpec(name="job", tasks=(task,)),
            generation=1,
        )
        self._records[record.job] = record
        signed = cbor.encode(record)
        digest = Digest(hashlib.sha256(signed).digest())
        self.world.post(host, JobSubmitted(record=record, signed=signed, digest=digest))
        return record.job

    def _look(self, host: Host, event: object, effects: Sequence[object]) -> None:
        node = host.node
        assert node is not None
        for effect in effects:
            self._do(host, effect)
        self.kept += node._dues._known
        kept, anew = node.next_deadline(), earliest(node._next_of_others(), node.scheduler.next_deadline())
        assert kept is not None
        assert anew is not None
        assert kept.reason == anew.reason, event
        assert kept.at_s == pytest.approx(anew.at_s, abs=1e-4), event

    def _do(self, host: Host, effect: object) -> None:
        match effect:
            case FetchJob(job=job):
                self._post_in(host, 0.01, JobLearned(job=job, record=self._records[job]))
            case StartAttempt(job=job, granted=granted):
                lasts_s = 0.4 * self._dice.random()
                offer = Offer(
                    job=job,
                    attempt=granted.attempt,
                    succeeded=self._dice.random() < 0.9,
                    exit_code=0,
                    error="",
                    started_us=1,
                    finished_us=2,
                    stdout=NOTHING,
                    stderr=NOTHING,
                    manifest=NOTHING,
                    outputs=0,
                )
                self._post_in(host, lasts_s / 2, AttemptRunning(job=job, attempt=granted.attempt))
                self._post_in(host, lasts_s, AttemptFinished(offer=offer))

    def _post_in(self, host: Host, seconds: float, event: object) -> None:
        self.world.heap.after(seconds, self.world._post_in, host, host.life, event)

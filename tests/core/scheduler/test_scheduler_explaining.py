"""Why a task is where it is: a table of situations and their words."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from fixtures import ALICE, BOB, JOB, ME, NOW, capacity, hear, later, record, result, scheduler, submitted

from meshpeer.core.ids import JobId, NodeId, TaskIndex
from meshpeer.core.jobs.model import Array, JobRecord, JobSpec, Need, TaskSpec
from meshpeer.core.scheduler.control_messages import DrainAsked, PauseAsked
from meshpeer.core.scheduler.explaining import Explainer, listed
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import Attempt, CancelAsked, Epoch, Held, Lost, PeerDown, Renew

NAMES = {ME: "alpha", ALICE: "beta", BOB: "gamma"}
EPOCH = Epoch(1, ME)
OTHER = JobId("jbbbbbbbbbbbbbbbbbbb")


def film(*, retries: int = 0, cpu: int = 1) -> JobSpec:
    """split -> render[0..3] -> check[i], film."""
    return JobSpec(
        name="film",
        tasks=(
            TaskSpec(name="split", argv=("x",), retries=retries, cpu=cpu),
            TaskSpec(name="render", argv=("x",), array=Array(size=4), needs=(Need(task="split"),)),
            TaskSpec(
                name="check",
                argv=("x",),
                array=Array(size=4),
                needs=(Need(task="render", same_index=True),),
            ),
            TaskSpec(name="film", argv=("x",), needs=(Need(task="render"), Need(task="split"))),
        ),
    )


def nobody(machine: Scheduler) -> None:
    submit(machine, film())


def in_line(machine: Scheduler) -> None:
    hear(machine, ALICE, capacity(1))
    submit(machine, film())


def running(machine: Scheduler) -> None:
    in_line(machine)
    runs(machine, 0)


def rendering(machine: Scheduler) -> None:
    running(machine)
    hear(machine, ALICE, result(0, node=ALICE, epoch=EPOCH))
    hear(machine, ALICE, result(1, node=ALICE, epoch=EPOCH))
    runs(machine, 2)


def failed_once(machine: Scheduler) -> None:
    hear(machine, ALICE, capacity(1))
    submit(machine, film(retries=1))
    hear(machine, ALICE, result(0, node=ALICE, succeeded=False, epoch=EPOCH))


def failed(machine: Scheduler) -> None:
    in_line(machine)
    hear(machine, ALICE, result(0, node=ALICE, succeeded=False, epoch=EPOCH))


def paused(machine: Scheduler) -> None:
    submit(machine, film())
    machine.handle(PauseAsked(job=JOB, paused=True), NOW)


def too_wide(machine: Scheduler) -> None:
    hear(machine, ALICE, capacity(2))
    hear(machine, BOB, msgspec.structs.replace(capacity(8), accepting=False, drained=True))
    submit(machine, film(cpu=4))


def declined(machine: Scheduler) -> None:
    in_line(machine)
    hear(
        machine,
        ALICE,
        Lost(job=JOB, generation=1, epoch=EPOCH, attempts=(Attempt(0, 1, 1),), reason="no", declined=True),
    )


def drained(machine: Scheduler) -> None:
    machine.handle(DrainAsked(drained=True), NOW)
    hear(machine, ALICE, msgspec.structs.replace(capacity(2), accepting=False, drained=True))
    submit(machine, film())


def away(machine: Scheduler) -> None:
    hear(machine, ALICE, capacity(2))
    machine.handle(PeerDown(peer=ALICE), NOW)
    submit(machine, film())


def busy(machine: Scheduler) -> None:
    hear(machine, ALICE, capacity(1))
    other = JobSpec(name="sums", tasks=(TaskSpec(name="s", argv=("x",), array=Array(size=100)),))
    machine.handle(submitted(JobRecord(job=OTHER, submitter=ME, submitted_at_us=1, spec=other)), NOW)
    submit(machine, film())


def cancelled(machine: Scheduler) -> None:
    submit(machine, film())
    machine.handle(CancelAsked(job=JOB), NOW)


@pytest.mark.parametrize(
    ("situation", "task", "code", "text"),
    [
        (nobody, 0, "no_worker", "no node takes it now"),
        (nobody, 9, "needs", "waits for render (0 of 4 done, 4 waiting) and split (ready)"),
        (in_line, 0, "in_line", "is in line on beta"),
        (running, 0, "running", "runs on beta"),
        (running, 1, "needs", "waits for split (running on beta)"),
        (rendering, 0, "succeeded", "succeeded on beta"),
        (rendering, 9, "needs", "waits for render (1 of 4 done, 2 ready, 1 running)"),
        (rendering, 6, "needs", "waits for render[1] (running on beta)"),
        (failed_once, 0, "backoff", "failed once (last on beta: exit code 1), and is tried again in 0 s"),
        (failed, 0, "failed", "failed on beta: exit code 1"),
        (failed, 9, "skipped", "is skipped: split failed on beta: exit code 1"),
        (failed, 5, "skipped", "is skipped: split failed on beta: exit code 1"),
        (paused, 0, "paused", "its job is paused"),
        (paused, 1, "needs", "waits for split (ready); the job is paused"),
        (too_wide, 0, "no_fit", "no node has cpu >= 4 (the best has 2); gamma is drained"),
        (
            declined,
            0,
            "no_worker",
            "no node takes it now; beta is not taking it for a while (refused, or could not run it)",
        ),
        (drained, 0, "no_worker", "no node takes it now; alpha and beta are drained"),
        (away, 0, "no_worker", "no node takes it now; beta is away"),
        (busy, 0, "busy", "every slot is taken (1 node, 1 slot): beta has 8 of sums"),
        (cancelled, 0, "cancelled", "was cancelled with its job"),
    ],
)
def test_every_situation_has_its_words(
    situation: Callable[[Scheduler], None], task: int, code: str, text: str
) -> None:
    reason = explainer(situation).explain(TaskIndex(task))
    assert (reason.code, reason.text) == (code, text)


def test_job_is_explained_in_groups_the_largest_first() -> None:
    groups = explainer(rendering).groups()
    assert [(one.state, one.reason.code, one.count) for one in groups] == [
        ("ready", "in_line", 3),
        ("running", "running", 1),
        ("waiting", "needs", 1),
        ("waiting", "needs", 1),
        ("waiting", "needs", 1),
        ("waiting", "needs", 1),
    ]
    assert sum(one.count for one in groups) == 8


def test_equal_tasks_are_explained_once() -> None:
    machine = scheduler(slots=0)
    many = JobSpec(name="many", tasks=(TaskSpec(name="t", argv=("x",), array=Array(size=50_000)),))
    submit(machine, many)
    (group,) = explainer_of(machine).groups()
    assert (group.count, len(group.examples)) == (50_000, 5)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
    ],
)
def test_names_are_listed_as_people_say_them(names: list[str], text: str) -> None:
    assert listed(names) == text


def submit(machine: Scheduler, spec: JobSpec) -> None:
    machine.handle(submitted(record(spec)), NOW)


def runs(machine: Scheduler, task: int) -> None:
    attempt = Attempt(task, 1, 1)
    held = Held(job=JOB, generation=1, epoch=EPOCH, open=(attempt,), running=(attempt,))
    hear(machine, ALICE, Renew(jobs=(held,), boot=b"1", whole=False), later(1))


def explainer(situation: Callable[[Scheduler], None]) -> Explainer:
    machine = scheduler(slots=0)
    situation(machine)
    return explainer_of(machine)


def explainer_of(machine: Scheduler) -> Explainer:
    def name_of(node: NodeId) -> str:
        return NAMES[node]

    jobs = [one for one in machine.owned.values() if not one.finished]
    return Explainer(machine.owned[JOB], jobs, machine.seats, name_of, NOW.mono_s)

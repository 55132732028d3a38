"""Jobs on three machines: work spreads; killed agents cost no result, and no second run of what was done."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path

import meshkit
import pytest
from meshlab import Lab

pytestmark = [pytest.mark.netns, pytest.mark.slow]

NAMES = ("alpha", "bravo", "charlie")


@pytest.fixture(scope="module")
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        meshkit.found_mesh(lab, *NAMES)
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Lab:
    """The mesh, whole: every member alive, and reached by a tunnel, for every other."""
    meshkit.wait_until_whole(shared_lab, *NAMES)
    return shared_lab


@pytest.fixture
def folder() -> Iterator[Path]:
    with meshkit.open_folder() as folder:
        yield folder


def test_a_job_runs_on_all_members(lab: Lab, folder: Path) -> None:
    alpha = lab.node("alpha")
    job = meshkit.submit(alpha, meshkit.marking_job(folder, 60, 0.2))
    alpha.run(["meshpeer", "jobs", "watch", job])
    done = meshkit.job(alpha, job)
    assert (done.state, done.owner, done.tasks.succeeded, done.tasks.total) == ("succeeded", "alpha", 60, 60)
    assert set(done.done_on) == set(NAMES)
    assert sum(done.done_on.values()) == 60
    ran = meshkit.marks(folder, "ended")
    assert sorted(index for index, _ in ran) == list(range(60))
    tasks = meshkit.tasks(alpha, job)
    assert {task.index: task.node for task in tasks} == dict(ran)
    assert [(task.id, task.name, task.state, task.exit_code) for task in tasks] == [
        (f"nap[{index}]", "nap", "succeeded", 0) for index in range(60)
    ]
    # A grant that crosses a new link is taken back and given anew, so a number may be 2; it began once all
    # the same.
    only_tries = [[(task.node, "succeeded", 0)] for task in tasks]
    failures = [(task.id, one.node, one.error) for task in tasks for one in task.attempts if one.error]
    assert failures == []
    assert [[(o.node, o.state, o.exit_code) for o in task.attempts] for task in tasks] == only_tries
    assert sorted(index for index, _ in meshkit.marks(folder, "begun")) == list(range(60))


def test_a_job_survives_the_death_of_a_workers_agent(lab: Lab, folder: Path) -> None:
    alpha, charlie = lab.node("alpha"), lab.node("charlie")
    job = meshkit.submit(alpha, meshkit.marking_job(folder, 60, 0.2))
    meshkit.until(lambda: "charlie" in hosts(folder, "begun"), "charlie works")
    meshkit.kill_agent(charlie)
    # What it ran dies with it: no task goes on unseen.
    meshkit.until(lambda: not charlie.pgrep("sleep 0.2"), "charlie's tasks are gone")
    alpha.run(["meshpeer", "jobs", "watch", job])
    done = meshkit.job(alpha, job)
    assert (done.state, done.tasks.succeeded) == ("succeeded", 60)
    tasks = meshkit.tasks(alpha, job)
    for task in tasks:
        assert [one.state for one in task.attempts].count("succeeded") == 1
        assert task.attempts[-1].state == "succeeded"
        assert task.attempts[-1].node == task.node
    lost = [task for task in tasks if len(task.attempts) > 1]
    assert lost, "charlie ran something when it was killed"
    assert {task.attempts[0].node for task in lost} == {"charlie"}
    assert {task.index for task in tasks} == {index for index, _ in meshkit.marks(folder, "ended")}
    meshkit.meshpeer(charlie, "up", "--detach")


def test_results_of_a_cut_off_worker_arrive_after_its_restart_and_are_not_run_again(
    lab: Lab, folder: Path
) -> None:
    alpha, charlie = lab.node("alpha"), lab.node("charlie")
    job = meshkit.submit(alpha, meshkit.marking_job(folder, 60, 0.2))
    meshkit.until(lambda: "charlie" in hosts(folder, "ended"), "charlie has done something")
    lab.partition(["charlie"], ["alpha", "bravo"])
    # A worker's journal holds a result until the owner has said that its own holds it.
    meshkit.until(lambda: len(meshkit.unacknowledged(charlie)) >= 3, "results pile up at charlie")
    meshkit.kill_agent(charlie)
    kept = meshkit.unacknowledged(charlie)
    assert len(kept) >= 3
    lab.heal()
    meshkit.meshpeer(charlie, "up", "--detach")
    alpha.run(["meshpeer", "jobs", "watch", job], timeout=90)
    done = meshkit.job(alpha, job)
    assert (done.state, done.tasks.succeeded) == ("succeeded", 60)
    tasks = {task.index: task for task in meshkit.tasks(alpha, job)}
    begun = collections.Counter(index for index, _ in meshkit.marks(folder, "begun"))
    for index in kept:
        assert [(one.n, one.node, one.state) for one in tasks[index].attempts] == [
            (1, "charlie", "succeeded")
        ]
        assert begun[index] == 1
    assert all([one.state for one in task.attempts].count("succeeded") == 1 for task in tasks.values())
    meshkit.until(lambda: not meshkit.unacknowledged(charlie), "every result is acknowledged and forgotten")


def test_a_job_goes_on_where_it_was_after_the_death_of_its_submitter(lab: Lab, folder: Path) -> None:
    alpha = lab.node("alpha")
    job = meshkit.submit(alpha, meshkit.marking_job(folder, 60, 0.2))
    meshkit.until(lambda: len(meshkit.marks(folder, "ended")) >= 10, "ten tasks are done")
    meshkit.kill_agent(alpha)
    committed = {index for index, name in meshkit.marks(folder, "ended") if name != "alpha"}
    others_before = len(meshkit.marks(folder, "ended"))
    meshkit.until(
        lambda: len(meshkit.marks(folder, "ended")) > others_before, "the others go on with what they hold"
    )
    meshkit.meshpeer(alpha, "up", "--detach")
    alpha.run(["meshpeer", "jobs", "watch", job], timeout=90)
    done = meshkit.job(alpha, job)
    assert (done.state, done.tasks.succeeded, done.tasks.total) == ("succeeded", 60, 60)
    ended = collections.Counter(meshkit.marks(folder, "ended"))
    begun = collections.Counter(index for index, _ in meshkit.marks(folder, "begun"))
    # Only what alpha itself ran when it was killed may have begun twice.
    elsewhere = {index for index, name in ended if name != "alpha"}
    assert committed <= elsewhere
    twice = {index for index, count in begun.items() if count > 1}
    on_alpha = {index for index, name in meshkit.marks(folder, "begun") if name == "alpha"}
    assert twice <= on_alpha
    # Nor did anything end twice but what alpha had just ended, and no second replica had heard of.
    ends = collections.Counter(index for index, _ in meshkit.marks(folder, "ended"))
    ended_on_alpha = {index for index, name in ended if name == "alpha"}
    assert {index for index, count in ends.items() if count > 1} <= ended_on_alpha
    for task in meshkit.tasks(alpha, job):
        assert [one.state for one in task.attempts].count("succeeded") == 1


# --- helpers ------------------------------------------------------------


def hosts(folder: Path, kind: str) -> set[str]:
    return {name for _, name in meshkit.marks(folder, kind)}

"""A submitter's machine is gone for good in mid-job: another replica owns the job, and it completes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import meshkit
import msgspec
import pytest
from meshlab import Lab

from meshpeer.runtime.control import Job

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]

NAMES = ("alpha", "bravo", "charlie", "delta")
COUNT, FREE = 40, 10
"""Tasks in all, and those that end by themselves: the others wait until the test lets them."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with meshkit.open_folder() as folder:
        yield folder


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        meshkit.found_mesh(lab, *NAMES)
        meshkit.wait_until_whole(lab, *NAMES)
        yield lab


def test_a_job_whose_submitters_machine_is_gone_is_owned_elsewhere_and_completes(
    lab: Lab, folder: Path
) -> None:
    alpha, bravo, charlie, delta = (lab.node(name) for name in NAMES)
    job = meshkit.submit(alpha, held_job(folder))
    told = meshkit.job(delta, job)
    assert (told.id, told.owner, told.durability, told.as_of) == (job, "alpha", "replicated", None)
    assert [one.id for one in meshkit.ask(charlie, list[Job], "jobs", "list")] == [job]
    meshkit.until(lambda: len(meshkit.marks(folder, "ended")) >= FREE, "the first tasks are done", 30.0)

    alpha.crash(wipe_state=True)
    lab.unplug("alpha")

    def owned_elsewhere() -> bool:
        now = meshkit.job(bravo, job)
        return now.as_of is None and now.owner != "alpha"

    meshkit.until(owned_elsewhere, "another node owns the job", 30.0)
    (folder / "go").touch()
    delta.run(["meshpeer", "jobs", "watch", job], timeout=100)
    done = meshkit.job(charlie, job)
    assert (done.state, done.tasks.succeeded, done.tasks.total) == ("succeeded", COUNT, COUNT)
    assert done.owner in NAMES[1:]
    for task in meshkit.tasks(delta, job):
        assert [one.state for one in task.attempts if one.state == "succeeded"] == ["succeeded"]
    assert {index for index, _ in meshkit.marks(folder, "ended")} == set(range(COUNT))
    last = meshkit.marks(folder, "ended")[-1][0]
    assert delta.run(["meshpeer", "jobs", "logs", job, f"nap[{last}]"]).returncode == 0


def held_job(folder: Path) -> str:
    mark = f'echo "$index $(hostname)" >> {folder}'
    wait = f"while [ $index -ge {FREE} ] && [ ! -e {folder}/go ]; do sleep 0.2; done"
    run = f"{mark}/begun && {wait} && {mark}/ended"
    return msgspec.json.encode(
        {"name": "held", "tasks": {"nap": {"array": f"0-{COUNT - 1}", "run": run, "retries": 2}}}
    ).decode()

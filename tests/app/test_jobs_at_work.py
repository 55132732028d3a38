"""Jobs and nodes at work in a mesh of three on loopback: at any node, and through a power cut."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from machines import Machines, mesh_of

from meshpeer.core.ids import JobId
from meshpeer.core.scheduler.consensus.values import Written
from meshpeer.core.scheduler.rows import ROW_BYTES_MAX, JobRow
from meshpeer.core.wire import cbor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def mesh() -> Iterator[Machines]:
    """In a folder that tasks can reach, whoever they run as."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with mesh_of(Path(folder), "alpha", "beta", "gamma") as machines:
            yield machines


@pytest.fixture
def notes(mesh: Machines) -> Path:
    """A folder that tasks may write to."""
    folder = Path(tempfile.mkdtemp(dir=mesh.folder))
    folder.chmod(0o777)
    return folder


def test_job_is_looked_at_and_changed_from_any_node(mesh: Machines, notes: Path) -> None:
    mesh.run("alpha", "drain", "gamma")
    mesh.client("alpha").drain("", True)
    assert "drained" in mesh.run("beta", "peers")
    assert "drained" in mesh.run("gamma", "status")
    (mesh.folder / "job.yaml").write_text(
        f"""
name: words
tasks:
  talk: {{run: "echo one; while ! test -e {notes}/go; do sleep 0.05; done; echo two; exit 3"}}
  after: {{needs: [talk], run: "echo $MESHPEER_ATTEMPT"}}
"""
    )
    job = mesh.run("alpha", "jobs", "submit", "job.yaml", "--quiet").strip()

    # Everything runs on beta: alpha owns it, gamma asks.
    mesh.wait(lambda: mesh.client("gamma").job(job).running_on == {"beta": 1})
    assert job in mesh.run("gamma", "jobs", "list")
    assert mesh.client("gamma").jobs() == []
    assert "talk runs on beta" in mesh.run("gamma", "jobs", "why", "words", "talk")
    assert "waits for talk (running on beta)" in mesh.run("gamma", "jobs", "why", "words")
    followed = mesh.began("gamma", "jobs", "logs", "words", "talk", "--follow")
    assert followed.stdout is not None
    assert followed.stdout.readline() == "one\n", "while it runs"

    refused = mesh.run("gamma", "jobs", "pause", "words", code=4)
    assert "gamma may not change a job of alpha" in refused
    mesh.run("alpha", "jobs", "pause", "words")
    assert mesh.client("gamma").job("words").paused
    (notes / "go").touch()
    assert followed.communicate(timeout=60)[0] == "two\n"
    mesh.wait(lambda: mesh.client("gamma").job(job).finished_at is not None)

    watched = mesh.run("gamma", "jobs", "watch", "words", code=1)
    assert "talk failed on beta: exit code 3" in watched
    assert "  | two" in watched, "its last words"
    assert "after is skipped: talk failed on beta: exit code 3" in mesh.run("gamma", "jobs", "why", "words")
    assert [one.states for one in mesh.client("gamma").graph(job).tasks] == [{"failed": 1}, {"skipped": 1}]

    assert "goes on with 2 tasks" in mesh.run("alpha", "jobs", "retry", "words")
    mesh.wait(lambda: mesh.client("beta").job(job).finished_at is not None)
    assert len(mesh.client("beta").tasks(job)[0].attempts) == 2

    nobody = mesh.run("gamma", "jobs", "status", "nosuch", code=2)
    assert "no node that can be asked knows a job 'nosuch'" in nobody
    mesh.run("gamma", "stop")
    mesh.wait(lambda: mesh.client("beta").peers()[1].state == "dead")
    assert "gamma is away since" in mesh.run("beta", "jobs", "status", "nosuch", code=2)
    mesh.run("gamma", "up", "--detach")
    assert "drained" in mesh.run("gamma", "status"), "through a restart"
    for name in ("alpha", "gamma"):
        assert not mesh.client(name).drain("", False).drained


def test_job_ends_well_after_a_power_cut_and_nothing_counts_twice(mesh: Machines, notes: Path) -> None:
    count = 16
    (mesh.folder / "job.yaml").write_text(
        f"""
name: cut
tasks:
  work: {{array: 0-{count - 1}, run: "sleep 0.4; mktemp {notes}/$index.XXXX"}}
  sum: {{needs: [work], run: "true"}}
"""
    )
    job = mesh.run("beta", "jobs", "submit", "job.yaml", "--quiet").strip()
    mesh.wait(lambda: mesh.client("beta").job(job).tasks.succeeded >= 4)
    before = {one.id for one in mesh.client("beta").tasks(job) if one.state == "succeeded"}
    mesh.cut_power()
    for name in mesh.names:
        mesh.run(name, "up", "--detach")
    ended = json.loads(mesh.run("alpha", "jobs", "watch", job, "--json"))
    assert (ended["state"], ended["tasks"]["succeeded"]) == ("succeeded", count + 1)
    tasks = mesh.client("gamma").tasks(job)
    assert [[one.state for one in task.attempts].count("succeeded") for task in tasks] == [1] * (count + 1)
    ran = collections.Counter(f"work[{one.stem}]" for one in notes.iterdir())
    assert {ran[one] for one in before} == {1}, "what was told as done before is not done again"
    assert set(ran) == {f"work[{number}]" for number in range(count)}
    assert sum(ended["done_on"].values()) == count + 1


def test_job_that_is_long_over_is_forgotten_by_every_node_with_its_files(mesh: Machines) -> None:
    (mesh.folder / "job.yaml").write_text(
        """
name: old
keep: 1d
tasks: {make: {run: "echo told; head -c 300000 /dev/urandom > made", outputs: [made]}}
"""
    )
    job = mesh.run("beta", "jobs", "submit", "job.yaml", "--quiet").strip()
    mesh.run("beta", "jobs", "watch", job)
    kept = mesh.run("beta", "jobs", "submit", "job.yaml", "--quiet").strip()
    mesh.run("beta", "jobs", "watch", kept)
    made = [one for name in mesh.names for one in blobs(mesh, name) if one.stat().st_size == 300_000]
    assert len(made) == 2
    mesh.cut_power()
    for name in mesh.names:
        age(mesh, name, JobId(job), days=31)
    for name in mesh.names:
        mesh.run(name, "up", "--detach")

    for name in mesh.names:
        mesh.wait(lambda name=name: job not in mesh.run(name, "jobs", "list"))  # type: ignore[misc]
    assert f"the job {job} is forgotten: it ended at " in mesh.run("gamma", "jobs", "status", job, code=2)
    assert mesh.client("alpha").job(kept).state == "succeeded"
    assert mesh.run("alpha", "jobs", "logs", kept, "make").strip() == "told"
    mesh.wait(lambda: sum(one.exists() for one in made) == 1)


def test_job_above_its_submitters_quota_is_refused_with_the_figures(mesh: Machines) -> None:
    settings = mesh.folder / "settings.toml"
    before = settings.read_text()
    quotas = '[jobs.quotas."*"]\ntasks = 2000\n[jobs.quotas.beta]\ntasks = 9000\n'
    job = "name: many\ntasks: {idle: {array: 0-2999, run: 'true', resources: {gpu: 9}}}\n"
    (mesh.folder / "job.yaml").write_text(job)
    try:
        settings.write_text(before + quotas)
        for name in ("beta", "gamma"):
            mesh.run(name, "stop")
            mesh.run(name, "up", "--detach")
        mesh.wait(lambda: mesh.linked("alpha") and mesh.linked("beta"))
        refused = mesh.run("gamma", "jobs", "submit", "job.yaml", code=4)
        assert "this node keeps 2,000 open tasks of gamma; 0 are open, and this job has 3,000" in refused
        assert "raise it under [jobs.quotas]" in refused
        kept = mesh.run("beta", "jobs", "submit", "job.yaml", "--quiet").strip()
        mesh.run("beta", "jobs", "cancel", kept)
        # Alpha itself has no quotas; its replicas have, and say so.
        unkept = mesh.run("alpha", "jobs", "submit", "job.yaml", code=4)
        assert "does not keep the job: this node keeps 2,000 open tasks of alpha" in unkept
    finally:
        settings.write_text(before)


def blobs(mesh: Machines, name: str) -> list[Path]:
    folder = mesh.folder / name / "blobs"
    return [one for one in folder.rglob("*") if one.is_file()]


def age(mesh: Machines, name: str, job: JobId, days: int) -> None:
    """Puts the end of a job back, on the disk of an agent that is down."""
    database = sqlite3.connect(mesh.folder / name / "state.db")
    with contextlib.closing(database), database:
        key = f"row/{job}/-00001.0"
        (value,) = database.execute("SELECT value FROM replicas WHERE key = ?", (key,)).fetchone()
        row = cbor.decode(value, Written, bytes_max=ROW_BYTES_MAX)
        own = cbor.decode(row.value, JobRow, bytes_max=ROW_BYTES_MAX)
        old = msgspec.structs.replace(own, finished_at_us=own.finished_at_us - days * 86_400 * 10**6)
        aged = msgspec.structs.replace(row, value=cbor.encode(old))
        database.execute("UPDATE replicas SET value = ? WHERE key = ?", (cbor.encode(aged), key))

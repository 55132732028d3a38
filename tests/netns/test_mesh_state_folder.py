"""A full disk loses nothing that was acknowledged, and a state folder of a newer version is left alone."""

from __future__ import annotations

import collections
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import meshkit
import pytest
from meshkit import fails
from meshlab import Node

from meshpeer.runtime.control import Job

if TYPE_CHECKING:
    from conftest import MakeLab

pytestmark = [pytest.mark.netns, pytest.mark.slow]

ENVIRONMENT = 5
_BUMP = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
(version,) = database.execute("PRAGMA user_version").fetchone()
database.execute(f"PRAGMA user_version = {version + 1}")
database.execute("PRAGMA journal_mode = DELETE")
"""


def test_submitting_to_a_full_disk_is_refused_and_acknowledged_jobs_stay(make_lab: MakeLab) -> None:
    lab = make_lab(meshkit.lan("alpha"))
    alpha = lab.node("alpha")
    meshkit.found(alpha)
    spec = '{"name": "before", "tasks": {"a": {"array": "0-9", "run": "echo $index"}}}'
    before = meshkit.submit(alpha, spec)
    meshkit.meshpeer(alpha, "jobs", "watch", before)
    fill_disk(alpha)
    refusal = alpha.run(["meshpeer", "jobs", "submit", "-"], input=spec, check=False)
    assert (refusal.returncode, refusal.stdout) == (ENVIRONMENT, "")
    what, hint = refusal.stderr.splitlines()
    assert "full" in what
    assert hint.startswith(" hint: ")
    # The job did not come as far as the journal, so the agent has broken no promise and goes on.
    assert meshkit.status(alpha).node.name == "alpha"
    make_room(alpha)
    assert [(job.id, job.state) for job in meshkit.ask(alpha, list[Job], "jobs", "list")] == [
        (before, "succeeded")
    ]
    assert meshkit.meshpeer(alpha, "jobs", "logs", before, "a[7]") == "7\n"
    again = meshkit.submit(alpha, spec)
    meshkit.meshpeer(alpha, "jobs", "watch", again)
    assert meshkit.job(alpha, again).tasks.succeeded == 10


def test_a_disk_that_fills_mid_job_costs_no_acknowledged_result(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(meshkit.lan("alpha", "bravo"))
    alpha = lab.node("alpha")
    meshkit.found_mesh(lab, "alpha", "bravo")
    with meshkit.open_folder() as folder:
        job = meshkit.submit(alpha, meshkit.marking_job(folder, 60, 0.2))
        meshkit.until(lambda: meshkit.job(alpha, job).tasks.succeeded >= 6, "six results are committed")
        committed = [task.index for task in meshkit.tasks(alpha, job) if task.state == "succeeded"]
        fill_disk(alpha)
        meshkit.until(lambda: not meshkit.agents(alpha), "the agent stops: it can promise nothing any more")
        assert meshkit.has_interface(alpha)
        assert meshkit.pings(alpha, "10.10.0.10")
        assert "tunnels stay" in alpha.path(meshkit.LOG).read_text()
        make_room(alpha)
        meshkit.meshpeer(alpha, "up", "--detach")
        meshkit.meshpeer(alpha, "jobs", "watch", job)
        assert meshkit.job(alpha, job).tasks.succeeded == 60
        begun = collections.Counter(index for index, _ in meshkit.marks(folder, "begun"))
        assert {begun[index] for index in committed if index is not None} == {1}


def test_a_full_disk_refuses_to_found_a_mesh_and_leaves_nothing(make_lab: MakeLab) -> None:
    lab = make_lab(meshkit.lan("alpha"))
    alpha = lab.node("alpha")
    fill_disk(alpha)
    before = meshkit.footprint(alpha)
    failure = fails(alpha, ENVIRONMENT, "init", "--detach")
    assert "can't be" in failure.what
    assert "df -h" in failure.hint
    assert meshkit.footprint(alpha) == before


def test_a_state_folder_of_a_newer_version_is_refused_untouched(make_lab: MakeLab) -> None:
    lab = make_lab(meshkit.lan("alpha"))
    alpha = lab.node("alpha")
    meshkit.found(alpha)
    meshkit.meshpeer(alpha, "down")
    meshkit.until(lambda: not alpha.pgrep("."), "the agent has stopped")
    copy = "/run/newer"
    alpha.run(["cp", "-a", meshkit.STATE_DIR, copy])
    alpha.run(["python3", "-I", "-c", _BUMP, f"{copy}/state.db"])
    before = digests(alpha, copy)
    failure = fails(alpha, ENVIRONMENT, "up", "--detach", "--state-dir", copy)
    assert "newer version" in failure.what
    assert "upgrade" in failure.hint
    assert digests(alpha, copy) == before
    assert not meshkit.has_interface(alpha)
    assert not alpha.pgrep(".")
    # The folder itself is as good as before: only the copy came from the future.
    meshkit.meshpeer(alpha, "up", "--detach")


# --- helpers ------------------------------------------------------------


def fill_disk(node: Node) -> None:
    """Shrinks the state folder's file system to 16 MiB and fills it to the last page."""
    node.limit_state_dir("16m")
    filler = f"{meshkit.STATE_DIR}/filler"
    node.run(["sh", "-c", f"cat /dev/zero > {filler}; cat /dev/zero >> {filler}; true"])


def make_room(node: Node) -> None:
    node.path(f"{meshkit.STATE_DIR}/filler").unlink()


def digests(node: Node, folder: str) -> dict[str, str]:
    """Returns what is in a folder, but for the log."""
    root = node.path(folder)
    files = [path for path in root.rglob("*") if path.is_file() and path.name != Path(meshkit.LOG).name]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

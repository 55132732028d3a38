"""The capabilities that a unit grants are enough for what it grants them for: a task's whole way is gone with
them alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshpeer.adapters.executor.groups import group_name, remove_group
from meshpeer.app.config import Settings
from meshpeer.app.service_plan import Owner, plan_service
from meshpeer.app.state import NodeFile

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)

WAY = '''
"""Runs tasks that leave behind what only more rights can collect, clear and end."""
import sys
from pathlib import Path

import trio

from meshpeer.adapters.executor import open_executor
from meshpeer.adapters.store import open_blobs
from meshpeer.runtime.ports import AttemptPlan

LEAVES = "mkdir -m 1700 st; echo made >st/out; chmod 0 st/out; mkdir deep; chmod 0500 deep; (sleep 1000 &)"

def plan(key, script, timeout_s=0, **rest):
    return AttemptPlan(
        key=key, argv=("sh", "-c", script), env=(), cwd="", staged=(), outputs=("st/",), timeout_s=timeout_s,
        **rest,
    )

async def main(folder):
    blobs = open_blobs(folder / "blobs")
    scratch = folder / "scratch"
    users = range(61900, 61901)
    async with open_executor(slots=1, scratch_root=scratch, blobs=blobs, uids=users, grace_s=0.1) as one:
        for key in ("first", "second"):
            outcome = await one.run(plan(key, LEAVES))
            assert (outcome.exit_code, outcome.error) == (0, ""), outcome
            assert [file.path for file in outcome.outputs] == ["st/out"], outcome
        # A helper that hangs is another user's process.
        hung = await one.run(plan("hung", "kill -STOP $PPID; sleep 1000", timeout_s=0.2))
        assert hung.error.startswith("timed out"), hung
        assert (await one.run(plan("third", LEAVES))).exit_code == 0
        # Nobody needs a right to have less.
        alone = await one.run(plan("alone", "mkdir st; grep -c : /proc/net/dev >st/out", network=False))
        assert (alone.exit_code, alone.error) == (0, ""), alone
        assert await blobs.read(alone.outputs[0].digest, 0, 9) == b"1\\n"
        assert not list((scratch / "slot-0/trash").iterdir())

trio.run(main, Path(sys.argv[1]))
'''


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="meshpeer-test-"))
    path.chmod(0o711)
    yield path
    # Without a right to end what hangs a way leaves it behind, and with it the control groups.
    name = group_name(path / "scratch") if (path / "scratch").exists() else ""
    for group in Path("/sys/fs/cgroup").rglob(name) if name else ():
        with contextlib.suppress(FileNotFoundError):
            remove_group(group)
    shutil.rmtree(path)


def test_tasks_go_their_whole_way_with_the_capabilities_of_the_unit(folder: Path) -> None:
    done = go_the_way(folder, granted())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("capability", ["setuid", "setgid", "chown", "dac_override", "fowner", "kill"])
def test_none_of_them_can_be_done_without(folder: Path, capability: str) -> None:
    assert capability in granted()
    assert go_the_way(folder, granted() - {capability}).returncode != 0


# --- helpers ------------------------------------------------------------


def granted() -> set[str]:
    """Returns what the unit of a node without tunnels grants, in the words of setpriv(1)."""
    node = NodeFile(
        mesh=b"m",
        roots=(),
        name="alpha",
        region="",
        roles=(),
        endpoint="",
        seeds=(),
        wireguard_port=0,
        control_port=51821,
    )
    plan = plan_service(
        Settings(),
        node,
        Owner(user="root", group="root", root=True),
        program=("/usr/bin/meshpeer",),
        code=(),
        environment={},
    )
    words = " ".join(grant.capability for grant in plan.grants).split()
    return {word.removeprefix("CAP_").lower() for word in words}


def go_the_way(folder: Path, capabilities: set[str]) -> subprocess.CompletedProcess[str]:
    bounds = ",".join(("-all", *(f"+{one}" for one in sorted(capabilities))))
    return subprocess.run(
        ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", sys.executable, "-c", WAY, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

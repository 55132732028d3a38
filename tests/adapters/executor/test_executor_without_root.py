"""The same rules where the agent is nobody: in a user namespace that maps root to an ordinary user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meshpeer.adapters.executor.groups import group_name, remove_group

pytestmark = pytest.mark.netns

HERE = Path(__file__).parent
NOBODY = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


@pytest.fixture(autouse=True)
def user_namespaces() -> None:
    if subprocess.run([*NOBODY, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine allows no user namespaces")


def test_everything_but_users_holds_without_root() -> None:
    command = [*NOBODY, sys.executable, "-m", "pytest", "-q", "-k", "not memory", str(HERE)]

    done = subprocess.run(command, cwd=HERE.parents[2], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


AGENT = """
import sys
from pathlib import Path

import trio

from meshpeer.adapters.executor import open_executor
from meshpeer.runtime.ports import AttemptPlan


async def main():
    line = "(setsid sh -c 'echo $$; exec sleep 600' &); echo $$; exec sleep 600"
    argv = ("/bin/sh", "-c", line)
    plan = AttemptPlan(key="a", argv=argv, env=(), cwd="", staged=(), outputs=(), timeout_s=0)
    async with (
        open_executor(slots=1, scratch_root=Path(sys.argv[1]), blobs=None, uids=None) as executor,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(executor.run, plan)
        while (executor.log("a", "stdout", 0, 100) or b"").count(b"\\n") < 2:
            await trio.sleep(0.005)
        pids = executor.log("a", "stdout", 0, 100).decode().split()
        print(executor.isolation, *pids, sep="|", flush=True)


trio.run(main)
"""


def test_killed_agent_takes_tasks_and_daemons_along_without_root(tmp_path: Path) -> None:
    command = [*NOBODY, sys.executable, "-c", AGENT, str(tmp_path / "scratch")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        isolation, *pids = agent.stdout.readline().strip().split("|")
        agent.kill()

    ends = [Path(f"/proc/{pid}/cmdline") for pid in pids]
    assert (isolation, len(ends)) == ("the agent's own user", 2)
    for _ in range(2000):
        if not any(_is_sleeping(end) for end in ends):
            break
        subprocess.run(["sleep", "0.01"], check=True)
    else:
        pytest.fail("a task outlived its agent")
    for group in Path("/sys/fs/cgroup").rglob(group_name(tmp_path / "scratch")):
        remove_group(group)  # the next agent's first act


def _is_sleeping(cmdline: Path) -> bool:
    try:
        return b"sleep" in cmdline.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False

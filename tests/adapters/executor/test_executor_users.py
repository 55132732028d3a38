"""As root: every slot is a user of its own, without rights; no task reaches the agent or outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest
import trio

from meshpeer.adapters.executor import ProcessExecutor, open_executor
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.runtime.ports import AttemptPlan, BlobRef, Blobs

pytestmark = pytest.mark.netns


class Plans(Protocol):
    def __call__(self, *argv: str, **rest: object) -> AttemptPlan: ...

    def shell(self, line: str, **rest: object) -> AttemptPlan: ...


class TextBlobs(Blobs, Protocol):
    def text(self, ref: BlobRef) -> str: ...


class Until(Protocol):
    async def __call__(self, condition: Callable[[], bool]) -> None: ...


OpenExecutor = Callable[..., AbstractAsyncContextManager[ProcessExecutor]]


async def test_task_is_its_slots_user_without_any_right(
    executor: ProcessExecutor, plans: Plans, blobs: TextBlobs, uids: range
) -> None:
    outcome = await executor.run(plans("cat", "/proc/self/status"))

    status = dict(line.split(":\t", 1) for line in blobs.text(outcome.stdout).splitlines() if ":\t" in line)
    assert status["Uid"].split() == [str(uids[0])] * 4
    assert status["Gid"].split() == [str(uids[0])] * 4
    assert status["Groups"].strip() == ""
    assert {name: int(status[name], 16) for name in status if name.startswith("Cap")} == {
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
        "CapAmb": 0,
    }
    assert status["NoNewPrivs"].strip() == "1"


async def test_limits_are_set(executor: ProcessExecutor, plans: Plans, blobs: TextBlobs) -> None:
    """The task begins under what bounds it, and can't widen that a moment later."""
    narrowed = 'until grep -q "Max file size  *67108864  *67108864" /proc/self/limits; do :; done'
    outcome = await executor.run(
        plans("sh", "-c", f"cat /proc/self/limits; {narrowed}; cat /proc/self/limits")
    )

    lines = blobs.text(outcome.stdout).splitlines()
    first, limits = (
        {line[:25].strip(): line[25:].split()[:2] for line in half}
        for half in (lines[: len(lines) // 2], lines[len(lines) // 2 :])
    )
    assert first["Max processes"][0] == "512"
    assert first["Max file size"][0] == "67108864"
    assert limits["Max processes"] == ["512", "512"]
    assert limits["Max file size"] == ["67108864", "67108864"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max open files"][0] == "1024"


async def test_each_slot_has_its_user(
    executor: ProcessExecutor, plans: Plans, uids: range, until: Until
) -> None:
    async with trio.open_nursery() as nursery:
        for key in ("a", "b"):
            nursery.start_soon(executor.run, plans("/bin/sh", "-c", "id -u; exec sleep 600", key=key))
        await until(lambda: all(executor.log(key, "stdout", 0, 100) for key in "ab"))
        seen = {int(executor.log(key, "stdout", 0, 100) or b"0") for key in "ab"}
        nursery.cancel_scope.cancel()

    assert seen == {uids[0], uids[1]}
    assert executor.isolation == f"a uid per slot ({uids[0]}-{uids[1]})"


async def test_files_of_root_are_closed_to_tasks(
    executor: ProcessExecutor, plans: Plans, blobs: TextBlobs, tmp_path: Path
) -> None:
    secret = Path("/tmp") / f"meshpeer-secret-{os.getpid()}"
    with written(secret, "private key"):
        outcome = await executor.run(plans.shell(f"cat {secret} /etc/shadow; ls {tmp_path}"))

    assert blobs.text(outcome.stdout) == ""
    assert blobs.text(outcome.stderr).count("Permission denied") == 3


async def test_task_can_not_look_into_helper_or_agent(
    executor: ProcessExecutor, plans: Plans, blobs: TextBlobs
) -> None:
    places = ["/environ", "/fd/0", "/mem", "/maps", "/cwd/"]
    looks = "; ".join(f"cat /proc/$pid{place}" for place in places)

    outcome = await executor.run(
        plans.shell(f"for pid in $PPID {os.getpid()}; do {looks}; ls /proc/$pid/fd; done")
    )

    assert blobs.text(outcome.stdout) == ""
    assert blobs.text(outcome.stderr).count("Permission denied") == 2 * (len(places) + 1)


async def test_slots_can_not_see_each_others_files(
    executor: ProcessExecutor, plans: Plans, blobs: TextBlobs, until: Until
) -> None:
    async with trio.open_nursery() as nursery:
        line = "chmod 777 . $TMPDIR; echo x > f; pwd; exec sleep 600"
        nursery.start_soon(executor.run, plans("/bin/sh", "-c", line, key="a"))
        await until(lambda: (executor.log("a", "stdout", 0, 200) or b"").endswith(b"\n"))
        other = (executor.log("a", "stdout", 0, 200) or b"").decode().strip()
        outcome = await executor.run(
            plans.shell(f"cat {other}/f; ls {other}/..; touch {other}/g; ls {other}/../..")
        )
        nursery.cancel_scope.cancel()

    assert blobs.text(outcome.stdout) == ""
    assert blobs.text(outcome.stderr).count("Permission denied") == 4


async def test_link_to_a_file_of_root_is_no_output(
    executor: ProcessExecutor, plans: Plans, blobs: TextBlobs
) -> None:
    with written(Path("/tmp") / f"meshpeer-secret-{os.getpid()}", "private key") as secret:
        outcome = await executor.run(plans.shell(f"ln -s {secret} frame-1.ppm", outputs=("frame-*.ppm",)))

    assert (outcome.error, outcome.outputs) == ("output 'frame-1.ppm' is a symbolic link", ())
    assert not any(b"private key" in content for content in blobs.content.values())  # type: ignore[attr-defined]


async def test_file_of_another_user_is_no_output(
    executor: ProcessExecutor, plans: Plans, blobs: TextBlobs, scratch_root: Path, until: Until
) -> None:
    """A hard link to a file of root's, which fs.protected_hardlinks does not stop on every machine."""
    async with trio.open_nursery() as nursery:
        outcomes = []

        async def run() -> None:
            line = "pwd; until [ -e go ]; do sleep 0.01; done"
            outcomes.append(
                await executor.run(plans("/bin/sh", "-c", line, key="a", outputs=("frame-1.ppm",)))
            )

        nursery.start_soon(run)
        await until(lambda: (executor.log("a", "stdout", 0, 200) or b"").endswith(b"\n"))
        work = Path((executor.log("a", "stdout", 0, 200) or b"").decode().strip())
        with written(scratch_root / "secret", "private key") as secret:
            os.link(secret, work / "frame-1.ppm")
        (work / "go").touch()

    assert outcomes[0].error == "output 'frame-1.ppm' belongs to another user"
    assert not any(b"private key" in content for content in blobs.content.values())  # type: ignore[attr-defined]


async def test_fork_bomb_is_bounded_and_ends(open_processes: OpenExecutor, plans: Plans, uids: range) -> None:
    async with open_processes(grace_s=0.2) as executor:
        bomb = "trap '' TERM; bomb() { bomb | bomb & bomb; }; bomb"
        outcome = await executor.run(
            plans.shell(f'sh -c "{bomb}" 2>/dev/null; exec sleep 600', timeout_s=0.5)
        )
        again = await executor.run(plans("true"))

        assert outcome.error.startswith("timed out after 0.5 s")
        assert again.error == ""
        assert len(list(processes_of(uids))) == 1  # the helper


async def test_task_that_stops_its_helper_is_ended(
    open_processes: OpenExecutor, plans: Plans, uids: range, until: Until
) -> None:
    async with open_processes(slots=1, grace_s=0.2) as executor:
        outcome = await executor.run(plans.shell("kill -STOP $PPID; exec sleep 600", timeout_s=0.2))
        again = await executor.run(plans("true"))

        assert (outcome.exit_code, outcome.error) == (None, "timed out after 0.2 s")
        assert again.error == ""
        await until(lambda: len(list(processes_of(uids))) == 1)


async def test_task_that_kills_its_helper_gains_nothing(
    open_processes: OpenExecutor, plans: Plans, uids: range, until: Until
) -> None:
    async with open_processes(slots=1) as executor:
        outcome = await executor.run(plans.shell("setsid sleep 600 & kill -9 $PPID; exec sleep 600"))
        again = await executor.run(plans("true"))

        assert (outcome.exit_code, outcome.error) == (None, "the spawn helper died")
        assert again.error == ""
        await until(lambda: len(list(processes_of(uids))) == 1)


async def test_helper_kills_what_an_earlier_agent_left(
    open_processes: OpenExecutor, plans: Plans, uids: range
) -> None:
    stray = await trio.lowlevel.open_process(["sleep", "600"], user=uids[0], group=uids[0])
    async with open_processes():
        pass

    assert await stray.wait() == -signal.SIGKILL


async def test_killed_agent_takes_tasks_and_daemons_along(
    scratch_root: Path, uids: range, until: Until
) -> None:
    command = [sys.executable, "-c", AGENT, str(scratch_root), str(uids[0])]
    agent = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        async with agent.stdout:
            with trio.fail_after(30):
                assert await agent.stdout.receive_some(100) == b"running"
            assert len(list(processes_of(uids))) == 6  # two helpers, two tasks, two daemons
    finally:
        agent.kill()
        await agent.wait()

    await until(lambda: not list(processes_of(uids)))
    # What it left on disk goes with the next one.
    async with open_executor(slots=1, scratch_root=scratch_root, blobs=None, uids=uids):  # type: ignore[arg-type]
        pass


async def test_user_serves_one_executor(scratch_root: Path, blobs: Blobs, uids: range) -> None:
    def open_in(folder: str, users: range) -> AbstractAsyncContextManager[ProcessExecutor]:
        return open_executor(slots=2, scratch_root=scratch_root / folder, blobs=blobs, uids=users)

    async with open_in("a", uids[:4]) as first, open_in("b", uids[:4]) as second:
        assert first.isolation == f"a uid per slot ({uids[0]}-{uids[1]})"
        assert second.isolation == f"a uid per slot ({uids[2]}-{uids[3]})"
        with pytest.raises(EnvironmentFault, match="0 of 2 free"):
            async with open_in("c", uids[:4]):
                pass
    for folder in ("a", "b"):
        (scratch_root / folder).rmdir()


@pytest.mark.parametrize("users", [None, range(61_000, 61_001), range(4)])
async def test_tasks_never_run_as_root(scratch_root: Path, blobs: Blobs, users: range | None) -> None:
    with pytest.raises(LocalFault):
        async with open_executor(slots=2, scratch_root=scratch_root, blobs=blobs, uids=users):
            pass


async def test_folder_that_tasks_can_not_reach_is_refused(tmp_path: Path, blobs: Blobs, uids: range) -> None:
    with pytest.raises(EnvironmentFault, match="closed to other users"):
        async with open_executor(slots=1, scratch_root=tmp_path / "scratch", blobs=blobs, uids=uids):
            pass


AGENT = textwrap.dedent(
    """
    import sys
    from pathlib import Path

    import trio

    from meshpeer.adapters.executor import open_executor
    from meshpeer.runtime.ports import AttemptPlan


    async def main():
        first = int(sys.argv[2])
        users = range(first, first + 2)
        line = "(setsid sleep 600 &); echo up; exec sleep 600"
        async with (
            open_executor(slots=2, scratch_root=Path(sys.argv[1]), blobs=None, uids=users) as executor,
            trio.open_nursery() as nursery,
        ):
            for key in "ab":
                plan = AttemptPlan(
                    key=key, argv=("/bin/sh", "-c", line), env=(), cwd="", staged=(), outputs=(), timeout_s=0
                )
                nursery.start_soon(executor.run, plan)
            while any(executor.log(key, "stdout", 0, 10) != b"up\\n" for key in "ab"):
                await trio.sleep(0.005)
            print("running", end="", flush=True)


    trio.run(main)
    """
)


@contextlib.contextmanager
def written(path: Path, text: str) -> Iterator[Path]:
    path.touch(0o600)
    path.write_text(text)
    try:
        yield path
    finally:
        path.unlink()


def processes_of(uids: range) -> Iterator[int]:
    """Yields the live processes of these users."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = dict(
                    line.split(":\t", 1)
                    for line in (folder / "status").read_text().splitlines()
                    if ":\t" in line
                )
                if int(status["Uid"].split()[0]) in uids and not status["State"].startswith("Z"):
                    yield int(folder.name)

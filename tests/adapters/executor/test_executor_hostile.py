"""Tasks that attack their host: contained, and their results say by what.

Every attack is small and bounded by the limits that it is given: 64 processes, 64 MiB of memory and the like.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest
import trio

from meshpeer.adapters.executor import Bounds, ProcessExecutor
from meshpeer.adapters.executor.groups import group_name
from meshpeer.core.wire.limits import BLOB_BYTES_MAX
from meshpeer.runtime.ports import AttemptOutcome, AttemptPlan, BlobRef, Blobs, Limits

pytestmark = pytest.mark.netns
MIB = 1024 * 1024
PYTHON = "/usr/bin/python3"
DAEMON = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sys.stdout.write(f"{os.getpid()}\\n")
        sys.stdout.flush()
        for fd in range(3):
            os.close(fd)
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    os._exit(0)
os.wait()
import time
while not os.fstat(1).st_size:
    time.sleep(0.01)
"""
FORK_BOMB = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.05)
"""
HOG_BY_MANY = """
import os, time
for _ in range(30):
    if os.fork() == 0:
        held = b"x" * (4 << 20)
        time.sleep(600)
time.sleep(600)
"""


class Plans(Protocol):
    def __call__(self, *argv: str, **rest: object) -> AttemptPlan: ...

    def shell(self, line: str, **rest: object) -> AttemptPlan: ...


class TextBlobs(Blobs, Protocol):
    def text(self, ref: BlobRef) -> str: ...


class Until(Protocol):
    async def __call__(self, condition: Callable[[], bool]) -> None: ...


OpenExecutor = Callable[..., AbstractAsyncContextManager[ProcessExecutor]]


@pytest.fixture
async def bounded(open_processes: OpenExecutor) -> object:
    """An executor with control groups, where this machine has any."""
    async with open_processes(grace_s=0.2) as executor:
        if executor.gaps:
            pytest.skip(executor.gaps[0].what)
        yield executor


async def test_fork_bomb_meets_its_limit_and_the_result_says_so(
    bounded: ProcessExecutor, plans: Plans, uids: range, until: Until
) -> None:
    most = 0
    outcomes: list[AttemptOutcome] = []

    async def attack() -> None:
        limits = Limits(processes=64)
        plan = plans(PYTHON, "-c", FORK_BOMB, timeout_s=8.0, limits=limits)
        outcomes.append(await bounded.run(plan))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attack)
        while not outcomes:
            most = max(most, processes_of(uids[0]))
            await trio.sleep(0.02)

    assert 30 < most <= 64 + 2  # the helpers of two slots
    assert outcomes[0].error.startswith("timed out after 8 s, and was killed: ")
    assert outcomes[0].error.endswith(": it wanted more than 64 processes at once")
    await until(lambda: processes_of(uids[0]) == 1)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("exec tail /dev/zero", 137),
        ("tail /dev/zero; exit 3", 3),
        ("head -c 200000000 /dev/zero > /dev/shm/hog; exit 4", 4),
    ],
    ids=["itself", "a child", "shared memory"],
)
async def test_memory_hog_is_killed_and_the_result_says_so(
    bounded: ProcessExecutor, plans: Plans, line: str, code: int
) -> None:
    outcome = await bounded.run(plans.shell(line, timeout_s=60, limits=Limits(memory_bytes=48 * MIB)))

    assert outcome.error.endswith(": it used more than 48 MiB of memory"), outcome
    assert outcome.exit_code in (code, 137)
    assert not exists("/dev/shm/hog")


async def test_hog_of_many_small_processes_is_contained(
    bounded: ProcessExecutor, plans: Plans, uids: range
) -> None:
    plan = plans(PYTHON, "-c", HOG_BY_MANY, timeout_s=3.0, limits=Limits(memory_bytes=48 * MIB))

    outcome = await bounded.run(plan)
    again = await bounded.run(plans("true"))

    assert outcome.error.endswith(": it used more than 48 MiB of memory"), outcome
    assert again.error == ""
    assert processes_of(uids[0]) == 1


async def test_tasks_together_are_bounded_where_none_has_a_limit_of_its_own(
    open_processes: OpenExecutor, plans: Plans
) -> None:
    async with open_processes(bounds=Bounds(memory_bytes=96 * MIB)) as executor:
        if executor.gaps:
            pytest.skip(executor.gaps[0].what)
        outcome = await executor.run(plans.shell("exec tail /dev/zero", timeout_s=60))

    assert outcome.exit_code == 137
    assert outcome.error == (
        "killed by SIGKILL: the tasks of this node used up the memory that they have together"
    )


async def test_limit_of_one_attempt_is_not_the_next_ones(bounded: ProcessExecutor, plans: Plans) -> None:
    hungry = "head -c 60000000 /dev/zero | tail -c 60000000 >/dev/null"
    narrow = await bounded.run(plans.shell(hungry, limits=Limits(memory_bytes=16 * MIB)))
    wide = await bounded.run(plans.shell(hungry))
    narrow_again = await bounded.run(plans.shell(hungry, limits=Limits(memory_bytes=16 * MIB)))

    assert "it used more than 16 MiB of memory" in narrow.error
    assert wide.error == ""
    assert "it used more than 16 MiB of memory" in narrow_again.error


async def test_flood_over_many_files_is_ended(
    executor: ProcessExecutor, plans: Plans, scratch_root: Path
) -> None:
    """Ten gigabytes were wanted; the limit is 100 MiB."""
    flood = "for i in $(seq 1 250); do head -c 40000000 /dev/zero > f$i || exit 5; sleep 0.05; done"

    outcome = await executor.run(plans.shell(flood, timeout_s=60, limits=Limits(output_bytes=100 * MIB)))

    assert outcome.error == "ended: its output and files grew beyond 100 MiB"
    assert outcome.outputs == ()


async def test_flood_of_one_stream_is_ended_at_the_narrower_limit(
    executor: ProcessExecutor, plans: Plans
) -> None:
    outcome = await executor.run(plans("yes", limits=Limits(output_bytes=5 * MIB)))

    assert (outcome.exit_code, outcome.error) == (153, "killed by SIGXFSZ: a file grew beyond 5 MiB")
    assert outcome.stdout.size == 5 * MIB < BLOB_BYTES_MAX


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_task_that_fills_the_disk_is_ended_before_it_is_full(
    open_processes: OpenExecutor, plans: Plans, scratch_root: Path
) -> None:
    with small_disk(scratch_root, "160m"):
        flood = "for i in $(seq 1 9); do head -c 20000000 /dev/zero > f$i || exit 5; sleep 0.4; done"
        async with open_processes(bounds=Bounds(reserve_bytes=64 * MIB)) as executor:
            outcome = await executor.run(plans.shell(flood, timeout_s=60))

    assert outcome.error == "ended: it filled the disk of this node to less than 64 MiB free"


async def test_daemonised_child_is_killed_and_the_result_says_so(
    executor: ProcessExecutor, plans: Plans, blobs: TextBlobs
) -> None:
    outcome = await executor.run(plans(PYTHON, "-c", DAEMON, timeout_s=60))

    assert (outcome.exit_code, outcome.error) == (0, "")
    assert not alive(int(blobs.text(outcome.stdout)))
    expected = "meshpeer: killed 1 process that was still running when the task ended\n"
    assert blobs.text(outcome.stderr) == expected


async def test_task_without_a_network_has_a_loopback_and_nothing_else(
    executor: ProcessExecutor, plans: Plans, blobs: TextBlobs, until: Until
) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        look = (
            "import socket; "
            "print(*sorted(name for _, name in socket.if_nameindex()));"
            "server = socket.create_server(('127.0.0.1', 0));"
            "socket.create_connection(server.getsockname()).close(); print('own');"
            f"print(socket.socket().connect_ex(('127.0.0.1', {port})) != 0)"
        )
        alone = await executor.run(plans(PYTHON, "-c", look, network=False))
        open_ = await executor.run(plans(PYTHON, "-c", look))

    if "can't run tasks without a network" in alone.error:
        pytest.skip(alone.error)
    assert (alone.error, blobs.text(alone.stdout).split()) == ("", ["lo", "own", "True"]), blobs.text(
        alone.stderr
    )
    assert blobs.text(open_.stdout).split()[-1] == "False"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_task_without_a_network_has_no_more_rights_than_others(
    executor: ProcessExecutor, plans: Plans, blobs: TextBlobs, uids: range
) -> None:
    outcome = await executor.run(plans("cat", "/proc/self/status", network=False))

    status = dict(line.split(":\t", 1) for line in blobs.text(outcome.stdout).splitlines() if ":\t" in line)
    assert status["Uid"].split() == [str(uids[0])] * 4
    assert {int(status[name], 16) for name in status if name.startswith("Cap")} == {0}
    assert status["NoNewPrivs"].strip() == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_next_task_of_a_slot_finds_nothing_of_the_one_before(
    open_processes: OpenExecutor, plans: Plans, blobs: TextBlobs
) -> None:
    mark = f"meshpeer-left-{os.getpid()}"
    leave = (
        f"umask 0; for d in /tmp /var/tmp /dev/shm; do mkdir -p $d/{mark}/deep; echo x > $d/{mark}/deep/file;"
        f" ln -s /etc $d/{mark}/link; echo y > $d/{mark}-file; chmod 0 $d/{mark}/deep; done;"
        " ipcmk -M 4096 -S 1 -Q"
    )
    look = (
        f"ls -d /tmp/{mark}* /var/tmp/{mark}* /dev/shm/{mark}* 2>/dev/null; ipcs -m -s -q | grep -c $(id -u)"
    )
    async with open_processes(slots=1) as executor:
        left = await executor.run(plans.shell(leave))
        outcome = await executor.run(plans.shell(look))

    assert left.error == "", blobs.text(left.stderr)
    assert blobs.text(outcome.stdout) == "0\n"
    assert exists("/etc/hostname")


async def test_secrets_stand_in_no_command_line_and_no_log(
    executor: ProcessExecutor, plans: Plans, blobs: TextBlobs, until: Until
) -> None:
    secret = f"open-sesame-{os.getpid()}"
    line = 'printf up; printf %s "$TOKEN" > kept; until [ -e go ]; do sleep 0.05; done'
    plan = plans("/bin/sh", "-c", line, key="a", secrets={"TOKEN": secret})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.run, plan)
        await until(lambda: executor.log("a", "stdout", 0, 9) == b"up")
        found = [line for line in command_lines() if secret.encode() in line]
        other = await executor.run(plans.shell("cat /proc/[0-9]*/environ 2>/dev/null"))
        nursery.cancel_scope.cancel()

    assert found == []
    assert secret not in repr(plan)
    if os.geteuid() == 0:  # without users of their own tasks can read each other
        assert secret not in blobs.text(other.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_nothing_is_left_of_the_control_groups(
    open_processes: OpenExecutor, plans: Plans, scratch_root: Path
) -> None:
    async with open_processes() as executor:
        await executor.run(plans("true"))
        name = group_name(scratch_root)
        assert executor.gaps or groups_called(name)

    assert groups_called(name) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_groups_of_an_agent_that_was_killed_are_taken_over(
    open_processes: OpenExecutor, plans: Plans, scratch_root: Path
) -> None:
    async with open_processes() as executor:
        if executor.gaps:
            pytest.skip(executor.gaps[0].what)
        (folder, *_) = groups_called(group_name(scratch_root))
    stale = folder / "slot-7"
    stale.mkdir(parents=True)
    stray = await trio.lowlevel.open_process(["sleep", "600"])
    (stale / "cgroup.procs").write_text(str(stray.pid))

    async with open_processes() as executor:
        outcome = await executor.run(plans("true"))

    assert outcome.error == ""
    assert await stray.wait() == -9
    assert not folder.exists()


@pytest.mark.parametrize("memory", ["16", "none"])
async def test_rlimits_stand_in_where_there_are_no_control_groups(
    open_processes: OpenExecutor, plans: Plans, blobs: TextBlobs, memory: str
) -> None:
    limits = Limits(memory_bytes=256 * MIB if memory == "16" else 0, processes=40, output_bytes=3 * MIB)
    async with open_processes(hierarchies=tuple) as executor:
        assert any("control groups" in gap.what for gap in executor.gaps)
        # A moment's patience: they are narrowed when the task has just started.
        outcome = await executor.run(plans.shell("sleep 0.2; cat /proc/$$/limits", limits=limits))

    seen = {line[:25].strip(): line[25:].split()[:2] for line in blobs.text(outcome.stdout).splitlines()}
    assert seen["Max address space"] == (["268435456"] * 2 if memory == "16" else ["unlimited"] * 2)
    assert seen["Max file size"] == ["3145728"] * 2
    if os.geteuid() == 0:
        assert seen["Max processes"] == ["41", "41"]


async def test_memory_hog_gets_no_more_than_rlimits_give(open_processes: OpenExecutor, plans: Plans) -> None:
    async with open_processes(hierarchies=tuple) as executor:
        limits = Limits(memory_bytes=128 * MIB)
        outcome = await executor.run(plans.shell("sleep 0.2; tail /dev/zero", timeout_s=60, limits=limits))

    assert outcome.error == "exit code 1"  # it was refused memory, and ended itself


def processes_of(uid: int) -> int:
    found = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found += folder.stat().st_uid == uid or f"\nUid:\t{uid}\t" in (folder / "status").read_text()
    return found


def groups_called(name: str) -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").rglob(name) if path.is_dir()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def exists(path: str) -> bool:
    return os.path.exists(path)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()

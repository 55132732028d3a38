"""What only real processes can show: environments, descriptors, signals, daemons, and what stays on disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest
import trio

from meshpeer.adapters.executor import ProcessExecutor, open_executor, scratch
from meshpeer.adapters.executor.usage import LOOK_S, Usage
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.jobs.rules import FILE_BYTES_UNASKED
from meshpeer.runtime.ports import AttemptOutcome, AttemptPlan, BlobRef, Limits, StagedFile


class Plans(Protocol):
    def __call__(self, *argv: str, **rest: object) -> AttemptPlan: ...

    def shell(self, line: str, **rest: object) -> AttemptPlan: ...

    def file(self, path: str, content: str, *, executable: bool = False) -> StagedFile: ...


class Blobs(Protocol):
    def text(self, ref: BlobRef) -> str: ...


class Until(Protocol):
    async def __call__(self, condition: Callable[[], bool]) -> None: ...


OpenExecutor = Callable[..., AbstractAsyncContextManager[ProcessExecutor]]


async def test_time_that_ends_while_the_machine_is_busy_ends_the_attempt(
    executor: ProcessExecutor, plans: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look_for_long(_: Usage) -> bool:
        await trio.sleep(0.3)
        return False

    monkeypatch.setattr(Usage, "exceeds", look_for_long)
    outcome = await executor.run(plans("/bin/sleep", "600", timeout_s=LOOK_S + 0.1))
    assert outcome.error.startswith("timed out after ")


async def test_environment_is_five_names_and_the_plans_own(
    executor: ProcessExecutor, plans: Plans, blobs: Blobs
) -> None:
    outcome = await executor.run(plans("env", env={"FRAME": "7"}))

    variables = dict(line.split("=", 1) for line in blobs.text(outcome.stdout).splitlines())
    scratch = Path(variables["HOME"])
    assert variables == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(scratch),
        "TMPDIR": str(scratch.parent / "tmp"),
        "LANG": "C.UTF-8",
        "FRAME": "7",
    }


async def test_task_starts_in_its_scratch_folder(
    executor: ProcessExecutor, plans: Plans, blobs: Blobs
) -> None:
    outcome = await executor.run(plans.shell('pwd; echo "$HOME"; touch "$TMPDIR/x" && ls -A'))

    here, home = blobs.text(outcome.stdout).splitlines()
    assert here == home


async def test_task_has_three_descriptors(executor: ProcessExecutor, plans: Plans, blobs: Blobs) -> None:
    inheritable = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    outcome = await executor.run(plans.shell("for fd in /proc/$$/fd/*; do readlink $fd; done"))
    os.close(inheritable)

    opened = [Path(line).name for line in blobs.text(outcome.stdout).splitlines()]
    assert opened == ["null", "stdout", "stderr"]


async def test_task_may_open_its_standard_streams_by_name(
    executor: ProcessExecutor, plans: Plans, blobs: Blobs
) -> None:
    outcome = await executor.run(plans.shell("echo one >> /dev/stdout; echo two >> /dev/stderr"))

    assert (blobs.text(outcome.stdout), blobs.text(outcome.stderr)) == ("one\n", "two\n")


async def test_signals_are_as_a_program_expects_them(
    executor: ProcessExecutor, plans: Plans, blobs: Blobs
) -> None:
    outcome = await executor.run(plans("grep", "-E", "SigBlk|SigIgn", "/proc/self/status"))

    blocked, ignored = (int(line.split()[1], 16) for line in blobs.text(outcome.stdout).splitlines())
    own_of_libc = 1 << 31 | 1 << 32  # glibc's posix_spawn ignores these two in every child
    assert (blocked, ignored & ~own_of_libc) == (0, 0)


async def test_processes_in_the_background_end_with_the_task(
    executor: ProcessExecutor, plans: Plans, blobs: Blobs
) -> None:
    outcome = await executor.run(plans.shell("sleep 600 & echo $!; setsid sleep 600 & echo $!"))

    assert outcome.error == ""
    assert [alive(pid) for pid in pids(blobs, outcome)] == [False, False]


async def test_daemon_ends_with_the_task(executor: ProcessExecutor, plans: Plans, blobs: Blobs) -> None:
    daemon = "(setsid sh -c 'trap \"\" TERM HUP; echo $$; while :; do sleep 1; done' &)"
    outcome = await executor.run(plans.shell(f"{daemon}; until [ -s /dev/stdout ]; do :; done"))

    assert outcome.error == ""
    assert [alive(pid) for pid in pids(blobs, outcome)] == [False]


async def test_term_is_sent_before_kill(executor: ProcessExecutor, plans: Plans, blobs: Blobs) -> None:
    outcome = await executor.run(
        plans.shell("trap 'echo saved; exit 9' TERM; echo ready; while :; do sleep 0.01; done", timeout_s=0.3)
    )

    assert (outcome.exit_code, outcome.error) == (9, "timed out after 0.3 s")
    assert blobs.text(outcome.stdout) == "ready\nsaved\n"


async def test_task_that_ignores_term_is_killed(open_processes: OpenExecutor, plans: Plans) -> None:
    async with open_processes(grace_s=0.1) as executor:
        outcome = await executor.run(plans.shell("trap '' TERM; while :; do sleep 1; done", timeout_s=1.5))

    error = "timed out after 1.5 s, and was killed: it did not end within 0.1 s of SIGTERM"
    assert (outcome.exit_code, outcome.error) == (137, error)


async def test_cancelling_ends_the_processes(executor: ProcessExecutor, plans: Plans, until: Until) -> None:
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            executor.run, plans("/bin/sh", "-c", "setsid sleep 600 & echo $! $$; wait", key="a")
        )
        await until(lambda: (executor.log("a", "stdout", 0, 100) or b"").endswith(b"\n"))
        seen += [int(word) for word in (executor.log("a", "stdout", 0, 100) or b"").split()]
        assert [alive(pid) for pid in seen] == [True, True]
        nursery.cancel_scope.cancel()

    assert [alive(pid) for pid in seen] == [False, False]


async def test_dead_helper_is_an_outcome_and_a_new_one_takes_over(
    open_processes: OpenExecutor, plans: Plans, blobs: Blobs, until: Until
) -> None:
    outcomes: list[AttemptOutcome] = []

    async def run(executor: ProcessExecutor, plan: AttemptPlan) -> None:
        outcomes.append(await executor.run(plan))

    async with open_processes(slots=1) as executor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                run, executor, plans("/bin/sh", "-c", "sleep 0.2; echo $$ $PPID; exec sleep 600", key="a")
            )
            await until(lambda: (executor.log("a", "stdout", 0, 100) or b"").endswith(b"\n"))
            task, helper = map(int, (executor.log("a", "stdout", 0, 100) or b"").split())
            os.kill(helper, 9)
        outcomes.append(await executor.run(plans("true")))

    assert [(one.exit_code, one.error) for one in outcomes] == [(None, "the spawn helper died"), (0, "")]
    await until(lambda: not running(task))


async def test_helper_that_died_idle_is_no_ones_business(
    open_processes: OpenExecutor, plans: Plans, blobs: Blobs, until: Until
) -> None:
    async with open_processes(slots=1) as executor:
        helper = int(blobs.text((await executor.run(plans.shell("echo $PPID"))).stdout))
        os.kill(helper, 9)
        await until(lambda: not running(helper))
        outcome = await executor.run(plans("true"))

    assert outcome.error == ""


async def test_nothing_of_the_executor_outlives_it(
    open_processes: OpenExecutor, plans: Plans, blobs: Blobs
) -> None:
    async with open_processes(slots=1) as executor:
        outcome = await executor.run(plans.shell("echo $PPID; touch file; mkdir -p a/b"))

    assert [alive(pid) for pid in pids(blobs, outcome)] == [False]  # and the fixture finds no file


async def test_attempts_run_side_by_side(open_processes: OpenExecutor, plans: Plans, until: Until) -> None:
    async with open_processes(slots=3) as executor, trio.open_nursery() as nursery:
        for key in ("a", "b", "c"):
            nursery.start_soon(executor.run, plans("/bin/sh", "-c", "pwd; exec sleep 600", key=key))
        await until(lambda: all(executor.log(key, "stdout", 0, 200) for key in "abc"))

        assert len({executor.log(key, "stdout", 0, 200) for key in "abc"}) == 3
        nursery.cancel_scope.cancel()


async def test_flood_ends_at_the_size_of_a_file(executor: ProcessExecutor, plans: Plans) -> None:
    outcome = await executor.run(plans("yes"))

    error = "killed by SIGXFSZ: a file grew beyond 64 MiB (limits: {output: SIZE} allows more)"
    assert (outcome.exit_code, outcome.error) == (153, error)
    assert outcome.stdout.size == FILE_BYTES_UNASKED


async def test_one_file_may_be_all_of_the_output_that_was_asked_for(
    executor: ProcessExecutor, plans: Plans
) -> None:
    make = ("/bin/sh", "-c", "truncate -s 65M large")
    asked = await executor.run(plans(*make, outputs=("large",), limits=Limits(output_bytes=128 * 1024**2)))
    assert (asked.error, [one.size for one in asked.outputs]) == ("", [65 * 1024**2])

    unasked = await executor.run(plans(*make, outputs=("large",)))
    assert unasked.error


async def test_command_larger_than_a_message_runs(
    executor: ProcessExecutor, plans: Plans, blobs: Blobs
) -> None:
    words = ["x" * 100_000] * 8

    outcome = await executor.run(plans("/bin/sh", "-c", 'printf %s "$*" | wc -c', "count", *words))

    assert (outcome.error, blobs.text(outcome.stdout).strip()) == ("", "800007")


async def test_command_larger_than_the_kernel_takes_is_an_outcome(
    executor: ProcessExecutor, plans: Plans
) -> None:
    outcome = await executor.run(plans("true", *["x" * 100_000] * 40))

    assert (outcome.exit_code, outcome.error) == (126, "the command line and its variables are too long")


@pytest.mark.parametrize(
    ("content", "executable", "error"),
    [
        ("#!/bin/sh\n", False, "not executable: ./tool (Permission denied)"),
        ("#!/no/such/interpreter\n", True, "not executable: ./tool (its interpreter is missing)"),
        ("not a program", True, "not executable: ./tool (Exec format error)"),
    ],
)
async def test_file_that_is_no_program_is_an_outcome(
    executor: ProcessExecutor, plans: Plans, content: str, executable: bool, error: str
) -> None:
    staged = (plans.file("tool", content, executable=executable),)

    outcome = await executor.run(plans("./tool", staged=staged))

    assert (outcome.exit_code, outcome.error) == (126, error)


async def test_text_that_no_process_can_be_given_is_an_outcome(
    executor: ProcessExecutor, plans: Plans
) -> None:
    outcomes = [
        await executor.run(plan) for plan in (plans("true", "a\0b"), plans("true", env={"A=B": "c"}), plans())
    ]

    assert [(one.exit_code, bool(one.error)) for one in outcomes] == [(None, True)] * 3


async def test_programs_are_found_on_the_tasks_own_path(executor: ProcessExecutor, plans: Plans) -> None:
    staged = (plans.file("bin/tool", "#!/bin/sh\nexit 7\n", executable=True),)

    outcome = await executor.run(plans("tool", staged=staged, env={"PATH": "/usr/bin:bin"}))

    assert outcome.exit_code == 7


async def test_inputs_leave_the_last_of_the_disk_alone(
    executor: ProcessExecutor, plans: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the journal could not be written, and the agent would stop."""

    def no_reflinks(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(scratch.fcntl, "ioctl", no_reflinks)
    monkeypatch.setattr(scratch, "RESERVE_BYTES", 10**18)
    with pytest.raises(EnvironmentFault, match="No space left"):
        await executor.run(plans("true", staged=(plans.file("large", "x" * 2_000_000),)))
    outcome = await executor.run(plans("true", staged=(plans.file("small", "x"),)))
    assert outcome.error == ""


async def test_many_and_large_inputs_are_staged(
    executor: ProcessExecutor, plans: Plans, blobs: Blobs
) -> None:
    many = tuple(plans.file(f"in/{number}", str(number)) for number in range(40))
    large = plans.file("large", "x" * 3_000_000)

    outcome = await executor.run(plans("/bin/sh", "-c", "cat in/* large | wc -c", staged=(*many, large)))

    assert (outcome.error, blobs.text(outcome.stdout).strip()) == ("", str(3_000_000 + 10 + 2 * 30))


async def test_input_that_is_gone_is_the_machines_fault(executor: ProcessExecutor, plans: Plans) -> None:
    file = plans.file("a", "x")
    file.source.unlink()

    with pytest.raises(EnvironmentFault):
        await executor.run(plans("true", staged=(file,)))


async def test_large_output_is_kept_whole(executor: ProcessExecutor, plans: Plans, blobs: Blobs) -> None:
    outcome = await executor.run(plans.shell("yes | head -c 300000 | tee file", outputs=("file",)))

    assert (outcome.error, outcome.outputs[0].size, outcome.stdout.size) == ("", 300_000, 300_000)
    assert outcome.outputs[0].digest == outcome.stdout.digest


@pytest.mark.parametrize(
    ("line", "pattern", "error"),
    [
        ("ln -s /etc/hostname frame-1.ppm", "frame-*.ppm", "output 'frame-1.ppm' is a symbolic link"),
        ("ln -s /etc/hostname frame-1.ppm", "frame-1.ppm", "output 'frame-1.ppm' is a symbolic link"),
        ("mkdir out; ln -s /etc/hostname out/x", "out/", "output 'out/x' is a symbolic link"),
        ("ln -s /etc out", "out/hostname", "output 'out' is a symbolic link"),
        ("ln -s /etc out", "out/", "output 'out' is a symbolic link"),
        ("mkdir a; ln -s /etc a/out", "*/*/hostname", "output '*/*/hostname' is missing"),
        ("mkfifo pipe", "pipe", "output 'pipe' is not a regular file"),
        ("mkdir out", "out", "output 'out' is a folder: write 'out/'"),
        ("mkdir out", "out/", "output 'out/' is missing"),
        ("echo x > out", "out/x", "output 'out' is not a regular file"),
        (
            r"touch $(printf 'a-\377')",
            "a-*",
            r"output 'a-\udcff': it contains half of a character (a lone surrogate)",
        ),
        (r"touch $(printf 'a-\007b')", "a-*", r"output 'a-\x07b': 'a-\x07b' contains a control character"),
    ],
)
async def test_output_that_is_no_file_of_the_task_is_refused(
    executor: ProcessExecutor, plans: Plans, line: str, pattern: str, error: str
) -> None:
    outcome = await executor.run(plans.shell(line, outputs=(pattern,)))

    assert (outcome.exit_code, outcome.error, outcome.outputs) == (0, error, ())


@pytest.mark.parametrize(
    "line",
    [
        "i=0; while [ $i -lt 300 ]; do mkdir d; cd d; i=$((i+1)); done; touch bottom",
        "mkdir -p a/b/c; touch a/b/c/d; chmod 000 a/b; chmod 000 a .",
        "mkdir w; cd w; i=0; while [ $i -lt 200 ]; do : > f$i; i=$((i+1)); done; mkdir a b c",
        "ln -s / root; mkfifo p; ln -s loop loop; touch $TMPDIR/x; chmod 777 . $TMPDIR",
    ],
)
async def test_folder_is_clean_again_whatever_the_task_left(
    open_processes: OpenExecutor, plans: Plans, blobs: Blobs, line: str
) -> None:
    async with open_processes(slots=1) as executor:
        assert (await executor.run(plans.shell(line))).error == ""
        outcome = await executor.run(plans.shell("ls -A . $TMPDIR; stat -c %a . $TMPDIR"))

    assert blobs.text(outcome.stdout).split()[-2:] == ["700", "700"]
    assert len(blobs.text(outcome.stdout).split()) == 4


async def test_scratch_root_has_one_executor(open_processes: OpenExecutor) -> None:
    async with open_processes():
        with pytest.raises(EnvironmentFault, match="another agent"):
            async with open_processes():
                pass


async def test_leftovers_of_a_crash_are_cleared(open_processes: OpenExecutor, scratch_root: Path) -> None:
    left = scratch_root / "slot-9" / "work"
    left.mkdir(parents=True)
    (left / "file").write_text("x")

    async with open_processes():
        assert not left.parent.exists()


async def test_no_slots_is_refused(open_processes: OpenExecutor) -> None:
    with pytest.raises(LocalFault):
        async with open_processes(slots=0):
            pass


async def test_folder_that_is_a_file_is_refused(tmp_path: Path, blobs: Blobs, uids: range) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault):
        async with open_executor(slots=1, scratch_root=tmp_path / "file", blobs=blobs, uids=uids):  # type: ignore[arg-type]
            pass


def pids(blobs: Blobs, outcome: AttemptOutcome) -> list[int]:
    found = [int(word) for word in blobs.text(outcome.stdout).split()]
    assert found
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def running(pid: int) -> bool:
    """Says whether a process has not ended; a zombie has."""
    return any(line.startswith("State:") and "Z" not in line for line in _status(pid))


def _status(pid: int) -> Iterator[str]:
    try:
        yield from Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return

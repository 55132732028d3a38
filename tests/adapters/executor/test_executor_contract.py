"""What every executor promises, asked of real processes and of the one in memory."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import pytest
import trio
import trio.testing

from meshpeer.core.errors import LocalFault
from meshpeer.runtime.ports import AttemptOutcome, AttemptPlan, BlobRef, Executor, Limits, StagedFile
from meshpeer.sim.executor import HungForMemory, Killed, MemoryExecutor, MemoryProcess, Program


class Plans(Protocol):
    def __call__(self, *argv: str, **rest: object) -> AttemptPlan: ...

    def file(self, path: str, content: str, *, executable: bool = False) -> StagedFile: ...


class Blobs(Protocol):
    async def add_bytes(self, data: bytes) -> BlobRef: ...

    def text(self, ref: BlobRef) -> str: ...


class Until(Protocol):
    async def __call__(self, condition: Callable[[], bool]) -> None: ...


class World:
    """An executor, and how it spells the programs of this suite."""

    def __init__(self, executor: Executor, plans: Plans, blobs: Blobs, until: Until, *, shell: bool) -> None:
        self.executor = executor
        self._until = until
        self.blobs = blobs
        self.file = plans.file
        self._plans = plans
        self._shell = shell

    def plan(self, program: str, *arguments: str, **rest: object) -> AttemptPlan:
        argv = ("/bin/sh", "-c", SHELL[program], program) if self._shell and program in SHELL else (program,)
        return self._plans(*argv, *arguments, **rest)

    async def run(self, program: str, *arguments: str, **rest: object) -> AttemptOutcome:
        return await self.executor.run(self.plan(program, *arguments, **rest))

    async def says(self, key: str, text: bytes) -> None:
        """Waits until a running attempt has written this to stdout."""
        await self._until(lambda: self.executor.log(key, "stdout", 0, 100) == text)


async def test_success_has_exit_code_0_and_no_error(world: World) -> None:
    outcome = await world.run("say", "out", "err")

    assert (outcome.exit_code, outcome.error, outcome.outputs) == (0, "", ())
    assert (world.blobs.text(outcome.stdout), world.blobs.text(outcome.stderr)) == ("out", "err")
    assert outcome.started_at_unix_s <= outcome.finished_at_unix_s


async def test_silence_is_the_empty_blob(world: World) -> None:
    outcome = await world.run("say", "", "")

    empty = await world.blobs.add_bytes(b"")
    assert (outcome.stdout, outcome.stderr) == (empty, empty)


async def test_exit_code_other_than_0_is_an_error(world: World) -> None:
    outcome = await world.run("exit", "3")

    assert (outcome.exit_code, outcome.error) == (3, "exit code 3")


async def test_signal_reads_as_128_and_its_number(world: World) -> None:
    outcome = await world.run("crash")

    assert (outcome.exit_code, outcome.error) == (139, "killed by SIGSEGV")


async def test_absent_program_is_an_outcome(world: World) -> None:
    outcome = await world.run("rendr", "--fast")

    assert (outcome.exit_code, outcome.error) == (127, "no such program: rendr")


async def test_time_out_ends_the_attempt_and_keeps_what_it_said(world: World) -> None:
    outcome = await world.run("wait", timeout_s=0.3)

    assert outcome.error == "timed out after 0.3 s"
    assert world.blobs.text(outcome.stdout) == "waiting"


async def test_inputs_stand_at_their_paths(world: World) -> None:
    files = (world.file("a.txt", "one"), world.file("deep/er/b.txt", "two"))

    outcome = await world.run("show", "a.txt", "deep/er/b.txt", staged=files)

    assert (outcome.error, world.blobs.text(outcome.stdout)) == ("", "onetwo")


async def test_content_of_the_agents_own_is_an_input_like_others(world: World) -> None:
    files = (
        StagedFile(path="kit/call", source=b"y" * 70_000 + b"\n"),
        StagedFile(path="kit/run", source=b"#!", executable=True),
    )

    outcome = await world.run("show", "kit/call", staged=files, outputs=("kit/run",))

    assert (outcome.error, world.blobs.text(outcome.stdout)) == ("", "y" * 70_000 + "\n")
    assert [(one.path, one.executable) for one in outcome.outputs] == [("kit/run", True)]


async def test_of_a_failed_attempt_its_report_alone_is_kept(world: World) -> None:
    files = (world.file("report", "why"), world.file("picture", "half"))

    failed = await world.run("exit", "3", staged=files, outputs=("picture",), report="report")
    silent = await world.run("exit", "3", staged=files, outputs=("picture",), report="other")
    fine = await world.run("exit", "0", staged=files, outputs=("picture",), report="report")

    assert [one.path for one in failed.outputs] == ["report"]
    assert (silent.error, silent.outputs) == ("exit code 3", ())
    assert [one.path for one in fine.outputs] == ["picture"]


async def test_a_report_that_holds_a_secret_is_not_kept(world: World) -> None:
    files = (world.file("report", "the token was 12345678"),)

    outcome = await world.run("exit", "3", staged=files, report="report", secrets={"TOKEN": "12345678"})

    assert (outcome.error, outcome.outputs) == ("exit code 3", ())


async def test_modes_of_inputs_reach_outputs(world: World) -> None:
    files = (world.file("tool", "#!/bin/sh\n", executable=True), world.file("data", "x"))

    outcome = await world.run("say", "", "", staged=files, outputs=("tool", "data"))

    assert [(file.path, file.executable) for file in outcome.outputs] == [("data", False), ("tool", True)]


async def test_working_folder_is_made_and_used(world: World) -> None:
    outcome = await world.run("write", "made.txt", "here", cwd="a/b", outputs=("a/b/made.txt",))

    assert (outcome.error, [file.path for file in outcome.outputs]) == ("", ["a/b/made.txt"])


async def test_variables_reach_the_task(world: World) -> None:
    outcome = await world.run("variable", env={"GREETING": "größer = Grüße\nzwei"})

    assert world.blobs.text(outcome.stdout) == "größer = Grüße\nzwei"


async def test_names_and_texts_may_hold_any_character(world: World) -> None:
    path = "Ordner mit Raum/bild-ü-図 [1].txt"

    outcome = await world.run("write", path, "süß\n図", outputs=(path,))

    assert outcome.error == ""
    assert [(file.path, world.blobs.text(_ref(file))) for file in outcome.outputs] == [(path, "süß\n図")]


async def test_outputs_are_paths_patterns_and_folders_sorted(world: World) -> None:
    written = (
        "z.txt",
        "f-2.ppm",
        "f-1.ppm",
        "f-1.log",
        ".f-3.ppm",
        "out/b/c.txt",
        "out/a.txt",
        "other/d.txt",
    )

    outcome = await world.run(
        "write",
        *(word for path in written for word in (path, path)),
        outputs=("z.txt", "f-?.ppm", "out/", "*/d.txt"),
    )

    assert outcome.error == ""
    assert [file.path for file in outcome.outputs] == [
        "f-1.ppm",
        "f-2.ppm",
        "other/d.txt",
        "out/a.txt",
        "out/b/c.txt",
        "z.txt",
    ]
    assert all(world.blobs.text(_ref(file)) == file.path for file in outcome.outputs)


async def test_absent_output_is_an_error_after_exit_code_0(world: World) -> None:
    outcome = await world.run("write", "frame-1.png", "x", outputs=("frame-*.png", "frame-*.ppm"))

    assert (outcome.exit_code, outcome.error, outcome.outputs) == (0, "output 'frame-*.ppm' is missing", ())


async def test_exit_code_wins_over_an_absent_output(world: World) -> None:
    outcome = await world.run("exit", "3", outputs=("frame-*.ppm",))

    assert outcome.error == "exit code 3"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ""])
async def test_input_that_leaves_the_scratch_folder_is_refused(world: World, path: str) -> None:
    outcome = await world.run("say", "ran", "", staged=(world.file(path, "x"),))

    assert outcome.exit_code is None
    assert outcome.error.startswith("input: ")
    assert world.blobs.text(outcome.stdout) == ""


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("cwd", "../x", "cwd: '../x' climbs out of the folder"),
        ("cwd", "/tmp", "cwd: '/tmp' is absolute"),
        ("outputs", ("../x",), "output: '../x' climbs out of the folder"),
    ],
)
async def test_plan_that_leaves_the_scratch_folder_is_refused(
    world: World, field: str, value: object, error: str
) -> None:
    outcome = await world.run("say", "ran", "", **{field: value})

    assert (outcome.exit_code, outcome.error) == (None, error)
    assert world.blobs.text(outcome.stdout) == ""


async def test_two_inputs_at_one_path_are_refused(world: World) -> None:
    files = (world.file("a/same.txt", "1"), world.file("a/same.txt", "2"))

    outcome = await world.run("say", "", "", staged=files)

    assert (outcome.exit_code, outcome.error) == (None, "two inputs stand in each other's way at 'same.txt'")


async def test_attempt_finds_nothing_of_the_one_before(world: World) -> None:
    await world.run("write", "left", "x", "deep/left", "y")

    outcome = await world.run("say", "", "", outputs=("**",))

    assert outcome.error == "output '**' is missing"


async def test_log_is_read_while_the_attempt_runs(world: World) -> None:
    seen: list[bytes | None] = [world.executor.log("a", "stdout", 0, 100)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.executor.run, world.plan("wait", key="a"))
        await world.says("a", b"waiting")
        seen += [world.executor.log("a", "stdout", 2, 3), world.executor.log("a", "stderr", 0, 100)]
        nursery.cancel_scope.cancel()

    assert [*seen, world.executor.log("a", "stdout", 0, 100)] == [None, b"iti", b"", None]


async def test_unknown_stream_is_refused(world: World) -> None:
    with pytest.raises(LocalFault):
        world.executor.log("a", "stdwhat", 0, 1)


async def test_attempts_beyond_the_slots_wait(world: World) -> None:
    async with trio.open_nursery() as nursery:
        for key in ("a", "b"):
            nursery.start_soon(world.executor.run, world.plan("wait", key=key))
            await world.says(key, b"waiting")
        nursery.start_soon(world.executor.run, world.plan("wait", key="c"))
        await trio.testing.wait_all_tasks_blocked(0.01)

        assert world.executor.slots == 2
        assert world.executor.log("c", "stdout", 0, 1) is None
        nursery.cancel_scope.cancel()


async def test_cancelled_attempt_frees_its_slot(world: World) -> None:
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.executor.run, world.plan("wait", key="a"))
            await world.says("a", b"waiting")
            nursery.cancel_scope.cancel()

    assert (await world.run("say", "on", "")).error == ""


async def test_key_that_runs_is_refused(world: World) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.executor.run, world.plan("wait", key="a"))
        await world.says("a", b"waiting")
        with pytest.raises(LocalFault):
            await world.run("wait", key="a")

        assert world.executor.log("a", "stdout", 0, 100) == b"waiting"
        nursery.cancel_scope.cancel()


async def test_secrets_are_variables(world: World) -> None:
    outcome = await world.run("variable", secrets={"GREETING": "open sesame"})

    assert outcome.error == ""
    assert outcome.stdout.size == len("open sesame")


async def test_values_of_secrets_are_masked_in_what_is_read_and_kept(world: World) -> None:
    seen: list[bytes | None] = []
    secrets = {"A": "wait", "B": "aiting"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.executor.run, world.plan("wait", key="a", secrets=secrets))
        await world.says("a", b"w******")
        seen += [world.executor.log("a", "stdout", 2, 3), world.executor.log("a", "stdout", 0, 3)]
        nursery.cancel_scope.cancel()
    outcome = await world.run("say", "before waiting after", "a wait", secrets=secrets)

    assert seen == [b"***", b"w**"]
    assert world.blobs.text(outcome.stdout) == "before w****** after"
    assert world.blobs.text(outcome.stderr) == "a ****"


async def test_output_that_holds_a_secret_is_not_kept(world: World) -> None:
    secrets = {"TOKEN": "open sesame"}

    outcome = await world.run("write", "a", "fine", "b", "x open sesame", outputs=("a", "b"), secrets=secrets)

    assert (outcome.error, outcome.outputs) == ("output 'b' holds the secret TOKEN, and was not kept", ())


async def test_attempt_that_uses_too_much_memory_is_killed_and_says_so(world: World) -> None:
    outcome = await world.run("hog", limits=Limits(memory_bytes=32 << 20))

    if world.executor.gaps:  # rlimits only refuse memory: what a program makes of that is its own affair
        assert outcome.error
    else:
        assert outcome.exit_code == 137
        assert outcome.error == "killed by SIGKILL: it used more than 32 MiB of memory"


async def test_attempt_that_writes_too_much_is_ended_and_says_so(world: World) -> None:
    outcome = await world.run("flood", limits=Limits(output_bytes=1 << 20))

    assert outcome.error == "ended: its output and files grew beyond 1 MiB"


SHELL = {
    "say": 'printf %s "$1"; printf %s "$2" >&2',
    "exit": 'exit "$1"',
    "crash": "kill -SEGV $$",
    "wait": "printf waiting; exec sleep 600",
    "hog": "exec tail /dev/zero",
    "flood": "for i in 1 2 3 4 5; do head -c 400000 /dev/zero > f$i; done; printf done; exec sleep 600",
    "show": 'cat "$@"',
    "variable": 'printf %s "$GREETING"',
    "write": 'while [ $# -gt 0 ]; do mkdir -p "$(dirname "$1")"; printf %s "$2" > "$1"; shift 2; done',
}


async def _say(process: MemoryProcess) -> int:
    process.stdout += process.argv[1].encode()
    process.stderr += process.argv[2].encode()
    return 0


async def _exit(process: MemoryProcess) -> int:
    return int(process.argv[1])


async def _crash(process: MemoryProcess) -> int:
    raise Killed(signal.SIGSEGV)


async def _wait(process: MemoryProcess) -> int:
    process.stdout += b"waiting"
    await trio.sleep_forever()
    return 0


async def _hog(process: MemoryProcess) -> int:
    raise HungForMemory


async def _flood(process: MemoryProcess) -> int:
    process.files.update({f"f{number}": bytes(400_000) for number in range(5)})
    return 0


async def _show(process: MemoryProcess) -> int:
    for name in process.argv[1:]:
        process.stdout += process.files[process.path(name)]
    return 0


async def _variable(process: MemoryProcess) -> int:
    process.stdout += process.env["GREETING"].encode()
    return 0


async def _write(process: MemoryProcess) -> int:
    for name, content in zip(process.argv[1::2], process.argv[2::2], strict=True):
        process.files[process.path(name)] = content.encode()
    return 0


MEMORY: dict[str, Program] = {
    "say": _say,
    "exit": _exit,
    "crash": _crash,
    "wait": _wait,
    "hog": _hog,
    "flood": _flood,
    "show": _show,
    "variable": _variable,
    "write": _write,
}


def _ref(file: object) -> BlobRef:
    return BlobRef(digest=file.digest, size=file.size)  # type: ignore[attr-defined]


OpenExecutor = Callable[[], contextlib.AbstractAsyncContextManager[Executor]]


@pytest.fixture(params=["processes", "memory"])
async def world(
    request: pytest.FixtureRequest, open_processes: OpenExecutor, plans: Plans, blobs: object, until: Until
) -> AsyncIterator[World]:
    if request.param == "memory":
        memory = MemoryExecutor(slots=2, blobs=blobs, programs=MEMORY)  # type: ignore[arg-type]
        yield World(memory, plans, blobs, until, shell=False)  # type: ignore[arg-type]
    else:
        async with open_processes() as executor:
            yield World(executor, plans, blobs, until, shell=True)  # type: ignore[arg-type]

"""Attempts without processes: programs are coroutines, scratch folders are dicts.

It keeps the executor's whole contract (slots, time-outs, outputs, errors, logs, secrets, what an attempt may
take as far as a program says that it takes it), and what a process can't be without is left out: users, and
the file system beyond the scratch folder.
"""

from __future__ import annotations

import posixpath
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.endings import (
    Squeeze,
    exit_error,
    killed_error,
    no_program_error,
    squeezed_error,
    timed_out_error,
    too_much_output_error,
)
from meshpeer.core.jobs.model import FileRef
from meshpeer.core.jobs.outputs import count_error, file_error, missing_error, path_selected, secret_error
from meshpeer.core.jobs.rules import FILE_BYTES_UNASKED, Fault, output_pattern, relative_path
from meshpeer.runtime.ports import AttemptOutcome, AttemptPlan, BlobRef, Blobs, Gap, Limits

NO_LIMITS = Limits()


@dataclass(slots=True, kw_only=True)
class MemoryProcess:
    """What a program sees of the world, and leaves in it."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    files: dict[str, bytes]
    """By path from the scratch folder."""
    executable: set[str]
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    limits: Limits = NO_LIMITS
    network: bool = True

    def path(self, name: str) -> str:
        """Returns the path from the scratch folder of a name relative to the working folder."""
        return posixpath.normpath(posixpath.join(self.cwd, name))


class Killed(Exception):
    """A program raises it to end by a signal."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


class HungForMemory(Exception):
    """A program raises it to be killed for having used more memory than it may."""


Program = Callable[[MemoryProcess], Awaitable[int]]
"""Returns its exit code."""


class MemoryExecutor:
    """Implements ``runtime.ports.Executor``. ``programs`` are found by the first word of a command."""

    def __init__(
        self,
        *,
        slots: int,
        blobs: Blobs,
        programs: Mapping[str, Program],
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._slots = slots
        self._vacancy = trio.Semaphore(slots)
        self._blobs = blobs
        self._programs = programs
        self._unix_s = unix_s
        self._running: dict[str, MemoryProcess | None] = {}
        self._masks: dict[str, tuple[bytes, ...]] = {}

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def isolation(self) -> str:
        return "in memory"

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return ()

    async def run(self, plan: AttemptPlan) -> AttemptOutcome:
        if plan.key in self._running:
            raise LocalFault(f"attempt {plan.key} runs already")
        self._running[plan.key] = None
        try:
            async with self._vacancy:
                return await self._run(plan)
        finally:
            del self._running[plan.key]
            self._masks.pop(plan.key, None)

    def log(self, key: str, stream: str, offset: int, length: int) -> bytes | None:
        if stream not in ("stdout", "stderr") or offset < 0 or length < 0:
            raise LocalFault(f"no {stream!r} from {offset}", "stdout or stderr, from 0 on")
        process = self._running.get(key)
        if process is None:
            return None
        written = process.stdout if stream == "stdout" else process.stderr
        return _masked(bytes(written), self._masks[key])[offset : offset + length]

    async def _run(self, plan: AttemptPlan) -> AttemptOutcome:
        process = MemoryProcess(
            argv=plan.argv,
            env={**dict(plan.env), **dict(plan.secrets)},
            cwd="",
            files={},
            executable=set(),
            limits=plan.limits,
            network=plan.network,
        )
        secrets = tuple(value.encode() for _, value in plan.secrets)
        self._masks[plan.key] = secrets
        self._running[plan.key] = process
        started = self._unix_s()
        exit_code: int | None = None
        outputs: tuple[FileRef, ...] = ()
        error = _stage(plan, process)
        if not error:
            exit_code, error = await self._execute(plan, process)
        finished = self._unix_s()
        selected: list[str] = []
        if not error:
            selected, error = _select(plan, plan.outputs, process)
            selected = [] if error else selected
        elif plan.report:
            selected, unfit = _select(plan, (plan.report,), process)
            selected = [] if unfit else selected
        outputs = tuple([await self._store(process, path) for path in selected])
        return AttemptOutcome(
            exit_code=exit_code,
            error=error,
            started_at_unix_s=started,
            finished_at_unix_s=finished,
            stdout=await self._blobs.add_bytes(_masked(bytes(process.stdout), secrets)),
            stderr=await self._blobs.add_bytes(_masked(bytes(process.stderr), secrets)),
            outputs=outputs,
        )

    async def _execute(self, plan: AttemptPlan, process: MemoryProcess) -> tuple[int | None, str]:
        program = self._programs.get(plan.argv[0])
        if program is None:
            return 127, no_program_error(plan.argv[0])
        ended: tuple[int, str] | None = None
        with trio.move_on_after(plan.timeout_s or float("inf")):
            ended = await _ended(program, process)
        return (128 + signal.SIGTERM, timed_out_error(plan.timeout_s)) if ended is None else ended

    async def _store(self, process: MemoryProcess, path: str) -> FileRef:
        ref: BlobRef = await self._blobs.add_bytes(process.files[path])
        return FileRef(path=path, digest=ref.digest, size=ref.size, executable=path in process.executable)


async def _ended(program: Program, process: MemoryProcess) -> tuple[int, str] | None:
    try:
        code = await program(process)
    except Killed as killed:
        return 128 + killed.number, killed_error(killed.number.name, FILE_BYTES_UNASKED)
    except HungForMemory:
        error = killed_error(signal.SIGKILL.name)
        squeeze = Squeeze(killed_for_memory=1)
        limits = process.limits
        return 128 + signal.SIGKILL, squeezed_error(error, squeeze, limits.memory_bytes, limits.processes)
    bytes_max = process.limits.output_bytes
    if bytes_max and len(process.stdout) + len(process.stderr) + _size(process) > bytes_max:
        return 128 + signal.SIGTERM, too_much_output_error(bytes_max)
    return code, exit_error(code)


def _size(process: MemoryProcess) -> int:
    return sum(map(len, process.files.values()))


def _masked(text: bytes, secrets: tuple[bytes, ...]) -> bytes:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, b"*" * len(secret))
    return text


def _stage(plan: AttemptPlan, process: MemoryProcess) -> str:
    """Puts the inputs in and returns what is wrong with the plan, or nothing."""
    for pattern in plan.outputs:
        fault = output_pattern(pattern)
        if isinstance(fault, Fault):
            return f"output: {fault.what}"
    for file in plan.staged:
        path = relative_path(file.path)
        if isinstance(path, Fault):
            return f"input: {path.what}"
        if path in process.files:
            return f"two inputs stand in each other's way at {path.rpartition('/')[2]!r}"
        source = file.source
        process.files[path] = source if isinstance(source, bytes) else source.read_bytes()
        if file.executable:
            process.executable.add(path)
    cwd = relative_path(plan.cwd) if plan.cwd else ""
    if isinstance(cwd, Fault):
        return f"cwd: {cwd.what}"
    process.cwd = cwd
    return ""


def _select(plan: AttemptPlan, patterns: Sequence[str], process: MemoryProcess) -> tuple[list[str], str]:
    """Returns the paths that the outputs select, and what is wrong with them, or nothing."""
    paths: set[str] = set()
    for pattern in patterns:
        normal = output_pattern(pattern)
        found = {path for path in process.files if isinstance(normal, str) and path_selected(normal, path)}
        if not found:
            return [], missing_error(pattern)
        paths |= found
    faults = [
        count_error(len(paths)),
        *(file_error(path, len(process.files[path])) for path in sorted(paths)),
        *(
            secret_error(path, name)
            for path in sorted(paths)
            for name, value in plan.secrets
            if value.encode() in process.files[path]
        ),
    ]
    return sorted(paths), next(filter(None, faults), "")

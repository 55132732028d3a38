"""The executor: slots, and what one attempt goes through in one.

    wait for a slot -> helper up, folders clean -> inputs staged -> spawned -> ended, all of it dead
      -> stdout, stderr and outputs stored -> folders cleaned -> slot free

Limits, by rlimits on the helper: a file of at most ``BLOB_BYTES_MAX`` (stdout and stderr included: the kernel
ends the task with SIGXFSZ, where a pipe would cost a copy of everything), no core files, descriptors, and
with a uid of its own processes. A task leaves nothing behind: what it put into the background dies with it.

It refuses to know what a job is, where inputs come from, and what becomes of an outcome.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import math
import os
import signal
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from meshpeer.adapters.executor.clearing import clear_folder
from meshpeer.adapters.executor.collecting import OutputFault, collect_outputs, store_file
from meshpeer.adapters.executor.scratch import STREAMS, BadPlan, Scratch, locked_root, translated
from meshpeer.adapters.executor.spawning import Ended, HelperLost, NotStarted, SpawnHelper
from meshpeer.adapters.executor.users import claimed_users
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.jobs.endings import (
    HELPER_DIED,
    exit_error,
    killed_error,
    no_program_error,
    timed_out_error,
)
from meshpeer.core.jobs.model import FileRef
from meshpeer.core.jobs.rules import Fault, output_pattern
from meshpeer.core.wire.limits import BLOB_BYTES_MAX
from meshpeer.runtime.ports import AttemptOutcome, AttemptPlan, BlobRef, Blobs

PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where tasks look for programs. Not the agent's: a virtual environment in root's home is closed to them."""
GRACE_S = 5.0
"""Between SIGTERM and SIGKILL."""
_BUSY = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


@contextlib.asynccontextmanager
async def open_executor(
    *, slots: int, scratch_root: Path, blobs: Blobs, uids: range | None, grace_s: float = GRACE_S
) -> AsyncIterator[ProcessExecutor]:
    """Opens ``slots`` slots under ``scratch_root``, which is this executor's alone and is emptied.

    ``uids`` holds at least one user per slot, for root; nothing else may run as these (it would be killed).
    They are not used where the agent is not root: tasks then run as its own user, as ``isolation`` tells. One
    helper is started at once, so that what can't work fails here, the others with their slots' first
    attempts. On leaving, every helper ends.

    Raises ``LocalFault`` for root without enough uids (tasks never run as root) and ``EnvironmentFault``
    where the folder can't be used or the user not be changed.
    """
    if slots < 1:
        raise LocalFault(f"{slots} slots run nothing", "give at least 1")
    with claimed_users(slots, uids) as users, locked_root(scratch_root):
        if users[0] is not None:
            check_passable(scratch_root)
        with translated(scratch_root):
            await clear_folder(scratch_root)
        executor = ProcessExecutor(
            [Slot(scratch_root, index, uid) for index, uid in enumerate(users)], blobs, grace_s
        )
        try:
            await executor.warm_up()
            yield executor
        finally:
            with trio.CancelScope(shield=True):
                await executor.close()


class Slot:
    """A place for one attempt at a time: a user, a folder and a helper."""

    def __init__(self, root: Path, index: int, uid: int | None) -> None:
        self.index = index
        self.uid = uid
        self.scratch = Scratch(root, index, uid)
        self._helper: SpawnHelper | None = None

    def __lt__(self, other: Slot) -> bool:
        return self.index < other.index

    async def helper(self) -> SpawnHelper:
        """Returns the running helper, or starts one; raises ``EnvironmentFault``."""
        if self._helper is None or not self._helper.alive:
            await self.replace_helper()
        assert self._helper is not None
        return self._helper

    async def replace_helper(self) -> None:
        """Ends a helper that failed, and what it ran: with a uid of its own that is the new one's first
        act."""
        lost, self._helper = self._helper, None
        if lost is not None:
            await lost.kill()
        self._helper = await SpawnHelper.start(self.uid)

    async def close(self) -> None:
        if self._helper is not None:
            await self._helper.close()
            self._helper = None
        with contextlib.suppress(OSError):  # emptied again when it is next opened
            await self.scratch.remove()


class ProcessExecutor:
    """Implements ``runtime.ports.Executor``."""

    def __init__(self, slots: list[Slot], blobs: Blobs, grace_s: float) -> None:
        self._all = slots
        self._free = list(slots)
        self._vacancy = trio.Semaphore(len(slots))
        self._running: dict[str, Slot | None] = {}
        self._blobs = blobs
        self._grace_s = grace_s

    @property
    def slots(self) -> int:
        return len(self._all)

    @property
    def isolation(self) -> str:
        first, last = self._all[0].uid, self._all[-1].uid
        if first is None:
            return "the agent's own user"
        return f"a uid per slot ({first}-{last})" if first != last else f"a uid per slot ({first})"

    async def run(self, plan: AttemptPlan) -> AttemptOutcome:
        """Runs one attempt to its end in a free slot, waiting for one.

        What the plan itself gets wrong (a path that climbs out, a program that is not there) is an outcome;
        nobody here asked for it. Raises ``EnvironmentFault`` where this machine fails, ``LocalFault`` for a
        key that runs already. Cancelled, it returns within the grace and two seconds, with all of the attempt
        dead.
        """
        if plan.key in self._running:
            raise LocalFault(f"attempt {plan.key} runs already")
        self._running[plan.key] = None
        try:
            async with self._vacancy:
                slot = heapq.heappop(self._free)
                try:
                    return await self._run(slot, plan)
                finally:
                    self._running[plan.key] = None
                    with trio.CancelScope(shield=True):
                        await slot.scratch.clean()
                    heapq.heappush(self._free, slot)
        finally:
            del self._running[plan.key]

    def log(self, key: str, stream: str, offset: int, length: int) -> bytes | None:
        """Reads what a running attempt has written so far; raises ``LocalFault`` for another stream."""
        if stream not in STREAMS or offset < 0 or length < 0:
            raise LocalFault(f"no {stream!r} from {offset}", "stdout or stderr, from 0 on")
        slot = self._running.get(key)
        return None if slot is None else slot.scratch.read(stream, offset, length)

    async def warm_up(self) -> None:
        """Starts the first slot's helper; raises ``EnvironmentFault``."""
        await self._all[0].helper()

    async def close(self) -> None:
        """Ends every helper and removes the folders. No attempt may be running."""
        async with trio.open_nursery() as nursery:
            for slot in self._all:
                nursery.start_soon(slot.close)

    async def _run(self, slot: Slot, plan: AttemptPlan) -> AttemptOutcome:
        helper = await slot.helper()
        await slot.scratch.prepare()
        self._running[plan.key] = slot
        started = time.time()
        exit_code: int | None = None
        error = ""
        outputs: tuple[FileRef, ...] = ()
        try:
            patterns = _checked_patterns(plan)
            folder = await slot.scratch.stage(plan.staged, plan.cwd)
            started = time.time()
            exit_code, error = await self._execute(slot, helper, plan, folder)
            if not error and patterns:
                outputs = await self._collect(slot, patterns)
        except (BadPlan, OutputFault) as fault:
            error = str(fault)
        finished = time.time()
        stdout, stderr = [await self._store_log(slot, stream) for stream in STREAMS]
        return AttemptOutcome(
            exit_code=exit_code,
            error=error,
            started_at_unix_s=started,
            finished_at_unix_s=finished,
            stdout=stdout,
            stderr=stderr,
            outputs=outputs,
        )

    async def _execute(
        self, slot: Slot, helper: SpawnHelper, plan: AttemptPlan, folder: Path
    ) -> tuple[int | None, str]:
        """Runs the process to its end and returns exit code and error; then nothing of it is left."""
        try:
            await self._spawn(slot, helper, plan, folder)
            ended = await helper.ended_within(plan.timeout_s or math.inf)
        except HelperLost:
            with trio.CancelScope(shield=True):
                await slot.replace_helper()
            return None, HELPER_DIED
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._stop(slot, helper)
            raise
        if ended is not None:
            return _read_end(plan, ended)
        with trio.CancelScope(shield=True):
            ended = await self._stop(slot, helper)
        exit_code = None if ended is None else _read_end(plan, ended)[0]
        return exit_code, timed_out_error(plan.timeout_s)

    async def _stop(self, slot: Slot, helper: SpawnHelper) -> Ended | NotStarted | None:
        try:
            return await helper.stop(self._grace_s)
        except HelperLost:
            await slot.replace_helper()
            return None

    async def _spawn(self, slot: Slot, helper: SpawnHelper, plan: AttemptPlan, folder: Path) -> None:
        env = {
            "PATH": PATH,
            "HOME": str(slot.scratch.work),
            "TMPDIR": str(slot.scratch.tmp),
            "LANG": "C.UTF-8",
            **dict(plan.env),
        }
        stdout = slot.scratch.writer("stdout")
        try:
            stderr = slot.scratch.writer("stderr")
            try:
                await helper.spawn(plan.argv, env, folder, stdout=stdout, stderr=stderr)
            finally:
                os.close(stderr)
        finally:
            os.close(stdout)

    async def _store_log(self, slot: Slot, stream: str) -> BlobRef:
        return await store_file(slot.scratch.descriptor(stream), slot.scratch.size(stream), self._blobs)

    async def _collect(self, slot: Slot, patterns: list[str]) -> tuple[FileRef, ...]:
        with translated(slot.scratch.folder):
            work = slot.scratch.open_work()
        try:
            return await collect_outputs(work, patterns, slot.uid, self._blobs)
        finally:
            os.close(work)


def check_passable(folder: Path) -> None:
    """Raises ``EnvironmentFault`` where tasks, which run as users of their own, can't pass to ``folder``."""
    for parent in folder.resolve().parents:
        if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
            raise EnvironmentFault(
                f"tasks can't reach {folder}: {parent} is closed to other users",
                "move the folder, or chmod o+x its parents",
            )


def _checked_patterns(plan: AttemptPlan) -> list[str]:
    patterns = [output_pattern(pattern) for pattern in plan.outputs]
    for pattern in patterns:
        if isinstance(pattern, Fault):
            raise BadPlan(f"output: {pattern.what}")
    if not plan.argv:
        raise BadPlan("there is no command")
    texts = (*plan.argv, *(text for pair in plan.env for text in pair))
    if any("\0" in text for text in texts) or any("=" in name or not name for name, _ in plan.env):
        raise BadPlan("an argument or variable can't be given to a process")
    return [pattern for pattern in patterns if isinstance(pattern, str)]


def _read_end(plan: AttemptPlan, ended: Ended | NotStarted) -> tuple[int | None, str]:
    """Returns exit code and error; raises ``EnvironmentFault`` where the machine is to blame."""
    if isinstance(ended, Ended):
        if ended.signal:
            return ended.exit_code, killed_error(_signal_name(ended.signal), BLOB_BYTES_MAX)
        return ended.exit_code, exit_error(ended.exit_code)
    if ended.errno in _BUSY or ended.stage == "folder":
        raise EnvironmentFault(
            f"no task can be started: {os.strerror(ended.errno)}", "see ulimit -u and free memory"
        )
    program = plan.argv[0]
    if ended.stage == "find" and ended.errno == errno.ENOENT:
        return 127, no_program_error(program)
    if ended.errno == errno.E2BIG:
        return 126, "the command line and its variables are too long"
    reason = "its interpreter is missing" if ended.errno == errno.ENOENT else os.strerror(ended.errno)
    return 126, f"not executable: {program} ({reason})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

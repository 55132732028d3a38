"""The executor: slots, and what one attempt goes through in one.

    wait for a slot -> helper up, folders clean -> inputs staged -> bounded -> spawned
      -> ended, all of it dead -> stdout, stderr and outputs stored -> folders cleaned -> slot free

Memory and processes are bounded by the slot's control group, or else by rlimits (``groups``). By rlimits in
any case: the size of one file (stdout and stderr included: the kernel ends the task with SIGXFSZ, where a
pipe would cost a copy of everything), no core files, descriptors. What an attempt writes in all is looked at
while it runs (``usage``). A task leaves nothing behind: what it put into the background dies
with it, and its stderr says so.

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
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from meshpeer.adapters.executor.clearing import clear_folder
from meshpeer.adapters.executor.collecting import OutputFault, collect_outputs, store_file
from meshpeer.adapters.executor.groups import group_name, make_groups, own_hierarchies
from meshpeer.adapters.executor.helper import PROCESSES_MAX
from meshpeer.adapters.executor.masking import mask, mask_file, reach
from meshpeer.adapters.executor.scratch import STREAMS, BadPlan, locked_root, translated
from meshpeer.adapters.executor.slots import Slot
from meshpeer.adapters.executor.spawning import Ended, HelperLost, NotStarted, Rlimits, SpawnHelper
from meshpeer.adapters.executor.usage import LOOK_S, RESERVE_BYTES, Usage
from meshpeer.adapters.executor.users import claimed_users
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.jobs.cgroups import Hierarchy
from meshpeer.core.jobs.endings import (
    HELPER_DIED,
    Squeeze,
    deaf_error,
    disk_filled_error,
    exit_error,
    killed_error,
    left_running_note,
    no_program_error,
    squeezed_error,
    timed_out_error,
    too_much_output_error,
)
from meshpeer.core.jobs.model import FileRef
from meshpeer.core.jobs.rules import FILE_BYTES_UNASKED, Fault, output_pattern
from meshpeer.runtime.ports import AttemptOutcome, AttemptPlan, BlobRef, Blobs, Gap, Limits

PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where tasks look for programs. Not the agent's: a virtual environment in root's home is closed to them."""
GRACE_S = 5.0
"""Between SIGTERM and SIGKILL."""
OUTPUT_BYTES_MAX = 8 * 1024**3
_BUSY = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the node gives to tasks that ask for less or for nothing."""

    memory_bytes: int = 0
    """All tasks together; 0 for most of the machine's."""
    output_bytes: int = OUTPUT_BYTES_MAX
    """stdout, stderr and scratch folder of one attempt; a job may ask for less."""
    reserve_bytes: int = RESERVE_BYTES
    """Of the scratch folders' file system: an attempt that leaves less is ended."""


@contextlib.asynccontextmanager
async def open_executor(
    *,
    slots: int,
    scratch_root: Path,
    blobs: Blobs,
    uids: range | None,
    grace_s: float = GRACE_S,
    bounds: Bounds = Bounds(),
    hierarchies: Callable[[], tuple[Hierarchy, ...]] = own_hierarchies,
) -> AsyncIterator[ProcessExecutor]:
    """Opens ``slots`` slots under ``scratch_root``, which is this executor's alone and is emptied.

    ``uids`` holds at least one user per slot, for root; nothing else may run as these (it would be killed).
    They are not used where the agent is not root: tasks then run as its own user, as ``isolation`` tells. One
    helper is started at once, so that what can't work fails here, the others with their slots' first
    attempts. On leaving, every helper ends. ``hierarchies`` tells where control groups can be made.

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
        groups = await trio.to_thread.run_sync(
            make_groups, group_name(scratch_root), slots, bounds.memory_bytes, hierarchies()
        )
        places = zip(users, groups.slots, strict=True)
        executor = ProcessExecutor(
            [Slot(scratch_root, index, uid, group) for index, (uid, group) in enumerate(places)],
            blobs,
            grace_s,
            bounds,
            _gaps(groups.gap, own_users=users[0] is not None),
        )
        try:
            await executor.warm_up()
            yield executor
        finally:
            with trio.CancelScope(shield=True):
                await executor.close()
                await trio.to_thread.run_sync(groups.remove)


class ProcessExecutor:
    """Implements ``runtime.ports.Executor``."""

    def __init__(
        self, slots: list[Slot], blobs: Blobs, grace_s: float, bounds: Bounds, gaps: tuple[Gap, ...]
    ) -> None:
        self._all = slots
        self._free = list(slots)
        self._vacancy = trio.Semaphore(len(slots))
        self._running: dict[str, Slot | None] = {}
        self._masks: dict[str, tuple[bytes, ...]] = {}
        self._blobs = blobs
        self._grace_s = grace_s
        self._bounds = bounds
        self.gaps = gaps

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
                        await slot.clean()
                    heapq.heappush(self._free, slot)
        finally:
            del self._running[plan.key]
            self._masks.pop(plan.key, None)

    def log(self, key: str, stream: str, offset: int, length: int) -> bytes | None:
        """Reads what a running attempt has written so far; raises ``LocalFault`` for another stream."""
        if stream not in STREAMS or offset < 0 or length < 0:
            raise LocalFault(f"no {stream!r} from {offset}", "stdout or stderr, from 0 on")
        slot = self._running.get(key)
        if slot is None:
            return None
        secrets = self._masks.get(key, ())
        before = min(offset, reach(secrets))
        seen = slot.scratch.read(stream, offset - before, before + length + reach(secrets))
        return mask(seen, secrets)[before : before + length]

    async def warm_up(self) -> None:
        """Starts the first slot's helper; raises ``EnvironmentFault``."""
        await self._all[0].helper()

    async def close(self) -> None:
        """Ends every helper and removes the folders. No attempt may be running."""
        async with trio.open_nursery() as nursery:
            for slot in self._all:
                nursery.start_soon(slot.close)

    async def _run(self, slot: Slot, plan: AttemptPlan) -> AttemptOutcome:
        await slot.scratch.prepare()
        self._masks[plan.key] = tuple(value.encode("utf-8", "replace") for _, value in plan.secrets)
        self._running[plan.key] = slot
        started = time.time()
        exit_code: int | None = None
        error = ""
        outputs: tuple[FileRef, ...] = ()
        try:
            helper = await slot.helper(network=plan.network)
            patterns = _checked_patterns(plan)
            folder = await slot.scratch.stage(plan.staged, plan.cwd)
            started = time.time()
            exit_code, error = await self._execute(slot, helper, plan, folder)
            if not error and patterns:
                outputs = await self._collect(slot, plan, patterns)
            elif error and plan.report:
                with contextlib.suppress(OutputFault):
                    outputs = await self._collect(slot, plan, [plan.report])
        except (BadPlan, OutputFault) as fault:
            error = str(fault)
        finished = time.time()
        stdout, stderr = [await self._store_log(slot, plan, stream) for stream in STREAMS]
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
        limits = self._limits_of(plan)
        rlimits = await slot.limit(limits.memory_bytes, limits.processes, _file_bytes(plan, limits))
        before = slot.group.squeeze()
        try:
            await self._spawn(slot, helper, plan, folder, rlimits)
            ended, reason = await self._ended(slot, helper, plan, limits)
        except HelperLost:
            squeeze = _since(before, slot)
            with trio.CancelScope(shield=True):
                await slot.replace_helper()
            # Once all of its task is dead and memory still full, the kernel turns to the helper.
            if squeeze.killed_for_memory:
                error = killed_error(signal.SIGKILL.name)
                return 128 + signal.SIGKILL, self._squeezed(error, squeeze, limits)
            return None, HELPER_DIED
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._stop(slot, helper)
            raise
        exit_code: int | None
        if reason:
            with trio.CancelScope(shield=True):
                ended, killed = await self._stop(slot, helper)
            exit_code = None if ended is None else _read_end(plan, ended, rlimits)[0]
            error = deaf_error(reason, self._grace_s) if killed else reason
        else:
            assert ended is not None
            exit_code, error = _read_end(plan, ended, rlimits)
            if isinstance(ended, Ended) and ended.left_running:
                slot.scratch.add(STREAMS[1], left_running_note(ended.left_running).encode())
        return exit_code, self._squeezed(error, _since(before, slot), limits)

    async def _ended(
        self, slot: Slot, helper: SpawnHelper, plan: AttemptPlan, limits: Limits
    ) -> tuple[Ended | NotStarted | None, str]:
        """Waits for the end of the process, or for a reason to end it."""
        ends_at = trio.current_time() + (plan.timeout_s or math.inf)
        usage: Usage | None = None
        while True:
            # A busy machine comes back from a look at what is used when the time is over.
            left_s = max(0.0, ends_at - trio.current_time())
            ended = await helper.ended_within(min(left_s, LOOK_S))
            if ended is not None:
                return ended, ""
            if left_s <= LOOK_S:
                return None, timed_out_error(plan.timeout_s)
            if usage is None:  # most attempts are over before
                usage = slot.usage(limits.output_bytes, self._bounds.reserve_bytes)
            if await usage.exceeds():
                return None, too_much_output_error(limits.output_bytes)
            if await usage.fills_the_disk():
                return None, disk_filled_error(self._bounds.reserve_bytes)

    @staticmethod
    def _squeezed(error: str, squeeze: Squeeze, limits: Limits) -> str:
        return squeezed_error(error, squeeze, limits.memory_bytes, limits.processes)

    def _limits_of(self, plan: AttemptPlan) -> Limits:
        asked, most = plan.limits, self._bounds.output_bytes
        return Limits(
            memory_bytes=asked.memory_bytes,
            processes=min(asked.processes or PROCESSES_MAX, PROCESSES_MAX),
            output_bytes=min(asked.output_bytes or most, most),
        )

    async def _stop(self, slot: Slot, helper: SpawnHelper) -> tuple[Ended | NotStarted | None, bool]:
        """Ends the process; returns how it ended, and whether SIGTERM was not enough."""
        try:
            return await helper.stop(self._grace_s)
        except HelperLost:
            await slot.replace_helper()
            return None, False

    async def _spawn(
        self, slot: Slot, helper: SpawnHelper, plan: AttemptPlan, folder: Path, rlimits: Rlimits
    ) -> None:
        env = {
            "PATH": PATH,
            "HOME": str(slot.scratch.work),
            "TMPDIR": str(slot.scratch.tmp),
            "LANG": "C.UTF-8",
            **dict(plan.env),
            **dict(plan.secrets),
        }
        stdout = slot.scratch.writer("stdout")
        try:
            stderr = slot.scratch.writer("stderr")
            try:
                await helper.spawn(plan.argv, env, folder, stdout=stdout, stderr=stderr, rlimits=rlimits)
            finally:
                os.close(stderr)
        finally:
            os.close(stdout)

    async def _store_log(self, slot: Slot, plan: AttemptPlan, stream: str) -> BlobRef:
        descriptor, secrets = slot.scratch.descriptor(stream), self._masks[plan.key]
        if secrets:
            with translated(slot.scratch.folder):
                await trio.to_thread.run_sync(mask_file, descriptor, secrets)
        return await store_file(descriptor, slot.scratch.size(stream), self._blobs)

    async def _collect(self, slot: Slot, plan: AttemptPlan, patterns: list[str]) -> tuple[FileRef, ...]:
        secrets = [(name, value.encode("utf-8", "replace")) for name, value in plan.secrets]
        with translated(slot.scratch.folder):
            work = slot.scratch.open_work()
        try:
            return await collect_outputs(work, patterns, slot.uid, self._blobs, secrets)
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
    pairs = (*plan.env, *plan.secrets)
    texts = (*plan.argv, *(text for pair in pairs for text in pair))
    if any("\0" in text for text in texts) or any("=" in name or not name for name, _ in pairs):
        raise BadPlan("an argument or variable can't be given to a process")
    return [pattern for pattern in patterns if isinstance(pattern, str)]


def _gaps(about_groups: Gap | None, *, own_users: bool) -> tuple[Gap, ...]:
    shared = Gap(
        what="tasks run as this node's own user, and can read its keys",
        hint="run the node as root, or set accept = false under [jobs]",
    )
    return (*(() if own_users else (shared,)), *(() if about_groups is None else (about_groups,)))


def _since(before: Squeeze, slot: Slot) -> Squeeze:
    now = slot.group.squeeze()
    return Squeeze(
        killed_for_memory=now.killed_for_memory - before.killed_for_memory,
        forks_refused=now.forks_refused - before.forks_refused,
    )


def _file_bytes(plan: AttemptPlan, limits: Limits) -> int:
    """Returns what one file may grow to: whoever asks for much output may have it in one piece."""
    return limits.output_bytes if plan.limits.output_bytes else min(limits.output_bytes, FILE_BYTES_UNASKED)


def _read_end(plan: AttemptPlan, ended: Ended | NotStarted, rlimits: Rlimits) -> tuple[int | None, str]:
    """Returns exit code and error; raises ``EnvironmentFault`` where the machine is to blame."""
    if isinstance(ended, Ended):
        if ended.signal:
            return ended.exit_code, killed_error(
                _signal_name(ended.signal), rlimits.file_bytes, asked=bool(plan.limits.output_bytes)
            )
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

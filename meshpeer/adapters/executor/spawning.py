"""The agent's side of one spawn helper: start it, give it a task, wait for the end, end it.

A helper serves one slot, one task at a time, so whoever holds the slot reads the socket itself and no task of
the agent has to stand between. Replies come from an unprivileged process and are parsed as such.
"""

from __future__ import annotations

import array
import contextlib
import functools
import importlib.abc
import marshal
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from meshpeer.adapters.executor import helper as program
from meshpeer.adapters.executor.groups import NO_GROUP, SlotGroup
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.wire.limits import BLOB_BYTES_MAX

START_S_MAX = 20.0
"""An interpreter on a busy small machine takes a second; beyond this it hangs."""
END_S_MAX = 2.0
"""How long SIGKILL may take to show before the helper itself is taken for stopped."""
_BOOT = "import marshal, sys; exec(marshal.load(open(int(sys.argv[4]), 'rb')))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The task ended by itself (``signal`` is 0) or by a signal; nothing of it is left."""

    exit_code: int
    signal: int
    left_running: int = 0
    """Processes that had to be killed when the task's own had ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """``stage`` is ``folder`` (enter it), ``find`` (the program) or ``exec``."""

    stage: str
    errno: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimits:
    """What bounds a task where no control group does; 0 for nothing narrower than the helper's own."""

    address_space_bytes: int = 0
    processes: int = 0
    file_bytes: int = 0


class NetworkKept(Exception):
    """This machine does not let tasks out of its network: the text says why."""


class HelperLost(Exception):
    """The helper is gone or talks nonsense; what it ran may live on until ``SpawnHelper.kill``."""


class SpawnHelper:
    """One running helper."""

    def __init__(self, process: trio.Process, connection: socket.socket, uid: int | None) -> None:
        self._process = process
        self._connection = connection
        self._uid = uid
        self._task_pid = 0

    @classmethod
    async def start(
        cls, uid: int | None, group: SlotGroup = NO_GROUP, *, network: bool = True
    ) -> SpawnHelper:
        """Starts a helper as ``uid`` (None: as the agent's own user) in a control group; raises
        ``EnvironmentFault``, and ``NetworkKept`` where it shall have no ``network``, which can't be.

        With a uid of its own it first kills whatever runs as that user.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs, _memory_file(_code()) as code:
            command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT]
            numbers = (theirs.fileno(), -1 if uid is None else uid, BLOB_BYTES_MAX, code, int(network))
            try:
                process = await trio.lowlevel.open_process(
                    [*command, *map(str, numbers)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), code),
                    start_new_session=True,
                    env={},
                    cwd="/",
                )
            except OSError as error:
                ours.close()
                raise EnvironmentFault(f"the spawn helper did not start: {error.strerror}") from error
        started = cls(process, ours, uid)
        try:
            if group.held:
                await trio.to_thread.run_sync(_enter, group, process.pid)
            await started._greet()
        except BaseException:
            with trio.CancelScope(shield=True):
                await started.kill()
            raise
        return started

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        folder: Path,
        *,
        stdout: int,
        stderr: int,
        rlimits: Rlimits = Rlimits(),
    ) -> None:
        """Hands over a task; ``ended`` tells how it went. Raises ``HelperLost``."""
        self._task_pid = 0
        task = program.pack_task(
            os.fsencode(folder),
            [os.fsencode(one) for one in argv],
            {os.fsencode(name): os.fsencode(value) for name, value in env.items()},
            (rlimits.address_space_bytes, rlimits.processes, rlimits.file_bytes),
        )
        if len(task) < program.MESSAGE_BYTES_MAX:
            await self._send(b"R" + task, stdout, stderr)
            return
        with _memory_file(task) as descriptor:
            await self._send(b"M", stdout, stderr, descriptor)

    async def ended_within(self, patience_s: float) -> Ended | NotStarted | None:
        """Waits for the end of the task, but no longer than that. Raises ``HelperLost``."""
        ended = None
        with trio.move_on_after(patience_s):
            ended = await self.ended()
        return ended

    async def ended(self) -> Ended | NotStarted:
        """Waits for the task that was handed over; may be cancelled and called again. Raises
        ``HelperLost``."""
        while True:
            match (await self._receive()).split():
                case ["ended", status, killed]:
                    return _parse_status(_number(status), _number(killed))
                case ["failed", stage, number]:
                    return NotStarted(stage=stage, errno=_number(number))
                case ["pid", number]:
                    self._task_pid = _number(number)
                case _:
                    raise HelperLost

    async def stop(self, grace_s: float) -> tuple[Ended | NotStarted, bool]:
        """Ends the task: SIGTERM to its group, after ``grace_s`` SIGKILL to all of it. Bounded in time.
        Says, too, whether it came to the second.

        Raises ``HelperLost`` where the helper does not answer even then (a task may stop its own user's
        processes).
        """
        for request, patience_s in ((b"T", grace_s), (b"K", END_S_MAX)):
            await self._send(request)
            ended = await self.ended_within(patience_s)
            if ended is not None:
                return ended, request == b"K"
        raise HelperLost

    async def close(self) -> None:
        """Lets an idle helper go, by force where it does not."""
        self._connection.close()
        with trio.move_on_after(END_S_MAX):
            await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """Kills the helper, and without a uid of its own the task it told of.

        With one, the helper that comes next kills the rest.
        """
        self._connection.close()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._uid is None and self._task_pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._task_pid, signal.SIGKILL)

    async def _greet(self) -> None:
        try:
            with trio.fail_after(START_S_MAX):
                word, _, reason = (await self._receive()).partition(" ")
        except (HelperLost, trio.TooSlowError) as error:
            raise EnvironmentFault(
                "the spawn helper did not start", f"see whether `{sys.executable} -I -S -c pass` works"
            ) from error
        if word == "kept":
            raise NetworkKept(reason)
        if word != "ready":
            raise EnvironmentFault(
                f"the spawn helper can't become {self._user}: {reason}",
                "run the agent as an ordinary user, or with the right to switch users",
            )

    @property
    def _user(self) -> str:
        return "an unprivileged process" if self._uid is None else f"uid {self._uid}"

    async def _send(self, request: bytes, *descriptors: int) -> None:
        rights: Final = array.array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        while True:
            try:
                self._connection.sendmsg([request], ancillary)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._connection.fileno())
            except OSError as error:
                raise HelperLost from error
            else:
                return

    async def _receive(self) -> str:
        await trio.lowlevel.wait_readable(self._connection.fileno())
        try:
            reply = self._connection.recv(program.REPLY_BYTES_MAX)
        except OSError as error:
            raise HelperLost from error
        if not reply:
            raise HelperLost
        return reply.decode("utf-8", "replace")


def _enter(group: SlotGroup, pid: int) -> None:
    try:
        group.enter(pid)
    except ProcessLookupError:  # it has ended, which the greeting will show
        pass
    except OSError as error:
        raise EnvironmentFault(
            f"a task can't be put into its control group: {error.strerror}", "restart the agent"
        ) from error


@functools.cache
def _code() -> bytes:
    """Returns the helper, compiled: compiling itself would cost each helper a megabyte for life.

    The cache beside the source may be stale, where Python is told not to write it; the loader knows.
    """
    loader = program.__spec__.loader
    assert isinstance(loader, importlib.abc.InspectLoader)
    return marshal.dumps(loader.get_code(program.__name__))


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("meshpeer", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _parse_status(status: int, left_running: int) -> Ended:
    try:
        code = os.waitstatus_to_exitcode(status)
    except ValueError as error:
        raise HelperLost from error
    if code >= 0:
        return Ended(exit_code=code, signal=0, left_running=left_running)
    return Ended(exit_code=128 - code, signal=-code, left_running=left_running)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise HelperLost
    return int(text)

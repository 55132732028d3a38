"""The process of a userspace WireGuard: started, found again, stopped.

It runs in a session of its own and is nobody's child, so it outlives the agent and leaves no zombie; the
next agent finds it by its file of the process id. Under systemd, which ends all that a service has started,
that is not enough: there the agent asks for it by a file, and a unit of its own takes the file away, writes
the file of the process id and becomes the program. ``wg`` reaches it by a socket named after the interface,
in a folder that all programs share: a socket that somebody else answers is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import trio

from meshpeer.adapters.wireguard.tools import TOOL_S_MAX, require_tool, tool_environment
from meshpeer.adapters.wireguard.uapi import move_endpoint
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey

UAPI_FOLDER = Path("/var/run/wireguard")
"""Where ``wg`` looks (wireguard-tools, ipc-uapi-unix.h)."""
STOP_S_MAX = 2.0
POLL_S = 0.005
UNIT_VARIABLE = "MESHPEER_WIREGUARD_UNIT"
"""Names the unit that starts the program when asked, where there is one."""
_DETACH = 'exec "$0" "$@" >/dev/null 2>"$MESHPEER_PROGRAM_LOG" </dev/null & echo $!'


class UserspaceProcess:
    """The process that serves one interface."""

    def __init__(self, interface: str, program: Sequence[str]) -> None:
        self._interface = interface
        self._program = tuple(program)
        self._socket = UAPI_FOLDER / f"{interface}.sock"
        self._pid_file = UAPI_FOLDER / f"{interface}.meshpeer.pid"
        self._log = UAPI_FOLDER / f"{interface}.meshpeer.log"
        self._request = request_file(interface)
        self._unit = os.environ.get(UNIT_VARIABLE, "")

    def argv(self) -> list[str]:
        """Returns the command: words with ``{interface}`` filled in, or as wireguard-go takes it where none
        has that.

        The program has to stay in the foreground.
        """
        if any("{interface}" in word for word in self._program):
            return [word.replace("{interface}", self._interface) for word in self._program]
        return [*self._program, "--foreground", self._interface]

    def pid(self) -> int | None:
        """Returns the process id where the process of the file still runs and is ours, not another's that
        came after."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if {word.encode() for word in self.argv()[1:]} <= set(words):
                return pid
        return None

    def answers(self) -> bool:
        """Says whether somebody serves the interface's socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket))
            except OSError:
                return False
        return True

    async def move_endpoint(self, key: WireGuardKey, endpoint: str) -> bool:
        """Sets a peer's endpoint, in numbers, and nothing else; says whether that was done."""
        return await move_endpoint(self._socket, key, endpoint)

    async def start(self) -> None:
        """Starts the program and waits for its interface; raises ``EnvironmentFault`` with the program's own
        words."""
        # One whose interface was deleted is on its way out, and takes the socket of that name along.
        await self.stop()
        if self.answers():
            raise EnvironmentFault(
                f"another program serves {self._socket}",
                "stop it, or choose another name: [wireguard] interface in meshpeer.toml",
            )
        argv = self.argv()
        argv[0] = require_tool(argv[0])
        try:
            if self._unit:
                self._request.touch()
            else:
                await self._detach(argv)
        except OSError as error:
            raise EnvironmentFault(f"`{argv[0]}` could not be started: {error}") from error
        with trio.move_on_after(TOOL_S_MAX):
            while self._is_coming():
                if self.pid() is not None and self.answers():
                    self._request.unlink(missing_ok=True)
                    return
                await trio.sleep(POLL_S)
        said = self._last_words()
        await self.stop()
        raise EnvironmentFault(
            f"`{' '.join(argv)}` did not bring up {self._interface}: {said}",
            f"journalctl -u {self._unit} -n 20" if self._unit else "run it by hand to see why",
        )

    async def stop(self) -> None:
        """Ends the process, with force where asking is not enough; none is no error."""
        # A request that is left would bring it back.
        self._remove(self._request)
        for word in (signal.SIGTERM, signal.SIGKILL):
            pid = self.pid()
            if pid is None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, word)
            await self._gone(pid)
        self._clear()

    def _is_coming(self) -> bool:
        # The unit writes the file of the process id before it takes the request away.
        return (bool(self._unit) and self._request.exists()) or self.pid() is not None

    async def _gone(self, pid: int) -> None:
        with trio.move_on_after(STOP_S_MAX):
            # It is nobody's child here, so there is no exit to wait for.
            while self.pid() == pid:  # noqa: ASYNC110
                await trio.sleep(POLL_S)

    def _clear(self) -> None:
        """Makes the folder, and takes away what a process that is gone left in it."""
        try:
            UAPI_FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(error) from error
        self._remove(self._pid_file, self._log, *([] if self.answers() else [self._socket]))

    def _remove(self, *paths: Path) -> None:
        try:
            for path in paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _not_writable(error) from error

    def _last_words(self) -> str:
        said = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return said[-1] if said else "it said nothing"

    async def _detach(self, argv: Sequence[str]) -> None:
        """Runs a shell that starts the program in the background, says its process id and goes."""
        # Unless it is told to be in the foreground, wireguard-go prints a box about the kernel module.
        environment = {
            "WG_PROCESS_FOREGROUND": "1",
            "LOG_LEVEL": "error",
            "MESHPEER_PROGRAM_LOG": str(self._log),
        }
        done = await trio.run_process(
            ["/bin/sh", "-c", _DETACH, *argv],
            capture_stdout=True,
            start_new_session=True,
            cwd="/",
            check=False,
            env={**tool_environment(), **environment},
        )
        self._pid_file.write_bytes(done.stdout)


def unit_script(interface: str, folder: Path = UAPI_FOLDER) -> str:
    """Returns what a unit runs by ``sh -c`` with the program's words after it, whenever ``request_file`` is
    there.

    It says its process id before it takes the request away, so that whoever asked can tell that it failed.
    """
    at = folder / f"{interface}.meshpeer"
    return f'echo $$ >{at}.pid && rm -f {at}.wanted && exec "$0" "$@" 2>{at}.log'


def request_file(interface: str, folder: Path = UAPI_FOLDER) -> Path:
    """Returns the file by which the agent asks for the program."""
    return folder / f"{interface}.meshpeer.wanted"


def _not_writable(error: OSError) -> EnvironmentFault:
    return EnvironmentFault(f"{UAPI_FOLDER} can't be written: {error.strerror}", "run as root")

"""The Python that runs functions of jobs on this machine: found where tasks look for programs, and asked for
its version once.

It is asked as a user without rights where the agent is root: whoever may write to an interpreter that the
settings name must not run anything as root by that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable

import trio

from meshpeer.adapters.interpreter import kit
from meshpeer.core.errors import EnvironmentFault
from meshpeer.runtime.ports import PythonFound

ASK_S = 20.0
NOBODY = 65_534
_NAMED = re.compile(r"python([0-9]+\.[0-9]+)", re.ASCII)
_ASK = "import sys; print('%d.%d' % sys.version_info[:2])"
_HINT = "install python3, or name one that every user may run as python under [jobs] in meshpeer.toml"


class TaskInterpreter:
    """Implements ``runtime.ports.Interpreter``. ``named`` is a path, or empty for the first python3 in
    ``path``."""

    def __init__(self, named: str, path: str, ask: Callable[[str], str] | None = None) -> None:
        self._named = named
        self._path = path
        self._ask = ask or ask_version
        self._asking = trio.Lock()
        self._known: tuple[tuple[str, int, int], PythonFound] | None = None

    @property
    def kit(self) -> bytes:
        return kit.kit()

    @property
    def cloudpickle(self) -> str:
        return kit.cloudpickle_version()

    def likely_version(self) -> str:
        """Returns the version that the program's own name says, as ``python3.11`` does, without asking it;
        empty where it says none."""
        program = self._named or shutil.which("python3", path=self._path) or ""
        named = _NAMED.fullmatch(os.path.basename(os.path.realpath(program)))
        return named[1] if named is not None else ""

    async def find(self) -> PythonFound:
        """Returns the interpreter; asks it anew where its file changed. Raises ``EnvironmentFault``."""
        program = self._named or shutil.which("python3", path=self._path)
        if not program:
            raise EnvironmentFault(f"this node has no python3 for tasks in {self._path}", _HINT)
        try:
            status = os.stat(program)
        except OSError as error:
            raise EnvironmentFault(
                f"this node's Python for tasks, {program}, is not there: {error.strerror}", _HINT
            ) from error
        marks = (program, status.st_ino, status.st_mtime_ns)
        async with self._asking:  # the first attempts of a job come together
            if self._known is None or self._known[0] != marks:
                version = await trio.to_thread.run_sync(self._ask, program)
                self._known = (marks, PythonFound(program=program, version=version))
            return self._known[1]


def ask_version(program: str) -> str:
    """Runs an interpreter for its version, such as ``3.11``; raises ``EnvironmentFault``."""
    root = os.geteuid() == 0
    try:
        ended = subprocess.run(
            [program, "-I", "-S", "-c", _ASK],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ASK_S,
            cwd="/",
            env={},
            check=False,
            user=NOBODY if root else None,
            group=NOBODY if root else None,
            extra_groups=() if root else None,
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFault(f"{program} does not say its version", _HINT) from error
    except OSError as error:
        raise EnvironmentFault(f"{program} can't be run: {error.strerror}", _HINT) from error
    version = ended.stdout.decode("ascii", "replace").strip()
    if ended.returncode or not version.replace(".", "").isdecimal():
        raise EnvironmentFault(f"{program} is no Python 3 that works", _HINT)
    return version

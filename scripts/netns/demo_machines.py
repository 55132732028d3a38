"""Where the demo's three agents live: in a lab's nodes, or side by side on this machine's loopback.

Both look the same to the story: machines with a name, on which commands run. Both can be left running, and
both end completely when they are not.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from meshlab import Lab, missing_on_this_machine
from meshlab.kept import attach, start_kept
from meshlab.node import Node, node_environment
from meshlab.registry import LabRecord, end_lab, find_lab
from meshlab.spec import parse_lab

NAMES = ("alpha", "bravo", "charlie")
END_TIMEOUT_S = 10.0
CHECKOUT = Path(__file__).resolve().parents[2]
_LAB_FILE = Path(__file__).with_name("labs") / "lan3.toml"
_PR_SET_CHILD_SUBREAPER = 36


class Machine(Protocol):
    """One machine of the demo. ``agent_flags`` are what ``init`` and ``join`` need in addition there."""

    name: str
    agent_flags: tuple[str, ...]

    def popen(
        self, argv: Sequence[str], *, stdout: int | None = None, stderr: int | None = None
    ) -> subprocess.Popen[str]: ...


class Machines(Protocol):
    """All of them."""

    has_interfaces: bool
    started: bool

    def start(self) -> None: ...
    def all(self) -> Sequence[Machine]: ...
    def describe(self) -> str: ...
    def how_to_use(self) -> str: ...
    def logs(self) -> str: ...
    def end(self) -> None: ...


def choose_machines(*, rootless: bool, keep: bool) -> Machines:
    """Returns lab machines where this machine can make them, else machines on loopback; says what was
    missing."""
    if rootless:
        return LoopbackMachines("as asked")
    if lacking := missing_on_this_machine() or _missing_for_interfaces():
        return LoopbackMachines(f"missing here for real ones: {lacking}")
    return LabMachines(keep=keep)


def _missing_for_interfaces() -> str | None:
    for tool, package in (("wg", "wireguard-tools"), ("wireguard-go", "wireguard-go")):
        if shutil.which(tool) is None:
            return f"{tool} (package {package})"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun (the module tun)"
    return None


class LabMachines:
    """Nodes of a lab: own network, folders and names, and a real WireGuard interface."""

    has_interfaces = True

    def __init__(self, *, keep: bool) -> None:
        self.started = False
        self._keep = keep
        self._lab: Lab | None = None
        self._record: LabRecord | None = None
        self._nodes: dict[str, Node] = {}

    def start(self) -> None:
        """Raises LabError."""
        if self._keep:
            self._record = find_lab(start_kept(parse_lab(_LAB_FILE)))
            self._nodes = attach(self._record)
        else:
            self._lab = Lab.from_toml(_LAB_FILE)
            self._lab.start()
            self._nodes = dict(self._lab.nodes)
        self.started = True

    def all(self) -> Sequence[Machine]:
        return [_LabMachine(self._nodes[name]) for name in NAMES]

    def describe(self) -> str:
        shown = ", ".join(f"{name} {node.address()}" for name, node in self._nodes.items())
        return f"Three machines in namespaces on one LAN: {shown}."

    def how_to_use(self) -> str:
        name = self._record.name if self._record else ""
        return (
            f"The three machines go on running (lab {name}).\n"
            f"  enter one:  scripts/netns/lab exec {NAMES[0]} -- bash\n"
            f"  run in one: scripts/netns/lab exec {NAMES[0]} -- meshpeer status\n"
            f"  end them:   scripts/netns/lab down {name}"
        )

    def logs(self) -> str:
        return "".join(node.logs() for node in self._nodes.values())

    def end(self) -> None:
        if self._lab is not None:
            self._lab.close()
        if self._record is not None:
            end_lab(self._record)


class _LabMachine:
    agent_flags: tuple[str, ...] = ()

    def __init__(self, node: Node) -> None:
        self.name = node.name
        self._node = node

    def popen(
        self, argv: Sequence[str], *, stdout: int | None = None, stderr: int | None = None
    ) -> subprocess.Popen[str]:
        return self._node.popen(argv, stdout=stdout, stderr=stderr, cwd=CHECKOUT)


class LoopbackMachines:
    """Three agents on this machine, with folders and ports of their own and no interface: links only."""

    has_interfaces = False

    def __init__(self, reason: str) -> None:
        self.started = False
        self._reason = reason
        self._folder = Path()

    def start(self) -> None:
        # An agent that leaves its parent becomes a child of this program, not of init, and so can be ended.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._folder = Path(tempfile.mkdtemp(prefix="meshpeer-demo."))
        # Tasks run as users of their own where this is root: they must be able to pass through.
        self._folder.chmod(0o711)
        for name in NAMES:
            for part in ("state", "run"):
                (self._folder / name / part).mkdir(parents=True, mode=0o700)
            # The demo keeps to its own three agents and to its own files.
            (self._folder / name / "meshpeer.toml").write_text("[mesh]\nmdns = false\nhosts_file = false\n")
        self.started = True

    def all(self) -> Sequence[Machine]:
        return [_LoopbackMachine(name, self._folder / name) for name in NAMES]

    def describe(self) -> str:
        return f"Three agents on this machine's loopback, with no interface ({self._reason})."

    def how_to_use(self) -> str:
        settings = "\n".join(f"    export {k}={v}" for k, v in _settings(self._folder / NAMES[0]).items())
        agents = " ".join(str(pid) for pid in _descendants(os.getpid()))
        return (
            f"The three agents go on running.\n  use {NAMES[0]}, from this folder:\n{settings}\n"
            f"    .venv/bin/meshpeer status\n  end them:\n    kill {agents}; rm -r {self._folder}"
        )

    def logs(self) -> str:
        files = sorted(self._folder.rglob("*.log"))
        return "".join(f"--- {file}\n{file.read_text(errors='replace')[-20_000:]}" for file in files)

    def end(self) -> None:
        if not self.started:
            return
        _end_descendants(signal.SIGTERM, END_TIMEOUT_S)
        _end_descendants(signal.SIGKILL, END_TIMEOUT_S)
        shutil.rmtree(self._folder, ignore_errors=True)


class _LoopbackMachine:
    agent_flags = (
        "--backend=none",
        "--endpoint=127.0.0.1",
        "--listen-port=0",
        "--control-port=0",
        "--web-port=0",
    )

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder

    def popen(
        self, argv: Sequence[str], *, stdout: int | None = None, stderr: int | None = None
    ) -> subprocess.Popen[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("MESHPEER_")}
        environment = {**own, "PATH": node_environment()["PATH"], **_settings(self._folder)}
        nothing = subprocess.DEVNULL
        command = ["env", "--default-signal", *argv]
        return subprocess.Popen(
            command, stdin=nothing, stdout=stdout, stderr=stderr, env=environment, cwd=CHECKOUT, text=True
        )


def _settings(folder: Path) -> dict[str, str]:
    return {
        "MESHPEER_STATE_DIR": str(folder / "state"),
        "MESHPEER_RUN_DIR": str(folder / "run"),
        "MESHPEER_CONFIG": str(folder / "meshpeer.toml"),
    }


def _end_descendants(number: signal.Signals, timeout_s: float) -> None:
    """Signals all processes below this one, and collects them until none is left or time is up."""
    deadline = time.monotonic() + timeout_s
    told: set[int] = set()
    while (pids := set(_descendants(os.getpid()))) and time.monotonic() < deadline:
        for pid in pids - told:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        told |= pids
        _reap()
        time.sleep(0.02)


def _reap() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _descendants(parent: int) -> list[int]:
    """All processes below one, the nearest first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [parent]
    while waiting:
        below = children.get(waiting.pop(0), [])
        found += below
        waiting += below
    return found

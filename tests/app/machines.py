"""Nodes as processes of their own, in folders of their own, on one loopback: what people type, and what they
see; and power cuts."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from meshpeer.adapters.control.client import ControlClient

BOUND_S = 60.0
SETTINGS = """
[mesh]
mdns = false
hosts_file = false
[wireguard]
backend = "none"
[control]
listen_port = 0
web_port = 0
[jobs]
slots = 2
uids = "61500-61515"
"""
"""Users that no other test's agents run tasks as: who holds a user ends whatever runs as it."""


def low_port() -> int:
    """Returns a free port that nobody is given by chance: an agent that starts again wants the one it had."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


class Machines:
    """A mesh of three, the first its founder."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.names = names
        (folder / "settings.toml").write_text(SETTINGS)

    def start(self) -> None:
        first, *others = self.names
        self.run(first, "init", "--name", first, "--control-port", str(low_port()), "--detach")
        invite = self.run(first, "invite", "--quiet", "--uses", str(len(others))).strip()
        for name in others:
            port = str(low_port())
            self.run(name, "join", invite, "--name", name, "--control-port", port, "--detach")
        for name in self.names:
            self.wait(lambda name=name: self.linked(name))  # type: ignore[misc]

    def linked(self, name: str) -> bool:
        peers = self.client(name).peers()
        return len(peers) == len(self.names) - 1 and all(one.link == "up" and one.work for one in peers)

    def run(self, name: str, *words: str, code: int = 0) -> str:
        """Runs a command on a node; returns what it printed, errors behind."""
        done = subprocess.run(
            self._line(name, *words),
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, (name, words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def began(self, name: str, *words: str) -> subprocess.Popen[str]:
        """Starts a command on a node and leaves it running."""
        return subprocess.Popen(
            self._line(name, *words),
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def client(self, name: str) -> ControlClient:
        return ControlClient(self.folder / f"{name}-run" / "agent.sock")

    def cut_power(self) -> None:
        """Ends every agent and its tasks at once, as a power cut would."""
        pids = [self._pid(name) for name in self.names]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for name in self.names:
            self.wait(lambda name=name: not self._answers(name))  # type: ignore[misc]

    def stop(self) -> None:
        for name in self.names:
            if self._answers(name):
                self.run(name, "stop")

    def wait(self, condition: Callable[[], bool], within_s: float = BOUND_S) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, "it did not come to that in time"
            time.sleep(0.05)

    def _answers(self, name: str) -> bool:
        try:
            self.client(name).drain_of()
        except Exception:  # noqa: BLE001  whatever it is, it is no answer
            return False
        return True

    def _pid(self, name: str) -> int:
        """Finds an agent's process by the folder that it was started with."""
        wanted = str(self.folder / name)
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                try:
                    line = (place / "cmdline").read_bytes().decode().split("\0")
                except OSError:
                    continue
                if wanted in line and {"init", "join", "up"} & set(line):
                    return int(place.name)
        raise AssertionError(f"no agent of {name} runs")

    def _line(self, name: str, *words: str) -> list[str]:
        places = ("--state-dir", self.folder / name, "--run-dir", self.folder / f"{name}-run")
        return [sys.executable, "-m", "meshpeer", *map(str, places), *words]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "MESHPEER_CONFIG": str(self.folder / "settings.toml")}


@contextmanager
def mesh_of(folder: Path, *names: str) -> Iterator[Machines]:
    machines = Machines(folder, *names)
    try:
        machines.start()
        yield machines
    finally:
        machines.stop()

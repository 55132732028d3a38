"""An agent as a process, alone in its mesh: the client is for plain code that waits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from meshpeer.adapters.executor import TASKS_PATH
from meshpeer.adapters.interpreter.interpreter import ask_version
from meshpeer.client import connect
from meshpeer.core.errors import NotRunning

START_S_MAX = 90.0
"""On a machine that does much else."""
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
slots = SLOTS
python = "PYTHON"
[log]
level = "error"
"""


@dataclass
class AgentProcess:
    """An agent alone in its mesh, which can be killed and started again."""

    folder: Path
    slots: int = 4
    seed: AgentProcess | None = None
    process: subprocess.Popen[bytes] | None = None
    started: bool = False

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def start(self) -> None:
        settings = SETTINGS.replace("SLOTS", str(self.slots)).replace("PYTHON", python_for_tasks())
        (self.folder / "meshpeer.toml").write_text(settings)
        options = ["--state-dir", self.folder / "state", "--run-dir", self.run_dir]
        options += ["--config", self.folder / "meshpeer.toml"]
        command = [sys.executable, "-m", "meshpeer", *self._command(), "--quiet", *options]
        self.started = True
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        ends_at = time.monotonic() + START_S_MAX
        while True:
            assert self.process.poll() is None
            try:
                connect(self.run_dir)
                return
            except NotRunning:
                assert time.monotonic() < ends_at
                time.sleep(0.05)

    def _command(self) -> list[str]:
        if self.started:
            return ["up"]
        if self.seed is None:
            return ["init", "--name", "alone"]
        port = connect(self.seed.run_dir).status().node.control_port
        asked = [sys.executable, "-m", "meshpeer", "invite", "--quiet", "--run-dir", self.seed.run_dir]
        invite = subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout.decode().strip()
        return ["join", f"127.0.0.1:{port}", "--invite", invite, "--name", "other"]

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)


def python_for_tasks() -> str:
    """Returns a Python of this one's version that every user may run; skips where the machine has none."""
    version = ".".join(map(str, sys.version_info[:2]))
    for name in (f"python{version}", "python3"):
        program = shutil.which(name, path=TASKS_PATH)
        if program and ask_version(program) == version:
            return program
    pytest.skip(f"there is no Python {version} in {TASKS_PATH}, where tasks look for one")


@contextmanager
def agent_process(slots: int = 4, seed: AgentProcess | None = None) -> Iterator[AgentProcess]:
    """Runs an agent in a folder that tasks' users may pass, as pytest's own may not be."""
    folder = Path(tempfile.mkdtemp(prefix="meshpeer-test-"))
    os.chmod(folder, 0o711)
    agent = AgentProcess(folder, slots, seed)
    try:
        agent.start()
        yield agent
    finally:
        agent.stop()
        shutil.rmtree(folder)

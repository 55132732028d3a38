"""What a whole agent tells its service manager, and what it does without tasks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from agents import founded_folder

from meshpeer.adapters.systemd import Notifier
from meshpeer.app.agent import Agent
from meshpeer.app.config import (
    ControlSettings,
    File,
    JobSettings,
    LogSettings,
    MeshSettings,
    Settings,
    WireGuardSettings,
)
from meshpeer.app.options import InitOptions
from meshpeer.app.state import load_state

BOUND_S = 30.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with founded_folder(InitOptions(name="alone", mesh_name="home")) as path:
        yield path


@pytest.fixture
def manager(folder: Path) -> Iterator[socket.socket]:
    """The manager's end of the line."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(folder / "notify"))
        line.settimeout(BOUND_S)
        yield line


def test_the_program_says_when_it_is_ready_that_it_lives_and_that_it_stops(
    folder: Path, manager: socket.socket
) -> None:
    (folder / "meshpeer.toml").write_text(
        '[mesh]\nmdns = false\nhosts_file = false\n[wireguard]\nbackend = "none"\n'
        "[control]\nlisten_port = 0\nweb_port = 0\n[jobs]\naccept = false\n"
    )
    flags = ["--state-dir", "state", "--run-dir", "run", "--config", "meshpeer.toml"]
    agent = subprocess.Popen(
        [sys.executable, "-m", "meshpeer", "up", *flags],
        cwd=folder,
        env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "200000"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        before = heard_until(manager, "READY=1")
        assert before[-1] == ["READY=1", "STATUS=alone in home: 1 of 1 members alive, 0 links"]
        after = [heard(manager), heard(manager)]
        assert after == [["WATCHDOG=1", "STATUS=alone in home: 1 of 1 members alive, 0 links"]] * 2
        agent.send_signal(signal.SIGTERM)
        last = heard_until(manager, "STOPPING=1")
        assert last[-1] == ["STOPPING=1", "STATUS=stopping; tunnels stay up"]
        assert agent.wait(BOUND_S) == 0
    finally:
        agent.kill()
        agent.communicate()


def test_an_agent_that_is_ended_for_having_hung_says_where(folder: Path, manager: socket.socket) -> None:
    program = (
        "import resource, time; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
        "from meshpeer.app.chores import Chores; "
        "Chores.summary = lambda self: (print('hangs', flush=True), time.sleep(1000)); "
        "from meshpeer.app.cli.main import main; main()"
    )
    (folder / "meshpeer.toml").write_text('[wireguard]\nbackend = "none"\n[jobs]\naccept = false\n')
    flags = ["--state-dir", "state", "--run-dir", "run", "--config", "meshpeer.toml", "--control-port", "0"]
    agent = subprocess.Popen(
        [sys.executable, "-c", program, "up", *flags],
        cwd=folder,
        env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "200000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"hangs\n"
        agent.send_signal(signal.SIGABRT)
        _, said = agent.communicate(timeout=BOUND_S)
        assert agent.returncode == -signal.SIGABRT
        assert b"in keep_manager_told" in said
    finally:
        agent.kill()
        agent.wait()


async def test_an_agent_that_nobody_listens_to_tells_nobody(folder: Path) -> None:
    ready = trio.Event()
    settings = settings_of(folder)
    agent = Agent(settings, load_state(settings.state_dir), lambda _: ready.set(), Notifier())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.main)
        with trio.fail_after(BOUND_S):
            await ready.wait()
        # Without tasks it needs no user of their own, no folder for them and no right to change users.
        status = await agent.api.status()
        assert (status.node.isolation, status.node.slots) == ("none: this node runs no tasks", 0)
        assert not (settings.state_dir / "scratch").exists()
        agent.stopping.set()


# --- helpers ------------------------------------------------------------


def settings_of(folder: Path) -> Settings:
    return Settings(
        state_dir=folder / "state",
        run_dir=folder / "run",
        file=File(
            mesh=MeshSettings(mdns=False, hosts_file=False),
            wireguard=WireGuardSettings(backend="none"),
            control=ControlSettings(listen_port=0, web_port=0),
            jobs=JobSettings(accept=False),
            log=LogSettings(level="error"),
        ),
    )


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().splitlines()


def heard_until(manager: socket.socket, fact: str) -> list[list[str]]:
    messages = [heard(manager)]
    while fact not in messages[-1]:
        messages.append(heard(manager))
    return messages

"""One agent for all tests of this folder; puts its helpers on the path: test files are imported by path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshpeer.client import Client, connect

sys.path.insert(0, str(Path(__file__).parent))

from agent_process import AgentProcess, agent_process


@pytest.fixture(scope="session")
def agent() -> Iterator[AgentProcess]:
    with agent_process() as one:
        yield one


@pytest.fixture
def mesh(agent: AgentProcess) -> Client:
    return connect(agent.run_dir)

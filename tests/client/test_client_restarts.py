"""Calls that outlive their agent, and calls that another node makes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from agent_process import AgentProcess, agent_process

from meshpeer.client import Executor, RemoteError, connect

LONG_S = 100.0


@pytest.fixture(scope="module")
def own() -> Iterator[AgentProcess]:
    """An agent that no other file has: it is killed."""
    with agent_process(slots=1) as one:
        yield one


def test_who_waits_for_results_gets_them_although_the_agent_is_killed_meanwhile(own: AgentProcess) -> None:
    gate = own.folder / "gate"

    def work(number: int) -> int:
        while number and not gate.exists():
            time.sleep(0.05)
        return number

    mesh = connect(own.run_dir)
    job = mesh.map(work, range(3))
    came: list[tuple[str, int]] = []
    waiting = threading.Thread(target=lambda: came.extend(job.results(LONG_S)))
    with Executor(mesh) as executor:
        future = executor.submit(work, 7)
        waiting.start()
        wait_for(lambda: job.status().tasks.succeeded == 1)
        own.kill()
        gate.touch()
        own.start()
        assert future.result(LONG_S) == 7
    waiting.join(LONG_S)
    assert sorted(came) == [("call[0]", 0), ("call[1]", 1), ("call[2]", 2)]


def test_calls_that_another_node_makes_bring_values_and_exceptions_home(own: AgentProcess) -> None:
    def work(number: int) -> int:
        time.sleep(0.4)
        if number == 9:
            raise KeyError("nine")
        return number * number

    mesh = connect(own.run_dir)
    with agent_process(slots=4, seed=own) as other:
        wait_for(lambda: mesh.status().members.alive == 2)
        job = mesh.map(work, range(12))
        found = job.gather(LONG_S, return_exceptions=True)
        nodes = set(job.status().done_on)
        assert other.folder.exists()
    assert [one for one in found if isinstance(one, int)] == [n * n for n in range(12) if n != 9]
    error: object = found[9]
    assert isinstance(error, RemoteError)
    assert isinstance(error.__cause__, KeyError)
    assert nodes == {"alone", "other"}


def wait_for(condition: object, within_s: float = 60.0) -> None:
    assert callable(condition)
    ends_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.05)

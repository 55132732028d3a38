"""An agent that is started again takes up the jobs that it owns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from agents import founded_folder, running, settings_of, spec_of, submission, until


async def test_lone_agent_that_stops_in_a_job_brings_it_to_an_end_when_it_is_started_again(
    folder: Path,
) -> None:
    gate = folder / "gate"
    wait = f"until [ -e {gate} ]; do sleep 0.02; done"
    spec = spec_of({"t": {"run": ["sh", "-c", wait], "array": 3}})
    settings = settings_of(folder, slots=1)
    async with running(settings) as agent:
        job = await agent.api.submit(submission(spec))
        await until(lambda: agent.node.scheduler.worker.busy == 1)
    gate.touch()
    async with running(settings) as agent:
        with trio.fail_after(30):
            *_, ended = [one async for one in agent.api.watch(job.id)]
        tasks = await agent.api.tasks(job.id)
    assert ended.state == "succeeded"
    assert [one.state for one in tasks] == ["succeeded"] * 3


@pytest.fixture
def folder() -> Iterator[Path]:
    with founded_folder() as path:
        yield path

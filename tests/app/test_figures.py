"""What an agent's page of figures says of itself, and that alerts ask for what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from agents import founded_folder, running, settings_of, spec_of, submission, until

from meshpeer.adapters.web.page import render
from meshpeer.app.figures import figures_of

ALERTS = Path(__file__).resolve().parents[2] / "docs" / "examples" / "monitoring" / "alerts.yml"


async def test_a_job_at_work_is_counted_at_its_owner(folder: Path) -> None:
    gate = folder / "gate"
    spec = spec_of({"t": {"run": ["sh", "-c", f"until [ -e {gate} ]; do sleep 0.02; done"], "array": 3}})
    async with running(settings_of(folder, slots=1)) as agent:
        job = await agent.api.submit(submission(spec))
        await until(lambda: agent.node.scheduler.worker.busy == 1)
        await until(lambda: figures_of(agent).work.tasks["running"] == 1)
        work = figures_of(agent).work
        assert work.jobs == {"going": 1, "paused": 0, "blocked": 0}
        assert (work.tasks["ready"], work.slots, work.slots_busy, work.attempts_waiting) == (2, 1, 1, 2)
        await agent.api.pause(job.id, True)
        assert figures_of(agent).work.jobs["paused"] == 1
        gate.touch()
        await agent.api.cancel(job.id)
        await until(lambda: figures_of(agent).work.slots_busy == 0)
        assert sum(figures_of(agent).work.jobs.values()) == 0
        assert sum(figures_of(agent).work.tasks.values()) == 0


async def test_alerts_ask_for_labels_that_an_agent_serves(folder: Path) -> None:
    async with running(settings_of(folder)) as agent:
        page = render(figures_of(agent))[0].decode()
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    asked = {
        f'{name}{{{label}="{value}"}}'
        for rule in rules
        for name, label, values in re.findall(r'(meshpeer_\w+)\{(\w+)=~?"([\w|]+)"\}', rule["expr"])
        for value in values.split("|")
    }
    assert len(asked) >= 6
    assert [one for one in sorted(asked) if f"\n{one} " not in page] == []
    assert "\nmeshpeer_certificate_end_timestamp_seconds " in page
    assert "\nmeshpeer_issuer_heard_timestamp_seconds " in page


@pytest.fixture
def folder() -> Iterator[Path]:
    with founded_folder() as folder:
        yield folder

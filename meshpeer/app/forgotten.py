"""What this node says of jobs that it has forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import JobId
from meshpeer.runtime.control import rfc3339

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent


def check_not_forgotten(agent: Agent, job: str) -> None:
    """Raises ``LocalFault`` for the id of a job that ended so long ago that it is known no more."""
    row = agent.node.scheduler.collector.gone.get(JobId(job))
    if row is not None:
        raise LocalFault(
            f"the job {job} is forgotten: it ended at {rfc3339(row.finished_at_us / 1e6)}",
            "history_days under [jobs] says how long jobs are known that are over",
        )

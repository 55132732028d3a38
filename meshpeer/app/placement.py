"""What this node has for tasks, by its settings and its machine: the profile that owners place work by."""

from __future__ import annotations

import os

from meshpeer.app.config import Settings
from meshpeer.app.state import NodeFile
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.jobs.cgroups import tasks_memory
from meshpeer.core.scheduler.collecting import DAY_S, Terms
from meshpeer.core.scheduler.fitting import NO_PYTHON, Profile
from meshpeer.runtime.ports import Interpreter


async def python_of_node(interpreter: Interpreter) -> str:
    """Returns the version of what runs functions on this node, as it says it of itself."""
    try:
        return (await interpreter.find()).version
    except EnvironmentFault:
        return NO_PYTHON


def profile_of_node(settings: Settings, node: NodeFile, slots: int, python: str) -> Profile:
    """Returns what this node says of itself. Memory is what its tasks may use together: it is set aside for
    tasks that ask for some."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    jobs = settings.file.jobs
    return Profile(
        name=node.name,
        region=node.region,
        roles=node.roles,
        labels=tuple(sorted(settings.file.node.labels.items())),
        slots=slots,
        memory_bytes=tasks_memory(total, jobs.memory_bytes_max),
        resources=tuple(sorted((name, count) for name, count in jobs.resources.items() if count)),
        python=python,
    )


def terms_of(settings: Settings) -> Terms:
    """Returns how long this node keeps what there is of jobs that are over."""
    jobs = settings.file.jobs
    return Terms(
        history_s=jobs.history_days * DAY_S,
        results_s=jobs.results_days * DAY_S,
        keep_s_max=jobs.keep_days_max * DAY_S,
    )

"""Whether there is anybody to run the functions of a job that is submitted."""

from __future__ import annotations

from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.model import JobSpec
from meshpeer.core.scheduler.fitting import NO_PYTHON
from meshpeer.core.scheduler.machine import Scheduler


def check_pythons(scheduler: Scheduler, spec: JobSpec) -> None:
    """Raises ``LocalFault`` where the calls of a job were pickled by a Python that no member has: its tasks
    would wait for ever. A member that has no link now, or does not say what it has, may have it."""
    wanted = [task.python.version for task in spec.tasks if task.python is not None and task.python.version]
    if not wanted or not scheduler.knows_all_workers:
        return
    workers = [one for one in scheduler.seats.profiles() if one.slots]
    for version in dict.fromkeys(wanted):
        if workers and not any(one.python in ("", version) for one in workers):
            has = {one.name: one.python for one in workers if one.python != NO_PYTHON}
            others = ", ".join(f"{name} has {python}" for name, python in sorted(has.items())[:5])
            raise LocalFault(
                f"no node runs functions with Python {version} ({others or 'none has any'})",
                f"name a Python {version} as python under [jobs] there, or submit from another Python",
            )

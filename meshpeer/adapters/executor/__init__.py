"""Runs attempts of commands on this machine: unprivileged, in a scratch folder, killed with the agent."""

from meshpeer.adapters.executor.adapter import PATH as TASKS_PATH
from meshpeer.adapters.executor.adapter import Bounds, ProcessExecutor, check_passable, open_executor
from meshpeer.adapters.executor.closed import ClosedExecutor
from meshpeer.adapters.executor.helper import PROCESSES_MAX

__all__ = [
    "PROCESSES_MAX",
    "TASKS_PATH",
    "Bounds",
    "ClosedExecutor",
    "ProcessExecutor",
    "check_passable",
    "open_executor",
]

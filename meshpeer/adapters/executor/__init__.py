"""Runs attempts of commands on this machine: unprivileged, in a scratch folder, killed with the agent."""

from meshpeer.adapters.executor.adapter import ProcessExecutor, check_passable, open_executor

__all__ = ["ProcessExecutor", "check_passable", "open_executor"]

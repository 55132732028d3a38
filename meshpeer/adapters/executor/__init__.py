"""Runs attempts of commands on this machine: unprivileged, in a scratch folder, killed with the agent."""

from meshpeer.adapters.executor.adapter import ProcessExecutor, open_executor

__all__ = ["ProcessExecutor", "open_executor"]

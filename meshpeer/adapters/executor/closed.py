"""An executor that runs nothing: for a node that takes no tasks, which then needs no user, no folder and no
right to change to one."""

from __future__ import annotations

from meshpeer.core.errors import LocalFault
from meshpeer.runtime.ports import AttemptOutcome, AttemptPlan, Gap


class ClosedExecutor:
    """Implements ``runtime.ports.Executor`` by refusing."""

    slots = 0
    isolation = "none: this node runs no tasks"
    gaps: tuple[Gap, ...] = ()

    async def run(self, plan: AttemptPlan) -> AttemptOutcome:
        """Raises ``LocalFault``: its scheduler takes no work."""
        raise LocalFault(f"attempt {plan.key} can't run: this node takes no tasks")

    def log(self, key: str, stream: str, offset: int, length: int) -> bytes | None:
        return None

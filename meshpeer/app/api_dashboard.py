"""Answers where the dashboard is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshpeer.core.errors import EnvironmentFault
from meshpeer.runtime.control import DashboardLink

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent


class DashboardAnswers:
    """The part of the control API that leads to the dashboard."""

    _agent: Agent

    async def dashboard(self) -> DashboardLink:
        """Returns the link with its token; raises ``EnvironmentFault`` where there is no port for it."""
        chores = self._agent.chores
        await self._agent.pages_opened.wait()
        if chores.pages_fault is not None:
            raise EnvironmentFault(
                f"there is no dashboard: {chores.pages_fault.what}", chores.pages_fault.hint
            )
        if not chores.pages_port:
            raise EnvironmentFault(
                "there is no dashboard: no port is set for it", "give a web_port under [control]"
            )
        return DashboardLink(url=chores.access.link(chores.pages_port))

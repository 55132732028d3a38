"""What the dashboard shows: this node's own view. It looks every second, so it asks no other node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshpeer.runtime.control import Job, Peer, Status

if TYPE_CHECKING:
    from meshpeer.app.api import AgentApi


@dataclass(frozen=True, slots=True)
class OwnViews:
    """Implements ``adapters.web.dashboard.Views``."""

    api: AgentApi

    async def status(self) -> Status:
        return await self.api.status()

    async def peers(self) -> list[Peer]:
        return await self.api.peers()

    async def jobs(self) -> list[Job]:
        return self.api.owned_jobs()

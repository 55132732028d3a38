"""The end of this machine's relay before the end of its agent: pairs that it serves go elsewhere first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from meshpeer.core.paths.relay import RETIRE_S_MAX
from meshpeer.core.paths.relay_messages import RelayStops

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

LOOK_S = 0.05
SLACK_S = 1.0
"""For an agent that is busy."""


async def retire_relay(agent: Agent) -> None:
    """Returns once no pair depends on this node as a relay, or when those that do had their time; at once
    where none does."""
    desk = agent.node.relays.desk
    if not desk.reservations:
        return
    pairs = str(len(desk.reservations))
    agent.log.write("info", "pairs that this node relays go elsewhere", (("pairs", pairs),))
    agent.driver.post(RelayStops())
    with trio.move_on_after(RETIRE_S_MAX + SLACK_S):
        while desk.reservations:  # noqa: ASYNC110 - the desk is core, and tells nobody
            await trio.sleep(LOOK_S)

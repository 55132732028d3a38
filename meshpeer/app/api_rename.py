"""Answers the wish to be called otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from meshpeer.app.state import save_node
from meshpeer.core.addressing.labels import check_name
from meshpeer.core.errors import Refused
from meshpeer.core.node.messages import RenameAsked
from meshpeer.runtime.control import Renamed

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent


class RenameAnswers:
    """The part of the control API that is about this node's name."""

    _agent: Agent

    async def rename(self, name: str) -> Renamed:
        """Takes another name, on disk first. Raises ``LocalFault`` for what is no name, ``Refused`` where
        another member has it or this node is in the mesh no more, ``EnvironmentFault`` for a full disk."""
        agent, node = self._agent, self._agent.node
        check_name(name)
        if node.presence.is_silent:
            raise Refused("this node is in the mesh no more", "see `meshpeer status`")
        listed = node.roster.get(node.me)
        before = listed.name if listed else node.presence.name
        for other in node.roster.members:
            if other.name == name and other.node != node.me:
                raise Refused(
                    f"another member is called {name} already",
                    f"choose another name; two nodes of one name would be {name} and {name}-2",
                )
        settled = msgspec.structs.replace(agent.state.node, name=name)
        save_node(agent.settings.state_dir, settled)
        agent.state = replace(agent.state, node=settled)
        agent.driver.step_now(RenameAsked(name=name))
        return Renamed(name=name, before=before)

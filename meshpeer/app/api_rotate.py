"""Answers how a change of this node's WireGuard key stands, and begins one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshpeer.app.next_key import made_unix_s
from meshpeer.app.rotating import begin_rotation
from meshpeer.app.views import name_of
from meshpeer.core.ids import WireGuardKey, wireguard_key_text
from meshpeer.runtime.control import KeyRotation, rfc3339

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent


class RotateAnswers:
    """The part of the control API that is about this node's WireGuard key."""

    _agent: Agent

    async def rotation(self) -> KeyRotation:
        node = self._agent.node
        rotation = node.rekeying.rotation
        made_s = made_unix_s(self._agent.settings.state_dir)
        announced = WireGuardKey(rotation.announced)
        return KeyRotation(
            state=rotation.stage.value,
            public_key=wireguard_key_text(rotation.shown),
            next_public_key=wireguard_key_text(announced) if announced else "",
            previous_public_key=wireguard_key_text(rotation.before) if rotation.before else "",
            made_at=rfc3339(made_s) if made_s is not None else "",
            changed_at=rfc3339(rotation.turned_unix_s) if rotation.turned_unix_s else "",
            ready=rotation.count,
            waiting_for=tuple(name_of(node, one) for one in rotation.awaited),
            missed=tuple(name_of(node, one) for one in rotation.missed),
            held_up=rotation.held_up,
        )

    async def rotate_key(self) -> KeyRotation:
        """Begins; a change that is under way goes on. Raises ``Refused`` and ``EnvironmentFault``."""
        begin_rotation(self._agent)
        return await self.rotation()

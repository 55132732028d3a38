"""Changes this machine's WireGuard key: at a person's word, or by its age."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from meshpeer.app.next_key import made_unix_s, make_next_key
from meshpeer.core.errors import EnvironmentFault, Refused
from meshpeer.core.identity.keys import SEED_BYTES
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.node.roster import Roster
from meshpeer.core.node.rotation import RotationAsked, Stage

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

DAY_S = 86_400.0
AGE_LOOK_S = 600.0
SPREAD = 0.1
"""Of the time between two changes: who was set up with others does not change with all of them."""


def begin_rotation(agent: Agent) -> None:
    """Begins to change the WireGuard key, or goes on with a change that is under way; raises ``Refused``
    where there is none to change, ``EnvironmentFault`` where the next one can't be kept."""
    if agent.wireguard.backend in ("none", "dry-run"):
        raise Refused(
            f"this node has no WireGuard interface (backend {agent.wireguard.backend})",
            "there is no key to change; nobody uses the one in its state folder",
        )
    if agent.node.presence.is_silent:
        raise Refused("this node is in the mesh no more", "see `meshpeer status`")
    if agent.node.rekeying.rotation.stage is Stage.STEADY:
        key = make_next_key(agent.settings.state_dir, os.urandom(SEED_BYTES))
        agent.driver.step_now(RotationAsked(key=key))


async def rotate_by_age(agent: Agent) -> None:
    """Changes the key once it is older than the settings allow; runs until cancelled."""
    days = agent.settings.file.wireguard.rotate_days
    while days:
        made_s = made_unix_s(agent.settings.state_dir)
        now_s = agent.clock.now().unix_s
        if made_s is not None and now_s >= made_s + due_after_s(days, agent.node.me):
            try:
                begin_rotation(agent)
            except EnvironmentFault as fault:
                agent.log.write("warning", fault.what, (("hint", fault.hint),))
            except Refused as refused:
                agent.log.write("info", refused.what, ())
        await trio.sleep(AGE_LOOK_S)


def due_after_s(days: int, node: NodeId) -> float:
    """Returns how old a node's key gets: the days, less up to a tenth, which follows from its id."""
    share = int.from_bytes(node[:4]) / 2**32
    return days * DAY_S * (1.0 - SPREAD * share)


def key_names(roster: Roster) -> dict[WireGuardKey, str]:
    """Returns the members' names by the keys that they have, and those that they change to."""
    coming = {
        WireGuardKey(one.record.next_wireguard_key): one.name
        for one in roster.members
        if one.record.next_wireguard_key
    }
    return coming | {one.record.wireguard_key: one.name for one in roster.members}

"""Answers why the path between two members is what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshpeer.app.spare import silent_since
from meshpeer.app.views import name_of
from meshpeer.app.why_view import Words, why_view
from meshpeer.core.deadline import Instant
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.ids import NodeId
from meshpeer.core.jobs.nearest import did_you_mean
from meshpeer.core.node.looks import TunnelLook
from meshpeer.core.node.node import Node
from meshpeer.core.node.why import Known, explain
from meshpeer.runtime.control import Why, rfc3339

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent


class WhyAnswers:
    """The part of the control API that explains paths."""

    _agent: Agent

    async def why(self, source: str, target: str) -> Why:
        """Explains a path. Raises ``LocalFault`` for a name that no member has, and for one node twice."""
        node, now = self._agent.node, self._agent.clock.now()
        one = _member(node, source) if source else node.me
        other = _member(node, target)
        if one == other:
            raise LocalFault(
                f"{name_of(node, one)} has no path to itself", "name another member: see `meshpeer peers`"
            )

        def port_of(who: NodeId) -> int:
            listed = node.roster.get(who)
            return listed.record.wireguard_port if listed else 0

        words = Words(
            me=node.me, name_of=lambda who: name_of(node, who), port_of=port_of, now_unix_s=now.unix_s
        )
        return why_view(explain(_known(node, now), one, other), words)


def _member(node: Node, text: str) -> NodeId:
    listed = node.roster.named(text)
    if listed is not None:
        return listed.node
    for member in node.ledger:
        if member.leave is not None and member.leave.name == text:
            raise LocalFault(
                f"{text} has left the mesh for good, at {rfc3339(member.leave.issued_at)[:19]}Z",
                "it has no tunnels any more; to be back it joins anew, with an invite",
            )
    near = did_you_mean(text, (one.name for one in node.roster.members))
    raise LocalFault(f"there is no member {text!r}", near or "`meshpeer peers` lists the members")


def _known(node: Node, now: Instant) -> Known:
    tunnels, charter = node.tunnels, node.ledger.charter
    if tunnels.routes is None or charter is None:
        raise EnvironmentFault(
            "this node has no plan yet", "it comes with the first sync: see `meshpeer status`"
        )

    def look(who: NodeId) -> TunnelLook | None:
        listed = node.roster.get(who)
        silent = silent_since(node, who)
        return tunnels.look(listed, node.links.remote_of(who), now, silent) if listed else None

    return Known(
        me=node.me,
        shape=tunnels.routes.shape,
        plan=tunnels.plan,
        shown_keys=frozenset(one.node for one in node.roster.members if one.record.wireguard_port),
        look=look,
        stay=lambda who: tunnels.moves.stay(who, now),
        linked=lambda who: node.links.link_to(who) is not None,
        opinion=node.detector.opinion,
        idle_s=charter.idle_s,
        unix_s=now.unix_s,
        carrier_of=node.links.carrier_of,
        forwarded=node.links.is_forwarded,
    )

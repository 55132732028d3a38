"""Answers what is asked about the charter, and signs the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshpeer.app.founding import refuse_overlap
from meshpeer.core.errors import EnvironmentFault, Refused
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import key_text
from meshpeer.core.node.messages import CharterSigned
from meshpeer.core.records import envelope
from meshpeer.core.records.charters import check_successor
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.subnets import check_subnet
from meshpeer.runtime.control import Charter, CharterChange, rfc3339

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent


class CharterAnswers:
    """The part of the control API that is about mesh-wide settings."""

    _agent: Agent

    async def charter(self) -> Charter:
        return self._charter_view(self._charter())

    async def change_charter(self, change: CharterChange) -> Charter:
        """Signs and spreads the next charter; a change of nothing is none.

        Raises ``Refused`` on a node that may not, ``LocalFault`` for what no mesh can be."""
        agent, old = self._agent, self._charter()
        if not agent.node.ledger.may(agent.node.me, Capability.ADMIN):
            raise Refused(
                "this node may not change the charter: its certificate does not allow `admin`",
                "change it on a node that may (the founder, or one that was invited with `--allow admin`)",
            )
        wanted = {
            field: value for field, value in msgspec.structs.asdict(change).items() if value is not None
        }
        if all(getattr(old, field) == value for field, value in wanted.items()):
            return self._charter_view(old)
        new = msgspec.structs.replace(
            old,
            version=old.version + 1,
            issued_at=int(agent.clock.now().unix_s),
            author=agent.node.me,
            **wanted,
        )
        held = [one.ipv4 for one in agent.node.roster.members if one.ipv4]
        check_successor(old, new, held)
        if new.subnet != old.subnet:
            hint = "choose another one, or remove the route; other members' routes are theirs to check"
            await refuse_overlap(check_subnet(new.subnet), agent.settings, hint)
        signed = envelope.sign(agent.state.key, agent.node.ledger.mesh, new)
        agent.driver.step_now(CharterSigned(envelope=signed))
        if self._charter() != new:
            raise Refused(
                "somebody else changed the charter at the same moment, and that one holds",
                "look at it (`meshpeer charter show`), and ask again",
            )
        return self._charter_view(new)

    def _charter(self) -> CharterRecord:
        charter = self._agent.node.ledger.charter
        if charter is None:
            raise EnvironmentFault(
                "this node knows no charter yet", "it comes with the first sync: see `meshpeer status`"
            )
        return charter

    def _charter_view(self, charter: CharterRecord) -> Charter:
        node = self._agent.node
        author = node.roster.get(charter.author)
        return Charter(
            version=charter.version,
            changed_at=rfc3339(charter.issued_at),
            changed_by=author.name if author else key_text(charter.author),
            mesh=charter.mesh_name,
            subnet=charter.subnet,
            topology=charter.topology,
            topology_mode=node.tunnels.plan.mode,
            hubs=charter.hubs,
            keepalive_s=charter.keepalive_s,
            mtu=charter.mtu,
            idle_s=charter.idle_s,
            away_max_s=charter.away_max_s,
            wireguard_port=charter.wireguard_port,
        )

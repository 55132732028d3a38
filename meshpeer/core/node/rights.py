"""Rights: what the certificates that count allow at this moment, and who claims more."""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import NodeId
from meshpeer.core.node.roster import Listed
from meshpeer.core.records.ledger import Ledger


def overreach(one: Listed) -> str:
    """Returns what a member's record claims beyond its certificate, and nobody believes; empty for nothing.

    A LAN, a role or a region beyond it is no matter of this: such a record is refused whole."""
    allowed, record = one.identity.capabilities, one.record
    claims = []
    if Capability.HUB not in allowed and (record.hub == "prefer" or record.warm):
        claims.append("a hub")
    if Capability.RELAY not in allowed and record.relay:
        claims.append("a relay")
    return " and ".join(claims)


@dataclass(frozen=True, slots=True)
class Rights:
    """Reads a ledger. This node itself is allowed what no certificate denies it yet."""

    ledger: Ledger
    me: NodeId

    def may_work(self, node: NodeId) -> bool:
        return self._may(node, Capability.WORK)

    def may_submit(self, node: NodeId) -> bool:
        return self._may(node, Capability.SUBMIT)

    def is_revoked(self, node: NodeId) -> bool:
        """Returns whether the node itself was shut out by name, not with an invite or an issuer."""
        return self.ledger.revocations.of_node(node) is not None

    def _may(self, node: NodeId, capability: Capability) -> bool:
        member = self.ledger.get(node)
        if node == self.me and (member is None or member.best is None):
            return True
        return self.ledger.may(node, capability)

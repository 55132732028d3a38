"""Rights: what the certificates that count allow at this moment, as the scheduler asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import NodeId
from meshpeer.core.records.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Rights:
    """Reads a ledger. This node itself is allowed what no certificate denies it yet."""

    ledger: Ledger
    me: NodeId

    def may_work(self, node: NodeId) -> bool:
        return self._may(node, Capability.WORK)

    def may_submit(self, node: NodeId) -> bool:
        return self._may(node, Capability.SUBMIT)

    def _may(self, node: NodeId, capability: Capability) -> bool:
        member = self.ledger.get(node)
        if node == self.me and (member is None or member.best is None):
            return True
        return self.ledger.may(node, capability)

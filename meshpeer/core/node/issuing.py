"""The issuer's work: provisional leaves that were heard of become durable ones, as far as their invites go.

The provisional chain that travels as gossip is the request, and the durable chain that travels back is the
answer: no issuer
needs to be reachable by the joiner, and any issuer may answer.
"""

from __future__ import annotations

from collections.abc import Callable

from meshpeer.core.deadline import Instant
from meshpeer.core.identity.admission import issue_durable, judge_admission
from meshpeer.core.identity.certificates import SERIAL_BYTES, Authority
from meshpeer.core.ids import NodeId
from meshpeer.core.records.ledger import Chain, Ledger


class Issuing:
    """Holds the issuer's key of this node."""

    def __init__(self, issuer: Authority, entropy: Callable[[int], bytes]) -> None:
        self._issuer = issuer
        self._entropy = entropy

    def judge(self, node: NodeId, ledger: Ledger, now: Instant) -> Chain | None:
        """Returns the durable chain to spread for a node that has a place on its invite.

        One node at a time: what is issued must be in the ledger before the next use is counted. With the last
        place the ledger drops whoever waited in vain.
        """
        member = ledger.get(node)
        best = member.best if member else None
        if best is None or best.identity.durable or member is None or member.record is None:
            return None
        if best.leaf != member.record.certificate:
            # Whoever holds the invite's key can sign a leaf for this node; only its record says which it
            # shows.
            return None
        durable = [one.best.identity for one in ledger if one.best and one.best.identity.durable]
        if judge_admission(best.identity, durable) is not None:
            return None
        serial = self._entropy(SERIAL_BYTES)
        return issue_durable(self._issuer, best.identity, now_unix_s=int(now.unix_s), serial=serial)

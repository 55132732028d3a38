"""The gate: how much of what one link, one author or one invite brings is looked at in a second.

It stands behind the checks that cost nothing and before those that cost a signature. What it turns away is
put off, not refused: reconciliation brings it again, and there is room then. Nobody else's facts wait for it.
"""

from __future__ import annotations

from meshpeer.core.counters import Counter
from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.rates import Buckets
from meshpeer.core.records.kinds import MemberRecord, Record, SuspectRecord
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.core.wire.limits import MEMBERS_MAX

LINK_FACTS_PER_S = 200.0
LINK_FACTS_BURST = float(MEMBERS_MAX)
"""Of records, and of chains: a first sync brings the whole table at once."""
ORIGIN_CHANGES_PER_S = 1.0
ORIGIN_CHANGES_BURST = 5.0
LINK_ASKS_PER_S = 200.0
LINK_ASKS_BURST = 2.0 * MEMBERS_MAX
"""Members whose facts one peer may ask for, on whatever links: whole tables when it begins, then what it
lacks. A question is a few bytes, its answer a thousand times as many."""
OBSERVER_SUSPICIONS_PER_S = 2.0
OBSERVER_SUSPICIONS_BURST = 64.0
"""Half a mesh may fall at once, and each observer has a handful of subjects on each ring."""


class RateLimited(PeerFault):
    """Put off, not refused: reconciliation brings it once there is room."""

    def __init__(self, what: str, counter: Counter) -> None:
        super().__init__(what)
        self.counter = counter


class Gate:
    """Token buckets of one node."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._records: Buckets[NodeId] = Buckets(LINK_FACTS_PER_S, LINK_FACTS_BURST)
        self._chains: Buckets[NodeId] = Buckets(LINK_FACTS_PER_S, LINK_FACTS_BURST)
        self._asks: Buckets[NodeId] = Buckets(LINK_ASKS_PER_S, LINK_ASKS_BURST)
        self._origins: Buckets[NodeId] = Buckets(ORIGIN_CHANGES_PER_S, ORIGIN_CHANGES_BURST)
        self._observers: Buckets[NodeId] = Buckets(OBSERVER_SUSPICIONS_PER_S, OBSERVER_SUSPICIONS_BURST)

    def on_up(self, peer: NodeId) -> None:
        """A new link begins with a full burst: what it brings first is the whole table."""
        self._records.forget(peer)
        self._chains.forget(peer)

    def may_ask(self, peer: NodeId, members: int, now: Instant) -> bool:
        """Says whether a question about so many members is answered; a new link brings no new burst."""
        return self._asks.take(peer, now, float(max(1, members)))

    def pass_chain(self, chain: Chain, source: NodeId, now: Instant) -> None:
        """Raises ``RateLimited`` where a chain that is not known comes too early, or is one too many on its
        invite, whose key can certify any number of keys. Nothing of it is checked."""
        if not self._chains.take(source, now):
            raise RateLimited("its link sends too many certificates", Counter.RECORDS_RATE_LIMITED)
        if self._ledger.places.is_full(chain):
            raise RateLimited("as many nodes as may stand on its invite", Counter.INVITES_FULL)

    def pass_record(self, record: Record, source: NodeId, now: Instant) -> None:
        """Raises ``RateLimited`` where a record that is newer than what is held comes too early."""
        if not self._records.take(source, now):
            raise RateLimited("its link sends too many records", Counter.RECORDS_RATE_LIMITED)
        if isinstance(record, SuspectRecord):
            if not self._observers.take(record.observer, now):
                raise RateLimited("its observer suspects too many at once", Counter.ORIGINS_RATE_LIMITED)
        elif isinstance(record, MemberRecord):
            held = self._ledger.get(record.node)
            if held is not None and held.record is not None and not self._origins.take(record.node, now):
                raise RateLimited("its node changes too often", Counter.ORIGINS_RATE_LIMITED)

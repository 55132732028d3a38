"""Gossip: merges facts into the ledger, keeps them on disk, and passes news on.

Flood with dedupe: what the ledger accepts as new goes to every other link once; what it knows goes nowhere. A
digest on every
new link and every 10 s makes losses good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from meshpeer.core.antientropy import reconcile
from meshpeer.core.antientropy.messages import Digest, Facts, Synced, Want
from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Change, Delete, Note, Put, Table
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId, key_text
from meshpeer.core.records import envelope
from meshpeer.core.records.ledger import Chain, Ledger, Member, Verdict
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import RECORD_BYTES_MAX

RECONCILE_INTERVAL_S = 10.0
FORGET_INTERVAL_S = 60.0
CHARTER_KEY = "charter"


class Jitter(Protocol):
    def random(self) -> float: ...


@dataclass(slots=True)
class Outcome:
    """What merging some facts came to: messages to send, rows to write, whose facts changed."""

    sends: list[tuple[NodeId, msgspec.Struct]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    touched: list[NodeId] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    charter: bool = False
    fault: str = ""
    """Why the source of the facts is not worth a link."""


class Gossip:
    """Drives one ledger. Sans-IO."""

    def __init__(self, ledger: Ledger, *, linked: Callable[[], list[NodeId]], jitter: Jitter) -> None:
        self.ledger = ledger
        self._linked = linked
        self._jitter = jitter
        self._reconcile_at_s = 0.0
        self._forget_at_s = 0.0

    # --- start ----------------------------------------------------------------------------------------------

    def restore(
        self, chains: Iterable[bytes], records: Iterable[bytes], charter: bytes | None, now: Instant
    ) -> list[Note]:
        """Merges what the store held; what has expired or no longer holds is left out, with a note."""
        outcome = Outcome()
        for packed in chains:
            for chain in unpack_chains(packed):
                self._admit(chain, outcome, now)
        for record in (*records, *([charter] if charter else [])):
            self._merge(record, outcome, now)
        return outcome.notes

    # --- events ---------------------------------------------------------------------------------------------

    def on_up(self, peer: NodeId) -> Outcome:
        return Outcome(sends=[(peer, digest) for digest in reconcile.digests(self.ledger)])

    def on_digest(self, peer: NodeId, digest: Digest) -> Outcome:
        """Raises ``PeerFault`` for a digest that breaks its form."""
        push, want = reconcile.compare(self.ledger, digest)
        mine = self.ledger.charter.version if self.ledger.charter else 0
        charter = mine > digest.charter_version or (
            mine == digest.charter_version and want is not None and want.charter
        )
        outcome = Outcome(
            sends=[(peer, facts) for facts in reconcile.facts_about(self.ledger, push, charter=charter)]
        )
        if want is not None:
            outcome.sends.append((peer, want))
        if not digest.high:
            outcome.sends.append((peer, Synced(members=len(self.ledger))))
        return outcome

    def on_want(self, peer: NodeId, want: Want) -> Outcome:
        return Outcome(
            sends=[
                (peer, facts)
                for facts in reconcile.facts_about(self.ledger, want.nodes, charter=want.charter)
            ]
        )

    def on_facts(self, peer: NodeId, facts: Facts, now: Instant) -> Outcome:
        """Merges what holds; what does not is refused one by one, since clocks differ between honest
        nodes."""
        return self.spread(facts.chains, facts.records, now, source=peer)

    def spread(
        self, chains: Iterable[Chain], records: Iterable[bytes], now: Instant, *, source: NodeId | None = None
    ) -> Outcome:
        """Merges facts and passes on what was news, to everyone but the source."""
        outcome = Outcome()
        new_chains = [chain for chain in chains if self._admit(chain, outcome, now)]
        new_records = [record for record in records if self._merge(record, outcome, now)]
        groups: list[tuple[list[Chain], list[bytes]]] = [([chain], []) for chain in new_chains]
        for record in new_records:
            behind = [chain for chain in self._chains_of_news(record) if chain not in new_chains]
            groups.append((behind, [record]))
        outcome.sends += [
            (peer, frame)
            for frame in reconcile.in_frames(groups)
            for peer in self._linked()
            if peer != source
        ]
        return outcome

    def tick(self, now: Instant) -> Outcome:
        outcome = Outcome()
        if now.mono_s >= self._reconcile_at_s:
            self._reconcile_at_s = now.mono_s + RECONCILE_INTERVAL_S * (0.75 + 0.5 * self._jitter.random())
            linked = self._linked()
            if linked:
                peer = linked[int(self._jitter.random() * len(linked))]
                outcome.sends += [(peer, digest) for digest in reconcile.digests(self.ledger)]
        if now.mono_s >= self._forget_at_s:
            self._forget_at_s = now.mono_s + FORGET_INTERVAL_S
            for node in self.ledger.forget_expired(now.unix_s):
                outcome.touched.append(node)
                outcome.changes.append(Delete(table=Table.RECORDS, key=key_text(node)))
        return outcome

    def next_deadline(self) -> Deadline:
        return Deadline(min(self._reconcile_at_s, self._forget_at_s), "reconcile or forget what expired")

    # --- merging --------------------------------------------------------------------------------------------

    def _admit(self, chain: Chain, outcome: Outcome, now: Instant) -> bool:
        try:
            node = self.ledger.identify(chain, now.unix_s).node
            if self.ledger.admit(chain, now.unix_s) is not Verdict.ACCEPTED:
                return False
        except PeerFault as fault:
            outcome.notes.append(_refused("certificate", fault))
            return False
        member = self.ledger.get(node)
        if member:
            outcome.touched.append(member.node)
            outcome.changes.append(_row_of_chains(member))
        return True

    def _merge(self, record: bytes, outcome: Outcome, now: Instant) -> bool:
        try:
            verdict = self.ledger.merge(record, now.unix_s)
        except envelope.BadSignature as fault:
            outcome.fault = fault.what
            return False
        except PeerFault as fault:
            outcome.notes.append(_refused("record", fault))
            return False
        if verdict not in (Verdict.ACCEPTED, Verdict.EQUIVOCATION):
            return False
        if record == self.ledger.charter_envelope:
            outcome.charter = True
            outcome.changes.append(row_of_charter(record))
            return True
        member = self.ledger.get(subject_of(record))
        if member:
            outcome.touched.append(member.node)
            outcome.changes.append(_row_of_record(member))
            if member.best is not None and not member.best.identity.durable:
                # The leaf that it names may have come just before it, and not counted then.
                outcome.changes.append(_row_of_chains(member))
            if verdict is Verdict.EQUIVOCATION:
                fields = (("node", key_text(member.node)),)
                outcome.notes.append(
                    Note(
                        level="error",
                        fact="a node contradicts itself: is its state folder in use twice?",
                        fields=fields,
                    )
                )
        return True

    def _chains_of_news(self, data: bytes) -> list[Chain]:
        """Returns the chains that a new record stands on, so that whoever hears of a member for the first
        time can judge it."""
        if data == self.ledger.charter_envelope:
            return []
        member = self.ledger.get(subject_of(data))
        if member is None or member.best is None:
            return []
        named = self.ledger.chain_of(member.record) if member.record else None
        return list(dict.fromkeys(filter(None, (member.best.chain, named))))


def rows_of(ledger: Ledger) -> list[Change]:
    """Returns the journal rows of all that a ledger holds, as ``restore`` reads them."""
    rows: list[Change] = []
    for member in ledger:
        if member.admissions:
            rows.append(_row_of_chains(member))
        if member.envelope:
            rows.append(_row_of_record(member))
    if ledger.charter_envelope:
        rows.append(row_of_charter(ledger.charter_envelope))
    return rows


def row_of_chains(node: NodeId, chains: Iterable[Chain]) -> Put:
    """Returns the row of a node's certificate chains; ``unpack_chains`` reads it."""
    return Put(table=Table.CERTIFICATES, key=key_text(node), value=cbor.encode(list(chains)))


def row_of_charter(envelope: bytes) -> Put:
    return Put(table=Table.META, key=CHARTER_KEY, value=envelope)


def _row_of_chains(member: Member) -> Put:
    return row_of_chains(member.node, (member.admissions[leaf].chain for leaf in sorted(member.admissions)))


def _row_of_record(member: Member) -> Put:
    return Put(table=Table.RECORDS, key=key_text(member.node), value=member.envelope)


def _refused(kind: str, fault: PeerFault) -> Note:
    return Note(level="warning", fact=f"a {kind} was refused", fields=(("reason", fault.what),))


class _Subject(msgspec.Struct):
    node: NodeId


def subject_of(record: bytes) -> NodeId:
    """Returns whom a member or leave record is about."""
    return envelope.open_body(record, _Subject, bytes_max=RECORD_BYTES_MAX).node


def unpack_chains(packed: bytes) -> list[Chain]:
    """Reads a row of the table of certificates."""
    return list(cbor.decode(packed, tuple[tuple[bytes, ...], ...], bytes_max=64 * 1024))

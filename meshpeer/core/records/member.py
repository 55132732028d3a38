"""What is held of one node, as a value: every merge of a fact makes a new one, and never changes the old.

Values can be shared: a thousand simulated ledgers that hold the same facts of a node hold one object. So
the rules here know neither time nor other members; ``ledger`` does."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.ids import Digest, NodeId
from meshpeer.core.records import bounds, envelope
from meshpeer.core.records.kinds import LeaveRecord, MemberRecord, SuspectRecord, precedence

PROVISIONAL_LEAVES_MAX = 4
"""Provisional leaves kept of one node beside the one that its record names."""
SUSPICIONS_MAX = 64
"""Suspicions kept of one node: its observers are at most 16 on each of 4 rings."""
ITEM_BYTES = 32

Chain = tuple[bytes, ...]
NO_DIGEST = Digest(b"")


class Verdict(enum.Enum):
    """What became of an offered fact."""

    ACCEPTED = "accepted"
    """New and believed: pass it on."""
    KNOWN = "known"
    STALE = "stale"
    UNADMITTED = "unadmitted"
    """What it stands on is not held yet (its author's certificate, the record that it is about); offer it
    again with that."""
    UNKNOWN = "unknown"
    """A kind of record that a later version made: skipped."""
    EQUIVOCATION = "equivocation"
    """The author signed two bodies for one precedence; both are the proof: pass both on."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A certificate chain that was checked, and what it says."""

    chain: Chain
    leaf: Digest
    identity: VerifiedIdentity


@dataclass(frozen=True, slots=True)
class Suspicion:
    """One observer's signed word that it can't reach the node."""

    observer: NodeId
    digest: Digest
    envelope: bytes = field(repr=False)
    closed: bool
    issued_at: int


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """All that is held of one node. Made by the functions below only; ``admissions`` is never written to."""

    node: NodeId
    admissions: dict[Digest, Admission] = field(default_factory=dict)
    record: MemberRecord | None = None
    leave: LeaveRecord | None = None
    envelope: bytes = b""
    """The bytes of ``record`` or, where the node left, of ``leave``."""
    digest: Digest = NO_DIGEST
    proof: tuple[bytes, bytes] | None = None
    """The two lowest envelopes (by digest) of the current precedence: the node equivocated and is quarantined
    until it publishes anything newer."""
    suspicions: tuple[Suspicion, ...] = ()
    """What others say of exactly this record, in order of observers."""
    best: Admission | None = field(init=False)
    """The admission that counts: durable before provisional, then the later end, then the lower digest. So a
    leaf that was renewed takes the place of the one before, whatever the node's record names yet.

    Of provisional ones the one that the node's own record names comes first: whoever holds an invite can
    sign a leaf for anybody's key, but only the node can say which leaf it shows. """
    item: bytes = field(init=False, repr=False)
    """The hash of all that others should hold of this node too; equal where they do. Empty for a provisional
    leaf alone: it is told with the record that names it, or not at all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "best", self._best())
        object.__setattr__(self, "item", self._item())

    @property
    def current(self) -> MemberRecord | LeaveRecord | None:
        return self.leave or self.record

    @property
    def is_in(self) -> bool:
        """Whether it is a member, as long as its record lasts: admitted, and has not left."""
        return self.record is not None and self.leave is None and self.best is not None

    @property
    def durable(self) -> Admission | None:
        """The durable admission: a record that refers to a leaf we dropped as superseded stands on it."""
        return self.best if self.best is not None and self.best.identity.durable else None

    def _best(self) -> Admission | None:
        named = self.record.certificate if self.record else None
        return min(
            self.admissions.values(),
            key=lambda one: (
                not one.identity.durable,
                not one.identity.durable and one.leaf != named,
                -one.identity.not_after,
                one.leaf,
            ),
            default=None,
        )

    def _item(self) -> bytes:
        """Hashes what reconciliation compares. Leaves that do not count are left out: which of them a node
        kept depends on the order in which they came."""
        if self.current is None and self.durable is None:
            return b""
        digest = hashlib.sha256(self.node)
        digest.update(self.digest.ljust(32, b"\0"))
        digest.update((self.best.leaf if self.best else b"").ljust(32, b"\0"))
        for one in self.proof or ():
            digest.update(envelope.digest_of(one))
        for suspicion in self.suspicions:
            digest.update(suspicion.digest)
        return digest.digest()


# --- certificates -------------------------------------------------------------------------------------------


def with_admission(member: Member, admission: Admission) -> tuple[Member, bool]:
    """Returns the member with one more chain, and whether that chain lasts.

    Keeps what counts, so that a ledger can't be filled with leaves: a durable leaf replaces all. Of
    provisional ones the one that the node's record names stays, and a few more: whoever holds an invite
    could else push a leaf of his own in front of the node's next one. The one that came last is held until
    the next comes, since the record that names it may follow it."""
    admissions = {**member.admissions, admission.leaf: admission}
    grown, keep = _without_superseded(replace(member, admissions=admissions), fresh=admission.leaf)
    return _without_excess(grown), admission.leaf in keep


def without_leaf(member: Member, leaf: Digest) -> Member:
    return replace(member, admissions={one: held for one, held in member.admissions.items() if one != leaf})


# --- the node's own records ---------------------------------------------------------------------------------


def judge_precedence(member: Member, record: MemberRecord | LeaveRecord, digest: Digest) -> Verdict:
    """Says what its counters make of a record: known, stale, a contradiction, or (``ACCEPTED``) worth
    reading."""
    held = member.current
    if held is None:
        return Verdict.ACCEPTED
    if digest == member.digest:
        return Verdict.KNOWN
    if precedence(record) < precedence(held):
        return Verdict.STALE
    if precedence(record) > precedence(held):
        return Verdict.ACCEPTED
    if member.proof and digest >= envelope.digest_of(member.proof[1]):
        return Verdict.KNOWN
    return Verdict.EQUIVOCATION


def check_record(member: Member, record: MemberRecord | LeaveRecord) -> bool:
    """Says whether a certificate stands behind the record; raises ``PeerFault`` for one that claims too
    much."""
    if isinstance(record, MemberRecord):
        bounds.check_member(record)
    else:
        bounds.check_leave(record)
    if member.best is None:
        return False
    if isinstance(record, MemberRecord):
        admission = member.admissions.get(record.certificate) or member.durable
        if admission is None:
            return False
        bounds.check_constraints(record, admission.identity)
    return True


def with_record(member: Member, record: MemberRecord | LeaveRecord, data: bytes, digest: Digest) -> Member:
    """Returns the member with a record of higher precedence; what was said of the one before is void."""
    grown = replace(
        member,
        record=record if isinstance(record, MemberRecord) else None,
        leave=record if isinstance(record, LeaveRecord) else None,
        envelope=data,
        digest=digest,
        proof=None,
        suspicions=(),
    )
    return _without_superseded(grown)[0]


def with_contradiction(
    member: Member, record: MemberRecord | LeaveRecord, data: bytes, digest: Digest
) -> Member:
    """Returns the member with another body for the precedence held: the lower digest holds, two are the
    proof."""
    lowest = sorted({data, *(member.proof or (member.envelope,))}, key=envelope.digest_of)[:2]
    suspicions = member.suspicions
    if digest < member.digest:
        member = with_record(member, record, data, digest)
    # Of who has left nobody says anything, in whatever order that came.
    suspicions = suspicions if member.record is not None else ()
    return replace(member, proof=(lowest[0], lowest[1]), suspicions=suspicions)


def without_record(member: Member) -> Member:
    return replace(member, record=None, leave=None, proof=None, envelope=b"", digest=NO_DIGEST, suspicions=())


# --- what others say of it ----------------------------------------------------------------------------------


def judge_suspicion(member: Member, record: SuspectRecord, digest: Digest) -> Verdict:
    """Says what a suspicion is worth: it counts for the exact record that is held."""
    if member.record is None:
        return Verdict.STALE if member.leave else Verdict.UNADMITTED
    about = (record.incarnation, record.sequence)
    if about != precedence(member.record):
        return Verdict.STALE if about < precedence(member.record) else Verdict.UNADMITTED
    held = next((one for one in member.suspicions if one.observer == record.observer), None)
    if held is not None:
        return Verdict.KNOWN if held.digest <= digest else Verdict.ACCEPTED
    full = len(member.suspicions) >= SUSPICIONS_MAX and member.suspicions[-1].observer < record.observer
    return Verdict.STALE if full else Verdict.ACCEPTED


def with_suspicion(member: Member, record: SuspectRecord, data: bytes, digest: Digest) -> Member:
    """Returns the member with one more suspicion. Of two of one observer the lower digest stays, and of too
    many those of the lowest observers: every ledger keeps the same ones."""
    others = [one for one in member.suspicions if one.observer != record.observer]
    fresh = Suspicion(record.observer, digest, data, record.closed, record.issued_at)
    ordered = sorted([*others, fresh], key=lambda one: one.observer)
    return replace(member, suspicions=tuple(ordered[:SUSPICIONS_MAX]))


def without_observer(member: Member, observer: NodeId) -> Member:
    """Returns the member without what an observer said that is in no more."""
    return replace(member, suspicions=tuple(one for one in member.suspicions if one.observer != observer))


# --- rules --------------------------------------------------------------------------------------------------


def _without_superseded(member: Member, *, fresh: Digest | None = None) -> tuple[Member, Iterable[Digest]]:
    best = member.best
    if best is None:
        return member, ()
    keep = {best.leaf}
    if not best.identity.durable:
        keep.update(sorted(member.admissions)[:PROVISIONAL_LEAVES_MAX])
    held = keep if fresh is None or best.identity.durable else {*keep, fresh}
    if len(held) == len(member.admissions):
        return member, keep
    left = {leaf: one for leaf, one in member.admissions.items() if leaf in held}
    return replace(member, admissions=left), keep


def _without_excess(member: Member) -> Member:
    """Drops a record that claims more than the certificate that came after it allows."""
    if member.record is None:
        return member
    admission = member.admissions.get(member.record.certificate) or member.durable
    try:
        if admission is not None:
            bounds.check_constraints(member.record, admission.identity)
    except PeerFault:
        return without_record(member)
    return member

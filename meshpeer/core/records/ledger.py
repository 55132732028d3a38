"""The ledger: the durable answer to "who is in".

It holds, for every node, the certificate chain that admits it, the record it published last (or its
tombstone), and
the proof where it contradicted itself; and the charter. Checks go from cheap to dear: size, shape, freshness,
newer than
what is held, certificate known, signature. What fails is refused whole, and nothing changes.

It refuses to know who is alive, and how facts travel.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.chains import VerifiedIdentity, verify_chain
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import Digest, MeshId, NodeId
from meshpeer.core.records import bounds, envelope
from meshpeer.core.records.kinds import (
    CharterRecord,
    LeaveRecord,
    MemberRecord,
    Record,
    expires_at,
    precedence,
)
from meshpeer.core.wire.limits import (
    CERTIFICATE_BYTES_MAX,
    CHAIN_LENGTH_MAX,
    MEMBERS_MAX,
    RECORD_BYTES_MAX,
)

PROVISIONAL_LEAVES_MAX = 4
"""Provisional leaves kept of one node beside the one that its record names."""
PROVISIONAL_SPARE = 8
"""An invite's key can certify any number of keys; so many beyond its uses get a place until an issuer has
judged."""

Chain = tuple[bytes, ...]
_NO_DIGEST = Digest(b"")
_KINDS = frozenset(str(kind.__struct_config__.tag) for kind in (MemberRecord, LeaveRecord, CharterRecord))


class _Kind(msgspec.Struct, frozen=True):
    k: str


class Verdict(enum.Enum):
    """What became of an offered fact."""

    ACCEPTED = "accepted"
    """New and believed: pass it on."""
    KNOWN = "known"
    STALE = "stale"
    UNADMITTED = "unadmitted"
    """Its author's certificate is not held yet; offer it again with the chain."""
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


@dataclass(slots=True)
class Member:
    """All that is held of one node."""

    node: NodeId
    admissions: dict[Digest, Admission] = field(default_factory=dict)
    record: MemberRecord | None = None
    leave: LeaveRecord | None = None
    envelope: bytes = b""
    """The bytes of ``record`` or, where the node left, of ``leave``."""
    digest: Digest = _NO_DIGEST
    proof: tuple[bytes, bytes] | None = None
    """The two lowest envelopes (by digest) of the current precedence: the node equivocated and is
    quarantined until it publishes anything newer."""

    @property
    def current(self) -> MemberRecord | LeaveRecord | None:
        return self.leave or self.record

    @property
    def best(self) -> Admission | None:
        """The admission that counts: durable before provisional, then the later end, then the lower digest.

        Of provisional ones the one that the node's own record names comes first: whoever holds an invite can
        sign
        a leaf for anybody's key, but only the node can say which leaf it shows.
        """
        named = self.record.certificate if self.record else None
        return min(
            self.admissions.values(),
            key=lambda one: (not one.identity.durable, one.leaf != named, -one.identity.not_after, one.leaf),
            default=None,
        )


class Ledger:
    """Merges facts of one mesh; iteration is in node id order, whatever the order of arrival."""

    def __init__(self, mesh: MeshId, roots: Sequence[bytes]) -> None:
        self.mesh = mesh
        self.roots = tuple(roots)
        self._members: dict[NodeId, Member] = {}
        self._leaves: dict[Digest, NodeId] = {}
        self.charter: CharterRecord | None = None
        self.charter_envelope = b""
        self.charter_digest = _NO_DIGEST

    # --- reading --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter([self._members[node] for node in sorted(self._members)])

    def get(self, node: NodeId) -> Member | None:
        return self._members.get(node)

    def present(self, now_unix_s: float) -> list[Member]:
        """Returns the members that are in: an unexpired record, a valid admission, no tombstone, in id
        order."""
        return [
            member
            for member in self
            if member.record is not None
            and member.leave is None
            and expires_at(member.record) > now_unix_s
            and member.best is not None
        ]

    def owner_of(self, leaf: bytes) -> NodeId | None:
        """Returns whose leaf certificate this is, where it is held."""
        return self._leaves.get(envelope.digest_of(leaf))

    def chain_of(self, record: MemberRecord) -> Chain | None:
        """Returns the chain that a record refers to."""
        member = self._members.get(record.node)
        admission = member.admissions.get(record.certificate) if member else None
        return admission.chain if admission else None

    # --- merging --------------------------------------------------------------------------------------------

    def admit(self, chain: Sequence[bytes], now_unix_s: float) -> Verdict:
        """Merges a certificate chain, leaf first; raises ``PeerFault`` where it does not hold."""
        chain = tuple(chain)
        if not 1 <= len(chain) <= CHAIN_LENGTH_MAX or any(len(one) > CERTIFICATE_BYTES_MAX for one in chain):
            raise PeerFault("certificate chain exceeds its limits")
        leaf = envelope.digest_of(chain[0])
        if leaf in self._leaves:
            return Verdict.KNOWN
        identity = verify_chain(chain, self.roots, self.mesh, int(now_unix_s))
        member = self._members.get(identity.node)
        if (
            not identity.durable
            and self._provisional_of(identity) >= identity.invite_uses + PROVISIONAL_SPARE
        ):
            raise PeerFault("more nodes than its uses stand on this invite")
        if member is None:
            if len(self._members) >= MEMBERS_MAX:
                raise PeerFault(f"the ledger holds {MEMBERS_MAX} members and takes no more")
            member = self._members[identity.node] = Member(identity.node)
        member.admissions[leaf] = Admission(chain, leaf, identity)
        self._leaves[leaf] = identity.node
        lasts = self._drop_superseded(member, fresh=leaf)
        self._end_excess(member)
        return Verdict.ACCEPTED if lasts else Verdict.STALE

    def merge(self, data: bytes, now_unix_s: float) -> Verdict:
        """Merges one signed record; raises ``PeerFault`` where it breaks a rule, whoever sent it."""
        try:
            record: Record = envelope.open_body(data, Record, bytes_max=RECORD_BYTES_MAX)  # type: ignore[arg-type]
        except PeerFault:
            if envelope.open_body(data, _Kind, bytes_max=RECORD_BYTES_MAX).k in _KINDS:
                raise
            return Verdict.UNKNOWN
        if isinstance(record, CharterRecord):
            return self._merge_charter(record, data, now_unix_s)
        return self._merge_subject(record, data, now_unix_s)

    def forget_expired(self, now_unix_s: float) -> list[NodeId]:
        """Drops records, tombstones and certificates past their end; returns whose record or tombstone
        went."""
        gone: list[NodeId] = []
        for member in list(self):
            current = member.current
            if current is not None and expires_at(current) <= now_unix_s:
                self._clear(member)
                gone.append(member.node)
            for leaf, admission in list(member.admissions.items()):
                if admission.identity.not_after <= now_unix_s:
                    self._drop(member, leaf)
            if not member.admissions and member.current is None:
                del self._members[member.node]
        return gone

    # --- rules ----------------------------------------------------------------------------------------------

    def _merge_subject(self, record: MemberRecord | LeaveRecord, data: bytes, now: float) -> Verdict:
        if expires_at(record) <= now:
            return Verdict.STALE
        member = self._members.get(record.node)
        held = member.current if member else None
        digest = envelope.digest_of(data)
        contradiction = False
        if member and held is not None:
            if digest == member.digest:
                return Verdict.KNOWN
            if precedence(record) < precedence(held):
                return Verdict.STALE
            contradiction = precedence(record) == precedence(held)
            if contradiction and member.proof and digest >= envelope.digest_of(member.proof[1]):
                return Verdict.KNOWN
        bounds.check_times(record, now)
        if isinstance(record, MemberRecord):
            bounds.check_member(record)
        else:
            bounds.check_leave(record)
        if member is None or member.best is None:
            return Verdict.UNADMITTED
        if isinstance(record, MemberRecord):
            admission = member.admissions.get(record.certificate) or _durable(member)
            if admission is None:
                return Verdict.UNADMITTED
            bounds.check_constraints(record, admission.identity)
        envelope.verify(data, record.node, self.mesh, bytes_max=RECORD_BYTES_MAX)
        if contradiction:
            lowest = sorted({data, *(member.proof or (member.envelope,))}, key=envelope.digest_of)[:2]
            if digest < member.digest:
                self._put(member, record, data, digest)
            member.proof = (lowest[0], lowest[1])
        else:
            self._put(member, record, data, digest)
        self._drop_superseded(member)
        return Verdict.EQUIVOCATION if contradiction else Verdict.ACCEPTED

    def _merge_charter(self, charter: CharterRecord, data: bytes, now: float) -> Verdict:
        digest = envelope.digest_of(data)
        if digest == self.charter_digest:
            return Verdict.KNOWN
        if self.charter and (charter.version, _inverted(digest)) < (
            self.charter.version,
            _inverted(self.charter_digest),
        ):
            return Verdict.STALE
        bounds.check_charter(charter, now)
        author = self._members.get(charter.author)
        if author is None or author.best is None:
            return Verdict.UNADMITTED
        if Capability.ADMIN not in author.best.identity.capabilities:
            raise PeerFault("charter is signed by a node without the capability admin")
        envelope.verify(data, charter.author, self.mesh, bytes_max=RECORD_BYTES_MAX)
        self.charter, self.charter_envelope, self.charter_digest = charter, data, digest
        return Verdict.ACCEPTED

    @staticmethod
    def _put(member: Member, record: MemberRecord | LeaveRecord, data: bytes, digest: Digest) -> None:
        member.record = record if isinstance(record, MemberRecord) else None
        member.leave = record if isinstance(record, LeaveRecord) else None
        member.envelope, member.digest, member.proof = data, digest, None

    @staticmethod
    def _clear(member: Member) -> None:
        member.record = member.leave = member.proof = None
        member.envelope, member.digest = b"", _NO_DIGEST

    def _end_excess(self, member: Member) -> None:
        """Drops a record that claims more than the certificate that came after it allows."""
        if member.record is None:
            return
        admission = member.admissions.get(member.record.certificate) or _durable(member)
        try:
            if admission is not None:
                bounds.check_constraints(member.record, admission.identity)
        except PeerFault:
            self._clear(member)

    def _provisional_of(self, asks: VerifiedIdentity) -> int:
        """Counts other nodes that stand on the same invite and no issuer has admitted yet."""
        bests = [member.best for member in self._members.values() if member.node != asks.node]
        return sum(
            1 for best in bests if best and not best.identity.durable and best.identity.invite == asks.invite
        )

    def _drop_superseded(self, member: Member, *, fresh: Digest | None = None) -> bool:
        """Keeps what counts, so that a ledger can't be filled with leaves; says whether ``fresh`` does.

        A durable leaf replaces all. Of provisional ones the one that the node's record names stays, and a few
        more: whoever holds an invite could else push a leaf of his own in front of the node's next one. The
        one that came last is held until the next comes, since the record that names it may follow it.
        """
        best = member.best
        if best is None:
            return False
        keep = {best.leaf}
        if not best.identity.durable:
            keep.update(sorted(member.admissions)[:PROVISIONAL_LEAVES_MAX])
        held = keep if fresh is None or best.identity.durable else {*keep, fresh}
        for leaf in [leaf for leaf in member.admissions if leaf not in held]:
            self._drop(member, leaf)
        return fresh in keep

    def _drop(self, member: Member, leaf: Digest) -> None:
        del member.admissions[leaf]
        self._leaves.pop(leaf, None)


def _durable(member: Member) -> Admission | None:
    """Returns the durable admission: a record that refers to a leaf we dropped as superseded stands on it."""
    best = member.best
    return best if best is not None and best.identity.durable else None


def _inverted(digest: Digest) -> bytes:
    """Orders digests downwards: of two charters with one version, the lower digest wins on every node."""
    return bytes(255 - byte for byte in digest)

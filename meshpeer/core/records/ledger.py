"""The ledger: the durable answer to "who is in".

It holds, for every node, the certificate chain that admits it, the record it published last (or its
tombstone), the proof where it contradicted itself, and what its observers say of it; and the charter.
Checks go from cheap to dear: size, shape, freshness, newer than what is held, certificate known, signature.
What fails is refused whole, and nothing changes.

What is held of one node is a value (``member``), each step from one to the next is decided by a ``judge``;
the ledger adds what they can't know: time, other members, and how many of them there are. It refuses to
know who is alive, and how facts travel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.chains import ChainFault, NotValidNow, Rule, VerifiedIdentity
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import Digest, MeshId, NodeId
from meshpeer.core.records import bounds
from meshpeer.core.records.authorities import Authorities, Taken
from meshpeer.core.records.judge import Judge
from meshpeer.core.records.kinds import (
    CharterRecord,
    LeaveRecord,
    MemberRecord,
    Record,
    SuspectRecord,
    expires_at,
)
from meshpeer.core.records.member import (
    NO_DIGEST,
    Admission,
    Chain,
    Member,
    Verdict,
    judge_precedence,
    judge_suspicion,
    without_leaf,
    without_observer,
    without_record,
)
from meshpeer.core.records.places import Places
from meshpeer.core.records.revocation import ROOT, Revocation, ShutOut
from meshpeer.core.records.revocations import FINGERPRINT_BYTES, Revocations
from meshpeer.core.wire.limits import CERTIFICATE_BYTES_MAX, CHAIN_LENGTH_MAX, MEMBERS_MAX

__all__ = ["Chain", "Ledger", "Member", "Verdict"]

HOLDERS_NAMED = 5
NEVER_S = float("inf")
_SUMS = 1 << 256

Limit = Callable[[Record], None]
"""Called with a record that passed all cheap checks, before its signature is looked at; raises
``PeerFault`` to put it off."""
Watcher = Callable[[NodeId, bytes | None, bytes | None], None]
"""Told of every step under an id: the hash of what was held, and of what is."""
CHARTER_ID = NodeId(bytes(32))
"""Stands for the charter among the ids of members: nobody can hold this key (a point of small order)."""
REVOCATIONS_ID = NodeId(bytes((1, *bytes(31))))
"""Stands for the set of revocations, likewise."""


class Ledger:
    """Merges facts of one mesh; iteration is in node id order, whatever the order of arrival."""

    def __init__(self, mesh: MeshId, roots: Sequence[bytes], judge: Judge | None = None) -> None:
        self.mesh = mesh
        self.judge = judge or Judge()
        self.authorities = Authorities(mesh, roots)
        self._members: dict[NodeId, Member] = {}
        self.places = Places()
        self.revocations = Revocations(mesh, roots, self.judge)
        self._shut_out: list[tuple[NodeId, Revocation]] = []
        self.me: NodeId | None = None
        """Whose facts are kept although no place was left for it: it must be able to say so."""
        self._dropped: list[NodeId] = []
        self.lost: list[Revocation] = []
        """Revocations that went with the root below which they were signed; whoever keeps them on disk takes
        them from here."""
        self._undoubted: list[NodeId] = []
        self.shown = Taken()
        """What chains showed of issuers: others may lack it, and no row of a member holds it."""
        self._sum = 0
        self._fingerprint_of: tuple[int, bytes, bytes, bytes] | None = None
        self._fingerprint = b""
        self._in = 0
        """Sum of the ids of those that are in: tells whether the cached ``ids`` still hold."""
        self._ids: tuple[NodeId, ...] | None = None
        self._watchers: list[Watcher] = []
        self.next_expiry_s = NEVER_S
        """No record or certificate ends before this Unix second."""
        self.charter: CharterRecord | None = None
        self.charter_envelope = b""
        self.charter_digest = NO_DIGEST

    # --- reading --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter([self._members[node] for node in sorted(self._members)])

    def get(self, node: NodeId) -> Member | None:
        return self._members.get(node)

    def may(self, node: NodeId, capability: Capability) -> bool:
        """Says whether the certificate that counts allows a node something; it allows a stranger nothing."""
        member = self._members.get(node)
        best = member.best if member else None
        return best is not None and capability in best.identity.capabilities

    def item_of(self, node: NodeId) -> bytes | None:
        """Returns the hash of all that is held of a node, or of the charter."""
        if node == CHARTER_ID:
            return self.charter_digest or None
        if node == REVOCATIONS_ID:
            return self._revocations_item()
        return _item(self._members.get(node))

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that are equal where two ledgers hold the same facts (a sum of hashes: order is
        nothing)."""
        signers = self.authorities.fingerprint
        facts = (self._sum, self.charter_digest, self.revocations.fingerprint, signers)
        if facts != self._fingerprint_of:
            # Asked for at every step, and changed by news alone.
            said = self._sum.to_bytes(32) + self.charter_digest + self.first_word
            self._fingerprint_of, self._fingerprint = facts, hashlib.sha256(said).digest()
        return self._fingerprint

    @property
    def roots(self) -> tuple[bytes, ...]:
        """Returns the roots of the mesh in their line, retired ones among them."""
        return self.authorities.line

    @property
    def retired(self) -> int:
        """Returns how many roots of the line are retired: the last one that is, and all before it."""
        ids = self.authorities.root_ids
        return max((place + 1 for place, one in enumerate(ids) if self.revocations.of(ROOT, one)), default=0)

    @property
    def first_word(self) -> bytes:
        """Bytes that are equal where two nodes agree on who may sign and on who is shut out."""
        revoked, signers = self.revocations.fingerprint, self.authorities.fingerprint
        return hashlib.sha256(revoked + signers).digest()[:FINGERPRINT_BYTES] if signers else revoked

    @property
    def ids(self) -> tuple[NodeId, ...]:
        """Returns who is in, in id order: admitted, with a record, not left. What has expired counts until
        ``forget_expired`` is called, which is due at ``next_expiry_s``."""
        if self._ids is None:
            self._ids = self.judge.shared(
                ("ids", self.mesh, self._in),
                lambda: tuple(sorted(node for node, member in self._members.items() if member.is_in)),
            )
        return self._ids

    def present(self, now_unix_s: float) -> list[Member]:
        """Returns the members that are in: an unexpired record, a valid admission, no tombstone, in id
        order."""
        members = [self._members[node] for node in self.ids]
        return [one for one in members if one.record is not None and expires_at(one.record) > now_unix_s]

    def is_in(self, node: NodeId) -> bool:
        member = self._members.get(node)
        return member is not None and member.is_in

    def chain_of(self, record: MemberRecord) -> Chain | None:
        """Returns the chain that a record refers to."""
        member = self._members.get(record.node)
        admission = member.admissions.get(record.certificate) if member else None
        return admission.chain if admission else None

    def holders_of(self, invite: bytes) -> str:
        """Names members that issuers admitted on an invite: one of them has its key, or has passed it on."""
        names = [
            one.current.name
            for one in self
            if one.durable and one.durable.identity.invite == invite and one.current is not None
        ]
        return ", ".join(names[:HOLDERS_NAMED]) + (" and others" if len(names) > HOLDERS_NAMED else "")

    def watch(self, watcher: Watcher, *, from_now: bool = False) -> None:
        """Tells ``watcher`` of every step from now on, and first of all that is held."""
        self._watchers.append(watcher)
        if from_now:
            return
        for node, member in self._members.items():
            watcher(node, None, _item(member))
        if self.charter:
            watcher(CHARTER_ID, None, self.charter_digest)
        if self._revocations_item():
            watcher(REVOCATIONS_ID, None, self._revocations_item())

    # --- merging --------------------------------------------------------------------------------------------

    def identify(self, chain: Sequence[bytes], now_unix_s: float) -> VerifiedIdentity:
        """Judges a chain, with the certificate of its issuer that counts, and changes nothing; raises
        ``PeerFault`` where it does not hold, ``ShutOut`` where it was revoked."""
        chain = self.authorities.newest(chain)
        if not 1 <= len(chain) <= CHAIN_LENGTH_MAX or any(len(one) > CERTIFICATE_BYTES_MAX for one in chain):
            raise PeerFault("certificate chain exceeds its limits")
        identity = self.judge.identify(chain, self.roots, self.mesh, int(now_unix_s))
        if identity.root not in self.authorities.root_ids:
            raise ChainFault(Rule.ROOT, "chain does not lead to a root of this mesh")
        revocation = self.revocations.cover(identity)
        if revocation is not None:
            raise ShutOut(revocation)
        return identity

    def revoke(self, *revocations: Revocation) -> tuple[list[Revocation], list[Revocation]]:
        """Merges revocations that were read, and drops whoever they shut out; returns which were news, and
        which went for them. ``take_shut_out`` says who was dropped."""
        before, news, gone = self._revocations_item(), list[Revocation](), list[Revocation]()
        for one in revocations:
            accepted, went = self.revocations.merge(one)
            news += [one] if accepted else []
            gone += went
        if news:
            for watcher in self._watchers:
                watcher(REVOCATIONS_ID, before, self._revocations_item())
            self._drop_revoked()
        return news, gone

    def authorize(self, certificates: Iterable[bytes], now_unix_s: float) -> Taken:
        """Merges roots and issuers that hold, and reads what stands on them anew; the rest is left out."""
        before = self._revocations_item()
        taken = self.authorities.take(certificates, settled=self.retired)
        if not taken.news:
            return taken
        self.revocations.roots = self.roots
        if taken.forked:
            self.lost += self.revocations.reread()
        for watcher in self._watchers:
            watcher(REVOCATIONS_ID, before, self._revocations_item())
        self._judge_anew(now_unix_s)
        self._drop_revoked()
        return taken

    def admit(self, chain: Sequence[bytes], now_unix_s: float) -> Verdict:
        """Merges a certificate chain, leaf first; raises ``PeerFault`` where it does not hold."""
        identity = self.identify(chain, now_unix_s)
        if not self.authorities.knows(chain[-1]):
            taken = self.authorize(chain[-1:], now_unix_s)
            if taken.gone or self.authorities.fingerprint:
                # Else it is the only issuer, which every chain shows.
                before = self.shown
                self.shown = Taken([*before.news, *taken.news], [*before.gone, *taken.gone])
        chain = self.authorities.newest(chain)
        leaf = self.judge.digest(chain[0])
        held = self._members.get(identity.node)
        if held is not None and leaf in held.admissions:
            return Verdict.KNOWN
        if identity.node != self.me:
            self.places.take(chain, identity, held, self.holders_of)
        if held is None and len(self._members) >= MEMBERS_MAX:
            raise PeerFault(f"the ledger holds {MEMBERS_MAX} members and takes no more")
        member, lasts = self.judge.admitted(held, Admission(chain, leaf, identity))
        self._replace(member)
        self.next_expiry_s = min(self.next_expiry_s, identity.not_after)
        if identity.durable and identity.invite and self.places.all_given(identity):
            self._drop_those_without_a_place(identity)
        return Verdict.ACCEPTED if lasts else Verdict.STALE

    def merge(self, data: bytes, now_unix_s: float, limit: Limit | None = None) -> Verdict:
        """Merges one signed record; raises ``PeerFault`` where it breaks a rule, whoever sent it."""
        record = self.judge.open(data)
        match record:
            case None:
                return Verdict.UNKNOWN
            case CharterRecord():
                return self._merge_charter(record, data, now_unix_s, limit)
            case SuspectRecord():
                return self._merge_suspicion(record, data, now_unix_s, limit)
            case _:
                return self._merge_own(record, data, now_unix_s, limit)

    def forget_expired(self, now_unix_s: float) -> list[NodeId]:
        """Drops records, tombstones and certificates past their end; returns whose record, tombstone or last
        certificate went."""
        gone: list[NodeId] = []
        self.next_expiry_s = NEVER_S
        for held in list(self):
            member = held
            if member.current is not None and expires_at(member.current) <= now_unix_s:
                member = without_record(member)
                gone.append(member.node)
            for leaf, admission in member.admissions.items():
                if admission.identity.not_after <= now_unix_s:
                    member = without_leaf(member, leaf)
            if held.is_in and not member.admissions and member.current is not None:
                gone.append(member.node)
            if member is not held:
                self._replace(member)
            self._note_expiry(member)
        return gone

    def take_dropped(self) -> list[NodeId]:
        """Returns who was dropped since the last call because issuers gave all places of its invite away to
        others, or earlier."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def take_shut_out(self) -> list[tuple[NodeId, Revocation]]:
        """Returns who was dropped, or lost a certificate, since the last call because it was revoked."""
        shut_out, self._shut_out = self._shut_out, []
        return shut_out

    def take_shown(self) -> Taken:
        """Returns which issuers' certificates chains have shown since the last call, and which gave way."""
        shown, self.shown = self.shown, Taken()
        return shown

    def take_undoubted(self) -> list[NodeId]:
        """Returns of whom less is said since the last call because an observer is in no more."""
        undoubted, self._undoubted = self._undoubted, []
        return undoubted

    # --- rules ----------------------------------------------------------------------------------------------

    def _merge_own(
        self, record: MemberRecord | LeaveRecord, data: bytes, now: float, limit: Limit | None
    ) -> Verdict:
        if expires_at(record) <= now or self.revocations.of_node(record.node):
            return Verdict.STALE
        held = self._members.get(record.node)
        verdict = Verdict.ACCEPTED
        if held is not None:
            verdict = judge_precedence(held, record, self.judge.digest(data))
            if verdict in (Verdict.KNOWN, Verdict.STALE):
                return verdict
        bounds.check_times(record, now)
        if held is None:
            return Verdict.UNADMITTED
        if limit is not None:
            limit(record)
        member = self.judge.recorded(held, record, data, self.mesh)
        if member is None:
            return Verdict.UNADMITTED
        self._replace(member)
        self.next_expiry_s = min(self.next_expiry_s, expires_at(record))
        return verdict

    def _merge_suspicion(
        self, record: SuspectRecord, data: bytes, now: float, limit: Limit | None
    ) -> Verdict:
        held = self._members.get(record.subject)
        if held is None or not self.is_in(record.observer):
            return Verdict.UNADMITTED
        if record.observer == record.subject:
            raise PeerFault("a node suspects itself")
        bounds.check_suspicion(record, now)
        verdict = judge_suspicion(held, record, self.judge.digest(data))
        if verdict is Verdict.ACCEPTED:
            if limit is not None:
                limit(record)
            self._replace(self.judge.suspected(held, record, data, self.mesh))
        return verdict

    def _merge_charter(self, charter: CharterRecord, data: bytes, now: float, limit: Limit | None) -> Verdict:
        digest = self.judge.digest(data)
        if digest == self.charter_digest:
            return Verdict.KNOWN
        if (
            self.charter
            and self.revocations.of_node(self.charter.author) is None
            and (charter.version, _inverted(digest)) < (self.charter.version, _inverted(self.charter_digest))
        ):
            # The last one of a node that was revoked since gives way to any other.
            return Verdict.STALE
        bounds.check_charter(charter, now)
        author = self._members.get(charter.author)
        if author is None or author.best is None:
            return Verdict.UNADMITTED
        if Capability.ADMIN not in author.best.identity.capabilities:
            raise PeerFault("charter is signed by a node without the capability admin")
        if limit is not None:
            limit(charter)
        self.judge.verify(data, charter.author, self.mesh)
        for watcher in self._watchers:
            watcher(CHARTER_ID, self.charter_digest or None, digest)
        self.charter, self.charter_envelope, self.charter_digest = charter, data, digest
        return Verdict.ACCEPTED

    def _judge_anew(self, now_unix_s: float) -> None:
        """Reads every chain with the certificate of its issuer that counts now; drops what leads to no root
        of this mesh any more."""
        for member in list(self):
            admissions: dict[Digest, Admission] = {}
            for leaf, held in member.admissions.items():
                chain = self.authorities.newest(held.chain)
                if chain == held.chain and held.identity.root in self.authorities.root_ids:
                    admissions[leaf] = held
                    continue
                try:
                    identity = self.judge.identify(chain, self.roots, self.mesh, int(now_unix_s))
                    admissions[leaf] = Admission(chain, leaf, identity)
                    self.next_expiry_s = min(self.next_expiry_s, identity.not_after)
                except NotValidNow:
                    admissions[leaf] = held
                except PeerFault:
                    continue
            if admissions != member.admissions:
                left = replace(member, admissions=admissions)
                self._replace(left if admissions else Member(member.node))

    def _drop_those_without_a_place(self, last: VerifiedIdentity) -> None:
        """Drops who stands on an invite whose places are given away, and who was given one too late."""
        late = self.places.late(last)
        for member in list(self):
            best = member.best
            if best is None or best.identity.invite != last.invite:
                continue
            if best.identity.durable and member.node not in late:
                continue
            if member.node != self.me:
                self.places.note_excess(best.identity)
                self._replace(Member(member.node))
                self._dropped.append(member.node)

    def _drop_revoked(self) -> None:
        """Drops what no longer stands: certificates that were revoked, and the records on top of them."""
        for member in list(self):
            revoked = self.revocations.of_node(member.node)
            if revoked is not None:
                # Whatever is held of it: a tombstone outlives its certificates.
                self._replace(Member(member.node))
                self._shut_out.append((member.node, revoked))
                continue
            covered = {
                leaf: revocation
                for leaf, one in member.admissions.items()
                if (revocation := self.revocations.cover(one.identity)) is not None
            }
            if not covered:
                continue
            left = member
            for leaf in covered:
                left = without_leaf(left, leaf)
            if left.record is not None and left.record.certificate in covered and left.durable is None:
                left = without_record(left)
            self._replace(Member(member.node) if not left.admissions else left)
            self._shut_out.append((member.node, covered[min(covered)]))

    def _revocations_item(self) -> bytes | None:
        held = bool(self.revocations) or bool(self.authorities.fingerprint)
        return hashlib.sha256(self.first_word).digest() if held else None

    def _replace(self, member: Member) -> None:
        """Takes one step of one member; drops it where nothing is held of it any more."""
        node, held = member.node, self._members.get(member.node)
        now = member if member.admissions or member.current else None
        if now is None:
            self._members.pop(node, None)
        else:
            self._members[node] = now
        self._sum = (self._sum + _number(now) - _number(held)) % _SUMS
        self.places.count(held, -1)
        self.places.count(now, 1)
        was_in, is_in = held is not None and held.is_in, now is not None and now.is_in
        if was_in is not is_in:
            self._in = (self._in + (1 if is_in else -1) * int.from_bytes(node)) % _SUMS
            self._ids = None
        for watcher in self._watchers:
            watcher(node, _item(held), _item(now))
        if was_in and not is_in:
            self._forget_observer(node)

    def _forget_observer(self, observer: NodeId) -> None:
        """Drops what somebody said who is in no more: ledgers that hear of it later take it from nobody."""
        for member in list(self._members.values()):
            if any(one.observer == observer for one in member.suspicions):
                self._replace(without_observer(member, observer))
                self._undoubted.append(member.node)

    def _note_expiry(self, member: Member) -> None:
        ends = [one.identity.not_after for one in member.admissions.values()]
        if member.current is not None:
            ends.append(expires_at(member.current))
        self.next_expiry_s = min(self.next_expiry_s, *ends, NEVER_S)


def _item(member: Member | None) -> bytes | None:
    return (member.item or None) if member else None


def _number(member: Member | None) -> int:
    return int.from_bytes(member.item) if member else 0


def _inverted(digest: bytes) -> bytes:
    """Orders digests downwards: of two charters with one version, the lower digest wins on every node."""
    return bytes(255 - byte for byte in digest)

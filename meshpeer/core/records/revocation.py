"""One revocation: what it may say, who may sign it, and whom it covers.

It carries the chain of its author, so that anybody can check it at any time: the author may have left, its
certificate may have ended, and a node that has just joined holds no member at all. The chain is judged as of
the second at which the revocation says that it was signed. No clock of this node has a say: one that is set
back must not keep anybody in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.certificates import BACKDATED_S, public_key_of
from meshpeer.core.identity.chains import VerifiedIdentity, utc_text
from meshpeer.core.identity.constraints import INVITE_ID_BYTES, UNIX_S_MAX, Capability
from meshpeer.core.identity.profile import key_id
from meshpeer.core.ids import NODE_ID_BYTES, Digest, MeshId
from meshpeer.core.records import bounds, envelope
from meshpeer.core.records.judge import Judge
from meshpeer.core.records.kinds import RevocationRecord
from meshpeer.core.wire.limits import CERTIFICATE_BYTES_MAX, CHAIN_LENGTH_MAX, RECORD_BYTES_MAX

NODE, INVITE, ISSUER, ROOT = "node", "invite", "issuer", "root"
REASON_LENGTH_MAX = 200
_SUBJECT_BYTES = {
    NODE: NODE_ID_BYTES,
    INVITE: INVITE_ID_BYTES,
    ISSUER: INVITE_ID_BYTES,
    ROOT: INVITE_ID_BYTES,
}

Chain = tuple[bytes, ...]
Rank = tuple[int, bytes]
Order = tuple[Rank, int, int, bytes]


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revocation whose author was checked."""

    record: RevocationRecord
    envelope: bytes = field(repr=False)
    chain: Chain = field(repr=False)
    """The author's, leaf first; empty for a root."""
    identity: VerifiedIdentity | None = field(repr=False)
    """The author's; None for a root."""
    digest: Digest
    place: int = 0
    """Of the root that signed it, in the line of roots."""

    @property
    def rank(self) -> Rank:
        """Orders authors: roots first, of them the one that came last; then who was admitted earlier."""
        return (self.identity.admitted_at, self.identity.node) if self.identity else (-self.place, b"")

    @property
    def stands_on(self) -> tuple[tuple[str, bytes], ...]:
        """Returns whose end would void this: its author's, and that of all that the author's leaf stands
        on."""
        if self.identity is None:
            return ((ROOT, key_id(self.record.author)),)
        return subjects_of(self.identity)

    @property
    def key(self) -> tuple[str, bytes, bytes]:
        """Names what one author says of one subject: it says one thing of it."""
        return (self.record.what, self.record.subject, self.record.author)

    @property
    def order(self) -> Order:
        """Orders all revocations, alike on every node: what is lower counts, and stays where there are too
        many."""
        return (self.rank, self.record.since, self.record.issued_at, self.digest)

    def covers(self, who: VerifiedIdentity) -> bool:
        """Says whether this shuts out whoever a chain proves.

        A leaf's time is its issuer's word: of an invite, when that admitted the node (a provisional leaf,
        which its own joiner dates, always goes along); of an issuer, when it signed the leaf."""
        record = self.record
        match record.what:
            case "node":
                return who.node == record.subject
            case "root":
                return who.root == record.subject
            case "invite":
                return who.invite == record.subject and (not who.durable or who.admitted_at >= record.since)
            case _:
                return who.issuer == record.subject and who.signed_from + BACKDATED_S >= record.since


def subjects_of(who: VerifiedIdentity) -> tuple[tuple[str, bytes], ...]:
    """Returns what shuts somebody out if it is revoked."""
    return ((NODE, who.node), (INVITE, who.invite), (ISSUER, who.issuer), (ROOT, who.root))


class ShutOut(PeerFault):
    """Somebody was revoked: what is shown or said stands on nothing any more."""

    def __init__(self, revocation: Revocation) -> None:
        super().__init__(said_of(revocation))
        self.revocation = revocation


def said_of(revocation: Revocation) -> str:
    """Returns why somebody is not let in, for whoever tries."""
    record = revocation.record
    whom = "this node" if record.what == "node" else f"its {record.what}"
    reason = f": {record.reason}" if record.reason else ""
    if record.what == ROOT:
        return f"its root was retired at {utc_text(record.issued_at)} UTC, and nobody signed its issuer anew"
    return f"{whom} was revoked at {utc_text(record.issued_at)} UTC{reason}"


def read_revocation(
    data: bytes,
    chain: Sequence[bytes],
    *,
    mesh: MeshId,
    roots: Sequence[bytes],
    judge: Judge,
    proven: bool = True,
) -> Revocation:
    """Reads and judges a revocation; raises ``PeerFault`` for one that breaks a rule. The signature comes
    last, and is not looked at where nothing is ``proven`` yet."""
    chain = tuple(chain)
    if len(chain) > CHAIN_LENGTH_MAX or any(len(one) > CERTIFICATE_BYTES_MAX for one in chain):
        raise PeerFault("certificate chain exceeds its limits")
    record = envelope.open_body(data, RevocationRecord, bytes_max=RECORD_BYTES_MAX)
    root_keys = [public_key_of(root) for root in roots]
    check_form(record)
    place = root_keys.index(record.author) if record.author in root_keys else 0
    if not _may_touch_roots(record, root_keys, place):
        raise PeerFault("nobody may revoke a root, but one that followed it")
    identity: VerifiedIdentity | None = None
    if record.author in root_keys:
        if chain:
            raise PeerFault("a root's revocation names a certificate")
    else:
        identity = judge.identify(chain, roots, mesh, record.issued_at)
        if identity.node != record.author:
            raise PeerFault("revocation is shown with another author's certificate")
        if not identity.durable or Capability.ADMIN not in identity.capabilities:
            raise PeerFault("revocation is signed by a node without the capability admin")
    if proven:
        judge.verify(data, record.author, mesh)
    return Revocation(record, data, chain, identity, digest_of(data, chain), place)


def _may_touch_roots(record: RevocationRecord, root_keys: Sequence[bytes], place: int) -> bool:
    """Says whether a revocation leaves roots alone, or retires one with the key of one that came after it."""
    ids = [key_id(root) for root in root_keys]
    if record.what != ROOT:
        return record.subject not in (*root_keys, *ids)
    return record.subject in ids[:place]


def check_form(record: RevocationRecord) -> None:
    """Raises ``PeerFault`` where a field is out of its form: reasons end up on terminals."""
    if len(record.subject) != _SUBJECT_BYTES.get(record.what, 0):
        raise PeerFault("revocation has a subject that is none")
    if not 0 < record.issued_at <= UNIX_S_MAX or not 0 <= record.since <= UNIX_S_MAX:
        raise PeerFault("revocation has times out of range")
    if record.since and record.what in (NODE, ROOT):
        raise PeerFault("revocation takes a node out in part")
    if record.name and not bounds.is_label(record.name):
        raise PeerFault("revocation has a name that is no DNS label")
    if not is_reason(record.reason):
        raise PeerFault("revocation has a reason that is too long, or can't be printed")


def is_reason(text: str) -> bool:
    """Says whether a text can be a reason: one line of at most ``REASON_LENGTH_MAX`` printable characters."""
    return len(text) <= REASON_LENGTH_MAX and text.isprintable()


def digest_of(data: bytes, chain: Sequence[bytes]) -> Digest:
    """Returns the hash of a revocation and the chain that it is shown with."""
    digest = hashlib.sha256(envelope.digest_of(data))
    for one in chain:
        digest.update(hashlib.sha256(one).digest())
    return Digest(digest.digest())

"""What is decided about facts without regard to time and to other members: pure functions of bytes and
values.

A ledger asks its judge. An agent has one that decides anew each time; the nodes of one simulation share one
that remembers, since ten thousand of them judge the same facts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import msgspec

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.chains import VerifiedIdentity, verify_chain
from meshpeer.core.ids import Digest, MeshId, NodeId
from meshpeer.core.records import envelope, member
from meshpeer.core.records.kinds import (
    CharterRecord,
    LeaveRecord,
    MemberRecord,
    Record,
    SuspectRecord,
)
from meshpeer.core.records.member import Admission, Member
from meshpeer.core.wire.limits import RECORD_BYTES_MAX

Value = TypeVar("Value")

IDENTITIES_REMEMBERED = 4_096
"""Chains whose judgement is remembered; the bytes are those that the ledger holds anyway."""

_KINDS = frozenset(
    str(kind.__struct_config__.tag) for kind in (MemberRecord, LeaveRecord, CharterRecord, SuspectRecord)
)


class _Kind(msgspec.Struct, frozen=True):
    k: str


class Judge:
    """Decides anew each time, but for chains: they come again with every record, and are dear."""

    def __init__(self) -> None:
        self._identities: dict[tuple[MeshId, tuple[bytes, ...], tuple[bytes, ...]], VerifiedIdentity] = {}

    def open(self, data: bytes) -> Record | None:
        """Returns the record in an envelope whose signature is not looked at yet, None for a kind that a
        later version made; raises ``PeerFault`` for what is neither."""
        try:
            return envelope.open_body(data, Record, bytes_max=RECORD_BYTES_MAX)  # type: ignore[arg-type]
        except PeerFault:
            if envelope.open_body(data, _Kind, bytes_max=RECORD_BYTES_MAX).k in _KINDS:
                raise
            return None

    def identify(
        self, chain: Sequence[bytes], roots: Collection[bytes], mesh: MeshId, now_unix_s: int
    ) -> VerifiedIdentity:
        """Judges a chain; raises ``ChainFault``. A good one is remembered for these roots, as long as it is
        valid: a root may give way to another."""
        key = (mesh, tuple(roots), tuple(chain))
        known = self._identities.get(key)
        if known is not None and known.not_before <= now_unix_s <= known.not_after:
            return known
        identity = verify_chain(chain, roots, mesh, now_unix_s)
        if len(self._identities) >= IDENTITIES_REMEMBERED:
            del self._identities[next(iter(self._identities))]
        self._identities[key] = identity
        return identity

    def verify(self, data: bytes, author: NodeId, mesh: MeshId) -> None:
        """Raises ``BadSignature``."""
        envelope.verify(data, author, mesh, bytes_max=RECORD_BYTES_MAX)

    def digest(self, data: bytes) -> Digest:
        return envelope.digest_of(data)

    # --- steps from one value of a member to the next; ``held`` None for one not heard of -------------------

    def admitted(self, held: Member | None, admission: Admission) -> tuple[Member, bool]:
        return member.with_admission(held or Member(admission.identity.node), admission)

    def recorded(
        self, held: Member, record: MemberRecord | LeaveRecord, data: bytes, mesh: MeshId
    ) -> Member | None:
        """Returns the member with a record whose counters pass, None where no certificate stands behind it;
        raises ``PeerFault`` for one that breaks a rule."""
        digest = self.digest(data)
        if not member.check_record(held, record):
            return None
        self.verify(data, record.node, mesh)
        if member.judge_precedence(held, record, digest) is member.Verdict.EQUIVOCATION:
            return member.with_contradiction(held, record, data, digest)
        return member.with_record(held, record, data, digest)

    def suspected(self, held: Member, record: SuspectRecord, data: bytes, mesh: MeshId) -> Member:
        """Returns the member with a suspicion that passed; raises ``BadSignature``."""
        self.verify(data, record.observer, mesh)
        return member.with_suspicion(held, record, data, self.digest(data))

    def shared(self, key: object, make: Callable[[], Value]) -> Value:
        """Returns what is derived from facts that ``key`` stands for; a judge that remembers makes it
        once."""
        return make()

"""From a person's wish to shut somebody out to what is signed for it.

Nothing can be taken back, so what the person may not have thought of has to be said: what becomes of the
members below an invite or an issuer, and of what an admin that is shut out has signed itself. Pure: keys come
in as a function that signs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from meshpeer.core.errors import LocalFault
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.ids import NodeId
from meshpeer.core.records.kinds import RevocationRecord
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.records.revocation import (
    INVITE,
    ISSUER,
    NODE,
    REASON_LENGTH_MAX,
    Chain,
    Revocation,
    is_reason,
)

NAMED_MAX = 5
KEEP, REVOKE, VOID = "keep", "revoke", "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person asks for."""

    what: str
    subject: bytes
    name: str = ""
    reason: str = ""
    members: str = ""
    """Of an invite or issuer: ``revoke`` or ``keep`` those who are in by it; empty: not said."""
    since: int | None = None
    """Of an issuer: those whom it admitted before this Unix second stay."""
    keep_invite: bool = False
    """Of a node: the invite that it came with stays open. Else nobody joins with that any more: its own
    machine could, under a new key."""
    theirs: str = ""
    """Of an admin: ``keep`` what it revoked itself (it is signed anew), or let it be ``void``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who signs."""

    node: NodeId
    chain: Chain
    """Empty for a root."""
    sign: Callable[[RevocationRecord], bytes]
    proven: bool = True
    """Whether that is a signature; else it is made elsewhere, from what was decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be signed and spread, in order; ``done`` where it holds already."""

    signed: tuple[tuple[bytes, Chain], ...]
    revocation: Revocation
    members: tuple[NodeId, ...] = ()
    """Who is in now and goes, in id order."""
    invite: bytes = b""
    """The id of the invite that is closed along with a node."""
    kept: int = 0
    """Revocations of another author that are signed anew."""
    done: bool = False


def decide(
    wish: Wish,
    ledger: Ledger,
    author: Author,
    *,
    me: VerifiedIdentity,
    name_of: Callable[[NodeId], str],
    now_unix_s: int,
) -> Decision:
    """Returns what to sign; raises ``LocalFault`` where the wish is none, or leaves open what it must say.

    ``me`` is this node, which does not shut itself out."""
    if not is_reason(wish.reason):
        raise LocalFault(
            f"a reason is one line of at most {REASON_LENGTH_MAX} printable characters",
            "say it shorter: every member keeps it for good",
        )
    held = _held(wish, ledger)
    if held is not None:
        return Decision(signed=(), revocation=held, done=True)
    revocation = _read(ledger, author, _record(wish, ledger, author, name_of, now_unix_s))
    invite = _invite_of(wish, ledger)
    closing = _closing(invite, author, _closed_from(wish, invite, ledger, now_unix_s), now_unix_s)
    closed = [_read(ledger, author, closing)] if invite else []
    out = [revocation, *closed]
    below = _below(ledger, lambda one: any(each.covers(one) for each in out))
    members = tuple(one.node for one in below if ledger.is_in(one.node))
    if revocation.covers(me):
        raise LocalFault(
            "this would shut this very node out, too",
            "`meshpeer leave` takes it out; to shut others out with their issuer say --keep-members",
        )
    voided = ledger.revocations.voided_by(revocation)
    if voided and not wish.theirs:
        raise LocalFault(
            f"{wish.name or 'it'} has shut out {len(voided)} itself: {_named(voided, name_of)}",
            "say what becomes of that: --keep-revocations signs it anew, --void-revocations lets them back",
        )
    kept = [_renewed(one, author, ledger, now_unix_s) for one in voided if wish.theirs == KEEP]
    return Decision(
        signed=tuple((one.envelope, one.chain) for one in (*kept, *closed, revocation)),
        revocation=revocation,
        members=members,
        invite=invite,
        kept=len(kept),
    )


def _invite_of(wish: Wish, ledger: Ledger) -> bytes:
    """Returns the invite to close along with a node; empty for none, or one that is closed already."""
    member = ledger.get(NodeId(wish.subject)) if wish.what == NODE else None
    if member is None or member.best is None or wish.keep_invite:
        return b""
    invite = member.best.identity.invite
    return b"" if ledger.revocations.of(INVITE, invite) else invite


def _closed_from(wish: Wish, invite: bytes, ledger: Ledger, now_unix_s: int) -> int:
    """Returns from which second of admission on an invite is closed along with a node: from now on, so that
    who is in by it stays.

    Where all its places are given away it is closed behind the last one who stays (0: to everybody). Who was
    admitted later by another issuer, and refused for want of a place, would else have that of the node.
    """
    member = ledger.get(NodeId(wish.subject))
    if member is None or member.best is None or not ledger.places.all_given(member.best.identity):
        return now_unix_s
    stay = [
        one.admitted_at
        for one in _below(ledger, lambda who: who.invite == invite)
        if one.durable and one.node != wish.subject
    ]
    return max(stay) + 1 if stay else 0


def _closing(invite: bytes, author: Author, since: int, now_unix_s: int) -> RevocationRecord:
    """Returns what closes an invite to newcomers; whom an issuer admitted on it before ``since`` stays."""
    return RevocationRecord(
        what=INVITE,
        subject=invite,
        author=author.node,
        issued_at=now_unix_s,
        since=since,
        reason="a node that came with it was revoked",
    )


def _held(wish: Wish, ledger: Ledger) -> Revocation | None:
    """Returns the revocation that says all of this already, where there is one."""
    since = wish.since or 0
    for one in ledger.revocations.counting:
        if (one.record.what, one.record.subject) == (wish.what, wish.subject):
            wider = wish.members == REVOKE or (wish.since is not None and since < one.record.since)
            return None if one.record.since and wider else one
    return None


def _record(
    wish: Wish, ledger: Ledger, author: Author, name_of: Callable[[NodeId], str], now_unix_s: int
) -> RevocationRecord:
    return RevocationRecord(
        what=wish.what,
        subject=wish.subject,
        author=author.node,
        issued_at=now_unix_s,
        since=_since(wish, ledger, name_of, now_unix_s),
        reason=wish.reason,
        name=wish.name,
    )


def _since(wish: Wish, ledger: Ledger, name_of: Callable[[NodeId], str], now_unix_s: int) -> int:
    if wish.what not in (INVITE, ISSUER):
        return 0
    if wish.since is not None:
        return wish.since
    if wish.members == KEEP:
        return now_unix_s
    subject = wish.subject
    below = _below(ledger, lambda one: subject == (one.invite if wish.what == INVITE else one.issuer))
    durable = [one for one in below if one.durable]
    if durable and wish.members != REVOKE:
        names = ", ".join(name_of(one.node) for one in durable[:NAMED_MAX])
        more = f" and {len(durable) - NAMED_MAX} others" if len(durable) > NAMED_MAX else ""
        are = "is in" if len(durable) == 1 else "are in"
        raise LocalFault(
            f"{names}{more} {are} by this {wish.what}",
            "say what becomes of them: --with-members shuts them out, too, --keep-members lets them stay",
        )
    return 0


def _below(ledger: Ledger, covers: Callable[[VerifiedIdentity], bool]) -> list[VerifiedIdentity]:
    return [one.best.identity for one in ledger if one.best is not None and covers(one.best.identity)]


def _renewed(one: Revocation, author: Author, ledger: Ledger, now_unix_s: int) -> Revocation:
    record = one.record
    return _read(
        ledger,
        author,
        RevocationRecord(
            what=record.what,
            subject=record.subject,
            author=author.node,
            issued_at=now_unix_s,
            since=record.since,
            reason=record.reason,
            name=record.name,
        ),
    )


def _read(ledger: Ledger, author: Author, record: RevocationRecord) -> Revocation:
    return ledger.revocations.read(author.sign(record), author.chain, proven=author.proven)


def _named(revocations: Iterable[Revocation], name_of: Callable[[NodeId], str]) -> str:
    names = [
        one.record.name
        or (name_of(NodeId(one.record.subject)) if one.record.what == "node" else "")
        or f"{one.record.what} {one.record.subject.hex()}"
        for one in revocations
    ]
    return ", ".join(names[:NAMED_MAX]) + (" and others" if len(names) > NAMED_MAX else "")

"""A mesh with three admins, two invites and a root, and the revocations that they sign."""

from __future__ import annotations

from meshpeer.core.identity.certificates import (
    Authority,
    make_durable_leaf,
    make_invite,
    make_issuer,
    make_provisional_leaf,
    make_root,
    mesh_id_of,
    public_key_of,
)
from meshpeer.core.identity.constraints import ALL, INVITE_DEFAULT
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.records import envelope
from meshpeer.core.records.judge import Judge
from meshpeer.core.records.kinds import RevocationRecord
from meshpeer.core.records.revocation import Chain, Revocation, read_revocation

NOW, DAY = 1_800_000_000, 86_400
SERIAL = bytes(range(8))
ROOT = make_root(b"r" * 32, now_unix_s=NOW - DAY, serial=SERIAL)
ROOT_KEY = SigningKey(ROOT.seed)
ISSUER, SECOND_ISSUER = (
    make_issuer(ROOT, seed * 32, now_unix_s=NOW - DAY, serial=SERIAL) for seed in (b"i", b"j")
)
MESH: MeshId = mesh_id_of(public_key_of(ROOT.certificate))
SENIOR, MIDDLE, JUNIOR, PLAIN, GUEST = (SigningKey(bytes([number]) * 32) for number in (5, 4, 3, 2, 1))
"""Admins by when they were admitted, a member without that right, and one who has just come."""
ADMITTED = {SENIOR: NOW - 3_000, MIDDLE: NOW - 2_000, JUNIOR: NOW - 1_000, PLAIN: NOW - 500}
JUDGE = Judge()


def invite(seed: bytes = b"v", issuer: Authority = ISSUER) -> Authority:
    return make_invite(
        issuer,
        seed * 32,
        capabilities=INVITE_DEFAULT,
        uses=9,
        expires_s=DAY,
        now_unix_s=NOW,
        serial=SERIAL,
    )


INVITE, OTHER_INVITE = invite(), invite(b"w")


def durable(
    key: SigningKey,
    issuer: Authority = ISSUER,
    *,
    by: Authority | None = None,
    admitted_at: int = 0,
    now: int = NOW,
) -> Chain:
    admin = key in (SENIOR, MIDDLE, JUNIOR)
    leaf = make_durable_leaf(
        issuer,
        key.public,
        capabilities=ALL if admin else INVITE_DEFAULT,
        admitted_at=admitted_at or ADMITTED.get(key, NOW),
        invite=by.id if by else b"",
        uses=9 if by else 0,
        now_unix_s=now,
        serial=SERIAL,
    )
    return (leaf, issuer.certificate)


def provisional(key: SigningKey, on: Authority = INVITE) -> Chain:
    leaf = make_provisional_leaf(on, key.public, now_unix_s=NOW, serial=SERIAL)
    return (leaf, on.certificate, ISSUER.certificate)


def signed(
    author: SigningKey,
    what: str,
    subject: bytes,
    *,
    at: int = NOW,
    since: int = 0,
    reason: str = "stolen",
    name: str = "",
    claims: NodeId | None = None,
) -> bytes:
    """Returns a revocation's envelope; ``claims`` is the author that it names, where that is another."""
    body = RevocationRecord(
        what=what,
        subject=subject,
        author=claims or author.public,
        issued_at=at,
        since=since,
        reason=reason,
        name=name,
    )
    return envelope.sign(author, MESH, body)


def chain_of(author: SigningKey) -> Chain:
    return () if author is ROOT_KEY else durable(author)


def read(data: bytes, chain: Chain) -> Revocation:
    return read_revocation(data, chain, mesh=MESH, roots=(ROOT.certificate,), judge=JUDGE)


def revocation(author: SigningKey, what: str, subject: bytes, *, at: int = NOW, since: int = 0) -> Revocation:
    return read(signed(author, what, subject, at=at, since=since), chain_of(author))


def of_node(author: SigningKey, subject: SigningKey, *, at: int = NOW) -> Revocation:
    return revocation(author, "node", subject.public, at=at)

"""Revocations as people read them: who was shut out, by whom, when and why."""

from __future__ import annotations

from meshpeer.app.views import former_peer, name_of
from meshpeer.core.ids import NodeId, key_text
from meshpeer.core.node.node import Node
from meshpeer.core.records.revocation import ROOT, Revocation
from meshpeer.runtime.control import Peer, RevocationInfo, rfc3339

SHOWN_MAX = 20
"""Of the newest, so many stand in a status."""


def info_of(node: Node, one: Revocation) -> RevocationInfo:
    record = one.record
    return RevocationInfo(
        what=record.what,
        id=key_text(record.subject) if record.what == "node" else record.subject.hex(),
        name=record.name,
        by=by_of(node, one),
        at=rfc3339(record.issued_at),
        since=rfc3339(record.since) if record.since else None,
        reason=record.reason,
    )


def by_of(node: Node, one: Revocation) -> str:
    """Returns who signed a revocation."""
    return name_of(node, one.record.author) if one.identity else "the root"


def said_by(node: Node, one: Revocation) -> str:
    """Returns by whom, when and why, to follow ``was revoked``."""
    reason = f": {one.record.reason}" if one.record.reason else ""
    return f"by {by_of(node, one)} at {rfc3339(one.record.issued_at)[:19]}Z{reason}"


def newest(node: Node) -> tuple[RevocationInfo, ...]:
    """Returns the newest revocations that count, newest first."""
    ordered = sorted(node.ledger.revocations.counting, key=lambda one: -one.record.issued_at)
    return tuple(info_of(node, one) for one in ordered[:SHOWN_MAX])


def own_lines(node: Node) -> list[str]:
    """Returns the two lines for a node that was shut out itself; none for any other."""
    revoked = node.presence.revoked
    if revoked is None:
        return []
    if revoked.record.what == "root":
        return [
            f"the root of this node was retired at {rfc3339(revoked.record.issued_at)[:19]}Z, and nobody has "
            "signed its issuer anew",
            "the root that followed signs it: `meshpeer issuer add` there; or join anew: `meshpeer leave`, "
            "then `meshpeer join INVITE`",
        ]
    what = "this node" if revoked.record.what == "node" else f"the {revoked.record.what} of this node"
    return [
        f"{what} was revoked {said_by(node, revoked)}",
        "no member answers it any more; to be back it joins anew: `meshpeer leave`, "
        "then `meshpeer join INVITE`",
    ]


def void_lines(node: Node) -> list[str]:
    """Returns what is worth knowing of revocations that do not count."""
    return [
        f"{by_of(node, one)} revoked {one.record.name or one.record.subject.hex()[:16]}, which does not "
        "count: it was revoked itself by somebody senior"
        for one in node.ledger.revocations.void[:SHOWN_MAX]
        # What stood on a retired root was signed anew, as far as it was to stay.
        if not _is_retired(node, one)
    ]


def _is_retired(node: Node, one: Revocation) -> bool:
    return any(node.ledger.revocations.of(*on) for on in one.stands_on if on[0] == ROOT)


def revoked_peers(node: Node) -> list[Peer]:
    """Returns the nodes that were shut out by their own keys."""
    return [_peer(node, one) for one in node.ledger.revocations.counting if one.record.what == "node"]


def revoked_named(node: Node, text: str) -> Revocation | None:
    """Finds a node that was shut out by what it was called, or by its id."""
    for one in node.ledger.revocations.counting:
        if one.record.what == "node" and text in (one.record.name, key_text(one.record.subject)):
            return one
    return None


def _peer(node: Node, one: Revocation) -> Peer:
    return former_peer(
        NodeId(one.record.subject),
        one.record.name,
        state="revoked",
        since_unix_s=one.record.issued_at,
        because=f"revoked {said_by(node, one)}",
    )

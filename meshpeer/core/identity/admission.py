"""Admission: an issuer turns a provisional leaf into a durable one.

The request is the provisional chain itself, which travels as gossip; so is the answer. Every issuer counts an invite's uses from
the durable leaves that it has seen, so that several issuers agree once they have heard each other. Who was admitted first
keeps the place; renewing a node that was admitted before is no new use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshpeer.core.identity.certificates import Authority, make_durable_leaf
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.ids import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class UsesSpent:
    """The invite has admitted as many nodes as it may."""

    invite: bytes
    uses: int
    admitted: tuple[NodeId, ...]


def judge_admission(asks: VerifiedIdentity, durable: Iterable[VerifiedIdentity]) -> UsesSpent | None:
    """Says whether an invite has a use left for ``asks``, given all durable identities known; None admits."""
    admitted = sorted((one.admitted_at, one.node) for one in durable if one.durable and one.invite == asks.invite)
    nodes = tuple(node for _, node in admitted)
    if asks.node in nodes or len(nodes) < asks.invite_uses:
        return None
    return UsesSpent(invite=asks.invite, uses=asks.invite_uses, admitted=nodes)


def issue_durable(issuer: Authority, asks: VerifiedIdentity, *, now_unix_s: int, serial: bytes) -> tuple[bytes, bytes]:
    """Returns the durable chain (leaf, issuer) for a provisional identity, with what its invite allows."""
    leaf = make_durable_leaf(
        issuer,
        asks.node,
        capabilities=asks.capabilities,
        roles=asks.roles,
        region=asks.region,
        routes=asks.routes,
        admitted_at=now_unix_s,
        invite=asks.invite,
        now_unix_s=now_unix_s,
        serial=serial,
    )
    return (leaf, issuer.certificate)

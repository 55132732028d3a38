"""Admission: an issuer turns a provisional leaf into a durable one.

The request is the provisional chain itself, which travels as gossip; so is the answer. Every issuer counts
an invite's uses from the durable leaves that it has seen, so that several issuers agree once they have
heard each other. Who was admitted first keeps the place; renewing a node that was admitted before is no new
use.

Durable leaves repeat their invite's id and uses, so anybody can tell who came too late: two issuers that
admitted the last two at once need no word with each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshpeer.core.identity.certificates import Authority, constraints_of, make_durable_leaf
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.identity.constraints import Capability, known
from meshpeer.core.ids import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class UsesSpent:
    """The invite has admitted as many nodes as it may."""

    invite: bytes
    uses: int
    admitted: tuple[NodeId, ...]
    """Who holds the places, first come first."""


def judge_admission(asks: VerifiedIdentity, durable: Iterable[VerifiedIdentity]) -> UsesSpent | None:
    """Says whether an invite has a place for ``asks``, given all durable identities known; None admits.

    A node that holds a place keeps it; one that was admitted too late by another issuer is refused like a
    newcomer.
    """
    if not asks.invite:
        return None
    places = _order_of_admission(durable, asks.invite)[: asks.invite_uses]
    if asks.node in places or len(places) < asks.invite_uses:
        return None
    return UsesSpent(invite=asks.invite, uses=asks.invite_uses, admitted=places)


def admitted_too_late(durable: Iterable[VerifiedIdentity]) -> tuple[tuple[NodeId, UsesSpent], ...]:
    """Finds the durable nodes beyond their invite's uses: several issuers admitted at once.

    The same leaves give the same answer everywhere, in order of invite and admission.
    """
    identities = [one for one in durable if one.durable and one.invite]
    late: list[tuple[NodeId, UsesSpent]] = []
    for invite, uses in sorted({one.invite: one.invite_uses for one in identities}.items()):
        order = _order_of_admission(identities, invite)
        spent = UsesSpent(invite=invite, uses=uses, admitted=order[:uses])
        late += [(node, spent) for node in order[uses:]]
    return tuple(late)


def issue_durable(
    issuer: Authority, asks: VerifiedIdentity, *, now_unix_s: int, serial: bytes, holder: bool = False
) -> tuple[bytes, bytes]:
    """Returns the durable chain (leaf, issuer) for an identity, with what its invite allows.

    Serves renewal too: a durable identity keeps its time of admission. Capabilities that this issuer may
    not hand on are left out. ``holder``: the root named this node an issuer, so its leaf says that, too.
    """
    handed_on = known(constraints_of(issuer.certificate).capabilities)
    leaf = make_durable_leaf(
        issuer,
        asks.node,
        capabilities=(asks.capabilities | ({Capability.ISSUER} if holder else set())) & handed_on,
        roles=asks.roles,
        region=asks.region,
        routes=asks.routes,
        admitted_at=asks.admitted_at if asks.durable else now_unix_s,
        invite=asks.invite,
        uses=asks.invite_uses,
        now_unix_s=now_unix_s,
        serial=serial,
    )
    return (leaf, issuer.certificate)


def _order_of_admission(durable: Iterable[VerifiedIdentity], invite: bytes) -> tuple[NodeId, ...]:
    """Returns the nodes that an invite let in, first come first; equal seconds go by node id."""
    first: dict[NodeId, int] = {}
    for one in durable:
        if one.durable and one.invite == invite:
            first[one.node] = min(one.admitted_at, first.get(one.node, one.admitted_at))
    return tuple(node for _, node in sorted((at, node) for node, at in first.items()))

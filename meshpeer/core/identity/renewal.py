"""When a durable leaf is renewed, and by which issuer: a schedule that all issuers compute alike.

A leaf lasts a year and is renewed once it is thirty days old, so it may miss eleven renewals before its node
is out. Any issuer may renew. Which one does is settled without a word between them: each node has the issuers
in an order of its own (rendezvous hashing), and each gets a day before it is the next one's turn. So the work
spreads over issuers, and one that is gone costs a day. Nodes that were admitted together are spread over two
days.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from meshpeer.core.identity.certificates import BACKDATED_S, DURABLE_S, Authority, constraints_of, end_of
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.identity.constraints import known
from meshpeer.core.ids import NodeId

DAY_S = 86_400
RENEW_AFTER_S = 30 * DAY_S
SPREAD_S = 2 * DAY_S
TURN_S = DAY_S
"""How long each issuer has before the next one in a node's order renews it."""
WARN_BELOW_S = 60 * DAY_S
"""A leaf with less than this left has missed nine months of renewals: somebody has to look."""
GAIN_MIN_S = DAY_S
"""A renewal that would give less is none: the issuer's own certificate ends."""


def renewal_at(held: VerifiedIdentity, issuer: bytes, issuers: Collection[bytes]) -> int:
    """Returns the Unix second from which one of the issuers (by key id) renews a durable leaf."""
    turn = turn_of(held.node, issuer, issuers)
    return held.signed_from + BACKDATED_S + RENEW_AFTER_S + _spread(held.node) + turn * TURN_S


def turn_of(node: NodeId, issuer: bytes, issuers: Collection[bytes]) -> int:
    """Returns the place of an issuer in a node's own order of all of them, from 0."""
    order = sorted({issuer, *issuers}, key=lambda one: hashlib.sha256(one + node).digest())
    return order.index(issuer)


def can_renew(issuer: Authority, held: VerifiedIdentity, now_unix_s: int) -> bool:
    """Says whether this issuer may hand on all that a leaf allows, and lasts long enough to be of use."""
    handed_on = known(constraints_of(issuer.certificate).capabilities)
    gained = min(now_unix_s + DURABLE_S, end_of(issuer.certificate)) - held.not_after
    return held.durable and held.capabilities <= handed_on and gained >= GAIN_MIN_S


def _spread(node: NodeId) -> int:
    return int.from_bytes(hashlib.sha256(b"renewal" + node).digest()[:4]) % SPREAD_S

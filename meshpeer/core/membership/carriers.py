"""Carriers: members that pass on the bytes of a link between two that can't dial each other.

Such a link is dialled like any other: a carrier stands in ``Dial.addresses`` behind the addresses of the
member itself, as ``over/CARRIER/MEMBER``. TLS runs between the two ends, so a carrier reads nothing and can
change nothing; it can only stop. One carrier is all there ever is on the way: both its legs must be links
that go straight, so nothing can go in a circle.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from meshpeer.core.ids import NODE_ID_BYTES, NodeId, key_text

CARRIERS_TRIED_MAX = 4
"""Members that are asked in one dial, each a moment after the one before."""
CARRIERS_WANTED = 2
"""Links to open to a member's neighbours, where this node has none to anybody who may carry."""
_PREFIX = "over/"


class Over(NamedTuple):
    """A way to a member over another."""

    carrier: NodeId
    target: NodeId


def address_over(carrier: NodeId, target: NodeId) -> str:
    """Returns what stands for a carrier among the addresses of a dial."""
    return f"{_PREFIX}{key_text(carrier)}/{key_text(target)}"


def over_in(address: str) -> Over | None:
    """Returns the way that an address stands for; None for an address on a network."""
    if not address.startswith(_PREFIX):
        return None
    ids = [_id_in(part) for part in address.removeprefix(_PREFIX).split("/")]
    if len(ids) != 2 or ids[0] is None or ids[1] is None:
        return None
    return Over(ids[0], ids[1])


def _id_in(text: str) -> NodeId | None:
    try:
        key = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except ValueError:
        return None
    return NodeId(key) if len(key) == NODE_ID_BYTES else None


def choose_carriers(
    me: NodeId,
    target: NodeId,
    *,
    linked: Iterable[NodeId],
    may_carry: Callable[[NodeId], bool],
    voucher: NodeId | None,
    neighbours: Sequence[NodeId],
) -> tuple[NodeId, ...]:
    """Returns whom to ask to carry a link, best first.

    ``linked`` are those to whom this node has a link that goes straight. Whoever said that it reaches the
    target comes first, then those whose ring neighbour the target is: they keep links to it. The rest is
    drawn, alike at both ends: two that dial each other at once meet at one carrier.
    """
    able = [one for one in linked if one != target and may_carry(one)]
    near = frozenset(neighbours)
    pair = b"".join(sorted((me, target)))

    def rank(one: NodeId) -> tuple[bool, bool, bytes]:
        return one != voucher, one not in near, hashlib.sha256(pair + one).digest()

    return tuple(sorted(able, key=rank)[:CARRIERS_TRIED_MAX])

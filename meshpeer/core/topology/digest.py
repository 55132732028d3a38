"""The digest of a plan's inputs: a few bytes for each kind of fact, so that two nodes can say in what they
differ.

It is made of what every node with the same facts has alike, and of nothing that only one of them saw: no
links, no endpoints, no opinions of its own. So who holds a contested name is left out, since a dead member
yields it by each node's own opinion; tunnels do not depend on it. Addresses are digested as they were
*resolved*, hubs as they were drawn: two versions that read the same facts differently are found, too.

How the bytes are made is part of the protocol. A later version may add parts at the end; those before stay as
they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from meshpeer.core.ids import Digest, NodeId
from meshpeer.core.topology.shape import Shape

PARTS = ("charter", "members", "addresses", "doubts", "mode", "hubs")
"""What a digest has bytes of, in order: the charter; who is in, by which record and certificate; whose the
tunnels' keys and addresses are; who is doubted; full or regional; the hubs of each region."""
PART_BYTES = 3
"""Two that differ look alike once in 16 million."""

Row = Sequence[bytes]
MemberRow = tuple[NodeId, Digest, Digest]
"""Who is in: its id, the hash of its record, that of the certificate that counts."""


def digest_of(shape: Shape, charter: Digest, members: Iterable[MemberRow]) -> bytes:
    """Returns ``PART_BYTES`` for each of ``PARTS``. ``charter`` is the hash of the charter; ``members`` are
    in id order and include those without an interface, whom the view leaves out."""
    view, hubs = shape.view, sorted(shape.cells.items())
    return b"".join(
        (
            _part([(charter,)]),
            _part(members),
            _part((one.node, one.wireguard_key, *_texts(one.ipv4, one.ipv6)) for one in view.members),
            _part((one.node,) for one in view.members if one.doubted),
            _part([_texts(shape.mode)]),
            _part(
                (
                    region.encode(),
                    *(b"a" + one.node for one in cell.active),
                    *(b"s" + one.node for one in cell.standby),
                )
                for region, cell in hubs
            ),
        )
    )


def differing(mine: bytes, theirs: bytes) -> tuple[str, ...]:
    """Returns the names of the parts in which two digests differ; parts of a later version are not looked
    at."""
    return tuple(
        part
        for at, part in enumerate(PARTS)
        if _cut(mine, at) != _cut(theirs, at) and _cut(mine, at) and _cut(theirs, at)
    )


def _cut(digest: bytes, at: int) -> bytes:
    return digest[at * PART_BYTES : (at + 1) * PART_BYTES]


def _part(rows: Iterable[Row]) -> bytes:
    """Hashes rows of fields; lengths keep apart what would else run together."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row).to_bytes(2))
        for one in row:
            digest.update(len(one).to_bytes(2) + one)
    return digest.digest()[:PART_BYTES]


def _texts(*texts: str) -> tuple[bytes, ...]:
    return tuple(one.encode() for one in texts)

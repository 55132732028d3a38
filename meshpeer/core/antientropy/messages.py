"""What two ledgers say to each other."""

from __future__ import annotations

import msgspec

from meshpeer.core.ids import NodeId


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What one node holds of one member: 8-byte prefixes of the record's and of the best leaf's digest.

    ``record`` is empty where only certificates are held, ``proof`` says that the member is known to have
    equivocated.
    """

    node: NodeId
    incarnation: int
    sequence: int
    record: bytes
    leaf: bytes
    proof: bool = False


class Digest(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="digest"):
    """All entries with ``low <= node < high`` (an empty ``high`` is the end), and the charter held.

    The receiver answers with the facts that the sender lacks, and a ``Want`` for those that it lacks itself.
    """

    low: bytes
    high: bytes
    entries: tuple[Entry, ...]
    charter_version: int
    charter: bytes


class Want(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="want"):
    """Asks for all that the receiver holds of these members."""

    nodes: tuple[NodeId, ...]
    charter: bool = False


class Facts(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="facts"):
    """Certificate chains (leaf first) and signed records; chains are merged before records."""

    chains: tuple[tuple[bytes, ...], ...] = ()
    records: tuple[bytes, ...] = ()


class Synced(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="synced"):
    """The receiver has been sent all that the sender's last digest exchange showed it to lack."""

    members: int


FRAMES = (Digest, Want, Facts, Synced)

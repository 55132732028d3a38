"""What two ledgers say to each other."""

from __future__ import annotations

import msgspec

from meshpeer.core.ids import NodeId

Range = tuple[bytes, bytes, tuple[tuple[NodeId, bytes], ...]]
"""A prefix of ids (``ranges.pack_prefix``), then either the fingerprint of all below it, or an empty one
and the list of all below it: ids, each with 8 bytes of the hash of what is held of it."""


class Compare(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t", tag="compare"):
    """What the sender holds in ranges of ids that may differ, and whose facts it asks for.

    The ranges are in order, and none holds another: so whatever a peer sends, the work that it asks for is
    bounded by what the receiver holds.
    """

    ranges: tuple[Range, ...] = ()
    want: tuple[NodeId, ...] = ()
    more: bool = False
    """Something was left out of this round because it did not fit; it stays set to the round's end."""


class Want(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="want"):
    """Asks for all that the receiver holds of these members."""

    nodes: tuple[NodeId, ...]


class Facts(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="facts"):
    """Certificate chains (leaf first) and signed records; chains are merged before records."""

    chains: tuple[tuple[bytes, ...], ...] = ()
    records: tuple[bytes, ...] = ()
    push: bool = False
    """News along the tree, not an answer to a reconciliation."""


class Synced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t", tag="synced"):
    """The round is over: what the receiver lacked was sent before this, unless there is ``more``."""

    members: int
    more: bool = False
    """Something did not fit this round; another one finds it."""


FRAMES = (Compare, Want, Facts, Synced)

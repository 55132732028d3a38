"""What two ledgers say to each other."""

from __future__ import annotations

import msgspec

from meshpeer.core.ids import NodeId

Range = tuple[bytes, bytes, tuple[tuple[NodeId, bytes], ...]]
"""A prefix of ids (``ranges.pack_prefix``), then either the fingerprint of all below it, or an empty one
and the list of all below it: ids, each with 8 bytes of the hash of what is held of it."""


class Word(msgspec.Struct, frozen=True, kw_only=True, array_like=True, omit_defaults=True):
    """Who derives its plan from what, as far as the sender has heard: its own digest, and those of others in
    groups of one digest and stamp (``digests``)."""

    ids: bytes
    """4 bytes of the hash of the ids of all members, in order: what a bit stands for. Whoever counts other
    members reads the sender's own digest alone."""
    stamp: int
    """Of the sender's own digest, in Unix seconds."""
    digest: bytes
    """The sender's own."""
    digests: tuple[bytes, ...] = ()
    """Other ones that groups refer to."""
    groups: tuple[tuple[int, int, bytes], ...] = ()
    """A stamp; which digest: 0 for the sender's own, then those of ``digests``; and a bit for each member
    that said so then, the lowest bit of the first byte for the lowest id. Zero bytes at the end are left
    out."""


class Compare(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t", tag="compare"):
    """What the sender holds in ranges of ids that may differ, and whose facts it asks for.

    The ranges are in order, and none holds another: so whatever a peer sends, the work that it asks for is
    bounded by what the receiver holds.
    """

    ranges: tuple[Range, ...] = ()
    want: tuple[NodeId, ...] = ()
    more: bool = False
    """Something was left out of this round because it did not fit; it stays set to the round's end."""
    word: Word | None = None
    """Rides along, since a frame of its own would be mostly headers."""

    @property
    def opens(self) -> bool:
        """Says whether it begins a round: it is about all ids."""
        return bool(self.ranges) and not self.ranges[0][0]


class Want(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="want"):
    """Asks for all that the receiver holds of these members."""

    nodes: tuple[NodeId, ...]


class Facts(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="facts"):
    """Certificate chains (leaf first) and signed records; chains are merged before records."""

    chains: tuple[tuple[bytes, ...], ...] = ()
    records: tuple[bytes, ...] = ()
    push: bool = False
    """News along the tree, not an answer to a reconciliation."""


class Revoked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t", tag="revoked"):
    """Revocations: news, or all that the sender holds, which comes first on a link where the two ends hold
    different ones."""

    chains: tuple[tuple[bytes, ...], ...] = ()
    """Of their authors, leaf first."""
    said: tuple[tuple[int, bytes], ...] = ()
    """Of each which chain is its author's, counted from 1 (0: a root's, without one), and its envelope."""
    last: bool = False
    """No more of them follow: the sender has said all that it holds."""
    signers: tuple[bytes, ...] = ()
    """Certificates of roots that followed another and of issuers; they are read first."""


class Synced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t", tag="synced"):
    """The round is over: what the receiver lacked was sent before this, unless there is ``more``."""

    members: int
    more: bool = False
    """Something did not fit this round; another one finds it."""
    word: Word | None = None
    """What the receiver's own word lacked."""


def with_word(message: Compare | Synced, word: Word | None) -> Compare | Synced:
    """Returns the message with a word that rides along, where there is one."""
    return msgspec.structs.replace(message, word=word) if word else message


FRAMES = (Compare, Want, Facts, Revoked, Synced)

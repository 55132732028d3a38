"""Range-based set reconciliation: two ledgers find out in which members they differ.

The scheme is that of A. Meyer, "Range-Based Set Reconciliation" (SRDS 2023), with the fingerprint of
negentropy (a sum of hashes, then a hash of the sum and the count). Where they split a sorted list in equal
parts, this splits the space of ids by its next four bits: ids are public keys, spread evenly, so the parts
are as good as equal, both sides cut at the same places, and a range is named by its prefix. So nothing is
kept between two messages: whatever gets lost, the next round starts anew and finds what is left.

A range whose fingerprints differ is split in 16; one of at most 16 members is listed. Identical sets cost one
fingerprint each way at any size.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from meshpeer.core.antientropy.messages import Compare, Range, Synced
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId

ID_BYTES = 32
LEAF_MAX = 16
"""A range of at most so many members is listed, not split."""
MESSAGE_BYTES_MAX = 60_000
"""What the ranges and wants of one message come to; with its head it fits a frame. What does not fit is left
out, and ``more`` says so."""
PUSH_MAX = 2_048
"""Members whose facts one message brings on their way; a larger mesh syncs by several."""
FINGERPRINT_BYTES = 16
ITEM_PREFIX_BYTES = 8
"""Of an item's hash: who finds another one with the same prefix hides a change of its own only."""
_WANT_BYTES = 2 + ID_BYTES
_ITEM_BYTES = 1 + _WANT_BYTES + 1 + ITEM_PREFIX_BYTES
_RANGE_BYTES = 1 + 2 + 1 + 3
"""The CBOR heads of a range and of its three parts."""
_BUCKET_NIBBLES = 2
_SUMS = 1 << 256


class ItemSource(Protocol):
    """A ledger, as far as it matters here."""

    def item_of(self, node: NodeId) -> bytes | None:
        """Returns the hash of all that is held under an id."""
        ...

    def watch(
        self, watcher: Callable[[NodeId, bytes | None, bytes | None], None], *, from_now: bool = False
    ) -> None:
        """Tells of every step under an id, what was held and what is, beginning with all that is held."""
        ...


@dataclass(slots=True)
class Answer:
    """What a message comes to: facts to push first, then the one reply."""

    reply: Compare | Synced
    push: list[NodeId] = field(default_factory=list)
    """Of whom the sender lacks something, or asked for."""
    in_sync: bool = False
    """Nothing that the other side holds is lacking here."""


class Fingerprints:
    """Sums over all ids with one prefix. Those of up to two nibbles are kept, deeper ones are added up."""

    def __init__(self, source: ItemSource) -> None:
        self._source = source
        self._sums: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._buckets: dict[str, tuple[NodeId, ...]] = {}
        """In order, and replaced, not changed: copies share them."""

    def copy(self, source: ItemSource) -> Fingerprints:
        """Returns the same sums, to go their own way with another source that holds the same."""
        made = Fingerprints(source)
        made._sums, made._counts = dict(self._sums), dict(self._counts)
        made._buckets = dict(self._buckets)
        return made

    def replace(self, node: NodeId, held: bytes | None, now: bytes | None) -> None:
        """Takes one step of one member: what its item was, what it is."""
        by = (0 if held is None else -1) + (0 if now is None else 1)
        change = _number(now) - _number(held)
        text = node[:1].hex()
        for prefix in ("", text[0], text):
            self._sums[prefix] = (self._sums.get(prefix, 0) + change) % _SUMS
            self._counts[prefix] = self._counts.get(prefix, 0) + by
        if by:
            bucket = self._buckets.get(text, ())
            at = bisect_left(bucket, node)
            self._buckets[text] = (*bucket[:at], *((node,) if by > 0 else ()), *bucket[at + (by < 0) :])

    def count(self, prefix: str) -> int:
        if len(prefix) <= _BUCKET_NIBBLES:
            return self._counts.get(prefix, 0)
        return len(self._below(prefix))

    def of(self, prefix: str) -> bytes:
        """Returns the fingerprint of a range; of an empty one, too."""
        if len(prefix) <= _BUCKET_NIBBLES:
            total, count = self._sums.get(prefix, 0), self._counts.get(prefix, 0)
        else:
            numbers = [_number(self._source.item_of(node)) for node in self._below(prefix)]
            total, count = sum(numbers) % _SUMS, len(numbers)
        return hashlib.sha256(total.to_bytes(32) + count.to_bytes(4)).digest()[:FINGERPRINT_BYTES]

    def nodes(self, prefix: str) -> list[NodeId]:
        """Returns who is in a range, in id order."""
        if len(prefix) < _BUCKET_NIBBLES:
            return [node for digit in "0123456789abcdef" for node in self.nodes(prefix + digit)]
        return list(self._below(prefix))

    def _below(self, prefix: str) -> Sequence[NodeId]:
        bucket = self._buckets.get(prefix[:_BUCKET_NIBBLES], ())
        if len(prefix) == _BUCKET_NIBBLES:
            return bucket
        first, last = (bytes.fromhex(prefix.ljust(2 * ID_BYTES, digit)) for digit in "0f")
        return bucket[bisect_left(bucket, first) : bisect_right(bucket, last)]


@dataclass(slots=True)
class _Draft:
    """An answer in the making, with the room that is left in it."""

    more: bool
    push: list[NodeId]
    ranges: list[Range] = field(default_factory=list)
    want: list[NodeId] = field(default_factory=list)
    room: int = MESSAGE_BYTES_MAX

    def settle(self, push: list[NodeId], want: list[NodeId]) -> bool:
        """Takes what one list comes to, whole, and says whether it did."""
        cost = _WANT_BYTES * len(want)
        if len(self.push) + len(push) > PUSH_MAX or self.room < cost:
            return False
        self.push += push
        self.want += want
        self.room -= cost
        return True

    def tell(self, ranges: list[Range]) -> None:
        """Takes all the parts of one range or none of them."""
        cost = sum(_bytes_of(one) for one in ranges)
        if self.room < cost:
            self.more = True
            return
        self.ranges += ranges
        self.room -= cost


class Reconciler:
    """Answers messages; keeps nothing between them.

    A round is one message back and forth. Whoever is left with no open range and nothing to ask for says
    ``Synced``. Unless that says ``more``, both know that they are; else its receiver opens another round at
    once, a bounded number of times: a peer that refuses what it is sent would be sent it for ever.
    """

    def __init__(self, source: ItemSource, sums: Fingerprints | None = None) -> None:
        """``sums``: of what the source holds now, where somebody has them already."""
        self._source = source
        self._sums = sums or Fingerprints(source)
        source.watch(self._sums.replace, from_now=sums is not None)

    def open(self) -> Compare:
        """Begins a round."""
        return Compare(ranges=(self._print(""),))

    def on_compare(self, message: Compare) -> Answer:
        """Returns what to push and to reply; raises ``PeerFault`` for bad form."""
        ranges = _read(message)
        draft = _Draft(more=message.more, push=list(dict.fromkeys(message.want)))
        for prefix, fingerprint, theirs in ranges:
            if not fingerprint:
                mine = self._sums.nodes(prefix)
                lacking = [node for node in mine if theirs.get(node) != self._item(node)]
                asked = [node for node, item in theirs.items() if item != self._item(node)]
                if not draft.settle(lacking, asked):
                    # Asked again in the reply. What no message could bring is asked in parts.
                    whole = len(lacking) <= PUSH_MAX
                    draft.tell([self._print(prefix)] if whole else self._parts(prefix))
            elif fingerprint != self._sums.of(prefix):
                draft.tell(self._open_up(prefix))
        push = list(dict.fromkeys(draft.push))
        if draft.ranges or draft.want:
            reply = Compare(ranges=tuple(draft.ranges), want=tuple(draft.want), more=draft.more)
            return Answer(reply=reply, push=push)
        synced = Synced(members=self._sums.count(""), more=draft.more)
        return Answer(reply=synced, push=push, in_sync=not draft.more)

    def _open_up(self, prefix: str) -> list[Range]:
        """Lists a small range, splits a larger one; parts are listed only where they are empty, since a list
        costs twice a fingerprint for each member."""
        if self._sums.count(prefix) <= LEAF_MAX:
            return [self._list(prefix)]
        return self._parts(prefix)

    def _parts(self, prefix: str) -> list[Range]:
        parts = [prefix + digit for digit in "0123456789abcdef"]
        return [self._print(one) if self._sums.count(one) else self._list(one) for one in parts]

    def _print(self, prefix: str) -> Range:
        return (pack_prefix(prefix), self._sums.of(prefix), ())

    def _list(self, prefix: str) -> Range:
        nodes = self._sums.nodes(prefix)
        return (pack_prefix(prefix), b"", tuple((one, self._item(one)) for one in nodes))

    def _item(self, node: NodeId) -> bytes:
        return (self._source.item_of(node) or b"")[:ITEM_PREFIX_BYTES]


def _read(message: Compare) -> list[tuple[str, bytes, dict[NodeId, bytes]]]:
    """Checks the whole message before anything is done for it; raises ``PeerFault``."""
    if sum(map(_bytes_of, message.ranges)) + _WANT_BYTES * len(message.want) > MESSAGE_BYTES_MAX:
        raise PeerFault("a comparison of too many ranges or wants")
    if len(message.want) > PUSH_MAX or any(len(node) != ID_BYTES for node in message.want):
        raise PeerFault("a comparison that wants what is no member")
    read = [(unpack_prefix(packed), told, dict(items)) for packed, told, items in message.ranges]
    for (before, *_), (after, *_) in pairwise(read):
        if after <= before or after.startswith(before):
            raise PeerFault("ranges out of order, or one within another")
    for (prefix, fingerprint, theirs), (*_, items) in zip(read, message.ranges, strict=True):
        if fingerprint and (len(fingerprint) != FINGERPRINT_BYTES or items):
            raise PeerFault("a range with a fingerprint of another length")
        if len(theirs) != len(items) or len(items) > LEAF_MAX:
            raise PeerFault("a list with members twice, or too many")
        if not all(len(node) == ID_BYTES and node.hex().startswith(prefix) for node in theirs):
            raise PeerFault("a list with members outside its range")
        if not all(len(item) == ITEM_PREFIX_BYTES for item in theirs.values()):
            raise PeerFault("a list with hashes of another length")
    return read


def _bytes_of(one: Range) -> int:
    """Returns what a range comes to on the wire, or a little more."""
    packed, fingerprint, items = one
    return _RANGE_BYTES + len(packed) + len(fingerprint) + _ITEM_BYTES * len(items)


def pack_prefix(prefix: str) -> bytes:
    """Returns a prefix of nibbles as bytes: its length's parity, then the nibbles, padded."""
    odd = len(prefix) % 2
    return bytes((odd,)) + bytes.fromhex(prefix + "0" * odd) if prefix else b""


def unpack_prefix(packed: bytes) -> str:
    """Reads ``pack_prefix``; raises ``PeerFault``."""
    if not packed:
        return ""
    text = packed[1:].hex()
    if packed[0] > 1 or len(packed) < 2 or len(text) > 2 * ID_BYTES or (packed[0] and text[-1] != "0"):
        raise PeerFault("a range without a form")
    return text[:-1] if packed[0] else text


def _number(item: bytes | None) -> int:
    return int.from_bytes(item) if item is not None else 0

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from meshpeer.core.antientropy.messages import Compare, Range, Synced
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId

ID_BYTES = 32
LEAF_MAX = 16
"""A range of at most so many members is listed, not split."""
RANGES_MAX = 512
"""Ranges of one message: about 24 B each, and what they list."""
LISTED_MAX = 384
"""Members that one message lists, and members that it asks for: about 45 B and 35 B each; all fits a
frame."""
PUSH_MAX = 2_048
"""Members whose facts one message brings on their way; a larger mesh syncs by several."""
FINGERPRINT_BYTES = 16
ITEM_PREFIX_BYTES = 8
"""Of an item's hash: who finds another one with the same prefix hides a change of its own only."""
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
        self._buckets: dict[str, list[NodeId]] = {}

    def copy(self, source: ItemSource) -> Fingerprints:
        """Returns the same sums, to go their own way with another source that holds the same."""
        made = Fingerprints(source)
        made._sums, made._counts = dict(self._sums), dict(self._counts)
        made._buckets = {prefix: list(bucket) for prefix, bucket in self._buckets.items()}
        return made

    def replace(self, node: NodeId, held: bytes | None, now: bytes | None) -> None:
        """Takes one step of one member: what its item was, what it is."""
        by = (0 if held is None else -1) + (0 if now is None else 1)
        change = _number(now) - _number(held)
        text = node[:1].hex()
        for prefix in ("", text[0], text):
            self._sums[prefix] = (self._sums.get(prefix, 0) + change) % _SUMS
            self._counts[prefix] = self._counts.get(prefix, 0) + by
        if by > 0:
            self._buckets.setdefault(text, []).append(node)
        elif by < 0:
            self._buckets[text].remove(node)

    def count(self, prefix: str) -> int:
        if len(prefix) <= _BUCKET_NIBBLES:
            return self._counts.get(prefix, 0)
        return sum(1 for _ in self._below(prefix))

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
        return sorted(self._below(prefix))

    def _below(self, prefix: str) -> Iterator[NodeId]:
        bucket = self._buckets.get(prefix[:_BUCKET_NIBBLES], ())
        if len(prefix) == _BUCKET_NIBBLES:
            return iter(bucket)
        return (node for node in bucket if node.hex().startswith(prefix))


class Reconciler:
    """Answers messages; keeps nothing between them.

    A round is one message back and forth. Whoever is left with no open range and nothing to ask for says
    ``Synced``, and both know that they are.
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
        if len(message.ranges) > RANGES_MAX or len(message.want) > LISTED_MAX:
            raise PeerFault("a comparison of too many ranges or wants")
        push: dict[NodeId, None] = dict.fromkeys(message.want)
        want: list[NodeId] = []
        ranges: list[Range] = []
        room = LISTED_MAX
        for packed, fingerprint, items in message.ranges:
            prefix = unpack_prefix(packed)
            if not fingerprint:
                theirs = self._read(prefix, items)
                if len(push) >= PUSH_MAX or len(want) + len(theirs) > LISTED_MAX:
                    ranges.append(self._print(prefix))  # What does not fit is found by the next message.
                    continue
                push.update(dict.fromkeys(self._more(self._sums.nodes(prefix), theirs)))
                want += [node for node in theirs if theirs[node] != self._item(node)]
            elif len(fingerprint) != FINGERPRINT_BYTES or items:
                raise PeerFault("a range with a fingerprint of another length")
            elif fingerprint != self._sums.of(prefix):
                if self._sums.count(prefix) <= min(LEAF_MAX, room) or len(prefix) == 2 * ID_BYTES:
                    room -= self._sums.count(prefix)
                    ranges.append(self._list(prefix))
                else:
                    # A list costs twice a fingerprint for each member: parts are listed where they are empty.
                    parts = [prefix + digit for digit in "0123456789abcdef"]
                    ranges += [
                        self._print(one) if self._sums.count(one) else self._list(one) for one in parts
                    ]
        ranges = ranges[:RANGES_MAX]
        if ranges or want:
            return Answer(reply=Compare(ranges=tuple(ranges), want=tuple(want)), push=list(push))
        return Answer(reply=Synced(members=self._sums.count("")), push=list(push), in_sync=True)

    def _read(self, prefix: str, items: tuple[tuple[NodeId, bytes], ...]) -> dict[NodeId, bytes]:
        theirs = dict(items)
        if len(theirs) != len(items) or len(items) > LEAF_MAX:
            raise PeerFault("a list with members twice, or too many")
        if not all(len(node) == ID_BYTES and node.hex().startswith(prefix) for node in theirs):
            raise PeerFault("a list with members outside its range")
        return theirs

    def _more(self, mine: list[NodeId], theirs: dict[NodeId, bytes]) -> list[NodeId]:
        return [node for node in mine if theirs.get(node) != self._item(node)]

    def _print(self, prefix: str) -> Range:
        return (pack_prefix(prefix), self._sums.of(prefix), ())

    def _list(self, prefix: str) -> Range:
        nodes = self._sums.nodes(prefix)
        return (pack_prefix(prefix), b"", tuple((one, self._item(one)) for one in nodes))

    def _item(self, node: NodeId) -> bytes:
        return (self._source.item_of(node) or b"")[:ITEM_PREFIX_BYTES]


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

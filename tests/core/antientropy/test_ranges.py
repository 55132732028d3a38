"""Range-based reconciliation against the naive way: compare two maps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.antientropy.messages import Compare, Synced
from meshpeer.core.antientropy.ranges import (
    ITEM_PREFIX_BYTES,
    LEAF_MAX,
    MESSAGE_BYTES_MAX,
    Fingerprints,
    Reconciler,
    pack_prefix,
    unpack_prefix,
)
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import FRAME_BYTES_MAX

Held = dict[NodeId, bytes]


class Side:
    """A map with its reconciler; facts are pushed by copying what is higher."""

    def __init__(self, held: Held) -> None:
        self.held = dict(held)
        self.reconciler = Reconciler(self)

    def watch(
        self, watcher: Callable[[NodeId, bytes | None, bytes | None], None], *, from_now: bool = False
    ) -> None:
        assert not from_now
        self.tell = watcher
        for node, item in self.held.items():
            watcher(node, None, item)

    def item_of(self, node: NodeId) -> bytes | None:
        return self.held.get(node)

    def take(self, node: NodeId, item: bytes) -> None:
        before = self.held.get(node)
        if before is None or item > before:
            self.held[node] = item
            self.tell(node, before, item)


class Round:
    """One exchange between two sides, with what it cost."""

    def __init__(self, left: Side, right: Side, *, losing: int = -1) -> None:
        self.messages = self.bytes = self.pushed = 0
        sides = (left, right)
        message: Compare | Synced = left.reconciler.open()
        turn = 1
        while isinstance(message, Compare):
            self.messages += 1
            size = len(cbor.encode(message))
            assert size < FRAME_BYTES_MAX
            self.bytes += size
            if self.messages == losing:
                return
            answer = sides[turn].reconciler.on_compare(message)
            for node in answer.push:
                if (item := sides[turn].item_of(node)) is not None:
                    sides[1 - turn].take(node, item)
                    self.pushed += 1
            message, turn = answer.reply, 1 - turn
            assert self.messages < 1_000
        self.messages += 1
        self.bytes += len(cbor.encode(message))


def test_equal_sets_cost_one_fingerprint_each_way_at_any_size() -> None:
    for size in (0, 1, 16, 1_000, 10_000):
        both = held_of(size)
        cost = Round(Side(both), Side(both))
        assert (cost.messages, cost.pushed) == (2, 0)
        assert cost.bytes < 80


@pytest.mark.parametrize(("size", "bytes_max"), [(1_000, 12_000), (10_000, 24_000)])
def test_ten_differences_cost_a_few_kilobytes(size: int, bytes_max: int) -> None:
    left, right = Side(held_of(size)), Side(held_of(size))
    for number in range(10):
        node = sorted(left.held)[number * size // 10]
        (left if number % 2 else right).take(node, b"\xff" * 32)
    cost = Round(left, right)
    assert left.held == right.held
    assert cost.bytes < bytes_max


def test_newcomer_gets_everything_in_a_few_messages() -> None:
    newcomer, old = Side(held_of(1, salt=7)), Side(held_of(1_000))
    cost = Round(newcomer, old)
    assert newcomer.held == old.held
    assert cost.messages <= 8


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_two_sides_end_with_the_union_whatever_is_lost(data: st.DataObject) -> None:
    universe = sorted(held_of(data.draw(st.integers(1, 120))))
    some = st.dictionaries(st.sampled_from(universe), st.integers(0, 3))
    left, right = (
        Side({node: hashlib.sha256(node + bytes([version])).digest() for node, version in one.items()})
        for one in (data.draw(some), data.draw(some))
    )
    expected = {
        node: max(filter(None, (left.held.get(node), right.held.get(node))))
        for node in {**left.held, **right.held}
    }
    Round(left, right, losing=data.draw(st.integers(1, 4)))
    Round(*data.draw(st.permutations([left, right])))
    assert left.held == right.held == expected


def test_more_than_one_message_can_push_is_found_by_the_next() -> None:
    left, right = Side({}), Side(held_of(6_000))
    rounds = 0
    while left.held != right.held:
        Round(left, right)
        rounds += 1
        assert rounds < 5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=32, max_size=32) | st.none()), max_size=60))
def test_kept_sums_are_the_sums_of_what_is_held(steps: list[tuple[int, bytes | None]]) -> None:
    side = Side({})
    nodes = sorted(held_of(41))
    for number, item in steps:
        before = side.held.pop(nodes[number], None)
        if item is not None:
            side.held[nodes[number]] = item
        if before is not None or item is not None:
            side.tell(nodes[number], before, item)
    fresh = Fingerprints(side)
    for node, held in side.held.items():
        fresh.replace(node, None, held)
    for prefix in ("", "0", "a", "a0", "ff", "0a1"):
        assert side.reconciler._sums.of(prefix) == fresh.of(prefix)
        assert side.reconciler._sums.nodes(prefix) == sorted(
            one for one in side.held if one.hex().startswith(prefix)
        )


def test_prefix_survives_packing() -> None:
    for text in ("", "0", "00", "abc", "f" * 64):
        assert unpack_prefix(pack_prefix(text)) == text


HASH = bytes(ITEM_PREFIX_BYTES)
BAD = {
    "out of order": Compare(ranges=((pack_prefix("b"), bytes(16), ()), (pack_prefix("a"), bytes(16), ()))),
    "same range twice": Compare(ranges=((pack_prefix("a"), bytes(16), ()),) * 2),
    "range within a range": Compare(ranges=((b"", b"", ()), (pack_prefix("a"), b"", ()))),
    "short hash": Compare(ranges=((b"", b"", ((NodeId(bytes(32)), HASH[1:]),)),)),
    "want of no member": Compare(want=(NodeId(b"x"),)),
    "too many ranges": Compare(ranges=tuple((pack_prefix(f"{n:03x}"), bytes(16), ()) for n in range(2_400))),
    "too many wants": Compare(ranges=(), want=(NodeId(bytes(32)),) * (MESSAGE_BYTES_MAX // 34 + 1)),
    "short fingerprint": Compare(ranges=((b"", bytes(15), ()),)),
    "fingerprint and list": Compare(ranges=((b"", bytes(16), ((NodeId(bytes(32)), HASH),)),)),
    "long list": Compare(
        ranges=((b"", b"", tuple((NodeId(bytes([n]) * 32), HASH) for n in range(LEAF_MAX + 1))),)
    ),
    "twice": Compare(ranges=((b"", b"", ((NodeId(bytes(32)), HASH),) * 2),)),
    "outside": Compare(ranges=((pack_prefix("a"), b"", ((NodeId(bytes(32)), HASH),)),)),
    "short id": Compare(ranges=((b"", b"", ((NodeId(b"x"), HASH),)),)),
    "prefix too long": Compare(ranges=((b"\0" + bytes(33), bytes(16), ()),)),
    "prefix of no parity": Compare(ranges=((b"\2" + bytes(3), bytes(16), ()),)),
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
def test_bad_form_is_the_peers_fault(message: Compare) -> None:
    with pytest.raises(PeerFault):
        Side(held_of(20)).reconciler.on_compare(message)


# --- helpers ------------------------------------------------------------------------------------------------


def held_of(size: int, salt: int = 0) -> Held:
    ids = [hashlib.sha256(bytes([salt]) + number.to_bytes(4)).digest() for number in range(size)]
    return {NodeId(one): hashlib.sha256(one).digest() for one in ids}

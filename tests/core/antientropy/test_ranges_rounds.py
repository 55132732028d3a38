"""Rounds of reconciliation between two sides whose facts merge: what is lost, what does not fit, what a liar
sends.

A fact here is a number; a member's item is the hash of all its numbers; two sides that meet hold the union.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshpeer.core.antientropy.messages import Compare, Range, Synced
from meshpeer.core.antientropy.ranges import PUSH_MAX, Answer, Reconciler, pack_prefix
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import FRAME_BYTES_MAX, MEMBERS_MAX

Facts = dict[NodeId, frozenset[int]]
HEX = "0123456789abcdef"


def test_both_sides_send_what_the_other_lacks_and_nothing_else() -> None:
    common = {node(number): frozenset({0}) for number in range(2_000)}
    left, right = Side(common), Side(common)
    left.take(node(1), {1})
    right.take(node(1), {2})
    left.take(node(5_000), {0})
    right.take(node(6_000), {0})
    left.forget(node(7))
    right.forget(node(8))
    came = talk(left, right)
    assert set(came.to_right) == {node(1), node(5_000), node(8)}
    assert set(came.to_left) == {node(1), node(6_000), node(7)}
    assert len(came.to_left) == len(came.to_right) == 3
    assert came.in_sync
    assert left.facts == right.facts


@pytest.mark.parametrize("size", [2, 17, 1_000])
@pytest.mark.parametrize("joiner_opens", [True, False])
def test_joiner_has_everything_after_two_round_trips(size: int, joiner_opens: bool) -> None:
    mesh = Side({node(number): frozenset({0}) for number in range(size)})
    joiner = Side({node(-1): frozenset({0})})
    came = talk(joiner, mesh) if joiner_opens else talk(mesh, joiner)
    assert joiner.facts == mesh.facts
    assert len(joiner.facts) == size + 1
    assert came.in_sync
    assert came.messages <= 6


@pytest.mark.parametrize("size", [1_000, 6_000])
def test_nobody_is_in_sync_before_all_that_did_not_fit_has_come(size: int) -> None:
    left = Side({node(number): frozenset({1}) for number in range(size)})
    right = Side({node(number): frozenset({2}) for number in range(size)})
    for _ in range(size // 500 + 2):
        came = talk(left, right)
        assert came.in_sync is (left.facts == right.facts)
        if came.in_sync:
            break
    assert left.facts == right.facts


def test_push_of_a_large_ledger_comes_in_bounded_steps_of_one_round() -> None:
    mesh = Side({node(number): frozenset({0}) for number in range(3 * PUSH_MAX)})
    answer = mesh.reconciler.on_compare(Compare(ranges=((b"", b"", ()),)))
    assert answer.push == []
    assert isinstance(answer.reply, Compare)
    assert [prefix for prefix, *_ in answer.reply.ranges] == [pack_prefix(one) for one in HEX]
    joiner = Side({})
    came = talk(joiner, mesh)
    assert came.in_sync
    assert len(came.to_left) == 3 * PUSH_MAX
    assert joiner.facts == mesh.facts


def test_round_ends_with_a_peer_that_takes_nothing() -> None:
    """A full ledger, or a clock that is off: what was brought once is not brought again in that round."""
    mesh = Side({node(number): frozenset({0}) for number in range(3 * PUSH_MAX)})
    full = Side({})
    full.take = lambda key, more: None  # type: ignore[method-assign]
    came = talk(full, mesh)
    assert len(came.to_left) == 3 * PUSH_MAX
    assert full.facts == {}


def test_more_stays_set_to_the_end_of_a_round() -> None:
    side = Side({})
    for ranges in ((), ((b"", b"", ()),)):
        answer = side.reconciler.on_compare(Compare(ranges=ranges, more=True))
        assert answer == Answer(reply=Synced(members=0, more=True), push=[], in_sync=False)
    wanted = side.reconciler.on_compare(Compare(ranges=((b"", b"", ((node(1), bytes(8)),)),), more=True))
    assert wanted.reply == Compare(want=(node(1),), more=True)


def test_ids_that_share_all_but_the_last_nibbles_are_told_apart() -> None:
    """Keys can be ground to share a few nibbles, not so many; depth must end all the same."""
    twins = [NodeId(bytes(30) + number.to_bytes(2)) for number in range(600)]
    left, right = Side({one: frozenset({0}) for one in twins}), Side({one: frozenset({0}) for one in twins})
    left.take(twins[300], {9})
    came = talk(left, right)
    assert left.facts == right.facts
    assert set(came.to_right) == {twins[300]}


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_liar_gets_a_bounded_answer_or_is_at_fault(data: st.DataObject) -> None:
    prefixes = st.text(HEX, max_size=3) | st.sampled_from([one.hex()[:9] for one in LARGE.facts][:50])
    items = st.lists(st.tuples(st.binary(max_size=33).map(NodeId), st.binary(max_size=9)), max_size=20)
    shape = st.tuples(
        prefixes.map(pack_prefix) | st.binary(max_size=35), st.sampled_from([b"", bytes(16), b"x"]), items
    )
    drawn: list[tuple[bytes, bytes, list[tuple[NodeId, bytes]]]] = data.draw(st.lists(shape, max_size=30))
    ranges: tuple[Range, ...] = tuple((prefix, told, tuple(listed)) for prefix, told, listed in drawn)
    want = tuple(NodeId(one) for one in data.draw(st.lists(st.binary(min_size=31, max_size=33), max_size=4)))
    try:
        answer = LARGE.reconciler.on_compare(Compare(ranges=ranges, want=want))
    except PeerFault:
        return
    assert_bounded(answer)


@given(cuts=st.sets(st.text(HEX, min_size=1, max_size=3), max_size=300), listed=st.booleans())
@settings(max_examples=40, deadline=None)
def test_well_formed_liar_gets_a_bounded_answer(cuts: set[str], listed: bool) -> None:
    apart = [one for one in sorted(cuts) if not any(one[:length] in cuts for length in range(1, len(one)))]
    told = b"" if listed else bytes(16)
    assert_bounded(
        LARGE.reconciler.on_compare(Compare(ranges=tuple((pack_prefix(one), told, ()) for one in apart)))
    )


def test_answer_to_the_largest_message_is_bounded() -> None:
    prefixes = [f"{number:03x}" for number in range(2_300)]
    for told in (b"", bytes(16)):
        ranges = tuple((pack_prefix(one), told, ()) for one in prefixes)
        assert_bounded(LARGE.reconciler.on_compare(Compare(ranges=ranges)))


class Meetings(RuleBasedStateMachine):
    """Two sides learn, forget and meet in any order, and any message may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = (Side({}), Side({}))

    @rule(
        left=st.booleans(),
        first=st.integers(0, 300),
        count=st.sampled_from([1, 3, 40]),
        fact=st.integers(0, 3),
    )
    def learn(self, left: bool, first: int, count: int, fact: int) -> None:
        for number in range(first, first + count):
            self.sides[left].take(node(number), {fact})

    @rule(left=st.booleans(), first=st.integers(0, 300), count=st.sampled_from([1, 5]))
    def forget(self, left: bool, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.sides[left].forget(node(number))

    @rule(left=st.booleans(), losing=st.integers(1, 6))
    def meet_on_a_link_that_breaks(self, left: bool, losing: int) -> None:
        talk(self.sides[left], self.sides[not left], losing=losing)

    @rule(left=st.booleans())
    def meet(self, left: bool) -> None:
        one, other = self.sides[left], self.sides[not left]
        before = dict(one.facts), dict(other.facts)
        union = {
            key: before[0].get(key, frozenset()) | before[1].get(key, frozenset())
            for key in {*before[0], *before[1]}
        }
        came = talk(one, other)
        assert one.facts == other.facts == union
        assert came.in_sync
        assert set(came.to_left) == {key for key in before[1] if before[1][key] != before[0].get(key)}
        assert set(came.to_right) == {key for key in before[0] if before[0][key] != before[1].get(key)}

    @invariant()
    def equal_facts_open_alike(self) -> None:
        left, right = self.sides
        assert (left.facts == right.facts) is (left.reconciler.open() == right.reconciler.open())


TestMeetings = Meetings.TestCase
TestMeetings.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


# --- helpers ------------------------------------------------------------------------------------------------


class Side:
    """Facts by member, their items, and a reconciler over them."""

    def __init__(self, facts: Facts) -> None:
        self.facts = dict(facts)
        self._items = {key: item(key, held) for key, held in facts.items()}
        self._watchers: list[Callable[[NodeId, bytes | None, bytes | None], None]] = []
        self.reconciler = Reconciler(self)

    def item_of(self, key: NodeId) -> bytes | None:
        return self._items.get(key)

    def watch(
        self, watcher: Callable[[NodeId, bytes | None, bytes | None], None], *, from_now: bool = False
    ) -> None:
        self._watchers.append(watcher)
        for key, held in {} if from_now else self._items.items():
            watcher(key, None, held)

    def take(self, key: NodeId, more: set[int] | frozenset[int]) -> None:
        self.facts[key] = self.facts.get(key, frozenset()) | more
        self._step(key, item(key, self.facts[key]))

    def forget(self, key: NodeId) -> None:
        if self.facts.pop(key, None) is not None:
            self._step(key, None)

    def _step(self, key: NodeId, now: bytes | None) -> None:
        held = self._items.pop(key, None)
        if now is not None:
            self._items[key] = now
        for watcher in self._watchers:
            watcher(key, held, now)


@dataclass(slots=True)
class Came:
    """What one round moved."""

    to_left: list[NodeId] = field(default_factory=list)
    to_right: list[NodeId] = field(default_factory=list)
    messages: int = 0
    in_sync: bool = False


def talk(left: Side, right: Side, *, losing: int = 0) -> Came:
    """Plays one round that ``left`` opens; message number ``losing``, and what follows it, never arrives."""
    came = Came()
    message: Compare | Synced = left.reconciler.open()
    me, peer = right, left
    while True:
        came.messages += 1
        assert came.messages < 100
        if came.messages == losing:
            return came
        if isinstance(message, Synced):
            came.in_sync = not message.more
            return came
        arrived = cbor.decode(cbor.encode(message), Compare, bytes_max=FRAME_BYTES_MAX)
        answer = me.reconciler.on_compare(arrived)
        assert answer.in_sync is (answer.reply == Synced(members=len(me.facts)))
        moved = came.to_left if peer is left else came.to_right
        for key in answer.push:
            if key in me.facts:
                moved.append(key)
                peer.take(key, me.facts[key])
        message, me, peer = answer.reply, peer, me


def assert_bounded(answer: Answer) -> None:
    assert len(cbor.encode(answer.reply)) < FRAME_BYTES_MAX
    assert len(answer.push) == len(set(answer.push)) <= PUSH_MAX


def node(number: int) -> NodeId:
    return NodeId(hashlib.sha256(number.to_bytes(4, signed=True)).digest())


def item(key: NodeId, facts: frozenset[int]) -> bytes:
    return hashlib.sha256(key + bytes(sorted(facts))).digest()


LARGE = Side({node(number): frozenset({0}) for number in range(MEMBERS_MAX)})

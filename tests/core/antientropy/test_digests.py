"""Digests of others: the highest stamp counts, in whatever order words come; what is old, ahead, or said of
nobody is not taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.antientropy.digests import (
    AHEAD_MAX_S,
    DIGEST_BYTES_MAX,
    DIGEST_BYTES_MIN,
    DIGESTS_MAX,
    GROUPS_MAX,
    UNHEARD_S,
    WORD_BYTES_MAX,
    Differing,
    Digests,
    Look,
    Unheard,
)
from meshpeer.core.antientropy.messages import Compare, Synced, Word, with_word
from meshpeer.core.antientropy.ranges import MESSAGE_BYTES_MAX
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import FRAME_BYTES_MAX, MEMBERS_MAX

NOW_S = 60_030
IDS = tuple(NodeId(bytes([number]) * 32) for number in range(1, 6))
ME, B, C, D, E = IDS
X, Y, Z = (letter * DIGEST_BYTES_MIN for letter in (b"x", b"y", b"z"))


# --- who agrees ---------------------------------------------------------------------------------------------


def test_a_node_that_has_heard_of_nobody_agrees_with_itself_alone() -> None:
    with table() as mine:
        assert mine.look(X, IDS, (), at(0)) == Look(agree=1, unheard=[Unheard(one, None) for one in IDS[1:]])


def test_who_says_the_same_agrees_and_who_says_otherwise_is_named() -> None:
    with table() as mine:
        mine.hear(B, word(B, X), X, IDS, at(0))
        mine.hear(C, word(C, Y), X, IDS, at(1))
        assert mine.look(X, IDS, (), at(5)) == Look(
            agree=2,
            differ=[Differing(C, Y, at(1).mono_s, 5.0)],
            unheard=[Unheard(D, None), Unheard(E, None)],
        )


def test_a_word_brings_what_its_sender_heard_of_others() -> None:
    with table() as mine:
        mine.hear(B, word(B, X, others={C: (NOW_S, X), D: (NOW_S - 9, Y)}), X, IDS, at(0))
        look = mine.look(X, IDS, (), at(0))
        assert (look.agree, [one.node for one in look.differ]) == (3, [D])
        assert look.unheard == [Unheard(E, None)]


def test_whoever_said_nothing_for_three_windows_is_not_heard_from() -> None:
    with table() as mine:
        mine.hear(B, word(B, X), X, IDS[:2], at(0))
        assert mine.look(X, IDS[:2], (), at(UNHEARD_S - 1)).agree == 2
        assert mine.look(X, IDS[:2], (), at(UNHEARD_S)) == Look(agree=1, unheard=[Unheard(B, UNHEARD_S)])


def test_the_dead_agree_with_nobody_whatever_they_said() -> None:
    with table() as mine:
        mine.hear(B, word(B, X), X, IDS[:2], at(0))
        assert mine.look(X, IDS[:2], {B}, at(7)) == Look(agree=1, unheard=[Unheard(B, 7.0)])


def test_a_difference_begins_when_it_is_noticed_and_ends_with_it() -> None:
    with table() as mine:
        mine.hear(B, word(B, X), X, IDS[:2], at(0))
        assert since(mine.look(Y, IDS[:2], (), at(10))) == [at(10).mono_s]
        mine.hear(B, word(B, Z, NOW_S + 20), Y, IDS[:2], at(20))
        assert since(mine.look(Y, IDS[:2], (), at(21))) == [at(10).mono_s], "it differs all along"
        mine.hear(B, word(B, Y, NOW_S + 30), Y, IDS[:2], at(30))
        assert since(mine.look(Y, IDS[:2], (), at(31))) == []
        assert since(mine.look(X, IDS[:2], (), at(40))) == [at(40).mono_s]


def test_a_digest_with_parts_of_a_later_version_agrees_in_those_that_both_have() -> None:
    with table() as mine:
        mine.hear(B, word(B, X + b"new"), X, IDS[:2], at(0))
        assert mine.look(X, IDS[:2], (), at(0)).agree == 2


# --- stamps -------------------------------------------------------------------------------------------------


def test_a_node_stamps_anew_once_a_window_and_when_its_digest_changes() -> None:
    with table() as mine:
        assert mine.say(X, IDS, at(0)).stamp == NOW_S
        assert mine.say(X, IDS, at(10)).stamp == NOW_S
        assert mine.say(X, IDS, at(35)).stamp == 60_060, "on the window's edge, as all others do"
        assert mine.say(Y, IDS, at(40)).stamp == NOW_S + 40
        assert mine.say(X, IDS, at(40)).stamp == NOW_S + 41, "twice in a second, and the later one counts"
        assert mine.say(X, IDS, at(100)).stamp == 60_120


def test_a_clock_that_is_set_back_takes_no_word_back() -> None:
    with table() as mine:
        mine.say(X, IDS, at(100))
        assert mine.say(X, IDS, at(0)).stamp == NOW_S + 100
        assert mine.say(Y, IDS, at(0)).stamp == NOW_S + 101


def test_a_node_overtakes_what_a_higher_stamp_says_of_it() -> None:
    with table() as mine:
        mine.say(X, IDS, at(0))
        answer = mine.hear(B, word(B, X, others={ME: (NOW_S + 50, Y)}), X, IDS, at(0))
        assert answer is not None
        assert (answer.stamp, answer.digest) == (NOW_S + 51, X)


@pytest.mark.parametrize(
    ("stamp", "agree"),
    [
        (NOW_S - UNHEARD_S, 1),
        (NOW_S - UNHEARD_S + 1, 2),
        (NOW_S + AHEAD_MAX_S, 2),
        (NOW_S + AHEAD_MAX_S + 1, 1),
    ],
)
def test_stamps_that_are_old_or_far_ahead_are_not_taken(stamp: int, agree: int) -> None:
    counters = Counters()
    with table(counters) as mine:
        mine.hear(B, word(B, X, stamp), X, IDS, at(0))
        assert mine.look(X, IDS, (), at(0)).agree == agree
    assert counters.get(Counter.DIGESTS_FUTURE) == (stamp > NOW_S + AHEAD_MAX_S)


def test_stamps_of_a_mesh_are_one_group_once_a_window_began() -> None:
    sides = {node: Digests(node, Counters()) for node in IDS}
    for number, side in enumerate(sides.values()):
        side.say(X, IDS, at(number))
    for _ in range(3):
        talk(sides.values(), at(40))
    assert len(sides[ME].say(X, IDS, at(40)).groups) == 1


# --- members ------------------------------------------------------------------------------------------------


def test_only_members_are_heard() -> None:
    stranger = NodeId(b"s" * 32)
    with table() as mine:
        mine.hear(stranger, word(stranger, X), X, IDS, at(0))
        assert mine.look(X, IDS, (), at(0)).agree == 1


def test_who_is_in_no_more_is_forgotten() -> None:
    with table() as mine:
        mine.hear(B, word(B, X), X, IDS, at(0))
        mine.look(X, (ME, C), (), at(1))
        assert mine.look(X, IDS, (), at(2)).agree == 1


def test_of_a_peer_with_another_list_of_members_only_its_own_digest_is_read() -> None:
    theirs = (*IDS, NodeId(b"n" * 32))
    with table() as mine:
        answer = mine.hear(B, word(B, Y, others={C: (NOW_S, X)}, ids=theirs), X, IDS, at(0))
        look = mine.look(X, IDS, (), at(0))
        assert ([one.node for one in look.differ], look.agree) == ([B], 1)
        assert answer == word(ME, X), "and it is told ours"


# --- answers ------------------------------------------------------------------------------------------------


def test_an_answer_is_what_the_word_lacked_and_nothing_else() -> None:
    with table() as mine:
        mine.hear(C, word(C, X, NOW_S - 5), X, IDS, at(0))
        mine.hear(D, word(D, Y, NOW_S - 6), X, IDS, at(0))
        said = word(B, X, others={ME: (NOW_S, X), C: (NOW_S - 7, X), D: (NOW_S - 6, Y)})
        answer = mine.hear(B, said, X, IDS, at(0))
        assert answer == word(ME, X, others={C: (NOW_S - 5, X)})
        assert mine.hear(B, said_by(mine, B), X, IDS, at(0)) is None


def test_two_that_talked_hold_the_same() -> None:
    left, right = Digests(ME, Counters()), Digests(B, Counters())
    left.hear(C, word(C, Y), X, IDS, at(0))
    right.hear(D, word(D, Z), X, IDS, at(0))
    answer = right.hear(ME, left.say(X, IDS, at(0)), X, IDS, at(0))
    assert answer is not None
    left.hear(B, answer, X, IDS, at(0))
    assert spoken(left) | {ME: (NOW_S, X)} == spoken(right) | {B: (NOW_S, X)}


# --- laws ---------------------------------------------------------------------------------------------------

entries = st.tuples(
    st.sampled_from(IDS[1:]),
    st.integers(NOW_S - UNHEARD_S - 5, NOW_S + AHEAD_MAX_S + 5),
    st.sampled_from((X, Y, Z)),
)


@settings(deadline=None)
@given(st.lists(entries, max_size=12), st.randoms(use_true_random=False))
def test_words_merge_in_any_order_and_any_number_of_times(
    said: list[tuple[NodeId, int, bytes]], dice: object
) -> None:
    """Commutative and idempotent; the model is the highest (stamp, digest) of those that may count."""
    shuffled = [*said, *said]
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    tables = []
    for order in (said, shuffled):
        with table() as mine:
            for node, stamp, digest in order:
                mine.hear(node, word(node, digest, stamp), X, IDS, at(0))
                mine.check()
            tables.append(spoken(mine))
    model: dict[NodeId, tuple[int, bytes]] = {}
    for node, stamp, digest in said:
        if NOW_S - UNHEARD_S < stamp <= NOW_S + AHEAD_MAX_S:
            model[node] = max(model.get(node, (0, b"")), (stamp, digest))
    assert tables == [model, model]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=30, max_size=60), st.data())
def test_whoever_talks_enough_agrees_in_the_end(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    """Each changes what it says at some time; after that, pairs that reach everybody leave one table."""
    sides = [Digests(node, Counters()) for node in IDS]
    now_s = 0
    for left, right in pairs:
        now_s += 1
        if left != right:
            converse(sides[left], sides[right], data.draw(st.sampled_from((X, Y))), at(now_s))
    for _ in range(2):
        talk(sides, at(now_s + 1))
    for side in sides:
        side.check()
        assert side.look(X, IDS, (), at(now_s + 1)) == Look(agree=5)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_word_about_any_mesh_is_bounded_and_read_as_it_was_said(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from((2, 9, 300)))
    ids = tuple(NodeId(number.to_bytes(32)) for number in range(size))
    kinds = data.draw(st.integers(1, 40))
    mine = Digests(ids[0], Counters())
    for number, node in enumerate(ids[1:]):
        digest = bytes([number % kinds]) * DIGEST_BYTES_MIN
        mine.hear(node, word(node, digest, NOW_S - number % 7, ids=ids), X, ids, at(0))
    said = mine.say(X, ids, at(0))
    assert len(said.digests) <= DIGESTS_MAX
    assert len(said.groups) <= GROUPS_MAX
    assert len(cbor.encode(Synced(members=1, word=said))) <= WORD_BYTES_MAX
    other = Digests(ids[1], Counters())
    other.hear(ids[0], said, X, ids, at(0))
    held = spoken(mine, ids)
    assert all(held[node] == one for node, one in spoken(other, ids).items() if node != ids[0])


def test_the_largest_word_fits_a_frame_with_the_largest_comparison() -> None:
    ids = tuple(NodeId(number.to_bytes(32)) for number in range(MEMBERS_MAX))
    mine = Digests(ids[0], Counters())
    for number in range(1, 60):
        node = ids[-number]
        digest = bytes([number]) * DIGEST_BYTES_MAX
        mine.hear(node, word(node, digest, NOW_S - number, ids=ids), X, ids, at(0))
    said = mine.say(X, ids, at(0))
    assert len(said.groups) >= 1
    assert len(cbor.encode(Synced(members=1, word=said))) + MESSAGE_BYTES_MAX + 100 <= FRAME_BYTES_MAX


# --- bad form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"ids": b"123"},
        {"digest": b""},
        {"digest": b"x" * (DIGEST_BYTES_MAX + 1)},
        {"stamp": -1},
        {"digests": (X,) * (DIGESTS_MAX + 1)},
        {"digests": (b"short",)},
        {"groups": ((NOW_S, 0, b"\1"),) * (GROUPS_MAX + 1)},
        {"groups": ((NOW_S, 1, b"\1"),)},
        {"groups": ((NOW_S, -1, b"\1"),)},
        {"groups": ((-1, 0, b"\1"),)},
        {"groups": ((NOW_S, 0, b""),)},
        {"groups": ((NOW_S, 0, b"\1\0"),)},
        {"groups": ((NOW_S, 0, b"\x20"),)},
        {"groups": ((NOW_S, 0, b"\1" * (MEMBERS_MAX // 8 + 1)),)},
        {"groups": ((NOW_S, 0, b"\4"), (NOW_S, 0, b"\xff"))},
    ],
)
def test_a_word_of_bad_form_is_refused_whole(change: dict[str, object]) -> None:
    with table() as mine:
        with pytest.raises(PeerFault):
            mine.hear(B, msgspec.structs.replace(word(B, X), **change), X, IDS, at(0))
        assert mine.look(X, IDS, (), at(0)).agree == 1


# --- versions -----------------------------------------------------------------------------------------------


class EarlierCompare(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="compare"):
    """As an agent that knows nothing of words has it."""

    ranges: tuple[object, ...] = ()
    want: tuple[bytes, ...] = ()
    more: bool = False


def test_an_earlier_version_reads_a_comparison_with_a_word_and_is_read() -> None:
    said = with_word(Compare(ranges=((b"", b"f" * 16, ()),)), word(B, X, others={C: (NOW_S, Y)}))
    data = cbor.encode(said)
    assert cbor.decode(data, Compare, bytes_max=999) == said
    assert len(cbor.decode(data, EarlierCompare, bytes_max=999).ranges) == 1
    plain = cbor.encode(EarlierCompare(ranges=((b"", b"f" * 16, ()),)))
    assert cbor.decode(plain, Compare, bytes_max=999).word is None


# --- helpers ------------------------------------------------------------------------------------------------


def at(seconds: float) -> Instant:
    return Instant(1_000.0 + seconds, NOW_S + seconds)


@contextmanager
def table(counters: Counters | None = None) -> Iterator[Digests]:
    made = Digests(ME, counters or Counters())
    yield made
    made.check()


def word(
    of: NodeId,
    digest: bytes,
    stamp: int = NOW_S,
    *,
    others: dict[NodeId, tuple[int, bytes]] | None = None,
    ids: Sequence[NodeId] = IDS,
) -> Word:
    """Returns what ``of`` says where it holds exactly this."""
    speaker = Digests(of, Counters())
    plain = speaker.say(digest, tuple(ids), Instant(0.0, float(stamp)))
    digests: dict[bytes, int] = {digest: 0}
    groups: dict[tuple[int, bytes], int] = {}
    for node, said in (others or {}).items():
        groups[said] = groups.get(said, 0) | 1 << list(ids).index(node)
        digests.setdefault(said[1], len(digests))
    return msgspec.structs.replace(
        plain,
        digests=tuple(digests)[1:],
        groups=tuple(
            (stamp, digests[one], mask.to_bytes((mask.bit_length() + 7) // 8, "little"))
            for (stamp, one), mask in sorted(groups.items(), reverse=True)
        ),
    )


def spoken(mine: Digests, ids: tuple[NodeId, ...] = IDS) -> dict[NodeId, tuple[int, bytes]]:
    """Returns what a node's word says of others."""
    said = mine.say(X, ids, at(0))
    told = (said.digest, *said.digests)
    return {
        node: (stamp, told[which])
        for stamp, which, bits in said.groups
        for number, node in enumerate(ids)
        if int.from_bytes(bits, "little") >> number & 1
    }


def said_by(mine: Digests, peer: NodeId) -> Word:
    """Returns the word of a peer that knows all that ``mine`` does."""
    said = mine.say(X, IDS, at(0))
    return word(peer if peer in IDS else B, X, others={**spoken(mine), ME: (said.stamp, said.digest)})


def since(look: Look) -> list[float]:
    return [one.since_s for one in look.differ]


def converse(left: Digests, right: Digests, digest: bytes, now: Instant) -> None:
    """One round, which ``left`` opens."""
    answer = right.hear(left._me, left.say(digest, IDS, now), X, IDS, now)
    if answer is not None:
        left.hear(right._me, answer, digest, IDS, now)


def talk(sides: Iterable[Digests], now: Instant) -> None:
    """Lets every pair talk once, all of one opinion."""
    everybody = list(sides)
    for left in everybody:
        for right in everybody:
            if left is not right:
                converse(left, right, X, now)

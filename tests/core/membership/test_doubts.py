"""Doubts alone: each takes its steps in order, ends, and asks few."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.doubts import (
    ANSWER_WAIT_S,
    HELPERS,
    REDIAL_WAIT_S,
    SETTLED_S,
    Doubts,
    ask_deadline,
)

A, B, C, D, E, X, Y = (NodeId(bytes([number]) * 32) for number in range(1, 8))
PEERS = (A, B, C, D, E)


def test_lost_link_waits_for_its_redial_and_then_for_helpers() -> None:
    doubts = Doubts()
    doubts.begin(X, "link closed: reset", at(10))
    assert doubts.next_deadline() == Deadline(10 + REDIAL_WAIT_S, "a doubt runs out")
    assert doubts.due(at(10 + REDIAL_WAIT_S - 0.1)) == []
    assert doubts.due(at(10 + REDIAL_WAIT_S)) == [X]
    assert doubts.silent_helpers(X) is None
    number, helpers = doubts.ask(X, PEERS, random.Random(1), ask_deadline(at(15), 2.0))
    assert (number, len(helpers), len(set(helpers))) == (1, HELPERS, HELPERS)
    assert doubts.next_deadline() == Deadline(15 + 2 * ANSWER_WAIT_S, "a doubt runs out")
    assert doubts.silent_helpers(X) == HELPERS
    assert doubts.give_up(X) == ("link closed: reset", False)
    assert doubts.next_deadline() is None


def test_failed_redial_asks_at_once_and_says_what_it_met() -> None:
    doubts = Doubts()
    doubts.begin(X, "link closed: reset", at(0))
    assert doubts.dial_failed(X, "its host refuses the link", True, at(0.1))
    doubts.ask(X, PEERS, random.Random(1), 2.0)
    assert not doubts.dial_failed(X, "its host refuses the link", True, at(0.2))
    assert doubts.give_up(X) == ("its host refuses the link", True)


def test_only_the_answers_that_were_asked_for_count_and_each_once() -> None:
    doubts = Doubts()
    doubts.begin(X, "silent", at(0))
    number, helpers = doubts.ask(X, PEERS, random.Random(1), 2.0)
    stranger = next(one for one in PEERS if one not in helpers)
    assert not doubts.answered(X, stranger, number)
    assert not doubts.answered(X, helpers[0], number + 1)
    assert not doubts.answered(Y, helpers[0], number)
    assert [doubts.answered(X, one, number) for one in helpers] == [True] * HELPERS
    assert not doubts.answered(X, helpers[0], number)
    assert doubts.all_answered(X)


def test_settled_member_is_left_alone_for_a_while() -> None:
    doubts = Doubts()
    doubts.begin(X, "silent", at(0))
    doubts.settle(X, at(1))
    assert doubts.due(at(100)) == []
    assert not doubts.dial_failed(X, "its addresses do not answer", False, at(1 + SETTLED_S - 0.1))
    assert doubts.dial_failed(X, "its addresses do not answer", False, at(1 + SETTLED_S))


def test_who_was_late_itself_waits_so_much_longer() -> None:
    doubts = Doubts()
    doubts.begin(X, "silent", at(0))
    doubts.postpone(8.0)
    assert doubts.due(at(REDIAL_WAIT_S + 7.9)) == []
    assert doubts.due(at(REDIAL_WAIT_S + 8.0)) == [X]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=40))
def test_every_doubt_comes_to_an_end(seed: int, steps: list[tuple[int, bool]]) -> None:
    """Whoever does what is due, and hears nothing, has given up on everybody after two waits."""
    doubts, dice, now_s = Doubts(), random.Random(seed), 0.0
    for kind, flag in steps:
        node = X if flag else Y
        now_s += 0.3
        match kind:
            case 0:
                doubts.begin(node, "silent", at(now_s))
            case 1 | 2:
                if doubts.dial_failed(node, "no answer", flag, at(now_s)):
                    doubts.ask(node, PEERS[: dice.randrange(6)], dice, ask_deadline(at(now_s), 1.0))
            case 3:
                doubts.answered(node, dice.choice(PEERS), dice.randrange(1, 5))
            case 4:
                doubts.settle(node, at(now_s))
            case 5:
                doubts.drop(node)
            case _:
                doubts.postpone(0.5)
    for _ in range(4):
        deadline = doubts.next_deadline()
        if deadline is None:
            break
        now_s = max(now_s, deadline.at_s)
        for node in doubts.due(at(now_s)):
            if doubts.silent_helpers(node) is None:
                doubts.ask(node, PEERS, dice, ask_deadline(at(now_s), 1.0))
            else:
                doubts.give_up(node)
    assert doubts.next_deadline() is None


def at(now_s: float) -> Instant:
    return Instant(now_s, 1_800_000_000 + now_s)

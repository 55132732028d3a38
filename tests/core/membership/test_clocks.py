"""How far others' clocks are from this node's, by their greetings."""

from __future__ import annotations

import pytest

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.clocks import CLOCKS_MAX, Clocks

A, B = NodeId(b"a" * 32), NodeId(b"b" * 32)


def test_a_clock_is_ahead_by_what_its_greeting_said() -> None:
    clocks = Clocks()
    clocks.greeted(A, 1_000_090_000, Instant(mono_s=50.0, unix_s=1_000_000.0))
    assert clocks.ahead_s([A, B], Instant(mono_s=150.0, unix_s=1_000_100.0)) == [(A, pytest.approx(90.0))]


def test_setting_ones_own_clock_right_shows_at_once() -> None:
    clocks = Clocks()
    clocks.greeted(A, 1_000_090_000, Instant(mono_s=50.0, unix_s=1_000_000.0))
    assert clocks.ahead_s([A], Instant(mono_s=51.0, unix_s=1_000_091.0)) == [(A, pytest.approx(0.0))]


def test_the_table_is_bounded_and_the_first_gives_way() -> None:
    clocks, now = Clocks(), Instant(mono_s=0.0, unix_s=0.0)
    everybody = [NodeId(number.to_bytes(32)) for number in range(CLOCKS_MAX + 1)]
    for one in everybody:
        clocks.greeted(one, 0, now)
    assert [who for who, _ in clocks.ahead_s(everybody, now)] == everybody[1:]

"""Who is asked to carry a link, in which order, and how that stands among the addresses of a dial."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.ids import NodeId, key_text
from meshpeer.core.membership.carriers import (
    CARRIERS_TRIED_MAX,
    Over,
    address_over,
    choose_carriers,
    over_in,
)

ME, TARGET = NodeId(b"m" * 32), NodeId(b"t" * 32)
OTHERS = [NodeId(bytes([byte]) * 32) for byte in range(1, 9)]
node_ids = st.binary(min_size=32, max_size=32).map(NodeId)


@given(node_ids, node_ids)
def test_an_address_over_a_member_says_both(carrier: NodeId, target: NodeId) -> None:
    assert over_in(address_over(carrier, target)) == Over(carrier, target)


@pytest.mark.parametrize(
    "address",
    [
        "192.0.2.1:51821",
        "[2001:db8::1]:51821",
        "over:51821",
        "over/",
        "over//",
        f"over/{key_text(ME)}",
        f"over/{key_text(ME)}/{key_text(b'short')}",
        f"over/{key_text(ME)}/{key_text(TARGET)}/{key_text(ME)}",
        "over/not base32!/either?",
        "",
    ],
)
def test_anything_else_is_no_way_over_a_member(address: str) -> None:
    assert over_in(address) is None


def test_whoever_reached_the_member_is_asked_first_and_then_its_neighbours() -> None:
    chosen = choose(voucher=OTHERS[5], neighbours=(OTHERS[2], OTHERS[7]))
    assert chosen[0] == OTHERS[5]
    assert set(chosen[1:3]) == {OTHERS[2], OTHERS[7]}
    assert len(chosen) == CARRIERS_TRIED_MAX


def test_neither_the_member_itself_nor_who_may_not_carry_is_asked() -> None:
    chosen = choose_carriers(
        ME,
        TARGET,
        linked=[TARGET, *OTHERS[:3]],
        may_carry=lambda one: one != OTHERS[0],
        voucher=OTHERS[0],
        neighbours=(),
    )
    assert set(chosen) == set(OTHERS[1:3])


@given(st.permutations(OTHERS))
def test_both_ends_ask_the_same_whatever_the_order(shuffled: list[NodeId]) -> None:
    there = choose_carriers(
        TARGET, ME, linked=shuffled, may_carry=lambda _: True, voucher=None, neighbours=()
    )
    assert choose() == there


def choose(voucher: NodeId | None = None, neighbours: tuple[NodeId, ...] = ()) -> tuple[NodeId, ...]:
    return choose_carriers(
        ME, TARGET, linked=OTHERS, may_carry=lambda _: True, voucher=voucher, neighbours=neighbours
    )

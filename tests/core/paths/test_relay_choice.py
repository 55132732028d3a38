"""Both ends choose the same relays, near ones first, and one relay's coming or going moves few pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.ids import NodeId
from meshpeer.core.paths.relay_choice import NEAR_MS, RelayCandidate, choose_relays

A, B = NodeId(b"a" * 32), NodeId(b"b" * 32)
RELAYS = [NodeId(bytes([number]) * 32) for number in range(1, 9)]


def candidate(node: NodeId, **more: object) -> RelayCandidate:
    fields: dict[str, object] = {"permitted": True, "accepts": True, "public": True, "rtts_ms": (5, 5)}
    return RelayCandidate(node=node, **(fields | more))  # type: ignore[arg-type]


def test_two_are_chosen_the_same_for_both_ends_in_whatever_order() -> None:
    candidates = [candidate(node) for node in RELAYS]
    chosen = choose_relays((A, B), candidates)
    assert len(set(chosen)) == 2
    assert choose_relays((B, A), reversed(candidates)) == chosen


@pytest.mark.parametrize(
    "unfit",
    [
        {"permitted": False},
        {"accepts": False},
        {"doubted": True},
        {"spans": False},
        {"public": False, "reached": (True, False)},
    ],
)
def test_who_is_not_fit_is_never_chosen(unfit: dict[str, object]) -> None:
    assert choose_relays((A, B), [candidate(RELAYS[0], **unfit)]) == ()


def test_one_that_both_reach_need_not_be_public() -> None:
    inner = candidate(RELAYS[0], public=False, reached=(True, True))
    assert choose_relays((A, B), [inner]) == (RELAYS[0],)


def test_one_that_was_seen_comes_before_one_that_was_not_and_one_that_is_silent_comes_last() -> None:
    silent = candidate(RELAYS[0], seen=True, silent=True, rtts_ms=(1, 1))
    unseen, seen = candidate(RELAYS[1], rtts_ms=(1, 1)), candidate(RELAYS[2], seen=True, rtts_ms=(80, 90))
    assert choose_relays((A, B), [silent, unseen, seen], 3) == (RELAYS[2], RELAYS[1], RELAYS[0])


def test_an_end_does_not_relay_itself() -> None:
    assert choose_relays((A, B), [candidate(A), candidate(B)]) == ()


def test_a_near_one_comes_first_and_jitter_changes_nothing() -> None:
    far = [candidate(node, rtts_ms=(80, 90)) for node in RELAYS[1:]]
    for rtts_ms in ((1, 1), (2, 5), (NEAR_MS // 2, NEAR_MS // 2)):
        chosen = choose_relays((A, B), [*far, candidate(RELAYS[0], rtts_ms=rtts_ms)])
        assert chosen[0] == RELAYS[0]
        assert chosen[1] == choose_relays((A, B), far)[0]


def test_an_unmeasured_one_comes_between_near_and_very_far() -> None:
    near, unknown, far = RELAYS[:3]
    candidates = [
        candidate(far, rtts_ms=(900, 900)),
        candidate(unknown, rtts_ms=(None, None)),
        candidate(near, rtts_ms=(9, 9)),
    ]
    assert choose_relays((A, B), candidates, count=3) == (near, unknown, far)


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.sampled_from(RELAYS))
def test_a_relay_that_goes_moves_only_who_used_it(first: bytes, second: bytes, gone: NodeId) -> None:
    pair = (NodeId(first), NodeId(second))
    candidates = [candidate(node) for node in RELAYS]
    before = choose_relays(pair, candidates)
    after = choose_relays(pair, [replace(one, doubted=one.node == gone) for one in candidates])
    assert set(before) - {gone} <= set(after)

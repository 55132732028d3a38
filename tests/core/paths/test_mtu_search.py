"""The search for a path's width: what it finds, how soon, with how many packets, and how it notices."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshpeer.core.deadline import Instant
from meshpeer.core.paths.mtu_search import (
    CHECK_S,
    DEAF_FIRST_S,
    DEAF_MAX_S,
    GAP_S,
    GRAIN,
    KNOWN,
    SEARCH_S,
    TRIES,
    MtuSearch,
    Phase,
)

LEAST, TOP = 116, 9_020
PROBES_MAX = 100
"""Of a whole search; one that finds only the least takes 82."""
RTT_S = 0.02


class Path:
    """A path of one width, out of a machine of another, and the search for it in virtual time."""

    def __init__(self, wide: int, device: int = 65_536, top: int = TOP) -> None:
        self.wide, self.device = wide, device
        self.deaf = False
        self.lost: Callable[[], bool] = lambda: False
        self.now_s = 100.0
        self.sent: list[int] = []
        self.answers: list[tuple[float, int]] = []
        self.search = MtuSearch(least=LEAST, top=top, now=self.now)

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, 0.0)

    def run(self, for_s: float) -> None:
        end_s = self.now_s + for_s
        while True:
            next_s = min([self.search.next_s(), *(at for at, _ in self.answers)])
            if next_s > end_s:
                self.now_s = end_s
                return
            self.now_s = max(self.now_s, next_s)
            for at, size in [one for one in self.answers if one[0] <= self.now_s]:
                self.answers.remove((at, size))
                self.search.on_answer(size, self.now)
            for size in self.search.due(self.now):
                if size > self.device:
                    self.search.on_too_long(size, self.now)
                    continue
                self.sent.append(size)
                if size <= self.wide and not self.deaf and not self.lost():
                    self.answers.append((self.now_s + RTT_S, size))


@pytest.mark.parametrize("wide", [one for one in KNOWN if one <= TOP])
def test_a_known_width_is_found_to_the_byte(wide: int) -> None:
    path = Path(wide)
    path.run(60.0)
    assert path.search.found == wide


def test_an_ordinary_machine_knows_within_two_round_trips() -> None:
    path = Path(1_500, device=1_500)
    path.run(2 * RTT_S + 0.001)
    assert path.search.found == 1_500
    assert max(path.sent) == 1_500
    assert len(path.sent) <= 1 + 4


def test_a_narrow_path_is_told_as_soon_as_the_steps_are_over_and_then_to_the_grain() -> None:
    path = Path(1_333, device=1_500)
    path.run(TRIES * GAP_S + 3 * RTT_S)
    assert path.search.found == 1_280
    path.run(20.0)
    assert path.search.found is not None
    assert 1_333 - GRAIN < path.search.found <= 1_333


@settings(max_examples=200, deadline=None)
@given(
    wide=st.integers(LEAST, 10_000),
    device=st.integers(LEAST, 10_000),
    top=st.sampled_from([1_440, 9_020, 9_040]),
)
@example(wide=LEAST, device=9_000, top=9_020)
def test_what_is_found_passes_and_no_more_than_a_grain_beyond_it(wide: int, device: int, top: int) -> None:
    path = Path(wide, device, top)
    path.run(120.0)
    least = min(wide, device, top)
    found = path.search.found
    assert found is not None
    assert least - GRAIN < found <= least
    assert path.search.phase is Phase.REST
    assert len(path.sent) < PROBES_MAX


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**16), wide=st.integers(1_280, 9_020), loss=st.sampled_from([1, 5, 20]))
def test_loss_never_makes_a_path_wider_than_it_is(seed: int, wide: int, loss: int) -> None:
    dice = random.Random(seed)
    path = Path(wide)
    path.lost = lambda: dice.random() * 100 < loss
    for _ in range(100):
        path.run(10.0)
        assert path.search.found is None or path.search.found <= wide


def test_what_was_found_holds_while_everything_is_asked_anew() -> None:
    path = Path(1_333, device=1_500)
    path.run(60.0)
    found = path.search.found
    for _ in range(200):
        path.run(SEARCH_S / 100)
        assert path.search.found == found


def test_a_path_that_gets_narrower_is_noticed_by_the_next_check() -> None:
    path = Path(9_020)
    path.run(10.0)
    path.wide = 1_500
    path.run(CHECK_S + 2 * TRIES * GAP_S + 1.0)
    assert path.search.found == 1_500


def test_a_path_that_gets_wider_is_noticed_by_the_next_search() -> None:
    path = Path(1_400, device=1_500)
    path.run(30.0)
    path.wide = 1_500
    path.run(SEARCH_S + CHECK_S + 5.0)
    assert path.search.found == 1_500


def test_a_machine_whose_way_out_changes_asks_anew_at_once() -> None:
    path = Path(9_020, device=1_500)
    path.run(10.0)
    assert path.search.found == 1_500
    path.device = 9_020
    path.search.look_again(path.now)
    assert path.search.found == 1_500
    path.run(1.0)
    assert path.search.found == 9_020
    path.device = 1_500
    path.run(CHECK_S + 1.0)
    assert path.search.found == 1_500, "a check that can't even be sent tells as well"


def test_an_end_that_is_away_takes_nothing_back() -> None:
    path = Path(9_020)
    path.run(10.0)
    path.deaf = True
    path.run(3 * SEARCH_S)
    assert path.search.found == 9_020
    path.deaf = False
    path.run(DEAF_MAX_S + CHECK_S)
    assert path.search.phase is Phase.REST


def test_a_path_that_answers_nothing_is_asked_ever_less() -> None:
    path = Path(9_020)
    path.deaf = True
    path.run(DEAF_FIRST_S - 1.0)
    assert path.sent == [LEAST] * TRIES
    path.run(3_600.0)
    assert set(path.sent) == {LEAST}
    assert len(path.sent) <= TRIES * 13
    assert path.search.found is None


def test_a_quiet_path_costs_two_packets_a_minute() -> None:
    path = Path(1_500, device=1_500)
    path.run(1.0)
    before = len(path.sent)
    path.run(9 * CHECK_S)
    assert len(path.sent) - before == 18


def test_what_nobody_waits_for_changes_nothing() -> None:
    path = Path(1_500, device=1_500)
    path.run(5.0)
    path.search.on_answer(9_000, path.now)
    assert path.search.found == 1_500

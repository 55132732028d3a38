"""No decoder crashes, hangs or grows on what others wrote: a few seconds of every target, alike in every run.

More, led by coverage: ``scripts/fuzz``. What that finds becomes a file in ``corpus``, and is run here then.
"""

from __future__ import annotations

import random
import tracemalloc

import pytest
from fuzzkit import mutate
from fuzzkit.table import TARGETS
from fuzzkit.target import CASE_BYTES_MAX, CORPUS, Target, all_seeds, kept_cases, run_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BOUNDED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
EVERY_TARGET = pytest.mark.parametrize("name", TARGETS)


@EVERY_TARGET
def test_what_was_written_well_is_taken(name: str) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds())
    assert seeds
    assert [one for one in seeds if run_case(target, one)] == []
    assert max(map(len, seeds)) <= target.bytes_max


@EVERY_TARGET
def test_what_once_did_harm_does_none(name: str) -> None:
    for case in kept_cases(TARGETS[name]):
        run_case(TARGETS[name], case)


def test_every_kept_case_has_a_target() -> None:
    assert {one.name for one in CORPUS.iterdir()} <= set(TARGETS)


@EVERY_TARGET
def test_what_was_changed_is_taken_or_refused(name: str) -> None:
    target, seeds = TARGETS[name], all_seeds(TARGETS[name])

    @BOUNDED
    @given(st.integers(0, 2**32 - 1))
    def judge(number: int) -> None:
        run_case(target, changed(target, seeds, random.Random(number)))

    judge()


@EVERY_TARGET
def test_rubbish_is_taken_or_refused(name: str) -> None:
    target = TARGETS[name]

    @BOUNDED
    @given(st.binary(max_size=256))
    def judge(case: bytes) -> None:
        run_case(target, case)

    judge()


@EVERY_TARGET
def test_a_case_holds_bounded_memory(name: str) -> None:
    target, seeds, dice = TARGETS[name], all_seeds(TARGETS[name]), random.Random(7)
    cases = [*seeds[:5], *(changed(target, seeds, dice) for _ in range(5))]
    run_case(target, cases[0])
    tracemalloc.start()
    try:
        for case in cases:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            run_case(target, case)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before <= CASE_BYTES_MAX
    finally:
        tracemalloc.stop()


def changed(target: Target, seeds: list[bytes], dice: random.Random) -> bytes:
    """Returns a case that is one of the seeds, changed once or a few times."""
    case, change = dice.choice(seeds), target.mutate or mutate.plain
    for _ in range(dice.choice((1, 1, 2, 4))):
        case = change(case, target.bytes_max, dice)
    return case

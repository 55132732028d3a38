"""Which files go, whom a file is asked for, and how much of it at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.cache import CachedFile, JobFiles, Use, owners_to_ask, plan_eviction
from meshpeer.core.jobs.search import MISSES_MAX, PATIENT_ROUNDS_MAX, ROUNDS_MAX, Next, Search
from meshpeer.core.jobs.windows import FIRST_PIECES, MAX_PIECES, MIN_PIECES, WINDOW_S, Window

ALPHA, BRAVO, ME = NodeId(b"a" * 32), NodeId(b"b" * 32), NodeId(b"m" * 32)

# --- what goes ------------------------------------------------------------------------------------------


@st.composite
def stocks(draw: st.DrawFn) -> tuple[list[CachedFile], set[Digest], int, int]:
    sizes = draw(st.lists(st.integers(0, 1_000), max_size=30))
    files = [
        CachedFile(
            digest=digest_of(number),
            size=size,
            used_s=draw(st.integers(0, 20)),
            partial=draw(st.booleans()),
        )
        for number, size in enumerate(sizes)
    ]
    pinned = {one.digest for one in files if draw(st.booleans())}
    return files, pinned, draw(st.integers(0, 20_000)), draw(st.integers(0, 5_000))


@given(stocks())
def test_nothing_pinned_ever_goes(stock: tuple[list[CachedFile], set[Digest], int, int]) -> None:
    files, pinned, bytes_max, wanted = stock
    plan = plan_eviction(files, pinned.__contains__, bytes_max=bytes_max, bytes_wanted=wanted)
    assert not pinned & {one.digest for one in plan.drop}


@given(stocks())
def test_it_ends_below_the_cap_or_says_by_how_much_it_does_not_and_then_all_that_could_go_has_gone(
    stock: tuple[list[CachedFile], set[Digest], int, int],
) -> None:
    files, pinned, bytes_max, wanted = stock
    plan = plan_eviction(files, pinned.__contains__, bytes_max=bytes_max, bytes_wanted=wanted)
    assert plan.bytes_left == sum(one.size for one in files) - sum(one.size for one in plan.drop)
    assert plan.bytes_pinned == sum(one.size for one in files if one.digest in pinned)
    assert plan.short_bytes == max(0, plan.bytes_left + wanted - bytes_max)
    if plan.short_bytes:
        assert plan.bytes_left == plan.bytes_pinned


@given(stocks())
def test_the_least_recently_used_goes_first_and_no_more_than_has_to(
    stock: tuple[list[CachedFile], set[Digest], int, int],
) -> None:
    files, pinned, bytes_max, wanted = stock
    plan = plan_eviction(files, pinned.__contains__, bytes_max=bytes_max, bytes_wanted=wanted)
    kept = [one for one in files if one not in plan.drop and one.digest not in pinned]
    if plan.drop and kept:
        assert max(one.used_s for one in plan.drop) <= min(one.used_s for one in kept)
    if sum(one.size for one in files) + wanted <= bytes_max:
        assert plan.drop == ()
    if plan.drop:
        assert plan.bytes_left + plan.drop[-1].size > (bytes_max - wanted) * 7 / 8


def test_what_a_job_has_is_pinned_until_it_is_over_and_its_results_for_a_while_longer() -> None:
    work, result = digest_of(1), digest_of(2)
    held = JobFiles(JobId("j1"), ALPHA, files={work: Use.WORK, result: Use.RESULT})
    assert list(held.needed(1e12, 10.0)) == [work, result]
    assert not held.is_done_with(1e12, 10.0)
    held.over_s = 100.0
    assert list(held.needed(109.0, 10.0)) == [result]
    assert not held.is_done_with(109.0, 10.0)
    assert list(held.needed(110.0, 10.0)) == []
    assert held.is_done_with(110.0, 10.0)


def test_owners_are_asked_about_jobs_that_may_be_open() -> None:
    jobs = [
        JobFiles(JobId("j1"), ALPHA),
        JobFiles(JobId("j2"), BRAVO),
        JobFiles(JobId("j3"), ALPHA, over_s=1.0),
        JobFiles(JobId("j4"), ALPHA),
        JobFiles(JobId("j5"), ME),
    ]
    assert owners_to_ask(jobs, ME) == {ALPHA: ("j1", "j4"), BRAVO: ("j2",)}


# --- whom to ask ----------------------------------------------------------------------------------------


def test_holders_are_asked_in_rounds_and_given_up_when_none_sends_anything() -> None:
    asked = run_out(Search([ALPHA, BRAVO, ALPHA]), moved_at=())
    assert asked == [ALPHA, BRAVO] * ROUNDS_MAX


def test_whoever_has_sent_something_is_waited_for() -> None:
    asked = run_out(Search([ALPHA]), moved_at=(1,))
    assert len(asked) == 1 + PATIENT_ROUNDS_MAX


def test_a_transfer_that_is_cut_again_and_again_goes_on_as_long_as_something_comes() -> None:
    asked = run_out(Search([ALPHA]), moved_at=range(0, 100, PATIENT_ROUNDS_MAX - 1))
    assert len(asked) > 100


def test_who_sent_other_content_is_not_asked_again() -> None:
    search = Search([ALPHA, BRAVO])
    assert search.next() == ALPHA
    search.on_wrong(ALPHA, "it lies")
    assert search.holders == (BRAVO,)
    assert search.next() == BRAVO
    search.on_wrong(BRAVO, "so does it")
    assert (search.next(), search.reason) == (Next.GIVE_UP, "so does it")


def test_who_has_nothing_is_believed_the_third_time() -> None:
    search = Search([ALPHA])
    for _ in range(MISSES_MAX):
        assert search.next() == ALPHA
        search.on_missing(ALPHA, "it has it no more")
        if search.holders:
            assert search.next() is Next.PAUSE
    assert search.next() is Next.GIVE_UP


def test_of_nobody_nothing_is_waited_for() -> None:
    assert Search([]).next() is Next.GIVE_UP


# --- how much -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bytes_per_s", [1e4, 1e5, 1e6, 1e7, 1e8, 1e9])
def test_the_window_settles_at_a_quarter_of_a_seconds_worth(bytes_per_s: float) -> None:
    piece_s = 56 * 1024 / bytes_per_s
    window = Window()
    for _ in range(10):
        window.took(window.pieces, piece_s * (window.pieces - 1))
    assert window.pieces == MIN_PIECES or window.pieces * piece_s <= 2 * WINDOW_S
    assert window.pieces == MAX_PIECES or window.pieces * piece_s >= WINDOW_S / 4


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 100)), max_size=50))
def test_the_window_stays_within_bounds(seen: list[tuple[int, float]]) -> None:
    window = Window()
    for pieces, spread_s in seen:
        window.took(pieces, spread_s)
        assert MIN_PIECES <= window.pieces <= MAX_PIECES


def test_the_last_window_of_a_file_does_not_make_the_next_one_larger() -> None:
    window = Window()
    window.took(FIRST_PIECES - 1, 0.001)
    assert window.pieces == FIRST_PIECES


def run_out(search: Search, moved_at: Sequence[int]) -> list[NodeId]:
    """Lets every holder be cut off until the search gives up; returns whom it asked."""
    asked: list[NodeId] = []
    while (step := search.next()) is not Next.GIVE_UP:
        if isinstance(step, Next):
            continue
        search.on_cut(step, "cut", moved=len(asked) in moved_at)
        asked.append(step)
    return asked


def digest_of(number: int) -> Digest:
    return Digest(hashlib.sha256(b"%d" % number).digest())

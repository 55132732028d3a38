"""What the map of counts holds, and what it costs when nothing happened."""

from __future__ import annotations

import re

from meshpeer.core.counters import Counter, Counters


def test_nothing_happened_at_first() -> None:
    counters = Counters()

    assert all(counters.get(one) == 0 for one in Counter)
    assert not counters.counted
    assert list(counters.by_kind()) == []


def test_counts_add_up() -> None:
    counters = Counters()

    counters.add(Counter.SEEN_EVICTED)
    counters.add(Counter.SEEN_EVICTED, 41)

    assert counters.get(Counter.SEEN_EVICTED) == 42
    assert dict(counters.counted) == {Counter.SEEN_EVICTED: 42}


def test_a_frame_counts_under_its_kind_and_among_all() -> None:
    counters = Counters()

    counters.add_kind("out", "Ping", 30)
    counters.add_kind("in", "Ping", 31)
    counters.add_kind("in", "Facts", 900)
    counters.add_kind("in", "Facts", 100)

    assert list(counters.by_kind()) == [
        ("in", "Facts", 2, 1000),
        ("in", "Ping", 1, 31),
        ("out", "Ping", 1, 30),
    ]
    assert counters.get(Counter.FRAMES_IN) == 3
    assert counters.get(Counter.FRAMES_OUT) == 1


def test_every_counter_has_a_name_that_a_scraper_takes_and_a_meaning_of_its_own() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", one.value) for one in Counter)
    assert all(str(one) == one.value for one in Counter)
    assert len({one.meaning for one in Counter}) == len(Counter)
    assert all(one.meaning[0].isupper() and not one.meaning.endswith(".") for one in Counter)

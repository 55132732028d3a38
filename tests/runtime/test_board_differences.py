"""Differences of views: what a page is sent leads to what it is to show, in messages of bounded size."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.runtime.board import RowDropped, RowPut, View, applied, differences
from meshpeer.runtime.control import Doc


class Cell(Doc, frozen=True, kw_only=True):
    number: int


KEYS = st.text("abcdef", min_size=1, max_size=2)
CELLS = st.builds(Cell, number=st.integers(0, 3))
VIEWS = st.builds(View, st.dictionaries(st.sampled_from(["x", "y", "z"]), st.dictionaries(KEYS, CELLS)))


@given(VIEWS, VIEWS)
def test_differences_lead_from_any_view_to_any_other(old: View, new: View) -> None:
    assert applied(old, differences(old, new)) == new


@given(VIEWS)
def test_no_differences_where_nothing_changed(view: View) -> None:
    assert differences(view, View(dict(view.tables))) == ()


@given(VIEWS, VIEWS, st.integers(1, 4))
def test_bounded_differences_lead_there_in_as_many_steps_as_it_takes(old: View, new: View, most: int) -> None:
    total, steps, view = len(differences(old, new)), 0, old
    while changes := differences(view, new, most):
        assert len(changes) <= most
        view, steps = applied(view, changes), steps + 1
    assert view == new
    assert steps == -(-total // most)


@given(VIEWS, VIEWS)
def test_no_row_is_told_of_twice_and_none_that_did_not_change(old: View, new: View) -> None:
    changes = differences(old, new)
    assert len({(one.table, one.key) for one in changes}) == len(changes)
    for one in changes:
        before, after = old.table(one.table).get(one.key), new.table(one.table).get(one.key)
        assert before != after
        assert isinstance(one, RowPut if after is not None else RowDropped)


@given(VIEWS, VIEWS)
def test_applying_leaves_the_old_view_as_it_was(old: View, new: View) -> None:
    known = {name: dict(table) for name, table in old.tables.items()}
    applied(old, differences(old, new))
    assert old == View(known)


def test_changes_travel_as_short_lists() -> None:
    changes = (RowDropped("x", "a"), RowPut("x", "b", Cell(number=1)))
    assert msgspec.json.encode(changes) == b'[["drop","x","a"],["put","x","b",{"number":1}]]'

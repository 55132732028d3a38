"""What every ``Store`` does, on a disk and in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshpeer.core.effects import Change, Delete, Put, Table
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import Ticket
from meshpeer.runtime.ports import CommitFailed, Committed, Store

OpenStore = Callable[[], AbstractAsyncContextManager[Store]]
MakePut = Callable[..., Put]
OutcomeOf = Callable[[Store, Sequence[int]], Awaitable[list[Committed | CommitFailed]]]


async def test_committed_rows_are_there_after_reopening(
    open_journal: OpenStore, put: MakePut, outcome_of: OutcomeOf
) -> None:
    async with open_journal() as store:
        store.commit_soon(Ticket(1), [put("a", b"1"), put("b", b"2", Table.JOBS)])
        await outcome_of(store, [1])
    async with open_journal() as store:
        assert store.load(Table.TASKS) == [("a", b"1")]
        assert store.load(Table.JOBS) == [("b", b"2")]


async def test_a_committed_row_is_visible_when_its_ticket_is_reported(
    open_journal: OpenStore, put: MakePut, outcome_of: OutcomeOf
) -> None:
    async with open_journal() as store:
        for ticket in range(1, 6):
            store.commit_soon(Ticket(ticket), [put(f"k{ticket}")])
            await outcome_of(store, [ticket])
            assert (f"k{ticket}", b"v") in store.load(Table.TASKS)


async def test_tickets_are_reported_once_and_in_the_order_given(
    open_journal: OpenStore, put: MakePut, outcome_of: OutcomeOf
) -> None:
    async with open_journal() as store:
        for ticket in range(1, 301):
            store.commit_soon(Ticket(ticket), [put(f"k{ticket % 7}", b"%d" % ticket)])
        outcomes = await outcome_of(store, range(1, 301))
        assert [ticket for outcome in outcomes for ticket in outcome.tickets] == list(range(1, 301))
        assert all(isinstance(outcome, Committed) for outcome in outcomes)
        last_of = {f"k{ticket % 7}": b"%d" % ticket for ticket in range(1, 301)}
        assert dict(store.load(Table.TASKS)) == last_of


async def test_a_ticket_without_changes_is_reported_too(
    open_journal: OpenStore, outcome_of: OutcomeOf
) -> None:
    async with open_journal() as store:
        store.commit_soon(Ticket(1), [])
        assert await outcome_of(store, [1]) == [Committed(tickets=(Ticket(1),))]


async def test_changes_of_one_ticket_apply_in_their_order(
    open_journal: OpenStore, put: MakePut, outcome_of: OutcomeOf
) -> None:
    gone = Delete(table=Table.TASKS, key="a")
    async with open_journal() as store:
        store.commit_soon(
            Ticket(1), [put("a", b"1"), gone, put("b"), Delete(table=Table.TASKS, key="b"), put("b", b"2")]
        )
        await outcome_of(store, [1])
        assert store.load(Table.TASKS) == [("b", b"2")]


async def test_deleting_an_absent_key_is_no_error(open_journal: OpenStore, outcome_of: OutcomeOf) -> None:
    async with open_journal() as store:
        store.commit_soon(Ticket(1), [Delete(table=Table.JOBS, key="nobody")])
        assert await outcome_of(store, [1]) == [Committed(tickets=(Ticket(1),))]


async def test_leaving_writes_and_reports_what_was_queued(open_journal: OpenStore, put: MakePut) -> None:
    async with open_journal() as store:
        for ticket in range(1, 1501):
            store.commit_soon(Ticket(ticket), [put(f"{ticket:05}")])
    reported = [ticket async for outcome in store.outcomes for ticket in outcome.tickets]
    assert reported == list(range(1, 1501))
    async with open_journal() as store:
        assert len(store.load(Table.TASKS)) == 1500


async def test_leaving_by_cancellation_loses_nothing_that_was_queued(
    open_journal: OpenStore, put: MakePut
) -> None:
    with trio.CancelScope() as scope:
        async with open_journal() as store:
            store.commit_soon(Ticket(1), [put("a")])
            scope.cancel()
            await trio.Event().wait()
    async with open_journal() as store:
        assert store.load(Table.TASKS) == [("a", b"v")]


async def test_a_closed_store_takes_no_writes(open_journal: OpenStore, put: MakePut) -> None:
    async with open_journal() as store:
        pass
    with pytest.raises(InvariantBroken, match="ticket 9"):
        store.commit_soon(Ticket(9), [put("a")])


async def test_a_key_without_utf8_is_refused_where_it_is_given(
    open_journal: OpenStore, put: MakePut, outcome_of: OutcomeOf
) -> None:
    async with open_journal() as store:
        with pytest.raises(UnicodeEncodeError):
            store.commit_soon(Ticket(1), [put("\ud800")])
        store.commit_soon(Ticket(2), [put("fine")])
        assert await outcome_of(store, [2]) == [Committed(tickets=(Ticket(2),))]


async def test_the_store_id_is_16_bytes_and_outlives_reopening(open_journal: OpenStore) -> None:
    async with open_journal() as store:
        first = store.store_id
    async with open_journal() as store:
        assert store.store_id == first
        assert len(first) == 16


@pytest.mark.parametrize("prefix", ["\U0010ffff", "a\U0010ffff", "\ud7ff", "a\ud7ff", "%", "_", "\0"])
async def test_a_prefix_is_taken_as_it_is_whatever_it_ends_with(
    open_journal: OpenStore, put: MakePut, outcome_of: OutcomeOf, prefix: str
) -> None:
    inside = sorted([prefix, f"{prefix}\0", f"{prefix}b", f"{prefix}\U0010ffff\U0010ffff"])
    outside = ["", "A", "b", "\ue000", "zz"]
    async with open_journal() as store:
        store.commit_soon(Ticket(1), [put(key) for key in (*outside, *inside)])
        await outcome_of(store, [1])
        assert [key for key, _ in store.load(Table.TASKS, prefix)] == inside


KEYS = st.text(st.sampled_from("ab/%_*\0\x7fé\ud7ff\ue000\uffff\U0010fffe\U0010ffff"), max_size=4)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3)), max_size=8), max_size=4),
    prefixes=st.lists(KEYS, max_size=5),
)
def test_loading_by_prefix_gives_what_a_sorted_dict_gives(
    batches: list[list[tuple[str, bytes | None]]],
    prefixes: list[str],
    open_journal: OpenStore,
    outcome_of: OutcomeOf,
) -> None:
    model: dict[str, bytes] = {}
    trio.run(_compare, batches, prefixes, model, open_journal, outcome_of)


async def _compare(
    batches: list[list[tuple[str, bytes | None]]],
    prefixes: list[str],
    model: dict[str, bytes],
    open_journal: OpenStore,
    outcome_of: OutcomeOf,
) -> None:
    async with open_journal() as store:
        # The journal is the same one in every example: start from nothing.
        clean: list[Change] = [Delete(table=Table.TASKS, key=key) for key, _ in store.load(Table.TASKS)]
        store.commit_soon(Ticket(1), clean)
        for ticket, batch in enumerate(batches, 2):
            changes: list[Change] = []
            for key, value in batch:
                if value is None:
                    changes.append(Delete(table=Table.TASKS, key=key))
                    model.pop(key, None)
                else:
                    changes.append(Put(table=Table.TASKS, key=key, value=value))
                    model[key] = value
            store.commit_soon(Ticket(ticket), changes)
        await outcome_of(store, range(1, len(batches) + 2))
        for prefix in ["", *prefixes]:
            assert store.load(Table.TASKS, prefix) == sorted(
                row for row in model.items() if row[0].startswith(prefix)
            )

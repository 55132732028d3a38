"""What is true of the journal on a disk only: its format, its migrations, and what it says when it can't
be used.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import stat
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trio

from meshpeer.adapters.store import FORMAT_VERSION, open_store
from meshpeer.adapters.store.migrations import MIGRATIONS
from meshpeer.adapters.store.opening import APPLICATION_ID
from meshpeer.core.effects import Change, Delete, Put, Table
from meshpeer.core.errors import EnvironmentFault, InvariantBroken, StoreFailed
from meshpeer.core.ids import Ticket
from meshpeer.runtime.ports import CommitFailed, Committed, Store

MakePut = Callable[..., Put]
OutcomeOf = Callable[[Store, Sequence[int]], Awaitable[list[Committed | CommitFailed]]]

# --- format ------------------------------------------------------------------------------------------------


async def test_the_file_names_its_application_and_format_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with open_store(path):
        assert _modes(tmp_path) == {"state.db": 0o600, "state.db-shm": 0o600, "state.db-wal": 0o600}
    database = sqlite3.connect(path)
    with contextlib.closing(database):
        assert database.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert database.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_there_is_a_table_for_each_kind_of_row(tmp_path: Path) -> None:
    async with open_store(tmp_path / "state.db") as store:
        for table in Table:
            assert store.load(table) == []


async def test_many_tickets_share_one_sync(tmp_path: Path, put: MakePut, outcome_of: OutcomeOf) -> None:
    async with open_store(tmp_path / "state.db") as store:
        for ticket in range(1, 501):
            store.commit_soon(Ticket(ticket), [put(f"{ticket}")])
        await outcome_of(store, range(1, 501))
        assert 1 <= store.writes <= 100
        assert len(store.load(Table.TASKS)) == 500


async def test_a_ticket_larger_than_one_statement_is_one_transaction(
    tmp_path: Path, put: MakePut, outcome_of: OutcomeOf
) -> None:
    statements: list[str] = []
    async with open_store(tmp_path / "state.db", trace=statements.append) as store:
        statements.clear()
        changes: list[Change] = [put(f"{number:04}") for number in range(1_000)]
        changes += [Delete(table=Table.JOBS, key=f"{number}") for number in range(250)]
        store.commit_soon(Ticket(1), changes)
        await outcome_of(store, [1])
        assert len(store.load(Table.TASKS)) == 1_000
    verbs = [text.split()[0] for text in statements[:15]]
    assert verbs == ["BEGIN", *["INSERT"] * 10, *["DELETE"] * 3, "COMMIT"]


async def test_reading_never_waits_for_a_write_that_is_under_way(
    tmp_path: Path, put: MakePut, outcome_of: OutcomeOf
) -> None:
    path = tmp_path / "state.db"
    async with open_store(path) as store:
        store.commit_soon(Ticket(1), [put("a", b"old")])
        await outcome_of(store, [1])
        other = sqlite3.connect(path, isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            store.commit_soon(Ticket(2), [put("a", b"new")])
            assert store.load(Table.TASKS) == [("a", b"old")]
            other.execute("ROLLBACK")
        await outcome_of(store, [2])
        assert store.load(Table.TASKS) == [("a", b"new")]


async def test_the_loop_runs_while_a_write_waits_for_the_disk(
    tmp_path: Path, put: MakePut, outcome_of: OutcomeOf
) -> None:
    path = tmp_path / "state.db"
    async with open_store(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            store.commit_soon(Ticket(1), [put("a")])
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            with pytest.raises(trio.WouldBlock):
                store.outcomes.receive_nowait()
            other.execute("ROLLBACK")
        assert await outcome_of(store, [1]) == [Committed(tickets=(Ticket(1),))]


# --- migrations -------------------------------------------------------------------------------------------


def _add_colour(database: sqlite3.Connection) -> None:
    """A format 2 as a later version might make it."""
    database.execute("ALTER TABLE tasks ADD COLUMN colour TEXT NOT NULL DEFAULT 'green'")


def _fail(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE half (key TEXT)")
    database.execute("INSERT INTO nowhere VALUES (1)")


def _commit_half_way(database: sqlite3.Connection) -> None:
    database.executescript("CREATE TABLE half (key TEXT)")


async def test_an_older_format_is_migrated_and_keeps_its_rows_and_its_id(
    tmp_path: Path, put: MakePut, outcome_of: OutcomeOf
) -> None:
    path = tmp_path / "state.db"
    async with open_store(path) as store:
        first = store.store_id
        store.commit_soon(Ticket(1), [put("a")])
        await outcome_of(store, [1])
    async with open_store(path, migrations=[*MIGRATIONS, _add_colour]) as store:
        assert store.load(Table.TASKS) == [("a", b"v")]
        assert store.store_id == first
    database = sqlite3.connect(path)
    with contextlib.closing(database):
        assert database.execute("SELECT colour FROM tasks").fetchall() == [("green",)]
        assert database.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION + 1,)


@pytest.mark.parametrize(("step", "kind"), [(_fail, StoreFailed), (_commit_half_way, InvariantBroken)])
async def test_a_migration_that_fails_leaves_a_journal_that_still_opens(
    tmp_path: Path, step: Callable[[sqlite3.Connection], None], kind: type[Exception]
) -> None:
    path = tmp_path / "state.db"
    async with open_store(path):
        pass
    with pytest.raises(kind):
        async with open_store(path, migrations=[*MIGRATIONS, _add_colour, step]):
            pytest.fail("a journal was opened after a failed migration")
    async with open_store(path) as store:
        assert store.load(Table.TASKS) == []


async def test_a_newer_format_is_refused_with_both_versions_and_stays_untouched(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with open_store(path, migrations=[*MIGRATIONS, _add_colour]):
        pass
    before = _folder(tmp_path)
    with pytest.raises(
        EnvironmentFault, match=f"format is {FORMAT_VERSION + 1}, this version reads up to {FORMAT_VERSION}"
    ):
        async with open_store(path):
            pytest.fail("a journal of a newer format was opened")
    assert _folder(tmp_path) == before


async def test_a_newer_format_that_only_the_log_tells_of_is_refused_untouched(tmp_path: Path) -> None:
    """After a crash the header of the database may lag behind its write-ahead log."""
    path, copy = tmp_path / "state.db", tmp_path / "copy" / "state.db"
    copy.parent.mkdir()
    async with open_store(path):
        pass
    async with open_store(path, migrations=[*MIGRATIONS, _add_colour]):
        for name in ("state.db", "state.db-wal"):
            shutil.copy(tmp_path / name, copy.parent / name)
    assert int.from_bytes(copy.read_bytes()[60:64], "big") == FORMAT_VERSION
    before = _folder(copy.parent)
    with pytest.raises(EnvironmentFault, match="newer version"):
        async with open_store(copy):
            pytest.fail("a journal of a newer format was opened")
    after = _folder(copy.parent)
    after.pop("state.db-shm", None)
    assert after == before


# --- what can't be opened ---------------------------------------------------------------------------------


def _text(path: Path) -> None:
    path.write_text("this is not a database, but long enough to be taken for one" * 10)


def _short(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def _somebody_elses(path: Path) -> None:
    database = sqlite3.connect(path)
    with contextlib.closing(database):
        database.execute("CREATE TABLE theirs (x)")
        database.commit()


def _somebody_elses_by_name(path: Path) -> None:
    _somebody_elses(path)
    database = sqlite3.connect(path)
    with contextlib.closing(database):
        database.execute("PRAGMA application_id = 1234")


@pytest.mark.parametrize("make", [_text, _short, _somebody_elses, _somebody_elses_by_name])
async def test_a_file_that_is_no_journal_is_refused_untouched(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "state.db"
    make(path)
    before = _folder(tmp_path)
    with pytest.raises(EnvironmentFault, match="not a journal of meshpeer"):
        async with open_store(path):
            pytest.fail("a foreign file was opened")
    assert _folder(tmp_path) == before


@pytest.mark.parametrize("hurt", ["overwritten", "cut short"])
async def test_a_damaged_journal_is_found_when_it_is_opened(
    tmp_path: Path, put: MakePut, outcome_of: OutcomeOf, hurt: str
) -> None:
    path = tmp_path / "state.db"
    async with open_store(path) as store:
        store.commit_soon(Ticket(1), [put(f"{number:05}", b"x" * 100) for number in range(2_000)])
        await outcome_of(store, [1])
    data = bytearray(path.read_bytes())
    if hurt == "overwritten":
        # Rows of one table only: nothing that opening the journal has to read.
        data[40 * 4_096 : 41 * 4_096] = b"\xa5" * 4_096
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)
    with pytest.raises(StoreFailed, match="is damaged") as caught:
        async with open_store(path):
            pytest.fail("a damaged journal was opened")
    assert "backup" in caught.value.hint


async def test_a_journal_whose_making_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = sqlite3.connect(path)
    with contextlib.closing(database):
        database.execute("PRAGMA journal_mode = WAL")
    assert path.stat().st_size > 0
    async with open_store(path) as store:
        assert len(store.store_id) == 16


@pytest.mark.parametrize("name", ["no folder/state.db", "."])
async def test_a_place_that_can_hold_no_journal_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreFailed, match="can't be written") as caught:
        async with open_store(tmp_path / name):
            pytest.fail("a journal was opened where none can be")
    assert str(tmp_path) in caught.value.what


@pytest.mark.parametrize("name", ["a?b#c%20d", "ümlaut und leer"])
async def test_any_folder_name_will_do(
    tmp_path: Path, put: MakePut, outcome_of: OutcomeOf, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    async with open_store(folder / "state.db") as store:
        store.commit_soon(Ticket(1), [put("a")])
        await outcome_of(store, [1])
        assert store.load(Table.TASKS) == [("a", b"v")]
    assert [one.name for one in folder.iterdir()] == ["state.db"]


# --- writes that fail -------------------------------------------------------------------------------------


def _small(database: sqlite3.Connection) -> None:
    """No migration at all: makes SQLite itself report a full disk once the file holds so many pages."""
    database.execute("PRAGMA max_page_count = 40")


async def test_a_failed_batch_is_rolled_back_and_everything_after_it_fails(
    tmp_path: Path, put: MakePut, outcome_of: OutcomeOf
) -> None:
    path = tmp_path / "state.db"
    async with open_store(path, migrations=[*MIGRATIONS, _small]) as store:
        store.commit_soon(Ticket(1), [put("small")])
        await outcome_of(store, [1])
        store.commit_soon(Ticket(2), [put("first of two", table=Table.JOBS), put("large", b"x" * 400_000)])
        store.commit_soon(Ticket(3), [put("behind it")])
        outcomes = await outcome_of(store, [2, 3])
        store.commit_soon(Ticket(4), [put("later")])
        outcomes += await outcome_of(store, [4])
        failures = [outcome for outcome in outcomes if isinstance(outcome, CommitFailed)]
        assert failures == outcomes
        assert [ticket for outcome in failures for ticket in outcome.tickets] == [2, 3, 4]
        assert {outcome.error.what for outcome in failures} == {f"the disk under {path} is full"}
        assert store.load(Table.TASKS) == [("small", b"v")]
        assert store.load(Table.JOBS) == []
    async with open_store(path, migrations=[*MIGRATIONS, _small]) as store:
        store.commit_soon(Ticket(1), [put("again")])
        assert await outcome_of(store, [1]) == [Committed(tickets=(Ticket(1),))]
        assert store.load(Table.TASKS) == [("again", b"v"), ("small", b"v")]


async def test_a_value_that_sqlite_does_not_take_fails_the_store_rather_than_its_thread(
    tmp_path: Path, put: MakePut, outcome_of: OutcomeOf
) -> None:
    async with open_store(tmp_path / "state.db") as store:
        wrong: bytes = object()  # type: ignore[assignment]
        store.commit_soon(Ticket(1), [put("fine"), put("wrong", wrong)])
        (outcome,) = await outcome_of(store, [1])
        assert isinstance(outcome, CommitFailed)
        assert outcome.error.__cause__ is not None
        assert store.load(Table.TASKS) == []


def _modes(folder: Path) -> dict[str, int]:
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in sorted(folder.iterdir())}


def _folder(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        one.name: (one.read_bytes(), one.stat().st_mtime_ns)
        for one in sorted(folder.iterdir())
        if one.is_file()
    }

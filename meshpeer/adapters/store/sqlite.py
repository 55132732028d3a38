"""The journal: SQLite in WAL mode, one writer thread, group commit.

``commit_soon`` hands a transaction to the writer thread, which takes everything that waits, writes it as one,
syncs (synchronous=FULL), and reports the tickets. So one fsync serves many, the event loop never waits for a
disk, and nothing is reported before it is there.

A batch is one transaction, so only the last write of each key counts: the batch is folded to one statement
per table (and one for its deletions) before SQLite sees it. That is not for SQLite's sake. Each statement
gives up the interpreter's lock and has to win it back from a busy event loop.

After a failure (disk full, IO error) nothing more is written until the store is opened anew: a gap would be
worse than a stop. A failed ticket is not promised; where the disk failed in the very sync, its rows may still
be found later.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from meshpeer.adapters.store.faults import journal_fault
from meshpeer.adapters.store.migrations import MIGRATIONS, Migration
from meshpeer.adapters.store.opening import Opened, Trace, open_database
from meshpeer.adapters.store.origin import CopiedFrom, Machine, observe_machine
from meshpeer.core.effects import Change, Put, Table
from meshpeer.core.errors import InvariantBroken, StoreFailed
from meshpeer.core.ids import Ticket
from meshpeer.runtime.ports import CommitFailed, Committed

FORMAT_VERSION = len(MIGRATIONS)
BATCH_TICKETS_MAX = 1_000
"""Transactions written as one; more wait for the next batch."""
STATEMENT_ROWS_MAX = 100
"""Rows in one statement; each length of statement is compiled once and kept."""

_Job = tuple[Ticket, tuple[Change, ...]]
_Statement = tuple[str, list[str | bytes]]
Row = TypeVar("Row")


@contextlib.asynccontextmanager
async def open_store(
    path: Path,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
    machine: Machine | None = None,
    trace: Trace | None = None,
) -> AsyncIterator[SqliteStore]:
    """Opens (or makes) the journal; leaving writes what was queued, reports it and ends ``outcomes``.

    ``machine`` is told rather than observed by tests. ``trace`` is called before each SQL statement, mostly
    on the writer thread: crash tests count there, and end the process.

    Raises ``EnvironmentFault`` where the file is no journal of ours or comes from a newer version (it stays
    untouched), and ``StoreFailed`` where it is damaged or can't be written.
    """
    opened = await trio.to_thread.run_sync(
        open_database, path, migrations, machine or observe_machine(), trace
    )
    store = SqliteStore(path, opened)
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await store.aclose()


class SqliteStore:
    """Implements ``runtime.ports.Store``."""

    def __init__(self, path: Path, opened: Opened) -> None:
        self._path = path
        self._database = opened.writer
        self._reader = opened.reader
        self._row = opened.row
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._failed: StoreFailed | None = None
        self._closed = False
        self._send, self._receive = trio.open_memory_channel[Committed | CommitFailed](float("inf"))
        self._token = trio.lowlevel.current_trio_token()
        self._writes = 0
        self._thread = threading.Thread(target=self._write_until_closed, name="journal", daemon=True)
        self._thread.start()

    @property
    def store_id(self) -> bytes:
        return self._row.store_id

    @property
    def copied_from(self) -> CopiedFrom | None:
        """The last copy of this journal that was noticed, None for one that never moved."""
        return self._row.copied_from

    @property
    def writes(self) -> int:
        """Batches on disk since the store was opened."""
        return self._writes

    @property
    def outcomes(self) -> trio.MemoryReceiveChannel[Committed | CommitFailed]:
        return self._receive

    def load(self, table: Table, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        """Returns the committed rows whose key starts with ``prefix``; raises ``StoreFailed`` where it
        can't."""
        query, bounds = f"SELECT key, value FROM {table.value} WHERE key >= ?", [prefix]
        end = _prefix_end(prefix)
        if end:
            query, bounds = f"{query} AND key < ?", [prefix, end]
        try:
            rows = self._reader.execute(f"{query} ORDER BY key", bounds).fetchall()
        except sqlite3.Error as error:
            raise journal_fault(self._path, error) from error
        return [(key, bytes(value)) for key, value in rows]

    def commit_soon(self, ticket: Ticket, changes: Sequence[Change]) -> None:
        if self._closed:
            raise InvariantBroken(f"ticket {ticket} was given to a journal that is closed")
        for change in changes:
            # A key that has no UTF-8 form is the caller's bug, to be found here rather than on the writer
            # thread.
            change.key.encode()
        self._queue.put((ticket, tuple(changes)))

    async def aclose(self) -> None:
        """Writes and reports what is queued, then closes; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await trio.to_thread.run_sync(self._thread.join)
        await trio.to_thread.run_sync(self._close_connections)
        self._send.close()

    def _close_connections(self) -> None:
        self._reader.close()
        # Closing the last connection checkpoints; where the disk is full, the log simply stays.
        with contextlib.suppress(sqlite3.Error):
            self._database.close()

    # --- the writer thread ----------------------------------------------------------------------------------

    def _write_until_closed(self) -> None:
        going = True
        while going:
            batch, going = self._take_batch()
            if batch:
                self._report(self._write(batch))

    def _take_batch(self) -> tuple[list[_Job], bool]:
        """Waits for one transaction, takes those that wait behind it; the flag is False at the end of the
        queue."""
        batch: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            batch.append(job)
            if len(batch) == BATCH_TICKETS_MAX:
                return batch, True
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _write(self, batch: list[_Job]) -> Committed | CommitFailed:
        tickets = tuple(ticket for ticket, _ in batch)
        if self._failed is None:
            try:
                self._transact(_fold(itertools.chain.from_iterable(changes for _, changes in batch)))
            except Exception as error:  # noqa: BLE001 - whatever it was, those who wait must be told
                self._failed = journal_fault(self._path, error)
                self._failed.__cause__ = error
            else:
                self._writes += 1
                return Committed(tickets=tickets)
        return CommitFailed(tickets=tickets, error=self._failed)

    def _transact(self, statements: list[_Statement]) -> None:
        if len(statements) == 1:
            # One statement is a transaction by itself.
            self._database.execute(*statements[0])
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for text, values in statements:
                self._database.execute(text, values)
            self._database.execute("COMMIT")
        except BaseException:
            # SQLite rolls some failures back by itself, and then has nothing left to roll back.
            if self._database.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
            raise

    def _report(self, outcome: Committed | CommitFailed) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._deliver, outcome)

    def _deliver(self, outcome: Committed | CommitFailed) -> None:
        # Nobody listens any more: an agent that ends.
        with contextlib.suppress(trio.BrokenResourceError):
            self._send.send_nowait(outcome)


def _fold(changes: Iterable[Change]) -> list[_Statement]:
    """Reduces a run of changes to the fewest statements with the same effect."""
    final: dict[Table, dict[str, bytes | None]] = {}
    for change in changes:
        final.setdefault(change.table, {})[change.key] = change.value if isinstance(change, Put) else None
    statements: list[_Statement] = []
    for table, rows in final.items():
        puts = [(key, value) for key, value in rows.items() if value is not None]
        gone: list[str | bytes] = [key for key, value in rows.items() if value is None]
        statements += [
            (_put_text(table, len(some)), [one for row in some for one in row]) for some in _pieces(puts)
        ]
        statements += [(_delete_text(table, len(some)), some) for some in _pieces(gone)]
    return statements


def _pieces(rows: list[Row]) -> Iterator[list[Row]]:
    return (rows[start : start + STATEMENT_ROWS_MAX] for start in range(0, len(rows), STATEMENT_ROWS_MAX))


@functools.cache
def _put_text(table: Table, rows: int) -> str:
    return f"INSERT OR REPLACE INTO {table.value} VALUES {', '.join(['(?, ?)'] * rows)}"


@functools.cache
def _delete_text(table: Table, rows: int) -> str:
    return f"DELETE FROM {table.value} WHERE key IN ({', '.join('?' * rows)})"


def _prefix_end(prefix: str) -> str:
    """Returns the least text above all that start with ``prefix``; empty where there is none.

    SQLite compares UTF-8 bytes, whose order is that of code points; surrogates have no UTF-8 form.
    """
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return ""
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)

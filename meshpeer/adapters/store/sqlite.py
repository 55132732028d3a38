"""The journal: SQLite in WAL mode, one writer thread, group commit.

``commit_soon`` hands a transaction to the writer thread, which takes everything that waits, writes it as one, syncs (synchronous=FULL),
and reports the tickets. So one fsync serves many, the event loop never waits for a disk, and nothing is reported before it is
there. After a failure (disk full, IO error) nothing more is written until the store is opened anew: a gap would be worse than a stop.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import trio

from meshpeer.adapters.store.migrations import MIGRATIONS, Migration
from meshpeer.core.effects import Change, Put, Table
from meshpeer.core.errors import EnvironmentFault, StoreFailed
from meshpeer.core.ids import Ticket
from meshpeer.runtime.ports import CommitFailed, Committed

APPLICATION_ID = 0x6D657368
"""``mesh``: file(1) and we ourselves tell the database by it."""
FORMAT_VERSION = len(MIGRATIONS)
STORE_ID_KEY = "store_id"
BATCH_MAX = 1_000

_Job = tuple[Ticket, tuple[Change, ...]]


@contextlib.asynccontextmanager
async def open_store(path: Path, *, migrations: Sequence[Migration] = MIGRATIONS) -> AsyncIterator[SqliteStore]:
    """Opens (or makes) the journal; leaving writes what was queued.

    Raises ``EnvironmentFault`` where the file is no journal of ours, is damaged, or comes from a newer version (it
    stays untouched), and ``StoreFailed`` where it can't be written.
    """
    store = SqliteStore(path, _open(path, migrations))
    store.start()
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.stop)


class SqliteStore:
    """Implements ``runtime.ports.Store``."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._failed: StoreFailed | None = None
        self._send, self._receive = trio.open_memory_channel[Committed | CommitFailed](float("inf"))
        self._thread = threading.Thread(target=self._write_forever, name="journal", daemon=True)
        self._token = trio.lowlevel.current_trio_token()
        row = database.execute("SELECT value FROM meta WHERE key = ?", (STORE_ID_KEY,)).fetchone()
        self.store_id = bytes(row[0])
        self.writes = 0
        """Transactions written; crash tests count them."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits for the writer to finish what is queued; blocks."""
        self._queue.put(None)
        self._thread.join()
        self._database.close()

    @property
    def outcomes(self) -> trio.MemoryReceiveChannel[Committed | CommitFailed]:
        return self._receive

    def load(self, table: Table, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        reader = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        try:
            if prefix:
                rows = reader.execute(
                    f"SELECT key, value FROM {table.value} WHERE key >= ? AND key < ? ORDER BY key", (prefix, prefix + "\U0010ffff")
                )
            else:
                rows = reader.execute(f"SELECT key, value FROM {table.value} ORDER BY key")
            return [(key, bytes(value)) for key, value in rows]
        except sqlite3.Error as error:
            raise StoreFailed(f"the journal {self._path} can't be read: {error}", "is the disk healthy? (dmesg)") from error
        finally:
            reader.close()

    def commit_soon(self, ticket: Ticket, changes: Sequence[Change]) -> None:
        self._queue.put((ticket, tuple(changes)))

    # --- the writer thread ---------------------------------------------------------------------------------------

    def _write_forever(self) -> None:
        going = True
        while going:
            batch: list[_Job] = []
            job = self._queue.get()
            while job is not None:
                batch.append(job)
                if len(batch) >= BATCH_MAX:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                going = False
            if batch:
                self._report(self._write(batch))

    def _write(self, batch: list[_Job]) -> Committed | CommitFailed:
        tickets = tuple(ticket for ticket, _ in batch)
        if self._failed is None:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                for _, changes in batch:
                    for change in changes:
                        self._apply(change)
                self._database.execute("COMMIT")
                self.writes += 1
                return Committed(tickets=tickets)
            except sqlite3.Error as error:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                self._failed = _explain(self._path, error)
        return CommitFailed(tickets=tickets, error=self._failed)

    def _apply(self, change: Change) -> None:
        if isinstance(change, Put):
            self._database.execute(f"INSERT OR REPLACE INTO {change.table.value} VALUES (?, ?)", (change.key, change.value))
        else:
            self._database.execute(f"DELETE FROM {change.table.value} WHERE key = ?", (change.key,))

    def _report(self, outcome: Committed | CommitFailed) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._deliver, outcome)

    def _deliver(self, outcome: Committed | CommitFailed) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self._send.send_nowait(outcome)


def _open(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    fresh = not path.exists()
    try:
        if fresh:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        else:
            _judge(path, len(migrations))
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        _migrate(database, migrations)
    except (sqlite3.Error, OSError) as error:
        raise _explain(path, error) from error
    return database


def _judge(path: Path, newest: int) -> None:
    """Reads what the file is, without changing a byte of it."""
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        application = reader.execute("PRAGMA application_id").fetchone()[0]
        version = reader.execute("PRAGMA user_version").fetchone()[0]
        empty = reader.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    finally:
        reader.close()
    if empty and application in (0, APPLICATION_ID):
        return
    if application != APPLICATION_ID:
        raise EnvironmentFault(f"{path} is not a journal of meshpeer", "name another state folder with --state-dir")
    if version > newest:
        raise EnvironmentFault(
            f"{path} was written by a newer version of meshpeer (format {version}, this version reads up to {newest})",
            "upgrade meshpeer on this machine; the file was not touched",
        )


def _migrate(database: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version == len(migrations):
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        for step in migrations[version:]:
            step(database)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {len(migrations)}")
        database.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (STORE_ID_KEY, os.urandom(16)))
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


def _explain(path: Path, error: Exception) -> StoreFailed:
    text = str(error)
    if "full" in text or "No space" in text:
        return StoreFailed(f"the disk under {path} is full", f"free some space on it (df -h {path.parent}); nothing that was acknowledged is lost")
    if "not a database" in text or "malformed" in text:
        return StoreFailed(f"{path} is damaged: {text}", "restore it from a backup, or move it away and join anew with an invite")
    if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
        return StoreFailed(f"{path} can't be written: {text}", "run as the owner of the state folder, or name another with --state-dir")
    return StoreFailed(f"the journal {path} failed: {text}", "is the disk healthy? (dmesg)")


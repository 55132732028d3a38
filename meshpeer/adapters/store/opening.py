"""Opens the journal's database: judges what the file is, brings it to this version's format, and says who it
is.

The order matters. A file that isn't ours, or comes from a newer version, is judged by its header, before
SQLite may write a byte beside it. Only then is it opened for writing, checked, and migrated in one
transaction.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshpeer.adapters.store.faults import damaged, journal_fault
from meshpeer.adapters.store.migrations import Migration
from meshpeer.adapters.store.origin import Machine, StoreRow, observe_origin, succeed
from meshpeer.core.errors import EnvironmentFault, InvariantBroken, PeerFault
from meshpeer.core.wire import cbor

APPLICATION_ID = 0x6D657368
"""``mesh``: file(1) and we ourselves tell the database by it."""
STORE_ID_BYTES = 16
BUSY_TIMEOUT_S = 10.0
"""How long another program (a backup, a shell) may hold the database before a write fails."""
WAL_BYTES_KEPT = 16 * 1024 * 1024
"""The write-ahead log is cut back to this after a checkpoint."""

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_USER_VERSION_AT, _APPLICATION_ID_AT = 60, 68
_ROW_BYTES_MAX = 4_096

Trace = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open journal: two connections, and what it says about itself."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    row: StoreRow


def open_database(
    path: Path, migrations: Sequence[Migration], machine: Machine, trace: Trace | None
) -> Opened:
    """Opens or makes the journal; blocks.

    Raises ``EnvironmentFault`` for what is no journal of ours or of a newer format (untouched),
    ``StoreFailed`` for what is damaged or can't be written.
    """
    try:
        _make_or_judge(path, len(migrations))
        writer = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            writer.set_trace_callback(trace)
            row = _prepare(writer, path, migrations, machine)
            reader = _connect_readonly(path, "mode=ro")
        except BaseException:
            writer.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise journal_fault(path, error) from error
    return Opened(writer=writer, reader=reader, row=row)


# --- judging, without a trace -------------------------------------------------------------------------------


def _make_or_judge(path: Path, newest: int) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        sync_folder(path.parent)
        return
    except FileExistsError:
        pass
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header:
        return
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise _foreign(path)
    (version,) = struct.unpack_from(">I", header, _USER_VERSION_AT)
    (application,) = struct.unpack_from(">I", header, _APPLICATION_ID_AT)
    _check_kind(path, application, version, newest)
    log = path.with_name(path.name + "-wal")
    if application == 0 or (log.exists() and log.stat().st_size):
        # The header may lag behind the log after a crash, and a journal whose making was cut short has none
        # yet.
        _judge_by_reading(path, newest, "mode=ro" if log.exists() else "immutable=1")
    os.chmod(path, 0o600)


def _judge_by_reading(path: Path, newest: int, how: str) -> None:
    reader = _connect_readonly(path, how)
    try:
        application = int(reader.execute("PRAGMA application_id").fetchone()[0])
        version = int(reader.execute("PRAGMA user_version").fetchone()[0])
        tables = int(reader.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    finally:
        reader.close()
    _check_kind(path, application, version, newest)
    if application == 0 and tables:
        raise _foreign(path)


def _check_kind(path: Path, application: int, version: int, newest: int) -> None:
    if application not in (0, APPLICATION_ID):
        raise _foreign(path)
    if application == APPLICATION_ID and version > newest:
        raise EnvironmentFault(
            f"the journal {path} was written by a newer version of meshpeer: "
            f"its format is {version}, this version reads up to {newest}",
            "upgrade meshpeer on this machine; the file was not touched",
        )


def _foreign(path: Path) -> EnvironmentFault:
    return EnvironmentFault(
        f"{path} is not a journal of meshpeer", "name another state folder with --state-dir"
    )


# --- preparing ----------------------------------------------------------------------------------------------


def _prepare(
    database: sqlite3.Connection, path: Path, migrations: Sequence[Migration], machine: Machine
) -> StoreRow:
    mode = str(database.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    if mode != "wal":
        raise EnvironmentFault(
            f"the file system under {path} can't hold a journal (SQLite offers {mode!r}, not 'wal')",
            "keep the state folder on a local disk; name one with --state-dir",
        )
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
    _check_whole(database, path)
    database.execute("BEGIN IMMEDIATE")
    try:
        _migrate(database, migrations)
        row = _take_row(database, path, machine)
        database.execute("COMMIT")
    except BaseException:
        # A failed COMMIT may have rolled back by itself.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    return row


def _check_whole(database: sqlite3.Connection, path: Path) -> None:
    """Finds damage now rather than in the middle of a job: a page that can't be read, or rows out of
    order."""
    found = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise damaged(path, " ".join(found.split()))


def _migrate(database: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version == len(migrations):
        return
    for step in migrations[version:]:
        step(database)
        if not database.in_transaction:
            raise InvariantBroken(f"the migration {step.__name__} committed half-way")
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {len(migrations)}")


def _take_row(database: sqlite3.Connection, path: Path, machine: Machine) -> StoreRow:
    present = observe_origin(path, machine)
    fresh_id = os.urandom(STORE_ID_BYTES)
    found = database.execute("SELECT value FROM store WHERE key = 'self'").fetchone()
    try:
        held = None if found is None else cbor.decode(bytes(found[0]), StoreRow, bytes_max=_ROW_BYTES_MAX)
    except PeerFault as error:
        raise damaged(path, f"what it says about itself can't be read ({error.what})") from error
    if held is None:
        row = StoreRow(store_id=fresh_id, origin=present)
    else:
        row = succeed(held, present, fresh_id=fresh_id, now_unix_s=int(time.time()))
    if row != held:
        database.execute("INSERT OR REPLACE INTO store VALUES ('self', ?)", (cbor.encode(row),))
    return row


def _connect_readonly(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The journal's format versions. Each entry brings a database from the version before to its own.

A migration runs in one transaction with the change of version, so a crash leaves the old format whole. Entries are
never edited once released; a new format appends one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

Migration = Callable[[sqlite3.Connection], None]


def _to_1(database: sqlite3.Connection) -> None:
    """One table per kind of row: a text key, and canonical CBOR that its owner in core defines."""
    for table in ("meta", "records", "certificates", "seeds", "jobs", "tasks", "results", "grants"):
        database.execute(f"CREATE TABLE {table} (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")


MIGRATIONS: Sequence[Migration] = (_to_1,)
"""``MIGRATIONS[n]`` leads from format n to format n + 1."""

"""The journal's format versions. Each entry brings a database from the version before to its own.

All pending entries run in one transaction together with the change of version, so a crash leaves the old
format whole. Entries are never edited once released; a new format appends one, and says in its docstring what
changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

Migration = Callable[[sqlite3.Connection], None]
"""Changes the schema by ``execute`` alone: ``executescript`` would commit half-way."""


def _to_1(database: sqlite3.Connection) -> None:
    """One table per kind of row: a text key, and canonical CBOR that its owner in core defines.

    ``store`` is the journal's own: who it is and where it was made, out of reach of what core writes.
    """
    for table in ("meta", "records", "certificates", "seeds", "jobs", "tasks", "results", "grants", "store"):
        database.execute(f"CREATE TABLE {table} (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")


def _to_2(database: sqlite3.Connection) -> None:
    """A table for what this node keeps of jobs as one of their replicas."""
    database.execute("CREATE TABLE replicas (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")


MIGRATIONS: Sequence[Migration] = (_to_1, _to_2)
"""``MIGRATIONS[n]`` leads from format n to format n + 1; format 0 is an empty file."""

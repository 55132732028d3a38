"""What SQLite and the file system say, translated once into what is wrong and what to do about it."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from meshpeer.core.errors import StoreFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def journal_fault(path: Path, error: Exception) -> StoreFailed:
    """Says what a failure of the journal at ``path`` means; SQLite's result codes:
    sqlite.org/rescode.html."""
    match primary_code(error):
        case sqlite3.SQLITE_FULL:
            return disk_full(path)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, str(error))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StoreFailed(
                f"the journal {path} can't be written: {error}",
                "run as the owner of the state folder, or name another with --state-dir",
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreFailed(f"another program holds the journal {path} locked", f"fuser {path} names it")
    if isinstance(error, OSError):
        return folder_fault(path, error)
    return StoreFailed(f"the journal {path} failed: {error}", "is the disk healthy? (dmesg)")


def folder_fault(path: Path, error: OSError) -> StoreFailed:
    """Says what a failed write of a file at ``path`` means."""
    if error.errno in _FULL:
        return disk_full(path)
    if error.errno in _DENIED:
        return StoreFailed(
            f"{path} can't be written: {error.strerror}",
            "run as the owner of the state folder, or name another with --state-dir",
        )
    return StoreFailed(f"{path} can't be written: {error.strerror or error}", "is the disk healthy? (dmesg)")


def disk_full(path: Path) -> StoreFailed:
    return StoreFailed(
        f"the disk under {path} is full",
        f"free some space (df -h {path.parent}), then start again; nothing that was acknowledged is lost",
    )


def damaged(path: Path, why: str) -> StoreFailed:
    return StoreFailed(
        f"the journal {path} is damaged: {why}",
        "restore the state folder from a backup, or move it away and join anew with an invite",
    )


def primary_code(error: Exception) -> int | None:
    """Returns SQLite's primary result code (the low byte of the extended one), None for other exceptions."""
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    return None if code is None else code & 0xFF

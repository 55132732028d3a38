"""The journal (SQLite), the blobs (files by SHA-256) and the lock on both. Touches the state folder only."""

from meshpeer.adapters.store.blobs import FileBlobs, open_blobs
from meshpeer.adapters.store.lock import StateLock, lock_state
from meshpeer.adapters.store.origin import CopiedFrom, Machine
from meshpeer.adapters.store.sqlite import FORMAT_VERSION, SqliteStore, open_store

__all__ = [
    "FORMAT_VERSION",
    "CopiedFrom",
    "FileBlobs",
    "Machine",
    "SqliteStore",
    "StateLock",
    "lock_state",
    "open_blobs",
    "open_store",
]

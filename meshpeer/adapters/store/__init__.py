"""The journal (SQLite) and the blobs (files by SHA-256). Touches the state folder only."""

from meshpeer.adapters.store.blobs import FileBlobs, open_blobs
from meshpeer.adapters.store.lock import StateLock, lock_state
from meshpeer.adapters.store.sqlite import FORMAT_VERSION, SqliteStore, open_store

__all__ = ["FORMAT_VERSION", "FileBlobs", "SqliteStore", "StateLock", "lock_state", "open_blobs", "open_store"]

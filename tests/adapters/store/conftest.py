"""Fixtures that give each contract test the real adapter and the one in memory, in turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pytest
import trio

from meshpeer.adapters.store import open_blobs, open_store
from meshpeer.core.effects import Put, Table
from meshpeer.core.ids import Digest, Ticket
from meshpeer.runtime.ports import Blobs, CommitFailed, Committed, Store
from meshpeer.sim.store import MemoryBlobs, MemoryDisk, open_memory_store

OpenStore = Callable[[], contextlib.AbstractAsyncContextManager[Store]]


class BlobsWithRoom(Blobs, Protocol):
    """What both implementations offer beyond the port."""

    async def remove(self, digest: Digest) -> bool: ...

    async def total_bytes(self) -> int: ...


@pytest.fixture(params=["sqlite", "memory"])
def open_journal(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens one and the same journal each time it is called."""
    if request.param == "sqlite":
        return lambda: open_store(tmp_path / "state.db")
    disk = MemoryDisk()
    return lambda: open_memory_store(disk)


@pytest.fixture(params=["files", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobsWithRoom:
    folder = tmp_path / "blobs"
    if request.param == "files":
        return open_blobs(folder)
    folder.mkdir()
    return MemoryBlobs(folder)


@pytest.fixture
def put() -> Callable[..., Put]:
    def make(key: str, value: bytes = b"v", table: Table = Table.TASKS) -> Put:
        return Put(table=table, key=key, value=value)

    return make


@pytest.fixture
def outcome_of() -> Callable[..., object]:
    """Waits until all the tickets were reported, and returns the outcomes in order."""

    async def wait(store: Store, tickets: Sequence[Ticket | int]) -> list[Committed | CommitFailed]:
        missing, outcomes = set(tickets), list[Committed | CommitFailed]()
        with trio.fail_after(30):
            while missing:
                outcome = await store.outcomes.receive()
                missing -= set(outcome.tickets)
                outcomes.append(outcome)
        return outcomes

    return wait

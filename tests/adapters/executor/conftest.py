"""A place to run attempts in, and blobs kept in memory.

As root each slot gets a user of its own; ``test_executor_without_root.py`` runs this folder again as
somebody else.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio

from meshpeer.adapters.executor import ProcessExecutor, open_executor
from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import Digest
from meshpeer.runtime.ports import AttemptPlan, BlobRef, BlobWriter, Limits, StagedFile

ROOT = os.geteuid() == 0
NO_LIMITS = Limits()
collect_ignore = [] if ROOT else ["test_executor_users.py", "test_executor_without_root.py"]


class MemoryBlobs:
    """Implements ``runtime.ports.Blobs`` but for receiving."""

    def __init__(self) -> None:
        self.content: dict[Digest, bytes] = {}

    def path(self, digest: Digest) -> Path | None:
        return None

    async def add_bytes(self, data: bytes) -> BlobRef:
        digest = Digest(hashlib.sha256(data).digest())
        self.content[digest] = data
        return BlobRef(digest=digest, size=len(data))

    async def add_file(self, source: Path) -> BlobRef:
        return await self.add_bytes(await trio.to_thread.run_sync(source.read_bytes))

    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        if digest not in self.content:
            raise LocalFault("no such blob")
        return self.content[digest][offset : offset + length]

    def receive(self, ref: BlobRef) -> contextlib.AbstractAsyncContextManager[BlobWriter]:
        raise LocalFault("nobody sends here")

    def text(self, ref: BlobRef) -> str:
        return self.content[ref.digest].decode()


class Plans:
    """Makes plans with keys of their own, and input files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def __call__(
        self,
        *argv: str,
        key: str = "",
        env: dict[str, str] | None = None,
        cwd: str = "",
        staged: tuple[StagedFile, ...] = (),
        outputs: tuple[str, ...] = (),
        timeout_s: float = 0,
        limits: Limits = NO_LIMITS,
        network: bool = True,
        secrets: dict[str, str] | None = None,
        report: str = "",
    ) -> AttemptPlan:
        return AttemptPlan(
            key=key or f"attempt-{next(self._numbers)}",
            argv=argv,
            env=tuple((env or {}).items()),
            cwd=cwd,
            staged=staged,
            outputs=outputs,
            timeout_s=timeout_s,
            limits=limits,
            network=network,
            secrets=tuple((secrets or {}).items()),
            report=report,
        )

    def shell(self, line: str, **rest: Any) -> AttemptPlan:
        return self("/bin/sh", "-c", line, **rest)

    def file(self, path: str, content: str, *, executable: bool = False) -> StagedFile:
        source = self._folder / f"blob-{next(self._numbers)}"
        source.write_text(content)
        return StagedFile(path=path, source=source, executable=executable)


class Until(Protocol):
    """Waits until a condition of the world holds, and fails after a bound."""

    async def __call__(self, condition: Callable[[], bool], within_s: float = 20.0) -> None: ...


OpenExecutor = Callable[..., contextlib.AbstractAsyncContextManager[ProcessExecutor]]


@pytest.fixture
def until() -> Until:
    async def wait(condition: Callable[[], bool], within_s: float = 20.0) -> None:
        with trio.fail_after(within_s):
            while not condition():  # noqa: ASYNC110 - other processes set no events
                await trio.sleep(0.005)

    return wait


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def plans(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


@pytest.fixture
def uids() -> range:
    """Users that belong to this test process alone: an executor kills whatever else runs as one."""
    first = 1_000_000 + os.getpid() * 8
    return range(first, first + 8)


@pytest.fixture
def scratch_root() -> Iterator[Path]:
    """A folder that other users can pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="meshpeer-executor-"))
    folder.chmod(0o711)
    yield folder / "scratch"
    leftovers = [str(path) for path in (folder / "scratch").rglob("*")]
    shutil.rmtree(folder)
    assert leftovers == []


@pytest.fixture
def open_processes(scratch_root: Path, blobs: MemoryBlobs, uids: range) -> OpenExecutor:
    """Opens the real executor as this machine allows."""

    def open_it(
        *, slots: int = 2, grace_s: float = 5.0, **rest: Any
    ) -> contextlib.AbstractAsyncContextManager[ProcessExecutor]:
        users = uids if ROOT else None
        return open_executor(
            slots=slots, scratch_root=scratch_root, blobs=blobs, uids=users, grace_s=grace_s, **rest
        )

    return open_it


@pytest.fixture
async def executor(open_processes: OpenExecutor) -> object:
    """The real executor, two slots."""
    async with open_processes() as opened:
        yield opened

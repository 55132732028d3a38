"""What is true of blobs as files only: nothing half-written has a name, and nothing stays behind."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import trio

from meshpeer.adapters.store import drafts, open_blobs
from meshpeer.core.errors import EnvironmentFault, InvariantBroken, LocalFault, PeerFault, StoreFailed
from meshpeer.core.ids import Digest
from meshpeer.core.wire.limits import DOCUMENT_BYTES_MAX
from meshpeer.runtime.ports import BlobRef

EMPTY = Digest(hashlib.sha256(b"").digest())


async def test_blobs_are_there_after_reopening(tmp_path: Path) -> None:
    ref = await open_blobs(tmp_path).add_bytes(b"hello")
    assert await open_blobs(tmp_path).read(ref.digest, 0, 10) == b"hello"


async def test_what_a_crash_left_half_written_is_dropped_on_opening(tmp_path: Path) -> None:
    open_blobs(tmp_path)
    (tmp_path / "incoming" / "7").write_bytes(b"half a bl")
    blobs = open_blobs(tmp_path)
    assert _incoming(tmp_path) == []
    assert await blobs.total_bytes() == 0


async def test_a_blob_cant_be_changed_or_read_by_others(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path)
    ref = await blobs.add_bytes(b"hello")
    place = blobs.place(ref.digest)
    assert stat.S_IMODE(place.stat().st_mode) == 0o400
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.parent.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("way", ["bytes", "file", "receive"])
async def test_content_is_synced_before_it_has_its_name_and_the_name_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    blobs = open_blobs(tmp_path / "blobs")
    source = tmp_path / "source"
    source.write_bytes(b"hello")
    steps = _watch(monkeypatch)
    if way == "bytes":
        await blobs.add_bytes(b"hello")
    elif way == "file":
        await blobs.add_file(source)
    else:
        async with blobs.receive(_ref(b"hello")) as writer:
            await writer.write(b"hello")
            await writer.finish()
    place = blobs.place(_ref(b"hello").digest)
    assert steps == ["sync incoming/0", f"name {place.name}", f"sync {place.parent.name}"]


async def test_the_empty_blob_and_one_that_is_here_cost_no_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blobs(tmp_path)
    await blobs.add_bytes(b"hello")
    steps = _watch(monkeypatch)
    await blobs.add_bytes(b"")
    await blobs.add_bytes(b"hello")
    open_blobs(tmp_path)
    assert steps == []


async def test_adding_again_what_is_being_added_waits_for_a_sync_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the second caller would be told of a name that a power cut may still take away."""
    blobs = open_blobs(tmp_path)
    real, calls = os.fsync, list[int]()

    def fail_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(StoreFailed):
        await blobs.add_bytes(b"hello")
    assert blobs.path(_ref(b"hello").digest) is not None
    assert await blobs.add_bytes(b"hello") == _ref(b"hello")
    assert len(calls) == 2


@pytest.mark.parametrize("call", ["write", "fdatasync", "rename"])
async def test_a_disk_that_fails_leaves_no_name_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    blobs = open_blobs(tmp_path)

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        with pytest.raises(StoreFailed, match="is full"):
            await blobs.add_bytes(b"hello")
        async with blobs.receive(_ref(b"there")) as writer:
            await writer.write(b"there")
            with pytest.raises(StoreFailed, match="is full"):
                await writer.finish()
    assert _incoming(tmp_path) == []
    assert await blobs.total_bytes() == 0
    assert await blobs.add_bytes(b"hello") == _ref(b"hello")


async def test_drafts_go_when_a_transfer_is_cancelled_or_wrong(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path)
    with trio.CancelScope() as scope:
        async with blobs.receive(_ref(b"hello")) as writer:
            await writer.write(b"hel")
            assert len(_incoming(tmp_path)) == 1
            scope.cancel()
            await writer.write(b"lo")
    assert _incoming(tmp_path) == []


async def test_a_large_transfer_keeps_little_in_memory(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path)
    piece = os.urandom(56 * 1024)
    data = piece * 100
    async with blobs.receive(_ref(data)) as writer:
        for _ in range(100):
            await writer.write(piece)
        (draft,) = (tmp_path / "incoming").iterdir()
        assert draft.stat().st_size >= len(data) - 1024 * 1024
        await writer.finish()


async def test_a_cut_transfer_is_gone_on_with_after_a_restart_and_without_hashing_anew_before_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3_000_000)
    blobs = open_blobs(tmp_path)
    async with blobs.receive(_ref(data), resume=True) as writer:
        await writer.write(data[:1_000_001])
    with monkeypatch.context() as guarded:
        guarded.setattr(drafts.Draft, "catch_up", lambda *_: pytest.fail("it was hashed already"))
        async with blobs.receive(_ref(data), resume=True) as writer:
            assert writer.received == 1_000_001
            await writer.write(data[1_000_001:2_000_000])
    again = open_blobs(tmp_path)
    async with again.receive(_ref(data), resume=True) as writer:
        assert writer.received == 2_000_000
        await writer.write(data[2_000_000:])
        await writer.finish()
    assert again.place(_ref(data).digest).read_bytes() == data
    assert _incoming(tmp_path) == []


async def test_a_part_that_a_crash_damaged_is_found_out_at_the_end_and_dropped(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    blobs = open_blobs(tmp_path)
    async with blobs.receive(_ref(data), resume=True) as writer:
        await writer.write(data[:50_000])
    (part,) = (tmp_path / "incoming").iterdir()
    part.write_bytes(bytes(50_000))
    again = open_blobs(tmp_path)
    async with again.receive(_ref(data), resume=True) as writer:
        await writer.write(data[50_000:])
        with pytest.raises(PeerFault):
            await writer.finish()
    assert _incoming(tmp_path) == []


async def test_a_part_of_last_month_is_dropped_on_opening(tmp_path: Path) -> None:
    async with open_blobs(tmp_path).receive(_ref(b"hello"), resume=True) as writer:
        await writer.write(b"hel")
    (part,) = (tmp_path / "incoming").iterdir()
    os.utime(part, (0, 0))
    open_blobs(tmp_path)
    assert _incoming(tmp_path) == []


async def test_the_last_of_the_disk_is_left_alone(tmp_path: Path) -> None:
    """The journal needs it: an agent that can't write that stops."""
    blobs = open_blobs(tmp_path, reserve_bytes=10**18)
    asked: list[int] = []

    async def make_room(size: int) -> None:
        asked.append(size)

    blobs.make_room = make_room
    large, ref = tmp_path / "large", BlobRef(digest=EMPTY, size=5 * 10**9)
    large.write_bytes(bytes(2_000_000))
    with pytest.raises(StoreFailed, match=r"a file of 5.0 GB is to come, and there is room for 0 bytes"):
        async with blobs.receive(ref, resume=True):
            pytest.fail("a writer was opened")
    with pytest.raises(StoreFailed, match=r"a file of 2.0 MB"):
        await blobs.add_file(large)
    assert asked == [5 * 10**9, 2_000_000]
    assert await blobs.add_bytes(b"a log") == _ref(b"a log")


async def test_what_is_dropped_has_no_name_at_once_and_is_gone_soon(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path)
    ref = await blobs.add_bytes(b"hello")
    async with blobs.receive(_ref(b"there"), resume=True) as writer:
        await writer.write(b"the")
        assert blobs.drop_soon(_ref(b"there").digest, partial=True) is None  # it is being received
    seen = {(one.digest, one.size, one.partial) for one in await blobs.survey() if one.size}
    assert seen == {(ref.digest, 5, False), (_ref(b"there").digest, 3, True)}
    for digest, partial in ((ref.digest, False), (_ref(b"there").digest, True)):
        gone = blobs.drop_soon(digest, partial=partial)
        assert gone is not None
        assert blobs.path(ref.digest) is None
        await blobs.unlink(gone)
    assert blobs.drop_soon(ref.digest) is None
    assert _incoming(tmp_path) == []


async def test_use_is_remembered(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path)
    ref = await blobs.add_bytes(b"hello")
    os.utime(blobs.place(ref.digest), (0, 0))
    blobs.used(ref.digest)
    blobs.used(_ref(b"absent").digest)
    (found,) = [one for one in await blobs.survey() if one.size]
    assert found.used_s > 0


async def test_many_tasks_may_add_one_content_at_once(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path)
    refs: list[BlobRef] = []

    async def add() -> None:
        refs.append(await blobs.add_bytes(b"the same"))

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(add)
    assert refs == [_ref(b"the same")] * 30
    assert await blobs.total_bytes() == 8
    assert _incoming(tmp_path) == []


async def test_an_open_file_is_added_from_its_start(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path / "blobs")
    (tmp_path / "source").write_bytes(b"hello")
    with (tmp_path / "source").open("rb") as file:
        file.seek(3)
        assert await blobs.add_open(file) == _ref(b"hello")
        assert await blobs.add_file(Path(f"/proc/self/fd/{file.fileno()}")) == _ref(b"hello")


async def test_a_file_that_grows_while_it_is_read_is_held_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blobs(tmp_path)
    monkeypatch.setattr(os, "pread", lambda _file, length, _offset: bytes(length))
    monkeypatch.setattr(drafts, "BLOB_BYTES_MAX", 4 * 1024**2)
    with (tmp_path / "endless").open("w+b") as file, pytest.raises(LocalFault, match="exceeds 4 MiB"):
        await blobs.add_open(file)
    assert _incoming(tmp_path) == []


async def test_bytes_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="64 MiB"):
        await open_blobs(tmp_path).add_bytes(bytes(DOCUMENT_BYTES_MAX + 1))


async def test_reading_is_whole_where_the_page_cache_holds_only_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blobs(tmp_path)
    ref = await blobs.add_bytes(b"hello")
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, at, flags: min(2, real(file, buffers, at, flags)))
    assert await blobs.read(ref.digest, 0, 5) == b"hello"

    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "preadv", refuse)
    assert await blobs.read(ref.digest, 1, 3) == b"ell"


async def test_finishing_twice_is_a_bug(tmp_path: Path) -> None:
    async with open_blobs(tmp_path).receive(_ref(b"x")) as writer:
        await writer.write(b"x")
        await writer.finish()
        with pytest.raises(InvariantBroken):
            await writer.finish()


async def test_a_folder_that_cant_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="file"):
        open_blobs(tmp_path / "file")


def test_killed_at_any_step_a_blob_is_whole_or_absent(tmp_path: Path) -> None:
    """Steps are counted in a child process, which ends itself at the one it is told."""
    for step in range(1, 100):
        folder = tmp_path / str(step)
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(folder), str(step)], capture_output=True, check=False
        )
        added = child.stdout.decode().split()
        blobs = open_blobs(folder)
        for index in range(3):
            data = b"%d" % index * 1_000
            path = blobs.path(_ref(data).digest)
            assert path is not None or str(index) not in added
            assert path is None or path.read_bytes() == data
        assert _incoming(folder) == []
        if child.returncode == 0:
            assert added == ["0", "1", "2"]
            break
        assert child.returncode == -9, child.stderr.decode()
    else:
        pytest.fail("the child never came to its end")
    assert step > 9


CHILD = """
import os, signal, sys, trio
from pathlib import Path
from meshpeer.adapters.store import drafts, open_blobs

left = int(sys.argv[2])

def counted(name):
    real = getattr(os, name)
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(os, name, call)

async def main():
    blobs = open_blobs(Path(sys.argv[1]))
    for name in ("write", "fdatasync", "fsync", "rename", "unlink"):
        counted(name)
    for index in range(3):
        await blobs.add_bytes(b"%d" % index * 1_000)
        print(index, flush=True)

trio.run(main)
"""


def _watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records syncs and renames while they happen as ever."""
    steps: list[str] = []
    fsync, fdatasync, rename = os.fsync, os.fdatasync, os.rename

    def name_of(descriptor: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return f"incoming/{path.name}" if path.parent.name == "incoming" else path.name

    def watch_fsync(descriptor: int) -> None:
        steps.append(f"sync {name_of(descriptor)}")
        fsync(descriptor)

    def watch_fdatasync(descriptor: int) -> None:
        steps.append(f"sync {name_of(descriptor)}")
        fdatasync(descriptor)

    def watch_rename(source: Path, target: Path) -> None:
        steps.append(f"name {target.name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "fdatasync", watch_fdatasync)
    monkeypatch.setattr(os, "rename", watch_rename)
    return steps


async def test_what_a_full_disk_cut_off_in_mid_write_goes_on_from_what_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(500_000)
    ref = BlobRef(digest=Digest(hashlib.sha256(data).digest()), size=len(data))
    blobs = open_blobs(tmp_path)
    write, room = os.write, [100_000]

    def written(file: int, view: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(file, view[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(drafts.os, "write", written)

    async def fills_the_disk() -> None:
        async with blobs.receive(ref, resume=True) as writer:
            await writer.write(data)
            await writer.finish()

    with pytest.raises(StoreFailed):
        await fills_the_disk()
    monkeypatch.undo()
    async with blobs.receive(ref, resume=True) as writer:
        assert writer.received == 100_000
        await writer.write(data[writer.received :])
        await writer.finish()
    assert blobs.place(ref.digest).read_bytes() == data


def _incoming(folder: Path) -> list[str]:
    return sorted(one.name for one in (folder / "incoming").iterdir())


def _ref(data: bytes) -> BlobRef:
    return BlobRef(digest=Digest(hashlib.sha256(data).digest()), size=len(data))

"""What every ``Blobs`` does, as files and in memory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import EnvironmentFault, LocalFault, PeerFault
from meshpeer.core.ids import Digest
from meshpeer.core.wire.limits import BLOB_BYTES_MAX
from meshpeer.runtime.ports import BlobRef, Blobs

EMPTY = Digest(hashlib.sha256(b"").digest())


class BlobsWithRoom(Blobs, Protocol):
    async def remove(self, digest: Digest) -> bool: ...

    async def total_bytes(self) -> int: ...


async def test_a_blob_is_named_by_its_sha256(blobs: BlobsWithRoom) -> None:
    assert await blobs.add_bytes(b"hello") == _ref(b"hello")


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_what_was_added_is_read_back(blobs: BlobsWithRoom, tmp_path: Path, size: int) -> None:
    data = _noise(size)
    source = tmp_path / "source"
    source.write_bytes(data)
    for ref in (await blobs.add_bytes(data), await blobs.add_file(source)):
        assert ref == _ref(data)
        assert await blobs.read(ref.digest, 0, size + 10) == data
        path = blobs.path(ref.digest)
        assert path is not None
        assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 3, b"hel"), (3, 100, b"lo"), (5, 1, b""), (9, 9, b""), (2, 0, b"")],
)
async def test_reading_gives_the_piece_asked_for(
    blobs: BlobsWithRoom, offset: int, length: int, expected: bytes
) -> None:
    ref = await blobs.add_bytes(b"hello")
    assert await blobs.read(ref.digest, offset, length) == expected


async def test_adding_twice_is_adding_once(blobs: BlobsWithRoom) -> None:
    assert await blobs.add_bytes(b"hello") == await blobs.add_bytes(b"hello")
    assert await blobs.total_bytes() == 5


async def test_the_empty_blob_is_always_there(blobs: BlobsWithRoom) -> None:
    path = blobs.path(EMPTY)
    assert path is not None
    assert path.read_bytes() == b""
    assert await blobs.read(EMPTY, 0, 10) == b""
    assert not await blobs.remove(EMPTY)
    assert blobs.path(EMPTY) is not None


async def test_an_absent_blob_has_no_path_and_reading_it_is_the_callers_fault(blobs: BlobsWithRoom) -> None:
    absent = _ref(b"nobody added this").digest
    assert blobs.path(absent) is None
    with pytest.raises(LocalFault, match="not here"):
        await blobs.read(absent, 0, 1)


async def test_a_removed_blob_is_absent_and_may_come_again(blobs: BlobsWithRoom) -> None:
    ref = await blobs.add_bytes(b"hello")
    assert await blobs.remove(ref.digest)
    assert not await blobs.remove(ref.digest)
    assert blobs.path(ref.digest) is None
    assert await blobs.total_bytes() == 0
    assert await blobs.add_bytes(b"hello") == ref
    assert await blobs.read(ref.digest, 0, 5) == b"hello"


async def test_the_total_counts_each_blob_once(blobs: BlobsWithRoom) -> None:
    for data in (b"", b"1", b"22", b"333", b"22"):
        await blobs.add_bytes(data)
    assert await blobs.total_bytes() == 6


# --- receiving --------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 700_000), max_size=6), salt=st.integers(0, 10**9))
async def test_a_received_blob_is_whole_however_it_was_cut(
    blobs: BlobsWithRoom, sizes: list[int], salt: int
) -> None:
    data = _noise(sum(sizes), salt)
    async with blobs.receive(_ref(data)) as writer:
        at = 0
        for size in sizes:
            await writer.write(data[at : at + size])
            at += size
            assert writer.received == at
            if data:
                assert blobs.path(_ref(data).digest) is None
        assert await writer.finish() == _ref(data)
    assert await blobs.read(_ref(data).digest, 0, len(data)) == data


async def test_a_received_blob_that_is_here_already_stays_as_it_is(blobs: BlobsWithRoom) -> None:
    ref = await blobs.add_bytes(b"hello")
    async with blobs.receive(ref) as writer:
        await writer.write(b"hello")
        await writer.finish()
    assert await blobs.read(ref.digest, 0, 5) == b"hello"


async def test_more_than_was_announced_is_refused_at_once(blobs: BlobsWithRoom) -> None:
    async with blobs.receive(_ref(b"hello")) as writer:
        await writer.write(b"hell")
        with pytest.raises(PeerFault, match="longer"):
            await writer.write(b"oo")
    assert blobs.path(_ref(b"hello").digest) is None


@pytest.mark.parametrize("came", [b"hell", b"HELLO", b""])
async def test_other_content_than_was_announced_is_refused(blobs: BlobsWithRoom, came: bytes) -> None:
    async with blobs.receive(_ref(b"hello")) as writer:
        await writer.write(came)
        with pytest.raises(PeerFault):
            await writer.finish()
    assert blobs.path(_ref(b"hello").digest) is None
    assert await blobs.total_bytes() == 0


async def test_leaving_without_finish_keeps_nothing(blobs: BlobsWithRoom) -> None:
    async with blobs.receive(_ref(b"hello")) as writer:
        await writer.write(b"hello")
    assert blobs.path(_ref(b"hello").digest) is None


@pytest.mark.parametrize("size", [-1, BLOB_BYTES_MAX + 1])
async def test_an_announced_size_beyond_the_limits_is_refused(blobs: BlobsWithRoom, size: int) -> None:
    with pytest.raises(PeerFault, match="announced"):
        async with blobs.receive(BlobRef(digest=EMPTY, size=size)):
            pytest.fail("a writer was opened")


async def test_what_came_is_gone_on_with(blobs: BlobsWithRoom) -> None:
    data = _noise(3_000_000)
    for first, last in ((0, 1_500_001), (1_500_001, 1_500_001), (1_500_001, 2_000_000)):
        async with blobs.receive(_ref(data), resume=True) as writer:
            assert writer.received == first
            await writer.write(data[first:last])
    assert blobs.path(_ref(data).digest) is None
    async with blobs.receive(_ref(data), resume=True) as writer:
        await writer.write(data[2_000_000:])
        await writer.finish()
    assert await blobs.read(_ref(data).digest, 0, len(data)) == data
    assert await blobs.remove(_ref(data).digest)
    async with blobs.receive(_ref(data), resume=True) as writer:
        assert writer.received == 0


async def test_an_upload_begins_at_its_start_although_a_transfer_was_cut(blobs: BlobsWithRoom) -> None:
    async with blobs.receive(_ref(b"hello"), resume=True) as writer:
        await writer.write(b"hel")
    async with blobs.receive(_ref(b"hello")) as writer:
        assert writer.received == 0
        await writer.write(b"hello")
        await writer.finish()
    assert await blobs.read(_ref(b"hello").digest, 0, 5) == b"hello"


@pytest.mark.parametrize("came", ["HELLO", "hello!"])
async def test_what_was_wrong_is_not_gone_on_with(blobs: BlobsWithRoom, came: str) -> None:
    async with blobs.receive(_ref(b"hello"), resume=True) as writer:
        with pytest.raises(PeerFault):  # noqa: PT012 - one of the two
            await writer.write(came.encode())
            await writer.finish()
    async with blobs.receive(_ref(b"hello"), resume=True) as writer:
        assert writer.received == 0
        await writer.write(b"hello")
        await writer.finish()


# --- files that can't be added ----------------------------------------------------------------------------


async def test_a_file_that_is_absent_is_named(blobs: BlobsWithRoom, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="nowhere"):
        await blobs.add_file(tmp_path / "nowhere")


async def test_a_folder_is_refused(blobs: BlobsWithRoom, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(LocalFault, match="regular"):
        await blobs.add_file(tmp_path / "folder")


async def test_a_pipe_is_refused_rather_than_waited_for(blobs: BlobsWithRoom, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LocalFault, match="regular"):
        await blobs.add_file(tmp_path / "pipe")


async def test_a_file_beyond_the_limit_is_refused_by_its_size(blobs: BlobsWithRoom, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.touch()
    os.truncate(source, BLOB_BYTES_MAX + 1)
    with pytest.raises(LocalFault, match="1 TiB"):
        await blobs.add_file(source)
    assert await blobs.total_bytes() == 0


def _ref(data: bytes) -> BlobRef:
    return BlobRef(digest=Digest(hashlib.sha256(data).digest()), size=len(data))


def _noise(size: int, salt: int = 0) -> bytes:
    return hashlib.shake_128(b"%d" % salt).digest(size)

"""Blobs between two agents over one link in memory: windows, refusals, and what a broken link leaves."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from meshpeer.core.errors import EnvironmentFault, PeerFault
from meshpeer.core.ids import Digest, LinkId, NodeId
from meshpeer.core.jobs.windows import FIRST_PIECES, MAX_PIECES
from meshpeer.core.wire.limits import BLOB_BYTES_MAX, BLOB_CHUNK_BYTES
from meshpeer.runtime.exchange import (
    CODEC,
    SERVING_MAX,
    STALL_S,
    BlobAsk,
    BlobPiece,
    Exchange,
)
from meshpeer.runtime.ports import BlobRef, LinkOver
from meshpeer.sim.store import MemoryBlobs

HERE, THERE = NodeId(b"h" * 32), NodeId(b"t" * 32)
LINK = LinkId(1)
WINDOW_BYTES = FIRST_PIECES * BLOB_CHUNK_BYTES


@pytest.mark.parametrize(
    ("size", "windows"),
    [
        (0, 0),
        (1, 1),
        (BLOB_CHUNK_BYTES, 1),
        (BLOB_CHUNK_BYTES + 1, 1),
        (WINDOW_BYTES - 1, 1),
        (WINDOW_BYTES, 1),
        (WINDOW_BYTES + 1, 2),
        (3 * WINDOW_BYTES + 7, 3),
    ],
)
async def test_blob_comes_whole_in_windows(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, size: int, windows: int
) -> None:
    async with linked(tmp_path) as (here, there):
        ref = await there.blobs.add_bytes(content(size))
        await here.exchange.fetch(ref, THERE)
        assert await here.blobs.read(ref.digest, 0, size) == content(size)
        asks = [frame for frame in here.end.sent if isinstance(frame, BlobAsk)]
        # In no time at all: the second window is twice the first.
        assert [ask.offset for ask in asks] == [0, WINDOW_BYTES, 3 * WINDOW_BYTES][:windows]


async def test_blob_that_is_here_is_not_asked_for(tmp_path: Path) -> None:
    async with linked(tmp_path) as (here, _):
        ref = await here.blobs.add_bytes(b"mine")
        await here.exchange.fetch(ref, THERE)
        assert here.end.sent == []


async def test_two_that_need_one_blob_share_one_transfer(tmp_path: Path) -> None:
    async with linked(tmp_path) as (here, there):
        ref = await there.blobs.add_bytes(content(WINDOW_BYTES))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(here.exchange.fetch, ref, THERE)
        assert len(here.end.sent) == 1


@pytest.mark.parametrize("let_in", [True, False], ids=["let in", "refused"])
async def test_nobody_is_served_before_it_was_let_in(tmp_path: Path, let_in: bool) -> None:
    """TLS is passed by whoever once had a certificate; a revoked node knows digests, too."""
    greeted = False
    async with trio.open_nursery() as nursery:
        blobs = MemoryBlobs(tmp_path)
        exchange = Exchange(blobs, nursery, lambda node: LINK, let_in=lambda link: greeted)
        end = MemoryEnd(THERE)
        exchange.attach(LINK, end)
        ref = await blobs.add_bytes(b"a job's file")
        exchange.on_frame(LINK, CODEC.encode(BlobAsk(number=1, digest=ref.digest, offset=0, pieces=1)))
        await trio.testing.wait_all_tasks_blocked()
        assert end.sent == []
        if let_in:
            greeted = True
        else:
            exchange.detach(LINK)
    assert [one.data for one in end.sent if isinstance(one, BlobPiece)] == (
        [b"a job's file"] if let_in else []
    )


async def test_second_that_waits_tries_itself_when_the_first_fails(tmp_path: Path) -> None:
    async with linked(tmp_path, mute=True) as (here, there), trio.open_nursery() as nursery:
        ref = await there.blobs.add_bytes(content(10))
        nursery.start_soon(expect_fault, here, ref, EnvironmentFault, "has it no more")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(here.exchange.fetch, ref, THERE)
        await trio.testing.wait_all_tasks_blocked()
        assert len(here.end.sent) == 1
        here.end.mute = False
        here.hear(BlobPiece(number=1, offset=0, data=b"", missing=True))
        await trio.testing.wait_all_tasks_blocked()
        assert here.blobs.path(ref.digest) is not None


async def test_several_blobs_come_side_by_side(tmp_path: Path) -> None:
    async with linked(tmp_path) as (here, there):
        refs = [
            await there.blobs.add_bytes(content(size)) for size in (10, WINDOW_BYTES + 5, BLOB_CHUNK_BYTES)
        ]
        async with trio.open_nursery() as nursery:
            for ref in refs:
                nursery.start_soon(here.exchange.fetch, ref, THERE)
        assert all(here.blobs.path(ref.digest) for ref in refs)


async def test_holder_without_the_blob_says_so(tmp_path: Path) -> None:
    async with linked(tmp_path) as (here, _):
        with pytest.raises(EnvironmentFault, match="has it no more"):
            await here.exchange.fetch(ref_of(b"gone"), THERE)


async def test_announced_size_beyond_the_limit_is_not_asked_for(tmp_path: Path) -> None:
    async with linked(tmp_path) as (here, _):
        with pytest.raises(PeerFault, match="exceeds"):
            await here.exchange.fetch(BlobRef(digest=Digest(bytes(32)), size=BLOB_BYTES_MAX + 1), THERE)
        assert here.end.sent == []


async def test_file_shorter_than_announced_is_found_out_without_waiting(tmp_path: Path) -> None:
    async with linked(tmp_path) as (here, there):
        held = await there.blobs.add_bytes(content(100))
        with pytest.raises(EnvironmentFault, match="has it no more"):
            await here.exchange.fetch(BlobRef(digest=held.digest, size=101), THERE)
        assert here.blobs.path(held.digest) is None


async def test_file_longer_than_announced_is_refused(tmp_path: Path) -> None:
    async with linked(tmp_path) as (here, there):
        held = await there.blobs.add_bytes(content(100))
        with pytest.raises(PeerFault, match="longer than was announced"):
            await here.exchange.fetch(BlobRef(digest=held.digest, size=99), THERE)


async def test_wrong_content_is_dropped_whole(tmp_path: Path) -> None:
    async with linked(tmp_path, mute=True) as (here, _):
        ref = ref_of(b"right")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_fault, here, ref, PeerFault, "does not have the content")
            await trio.testing.wait_all_tasks_blocked()
            here.hear(BlobPiece(number=1, offset=0, data=b"wrong"))
        assert here.blobs.path(ref.digest) is None


@pytest.mark.parametrize(("offset", "data"), [(1, b"right"), (0, b"")])
async def test_piece_out_of_order_ends_the_transfer(tmp_path: Path, offset: int, data: bytes) -> None:
    async with linked(tmp_path, mute=True) as (here, _), trio.open_nursery() as nursery:
        nursery.start_soon(expect_fault, here, ref_of(b"right"), PeerFault, "out of order")
        await trio.testing.wait_all_tasks_blocked()
        here.hear(BlobPiece(number=1, offset=offset, data=data))


async def test_pieces_that_nobody_asked_for_are_passed_over(tmp_path: Path) -> None:
    async with linked(tmp_path) as (here, _):
        here.hear(BlobPiece(number=77, offset=0, data=b"surprise"))


async def test_more_pieces_than_a_window_are_a_fault(tmp_path: Path) -> None:
    async with linked(tmp_path, mute=True) as (here, _), trio.open_nursery() as nursery:
        nursery.start_soon(expect_fault, here, ref_of(content(WINDOW_BYTES)), PeerFault, "out of order")
        await trio.testing.wait_all_tasks_blocked()
        piece = BlobPiece(number=1, offset=3, data=b"x")
        # One is handed over at once, a window waits.
        for _ in range(FIRST_PIECES + 1):
            here.hear(piece)
        with pytest.raises(PeerFault, match="more pieces than were asked for"):
            here.hear(piece)


async def test_transfer_that_was_cut_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with linked(tmp_path, mute=True) as (here, there):
        data = content(WINDOW_BYTES)
        ref = await there.blobs.add_bytes(data)
        noted: list[int] = []

        async def cut() -> None:
            with pytest.raises(EnvironmentFault, match="the link broke"):
                await here.exchange.fetch(ref, THERE, noted.append)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            await trio.testing.wait_all_tasks_blocked()
            for piece in range(3):
                at = piece * BLOB_CHUNK_BYTES
                here.hear(BlobPiece(number=1, offset=at, data=data[at : at + BLOB_CHUNK_BYTES]))
                await trio.testing.wait_all_tasks_blocked()
            here.exchange.detach(LINK)
        assert noted == [0, 3 * BLOB_CHUNK_BYTES]
        here.exchange.attach(LINK, here.end)
        here.end.mute = False
        await here.exchange.fetch(ref, THERE)
        assert await here.blobs.read(ref.digest, 0, len(data)) == data
        asks = [frame.offset for frame in here.end.sent if isinstance(frame, BlobAsk)]
        assert asks == [0, 3 * BLOB_CHUNK_BYTES]


async def test_of_one_holder_two_windows_are_under_way_and_small_files_get_their_turn(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with linked(tmp_path, mute=True) as (here, there), trio.open_nursery() as nursery:
        large = [await there.blobs.add_bytes(content(9 * WINDOW_BYTES + number)) for number in range(3)]
        small = await there.blobs.add_bytes(b"small")
        for ref in (*large, small):
            nursery.start_soon(here.exchange.fetch, ref, THERE)
            await trio.testing.wait_all_tasks_blocked()
        asked = [frame.digest for frame in here.end.sent if isinstance(frame, BlobAsk)]
        assert asked == [large[0].digest, large[1].digest]
        here.end.mute = False
        for ask in list(here.end.sent):
            assert isinstance(ask, BlobAsk)
            there.hear(ask)
        await trio.testing.wait_all_tasks_blocked()
        asked = [frame.digest for frame in here.end.sent if isinstance(frame, BlobAsk)]
        assert asked.index(small.digest) <= 3, "after a window of each large one"
        assert all(here.blobs.path(ref.digest) for ref in (*large, small))


async def test_holder_of_an_earlier_version_is_not_waited_for(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """It sends one window of 16 pieces, however many it is asked for, and does not say so."""
    async with linked(tmp_path, mute=True) as (here, _), trio.open_nursery() as nursery:
        data = content(4 * WINDOW_BYTES)
        nursery.start_soon(here.exchange.fetch, ref_of(data), THERE)
        for _ in range(4):
            await trio.testing.wait_all_tasks_blocked()
            ask = here.end.sent[-1]
            assert isinstance(ask, BlobAsk)
            for at in range(ask.offset, ask.offset + WINDOW_BYTES, BLOB_CHUNK_BYTES):
                piece = data[at : at + BLOB_CHUNK_BYTES]
                here.hear(BlobPiece(number=ask.number, offset=at, data=piece))
                await trio.testing.wait_all_tasks_blocked()
    assert here.blobs.path(ref_of(data).digest) is not None


async def test_link_that_breaks_in_mid_transfer_leaves_no_blob_behind(tmp_path: Path) -> None:
    async with linked(tmp_path, mute=True) as (here, _):
        data = content(WINDOW_BYTES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_fault, here, ref_of(data), EnvironmentFault, "the link broke")
            await trio.testing.wait_all_tasks_blocked()
            here.hear(BlobPiece(number=1, offset=0, data=data[:BLOB_CHUNK_BYTES]))
            await trio.testing.wait_all_tasks_blocked()
            here.exchange.detach(LINK)
        assert here.blobs.path(ref_of(data).digest) is None
        with pytest.raises(EnvironmentFault, match="no link"):
            await here.exchange.fetch(ref_of(data), THERE)


async def test_holder_that_stops_in_mid_transfer_is_given_up(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with linked(tmp_path, mute=True) as (here, _):
        began = trio.current_time()
        with pytest.raises(EnvironmentFault, match="no piece of a file came for 20 s"):
            await here.exchange.fetch(ref_of(b"right"), THERE)
        assert trio.current_time() - began == pytest.approx(STALL_S)


async def test_cancelled_fetch_lets_the_next_one_begin_anew(tmp_path: Path) -> None:
    async with linked(tmp_path, mute=True) as (here, there):
        ref = await there.blobs.add_bytes(content(10))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.exchange.fetch, ref, THERE)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        here.end.mute = False
        await here.exchange.fetch(ref, THERE)
        assert here.blobs.path(ref.digest) is not None


async def test_greedy_peer_is_at_fault(tmp_path: Path) -> None:
    async with linked(tmp_path) as (here, _):
        ref = await here.blobs.add_bytes(content(WINDOW_BYTES))
        ask = BlobAsk(number=1, digest=ref.digest, offset=0, pieces=FIRST_PIECES)
        for _ in range(SERVING_MAX):
            here.hear(ask)
        with pytest.raises(PeerFault, match="more than 8 blob requests at once"):
            here.hear(ask)
        await trio.testing.wait_all_tasks_blocked()
        here.hear(ask)


@pytest.mark.parametrize("pieces", [-1, 0, 1, 10**9])
async def test_no_ask_is_answered_with_more_than_a_window(tmp_path: Path, pieces: int) -> None:
    async with linked(tmp_path) as (here, _):
        ref = await here.blobs.add_bytes(content(5 * WINDOW_BYTES))
        here.hear(BlobAsk(number=9, digest=ref.digest, offset=5, pieces=pieces))
        await trio.testing.wait_all_tasks_blocked()
        answered = [frame for frame in here.end.sent if isinstance(frame, BlobPiece)]
        assert len(answered) == max(0, min(pieces, MAX_PIECES))
        assert (
            b"".join(one.data for one in answered)
            == content(5 * WINDOW_BYTES)[5:][: BLOB_CHUNK_BYTES * len(answered)]
        )


@pytest.mark.parametrize("offset", [-1, 2**63])
async def test_ask_from_beyond_the_ends_is_a_fault(tmp_path: Path, offset: int) -> None:
    async with linked(tmp_path) as (here, _):
        with pytest.raises(PeerFault, match="beyond its ends"):
            here.hear(BlobAsk(number=1, digest=Digest(bytes(32)), offset=offset, pieces=1))


@pytest.mark.parametrize("frame", [b"", b"\0", b"\1", b"\1rubbish", b"\1\xa1at"])
async def test_rubbish_is_a_fault_of_the_peer(tmp_path: Path, frame: bytes) -> None:
    async with linked(tmp_path) as (here, _):
        with pytest.raises(PeerFault):
            here.exchange.on_frame(LINK, frame)


async def test_ask_over_a_link_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    async with linked(tmp_path) as (here, _):
        ref = await here.blobs.add_bytes(b"data")
        here.exchange.detach(LINK)
        here.hear(BlobAsk(number=1, digest=ref.digest, offset=0, pieces=1))
        await trio.testing.wait_all_tasks_blocked()
        assert here.end.sent == []


# --- two agents and a link in memory ------------------------------------------------------------------------


@dataclass
class MemoryEnd:
    """One end of a link; implements what the exchange uses of ``runtime.ports.Link``."""

    peer: NodeId
    dialled: str = ""
    remote: str = "192.0.2.1:1"
    leaf: bytes = b""
    shown: bytes = b""
    carrier: NodeId | None = None
    mute: bool = False
    sent: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.out, self.other_in = trio.open_memory_channel[bytes](math.inf)
        self.broken = False

    def send_soon(self, frame: bytes) -> bool:
        raise AssertionError("the exchange sends no control frames")

    async def send_bulk(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise LinkOver("gone")
        self.sent.append(CODEC.decode(frame))
        if not self.mute:
            self.out.send_nowait(frame)

    async def receive(self) -> bytes:
        raise AssertionError("the link keeper reads")

    def close_soon(self, reason: str) -> None:
        self.broken = True


@dataclass
class Agent:
    blobs: MemoryBlobs
    end: MemoryEnd
    exchange: Exchange

    def hear(self, message: BlobAsk | BlobPiece) -> None:
        self.exchange.on_frame(LINK, CODEC.encode(message))


@contextlib.asynccontextmanager
async def linked(tmp_path: Path, *, mute: bool = False) -> AsyncIterator[tuple[Agent, Agent]]:
    """Two agents; with ``mute`` the second hears nothing of what is asked."""
    async with trio.open_nursery() as nursery:
        agents: list[Agent] = []
        for peer in (THERE, HERE):
            folder = tmp_path / peer[:1].decode()
            folder.mkdir()
            blobs = MemoryBlobs(folder)
            exchange = Exchange(blobs, nursery, lambda node, peer=peer: LINK if node == peer else None)  # type: ignore[misc]
            end = MemoryEnd(peer)
            exchange.attach(LINK, end)
            agents.append(Agent(blobs, end, exchange))
        here, there = agents
        here.end.mute = mute
        nursery.start_soon(pump, here, there)
        nursery.start_soon(pump, there, here)
        yield here, there
        here.end.mute = False
        nursery.cancel_scope.cancel()


async def pump(sender: Agent, receiver: Agent) -> None:
    async for frame in sender.end.other_in:
        receiver.exchange.on_frame(LINK, frame)


async def expect_fault(agent: Agent, ref: BlobRef, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        await agent.exchange.fetch(ref, THERE)


def content(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))


def ref_of(data: bytes) -> BlobRef:
    return BlobRef(digest=Digest(hashlib.sha256(data).digest()), size=len(data))

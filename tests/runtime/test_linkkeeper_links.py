"""The link keeper over a transport in memory: what happens on links becomes events, each end once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.membership.messages import CloseLink, Dial, DialFailed, LinkClosed, LinkOpened
from meshpeer.core.node.messages import BulkHeard, FrameReceived, SendFrame
from meshpeer.runtime.linkkeeper import ADDRESS_GONE, HEARD_EVERY_S, LinkKeeper
from meshpeer.runtime.ports import DialFault, Link, LinkOver

PEER, OTHER = NodeId(b"p" * 32), NodeId(b"o" * 32)
ADDRESS = "192.0.2.1:51821"


async def test_dialled_link_is_reported_read_and_ended() -> None:
    async with keeping() as it:
        it.keeper.dial(Dial(target=PEER, addresses=(ADDRESS,)))
        await settle()
        link = it.transport.links[0]
        link.inbox.send_nowait(b"\0one")
        link.inbox.send_nowait(b"\0two")
        await settle()
        link.inbox.close()
        await settle()
    assert it.posted == [
        opened(1, dialled=ADDRESS),
        FrameReceived(link=LinkId(1), frame=b"\0one"),
        FrameReceived(link=LinkId(1), frame=b"\0two"),
        LinkClosed(link=LinkId(1), reason="the connection ended"),
    ]
    assert it.bulk == ["attach 1", "detach 1"]


async def test_bulk_frames_are_signs_of_life_told_now_and_then(mock_clock: trio.testing.MockClock) -> None:
    async with keeping() as it:
        it.keeper.dial(Dial(target=PEER, addresses=(ADDRESS,)))
        await settle()
        for _ in range(3):
            for _ in range(20):
                it.transport.links[0].inbox.send_nowait(b"\1piece")
            await settle()
            mock_clock.jump(HEARD_EVERY_S)
    assert [one for one in it.posted if isinstance(one, BulkHeard)] == [BulkHeard(link=LinkId(1))] * 3


async def test_incoming_link_is_reported_with_a_number_of_its_own() -> None:
    async with keeping() as it:
        it.transport.arrive(MemoryLink(PEER))
        it.transport.arrive(MemoryLink(OTHER))
        await settle()
    links = {one.link: one.peer for one in it.posted if isinstance(one, LinkOpened)}
    assert sorted(links) == [1, 2]
    assert set(links.values()) == {PEER, OTHER}


async def test_frames_go_to_their_link_and_nowhere_once_it_is_gone() -> None:
    async with keeping() as it:
        it.keeper.dial(Dial(target=PEER, addresses=(ADDRESS,)))
        await settle()
        it.keeper.send(SendFrame(link=LinkId(1), frame=b"\0a"))
        it.keeper.send(SendFrame(link=LinkId(2), frame=b"\0b"))
        it.keeper.close(CloseLink(link=LinkId(1), reason="enough"))
        it.keeper.send(SendFrame(link=LinkId(1), frame=b"\0c"))
        it.keeper.close(CloseLink(link=LinkId(1), reason="again"))
        await settle()
        link = it.transport.links[0]
        assert (link.sent, link.closed) == ([b"\0a"], ["enough"])
    assert it.bulk[:2] == ["attach 1", "detach 1"]


async def test_dial_that_fails_says_why_and_status_can_tell() -> None:
    async with keeping() as it:
        it.transport.fault = DialFault("192.0.2.1:51821 refuses connections", "is it up?", refused=True)
        it.keeper.dial(Dial(target=PEER, addresses=(ADDRESS,)))
        await settle()
        assert it.keeper.dial_faults == {(ADDRESS,): it.transport.fault}
        it.transport.fault = None
        it.keeper.dial(Dial(target=PEER, addresses=(ADDRESS,)))
        await settle()
        assert it.keeper.dial_faults == {}
    assert it.posted[0] == DialFailed(
        target=PEER, addresses=(ADDRESS,), reason="192.0.2.1:51821 refuses connections", refused=True
    )


async def test_another_node_at_an_address_is_a_failed_dial_and_a_link_all_the_same() -> None:
    async with keeping() as it:
        it.keeper.dial(Dial(target=OTHER, addresses=(ADDRESS,)))
        await settle()
    reason = "another node answers at this address"
    assert it.posted[:2] == [
        DialFailed(target=OTHER, addresses=(ADDRESS,), reason=reason, refused=False),
        opened(1, dialled=ADDRESS),
    ]


async def test_bulk_frames_never_reach_the_node_and_rubbish_ends_the_link() -> None:
    async with keeping() as it:
        it.keeper.dial(Dial(target=None, addresses=(ADDRESS,)))
        await settle()
        it.transport.links[0].inbox.send_nowait(b"\1piece")
        it.transport.links[0].inbox.send_nowait(b"\1rubbish")
        await settle()
    ended = LinkClosed(link=LinkId(1), reason="rubbish", fault=True)
    assert it.posted == [opened(1, dialled=ADDRESS), BulkHeard(link=LinkId(1)), ended]
    assert it.bulk == ["attach 1", "piece", "detach 1"]


async def test_links_from_addresses_that_are_gone_end_at_once_and_are_told_once() -> None:
    async with keeping() as it:
        links = [MemoryLink(PEER, local=local) for local in ("192.0.2.7", "192.0.2.8", "")]
        for link in links:
            it.transport.arrive(link)
            await settle()
        it.keeper.keep_from(("192.0.2.8", "127.0.0.1"))
        closed = [LinkClosed(link=LinkId(1), reason=ADDRESS_GONE)]
        assert [one for one in it.posted if isinstance(one, LinkClosed)] == closed, "not later"
        await settle()
        assert [one for one in it.posted if isinstance(one, LinkClosed)] == closed
        assert [link.closed for link in links] == [[ADDRESS_GONE], [], []]


@pytest.mark.parametrize("count", [1, 5])
async def test_end_of_the_agent_ends_every_link(count: int) -> None:
    async with keeping() as it:
        for _ in range(count):
            it.keeper.dial(Dial(target=PEER, addresses=(ADDRESS,)))
        await settle()
    ends = [one for one in it.posted if isinstance(one, LinkClosed)]
    assert [one.reason for one in ends] == ["this agent stops"] * count
    assert sorted(one.link for one in ends) == list(range(1, count + 1))


# --- a transport in memory ----------------------------------------------------------------------------------


@dataclass
class MemoryLink:
    peer: NodeId
    dialled: str = ""
    remote: str = "192.0.2.1:40000"
    leaf: bytes = b"leaf"
    local: str = ""
    shown: bytes = b"shown"
    carrier: NodeId | None = None
    sent: list[bytes] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inbox, self._frames = trio.open_memory_channel[bytes](math.inf)

    def send_soon(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True

    async def send_bulk(self, frame: bytes) -> None:
        raise AssertionError("the exchange sends bulk")

    async def receive(self) -> bytes:
        try:
            return await self._frames.receive()
        except trio.EndOfChannel as error:
            raise LinkOver("the connection ended") from error

    def close_soon(self, reason: str) -> None:
        self.closed.append(reason)
        self.inbox.close()


class MemoryTransport:
    port = 51821

    def __init__(self) -> None:
        self.links: list[MemoryLink] = []
        self.fault: DialFault | None = None
        self._arrivals, self._arriving = trio.open_memory_channel[MemoryLink](math.inf)

    def arrive(self, link: MemoryLink) -> None:
        self._arrivals.send_nowait(link)

    @contextlib.asynccontextmanager
    async def dial(self, addresses: Sequence[str]) -> AsyncIterator[Link]:
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        self.links.append(MemoryLink(PEER, dialled=addresses[0]))
        yield self.links[-1]

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            async for link in self._arriving:
                nursery.start_soon(handler, link)

    def show(self, chain: Sequence[bytes]) -> None:
        raise AssertionError("the agent shows chains")


class Bench:
    """A keeper, and all that it told."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.transport = MemoryTransport()
        self.posted: list[object] = []
        self.bulk: list[str] = []
        self.keeper = LinkKeeper(self.transport, self, self.posted.append, nursery)

    def attach(self, link: LinkId, open_link: Link) -> None:
        self.bulk.append(f"attach {link}")

    def detach(self, link: LinkId) -> None:
        self.bulk.append(f"detach {link}")

    def on_frame(self, link: LinkId, frame: bytes) -> None:
        if frame == b"\1rubbish":
            raise PeerFault("rubbish")
        self.bulk.append(frame[1:].decode())


@contextlib.asynccontextmanager
async def keeping() -> AsyncIterator[Bench]:
    async with trio.open_nursery() as nursery:
        it = Bench(nursery)
        nursery.start_soon(it.keeper.serve)
        yield it
        nursery.cancel_scope.cancel()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


def opened(number: int, *, dialled: str) -> LinkOpened:
    return LinkOpened(
        link=LinkId(number),
        peer=PEER,
        leaf=b"leaf",
        remote="192.0.2.1:40000",
        dialled=dialled,
        shown=b"shown",
    )

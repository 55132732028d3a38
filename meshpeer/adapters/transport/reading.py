"""Keeps a WebSocket library from harming its caller: what it reads is metered, what it throws is caught.

The library reads frames in a task of its own, in the nursery of whoever opened the link. Two things about
that task are ours to bound. It keeps the pieces of an unfinished message, so a peer that sends empty
fragments for ever would fill our memory: ``MeteredStream`` ends the connection. And it raises what a peer's
bytes provoke (a refused upgrade, a ping while we say goodbye, a header that is not ASCII) into that nursery,
which would take the whole agent down: ``Reader`` catches it. Knows nothing of identities.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import h11
import trio
import trio_websocket
import wsproto.utilities

from meshpeer.core.wire.limits import FRAME_BYTES_MAX

QUEUE_MESSAGES = 16
"""Frames read ahead of whoever takes them; then TCP holds the peer back."""
UNFINISHED_BYTES_MAX = (QUEUE_MESSAGES + 4) * FRAME_BYTES_MAX
"""Bytes of a connection that are in no frame that was taken: read ahead, in pieces, or none of ours (pings,
empty fragments). No peer of ours sends the last two."""
PEER_PROVOKED = (
    trio_websocket.HandshakeError,
    trio_websocket.ConnectionClosed,
    wsproto.utilities.ProtocolError,
    h11.ProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    ValueError,
)
"""What the library raises because of bytes that a peer sent; header texts that are none are ValueErrors."""


class MeteredStream(trio.abc.Stream):
    """A TLS stream that ends where a peer sends much and completes nothing."""

    def __init__(self, inner: trio.SSLStream[trio.abc.Stream]) -> None:
        self._inner = inner
        self.unfinished_bytes = 0
        """Read, and in no frame that was taken."""
        self.overrun = False

    def took(self, payload_bytes: int) -> None:
        """Notes that a whole frame was taken from what was read."""
        # Header of RFC 6455, section 5.2. A client's mask makes it 4 longer; who counts both ways alike errs
        # to the peer's favour, and the floor at zero keeps that from adding up.
        header_bytes = 2 if payload_bytes < 126 else 4 if payload_bytes < 65_536 else 10
        self.unfinished_bytes = max(0, self.unfinished_bytes - payload_bytes - header_bytes - 4)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._inner.receive_some(max_bytes)
        self.unfinished_bytes += len(data)
        if self.unfinished_bytes > UNFINISHED_BYTES_MAX:
            self.overrun = True
            raise trio.BrokenResourceError("the peer sends what is no frame")
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


class Reader:
    """Stands in for the nursery that the library starts its reading task in."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.error: Exception | None = None
        self.ended = trio.Event()
        """Set when nothing is read any more. While a link opens the library itself would wait on."""

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, task)

    async def _run(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except PEER_PROVOKED as error:
            self.error = error
        finally:
            self.ended.set()

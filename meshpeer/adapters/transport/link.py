"""One open link: a WebSocket over TLS whose control frames overtake its bulk frames."""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import AsyncIterator

import trio
import trio_websocket

from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.runtime.ports import LinkOver

CONTROL_QUEUE_MAX = 256
"""Control frames that wait for a slow peer; what overflows is dropped, and repaired by the next digest."""
CLOSE_TIMEOUT_S = 2.0
"""How long a closing link may take to send what it holds and say goodbye."""


class WebSocketLink:
    """Implements ``runtime.ports.Link``."""

    def __init__(
        self,
        socket: trio_websocket.WebSocketConnection,
        *,
        peer: NodeId,
        leaf: bytes,
        remote: str,
        dialled: str,
        shown: bytes,
    ) -> None:
        self._socket = socket
        self.peer = peer
        self.leaf = leaf
        self.remote = remote
        self.dialled = dialled
        self.shown = shown
        self._control: collections.deque[bytes] = collections.deque()
        self._wake = trio.Event()
        self._bulk_turn = trio.Lock()
        self._idle = trio.Event()
        self._idle.set()
        self._close_reason: str | None = None
        self.over = trio.Event()

    def send_soon(self, frame: bytes) -> bool:
        if len(self._control) >= CONTROL_QUEUE_MAX or self._close_reason is not None:
            return False
        self._control.append(frame)
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._wake.set()
        return True

    async def send_bulk(self, frame: bytes) -> None:
        async with self._bulk_turn:
            await self._idle.wait()
            await self._send(frame)

    async def receive(self) -> bytes:
        try:
            message = await self._socket.get_message()
        except trio_websocket.ConnectionClosed as error:
            reason = getattr(error.reason, "reason", None) or "the connection ended"
            raise LinkOver(self._close_reason or str(reason)) from error
        if not isinstance(message, bytes):
            raise PeerFault("a text message on a link")
        return message

    def close_soon(self, reason: str) -> None:
        if self._close_reason is None:
            self._close_reason = reason
            self._wake.set()

    async def run_writer(self) -> None:
        """Sends queued control frames until the link is to be closed, then says goodbye."""
        with contextlib.suppress(LinkOver):
            while True:
                while self._control:
                    await self._send(self._control.popleft())
                self._idle.set()
                if self._close_reason is not None:
                    break
                await self._wake.wait()
                self._wake = trio.Event()
        with trio.move_on_after(CLOSE_TIMEOUT_S):
            await self._socket.aclose(1000, (self._close_reason or "")[:100])
        self.over.set()

    async def _send(self, frame: bytes) -> None:
        try:
            await self._socket.send_message(frame)
        except trio_websocket.ConnectionClosed as error:
            raise LinkOver(self._close_reason or "the connection ended") from error


@contextlib.asynccontextmanager
async def running(link: WebSocketLink) -> AsyncIterator[WebSocketLink]:
    """Runs a link's writer as long as the context lives; leaving flushes control frames and closes."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run_writer)
        try:
            yield link
        finally:
            link.close_soon("done")
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_TIMEOUT_S):
                await link.over.wait()
            nursery.cancel_scope.cancel()


QUEUE_MESSAGES = 16
RECEIVE_BYTES = 65_536

wrap_client = functools.partial(
    trio_websocket.wrap_client_stream,
    message_queue_size=QUEUE_MESSAGES,
    max_message_size=FRAME_BYTES_MAX,
    receive_buffer_size=RECEIVE_BYTES,
)
wrap_server = functools.partial(
    trio_websocket.wrap_server_stream,
    message_queue_size=QUEUE_MESSAGES,
    max_message_size=FRAME_BYTES_MAX,
    receive_buffer_size=RECEIVE_BYTES,
)

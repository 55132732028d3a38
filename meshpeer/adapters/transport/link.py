"""One open link: a WebSocket over TLS whose control frames overtake its bulk frames."""

from __future__ import annotations

import collections
import contextlib
import functools
import math
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
GOODBYE_UNREAD_S = 0.1
"""The same for the goodbye alone, of a link whose reader was cancelled."""
ENDED = "the connection ended"


class WebSocketLink:
    """Implements ``runtime.ports.Link``."""

    def __init__(
        self,
        socket: trio_websocket.WebSocketConnection,
        stream: trio.abc.Stream,
        *,
        peer: NodeId,
        leaf: bytes,
        remote: str,
        dialled: str,
        shown: bytes,
    ) -> None:
        self._socket = socket
        self._stream = stream
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
        self._closing = trio.Event()
        self._goodbye_s = CLOSE_TIMEOUT_S
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
            reason = getattr(error.reason, "reason", None) or ENDED
            raise LinkOver(self._close_reason or str(reason)) from error
        if not isinstance(message, bytes):
            raise PeerFault("a text message on a link")
        return message

    def close_soon(self, reason: str) -> None:
        if self._close_reason is None:
            self._close_reason = reason
            self._closing.set()
            self._wake.set()

    async def run_writer(self) -> None:
        """Sends queued control frames until the link is to be closed, then says goodbye.

        Shielded: who cancels a link still sends what was queued; ``run_closer`` bounds how long that takes.
        """
        with trio.CancelScope(shield=True):
            with contextlib.suppress(LinkOver):
                while True:
                    while self._control:
                        await self._send(self._control.popleft())
                    self._idle.set()
                    if self._close_reason is not None:
                        break
                    await self._wake.wait()
                    self._wake = trio.Event()
            # The connection may have ended by itself: from here on nothing is queued, no bulk waits its turn.
            self.close_soon(ENDED)
            self._control.clear()
            self._idle.set()
            with trio.move_on_after(self._goodbye_s):
                await self._socket.aclose(1000, (self._close_reason or "")[:100])
            self.over.set()

    async def run_closer(self) -> None:
        """Cuts the connection where the peer reads nothing: sending would wait for as long as TCP retries."""
        with trio.CancelScope(shield=True):
            await self._closing.wait()
            with trio.move_on_after(CLOSE_TIMEOUT_S):
                await self.over.wait()
                return
            await trio.aclose_forcefully(self._stream)

    def hurry(self) -> None:
        """Waits for no answer to the goodbye: nobody reads this end any more."""
        self._goodbye_s = GOODBYE_UNREAD_S

    async def _send(self, frame: bytes) -> None:
        try:
            await self._socket.send_message(frame)
        except trio_websocket.ConnectionClosed as error:
            raise LinkOver(self._close_reason or ENDED) from error


@contextlib.asynccontextmanager
async def running(link: WebSocketLink) -> AsyncIterator[WebSocketLink]:
    """Runs a link's writer as long as the context lives; leaving flushes control frames and closes."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run_writer)
        nursery.start_soon(link.run_closer)
        try:
            yield link
        finally:
            link.close_soon("done")
            if trio.current_effective_deadline() == -math.inf:
                # Cancelled, and with it the task that would read the answer.
                link.hurry()
            with trio.CancelScope(shield=True):
                await link.over.wait()


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

"""One open link: a WebSocket over TLS whose control frames overtake its bulk frames."""

from __future__ import annotations

import collections
import contextlib
import functools
import math
from collections.abc import AsyncIterator

import trio
import trio_websocket

from meshpeer.adapters.transport.reading import QUEUE_MESSAGES, MeteredStream
from meshpeer.core.counters import Counter
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.runtime.ports import LinkOver, Tally

CONTROL_QUEUE_MAX = 256
"""Control frames that wait for a slow peer; what overflows is dropped, and repaired by the next digest."""
CLOSE_TIMEOUT_S = 2.0
"""How long a closing link may take to send what it holds and say goodbye."""
GOODBYE_UNREAD_S = 0.1
"""The same for the goodbye alone, of a link whose reader was cancelled."""
STALL_LOOK_S = 5.0
STALL_LOOKS_MAX = 4
"""A frame that TCP has not taken after so many looks closes the link: whoever reads slower than a frame in
20 s costs a full queue and gets nothing from it. Looks are counted, not time: a machine that wakes from sleep
has looked once."""
ENDED = "the connection ended"
TOO_BIG = 1009
"""The close code of a message that is too big (RFC 6455, section 7.4.1)."""


class WebSocketLink:
    """Implements ``runtime.ports.Link``."""

    def __init__(
        self,
        socket: trio_websocket.WebSocketConnection,
        stream: MeteredStream,
        *,
        tally: Tally,
        peer: NodeId,
        leaf: bytes,
        remote: str,
        local: str,
        dialled: str,
        shown: bytes,
        carrier: NodeId | None = None,
    ) -> None:
        self._socket = socket
        self._stream = stream
        self._tally = tally
        self.peer = peer
        self.leaf = leaf
        self.remote = remote
        self.local = local
        self.dialled = dialled
        self.shown = shown
        self.carrier = carrier
        self._control: collections.deque[bytes] = collections.deque()
        self._wake = trio.Event()
        self._bulk_turn = trio.Lock()
        self._idle = trio.Event()
        self._idle.set()
        self._close_reason: str | None = None
        self._closing = trio.Event()
        self._sending = 0
        self._sent = 0
        self._busy = trio.Event()
        self._goodbye_s = CLOSE_TIMEOUT_S
        self.over = trio.Event()

    def send_soon(self, frame: bytes) -> bool:
        if self._close_reason is not None:
            return False
        if len(self._control) >= CONTROL_QUEUE_MAX:
            self._tally.add(Counter.QUEUE_OVERFLOWS)
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
            if self._close_reason is None and (fault := self._fault(error)):
                self._tally.add(Counter.FRAMES_REFUSED)
                raise PeerFault(fault) from error
            reason = getattr(error.reason, "reason", None) or ENDED
            raise LinkOver(self._close_reason or str(reason)) from error
        if not isinstance(message, bytes):
            self._tally.add(Counter.FRAMES_REFUSED)
            raise PeerFault("a text message on a link")
        self._stream.took(len(message))
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

    async def run_stall_watch(self) -> None:
        """Closes the link where the peer reads nothing: its queue stays full, and bulk waits for ever."""
        while True:
            await self._busy.wait()
            for _ in range(STALL_LOOKS_MAX):
                sent = self._sent
                await trio.sleep(STALL_LOOK_S)
                if self._sent != sent or not self._sending:
                    break
            else:
                self._tally.add(Counter.LINKS_STALLED)
                self.close_soon("it reads nothing")
                return

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
        self._sending += 1
        self._busy.set()
        try:
            await self._socket.send_message(frame)
        except trio_websocket.ConnectionClosed as error:
            raise LinkOver(self._close_reason or ENDED) from error
        finally:
            self._sending -= 1
            self._sent += 1
            if not self._sending:
                self._busy = trio.Event()

    def _fault(self, error: trio_websocket.ConnectionClosed) -> str | None:
        """Says what of the peer's ended the connection; None where it was not at fault."""
        if self._stream.overrun:
            return "it sends what is no frame"
        # Both ends of a link that ends so see this code: the one at fault has nothing unread.
        if getattr(error.reason, "code", None) == TOO_BIG and self._stream.unfinished_bytes > FRAME_BYTES_MAX:
            return f"a frame of more than {FRAME_BYTES_MAX} bytes"
        return None


@contextlib.asynccontextmanager
async def running(link: WebSocketLink) -> AsyncIterator[WebSocketLink]:
    """Runs a link's writer as long as the context lives; leaving flushes control frames and closes."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run_writer)
        nursery.start_soon(link.run_closer)
        nursery.start_soon(link.run_stall_watch)
        try:
            yield link
        finally:
            link.close_soon("done")
            if trio.current_effective_deadline() == -math.inf:
                # Cancelled, and with it the task that would read the answer.
                link.hurry()
            with trio.CancelScope(shield=True):
                await link.over.wait()
            nursery.cancel_scope.cancel()


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

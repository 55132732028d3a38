"""One end of a circuit as a stream of bytes, and the frames that circuits are made of.

A sender has a window: what is on its way until the far end has taken it, where a frame counts as
``FRAME_COST_MIN`` bytes at least. So whoever is in between holds a bounded number of bytes, and of frames.
"""

from __future__ import annotations

import collections
from collections.abc import Awaitable, Callable

import msgspec
import trio

from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.wire.frames import Channel, Codec

PIECE_BYTES = 32 * 1024
"""Payload of one frame; small enough that a carrier's own traffic gets its turn."""
WINDOW_BYTES = 256 * 1024
FRAME_COST_MIN = 256


class CircuitAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="circuit.ask"):
    """Opens a leg: to the receiver itself, or to a member that the receiver has a link to."""

    number: int
    target: NodeId


class CircuitOpened(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="circuit.opened"):
    """The leg that the receiver opened leads to its target."""

    number: int


class CircuitData(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="circuit.data"):
    number: int
    opener: bool
    """The sender opened this leg: numbers are chosen by either end of a link."""
    data: bytes


class CircuitTook(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="circuit.took"):
    """The sender has taken so much of what came, as ``cost_of`` counts."""

    number: int
    opener: bool
    count: int


class CircuitClosed(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="circuit.closed"):
    number: int
    opener: bool
    reason: str


CircuitFrame = CircuitAsked | CircuitOpened | CircuitData | CircuitTook | CircuitClosed
FRAMES = (CircuitAsked, CircuitOpened, CircuitData, CircuitTook, CircuitClosed)
CODEC = Codec(Channel.BULK, FRAMES)
Leg = tuple[LinkId, int, bool]
"""A leg here: its link, its number, and whether this node opened it."""


def cost_of(data: bytes) -> int:
    """Returns what a piece takes of the window."""
    return max(len(data), FRAME_COST_MIN)


class CircuitStream(trio.abc.Stream):
    """The stream that TLS runs in."""

    def __init__(
        self,
        leg: Leg,
        send: Callable[[LinkId, CircuitFrame], Awaitable[None]],
        close: Callable[[Leg, str], None],
    ) -> None:
        self._leg = leg
        self._send = send
        self._close = close
        self._credit = WINDOW_BYTES
        self._held: collections.deque[bytes] = collections.deque()
        self._held_cost = self._taken = 0
        self._rest = b""
        """What is left of a piece that was taken in part."""
        self._changed = trio.Event()
        self._sending = trio.Lock()
        self.opened = trio.Event()
        self.ended: str | None = None
        """Why nothing more comes."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        link, number, mine = self._leg
        async with self._sending:
            while view:
                await self.wait_send_all_might_not_block()
                piece = bytes(view[: min(PIECE_BYTES, self._credit)])
                view = view[len(piece) :]
                self._credit -= cost_of(piece)
                await self._send(link, CircuitData(number=number, opener=mine, data=piece))

    async def wait_send_all_might_not_block(self) -> None:
        while self._credit < FRAME_COST_MIN and self.ended is None:
            await self._changed.wait()
        if self.ended is not None:
            raise trio.BrokenResourceError(self.ended)
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._rest and not self._held and self.ended is None:
            await self._changed.wait()
        if not self._rest and self._held:
            self._rest = self._held.popleft()
            self._held_cost -= cost_of(self._rest)
            self._taken += cost_of(self._rest)
        data, self._rest = self._rest[:max_bytes], self._rest[len(self._rest[:max_bytes]) :]
        if self._taken >= WINDOW_BYTES // 4 and self.ended is None:
            taken, self._taken = self._taken, 0
            link, number, mine = self._leg
            await self._send(link, CircuitTook(number=number, opener=mine, count=taken))
        else:
            await trio.lowlevel.checkpoint()
        return data

    async def aclose(self) -> None:
        self._close(self._leg, "the link ended")
        await trio.lowlevel.checkpoint()

    # --- what comes -----------------------------------------------------------------------------------------

    def on_data(self, data: bytes) -> None:
        """Raises ``PeerFault`` for more than there is room for."""
        self._held_cost += cost_of(data)
        if not data or self._held_cost > WINDOW_BYTES:
            raise PeerFault("a circuit brought more than was taken")
        self._held.append(data)
        self._change()

    def on_took(self, count: int) -> None:
        self._credit = min(self._credit + count, WINDOW_BYTES)
        self._change()

    def end(self, reason: str) -> None:
        """Nothing comes or goes any more, but for what came before."""
        self.ended = self.ended or reason
        self.opened.set()
        self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

"""Circuits: the bytes of a link between two members that can't dial each other, passed on by a third.

Three parts meet here. The *opener* asks a carrier for a circuit to a target, and gets a stream, in which the
transport shakes hands as it would over TCP; the *target* gets the other end, and takes it for an incoming
connection; the *carrier* joins two legs and passes frames on. It sees TLS: it can't read, and what it changes
ends the link.

A leg is a number on a link that goes straight, chosen by the end that opened it. A sender has at most
``WINDOW_BYTES`` on their way until the far end has taken them, so a carrier holds no more than that for each
direction, whoever is slow. One that sends beyond it is at fault. A carrier opens legs to the target alone,
and only from and to links that go straight: nothing can go in a circle.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import trio

from meshpeer.core.counters import Counter
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.membership.carriers import over_in
from meshpeer.core.wire.frames import Channel, Codec
from meshpeer.runtime.ports import DialFault, Link, LinkOver, Tally

PIECE_BYTES = 32 * 1024
"""Payload of one frame; small enough that a carrier's own traffic gets its turn."""
WINDOW_BYTES = 256 * 1024
QUEUE_FRAMES_MAX = 1_024
"""Frames of one direction that a carrier holds: a window in pieces of a TLS record's size, and some."""
OPEN_TIMEOUT_S = 4.0
CIRCUITS_MAX = 256
"""Legs of all links together that one node has, whatever its part in them."""
CIRCUITS_PER_LINK_MAX = 32
REASON_MAX = 200


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
    """The sender has taken so many bytes of what came."""

    number: int
    opener: bool
    count: int


class CircuitClosed(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="circuit.closed"):
    number: int
    opener: bool
    reason: str


CircuitFrame = CircuitAsked | CircuitOpened | CircuitData | CircuitTook | CircuitClosed
_Passed = CircuitOpened | CircuitData | CircuitTook | CircuitClosed
FRAMES = (CircuitAsked, CircuitOpened, CircuitData, CircuitTook, CircuitClosed)
CODEC = Codec(Channel.BULK, FRAMES)
_Key = tuple[LinkId, int, bool]
"""A leg here: its link, its number, and whether this node opened it."""


@dataclass(slots=True)
class _Joint:
    """One leg at a carrier: what comes on it goes out on ``other``."""

    other: _Key
    queue: collections.deque[_Passed] = field(default_factory=collections.deque)
    """To be sent on ``other``."""
    unacknowledged: int = 0
    """Bytes that came and that the far end has not taken."""
    wake: trio.Event = field(default_factory=trio.Event)


class CircuitStream(trio.abc.Stream):
    """One end of a circuit; the stream that TLS runs in."""

    def __init__(self, circuits: Circuits, key: _Key) -> None:
        self._circuits = circuits
        self._key = key
        self._credit = WINDOW_BYTES
        self._held: collections.deque[bytes] = collections.deque()
        self._held_bytes = self._taken = 0
        self._changed = trio.Event()
        self._sending = trio.Lock()
        self.opened = trio.Event()
        self.ended: str | None = None
        """Why nothing more comes."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        async with self._sending:
            while view:
                await self.wait_send_all_might_not_block()
                piece = bytes(view[: min(PIECE_BYTES, self._credit)])
                view = view[len(piece) :]
                self._credit -= len(piece)
                link, number, mine = self._key
                await self._circuits.send(link, CircuitData(number=number, opener=mine, data=piece))

    async def wait_send_all_might_not_block(self) -> None:
        while not self._credit and self.ended is None:
            await self._changed.wait()
        if self.ended is not None:
            raise trio.BrokenResourceError(self.ended)
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._held and self.ended is None:
            await self._changed.wait()
        if not self._held:
            await trio.lowlevel.checkpoint()
            return b""
        data = self._held.popleft()
        if max_bytes is not None and len(data) > max_bytes:
            self._held.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self._held_bytes -= len(data)
        self._taken += len(data)
        if self._taken >= WINDOW_BYTES // 4 and self.ended is None:
            taken, self._taken = self._taken, 0
            link, number, mine = self._key
            await self._circuits.send(link, CircuitTook(number=number, opener=mine, count=taken))
        else:
            await trio.lowlevel.checkpoint()
        return data

    async def aclose(self) -> None:
        self._circuits.close(self._key, "the link ended")
        await trio.lowlevel.checkpoint()

    # --- what comes -----------------------------------------------------------------------------------------

    def on_data(self, data: bytes) -> None:
        self._held_bytes += len(data)
        if not data or self._held_bytes > WINDOW_BYTES:
            raise PeerFault("a circuit brought more than was taken")
        self._held.append(data)
        self._change()

    def on_took(self, count: int) -> None:
        self._credit = min(self._credit + count, WINDOW_BYTES)
        self._change()

    def end(self, reason: str) -> None:
        self.ended = self.ended or reason
        self.opened.set()
        self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


class Circuits:
    """Of one agent: opens, takes and carries."""

    def __init__(
        self,
        *,
        me: NodeId,
        nursery: trio.Nursery,
        link_to: Callable[[NodeId], LinkId | None],
        greeted: Callable[[LinkId], NodeId | None],
        accept: Callable[[trio.abc.Stream, NodeId], Awaitable[None]],
        carries: Callable[[], bool],
        tally: Tally,
    ) -> None:
        """``greeted`` names the peer of a link that is in use or spare; ``accept`` runs an incoming
        connection; ``carries`` says whether this node passes on links of others."""
        self._me = me
        self._nursery = nursery
        self._link_to = link_to
        self._greeted = greeted
        self._accept = accept
        self._carries = carries
        self._tally = tally
        self._links: dict[LinkId, Link] = {}
        self._ends: dict[_Key, CircuitStream] = {}
        self._joints: dict[_Key, _Joint] = {}
        self._numbers = 0

    @property
    def carried(self) -> int:
        """How many circuits of others go over this node."""
        return len(self._joints) // 2

    # --- links ----------------------------------------------------------------------------------------------

    def attach(self, link: LinkId, open_link: Link) -> None:
        if open_link.carrier is None:
            self._links[link] = open_link

    def detach(self, link: LinkId) -> None:
        """A link ended, and every leg on it."""
        self._links.pop(link, None)
        for key in [key for key in (*self._ends, *self._joints) if key[0] == link]:
            self._forget(key, "the link to the carrier ended")

    # --- opening --------------------------------------------------------------------------------------------

    async def open(self, address: str) -> trio.abc.Stream:
        """Returns a stream to a member over a carrier (``carriers.address_over``); raises ``DialFault``."""
        over = over_in(address)
        if over is None:
            raise DialFault(f"{address!r} names no way over a member")
        link = self._link_to(over.carrier)
        if link is None or link not in self._links:
            raise DialFault("there is no link to who shall carry this one")
        if self._is_full(link):
            raise DialFault("this node has as many carried links as it may")
        self._numbers += 1
        key = (link, self._numbers, True)
        stream = self._ends[key] = CircuitStream(self, key)
        try:
            await self.send(link, CircuitAsked(number=self._numbers, target=over.target))
            with trio.move_on_after(OPEN_TIMEOUT_S):
                await stream.opened.wait()
        except BaseException:
            self.close(key, "not wanted any more")
            raise
        if stream.ended is not None or not stream.opened.is_set():
            why = stream.ended or "it says nothing"
            self.close(key, "it took too long")
            raise DialFault(f"a member does not carry the link: {why}")
        return stream

    # --- frames ---------------------------------------------------------------------------------------------

    def on_message(self, link: LinkId, message: CircuitFrame) -> None:
        """Raises ``PeerFault`` for what breaks the protocol."""
        if link not in self._links or self._greeted(link) is None:
            return
        match message:
            case CircuitAsked():
                self._on_asked(link, message)
            case CircuitOpened(number=number):
                self._on_opened((link, number, True))
            case CircuitData(number=number, opener=opener, data=data):
                self._on_data((link, number, not opener), data)
            case CircuitTook(number=number, opener=opener, count=count):
                self._on_took((link, number, not opener), count)
            case CircuitClosed(number=number, opener=opener, reason=reason):
                self._on_closed((link, number, not opener), reason[:REASON_MAX])

    def _on_asked(self, link: LinkId, asked: CircuitAsked) -> None:
        key = (link, asked.number, False)
        if key in self._ends or key in self._joints:
            raise PeerFault("a circuit was opened twice")
        refusal = self._refusal(link, asked.target)
        if refusal:
            self._tally.add(Counter.CIRCUITS_REFUSED)
            self._say(link, CircuitClosed(number=asked.number, opener=False, reason=refusal))
        elif asked.target == self._me:
            stream = self._ends[key] = CircuitStream(self, key)
            self._say(link, CircuitOpened(number=asked.number))
            self._nursery.start_soon(self._take, stream, self._links[link].peer)
        else:
            onward = self._link_to(asked.target)
            assert onward is not None
            self._numbers += 1
            far = (onward, self._numbers, True)
            self._joints[key], self._joints[far] = _Joint(far), _Joint(key)
            self._tally.add(Counter.CIRCUITS_CARRIED)
            for one in (key, far):
                self._nursery.start_soon(self._pump, one, self._joints[one])
            self._say(onward, CircuitAsked(number=self._numbers, target=asked.target))

    def _refusal(self, link: LinkId, target: NodeId) -> str:
        """Returns why a leg is not opened; empty where it is."""
        if self._is_full(link):
            return "there are as many carried links as may be"
        if target == self._me:
            return ""
        if not self._carries():
            return "this node carries nothing for others"
        onward = self._link_to(target)
        if onward is None or onward not in self._links:
            return "it has no link to that member that goes straight"
        return "there are as many carried links as may be" if self._is_full(onward) else ""

    def _is_full(self, link: LinkId) -> bool:
        legs = (*self._ends, *self._joints)
        return len(legs) >= CIRCUITS_MAX or sum(key[0] == link for key in legs) >= CIRCUITS_PER_LINK_MAX

    def _on_opened(self, key: _Key) -> None:
        if key in self._ends:
            self._ends[key].opened.set()
        elif key in self._joints:
            self._pass_on(key, CircuitOpened(number=self._joints[key].other[1]))

    def _on_data(self, key: _Key, data: bytes) -> None:
        if key in self._ends:
            self._ends[key].on_data(data)
            return
        joint = self._joints.get(key)
        if joint is None:
            return
        joint.unacknowledged += len(data)
        if not data or joint.unacknowledged > WINDOW_BYTES:
            raise PeerFault("a circuit brought more than was taken")
        _, number, mine = joint.other
        self._tally.add(Counter.CIRCUIT_BYTES, len(data))
        self._pass_on(key, CircuitData(number=number, opener=mine, data=data))

    def _on_took(self, key: _Key, count: int) -> None:
        if count <= 0:
            raise PeerFault("a circuit took nothing")
        if key in self._ends:
            self._ends[key].on_took(count)
            return
        joint = self._joints.get(key)
        if joint is None:
            return
        back = self._joints[joint.other]
        if count > back.unacknowledged:
            raise PeerFault("a circuit took more than it was brought")
        back.unacknowledged -= count
        _, number, mine = joint.other
        self._pass_on(key, CircuitTook(number=number, opener=mine, count=count))

    def _on_closed(self, key: _Key, reason: str) -> None:
        joint = self._joints.get(key)
        if joint is None:
            self._forget(key, reason, tell=False)
            return
        # What came before goes on before.
        _, number, mine = joint.other
        self._pass_on(key, CircuitClosed(number=number, opener=mine, reason=reason))

    # --- carrying -------------------------------------------------------------------------------------------

    def _pass_on(self, key: _Key, frame: _Passed) -> None:
        joint = self._joints[key]
        if len(joint.queue) >= QUEUE_FRAMES_MAX:
            raise PeerFault("a circuit brought more frames than may wait")
        joint.queue.append(frame)
        joint.wake.set()

    async def _pump(self, key: _Key, joint: _Joint) -> None:
        """Sends what came on one leg out on the other, until either is gone."""
        try:
            while self._joints.get(key) is joint:
                while joint.queue:
                    frame = joint.queue.popleft()
                    await self.send(joint.other[0], frame)
                    if isinstance(frame, CircuitClosed):
                        self._forget(key, frame.reason, tell=False)
                        return
                joint.wake = trio.Event()
                await joint.wake.wait()
        except trio.BrokenResourceError as error:
            self._forget(key, str(error))

    async def _take(self, stream: CircuitStream, carrier: NodeId) -> None:
        try:
            await self._accept(stream, carrier)
        finally:
            await stream.aclose()

    # --- ending ---------------------------------------------------------------------------------------------

    def close(self, key: _Key, reason: str) -> None:
        """Ends a circuit from this end, after what was sent; one that has ended is no error."""
        if key in self._ends:
            self._forget(key, reason, tell=False)
            self._nursery.start_soon(self._say_closed, key, reason)

    async def _say_closed(self, key: _Key, reason: str) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await self.send(key[0], CircuitClosed(number=key[1], opener=key[2], reason=reason[:REASON_MAX]))

    def _forget(self, key: _Key, reason: str, *, tell: bool = True) -> None:
        """Ends a leg, and at a carrier the other one with it, at once; ``tell`` the far end of this one."""
        stream, joint = self._ends.pop(key, None), self._joints.pop(key, None)
        if stream is None and joint is None:
            return
        if tell:
            self._say(key[0], CircuitClosed(number=key[1], opener=key[2], reason=reason[:REASON_MAX]))
        if stream is not None:
            stream.end(reason)
        if joint is not None:
            joint.wake.set()
            self._forget(joint.other, reason, tell=tell)

    # --- sending --------------------------------------------------------------------------------------------

    async def send(self, link: LinkId, frame: CircuitFrame) -> None:
        """Sends in turn with all other bulk; raises ``trio.BrokenResourceError`` where the link is gone."""
        open_link = self._links.get(link)
        if open_link is None:
            raise trio.BrokenResourceError("the link to the carrier ended")
        try:
            await open_link.send_bulk(CODEC.encode(frame))
        except LinkOver as over:
            raise trio.BrokenResourceError(over.what) from over

    def _say(self, link: LinkId, frame: CircuitFrame) -> None:
        """Sends a short frame at once. One that is dropped by a full queue is made good by a time-out, or by
        the end of the link."""
        open_link = self._links.get(link)
        if open_link is not None:
            open_link.send_soon(CODEC.encode(frame))

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

import trio

from meshpeer.core.counters import Counter
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.membership.carriers import over_in
from meshpeer.runtime.circuit_stream import (
    CODEC,
    FRAME_COST_MIN,
    WINDOW_BYTES,
    CircuitAsked,
    CircuitClosed,
    CircuitData,
    CircuitFrame,
    CircuitOpened,
    CircuitStream,
    CircuitTook,
    Leg,
    cost_of,
)
from meshpeer.runtime.ports import DialFault, Link, LinkOver, Tally

QUEUE_FRAMES_MAX = WINDOW_BYTES // FRAME_COST_MIN + 64
"""Frames of one direction that a carrier holds: a window of the smallest, and what is said of the other
direction."""
OPEN_TIMEOUT_S = 4.0
CIRCUITS_MAX = 256
"""Legs of all links together that one node has, whatever its part in them."""
CIRCUITS_PER_LINK_MAX = 32
REASON_MAX = 200

_Passed = CircuitOpened | CircuitData | CircuitTook | CircuitClosed


@dataclass(slots=True)
class _Joint:
    """One leg at a carrier: what comes on it goes out on ``other``."""

    other: Leg
    queue: collections.deque[_Passed] = field(default_factory=collections.deque)
    """To be sent on ``other``."""
    unacknowledged: int = 0
    """What came and the far end has not taken, as ``cost_of`` counts."""
    wake: trio.Event = field(default_factory=trio.Event)


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
        self._ends: dict[Leg, CircuitStream] = {}
        self._joints: dict[Leg, _Joint] = {}
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
        stream = self._ends[key] = CircuitStream(key, self.send, self.close)
        try:
            try:
                await self.send(link, CircuitAsked(number=self._numbers, target=over.target))
            except trio.BrokenResourceError as gone:
                raise DialFault(f"a member does not carry the link: {gone}") from gone
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
            stream = self._ends[key] = CircuitStream(key, self.send, self.close)
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

    def _on_opened(self, key: Leg) -> None:
        if key in self._ends:
            self._ends[key].opened.set()
        elif key in self._joints:
            self._pass_on(key, CircuitOpened(number=self._joints[key].other[1]))

    def _on_data(self, key: Leg, data: bytes) -> None:
        if key in self._ends:
            self._ends[key].on_data(data)
            return
        joint = self._joints.get(key)
        if joint is None:
            return
        joint.unacknowledged += cost_of(data)
        if not data or joint.unacknowledged > WINDOW_BYTES:
            raise PeerFault("a circuit brought more than was taken")
        _, number, mine = joint.other
        self._tally.add(Counter.CIRCUIT_BYTES, len(data))
        self._pass_on(key, CircuitData(number=number, opener=mine, data=data))

    def _on_took(self, key: Leg, count: int) -> None:
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

    def _on_closed(self, key: Leg, reason: str) -> None:
        joint = self._joints.get(key)
        if joint is None:
            self._forget(key, reason, tell=False)
            return
        # What came before goes on before.
        _, number, mine = joint.other
        self._pass_on(key, CircuitClosed(number=number, opener=mine, reason=reason))

    # --- carrying -------------------------------------------------------------------------------------------

    def _pass_on(self, key: Leg, frame: _Passed) -> None:
        joint = self._joints[key]
        if len(joint.queue) >= QUEUE_FRAMES_MAX:
            raise PeerFault("a circuit brought more frames than may wait")
        joint.queue.append(frame)
        joint.wake.set()

    async def _pump(self, key: Leg, joint: _Joint) -> None:
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

    def close(self, key: Leg, reason: str) -> None:
        """Ends a circuit from this end, after what was sent; one that has ended is no error."""
        if key in self._ends:
            self._forget(key, reason, tell=False)
            self._nursery.start_soon(self._say_closed, key, reason)

    async def _say_closed(self, key: Leg, reason: str) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await self.send(key[0], CircuitClosed(number=key[1], opener=key[2], reason=reason[:REASON_MAX]))

    def _forget(self, key: Leg, reason: str, *, tell: bool = True) -> None:
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

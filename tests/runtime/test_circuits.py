"""Circuits between three agents in memory: what a carrier passes on, what it holds at most, whom it
refuses."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.membership.carriers import address_over
from meshpeer.runtime.circuit_stream import (
    CODEC,
    FRAME_COST_MIN,
    PIECE_BYTES,
    WINDOW_BYTES,
    CircuitAsked,
    CircuitClosed,
    CircuitData,
    CircuitFrame,
    CircuitOpened,
    CircuitTook,
)
from meshpeer.runtime.circuits import CIRCUITS_PER_LINK_MAX, OPEN_TIMEOUT_S, Circuits
from meshpeer.runtime.ports import DialFault, LinkOver

LEFT, CARRIER, RIGHT = NodeId(b"l" * 32), NodeId(b"c" * 32), NodeId(b"r" * 32)
OVER = address_over(CARRIER, RIGHT)


async def test_bytes_go_both_ways_in_order() -> None:
    async with meeting() as it:
        here, there = await it.connect()
        await here.send_all(b"to the right")
        await there.send_all(b"and back")
        assert await there.receive_some() == b"to the right"
        assert await here.receive_some(3) == b"and"
        assert await here.receive_some() == b" back"
        assert it.carrier.circuits.carried == 1
        assert it.carrier.counters.get(Counter.CIRCUITS_CARRIED) == 1


async def test_much_arrives_whole_through_a_small_window() -> None:
    async with meeting() as it:
        here, there = await it.connect()
        data = bytes(range(256)) * (20 * WINDOW_BYTES // 256)
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.send_all, data)
            while len(got) < len(data):
                got += await there.receive_some()
        assert bytes(got) == data
        assert it.carrier.counters.get(Counter.CIRCUIT_BYTES) == len(data)


async def test_a_slow_reader_holds_the_sender_and_costs_the_carrier_no_more_than_a_window() -> None:
    async with meeting() as it:
        here, there = await it.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.send_all, bytes(4 * WINDOW_BYTES))
            await trio.testing.wait_all_tasks_blocked()
            assert it.carrier.counters.get(Counter.CIRCUIT_BYTES) == WINDOW_BYTES
            # A side that is full holds the other up in nothing.
            await there.send_all(b"still")
            assert await here.receive_some() == b"still"
            nursery.cancel_scope.cancel()


async def test_what_was_sent_before_the_end_arrives() -> None:
    async with meeting() as it:
        here, there = await it.connect()
        await here.send_all(b"last words")
        await here.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await there.receive_some() == b"last words"
        assert await there.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await there.send_all(b"too late")
        assert it.carrier.circuits.carried == 0


@pytest.mark.parametrize("side", ["left", "right"])
async def test_a_link_that_ends_ends_what_it_carried_at_both_ends(side: str) -> None:
    async with meeting() as it:
        here, there = await it.connect()
        (it.cut_left if side == "left" else it.cut_right)()
        await trio.testing.wait_all_tasks_blocked()
        assert await here.receive_some() == b""
        assert await there.receive_some() == b""
        assert it.carrier.circuits.carried == 0


async def test_a_carrier_without_a_link_to_the_member_says_so_at_once() -> None:
    async with meeting() as it:
        it.cut_right()
        with pytest.raises(DialFault, match="no link to that member"):
            await it.left.circuits.open(OVER)
        assert it.carrier.counters.get(Counter.CIRCUITS_REFUSED) == 1


async def test_a_link_that_ends_as_a_carrier_is_asked_fails_the_dialling_alone() -> None:
    async with meeting() as it:
        it.left.broken = True
        with pytest.raises(DialFault, match="the connection ended"):
            await it.left.circuits.open(OVER)


async def test_who_does_not_want_to_carry_does_not() -> None:
    async with meeting() as it:
        it.carrier.carries = False
        with pytest.raises(DialFault, match="carries nothing for others"):
            await it.left.circuits.open(OVER)


async def test_a_carried_link_carries_nothing_in_turn() -> None:
    """Whoever is reached over a member only is no carrier's target, and no carrier: nothing goes in a
    circle."""
    async with meeting(carried_right=True) as it:
        with pytest.raises(DialFault, match="that goes straight"):
            await it.left.circuits.open(OVER)
        with pytest.raises(DialFault, match="no link"):
            await it.right.circuits.open(address_over(CARRIER, LEFT))


async def test_who_has_not_greeted_opens_nothing() -> None:
    async with meeting() as it:
        it.carrier.greeted = False
        it.carrier.hear(CircuitAsked(number=1, target=RIGHT), LEFT)
        assert it.carrier.circuits.carried == 0
        assert it.carrier.sent == []


async def test_a_carrier_that_says_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with meeting() as it:
        it.carrier.deaf = True
        began = trio.current_time()
        with pytest.raises(DialFault, match="says nothing"):
            await it.left.circuits.open(OVER)
        assert trio.current_time() - began == pytest.approx(OPEN_TIMEOUT_S)
        it.carrier.deaf = False
        await trio.testing.wait_all_tasks_blocked()
        assert it.carrier.circuits.carried == 0


async def test_circuits_of_one_link_are_bounded() -> None:
    async with meeting() as it:
        for _ in range(CIRCUITS_PER_LINK_MAX):
            await it.connect()
        with pytest.raises(DialFault, match="as many carried links"):
            await it.left.circuits.open(OVER)
        it.carrier.hear(CircuitAsked(number=999, target=RIGHT), LEFT)
        assert it.carrier.circuits.carried == CIRCUITS_PER_LINK_MAX


async def test_more_than_a_window_is_a_fault_at_the_carrier_and_at_the_end() -> None:
    async with meeting() as it:
        await it.connect()
        it.carrier.stuck = True
        piece = CircuitData(number=1, opener=True, data=bytes(PIECE_BYTES))
        for _ in range(WINDOW_BYTES // PIECE_BYTES):
            it.carrier.hear(piece, LEFT)
        with pytest.raises(PeerFault, match="more than was taken"):
            it.carrier.hear(piece, LEFT)


async def test_a_flood_of_tiny_pieces_is_a_fault() -> None:
    async with meeting() as it:
        await it.connect()
        it.carrier.stuck = True
        tiny = CircuitData(number=1, opener=True, data=b"x")
        for _ in range(WINDOW_BYTES // FRAME_COST_MIN):
            it.carrier.hear(tiny, LEFT)
        with pytest.raises(PeerFault, match="more than was taken"):
            it.carrier.hear(tiny, LEFT)


async def test_who_says_much_in_small_pieces_waits_and_is_at_no_fault() -> None:
    async with meeting() as it:
        here, there = await it.connect()
        count = 3 * WINDOW_BYTES // FRAME_COST_MIN

        async def talk() -> None:
            for _ in range(count):
                await here.send_all(b"x")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            await trio.testing.wait_all_tasks_blocked()
            assert it.carrier.counters.get(Counter.CIRCUIT_BYTES) == WINDOW_BYTES // FRAME_COST_MIN
            got = 0
            while got < count:
                got += len(await there.receive_some())


@pytest.mark.parametrize(
    "frame",
    [
        CircuitData(number=1, opener=True, data=b""),
        CircuitTook(number=1, opener=True, count=0),
        CircuitTook(number=1, opener=True, count=-5),
        CircuitTook(number=1, opener=True, count=1),
        CircuitAsked(number=1, target=RIGHT),
    ],
)
async def test_what_breaks_the_protocol_is_a_fault(frame: CircuitFrame) -> None:
    async with meeting() as it:
        await it.connect()
        with pytest.raises(PeerFault):
            it.carrier.hear(frame, LEFT)


@pytest.mark.parametrize(
    "frame",
    [
        CircuitOpened(number=7),
        CircuitData(number=7, opener=True, data=b"x"),
        CircuitTook(number=7, opener=False, count=3),
        CircuitClosed(number=7, opener=True, reason="r" * 9_999),
    ],
)
async def test_words_about_a_circuit_that_is_over_are_passed_over(frame: CircuitFrame) -> None:
    async with meeting() as it:
        it.carrier.hear(frame, LEFT)
        assert it.carrier.circuits.carried == 0


# --- three agents and two links in memory -------------------------------------------------------------------


@dataclass
class Agent:
    """One agent's circuits, and what its world tells them."""

    node: NodeId
    nursery: trio.Nursery
    counters: Counters = field(default_factory=Counters)
    links: dict[NodeId, LinkId] = field(default_factory=dict)
    carries: bool = True
    greeted: bool = True
    deaf: bool = False
    """Frames to it get lost on their way."""
    broken: bool = False
    """Its links have ended, and it has not heard of that."""
    stuck: bool = False
    """Its bulk is not taken by anybody."""
    sent: list[object] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        give, self.accepted = trio.open_memory_channel[trio.abc.Stream](100)

        async def accept(stream: trio.abc.Stream, carrier: NodeId) -> None:
            assert carrier == CARRIER
            give.send_nowait(stream)
            await trio.sleep_forever()

        self.circuits = Circuits(
            me=self.node,
            nursery=self.nursery,
            link_to=self.links.get,
            greeted=lambda link: self.peer_of(link) if self.greeted else None,
            accept=accept,
            carries=lambda: self.carries,
            tally=self.counters,
        )

    def peer_of(self, link: LinkId) -> NodeId | None:
        return next((node for node, one in self.links.items() if one == link), None)

    def hear(self, frame: CircuitFrame, source: NodeId) -> None:
        if not self.deaf:
            self.circuits.on_message(self.links[source], frame)


@dataclass
class End:
    """One end of a link; implements what circuits use of ``runtime.ports.Link``."""

    mine: Agent
    theirs: Agent
    carrier: NodeId | None = None
    dialled: str = ""
    remote: str = ""
    leaf: bytes = b""
    shown: bytes = b""
    over: bool = False

    @property
    def peer(self) -> NodeId:
        return self.theirs.node

    def send_soon(self, frame: bytes) -> bool:
        message = CODEC.decode(frame)
        self.mine.sent.append(message)
        if not self.over and self.mine.node in self.theirs.links:
            self.theirs.hear(message, self.mine.node)  # type: ignore[arg-type]
        return True

    async def send_bulk(self, frame: bytes) -> None:
        while self.mine.stuck:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if self.over or self.mine.broken:
            raise LinkOver("the connection ended")
        self.send_soon(frame)

    async def receive(self) -> bytes:
        raise NotImplementedError

    def close_soon(self, reason: str) -> None:
        self.over = True


@dataclass
class Meeting:
    left: Agent
    carrier: Agent
    right: Agent
    connect: Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]] = field(init=False)

    def __post_init__(self) -> None:
        async def connect() -> tuple[trio.abc.Stream, trio.abc.Stream]:
            here = await self.left.circuits.open(OVER)
            return here, await self.right.accepted.receive()

        self.connect = connect

    def cut_left(self) -> None:
        self._cut(self.left)

    def cut_right(self) -> None:
        self._cut(self.right)

    def _cut(self, far: Agent) -> None:
        for one, other in ((far, self.carrier), (self.carrier, far)):
            link = one.links.pop(other.node, None)
            if link is not None:
                one.circuits.detach(link)


@contextlib.asynccontextmanager
async def meeting(*, carried_right: bool = False) -> AsyncIterator[Meeting]:
    async with trio.open_nursery() as nursery:
        it = Meeting(*(Agent(node, nursery) for node in (LEFT, CARRIER, RIGHT)))
        for far in (it.left, it.right):
            for one, other in ((far, it.carrier), (it.carrier, far)):
                number = one.links[other.node] = LinkId(next(one.numbers))
                over = LEFT if carried_right and far is it.right else None
                one.circuits.attach(number, End(one, other, carrier=over))
        yield it
        nursery.cancel_scope.cancel()

"""The transport port in memory: the same links without sockets, TLS or ports, for tests of what lies above.

Addresses are ``memory:N``. A ``MemoryNetwork`` knows who listens where, and which addresses take a dial and
say nothing. It passes the contract suite in ``test_transport_contract.py``, like the real one; limits and
times are the real link's own.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import trio

from meshpeer.adapters.transport import dialling, link
from meshpeer.adapters.transport.reading import QUEUE_MESSAGES
from meshpeer.core.counters import Counter
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.runtime.ports import DialFault, Link, LinkOver, NoTally, Tally

Handler = Callable[[Link], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a transport is: what TLS would prove."""

    mesh: bytes
    node: NodeId
    chain: tuple[bytes, ...]


class MemoryNetwork:
    """Who answers at which address."""

    def __init__(self) -> None:
        self.listeners: dict[str, MemoryTransport] = {}
        self.silent: set[str] = set()
        self._ports = itertools.count(1)

    @contextlib.contextmanager
    def listening(self, identity: Identity, *, tally: Tally | None = None) -> Iterator[MemoryTransport]:
        """Yields a transport that takes links, once it serves, for as long as the context lives."""
        address = self.new_address()
        transport = MemoryTransport(self, identity, address, tally=tally)
        self.listeners[address] = transport
        try:
            yield transport
        finally:
            del self.listeners[address]
            transport.close()

    def new_address(self) -> str:
        """Returns an address at which nobody answers yet."""
        return f"memory:{next(self._ports)}"


class MemoryTransport:
    """Implements ``runtime.ports.Transport``."""

    def __init__(
        self, network: MemoryNetwork, identity: Identity, address: str = "", *, tally: Tally | None = None
    ) -> None:
        self._network = network
        self._identity = identity
        self.address = address
        self._tally = tally or NoTally()
        self._offers_in, self._offers = trio.open_memory_channel[MemoryLink](math.inf)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2] or 0)

    def show(self, chain: Sequence[bytes]) -> None:
        self._identity = Identity(self._identity.mesh, self._identity.node, tuple(chain))

    async def serve(self, handler: Handler) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._accept, await self._offers.receive(), handler)

    @contextlib.asynccontextmanager
    async def dial(self, addresses: Sequence[str]) -> AsyncIterator[Link]:
        address, answer = await self._race(addresses)
        here, there = _Wire(), _Wire()
        mine, theirs = self._identity, answer._identity
        end = MemoryLink(mine, theirs, here, there, self._tally, dialled=address, remote=address)
        other = MemoryLink(theirs, mine, there, here, answer._tally, dialled="", remote="memory:0")
        answer._offers_in.send_nowait(other)
        async with _running(end):
            yield end

    def close(self) -> None:
        """Ends the links that nobody took: those a kernel would hold in its backlog."""
        with contextlib.suppress(trio.WouldBlock):
            while True:
                self._offers.receive_nowait().cut()

    async def _accept(self, end: MemoryLink, handler: Handler) -> None:
        async with _running(end):
            with contextlib.suppress(PeerFault, LinkOver):
                await handler(end)

    async def _race(self, addresses: Sequence[str]) -> tuple[str, MemoryTransport]:
        won: list[tuple[str, MemoryTransport]] = []
        faults: list[DialFault] = []

        async def attempt(address: str, failed: trio.Event) -> None:
            try:
                won.append((address, await self._connect(address)))
                nursery.cancel_scope.cancel()
            except DialFault as fault:
                faults.append(fault)
                failed.set()

        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(dialling.STAGGER_S):
                    await failed.wait()
        if won:
            return won[0]
        raise DialFault(
            "; ".join(fault.what for fault in faults) or "there is no address to dial",
            refused=any(fault.refused for fault in faults),
            foreign=any(fault.foreign for fault in faults),
        )

    async def _connect(self, address: str) -> MemoryTransport:
        host, colon, port = address.rpartition(":")
        if not (colon and host and port.isdigit()):
            raise DialFault(f"{address!r} is not HOST:PORT")
        if address in self._network.silent:
            await trio.sleep(dialling.HANDSHAKE_TIMEOUT_S)
            raise DialFault(f"{address} accepts connections and then says nothing", foreign=True)
        await trio.lowlevel.checkpoint()
        answer = self._network.listeners.get(address)
        if answer is None:
            raise DialFault(f"{address} refuses connections", refused=True)
        if answer._identity.mesh != self._identity.mesh:
            raise DialFault(f"{address} is not a member of this mesh", foreign=True)
        return answer


class _Wire:
    """One direction of a link: frames that were read ahead, and what ended them."""

    def __init__(self) -> None:
        self.write, self.read = trio.open_memory_channel[bytes](QUEUE_MESSAGES)
        self.reason = link.ENDED
        self.fault = ""


class MemoryLink:
    """Implements ``runtime.ports.Link``."""

    def __init__(
        self,
        mine: Identity,
        theirs: Identity,
        outward: _Wire,
        inward: _Wire,
        tally: Tally,
        *,
        dialled: str,
        remote: str,
    ) -> None:
        self.peer = theirs.node
        self.leaf = theirs.chain[0]
        self.shown = mine.chain[0]
        self.dialled = dialled
        self.remote = remote
        self.carrier: NodeId | None = None
        self.local = ""
        self._outward = outward
        self._inward = inward
        self._tally = tally
        self._control: collections.deque[bytes] = collections.deque()
        self._wake = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._bulk_turn = trio.Lock()
        self._close_reason: str | None = None
        self._closing = trio.Event()
        self._sent = 0
        self._busy = trio.Event()

    def send_soon(self, frame: bytes) -> bool:
        if self._close_reason is not None:
            return False
        if len(self._control) >= link.CONTROL_QUEUE_MAX:
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
            return await self._inward.read.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as error:
            if self._close_reason is None and self._inward.fault:
                self._tally.add(Counter.FRAMES_REFUSED)
                raise PeerFault(self._inward.fault) from error
            raise LinkOver(self._close_reason or self._inward.reason) from error

    def close_soon(self, reason: str) -> None:
        if self._close_reason is None:
            self._close_reason = reason
            self._closing.set()
            self._wake.set()

    async def run(self) -> None:
        """Sends what is queued until the link is to be closed, a while longer, and says goodbye."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._limit_closing, nursery.cancel_scope)
                nursery.start_soon(self._watch_stall)
                with contextlib.suppress(LinkOver):
                    await self._write()
                nursery.cancel_scope.cancel()
            self.cut()

    def cut(self) -> None:
        """Ends both directions at once."""
        self.close_soon(link.ENDED)
        self._control.clear()
        self._idle.set()
        self._outward.reason = (self._close_reason or "")[:100]
        self._outward.write.close()
        self._inward.read.close()

    async def _write(self) -> None:
        while True:
            while self._control:
                await self._send(self._control.popleft())
            self._idle.set()
            if self._close_reason is not None:
                return
            await self._wake.wait()
            self._wake = trio.Event()

    async def _send(self, frame: bytes) -> None:
        self._busy.set()
        try:
            if len(frame) > FRAME_BYTES_MAX:
                self._outward.fault = f"a frame of more than {FRAME_BYTES_MAX} bytes"
                self._outward.write.close()
                self._inward.reason = f"frames have at most {FRAME_BYTES_MAX} bytes"
                raise LinkOver(self._inward.reason)
            await self._outward.write.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkOver(self._close_reason or self._inward.reason) from error
        finally:
            self._sent += 1
            self._busy = trio.Event()

    async def _limit_closing(self, scope: trio.CancelScope) -> None:
        await self._closing.wait()
        await trio.sleep(link.CLOSE_TIMEOUT_S)
        scope.cancel()

    async def _watch_stall(self) -> None:
        while True:
            await self._busy.wait()
            for _ in range(link.STALL_LOOKS_MAX):
                sent = self._sent
                await trio.sleep(link.STALL_LOOK_S)
                if self._sent != sent or not self._busy.is_set():
                    break
            else:
                self._tally.add(Counter.LINKS_STALLED)
                self.close_soon("it reads nothing")
                return


@contextlib.asynccontextmanager
async def _running(end: MemoryLink) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        try:
            yield
        finally:
            end.close_soon("done")

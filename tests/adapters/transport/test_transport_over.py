"""A link over a member is TLS between its two ends: who passes its bytes on reads nothing, and changes
nothing unnoticed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from transport_rigs import id_of, tls_identity

from meshpeer.adapters.transport import TlsTransport
from meshpeer.core.membership.carriers import address_over
from meshpeer.runtime.ports import DialFault, Link, LinkOver

DIALLER, ANSWERER, CARRIER = 1, 2, 3
OVER = address_over(id_of(CARRIER), id_of(ANSWERER))
SECRET = b"\0the quick brown fox and its lazy dog"


async def test_both_ends_prove_themselves_and_know_who_carries() -> None:
    async with carrying() as it:
        assert (it.here.peer, it.here.carrier, it.here.dialled) == (id_of(ANSWERER), id_of(CARRIER), OVER)
        assert (it.there.peer, it.there.carrier, it.there.dialled) == (id_of(DIALLER), id_of(CARRIER), "")
        assert it.here.remote == it.there.remote == ""


async def test_the_carrier_sees_nothing_of_what_is_said() -> None:
    async with carrying() as it:
        it.here.send_soon(SECRET)
        assert await it.there.receive() == SECRET
        assert len(it.seen) > len(SECRET)
        for start in range(len(SECRET) - 8):
            assert SECRET[start : start + 8] not in it.seen


async def test_a_byte_that_the_carrier_changes_ends_the_link() -> None:
    async with carrying() as it:
        it.tampers = True
        it.here.send_soon(SECRET)
        with pytest.raises(LinkOver):
            await it.there.receive()


async def test_another_node_behind_the_carrier_is_not_taken_for_a_member() -> None:
    transport = TlsTransport(tls_identity(DIALLER, 1), ())
    stranger = TlsTransport(tls_identity(ANSWERER, 2), ())
    async with trio.open_nursery() as nursery:
        _lead_to(stranger, transport, nursery)
        with pytest.raises(DialFault) as raised:
            async with transport.dial([OVER]):
                pass
        assert raised.value.foreign
        nursery.cancel_scope.cancel()


async def test_who_can_dial_over_nobody_says_so() -> None:
    with pytest.raises(DialFault, match="over others"):
        async with TlsTransport(tls_identity(DIALLER, 1), ()).dial([OVER]):
            pass


# --- a carrier in memory ------------------------------------------------------------------------------------


@dataclass
class Carrying:
    here: Link = field(init=False)
    there: Link = field(init=False)
    seen: bytearray = field(default_factory=bytearray)
    tampers: bool = False

    async def pass_on(self, source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                self.seen += data
                changed = bytes((*data[:-1], data[-1] ^ 1)) if self.tampers else data
                await sink.send_all(changed)


@contextlib.asynccontextmanager
async def carrying() -> AsyncIterator[Carrying]:
    """Yields both ends of a link between two nodes over a third."""
    it = Carrying()
    dialler, answerer = (TlsTransport(tls_identity(node, 1), ()) for node in (DIALLER, ANSWERER))
    answered = trio.Event()

    async def handle(link: Link) -> None:
        it.there = link
        answered.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        async def connect(address: str) -> trio.abc.Stream:
            assert address == OVER
            mine, near = trio.testing.memory_stream_pair()
            far, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(it.pass_on, near, far)
            nursery.start_soon(it.pass_on, far, near)
            nursery.start_soon(answerer.accept_over, theirs, id_of(CARRIER), handle)
            return mine

        dialler.connect_over = connect
        async with dialler.dial([OVER]) as it.here:
            await answered.wait()
            yield it
        nursery.cancel_scope.cancel()


def _lead_to(answerer: TlsTransport, dialler: TlsTransport, nursery: trio.Nursery) -> None:
    async def connect(_: str) -> trio.abc.Stream:
        mine, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(answerer.accept_over, theirs, id_of(CARRIER), _never)
        return mine

    dialler.connect_over = connect


async def _never(_: Link) -> None:
    raise AssertionError("a stranger became a link")

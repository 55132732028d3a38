"""The transport's bounds, each driven past its end by strangers and by members that keep no rule."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from transport_rigs import LOOPBACK, Handler, TlsRig, tls_identity

from meshpeer.adapters.transport import TlsTransport, door, server
from meshpeer.adapters.transport.dialling import RESOURCE
from meshpeer.adapters.transport.door import HANDSHAKES_PER_SOURCE_MAX
from meshpeer.adapters.transport.reading import UNFINISHED_BYTES_MAX
from meshpeer.adapters.transport.server import LINKS_PER_PEER_MAX
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.errors import PeerFault
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.runtime.ports import DialFault, Link, LinkOver, Transport

PATIENCE_S = 10
MASKED = bytes(4)
PING = b"\x89\x80" + MASKED
LONG_PING = b"\x89\xfd" + MASKED + bytes(125)
EMPTY_FRAGMENT = b"\x00\x80" + MASKED
FIRST_FRAGMENT = b"\x02\x80" + MASKED
Secured = trio.SSLStream[trio.SocketStream]


# --- handshakes ---------------------------------------------------------------------------------------------


async def test_handshakes_of_one_address_are_bounded_and_others_get_in(patient: None) -> None:
    tally = Counters()
    async with (
        rig().serving(until_over, tally=tally) as (address, transport),
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(HANDSHAKES_PER_SOURCE_MAX):
            await mute(stack, address, "127.0.0.7")
        await until(lambda: under_way(transport) >= HANDSHAKES_PER_SOURCE_MAX)
        await until_cut(await mute(stack, address, "127.0.0.7"))
        assert tally.counted == {Counter.HANDSHAKES_REFUSED: 1}
        async with rig().dialler(2).dial([address]) as end:
            assert end.leaf


async def test_handshakes_of_all_addresses_are_bounded(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "HANDSHAKES_MAX", 32)
    tally = Counters()
    async with rig().serving(until_over, tally=tally) as (address, transport):
        async with contextlib.AsyncExitStack() as stack:
            for number in range(door.HANDSHAKES_MAX):
                await mute(stack, address, f"127.0.1.{number // HANDSHAKES_PER_SOURCE_MAX + 1}")
            await until(lambda: under_way(transport) >= door.HANDSHAKES_MAX)
            await until_cut(await mute(stack, address, "127.0.1.100"))
            assert tally.counted == {Counter.HANDSHAKES_REFUSED: 1}
        await until(lambda: tally.get(Counter.HANDSHAKES_FAILED) == door.HANDSHAKES_MAX)
        async with rig().dialler(2).dial([address]) as end:
            assert end.leaf
        assert under_way(transport) == 0


async def test_whoever_has_stood_longest_makes_room_for_a_member(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "HANDSHAKES_MAX", 16)
    monkeypatch.setattr(door, "STAY_MIN_S", 0)
    tally = Counters()
    async with (
        rig().serving(until_over, tally=tally) as (address, transport),
        contextlib.AsyncExitStack() as stack,
    ):
        standing = [await mute(stack, address, f"127.0.1.{number // 4 + 1}") for number in range(16)]
        await until(lambda: under_way(transport) >= 16)
        async with rig().dialler(2).dial([address]) as end:
            assert end.leaf
            await until_cut(standing[0])
        assert tally.counted == {Counter.HANDSHAKES_REFUSED: 1}
        assert under_way(transport) == 15


async def test_stranger_that_does_not_speak_first_is_cut_before_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_WORD_S", 0.05)
    tally = Counters()
    async with rig().serving(until_over, tally=tally) as (address, _):
        async with contextlib.AsyncExitStack() as stack:
            await until_cut(await mute(stack, address, LOOPBACK))
        assert tally.counted == {Counter.HANDSHAKES_FAILED: 1}


@pytest.mark.parametrize("secured", [False, True])
async def test_handshake_that_is_drawn_out_is_ended_in_time(
    monkeypatch: pytest.MonkeyPatch, secured: bool
) -> None:
    """A byte now and then keeps an idle time-out from striking; this one is of the whole."""
    monkeypatch.setattr(server, "HANDSHAKE_TIMEOUT_S", 0.3)
    tally = Counters()
    async with rig().serving(until_over, tally=tally) as (address, _):
        plain = await connect(address)
        stream: trio.abc.Stream = await secure(plain) if secured else plain
        words = b"GET " if secured else b"\x16\x03\x01\x7f\xff"
        with trio.fail_after(PATIENCE_S):
            await drip(stream, words)
        assert tally.get(Counter.HANDSHAKES_FAILED) == 1
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize(
    "header",
    [
        b"Sec-WebSocket-Protocol: \xff",
        b"Sec-WebSocket-Extensions: \xff",
        b"Sec-WebSocket-Version: \xff",
        b"Host: \xff",
    ],
)
async def test_rubbish_in_an_upgrade_ends_that_handshake_alone(header: bytes) -> None:
    tally = Counters()
    async with rig().serving(until_over, tally=tally) as (address, _):
        stream = await secure(await connect(address))
        await stream.send_all(request(header))
        await until_cut(stream)
        await trio.aclose_forcefully(stream)
        await until(lambda: tally.get(Counter.HANDSHAKES_FAILED) == 1)
        async with rig().dialler(2).dial([address]) as end:
            assert end.leaf


async def test_links_of_one_member_are_bounded_and_others_get_in() -> None:
    tally = Counters()
    async with rig().serving(until_over, tally=tally) as (address, _):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(LINKS_PER_PEER_MAX):
                await stack.enter_async_context(rig().dialler(2).dial([address]))
            with contextlib.suppress(DialFault):
                async with rig().dialler(2).dial([address]) as one_more:
                    with pytest.raises(LinkOver), trio.fail_after(PATIENCE_S):
                        await one_more.receive()
            assert tally.counted == {Counter.LINKS_REFUSED: 1}
            async with rig().dialler(3).dial([address]) as end:
                assert end.leaf
        await until_can_stay(address)


# --- frames -------------------------------------------------------------------------------------------------


async def test_frame_of_ten_megabytes_ends_the_link_at_once_and_costs_no_memory() -> None:
    faults: list[str] = []
    payload = bytes(10_000_000)
    header = b"\x82\xff" + len(payload).to_bytes(8, "big") + MASKED
    async with rig().serving(noting(faults)) as (address, _), by_hand(address) as stream:
        tracemalloc.start()
        try:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.send_all(header)
                for offset in range(0, len(payload), 16_384):
                    await stream.send_all(memoryview(payload)[offset : offset + 16_384])
            await until(lambda: bool(faults))
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert faults == [f"a frame of more than {FRAME_BYTES_MAX} bytes"]
    assert peak_bytes < 20 * FRAME_BYTES_MAX


@pytest.mark.parametrize("noise", [EMPTY_FRAGMENT, LONG_PING], ids=["fragments", "pings"])
async def test_noise_that_is_no_frame_is_bounded(noise: bytes) -> None:
    faults: list[str] = []
    tally = Counters()
    async with (
        rig().serving(noting(faults), tally=tally) as (address, _),
        by_hand(address) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(read_on, stream)
        await stream.send_all(FIRST_FRAGMENT if noise is EMPTY_FRAGMENT else noise)
        sent = 0
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while not faults and sent < 4 * UNFINISHED_BYTES_MAX:
                await stream.send_all(noise * 500)
                sent += len(noise) * 500
        await until(lambda: bool(faults))
        nursery.cancel_scope.cancel()
    assert faults == ["it sends what is no frame"]
    assert tally.get(Counter.FRAMES_REFUSED) == 1


async def test_whole_frames_never_add_up_to_noise() -> None:
    got = 0

    async def count(end: Link) -> None:
        nonlocal got
        with contextlib.suppress(LinkOver):
            while True:
                await end.receive()
                got += 1

    frame = b"\1" + bytes(50_000)
    frames = 2 * UNFINISHED_BYTES_MAX // len(frame)
    async with rig().serving(count) as (address, _), rig().dialler(2).dial([address]) as end:
        for _ in range(frames):
            await end.send_bulk(frame)
        await until(lambda: got == frames)


@pytest.mark.parametrize("noise", [PING, b"\xff\x80" + MASKED, b"\x88\x80" + MASKED])
async def test_noise_during_our_goodbye_ends_the_link_alone(noise: bytes) -> None:
    async def close(end: Link) -> None:
        end.close_soon("enough")
        await until_over(end)

    async with rig().serving(close) as (address, _):
        async with by_hand(address) as stream:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.send_all(noise * 50)
            await until_cut(stream)
        async with rig().dialler(2).dial([address]) as end:
            assert end.leaf


# --- whom we dial -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "is a member that serves no /meshpeer/v1"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nhello", "is a member that serves no /meshpeer/v1"),
        (b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "ended the handshake"),
        (b"rubbish\r\n\r\n", "ended the handshake"),
        (b"\x00\xff\xfe\r\n\r\n", "ended the handshake"),
    ],
)
async def test_member_that_answers_rubbish_is_a_dial_fault(answer: bytes, what: str) -> None:
    async def talk(stream: Secured) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async with member(talk) as address:
        fault = await cant_dial(address)
    assert fault.what == f"{address} {what}"
    assert fault.foreign


@pytest.mark.parametrize("noise", [b"\x89\0", b"\xff\0", b"\x88\0", b"\x00\x05hello"])
async def test_noise_of_a_dialled_member_ends_the_link_alone(noise: bytes) -> None:
    async def talk(stream: Secured) -> None:
        await accept_upgrade(stream)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(noise * 50)

    async with member(talk) as address, rig().dialler(2).dial([address]) as end:
        end.close_soon("enough")
        with trio.fail_after(PATIENCE_S):
            await until_over(end)


# --- helpers ------------------------------------------------------------------------------------------------


def rig() -> TlsRig:
    return TlsRig()


async def until_over(end: Link) -> None:
    with contextlib.suppress(LinkOver, PeerFault):
        while True:
            await end.receive()


def noting(faults: list[str]) -> Handler:
    async def note(end: Link) -> None:
        try:
            while True:
                await end.receive()
        except PeerFault as fault:
            faults.append(fault.what)

    return note


async def cant_dial(address: str) -> DialFault:
    with trio.fail_after(PATIENCE_S):
        try:
            async with rig().dialler(2).dial([address]):
                raise AssertionError("there was somebody to dial")
        except DialFault as fault:
            return fault


async def until_can_stay(address: str) -> None:
    """Waits until a member's links count for it no more."""

    async def stays() -> bool:
        async with rig().dialler(2).dial([address]) as end:
            with trio.move_on_after(0.2) as scope:
                await until_over(end)
            return scope.cancelled_caught

    with trio.fail_after(PATIENCE_S):
        while not await stays():
            await trio.lowlevel.checkpoint()


async def connect(address: str, source: str | None = None) -> trio.SocketStream:
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port), local_address=source)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends nobody away for how long it took: machines under test are slow."""
    monkeypatch.setattr(server, "HANDSHAKE_TIMEOUT_S", 60)
    monkeypatch.setattr(server, "FIRST_WORD_S", 60)
    monkeypatch.setattr(door, "STAY_MIN_S", 60)


async def mute(stack: contextlib.AsyncExitStack, address: str, source: str) -> trio.SocketStream:
    """Connects from an address of this machine, and says nothing until the stack ends."""
    stream = await connect(address, source)
    stack.push_async_callback(stream.aclose)
    return stream


def under_way(transport: Transport) -> int:
    assert isinstance(transport, TlsTransport)
    return len(transport._door)


async def secure(plain: trio.SocketStream) -> Secured:
    """Shows a member's certificate: what follows is said by somebody who is in."""
    stream = trio.SSLStream(plain, tls_identity(4, 1).client, https_compatible=True)
    await stream.do_handshake()
    return stream


def request(*headers: bytes) -> bytes:
    names = {header.split(b":")[0] for header in headers}
    usual = (
        b"Host: meshpeer",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)),
    )
    kept = [header for header in usual if header.split(b":")[0] not in names]
    return b"\r\n".join([b"GET %s HTTP/1.1" % RESOURCE.encode(), *kept, *headers, b"", b""])


@contextlib.asynccontextmanager
async def by_hand(address: str) -> AsyncIterator[Secured]:
    """A member's link whose every byte the test chooses."""
    stream = await secure(await connect(address))
    try:
        await stream.send_all(request())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 101 ")
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def drip(stream: trio.abc.Stream, words: bytes) -> None:
    """Says a byte at a time until it is cut off."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for byte in itertools.chain(words, itertools.repeat(0x41)):
            await stream.send_all(bytes([byte]))
            with trio.move_on_after(0.02):
                await stream.receive_some()
                return


async def read_on(stream: Secured) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await stream.receive_some():
            pass


async def until_cut(stream: trio.abc.Stream) -> None:
    with trio.fail_after(PATIENCE_S), contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.lowlevel.checkpoint()


@contextlib.asynccontextmanager
async def member(talk: Callable[[Secured], Awaitable[None]]) -> AsyncIterator[str]:
    """A member that answers dials in its own way."""

    async def answer(plain: trio.SocketStream) -> None:
        stream = trio.SSLStream(plain, tls_identity(1, 1).server, server_side=True, https_compatible=True)
        await talk(stream)
        await read_on(stream)
        await trio.aclose_forcefully(stream)

    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        yield f"{LOOPBACK}:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def accept_upgrade(stream: Secured) -> None:
    asked = b""
    while b"\r\n\r\n" not in asked:
        asked += await stream.receive_some()
    (key,) = (
        line.split(b": ")[1] for line in asked.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )

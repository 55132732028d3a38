"""How links end: no task is left waiting for a peer that is gone, deaf, mute or no member."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing
import trio_websocket

from meshpeer.adapters.transport import (
    TlsIdentity,
    TlsTransport,
    dialling,
    door,
    link,
    open_transport,
    server,
)
from meshpeer.adapters.transport.dialling import RESOURCE
from meshpeer.adapters.transport.door import HANDSHAKES_PER_SOURCE_MAX
from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.certificates import make_durable_leaf, make_issuer, make_root
from meshpeer.core.identity.constraints import ALL
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.runtime.ports import DialFault, Link, LinkOver

NOW = 1_800_000_000
LOOPBACK = "127.0.0.1"
PATIENCE_S = 10
ROOT = make_root(b"r" * 32, now_unix_s=NOW, serial=bytes(8))
ISSUER = make_issuer(ROOT, b"i" * 32, now_unix_s=NOW, serial=bytes(8))
Handler = Callable[[Link], Awaitable[None]]


# --- peers that go away -------------------------------------------------------------------------------------


async def test_reason_of_a_close_reaches_the_other_end() -> None:
    async def close(end: Link) -> None:
        end.close_soon("you are revoked")
        await until_over(end)

    async with serving(close) as address, dialler().dial([address]) as end:
        with pytest.raises(LinkOver, match="you are revoked"), trio.fail_after(PATIENCE_S):
            await end.receive()


async def test_vanished_peer_ends_the_link_and_whoever_waits_to_send() -> None:
    async with vanishing() as (address, vanish), dialler().dial([address]) as end:
        outcomes: list[str] = []
        async with trio.open_nursery() as nursery:
            for _ in range(300):
                end.send_soon(bytes(60_000))
            nursery.start_soon(bulk_into, end, outcomes)
            nursery.start_soon(bulk_into, end, outcomes)
            await trio.testing.wait_all_tasks_blocked()
            vanish()
            with pytest.raises(LinkOver), trio.fail_after(PATIENCE_S):
                await end.receive()
        assert outcomes == ["over", "over"]
        assert not end.send_soon(b"\0late")
        with pytest.raises(LinkOver), trio.fail_after(PATIENCE_S):
            await end.send_bulk(b"\1late")


async def test_deaf_peer_is_cut_off_when_the_link_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP would go on sending for a quarter of an hour."""
    monkeypatch.setattr(link, "CLOSE_TIMEOUT_S", 0.1)
    async with deaf() as address, dialler().dial([address]) as end:
        while end.send_soon(bytes(60_000)):
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        end.close_soon("silent")
        with pytest.raises(LinkOver, match="silent"), trio.fail_after(PATIENCE_S):
            await end.receive()


async def test_cancelled_link_sends_what_was_queued_and_ends_at_the_other_end_too() -> None:
    got: list[bytes] = []
    over = trio.Event()

    async def wait(end: Link) -> None:
        with contextlib.suppress(LinkOver):
            while True:
                got.append(await end.receive())
        over.set()

    async with serving(wait) as address:
        with trio.CancelScope() as scope:
            async with dialler().dial([address]) as end:
                for number in range(20):
                    end.send_soon(bytes([0, number]))
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        with trio.fail_after(PATIENCE_S):
            await over.wait()
    assert got == [bytes([0, number]) for number in range(20)]


async def test_frames_before_the_end_are_read_first() -> None:
    async def burst(end: Link) -> None:
        for number in range(40):
            end.send_soon(bytes([0, number]))

    async with serving(burst) as address, dialler().dial([address]) as end:
        got: list[bytes] = []
        with contextlib.suppress(LinkOver), trio.fail_after(PATIENCE_S):
            while True:
                got.append(await end.receive())
    assert got == [bytes([0, number]) for number in range(40)]


async def test_largest_frame_gets_through() -> None:
    async def back(end: Link) -> None:
        end.send_soon(await end.receive())
        await until_over(end)

    frame = bytes(FRAME_BYTES_MAX)
    async with serving(back) as address, dialler().dial([address]) as end:
        await end.send_bulk(frame)
        with trio.fail_after(PATIENCE_S):
            assert await end.receive() == frame


# --- strangers ----------------------------------------------------------------------------------------------


async def test_member_that_sends_text_is_at_fault() -> None:
    faults: list[str] = []
    done = trio.Event()

    async def listen(end: Link) -> None:
        try:
            await end.receive()
        except PeerFault as fault:
            faults.append(fault.what)
        done.set()

    async with serving(listen) as address, by_hand(address, RESOURCE) as socket:
        await socket.send_message("hello")
        with trio.fail_after(PATIENCE_S):
            await done.wait()
    assert faults == ["a text message on a link"]


async def test_other_resources_are_refused_and_the_port_stays_open() -> None:
    async with serving(until_over) as address:
        for _ in range(HANDSHAKES_PER_SOURCE_MAX + 2):
            with pytest.raises(ExceptionGroup) as group, trio.fail_after(PATIENCE_S):
                async with by_hand(address, "/metrics"):
                    raise AssertionError("another resource was served")
            assert group.group_contains(trio_websocket.ConnectionRejected)
        async with dialler().dial([address]) as end:
            assert end.leaf


async def test_strangers_that_say_nothing_do_not_use_up_more_than_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_TIMEOUT_S", 60)
    monkeypatch.setattr(server, "FIRST_WORD_S", 60)
    monkeypatch.setattr(door, "STAY_MIN_S", 60)
    async with serving(until_over) as address:
        port = int(address.rpartition(":")[2])
        mute = [await trio.open_tcp_stream(LOOPBACK, port) for _ in range(HANDSHAKES_PER_SOURCE_MAX)]
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(DialFault):
            async with dialler().dial([address]):
                raise AssertionError
        for stream in mute:
            await stream.aclose()
        await until(lambda: can_dial(address))


async def test_stranger_that_says_nothing_is_dropped_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_TIMEOUT_S", 0.1)
    async with serving(until_over) as address:
        stream = await trio.open_tcp_stream(LOOPBACK, int(address.rpartition(":")[2]))
        with trio.fail_after(PATIENCE_S):
            assert await stream.receive_some() == b""
        await stream.aclose()


async def test_seed_that_accepts_and_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "HANDSHAKE_TIMEOUT_S", 0.1)
    async with deaf_to_tls() as address:
        with pytest.raises(DialFault, match="accepts connections and then says nothing") as fault:
            async with dialler().dial([address]):
                raise AssertionError
    assert fault.value.foreign
    assert not fault.value.refused


async def test_rubbish_on_the_port_harms_nobody() -> None:
    async with serving(until_over) as address:
        for rubbish in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(100_000), b"\x16\x03\x01\xff\xff" + bytes(100)):
            stream = await trio.open_tcp_stream(LOOPBACK, int(address.rpartition(":")[2]))
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(rubbish)
                await stream.send_eof()
                with trio.fail_after(PATIENCE_S):
                    while await stream.receive_some():
                        pass
            await stream.aclose()
        await until(lambda: can_dial(address))


async def test_every_address_that_failed_is_named() -> None:
    async with open_transport(identity(1), 0, LOOPBACK) as gone:
        dead = f"{LOOPBACK}:{gone.port}"
    with pytest.raises(DialFault) as fault:
        async with dialler().dial([dead, "nobody"]):
            raise AssertionError
    assert fault.value.what == f"{dead} refuses connections; 'nobody' is not HOST:PORT"
    assert fault.value.refused
    with pytest.raises(DialFault, match="no address"):
        async with dialler().dial([]):
            raise AssertionError


# --- helpers ------------------------------------------------------------------------------------------------


def identity(number: int) -> TlsIdentity:
    key = SigningKey(bytes([number]) * 32)
    leaf = make_durable_leaf(
        ISSUER, key.public, capabilities=ALL, admitted_at=NOW, now_unix_s=NOW, serial=bytes([number]) * 8
    )
    return TlsIdentity(seed=key.seed, chain=(leaf, ISSUER.certificate), roots=(ROOT.certificate,))


def dialler() -> TlsTransport:
    return TlsTransport(identity(2), ())


async def until_over(end: Link) -> None:
    with contextlib.suppress(LinkOver):
        while True:
            await end.receive()


async def bulk_into(end: Link, outcomes: list[str]) -> None:
    with trio.move_on_after(PATIENCE_S):
        try:
            while True:
                await end.send_bulk(bytes(60_000))
        except LinkOver:
            outcomes.append("over")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not await condition():
            await trio.lowlevel.checkpoint()


async def can_dial(address: str) -> bool:
    try:
        async with dialler().dial([address]):
            return True
    except DialFault:
        return False


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    async with open_transport(identity(1), 0, LOOPBACK) as transport, trio.open_nursery() as nursery:
        nursery.start_soon(transport.serve, handler)
        yield f"{LOOPBACK}:{transport.port}"
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def listening(talk: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, talk, listeners)
        yield f"{LOOPBACK}:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def vanishing() -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A member that reads nothing after the greeting, and whose machine can be made to vanish."""
    gone = trio.Event()

    async def talk(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, identity(1).server, server_side=True, https_compatible=True)
        await upgrade_by_hand(secured)
        await gone.wait()
        await trio.aclose_forcefully(secured)

    async with listening(talk) as address:
        yield address, gone.set


@contextlib.asynccontextmanager
async def deaf() -> AsyncIterator[str]:
    async with vanishing() as (address, _):
        yield address


@contextlib.asynccontextmanager
async def deaf_to_tls() -> AsyncIterator[str]:
    async def talk(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with listening(talk) as address:
        yield address


async def upgrade_by_hand(secured: trio.SSLStream[trio.SocketStream]) -> None:
    """Answers the WebSocket handshake without a task that goes on reading."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += await secured.receive_some()
    key = next(
        line.split(b": ")[1]
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    await secured.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


@contextlib.asynccontextmanager
async def by_hand(address: str, resource: str) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """A member that does not follow our rules beyond TLS."""
    host, _, port = address.rpartition(":")
    context: ssl.SSLContext = identity(3).client
    secured = trio.SSLStream(await trio.open_tcp_stream(host, int(port)), context, https_compatible=True)
    try:
        async with trio.open_nursery() as nursery:
            yield await trio_websocket.wrap_client_stream(nursery, secured, "meshpeer", resource)
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(secured)

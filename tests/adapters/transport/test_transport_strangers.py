"""A stranger gets nothing past TLS: no byte but TLS's own, no link; and the port stays open to members."""

from __future__ import annotations

import contextlib
import random
import ssl
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
import trio
from transport_rigs import LOOPBACK, NOW, TlsRig, authorities, key_of, tls_identity

from meshpeer.adapters.transport import TlsIdentity, server
from meshpeer.adapters.transport.dialling import RESOURCE
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.identity.certificates import make_durable_leaf, make_issuer, make_root
from meshpeer.core.identity.constraints import ALL
from meshpeer.runtime.ports import Link

PATIENCE_S = 10
ALERT = 0x15
HELD_BYTES_MAX = 4 * 1024 * 1024
UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" % RESOURCE.encode()
)
Stranger = Callable[[trio.SocketStream], Awaitable[bytes]]


async def in_plain_http(stream: trio.SocketStream) -> bytes:
    await stream.send_all(UPGRADE)
    return without_alerts(await rest_of(stream))


async def by_tls_of_yesterday(stream: trio.SocketStream) -> bytes:
    context = client()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(trio.BrokenResourceError):
        await past_tls(stream, context)
    return b""


async def without_a_certificate(stream: trio.SocketStream) -> bytes:
    return await past_tls(stream, client())


async def of_another_mesh(stream: trio.SocketStream) -> bytes:
    return await past_tls(stream, showing(tls_identity(4, 2)))


async def signed_by_itself(stream: trio.SocketStream) -> bytes:
    """Shows a chain of our form whose root is its own: made as ours was, with another key."""
    root = make_root(b"\xee" * 32, now_unix_s=NOW, serial=bytes([1]) * 8)
    issuer = make_issuer(root, b"\xef" * 32, now_unix_s=NOW, serial=bytes([1]) * 8)
    leaf = make_durable_leaf(
        issuer, key_of(4).public, capabilities=ALL, admitted_at=NOW, now_unix_s=NOW, serial=bytes([4]) * 8
    )
    ours, _ = authorities(1)
    shown = TlsIdentity(
        seed=key_of(4).seed, chain=(leaf, issuer.certificate, root.certificate), roots=(ours.certificate,)
    )
    return await past_tls(stream, showing(shown))


async def with_anothers_certificate(stream: trio.SocketStream) -> bytes:
    """Shows a member's chain, which is no secret, without its key: not even its own TLS takes that."""
    with pytest.raises(ssl.SSLError):
        TlsIdentity(seed=b"\x01" * 32, chain=tls_chain(), roots=(authorities(1)[0].certificate,))
    return b""


async def that_says_hello_for_ever(stream: trio.SocketStream) -> bytes:
    """Announces a ClientHello of 16 MiB and sends record after record of it."""
    record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(16_384 - 4)
    with contextlib.suppress(trio.BrokenResourceError):
        for _ in range(1_024):
            await stream.send_all(record)
    return without_alerts(await rest_of(stream))


STRANGERS: list[Stranger] = [
    in_plain_http,
    by_tls_of_yesterday,
    without_a_certificate,
    of_another_mesh,
    signed_by_itself,
    with_anothers_certificate,
    that_says_hello_for_ever,
]


@pytest.mark.parametrize("stranger", STRANGERS, ids=lambda one: one.__name__)
async def test_stranger_gets_nothing_past_tls(stranger: Stranger) -> None:
    links: list[Link] = []
    tally = Counters()

    async def take(link: Link) -> None:
        links.append(link)
        await trio.sleep_forever()

    async with rig().serving(take, tally=tally) as (address, _):
        stream = await connect(address)
        with trio.fail_after(PATIENCE_S):
            assert await stranger(stream) == b""
        await trio.aclose_forcefully(stream)
        assert not links
        async with rig().dialler(2).dial([address]) as end:
            assert end.leaf
        assert set(tally.counted) <= {Counter.HANDSHAKES_FAILED}


async def test_a_hello_without_end_holds_no_memory() -> None:
    async with rig().serving(until_over) as (address, _):
        tracemalloc.start()
        try:
            stream = await connect(address)
            await that_says_hello_for_ever(stream)
            _, peak = tracemalloc.get_traced_memory()
            await trio.aclose_forcefully(stream)
        finally:
            tracemalloc.stop()
        assert peak <= HELD_BYTES_MAX


async def test_no_altered_hello_harms_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_TIMEOUT_S", 0.2)
    dice, hello = random.Random(31), client_hello()
    async with rig().serving(until_over) as (address, transport):
        for _ in range(60):
            altered = bytearray(hello)
            for _ in range(dice.randrange(1, 6)):
                altered[dice.randrange(len(altered))] = dice.randrange(256)
            stream = await connect(address)
            await stream.send_all(altered[: dice.choice((len(altered), dice.randrange(1, len(altered))))])
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_eof()
                assert (await rest_of(stream))[:1] in (b"", b"\x15", b"\x16")
            await trio.aclose_forcefully(stream)
        async with rig().dialler(2).dial([address]) as end:
            assert end.leaf
        assert transport.port


# --- helpers ------------------------------------------------------------------------------------------------


def rig() -> TlsRig:
    return TlsRig()


def tls_chain() -> tuple[bytes, ...]:
    _, issuer = authorities(1)
    leaf = make_durable_leaf(
        issuer, key_of(2).public, capabilities=ALL, admitted_at=NOW, now_unix_s=NOW, serial=bytes([2]) * 8
    )
    return (leaf, issuer.certificate)


def client() -> ssl.SSLContext:
    """Believes anybody: a stranger is not choosy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def showing(identity: TlsIdentity) -> ssl.SSLContext:
    identity.client.verify_mode = ssl.CERT_NONE
    return identity.client


async def past_tls(stream: trio.SocketStream, context: ssl.SSLContext) -> bytes:
    """Shakes hands, asks for a WebSocket and returns what comes back through TLS."""
    secured = trio.SSLStream(stream, context, https_compatible=True)
    await secured.do_handshake()
    heard = b""
    with contextlib.suppress(trio.BrokenResourceError):
        await secured.send_all(UPGRADE)
        while piece := await secured.receive_some():
            heard += piece
    return heard


async def rest_of(stream: trio.abc.ReceiveStream) -> bytes:
    heard = b""
    with contextlib.suppress(trio.BrokenResourceError):
        while piece := await stream.receive_some():
            heard += piece
    return heard


def without_alerts(said: bytes) -> bytes:
    """Returns what is left of TLS records once alerts are taken out (RFC 8446, section 5.1)."""
    while len(said) >= 5 and said[0] == ALERT:
        said = said[5 + int.from_bytes(said[3:5], "big") :]
    return said


def client_hello() -> bytes:
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client().wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()


async def connect(address: str) -> trio.SocketStream:
    return await trio.open_tcp_stream(LOOPBACK, int(address.rpartition(":")[2]))


async def until_over(link: Link) -> None:
    await trio.sleep_forever()

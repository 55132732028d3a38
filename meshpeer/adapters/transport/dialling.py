"""Dials: finds the address that answers, and makes an authenticated WebSocket of it.

Every way in which a stranger, a firewall or another mesh answers ends in one ``DialFault`` that says what it
means to a person. Which member is reached is for the caller to judge.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence

import trio
import trio_websocket

from meshpeer.adapters.transport.link import wrap_client
from meshpeer.adapters.transport.reading import MeteredStream, Reader
from meshpeer.adapters.transport.tls import TlsIdentity
from meshpeer.core.addressing.ports import is_port
from meshpeer.runtime.ports import DialFault

RESOURCE = "/meshpeer/v1"
CONNECT_TIMEOUT_S = 4.0
HANDSHAKE_TIMEOUT_S = 5.0
STAGGER_S = 0.25
"""Pause before the next address is tried beside the one that has not answered (RFC 8305, section 5)."""
UNSENT_BYTES_MAX = 128 * 1024
ANSWERED_STAGGER_S = 2.0
"""The same where it took the connection and is busy with the handshake: another would only add to that."""

Secured = trio.SSLStream[trio.abc.Stream]
Connect = Callable[[str], Awaitable[trio.abc.Stream]]
"""Returns a stream of bytes to whoever answers at an address; raises ``DialFault``."""


async def race(identity: TlsIdentity, addresses: Sequence[str], connect: Connect) -> tuple[str, Secured]:
    """Connects to the addresses, staggered; the first TLS handshake that holds wins (RFC 8305)."""
    won: list[tuple[str, Secured]] = []
    faults: list[DialFault] = []

    async def attempt(address: str, answered: trio.Event, failed: trio.Event) -> None:
        try:
            stream = await _secure(identity, address, await connect(address), answered)
        except DialFault as fault:
            faults.append(fault)
            answered.set()
            failed.set()
            return
        if won:
            await trio.aclose_forcefully(stream)
            return
        won.append((address, stream))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for address in addresses:
            answered, failed = trio.Event(), trio.Event()
            nursery.start_soon(attempt, address, answered, failed)
            with trio.move_on_after(STAGGER_S):
                await answered.wait()
            if answered.is_set():
                with trio.move_on_after(ANSWERED_STAGGER_S):
                    await failed.wait()
    if won:
        return won[0]
    if len(faults) == 1:
        raise faults[0]
    if not faults:
        raise DialFault("there is no address to dial")
    raise DialFault(
        "; ".join(fault.what for fault in faults),
        next((fault.hint for fault in faults if fault.foreign), faults[0].hint),
        refused=any(fault.refused for fault in faults),
        foreign=any(fault.foreign for fault in faults),
        cut=any(fault.cut for fault in faults),
    )


async def upgrade(
    address: str, stream: MeteredStream, nursery: trio.Nursery
) -> trio_websocket.WebSocketConnection:
    """Makes a WebSocket of a TLS stream; raises ``DialFault`` where the other side says no, or nothing.

    In TLS 1.3 a client learns only now that its certificate is not wanted: the server judges it after the
    client's last word of the handshake.
    """
    reader = Reader(nursery)
    opened: list[trio_websocket.WebSocketConnection] = []

    async def open_socket() -> None:
        opened.append(await wrap_client(reader, stream, "meshpeer", RESOURCE))  # type: ignore[arg-type]
        opening.cancel_scope.cancel()

    with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
        async with trio.open_nursery() as opening:
            opening.start_soon(open_socket)
            await reader.ended.wait()
            opening.cancel_scope.cancel()
    if opened:
        return opened[0]
    if isinstance(reader.error, trio_websocket.ConnectionRejected):
        raise DialFault(
            f"{address} is a member that serves no {RESOURCE}",
            "does it run another version of meshpeer?",
            foreign=True,
        )
    if reader.error is not None and not isinstance(reader.error, trio_websocket.ConnectionClosed):
        raise untrusted(address, reader.error)
    if reader.ended.is_set():
        what = f"{address} does not take this node for a member of its mesh"
        raise DialFault(what, "is the invite of the same mesh, and not revoked?", foreign=True, cut=True)
    raise DialFault(
        f"{address} accepts connections and then says nothing", "is it a meshpeer node?", foreign=True
    )


def split_address(address: str) -> tuple[str, int]:
    """Splits ``host:port`` (IPv6 in brackets); raises ``DialFault`` for anything else."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and is_port(port)):
        raise DialFault(
            f"{address!r} is not HOST:PORT", "for example 203.0.113.9:51821 or [2001:db8::1]:51821"
        )
    return host.strip("[]"), int(port)


async def connect_tcp(address: str) -> trio.abc.Stream:
    """Implements ``Connect`` for addresses on networks."""
    host, port = split_address(address)
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            return with_short_queue(await trio.open_tcp_stream(host, port))
    except trio.TooSlowError as error:
        raise DialFault(
            f"{address} does not answer",
            "is the machine up, and TCP to this port open in its firewall and router?",
        ) from error
    except OSError as error:
        refused = any(isinstance(one, ConnectionRefusedError) for one in _causes(error))
        what = (
            f"{address} refuses connections"
            if refused
            else f"{address} can't be reached: {_innermost(error)}"
        )
        raise DialFault(
            what, "is meshpeer running there, and is this its control port?", refused=refused
        ) from error


def with_short_queue(stream: trio.abc.Stream) -> trio.abc.Stream:
    """Lets the kernel take little more of a TCP connection than it can send: what it has taken, no control
    frame overtakes (tcp(7), TCP_NOTSENT_LOWAT). Returns the stream."""
    if isinstance(stream, trio.SocketStream):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)
    return stream


async def _secure(
    identity: TlsIdentity, address: str, plain: trio.abc.Stream, answered: trio.Event
) -> Secured:
    answered.set()
    secured: Secured = trio.SSLStream(plain, identity.client, server_hostname=None, https_compatible=True)
    try:
        with trio.fail_after(HANDSHAKE_TIMEOUT_S):
            await secured.do_handshake()
    except trio.TooSlowError as error:
        await trio.aclose_forcefully(secured)
        raise DialFault(
            f"{address} accepts connections and then says nothing", "is it a meshpeer node?", foreign=True
        ) from error
    except (trio.BrokenResourceError, ssl.SSLError) as error:
        await trio.aclose_forcefully(secured)
        raise untrusted(address, error) from error
    except BaseException:
        await trio.aclose_forcefully(secured)
        raise
    return secured


def untrusted(address: str, error: BaseException) -> DialFault:
    """Says what a failed handshake means to a person."""
    text = repr(error.__cause__ or error)
    if isinstance(error, trio_websocket.HandshakeError):
        text = f"{text} {error!r}"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        what, hint = (
            f"{address} is not a member of this mesh",
            "is the address right, and the invite of the same mesh?",
        )
    elif (
        "WRONG_VERSION" in text
        or "UNEXPECTED_EOF" in text
        or "RECORD_LAYER" in text
        or "PACKET_LENGTH" in text
        or "HTTP_REQUEST" in text
    ):
        what, hint = (
            f"{address} does not speak meshpeer's protocol",
            "is this the control port (51821 by default)?",
        )
    elif "ALERT" in text.upper() or "unknown ca" in text.lower():
        what, hint = (
            f"{address} does not take this node for a member of its mesh",
            "is the invite of the same mesh, and not revoked?",
        )
    else:
        what, hint = f"{address} ended the handshake", "is it a meshpeer node of the same mesh?"
    return DialFault(what, hint, foreign=True, cut="UNEXPECTED_EOF" in text or "ConnectionResetError" in text)


def _innermost(error: BaseException) -> str:
    last = _causes(error)[-1]
    if isinstance(last, socket.gaierror):
        return "the name is unknown"
    return getattr(last, "strerror", None) or str(last)


def _causes(error: BaseException) -> list[BaseException]:
    """Returns an error and all that it was raised from, outermost first."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    above = error.__cause__ or error.__context__
    return [error, *(one for cause in (above, *inner) if cause is not None for one in _causes(cause))]

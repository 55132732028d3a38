"""Accepts and dials links. One resource, ``/meshpeer/v1``; everything before the TLS handshake's end is
OpenSSL's."""

from __future__ import annotations

import collections
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio
import trio_websocket

from meshpeer.adapters.transport.link import WebSocketLink, running, wrap_client, wrap_server
from meshpeer.adapters.transport.tls import TlsIdentity, peer_of
from meshpeer.core.errors import EnvironmentFault, PeerFault
from meshpeer.runtime.ports import DialFault, Link

RESOURCE = "/meshpeer/v1"
CONNECT_TIMEOUT_S = 4.0
HANDSHAKE_TIMEOUT_S = 5.0
STAGGER_S = 0.25
"""Pause before the next address is tried beside the one that has not answered (RFC 8305, section 5)."""
HANDSHAKES_MAX = 32
HANDSHAKES_PER_ADDRESS_MAX = 8

_Stream = trio.SSLStream[trio.SocketStream]


@contextlib.asynccontextmanager
async def open_transport(
    identity: TlsIdentity, port: int, host: str | None = None
) -> AsyncIterator[TlsTransport]:
    """Binds the control port (0 picks a free one); raises ``EnvironmentFault`` where it is taken."""
    listeners = await _listen(port, host)
    try:
        yield TlsTransport(identity, listeners)
    finally:
        for listener in listeners:
            await listener.aclose()


class TlsTransport:
    """Implements ``runtime.ports.Transport``."""

    def __init__(self, identity: TlsIdentity, listeners: Sequence[trio.SocketListener]) -> None:
        self._identity = identity
        self._listeners = listeners
        self._handshakes: collections.Counter[str] = collections.Counter()

    @property
    def port(self) -> int:
        return int(self._listeners[0].socket.getsockname()[1])

    def show(self, chain: Sequence[bytes]) -> None:
        self._identity.show(chain)

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        async def accept(stream: trio.SocketStream) -> None:
            await self._accept(stream, handler)

        await trio.serve_listeners(accept, list(self._listeners))

    @contextlib.asynccontextmanager
    async def dial(self, addresses: Sequence[str]) -> AsyncIterator[Link]:
        address, stream = await self._race(addresses)
        fault: DialFault | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    leaf, remote = _proof(stream), _remote(stream.transport_stream)
                    shown = self._identity.shown_by(stream.context)
                    opened = await _upgrade(address, stream, nursery)
                except DialFault as error:
                    fault = error
                except PeerFault as error:
                    fault = DialFault(f"{address}: {error.what}", error.hint, foreign=True)
                else:
                    link = WebSocketLink(
                        opened,
                        stream,
                        peer=peer_of(leaf),
                        leaf=leaf,
                        remote=remote,
                        dialled=address,
                        shown=shown,
                    )
                    async with running(link):
                        yield link
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)
        if fault is not None:
            raise fault

    async def _accept(self, stream: trio.SocketStream, handler: Callable[[Link], Awaitable[None]]) -> None:
        """Runs one incoming link; whatever a stranger does ends here."""
        remote = _remote(stream)
        host = remote.rpartition(":")[0]
        if self._handshakes.total() >= HANDSHAKES_MAX or self._handshakes[host] >= HANDSHAKES_PER_ADDRESS_MAX:
            await trio.aclose_forcefully(stream)
            return
        secured: _Stream = trio.SSLStream(
            stream, self._identity.server, server_side=True, https_compatible=True
        )
        self._handshakes[host] += 1
        try:
            async with trio.open_nursery() as nursery:
                try:
                    with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                        await secured.do_handshake()
                        leaf, shown = _proof(secured), self._identity.shown_by(secured.context)
                        request = await wrap_server(nursery, secured)
                        if request.path != RESOURCE:
                            await request.reject(404)
                            return
                        opened = await request.accept()
                finally:
                    self._handshakes[host] -= 1
                    self._handshakes += collections.Counter()
                async with running(
                    WebSocketLink(
                        opened,
                        secured,
                        peer=peer_of(leaf),
                        leaf=leaf,
                        remote=remote,
                        dialled="",
                        shown=shown,
                    )
                ) as link:
                    await handler(link)
                nursery.cancel_scope.cancel()
        except* (
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
            trio_websocket.HandshakeError,
            trio_websocket.ConnectionClosed,
            ssl.SSLError,
            PeerFault,
        ):
            pass
        finally:
            await trio.aclose_forcefully(secured)

    async def _race(self, addresses: Sequence[str]) -> tuple[str, _Stream]:
        """Connects to the addresses, staggered; the first TLS handshake that holds wins (RFC 8305)."""
        won: list[tuple[str, _Stream]] = []
        faults: list[DialFault] = []

        async def attempt(address: str, failed: trio.Event) -> None:
            try:
                stream = await self._connect(address)
            except DialFault as fault:
                faults.append(fault)
                failed.set()
                return
            if won:
                await trio.aclose_forcefully(stream)
                return
            won.append((address, stream))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(STAGGER_S):
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
        )

    async def _connect(self, address: str) -> _Stream:
        host, port = split_address(address)
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                plain = await trio.open_tcp_stream(host, port)
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
        secured: _Stream = trio.SSLStream(
            plain, self._identity.client, server_hostname=None, https_compatible=True
        )
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
            raise _untrusted(address, error) from error
        except BaseException:
            await trio.aclose_forcefully(secured)
            raise
        return secured


def split_address(address: str) -> tuple[str, int]:
    """Splits ``host:port`` (IPv6 in brackets); raises ``DialFault`` for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not host or not 0 < int(port) < 65_536:
        raise DialFault(
            f"{address!r} is not HOST:PORT", "for example 203.0.113.9:51821 or [2001:db8::1]:51821"
        )
    return host.strip("[]"), int(port)


async def _listen(port: int, host: str | None) -> list[trio.SocketListener]:
    hint = "stop what uses it (ss -ltnp shows it), or choose another with --control-port"
    try:
        if host is not None:
            return list(await trio.open_tcp_listeners(port, host=host))
        first = (await trio.open_tcp_listeners(port, host="0.0.0.0"))[0]
        chosen = int(first.socket.getsockname()[1])
        try:
            return [first, *await trio.open_tcp_listeners(chosen, host="::")]
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                return [first]
            await first.aclose()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EnvironmentFault(f"TCP port {port} is in use", hint) from error
        if error.errno == errno.EACCES:
            raise EnvironmentFault(
                f"TCP port {port} needs root", "choose one above 1023 with --control-port"
            ) from error
        raise EnvironmentFault(f"TCP port {port} can't be opened: {error.strerror}", hint) from error


def _proof(stream: _Stream) -> bytes:
    leaf = stream.getpeercert(binary_form=True)
    if not isinstance(leaf, bytes):
        raise PeerFault("the peer showed no certificate")
    peer_of(leaf)
    return leaf


def _remote(stream: trio.abc.Stream) -> str:
    if not isinstance(stream, trio.SocketStream):
        return ""
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return ""
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _untrusted(address: str, error: BaseException) -> DialFault:
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
    return DialFault(what, hint, foreign=True)


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


class _Watched(trio.abc.Stream):
    """A stream that tells when the other side has ended it: the WebSocket library would wait on."""

    def __init__(self, inner: _Stream) -> None:
        self._inner = inner
        self.ended = trio.Event()
        self.error: BaseException | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._inner.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            self.error = error
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _upgrade(
    address: str, stream: _Stream, nursery: trio.Nursery
) -> trio_websocket.WebSocketConnection:
    """Makes a WebSocket of a TLS stream; raises ``DialFault`` where the other side says no, or nothing.

    In TLS 1.3 a client learns only now that its certificate is not wanted: the server judges it after the
    client's
    last word of the handshake.
    """
    watched = _Watched(stream)
    opened: list[trio_websocket.WebSocketConnection] = []
    refused: list[trio_websocket.HandshakeError] = []
    done = trio.Event()

    async def open_socket() -> None:
        try:
            opened.append(await wrap_client(nursery, watched, "meshpeer", RESOURCE))  # type: ignore[arg-type]
        except trio_websocket.HandshakeError as error:
            refused.append(error)
        done.set()

    async def wait_for_the_end() -> None:
        await watched.ended.wait()
        done.set()

    with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
        nursery.start_soon(open_socket)
        nursery.start_soon(wait_for_the_end)
        await done.wait()
    if opened:
        return opened[0]
    nursery.cancel_scope.cancel()
    if refused:
        raise _untrusted(address, refused[0])
    if watched.ended.is_set():
        what = f"{address} does not take this node for a member of its mesh"
        raise DialFault(what, "is the invite of the same mesh, and not revoked?", foreign=True)
    raise DialFault(
        f"{address} accepts connections and then says nothing", "is it a meshpeer node?", foreign=True
    )

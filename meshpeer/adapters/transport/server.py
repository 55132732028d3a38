"""Accepts and dials links. One resource, ``/meshpeer/v1``; everything before the TLS handshake's end is
OpenSSL's.

A handshake is the one thing that a stranger makes us do, and a signature check is its price: how many are
under way at once is bounded (``door``), and so is their time, whatever part of it the stranger draws out.
Links of one member are bounded too, since each holds queues.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio
import trio_websocket

from meshpeer.adapters.transport.dialling import (
    RESOURCE,
    Connect,
    Secured,
    connect_tcp,
    race,
    upgrade,
    with_short_queue,
)
from meshpeer.adapters.transport.door import Door, Guest, source_of
from meshpeer.adapters.transport.link import WebSocketLink, running, wrap_server
from meshpeer.adapters.transport.reading import MeteredStream, Reader
from meshpeer.adapters.transport.tls import TlsIdentity, peer_of
from meshpeer.core.counters import Counter
from meshpeer.core.errors import EnvironmentFault, PeerFault
from meshpeer.core.ids import NodeId, key_text
from meshpeer.core.membership.carriers import over_in
from meshpeer.runtime.ports import DialFault, Link, LinkOver, NoTally, Tally

HANDSHAKE_TIMEOUT_S = 5.0
"""From the first byte to an open WebSocket."""
FIRST_WORD_S = 2.0
"""From the connection to the first byte: the dialling end speaks first."""
LINKS_PER_PEER_MAX = 8
"""Incoming links that one member may hold open: control, bulk, and old ones that are ending."""


@contextlib.asynccontextmanager
async def open_transport(
    identity: TlsIdentity, port: int, host: str | None = None, *, tally: Tally | None = None
) -> AsyncIterator[TlsTransport]:
    """Binds the control port (0 picks a free one); raises ``EnvironmentFault`` where it is taken."""
    listeners = await _listen(port, host)
    try:
        yield TlsTransport(identity, listeners, tally=tally)
    finally:
        for listener in listeners:
            await listener.aclose()


class TlsTransport:
    """Implements ``runtime.ports.Transport``."""

    def __init__(
        self,
        identity: TlsIdentity,
        listeners: Sequence[trio.SocketListener],
        *,
        tally: Tally | None = None,
    ) -> None:
        self._identity = identity
        self._listeners = listeners
        self._tally = tally or NoTally()
        self._door = Door()
        self._accepted: collections.Counter[NodeId] = collections.Counter()
        self.connect_over: Connect | None = None
        """Connects over a member (``core.membership.carriers``); None where that is not to be had."""

    @property
    def port(self) -> int:
        return int(self._listeners[0].socket.getsockname()[1])

    def show(self, chain: Sequence[bytes]) -> None:
        self._identity.show(chain)

    def trust(self, roots: Sequence[bytes]) -> None:
        self._identity.trust(roots)

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        async def accept(stream: trio.SocketStream) -> None:
            await self._accept(stream, handler, _remote(stream).rpartition(":")[0], None)

        await trio.serve_listeners(accept, list(self._listeners))

    @contextlib.asynccontextmanager
    async def dial(self, addresses: Sequence[str]) -> AsyncIterator[Link]:
        address, stream = await race(self._identity, addresses, self._connect)
        fault: DialFault | None = None
        try:
            async with trio.open_nursery() as nursery:
                metered = MeteredStream(stream)
                try:
                    leaf = _proof(stream)
                    opened = await upgrade(address, metered, nursery)
                except DialFault as error:
                    fault = error
                except PeerFault as error:
                    fault = DialFault(f"{address}: {error.what}", error.hint, foreign=True)
                else:
                    over = over_in(address)
                    carrier = over.carrier if over else None
                    link = self._link(opened, metered, stream, leaf, dialled=address, carrier=carrier)
                    async with running(link):
                        yield link
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)
        if fault is not None:
            raise fault

    async def knock(self, address: str) -> NodeId:
        """Shakes hands with whoever answers there, and hangs up; implements ``runtime.dialbacks.Knocker``."""
        _, stream = await race(self._identity, [address], connect_tcp)
        try:
            return peer_of(_proof(stream))
        except PeerFault as error:
            raise DialFault(f"{address}: {error.what}", error.hint, foreign=True) from error
        finally:
            await trio.aclose_forcefully(stream)

    async def accept_over(
        self, stream: trio.abc.Stream, carrier: NodeId, handler: Callable[[Link], Awaitable[None]]
    ) -> None:
        """Runs a link that comes in over a member; its handshakes count as that member's."""
        await self._accept(stream, handler, key_text(carrier), carrier)

    async def _connect(self, address: str) -> trio.abc.Stream:
        if over_in(address) is None:
            return await connect_tcp(address)
        if self.connect_over is None:
            raise DialFault("this node can't dial over others")
        return await self.connect_over(address)

    async def _accept(
        self,
        stream: trio.abc.Stream,
        handler: Callable[[Link], Awaitable[None]],
        host: str,
        carrier: NodeId | None,
    ) -> None:
        """Runs one incoming link; whatever a stranger does ends here."""
        with_short_queue(stream)
        try:
            async with trio.open_nursery() as nursery:
                link: WebSocketLink | None = None
                with self._door.entered(source_of(host)) as guest:
                    if guest is not None and await _speaks(stream):
                        guest.spoke = True
                        link = await self._shake_hands(stream, nursery, carrier, guest)
                if link is None:
                    turned_away = guest is None or guest.sent_away
                    self._tally.add(Counter.HANDSHAKES_REFUSED if turned_away else Counter.HANDSHAKES_FAILED)
                elif self._accepted[link.peer] >= LINKS_PER_PEER_MAX:
                    self._tally.add(Counter.LINKS_REFUSED)
                else:
                    self._accepted[link.peer] += 1
                    try:
                        async with running(link):
                            with contextlib.suppress(PeerFault, LinkOver):
                                await handler(link)
                    finally:
                        self._accepted[link.peer] -= 1
                        if not self._accepted[link.peer]:
                            del self._accepted[link.peer]
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)

    async def _shake_hands(
        self, stream: trio.abc.Stream, nursery: trio.Nursery, carrier: NodeId | None, guest: Guest
    ) -> WebSocketLink | None:
        """Returns a link once the stranger is known and speaks our protocol; None where it never does."""
        server = self._identity.server
        secured: Secured = trio.SSLStream(stream, server, server_side=True, https_compatible=True)
        reader, metered = Reader(nursery), MeteredStream(secured)
        made: list[WebSocketLink] = []

        async def open_link() -> None:
            with contextlib.suppress(
                trio.BrokenResourceError,
                trio.ClosedResourceError,
                trio_websocket.ConnectionClosed,
                ssl.SSLError,
                PeerFault,
            ):
                await secured.do_handshake()
                leaf = _proof(secured)
                guest.proved = True
                opening.start_soon(end_with_reader)
                request = await wrap_server(reader, metered)  # type: ignore[arg-type]
                if request.path != RESOURCE:
                    await request.reject(404)
                else:
                    opened = await request.accept()
                    made.append(self._link(opened, metered, secured, leaf, dialled="", carrier=carrier))
            opening.cancel_scope.cancel()

        async def end_with_reader() -> None:
            await reader.ended.wait()
            opening.cancel_scope.cancel()

        with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
            async with trio.open_nursery() as opening:
                opening.start_soon(open_link)
        return made[0] if made else None

    def _link(
        self,
        opened: trio_websocket.WebSocketConnection,
        metered: MeteredStream,
        secured: Secured,
        leaf: bytes,
        *,
        dialled: str,
        carrier: NodeId | None,
    ) -> WebSocketLink:
        return WebSocketLink(
            opened,
            metered,
            tally=self._tally,
            peer=peer_of(leaf),
            leaf=leaf,
            remote=_remote(secured.transport_stream),
            local=_local(secured.transport_stream),
            dialled=dialled,
            shown=self._identity.shown_by(secured.context),
            carrier=carrier,
        )


async def _speaks(stream: trio.abc.Stream) -> bool:
    """Says whether a byte comes soon: until then a stranger costs a descriptor and nothing else."""
    if isinstance(stream, trio.SocketStream):
        with trio.move_on_after(FIRST_WORD_S) as patience:
            await trio.lowlevel.wait_readable(stream.socket)
        return not patience.cancelled_caught
    return True


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


def _proof(stream: Secured) -> bytes:
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
    host = _plain(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _local(stream: trio.abc.Stream) -> str:
    if not isinstance(stream, trio.SocketStream):
        return ""
    try:
        return _plain(stream.socket.getsockname()[0])
    except OSError:
        return ""


def _plain(host: str) -> str:
    """Returns an address without the form of IPv4 on an IPv6 socket, and without its zone."""
    host = host.partition("%")[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host

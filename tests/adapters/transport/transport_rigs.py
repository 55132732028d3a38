"""Two worlds for one contract: links over TLS on loopback, and links in memory."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import trio
from memory_transport import Identity, MemoryNetwork, MemoryTransport

from meshpeer.adapters.transport import TlsIdentity, TlsTransport, open_transport
from meshpeer.core.identity.certificates import Authority, make_durable_leaf, make_issuer, make_root
from meshpeer.core.identity.constraints import ALL
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import NodeId
from meshpeer.runtime.ports import Link, Tally, Transport

NOW = 1_800_000_000
LOOPBACK = "127.0.0.1"
Handler = Callable[[Link], Awaitable[None]]


class Rig(Protocol):
    """A world in which transports can be made. Nodes are numbers; meshes are, too."""

    def dialler(self, node: int, *, mesh: int = 1, tally: Tally | None = None) -> Transport:
        """Returns a transport that takes no links."""
        ...

    def serving(
        self, handler: Handler, node: int = 1, *, mesh: int = 1, tally: Tally | None = None
    ) -> contextlib.AbstractAsyncContextManager[tuple[str, Transport]]:
        """Serves as a node; yields its address, and the transport."""
        ...

    def silent(self) -> contextlib.AbstractAsyncContextManager[str]:
        """Yields the address of somebody who takes a connection and never says a word."""
        ...

    async def nobody(self) -> str:
        """Returns an address at which nobody is."""
        ...


class TlsRig:
    def dialler(self, node: int, *, mesh: int = 1, tally: Tally | None = None) -> Transport:
        return TlsTransport(tls_identity(node, mesh), (), tally=tally)

    @contextlib.asynccontextmanager
    async def serving(
        self, handler: Handler, node: int = 1, *, mesh: int = 1, tally: Tally | None = None
    ) -> AsyncIterator[tuple[str, Transport]]:
        opened = open_transport(tls_identity(node, mesh), 0, LOOPBACK, tally=tally)
        async with opened as transport, trio.open_nursery() as nursery:
            nursery.start_soon(transport.serve, handler)
            yield f"{LOOPBACK}:{transport.port}", transport
            nursery.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def silent(self) -> AsyncIterator[str]:
        async def say_nothing(stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, say_nothing, listeners)
            yield f"{LOOPBACK}:{listeners[0].socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()

    async def nobody(self) -> str:
        async with open_transport(tls_identity(9, 1), 0, LOOPBACK) as gone:
            return f"{LOOPBACK}:{gone.port}"


class MemoryRig:
    def __init__(self) -> None:
        self._network = MemoryNetwork()

    def dialler(self, node: int, *, mesh: int = 1, tally: Tally | None = None) -> Transport:
        return MemoryTransport(self._network, memory_identity(node, mesh), tally=tally)

    @contextlib.asynccontextmanager
    async def serving(
        self, handler: Handler, node: int = 1, *, mesh: int = 1, tally: Tally | None = None
    ) -> AsyncIterator[tuple[str, Transport]]:
        with self._network.listening(memory_identity(node, mesh), tally=tally) as transport:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.serve, handler)
                yield transport.address, transport
                nursery.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def silent(self) -> AsyncIterator[str]:
        address = self._network.new_address()
        self._network.silent.add(address)
        yield address
        self._network.silent.remove(address)

    async def nobody(self) -> str:
        return self._network.new_address()


# --- identities ---------------------------------------------------------------------------------------------


def key_of(node: int) -> SigningKey:
    return SigningKey(bytes([200 + node]) * 32)


def id_of(node: int) -> NodeId:
    return NodeId(key_of(node).public)


def chain_of(node: int, mesh: int = 1, *, issued_after_s: int = 0) -> Sequence[bytes]:
    """Returns a node's certificates, leaf first; later ones are others."""
    _, issuer = authorities(mesh)
    leaf = make_durable_leaf(
        issuer,
        key_of(node).public,
        capabilities=ALL,
        admitted_at=NOW,
        now_unix_s=NOW + issued_after_s,
        serial=bytes([node]) * 8,
    )
    return (leaf, issuer.certificate)


def authorities(mesh: int) -> tuple[Authority, Authority]:
    root = make_root(bytes([mesh]) * 32, now_unix_s=NOW, serial=bytes([mesh]) * 8)
    return root, make_issuer(root, bytes([mesh + 100]) * 32, now_unix_s=NOW, serial=bytes([mesh]) * 8)


def tls_identity(node: int, mesh: int) -> TlsIdentity:
    root, _ = authorities(mesh)
    return TlsIdentity(seed=key_of(node).seed, chain=chain_of(node, mesh), roots=(root.certificate,))


def memory_identity(node: int, mesh: int) -> Identity:
    return Identity(bytes([mesh]), id_of(node), tuple(chain_of(node, mesh)))

"""Links over real TLS on loopback: who gets in, what strangers are told, and what order frames keep."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from meshpeer.adapters.transport import TlsIdentity, TlsTransport, open_transport
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.identity.certificates import Authority, make_durable_leaf, make_issuer, make_root
from meshpeer.core.identity.constraints import ALL
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.runtime.ports import DialFault, Link, LinkOver

NOW = 1_800_000_000
LOOPBACK = "127.0.0.1"


def mesh(number: int) -> tuple[Authority, Authority]:
    root = make_root(bytes([number]) * 32, now_unix_s=NOW, serial=bytes([number]) * 8)
    return root, make_issuer(root, bytes([number + 100]) * 32, now_unix_s=NOW, serial=bytes([number]) * 8)


def identity(authorities: tuple[Authority, Authority], number: int, *, now_unix_s: int = NOW) -> TlsIdentity:
    root, issuer = authorities
    key = SigningKey(bytes([200 + number]) * 32)
    leaf = make_durable_leaf(
        issuer,
        key.public,
        capabilities=ALL,
        admitted_at=now_unix_s,
        now_unix_s=now_unix_s,
        serial=bytes([number]) * 8,
    )
    return TlsIdentity(seed=key.seed, chain=(leaf, issuer.certificate), roots=(root.certificate,))


OURS, FOREIGN = mesh(1), mesh(2)


@contextlib.asynccontextmanager
async def serving(
    handler: Callable[[Link], object], authorities: tuple[Authority, Authority] = OURS
) -> AsyncIterator[str]:
    async with (
        open_transport(identity(authorities, 1), 0, LOOPBACK) as transport,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(transport.serve, handler)
        yield f"{LOOPBACK}:{transport.port}"
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def stranger(talk: Callable[[trio.SocketStream], object]) -> AsyncIterator[str]:
    """A TCP server that is no member."""
    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, talk, listeners)
        yield f"{LOOPBACK}:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def dialler(authorities: tuple[Authority, Authority] = OURS) -> TlsTransport:
    return TlsTransport(identity(authorities, 2), ())


async def echo(link: Link) -> None:
    with contextlib.suppress(LinkOver):
        while True:
            link.send_soon(await link.receive())


async def test_both_ends_prove_their_keys() -> None:
    seen: list[bytes] = []

    async def note(link: Link) -> None:
        seen.append(link.peer)
        await echo(link)

    async with serving(note) as address, dialler().dial([address]) as link:
        link.send_soon(b"\0hello")
        with trio.fail_after(5):
            assert await link.receive() == b"\0hello"
        assert link.peer == SigningKey(bytes([201]) * 32).public
        assert link.dialled == address
    assert seen == [SigningKey(bytes([202]) * 32).public]


async def test_member_of_another_mesh_is_not_let_in() -> None:
    entered: list[Link] = []

    async def note(link: Link) -> None:
        entered.append(link)

    async with serving(note) as address:
        # The dialler trusts the server's root, but shows a certificate of its own mesh.
        foreign = identity(FOREIGN, 2)
        trusting = TlsTransport(identity(OURS, 3), ())
        foreign.client.load_verify_locations(cadata=OURS[0].certificate)
        trusting._identity = foreign
        with pytest.raises(DialFault) as fault:
            async with trusting.dial([address]):
                raise AssertionError("a foreign node got in")
    assert fault.value.foreign
    assert "does not take this node for a member" in fault.value.what
    assert not entered


async def test_server_of_another_mesh_is_not_believed() -> None:
    async with serving(echo, FOREIGN) as address:
        with pytest.raises(DialFault, match="is not a member of this mesh") as fault:
            async with dialler().dial([address]):
                raise AssertionError("a foreign server was believed")
    assert fault.value.foreign


async def test_certificates_out_of_time_pass_tls_since_the_greeting_judges_them() -> None:
    async with (
        open_transport(identity(OURS, 1, now_unix_s=NOW - 10**9), 0, LOOPBACK) as transport,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(transport.serve, echo)
        async with dialler().dial([f"{LOOPBACK}:{transport.port}"]) as link:
            assert link.leaf
        nursery.cancel_scope.cancel()


async def test_a_knock_tells_whose_key_answers_and_leaves_no_link() -> None:
    entered: list[Link] = []

    async def note(link: Link) -> None:
        entered.append(link)

    async with serving(note) as address:
        assert await dialler().knock(address) == SigningKey(bytes([201]) * 32).public
    async with serving(note, FOREIGN) as address:
        with pytest.raises(DialFault) as fault:
            await dialler().knock(address)
        assert fault.value.foreign
    assert entered == []


async def test_nobody_there_says_that_it_was_refused() -> None:
    async with open_transport(identity(OURS, 1), 0, LOOPBACK) as transport:
        address = f"{LOOPBACK}:{transport.port}"
    with pytest.raises(DialFault, match="refuses connections") as fault:
        async with dialler().dial([address]):
            raise AssertionError
    assert fault.value.refused
    assert not fault.value.foreign


async def test_something_else_on_the_port_is_told_apart() -> None:
    async def speak_http(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.aclose()

    async with stranger(speak_http) as address:
        with pytest.raises(DialFault, match="does not speak meshpeer's protocol") as fault:
            async with dialler().dial([address]):
                raise AssertionError
    assert fault.value.foreign


async def test_first_address_that_answers_wins() -> None:
    async with open_transport(identity(OURS, 1), 0, LOOPBACK) as gone:
        dead = f"{LOOPBACK}:{gone.port}"
    async with serving(echo) as address, dialler().dial([dead, address]) as link:
        assert link.dialled == address


@pytest.mark.parametrize("address", ["", "nohost", "host:", "host:0", "host:99999", ":51821"])
async def test_address_that_is_none_is_a_fault(address: str) -> None:
    with pytest.raises(DialFault):
        async with dialler().dial([address]):
            raise AssertionError


async def test_frame_beyond_the_limit_ends_the_link() -> None:
    async with serving(echo) as address, dialler().dial([address]) as link:
        link.send_soon(bytes(FRAME_BYTES_MAX + 1))
        with pytest.raises(LinkOver), trio.fail_after(5):
            await link.receive()


async def test_close_sends_what_was_queued_first() -> None:
    got: list[bytes] = []
    done = trio.Event()

    async def collect(link: Link) -> None:
        with contextlib.suppress(LinkOver):
            while True:
                got.append(await link.receive())
        done.set()

    async with serving(collect) as address:
        async with dialler().dial([address]) as link:
            for number in range(20):
                link.send_soon(bytes([0, number]))
            link.close_soon("enough")
        with trio.fail_after(5):
            await done.wait()
    assert got == [bytes([0, number]) for number in range(20)]


async def test_control_frames_overtake_bulk() -> None:
    order: list[int] = []
    read, done = trio.Event(), trio.Event()

    async def collect(link: Link) -> None:
        await read.wait()
        while len(order) < 401:
            order.append((await link.receive())[0])
        done.set()

    async with serving(collect) as address, dialler().dial([address]) as link:
        async with trio.open_nursery() as nursery:
            for _ in range(400):
                nursery.start_soon(link.send_bulk, b"\1" + bytes(60_000))
            await trio.testing.wait_all_tasks_blocked()
            link.send_soon(b"\0now")
            read.set()
        with trio.fail_after(30):
            await done.wait()
    assert order.index(0) < 400


async def test_queue_of_a_slow_peer_is_bounded() -> None:
    async def never_reads(link: Link) -> None:
        await trio.sleep_forever()

    async with serving(never_reads) as address, dialler().dial([address]) as link:
        taken = sum(link.send_soon(bytes(60_000)) for _ in range(2_000))
    assert taken < 2_000


async def test_port_in_use_is_named() -> None:
    async with open_transport(identity(OURS, 1), 0, LOOPBACK) as transport:
        with pytest.raises(EnvironmentFault, match=f"TCP port {transport.port} is in use"):
            async with open_transport(identity(OURS, 1), transport.port, LOOPBACK):
                raise AssertionError


async def test_link_knows_which_leaf_it_showed_when_the_chain_changes() -> None:
    before = dialler()
    async with serving(echo) as address, before.dial([address]) as first:
        shown = first.shown
        before.show((new_leaf(), OURS[1].certificate))
        assert first.shown == shown
        async with before.dial([address]) as second:
            assert second.shown == new_leaf()
            assert second.shown != shown


def new_leaf() -> bytes:
    """Another certificate of the same node."""
    key = SigningKey(bytes([202]) * 32)
    return make_durable_leaf(
        OURS[1], key.public, capabilities=ALL, admitted_at=NOW, now_unix_s=NOW + 60, serial=bytes([9]) * 8
    )

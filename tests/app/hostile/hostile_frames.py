"""Tries of a hostile member with frames: their order, size and number, and what they ask for."""

from __future__ import annotations

import contextlib
import os
import socket

import msgspec
import pytest
import trio
from hostile_facts import warnings_of
from hostile_member import Member
from hostile_mesh import until
from hostile_stage import Stage, attempt

from meshpeer.adapters.transport.tls import TlsIdentity
from meshpeer.core.antientropy.messages import Facts, Want, Word
from meshpeer.core.ids import Digest, NodeId
from meshpeer.core.membership.dialbacks import ASKS_BURST, DialBackAnswered, DialBackAsked
from meshpeer.core.membership.messages import Hello, Ping, ProbeAnswered, ProbeAsked
from meshpeer.core.membership.plumtree import IDS_MAX, MISSING_MAX, NEWS_ID_BYTES
from meshpeer.core.membership.plumtree_messages import Graft, IHave
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.gate import LINK_ASKS_BURST
from meshpeer.core.paths.reflections import SeenAt
from meshpeer.core.paths.relay_messages import RelayAsked, RelayRefused
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.runtime.circuit_stream import CODEC as CIRCUITS
from meshpeer.runtime.circuit_stream import CircuitAsked
from meshpeer.runtime.exchange import CODEC as BULK
from meshpeer.runtime.exchange import BlobAsk, BlobPiece

GREETING = "The greeting"
FORM = "The form of frames"
ASKING = "Asking too much of others"
HINTS = "Hints that lie"
FLOOD = 1_000


# --- greeting -----------------------------------------------------------------------------------------------


@attempt(GREETING, "says facts before it greets", "nothing of it is read")
async def facts_first(stage: Stage) -> None:
    async with stage.liar.connected(stage.mesh.port) as voice:
        voice.tell(stage.liar.record())
        voice.say(stage.liar.hello())
        await voice.until(lambda: bool(voice.of(Hello)))
        await stage.see(voice)
    assert not stage.mesh.holds(stage.liar.id)


@attempt(GREETING, "greets twice", "the second greeting changes nothing")
async def greets_twice(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(stage.liar.hello())
        await stage.see(voice)


@attempt(GREETING, "greets with another member's certificate", "it is not taken for that member")
async def greets_as_another(stage: Stage) -> None:
    async with stage.liar.connected(stage.mesh.port) as voice:
        voice.say(stage.liar.hello(chain=stage.mesh.state.chain))
        await stage.see(voice)
    assert stage.mesh.alpha.node.links.link_to(stage.liar.id) is None


@attempt(GREETING, "greets for another mesh, and in a protocol of its own", "it is told why")
async def greets_elsewhere(stage: Stage) -> None:
    async with stage.liar.connected(stage.mesh.port) as voice:
        voice.say(stage.liar.hello(versions=(99,)))
        await stage.see(voice)
    assert "protocol" in stage.over


@attempt(
    GREETING,
    "says that its clock is at the end of time",
    "`doctor` still judges this machine's clock; records are dated by their own",
)
async def clock_at_its_end(stage: Stage) -> None:
    async with stage.liar.connected(stage.mesh.port) as voice:
        voice.say(stage.liar.hello(clock_ms=2**63))
        await voice.until(lambda: bool(voice.of(Hello)))
        voice.tell(stage.liar.record())
        await stage.see(voice)
        found = (await stage.mesh.alpha.api.doctor()).findings
        assert "clock" in [one.check for one in found]


# --- form ---------------------------------------------------------------------------------------------------


@attempt(FORM, f"a frame of {FRAME_BYTES_MAX + 1:,} bytes", "it is not read to its end")
async def frame_too_big(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.send(bytes(FRAME_BYTES_MAX + 1))
        await voice.ended()
        await stage.see(voice)


@attempt(FORM, "a frame that is never finished, in pieces of 64 KiB", "what is kept of it is bounded")
async def half_sent(stage: Stage) -> None:
    liar, node = stage.liar, stage.mesh.alpha.node
    async with await raw_stream(liar, stage.mesh.port) as stream:
        await stream.send_all(piece_of(CODEC.encode(liar.hello()), first=True, last=True))
        await until(lambda: node.links.link_to(liar.id) is not None)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for number in range(200):
                await stream.send_all(piece_of(bytes(60_000), first=not number, last=False))
        await until(lambda: node.links.link_to(liar.id) is None)
    stage.over, stage.brief = "it ended", True


@attempt(FORM, "arrays within arrays, 10,000 deep", "nothing is built of it")
async def deep(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.send(b"\0" + b"\x81" * 10_000 + b"\0")
        await stage.see(voice)


@attempt(FORM, "a table of 60,000 entries where one is announced", "nothing is built of it")
async def wide(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.send(b"\0\xa1\x61t\x9a\xff\xff\xff\xff" + bytes(60_000))
        await stage.see(voice)


@attempt(FORM, "500 frames of kinds that nobody knows", "they are passed over, as a later version's would be")
async def unknown_kinds(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        await voice.pour([b"\0" + cbor.encode({"t": f"teleport-{number}"}) for number in range(500)])
        await stage.see(voice)


@attempt(FORM, "frames on a channel that is none, and bulk that is no message", "the first ends the link")
async def wrong_channel(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.send(b"\7rubbish")
        await stage.see(voice)


# --- asking -------------------------------------------------------------------------------------------------


@attempt(ASKING, f"{FLOOD:,} pings in one go", "a job of the honest ends meanwhile")
async def pings(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        async with trio.open_nursery() as nursery:
            frames = [CODEC.encode(Ping(number=number)) for number in range(FLOOD)]
            nursery.start_soon(voice.pour, frames)
            await stage.mesh.runs_a_job()
        await stage.see(voice)


@attempt(
    ASKING,
    "for everything that an agent knows, again and again",
    "so much is answered as a member may need, and a job of the honest ends meanwhile",
)
async def asks_for_everything(stage: Stage) -> None:
    node = stage.mesh.alpha.node
    async with stage.liar.linked(stage.mesh.port) as voice:
        everybody = tuple(member.node for member in node.ledger)
        wants = [CODEC.encode(Want(nodes=everybody * 20))] * (
            int(LINK_ASKS_BURST) // (20 * len(everybody)) + 40
        )
        opening = node.gossip._reconciler.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(voice.pour, [*wants, *[CODEC.encode(opening)] * 200])
            await stage.mesh.runs_a_job()
        await stage.see(voice)
    assert len(voice.of(Facts)) < len(wants) * 20


@attempt(
    ASKING,
    f"announcements of news that is none, {4 * MISSING_MAX:,} of them",
    "so many are remembered as may be",
)
async def false_announcements(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        for _ in range(4 * MISSING_MAX // IDS_MAX):
            voice.say(IHave(ids=tuple(os.urandom(NEWS_ID_BYTES) for _ in range(IDS_MAX))))
        voice.say(Graft(ids=tuple(os.urandom(NEWS_ID_BYTES) for _ in range(IDS_MAX))))
        await stage.see(voice)
        assert len(stage.mesh.alpha.node.gossip.plumtree._missing) <= MISSING_MAX


@attempt(
    ASKING,
    "500 probes of members that do not exist",
    "64 are looked into at once, the rest are answered no",
)
async def probes(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        await voice.pour(
            [CODEC.encode(ProbeAsked(number=number, subject=NodeId(os.urandom(32)))) for number in range(500)]
        )
        await stage.see(voice)
        assert voice.of(ProbeAnswered)
        await until(lambda: not stage.mesh.alpha.node.detector._favours._open)


@attempt(
    ASKING,
    "dial-backs at a third party, 200 of them",
    "the third party sees as many calls as three questions and one link take",
)
async def dial_backs(stage: Stage) -> None:
    calls = 0

    async def count(stream: trio.SocketStream) -> None:
        nonlocal calls
        calls += 1
        await stream.aclose()

    host = own_address()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=host)
        nursery.start_soon(trio.serve_listeners, count, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with stage.liar.linked(stage.mesh.port, control_endpoints=(f"{host}:{port}",)) as voice:
            voice.say(*(DialBackAsked(number=number) for number in range(200)))
            await stage.see(voice)
            await voice.until(lambda: len(voice.of(DialBackAnswered)) == 200)
        nursery.cancel_scope.cancel()
    # Agents dial a member's endpoints to be linked to it, too: each once or twice in that time.
    assert calls <= ASKS_BURST + 8, calls


@attempt(ASKING, "dial-backs at loopback, under its name", "nobody calls at its own machine for it")
async def dial_backs_at_loopback(stage: Stage) -> None:
    async with stage.liar.linked(
        stage.mesh.port, control_endpoints=("localhost:22", "x.localhost:22", "127.0.0.1:22")
    ) as voice:
        voice.say(DialBackAsked(number=1))
        await voice.until(lambda: bool(voice.of(DialBackAnswered)))
        await stage.see(voice)
    assert voice.of(DialBackAnswered) == [DialBackAnswered(number=1, tries=())]


@attempt(
    ASKING, "a relay's ports for a pair that it is not in, and for more pairs than may be", "no port is lent"
)
async def relays(stage: Stage) -> None:
    alpha, beta = sorted(agent.node.me for agent in stage.mesh.honest)
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(RelayAsked(pair=(alpha, beta)))
        for _ in range(100):
            other = NodeId(os.urandom(32))
            voice.say(RelayAsked(pair=(min(other, stage.liar.id), max(other, stage.liar.id))))
        await stage.see(voice)
        assert voice.of(RelayRefused)
    assert not stage.mesh.alpha.node.relays.desk.reservations


@attempt(ASKING, "links carried to 300 members that do not exist", "none is opened")
async def circuits(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        await voice.pour(
            [
                CIRCUITS.encode(CircuitAsked(number=number, target=NodeId(os.urandom(32))))
                for number in range(300)
            ]
        )
        await stage.see(voice)


@attempt(ASKING, "100 files at once, which nobody has", "eight are looked for at a time")
async def blobs(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        for number in range(100):
            ask = BlobAsk(number=number, digest=Digest(os.urandom(32)), offset=0, pieces=16)
            voice.send(BULK.encode(ask))
        await voice.ended()
        await stage.see(voice)


@attempt(ASKING, "a file from before its start, or by a name that is no digest", "nothing is read")
async def odd_blobs(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.send(BULK.encode(BlobAsk(number=1, digest=Digest(b"../../etc/shadow"), offset=0, pieces=1)))
        await voice.ended()
        await stage.see(voice)


@attempt(ASKING, "300 pieces of files that nobody asked for", "they are dropped")
async def unasked_pieces(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        piece = BlobPiece(number=7, offset=0, data=bytes(50_000))
        await voice.pour([BULK.encode(piece)] * 300)
        await stage.see(voice)


# --- hints --------------------------------------------------------------------------------------------------


@attempt(
    HINTS,
    "digests of agreement that are made up, for itself and for others",
    "the honest two agree, by what each says itself",
)
async def false_agreement(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        for _ in range(5):
            word = Word(
                ids=os.urandom(4),
                stamp=2**40,
                digest=os.urandom(18),
                digests=(os.urandom(18), os.urandom(18)),
                groups=((2**40, 1, b"\xff" * 8), (2**62, 2, b"\xff" * 8)),
            )
            opening = stage.mesh.alpha.node.gossip._reconciler.open()
            voice.say(msgspec.structs.replace(opening, word=word))
        await stage.see(voice)
        assert "beta differs" not in await warnings_of(stage.mesh)


@attempt(
    HINTS,
    "that it sees an agent's tunnels come from elsewhere",
    "one member's word makes no endpoint of an agent without a tunnel",
)
async def false_reflection(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(SeenAt(endpoint="203.0.113.66:51820"), SeenAt(endpoint="x" * 5_000))
        await stage.see(voice)
    record = stage.mesh.alpha.node.presence.record
    assert record is not None
    assert record.reflected_endpoints == ()


async def raw_stream(liar: Member, port: int) -> trio.abc.Stream:
    """Returns a stream on which the upgrade to a WebSocket is done, and nothing else."""
    identity = TlsIdentity(seed=liar.key.seed, chain=liar.chain, roots=liar.roots)
    plain = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(plain, identity.client, https_compatible=True)
    await stream.send_all(
        b"GET /meshpeer/v1 HTTP/1.1\r\nHost: meshpeer\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: bWVzaHBlZXIgaXMgaGVyZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    answer = await stream.receive_some(4_096)
    assert b" 101 " in answer, answer
    return stream


def piece_of(data: bytes, *, first: bool, last: bool) -> bytes:
    """Returns a fragment of a binary message, masked with zeros (RFC 6455, section 5.2)."""
    head = bytes(((0x80 if last else 0) | (0x02 if first else 0), 0x80 | 126))
    return head + len(data).to_bytes(2, "big") + bytes(4) + data


def own_address() -> str:
    """Returns an address of this machine that is not loopback; asking the kernel sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])

"""A member with a good certificate and a program of its own: it speaks the protocol, and lies.

Real TLS, real frames, on one link to one agent. It greets as one should (or as it likes), says what it is
told to, answers what is asked of its files, and keeps all that it hears."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import trio

from meshpeer.adapters.transport.server import open_transport
from meshpeer.adapters.transport.tls import TlsIdentity
from meshpeer.core.antientropy.messages import Facts
from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.certificates import SERIAL_BYTES, Authority, make_durable_leaf
from meshpeer.core.identity.constraints import INVITE_DEFAULT, INVITE_ID_BYTES, Capability
from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey
from meshpeer.core.ids import Digest, MeshId, WireGuardKey
from meshpeer.core.membership.dialbacks import DialBackAnswered, DialBackAsked
from meshpeer.core.membership.messages import PROTOCOL_VERSIONS, Hello, Ping, Pong, Refusal
from meshpeer.core.node.codec import CODEC
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import MemberRecord
from meshpeer.core.records.ledger import Chain
from meshpeer.core.wire.frames import Channel
from meshpeer.core.wire.limits import BLOB_CHUNK_BYTES
from meshpeer.runtime.exchange import CODEC as BULK_CODEC
from meshpeer.runtime.exchange import BlobAsk, BlobPiece
from meshpeer.runtime.ports import Link, LinkOver

ANSWER_S = 60.0
"""A bound of every wait; nothing is measured by it."""


class Member:
    """An identity that an issuer of the mesh has admitted."""

    def __init__(
        self,
        mesh: MeshId,
        roots: Sequence[bytes],
        issuer: Authority,
        name: str,
        *,
        capabilities: frozenset[Capability] = INVITE_DEFAULT,
        admitted_s_ago: int = 60,
    ) -> None:
        now = int(time.time())
        self.name = name
        self.mesh = mesh
        self.roots = tuple(roots)
        self.key = SigningKey(os.urandom(32))
        self.id = self.key.public
        self.wireguard = WireGuardPrivateKey(os.urandom(32))
        leaf = make_durable_leaf(
            issuer,
            self.id,
            capabilities=capabilities,
            admitted_at=now - admitted_s_ago,
            invite=os.urandom(INVITE_ID_BYTES),
            uses=1,
            now_unix_s=now,
            serial=os.urandom(SERIAL_BYTES),
        )
        self.chain: Chain = (leaf, issuer.certificate)
        self._said = 0

    def record(self, **claims: object) -> MemberRecord:
        """Returns a record of its own, newer than the one before."""
        self._said += 1
        now = int(time.time())
        record = MemberRecord(
            node=self.id,
            incarnation=now - 30,
            sequence=self._said,
            issued_at=now,
            ttl_s=86_400,
            name=self.name,
            region="",
            roles=("compute",),
            wireguard_key=self.wireguard.public,
            wireguard_port=0,
            control_endpoints=(),
            wireguard_endpoints=(),
            certificate=Digest(envelope.digest_of(self.chain[0])),
        )
        return msgspec.structs.replace(record, **claims)  # type: ignore[arg-type]

    def sign(self, body: object) -> bytes:
        return envelope.sign(self.key, self.mesh, body)

    @property
    def key_text(self) -> WireGuardKey:
        return self.wireguard.public

    def hello(self, **lies: object) -> Hello:
        hello = Hello(
            versions=PROTOCOL_VERSIONS,
            mesh=self.mesh,
            chain=self.chain,
            clock_ms=int(time.time() * 1_000),
            observed="127.0.0.1:1",
            control_port=0,
        )
        return msgspec.structs.replace(hello, **lies)  # type: ignore[arg-type]

    @asynccontextmanager
    async def connected(self, port: int) -> AsyncIterator[Voice]:
        """Yields a link that TLS let through and nobody was greeted on."""
        identity = TlsIdentity(seed=self.key.seed, chain=self.chain, roots=self.roots)
        async with (
            open_transport(identity, 0, "127.0.0.1") as transport,
            transport.dial([f"127.0.0.1:{port}"]) as link,
            trio.open_nursery() as nursery,
        ):
            voice = Voice(self, link)
            nursery.start_soon(voice.listen)
            yield voice
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def linked(self, port: int, **claims: object) -> AsyncIterator[Voice]:
        """Yields a link on which it was greeted as a member, and has said its record."""
        async with self.connected(port) as voice:
            voice.say(self.hello())
            await voice.until(lambda: any(isinstance(one, Hello) for one in voice.heard))
            voice.tell(self.record(**claims))
            await voice.settled()
            yield voice


class Voice:
    """One end of one link."""

    def __init__(self, member: Member, link: Link) -> None:
        self._member = member
        self.link = link
        self.heard: list[msgspec.Struct] = []
        self._ponged = 0
        self.files: dict[bytes, bytes] = {}
        """What it gives to who asks, by SHA-256; or by what it says is one."""
        self.over = ""
        """Why the link ended; empty while it is there."""
        self._news = trio.Event()
        self._pings = 0

    # --- speaking -------------------------------------------------------------------------------------------

    def say(self, *messages: msgspec.Struct) -> None:
        for message in messages:
            self.send(CODEC.encode(message))

    def send(self, frame: bytes) -> None:
        self.link.send_soon(frame)

    def tell(self, *bodies: object, chains: Sequence[Chain] = ()) -> None:
        """Says records that it signs itself, after its chains."""
        chains = (self._member.chain, *chains)
        self.say(Facts(chains=tuple(chains), records=tuple(map(self._member.sign, bodies)), push=True))

    async def pour(self, frames: Sequence[bytes]) -> None:
        """Sends many frames as fast as the agent reads them, or until it hangs up."""
        for frame in frames:
            if self.over:
                return
            try:
                await self.link.send_bulk(frame)
            except LinkOver:
                return

    # --- hearing --------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        try:
            while True:
                self._hear(await self.link.receive())
        except (LinkOver, PeerFault) as fault:
            self.over = self.over or fault.what
        self._tell_all()

    def _hear(self, frame: bytes) -> None:
        if frame[:1] == bytes((Channel.BULK,)):
            asked = BULK_CODEC.decode(frame)
            if isinstance(asked, BlobAsk):
                self._give(asked)
            elif asked is not None:
                self.heard.append(asked)
        else:
            message = CODEC.decode(frame)
            if isinstance(message, Refusal):
                self.over = message.reason
            if isinstance(message, Pong):
                self._ponged = max(self._ponged, message.number)
            elif isinstance(message, DialBackAsked):
                self.say(DialBackAnswered(number=message.number, tries=()))
            elif message is not None:
                self.heard.append(message)
        self._tell_all()

    def _give(self, asked: BlobAsk) -> None:
        data = self.files.get(asked.digest, b"")[asked.offset : asked.offset + BLOB_CHUNK_BYTES]
        piece = BlobPiece(number=asked.number, offset=asked.offset, data=data, missing=not data)
        self.send(BULK_CODEC.encode(piece))

    def _tell_all(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def of(self, kind: type[msgspec.Struct]) -> list[msgspec.Struct]:
        return [one for one in self.heard if isinstance(one, kind)]

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits for something to be heard, or the link's end."""
        with trio.fail_after(ANSWER_S):
            while not true() and not self.over:
                await self._news.wait()

    async def settled(self) -> None:
        """Returns once the agent has handled all that was said, or has hung up."""
        self._pings += 1
        number = 1_000_000 + self._pings
        self.say(Ping(number=number))
        await self.until(lambda: self._ponged >= number)

    async def ended(self) -> None:
        """Returns once the agent has hung up."""
        await self.until(lambda: False)

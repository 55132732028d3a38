"""Moves blobs between nodes, in bulk frames over the links, verified by SHA-256.

The one who needs a blob asks a holder for a window of pieces, writes what comes, and asks for the next
window; so a slow disk slows the sender, and memory stays flat. Windows follow the path
(``core.jobs.windows``), and of one holder two are under way at once, by turns: however many files come from
there, a ping waits behind half a second's worth at most, and a small file is not stuck behind a large one.

Pieces arrive in order (a link is ordered). What came stays when a link breaks or an agent stops, and is gone
on with from any holder. A blob that fails its digest is dropped whole. From whom to get a blob, and for how
long to try, is decided elsewhere (``transfers``).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from meshpeer.core.errors import EnvironmentFault, MeshpeerError, PeerFault
from meshpeer.core.ids import Digest, LinkId, NodeId
from meshpeer.core.jobs.windows import FIRST_PIECES, MAX_PIECES, Window
from meshpeer.core.wire.frames import Channel, Codec
from meshpeer.core.wire.limits import BLOB_BYTES_MAX, BLOB_CHUNK_BYTES
from meshpeer.runtime.ports import BlobRef, Blobs, BlobWriter, Link

WINDOWS_MAX = 2
"""Windows under way at once from one holder, of all transfers."""
DIGEST_BYTES = 32
STALL_S = 20.0
"""A transfer without a piece for this long is given up (and tried elsewhere by whoever needs it)."""
LET_IN_LOOK_S = 0.02
"""Between two looks whether a peer that asks was let in by now."""
SERVING_MAX = 8
"""Requests served at once per link; the rest of a greedy peer's are refused."""


class BlobAsk(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="blob.ask"):
    """Asks for ``pieces`` pieces of a blob from ``offset`` on; ``number`` names the answer."""

    number: int
    digest: Digest
    offset: int
    pieces: int


class BlobPiece(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="blob.piece"):
    """One piece; ``missing`` where the holder has no such blob (any more)."""

    number: int
    offset: int
    data: bytes
    missing: bool = False
    left: int = -1
    """How many more the holder will send; -1 from one of an earlier version, which does not say."""


FRAMES = (BlobAsk, BlobPiece)
CODEC = Codec(Channel.BULK, FRAMES)


class HolderLacksIt(EnvironmentFault):
    """The holder says that it does not have a blob."""


def _note_nothing(received: int) -> None:
    """Takes note of how much has come, for who does not care."""


class Exchange:
    """Implements ``linkkeeper.BulkHandler``; one per agent."""

    def __init__(
        self,
        blobs: Blobs,
        nursery: trio.Nursery,
        link_to: Callable[[NodeId], LinkId | None],
        let_in: Callable[[LinkId], bool] = lambda link: True,
    ) -> None:
        """``let_in`` says whether the peer of a link was greeted as a member: nobody else is served."""
        self._let_in = let_in
        self._blobs = blobs
        self._nursery = nursery
        self._link_to = link_to
        self._links: dict[LinkId, Link] = {}
        self._serving: dict[LinkId, int] = {}
        self._number = 0
        self._answers: dict[tuple[LinkId, int], trio.MemorySendChannel[BlobPiece]] = {}
        self._fetching: dict[Digest, trio.Event] = {}
        self._turns: dict[NodeId, trio.CapacityLimiter] = {}

    # --- links ----------------------------------------------------------------------------------------------

    def attach(self, link: LinkId, open_link: Link) -> None:
        self._links[link] = open_link
        self._serving[link] = 0

    def detach(self, link: LinkId) -> None:
        self._links.pop(link, None)
        self._serving.pop(link, None)
        for key in [key for key in self._answers if key[0] == link]:
            self._answers.pop(key).close()

    def on_frame(self, link: LinkId, frame: bytes) -> None:
        self.on_message(link, CODEC.decode(frame))

    def on_message(self, link: LinkId, message: msgspec.Struct | None) -> None:
        """Takes a frame that was read; raises ``PeerFault`` where it breaks the rules."""
        match message:
            case BlobAsk():
                if not 0 <= message.offset <= BLOB_BYTES_MAX or len(message.digest) != DIGEST_BYTES:
                    raise PeerFault("a file was asked for from beyond its ends, or by what is no digest")
                if link not in self._serving:
                    return
                if self._serving[link] >= SERVING_MAX:
                    raise PeerFault(f"more than {SERVING_MAX} blob requests at once")
                self._serving[link] += 1
                self._nursery.start_soon(self._serve, link, message)
            case BlobPiece():
                channel = self._answers.get((link, message.number))
                if channel is not None:
                    try:
                        channel.send_nowait(message)
                    except (trio.WouldBlock, trio.BrokenResourceError) as error:
                        raise PeerFault("more pieces than were asked for") from error

    # --- needing --------------------------------------------------------------------------------------------

    async def fetch(self, ref: BlobRef, holder: NodeId, note: Callable[[int], None] = _note_nothing) -> None:
        """Makes the blob present here, telling ``note`` how much of it is; raises ``EnvironmentFault`` where
        the holder can't give it, ``PeerFault`` for wrong content.

        Two that need one blob at once share one transfer.
        """
        while self._blobs.path(ref.digest) is None:
            under_way = self._fetching.get(ref.digest)
            if under_way is not None:
                await under_way.wait()
                continue
            done = self._fetching[ref.digest] = trio.Event()
            try:
                await self._transfer(ref, holder, note)
            finally:
                del self._fetching[ref.digest]
                done.set()

    async def _transfer(self, ref: BlobRef, holder: NodeId, note: Callable[[int], None]) -> None:
        if ref.size > BLOB_BYTES_MAX:
            raise PeerFault(f"a blob of {ref.size} bytes exceeds {BLOB_BYTES_MAX}")
        turns = self._turns.setdefault(holder, trio.CapacityLimiter(WINDOWS_MAX))
        window = Window()
        async with self._blobs.receive(ref, resume=True) as writer:
            while writer.received < ref.size:
                note(writer.received)
                async with turns:
                    try:
                        await self._window(ref, holder, writer, window)
                    finally:
                        note(writer.received)
            await writer.finish()

    async def _window(self, ref: BlobRef, holder: NodeId, writer: BlobWriter, window: Window) -> None:
        """Asks for one window and writes what comes."""
        number = self._link_to(holder)
        link = self._links.get(number) if number is not None else None
        if number is None or link is None:
            raise EnvironmentFault("there is no link to the node that holds a needed file")
        self._number += 1
        ask = BlobAsk(number=self._number, digest=ref.digest, offset=writer.received, pieces=window.pieces)
        give, take = trio.open_memory_channel[BlobPiece](window.pieces)
        self._answers[number, ask.number] = give
        try:
            await link.send_bulk(CODEC.encode(ask))
            first_s = spread_s = 0.0
            count = 0
            while count < window.pieces:
                with trio.fail_after(STALL_S):
                    piece = await take.receive()
                if piece.missing:
                    raise HolderLacksIt("the node that held a needed file has it no more")
                if piece.offset != writer.received or not piece.data:
                    raise PeerFault("a piece of a file came out of order")
                arrived_s = trio.current_time()
                first_s = first_s if count else arrived_s
                count, spread_s = count + 1, arrived_s - first_s
                await writer.write(piece.data)
                if writer.received >= ref.size or len(piece.data) < BLOB_CHUNK_BYTES or piece.left == 0:
                    # A short piece is the last of the holder's file; asking on tells whether it has more.
                    break
                if piece.left < 0 and count == FIRST_PIECES:
                    break
            window.took(count, spread_s)
        except trio.EndOfChannel as error:
            raise EnvironmentFault("the link broke while a file was moved") from error
        except trio.TooSlowError as error:
            raise EnvironmentFault(f"no piece of a file came for {STALL_S:.0f} s") from error
        finally:
            self._answers.pop((number, ask.number), None)

    # --- giving ---------------------------------------------------------------------------------------------

    async def _serve(self, number: LinkId, ask: BlobAsk) -> None:
        link = self._links.get(number)
        try:
            if link is not None and await self._is_let_in(number):
                await self._give(link, ask)
        except MeshpeerError:
            # The link is gone, or the blob's file can't be read: the asker's own limits settle it.
            return
        finally:
            if number in self._serving:
                self._serving[number] -= 1

    async def _is_let_in(self, number: LinkId) -> bool:
        """Waits until the greeting that came before is judged, which a busy node does late; says whether the
        link is still there then. One that is refused is closed."""
        while not self._let_in(number):
            if number not in self._links:
                return False
            await trio.sleep(LET_IN_LOOK_S)
        return True

    async def _give(self, link: Link, ask: BlobAsk) -> None:
        offset = ask.offset
        pieces = min(ask.pieces, MAX_PIECES)
        self._blobs.used(ask.digest)
        for left in reversed(range(pieces)):
            data = (
                b""
                if self._blobs.path(ask.digest) is None
                else await self._blobs.read(ask.digest, offset, BLOB_CHUNK_BYTES)
            )
            piece = BlobPiece(number=ask.number, offset=offset, data=data, missing=not data, left=left)
            await link.send_bulk(CODEC.encode(piece))
            offset += len(data)
            if len(data) < BLOB_CHUNK_BYTES:
                break

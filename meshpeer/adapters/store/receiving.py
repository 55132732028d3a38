"""Takes a blob in piece by piece, from elsewhere: little of it in memory, and nothing of it believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshpeer.adapters.store.drafts import LARGE_BYTES, Draft, no_room, room_bytes, translated
from meshpeer.core.errors import InvariantBroken, PeerFault
from meshpeer.core.ids import Digest
from meshpeer.runtime.ports import BlobRef

RECEIVE_BUFFER_BYTES = 1024 * 1024
"""Received bytes held back until one visit to a worker thread hashes and writes them."""


class OnThread(Protocol):
    async def __call__(self, work: Callable[[], None], /) -> None: ...


class BlobReceiver:
    """Implements ``runtime.ports.BlobWriter``."""

    def __init__(
        self,
        ref: BlobRef,
        draft: Draft,
        publish: Callable[[Draft, Digest], None],
        on_thread: OnThread,
        reserve_bytes: int,
    ) -> None:
        self._ref = ref
        self._draft = draft
        self._publish = publish
        self._on_thread = on_thread
        self._reserve_bytes = reserve_bytes
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._received = draft.size
        self._finished = False
        self.wrong = False
        """What came is not what was announced: none of it is of use."""

    @property
    def received(self) -> int:
        return self._received

    async def write(self, data: bytes) -> None:
        if self._received + len(data) > self._ref.size:
            self.wrong = True
            raise PeerFault("a file is longer than was announced")
        self._received += len(data)
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= RECEIVE_BUFFER_BYTES:
            await self._on_thread(self._flush)

    async def settle(self) -> None:
        """Writes what is held back, for who goes on later."""
        if self._buffered:
            await self._on_thread(self._flush)

    async def finish(self) -> BlobRef:
        if self._finished:
            raise InvariantBroken("a received blob was finished twice")
        if self._received != self._ref.size:
            raise PeerFault(f"a file of {self._ref.size} bytes was announced, {self._received} came")
        self._finished = True
        await self._on_thread(self._verify_and_publish)
        return self._ref

    def _flush(self) -> None:
        with translated(self._draft.path):
            if self._ref.size > LARGE_BYTES:
                folder = self._draft.path.parent
                room = room_bytes(folder, self._reserve_bytes)
                if room < 0:
                    raise no_room(folder, self._ref.size - self._draft.size, room)
            pieces, self._buffer, self._buffered = self._buffer, [], 0
            self._draft.write(b"".join(pieces))

    def _verify_and_publish(self) -> None:
        self._flush()
        if self._draft.ref() != self._ref:
            self.wrong = True
            raise PeerFault("a file does not have the content that was announced")
        with translated(self._draft.path):
            self._publish(self._draft, self._ref.digest)

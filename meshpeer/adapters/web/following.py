"""What a page of the dashboard is sent as it comes: differences of what it shows, and what a task prints.

Server-sent events (WHATWG HTML, 9.2). Each message is made when the one before was taken, from the newest
state, and holds so many changes at most: neither a slow reader nor a large mesh makes a queue.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

import msgspec
import trio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from meshpeer.core.errors import MeshpeerError
from meshpeer.runtime.board import CHANGES_MAX, View, applied, differences
from meshpeer.runtime.control import LogPiece

LOOK_S = 0.5
"""Between two looks whether there is something new."""
KEEP_ALIVE_S = 15.0
STREAMS_MAX = 16
"""Pages that follow at once."""
FOLLOWED_MAX = 16
"""Logs that are followed at once."""


async def view_events(
    look: Callable[[], Awaitable[View]], admitted: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """Yields what a page shows, then what is different, until its session ends."""
    last, quiet_s = View(), 0.0
    yield b"event: start\ndata: {}\n\n"
    while admitted():
        present = await look()
        changes = differences(last, present, CHANGES_MAX)
        if changes:
            quiet_s = 0.0
            yield b"data: " + msgspec.json.encode(changes) + b"\n\n"
            if len(changes) == CHANGES_MAX:
                last = applied(last, changes)
                continue
            last = present
        elif quiet_s >= KEEP_ALIVE_S:
            quiet_s = 0.0
            yield b": still here\n\n"
        await trio.sleep(LOOK_S)
        quiet_s += LOOK_S


async def log_events(
    read: Callable[[int, int], Awaitable[LogPiece]], offset: int, admitted: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """Yields what a task has printed from an offset on, and goes on until it has ended."""
    attempt, decoder = 0, _decoder()
    while admitted():
        try:
            piece = await read(offset, attempt)
        except MeshpeerError as fault:
            yield _event("fault", {"what": fault.what, "hint": fault.hint})
            return
        again = bool(attempt and piece.attempt and piece.attempt != attempt)
        if again:
            decoder = _decoder()
        attempt, offset = piece.attempt or attempt, piece.offset
        text = decoder.decode(piece.data, piece.finished)
        if text or again:
            yield _event("text", {"text": text, "node": piece.node, "again": again})
        if piece.finished:
            yield _event("end", {"node": piece.node})
            return
        if not piece.data:
            yield b": still here\n\n"
            await trio.sleep(LOOK_S)


class Stream(StreamingResponse):
    """A stream that gives its place back in the task that it runs in, however it ends."""

    def __init__(
        self, events: AsyncGenerator[bytes, None], done: Callable[[], None], headers: Mapping[str, str]
    ) -> None:
        self._events = events
        self._done = done
        super().__init__(events, headers=headers, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()
            with trio.CancelScope(shield=True):
                await self._events.aclose()


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


def _event(kind: str, document: object) -> bytes:
    return f"event: {kind}\ndata: ".encode() + json.dumps(document).encode("utf-8") + b"\n\n"

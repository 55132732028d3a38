"""A codec that remembers: a frame that goes to many nodes of one world is read once."""

from __future__ import annotations

import msgspec

from meshpeer.core.node.codec import CODEC
from meshpeer.core.wire.frames import Codec

FRAMES_REMEMBERED = 4_096


class SharedCodec(Codec):
    """Decodes as the agents' codec does; what broke a rule is judged anew each time."""

    def __init__(self) -> None:
        self._known: dict[bytes, msgspec.Struct | None] = {}

    def encode(self, message: msgspec.Struct) -> bytes:
        return CODEC.encode(message)

    def decode(self, frame: bytes) -> msgspec.Struct | None:
        if frame in self._known:
            return self._known[frame]
        message = CODEC.decode(frame)
        if len(self._known) >= FRAMES_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[frame] = message
        return message

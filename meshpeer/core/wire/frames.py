"""Frames: what one WebSocket message on a link holds.

A frame is a channel byte and canonical CBOR. Channel 0 is control, decided by core; channel 1 is bulk, file
pieces that
never pass through core. A control message is a map whose ``t`` names its kind (msgspec's tag); the kinds
themselves
belong to the rooms, and only ``node`` knows them all.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

from meshpeer.core.errors import PeerFault
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import FRAME_BYTES_MAX

TAG_FIELD = "t"


class Channel(enum.IntEnum):
    CONTROL = 0
    BULK = 1


class Codec:
    """Encodes and decodes the messages of one channel; each kind is a tagged msgspec struct."""

    def __init__(self, channel: Channel, kinds: Iterable[type[msgspec.Struct]]) -> None:
        self._channel = channel
        self._kinds: dict[str, type[msgspec.Struct]] = {}
        for kind in kinds:
            config = kind.__struct_config__
            if config.tag_field != TAG_FIELD or not isinstance(config.tag, str):
                raise TypeError(f"{kind.__name__} has no tag {TAG_FIELD!r}")
            if self._kinds.setdefault(config.tag, kind) is not kind:
                raise TypeError(f"two kinds of message are tagged {config.tag!r}")

    @property
    def kinds(self) -> tuple[type[msgspec.Struct], ...]:
        """The kinds of message that it knows, in the order in which they were named."""
        return tuple(self._kinds.values())

    def encode(self, message: msgspec.Struct) -> bytes:
        """Returns the frame; raises ``ValueError`` where it would exceed ``FRAME_BYTES_MAX`` (a bug of the
        sender)."""
        frame = bytes((self._channel,)) + cbor.encode(message)
        if len(frame) > FRAME_BYTES_MAX:
            raise ValueError(f"{type(message).__name__} of {len(frame)} bytes exceeds a frame")
        return frame

    def decode(self, frame: bytes) -> msgspec.Struct | None:
        """Returns the message, or None for a kind that this version does not know; raises ``PeerFault`` for
        rubbish.

        Unknown kinds are skipped, not refused: a newer peer may say more than we understand.
        """
        if not frame or frame[0] != self._channel:
            raise PeerFault("frame is empty or on another channel")
        plain = cbor.decode_plain(frame[1:], bytes_max=FRAME_BYTES_MAX)
        tag = plain.get(TAG_FIELD) if isinstance(plain, dict) else None
        if not isinstance(tag, str):
            raise PeerFault("message has no kind")
        kind = self._kinds.get(tag)
        return None if kind is None else cbor.shape(plain, kind)

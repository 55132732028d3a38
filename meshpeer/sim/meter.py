"""What hosts send: messages and bytes by kind, and by host.

Bytes are those of the IP packets that a frame takes, as far as they follow from the frame: acknowledgements
that
travel alone and retransmissions are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WEBSOCKET_BYTES = 6
"""Header and mask of a small frame (RFC 6455, section 5.2); larger ones take 2 more."""
TLS_BYTES = 22
"""Record header, content type and tag of TLS 1.3 (RFC 8446, section 5.2)."""
PACKET_BYTES = 52
"""IPv4, TCP and its time stamps, per segment."""
SEGMENT_BYTES = 1_448
_TEXT_HEAD = 0x60
_TAG_KEY = b"\x61t"


@dataclass(slots=True)
class Meter:
    """Counts since it was last cleared."""

    messages: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    by_host: dict[int, int] = field(default_factory=dict)
    """Bytes sent, by host index."""
    overflows: int = 0
    """Frames dropped because too many waited at their sender."""

    def sent(self, host: int, frame: bytes) -> None:
        kind, size = kind_of(frame), wire_bytes(len(frame))
        self.messages[kind] = self.messages.get(kind, 0) + 1
        self.sizes[kind] = self.sizes.get(kind, 0) + size
        self.by_host[host] = self.by_host.get(host, 0) + size

    def clear(self) -> None:
        self.messages.clear()
        self.sizes.clear()
        self.by_host.clear()
        self.overflows = 0


def kind_of(frame: bytes) -> str:
    """Returns the kind that a frame names, without decoding it.

    Canonical CBOR sorts keys by length first, so the tag ``t`` stands at the front of a message's map.
    """
    at = frame.find(_TAG_KEY, 1, 16)
    if at < 0 or at + 2 >= len(frame):
        return "other"
    length = frame[at + 2] - _TEXT_HEAD
    if not 0 < length < 24:
        return "other"
    return frame[at + 3 : at + 3 + length].decode("ascii", "replace")


def wire_bytes(frame_bytes: int) -> int:
    """Returns the size of the packets that carry a frame."""
    size = frame_bytes + WEBSOCKET_BYTES + TLS_BYTES
    return size + PACKET_BYTES * (1 + (size - 1) // SEGMENT_BYTES)

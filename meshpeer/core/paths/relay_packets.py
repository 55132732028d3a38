"""What a relay reads of a WireGuard packet: its kind, its indices and, of a handshake, whom it is meant for.

Layouts and lengths are those of the WireGuard whitepaper, section 5.4 (messages) and 5.4.4 (mac1): the first
mac of a handshake message is keyed with a hash of the *receiver's* public key, so whoever knows that key
can tell for whom a message was made, without being able to read it. Nothing here can open a packet.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from typing import NamedTuple

from meshpeer.core.ids import WireGuardKey

INITIATION_BYTES, RESPONSE_BYTES, COOKIE_BYTES = 148, 92, 64
DATA_BYTES_MIN = 32
"""A header of 16 bytes and a tag of 16; a keepalive has nothing in between. What is there is padded to 16
bytes, but not beyond the device's MTU: full packets of an interface of 1420 have 1452."""
MAC_BYTES = 16
_LABEL_MAC1 = b"mac1----"


class Kind(enum.IntEnum):
    """The message types; the three bytes after each are zero."""

    INITIATION = 1
    RESPONSE = 2
    COOKIE = 3
    DATA = 4


class Packet(NamedTuple):
    """A packet of the right length; an index that its kind does not have is 0."""

    kind: Kind
    sender: int
    receiver: int


def parse_packet(data: bytes) -> Packet | None:
    """Returns what a packet says in the clear; None for what WireGuard never sends."""
    match data[:4], len(data):
        case b"\x04\0\0\0", length if length >= DATA_BYTES_MIN:
            return Packet(Kind.DATA, 0, _index(data, 4))
        case b"\x01\0\0\0", length if length == INITIATION_BYTES:
            return Packet(Kind.INITIATION, _index(data, 4), 0)
        case b"\x02\0\0\0", length if length == RESPONSE_BYTES:
            return Packet(Kind.RESPONSE, _index(data, 4), _index(data, 8))
        case b"\x03\0\0\0", length if length == COOKIE_BYTES:
            return Packet(Kind.COOKIE, 0, _index(data, 4))
    return None


def mac1_key(receiver: WireGuardKey) -> bytes:
    """Returns what the first mac of handshakes for this receiver is keyed with."""
    return hashlib.blake2s(_LABEL_MAC1 + receiver).digest()


def mac1_of(head: bytes, key: bytes) -> bytes:
    """Returns the first mac of a handshake message, given all that stands before it."""
    return hashlib.blake2s(head, digest_size=MAC_BYTES, key=key).digest()


def has_mac1(data: bytes, key: bytes) -> bool:
    """Says whether a handshake message was made for the receiver of this key (``mac1_key``)."""
    expected = mac1_of(data[: -2 * MAC_BYTES], key)
    return hmac.compare_digest(expected, data[-2 * MAC_BYTES : -MAC_BYTES])


def _index(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")

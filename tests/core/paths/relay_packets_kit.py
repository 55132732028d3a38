"""WireGuard packets as a relay sees them: right in all that can be read without keys, zero elsewhere."""

from __future__ import annotations

from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_packets import mac1_key, mac1_of


def initiation(sender: int, to: WireGuardKey) -> bytes:
    """Returns an initiation for the holder of a public key."""
    return _with_macs(b"\x01\0\0\0" + _index(sender) + bytes(108), to)


def response(sender: int, receiver: int, to: WireGuardKey) -> bytes:
    return _with_macs(b"\x02\0\0\0" + _index(sender) + _index(receiver) + bytes(48), to)


def cookie(receiver: int) -> bytes:
    return b"\x03\0\0\0" + _index(receiver) + bytes(56)


def data(receiver: int, size: int = 32) -> bytes:
    return b"\x04\0\0\0" + _index(receiver) + bytes(size - 8)


def _with_macs(head: bytes, to: WireGuardKey) -> bytes:
    return head + mac1_of(head, mac1_key(to)) + bytes(16)


def _index(value: int) -> bytes:
    return value.to_bytes(4, "little")

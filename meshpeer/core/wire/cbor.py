"""Canonical CBOR and typed shapes: one value has one encoding, and one encoding has one reading.

Deterministic encoding after RFC 8949 section 4.2.1. All our maps have text keys; for those, cbor2's length-first order
and the RFC's bytewise order are the same, because the encoded head starts with the length. Floats
don't occur in signed bodies. Decoding is strict: size first, then nesting, then syntax, then "encodes back to the same
bytes", then the shape by msgspec. Fields that a later version added are ignored here and kept in the bytes that travel on.
"""

from __future__ import annotations

from typing import TypeVar

import cbor2
import msgspec

from meshpeer.core.errors import PeerFault
from meshpeer.core.wire.limits import CBOR_DEPTH_MAX

Shape = TypeVar("Shape")


def encode(value: object) -> bytes:
    """Encodes a msgspec struct, or a tree of plain values, to deterministic CBOR."""
    plain = msgspec.to_builtins(value, builtin_types=(bytes,))
    return cbor2.dumps(plain, canonical=True)


def decode(data: bytes, kind: type[Shape], *, bytes_max: int) -> Shape:
    """Decodes strictly into ``kind``.

    Raises ``PeerFault`` for oversized, malformed, non-canonical or wrongly shaped input, whatever the bytes are.
    """
    return shape(decode_plain(data, bytes_max=bytes_max), kind)


def decode_plain(data: bytes, *, bytes_max: int) -> object:
    """Decodes strictly into plain values (dict, list, int, str, bytes, bool, None); raises ``PeerFault``."""
    if len(data) > bytes_max:
        raise PeerFault(f"message of {len(data)} bytes exceeds {bytes_max}")
    _check_structure(data)
    try:
        plain: object = cbor2.loads(data)
        canonical = cbor2.dumps(plain, canonical=True)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise PeerFault(f"message is malformed: {error}") from error
    if canonical != data:
        raise PeerFault("message is not canonically encoded")
    return plain


def shape(plain: object, kind: type[Shape]) -> Shape:
    """Checks plain values against a msgspec type; raises ``PeerFault`` naming the field that is off."""
    try:
        return msgspec.convert(plain, kind, strict=True)
    except (msgspec.ValidationError, ValueError, TypeError, OverflowError) as error:
        raise PeerFault(f"message is malformed: {error}") from error


def _check_structure(data: bytes) -> None:
    """Walks the heads only, to refuse tags, indefinite lengths and deep nesting before cbor2 builds anything."""
    position, end = 0, len(data)
    open_items = [1]
    while open_items:
        if open_items[-1] == 0:
            open_items.pop()
            continue
        open_items[-1] -= 1
        if position >= end:
            raise PeerFault("message is truncated")
        major, info = data[position] >> 5, data[position] & 0x1F
        position += 1
        if info > 27:
            raise PeerFault("message uses indefinite or reserved lengths")
        argument = info
        if info >= 24:
            width = 1 << (info - 24)
            argument = int.from_bytes(data[position : position + width], "big")
            position += width
        if major in (2, 3):
            position += argument
        elif major in (4, 5):
            if argument > end - position:
                raise PeerFault("message is truncated")
            open_items.append(argument * (major - 3))
            if len(open_items) > CBOR_DEPTH_MAX + 1:
                raise PeerFault(f"message nests deeper than {CBOR_DEPTH_MAX}")
        elif major == 6:
            raise PeerFault("message uses CBOR tags")
    if position != end:
        raise PeerFault("message is truncated" if position > end else "message has trailing bytes")

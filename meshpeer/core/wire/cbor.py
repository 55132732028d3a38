"""Canonical CBOR and typed shapes: one value has one encoding, and one encoding has one reading.

Deterministic encoding after RFC 8949 section 4.2.1, over a smaller world: integers of 64 bits, byte and
text strings, arrays, maps with text keys, false, true and null. No floats, no tags, no indefinite lengths,
no other simple values: what isn't there needs no canonical form. For text keys, cbor2's length-first order
and the RFC's bytewise order are the same, because the encoded head starts with the length.

Decoding is strict: size first, then structure (a walk over the heads, so nothing is built of what is
refused), then syntax, then "encodes back to the same bytes", then the shape by msgspec. Fields that a later
version added are ignored here and kept in the bytes that travel on.
"""

from __future__ import annotations

from typing import TypeVar

import cbor2
import msgspec

from meshpeer.core.errors import PeerFault
from meshpeer.core.wire.limits import CBOR_DEPTH_MAX

Shape = TypeVar("Shape")

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_FALSE, _TRUE, _NULL = 20, 21, 22
_ARGUMENT_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}


def encode(value: object) -> bytes:
    """Encodes a msgspec struct, or a tree of plain values, to deterministic CBOR.

    Sets become sorted arrays. Raises ``ValueError`` for what no decoder of ours takes back (a float, an
    integer beyond 64 bits, a map key that isn't text, nesting beyond ``CBOR_DEPTH_MAX``): a bug of the
    caller, found where it is made.
    """
    plain = msgspec.to_builtins(value, builtin_types=(bytes,), order="deterministic")
    data = cbor2.dumps(plain, canonical=True)
    try:
        _check_structure(data)
    except PeerFault as error:
        raise ValueError(f"{type(value).__name__} can't be encoded: {error.what}") from error
    return data


def decode(data: bytes, kind: type[Shape], *, bytes_max: int) -> Shape:
    """Decodes strictly into ``kind``.

    Raises ``PeerFault`` for oversized, malformed, non-canonical or wrongly shaped input, whatever the bytes
    are.
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
    """Checks plain values against a msgspec type; raises ``PeerFault`` naming the field that is off.

    Bytes count as a plain type here: msgspec would else read base64 text as bytes, a second encoding for
    one value.
    """
    try:
        return msgspec.convert(plain, kind, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError, TypeError, OverflowError) as error:
        raise PeerFault(f"message is malformed: {error}") from error


def _check_structure(data: bytes) -> None:
    """Walks the heads only, to refuse what lies outside our world before cbor2 builds anything."""
    position, end = 0, len(data)
    left, in_map = 1, False
    outer: list[tuple[int, bool]] = []
    while True:
        while not left:
            if not outer:
                if position != end:
                    raise PeerFault(
                        "message is truncated" if position > end else "message has trailing bytes"
                    )
                return
            left, in_map = outer.pop()
        if position >= end:
            raise PeerFault("message is truncated")
        head = data[position]
        position += 1
        if in_map and not left & 1 and head >> 5 != _TEXT:
            raise PeerFault("message has a map key that is not text")
        left -= 1
        skip = _SKIPS[head]
        if skip >= 0:
            position += skip
            continue
        major, argument = head >> 5, head & 0x1F
        if major == _TAG:
            raise PeerFault("message uses CBOR tags")
        if major == _SIMPLE:
            raise PeerFault("message uses floats or simple values other than false, true and null")
        if argument > 27:
            raise PeerFault("message uses indefinite or reserved lengths")
        if argument >= 24:
            width = _ARGUMENT_WIDTHS[argument]
            argument = int.from_bytes(data[position : position + width], "big")
            position += width
        if major in (_BYTES, _TEXT):
            position += argument
            continue
        if argument > end - position:
            raise PeerFault("message is truncated")
        outer.append((left, in_map))
        if len(outer) > CBOR_DEPTH_MAX:
            raise PeerFault(f"message nests deeper than {CBOR_DEPTH_MAX}")
        left, in_map = (argument * 2, True) if major == _MAP else (argument, False)


def _skip(head: int) -> int:
    """Returns how many bytes follow a head that says so itself and opens nothing, else -1."""
    major, argument = head >> 5, head & 0x1F
    if major in (_UNSIGNED, _NEGATIVE) and argument <= 27:
        return 0 if argument < 24 else _ARGUMENT_WIDTHS[argument]
    if major in (_BYTES, _TEXT) and argument < 24:
        return argument
    return 0 if major == _SIMPLE and argument in (_FALSE, _TRUE, _NULL) else -1


_SKIPS = tuple(map(_skip, range(256)))
"""The common heads, looked up: this walk is run on every frame and every record."""

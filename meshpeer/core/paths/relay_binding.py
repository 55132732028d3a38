"""Bindings as bytes: how an end shows a relay where it is, before anything of WireGuard's crosses there.

The relay hands each end of a pair a secret of its own over their authenticated link. A question that is
sealed with it, from WireGuard's own port to the port that is lent, tells the relay where the end is, and
opens the router's mapping; the answer, to where the question came from, tells the end that the way leads
there and back. As with TURN's bindings (RFC 8656) the secret is what proves, not the address.

    0   4  magic, that of a probe: WireGuard drops it in silence, and what hears probes hears it
    4   1  kind; 3 bytes that are zero
    8   8  stamp: rises with each question of an end, also beyond its restart (Unix microseconds, or one more)
    16  16 BLAKE2b of all before it, keyed with the secret

An answer has its question's stamp, and its length: nothing is to be gained by sending from another's address.

A *check* asks as a question does, and moves nobody: an end only wants to know whether the port is reached. A
relay that knew both ends before they shook hands there would pass on both of two initiations that cross, and
both answers would be lost.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from typing import NamedTuple

from meshpeer.core.paths.magic import MAGIC

BINDING_BYTES = 32
SECRET_BYTES = 32
_HEAD = struct.Struct("!4sB3xQ")
_PERSON, _PERSON_SECRET = b"meshpeer bind 1", b"meshpeer bkey 1"
_STAMP_MAX = 2**64 - 1

Binds = tuple[bytes, bytes]
"""The secrets of the end with the lower id, and of the other; empty where none can bind."""
NO_BINDS: Binds = (b"", b"")


class BindingKind(enum.IntEnum):
    QUESTION = 1
    ANSWER = 2
    CHECK = 3


class Binding(NamedTuple):
    kind: BindingKind
    stamp: int


_KINDS = frozenset(BindingKind)


def binding_secret(key: bytes, number: int, side: int) -> bytes:
    """Returns what one end of a relay's reservation with this number binds with. ``key``: the relay's own, of
    32 random bytes."""
    said = struct.pack("!QB", number, side)
    return hashlib.blake2b(said, digest_size=SECRET_BYTES, key=key, person=_PERSON_SECRET).digest()


def is_binding(data: bytes) -> bool:
    """Says whether a packet is one by its length and magic; a probe is longer."""
    return len(data) == BINDING_BYTES and data.startswith(MAGIC)


def write_binding(binding: Binding, secret: bytes) -> bytes:
    head = _HEAD.pack(MAGIC, binding.kind, min(binding.stamp, _STAMP_MAX))
    return head + _seal(head, secret)


def read_binding(data: bytes, secret: bytes) -> Binding | None:
    """Returns what a binding says (``is_binding``); None for what was not sealed with this secret."""
    head, seal = data[: _HEAD.size], data[_HEAD.size :]
    if not secret or not hmac.compare_digest(_seal(head, secret), seal):
        return None
    _, kind, stamp = _HEAD.unpack(head)
    return Binding(BindingKind(kind), stamp) if kind in _KINDS else None


def _seal(head: bytes, secret: bytes) -> bytes:
    size = BINDING_BYTES - _HEAD.size
    return hashlib.blake2b(head, digest_size=size, key=secret, person=_PERSON).digest()

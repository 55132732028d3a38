"""Probes as bytes: questions and answers that two members send each other from WireGuard's own port.

Both ends know each other's WireGuard key from signed records, so nothing has to be agreed on first: their
Diffie-Hellman secret (libsodium's ``crypto_box_beforenm``), bound to the mesh and to this purpose by a keyed
BLAKE2b, is the key of XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha). Enciphered, too, since some routers
rewrite addresses that they find in a packet (RFC 8489, 14.2).

    0   4  magic (``magic``)
    4   8  tag: who says it to whom; a hash, so that one look in a table tells
    12  24 nonce, random
    36  .. kind, flags, number, stamp, endpoint, padding; 16 bytes of Poly1305

A question that asks for nothing more is as long as its answer, and no question is shorter.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import struct
from typing import NamedTuple

import nacl.bindings
import nacl.exceptions

from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId, WireGuardKey
from meshpeer.core.paths.magic import MAGIC as MAGIC

TAG_BYTES, NONCE_BYTES, SEAL_BYTES = 8, 24, 16
_HEAD_BYTES = len(MAGIC) + TAG_BYTES + NONCE_BYTES
_BODY = struct.Struct("!BBQQ16sH")
_PERSON_TAG, _PERSON_KEY = b"meshpeer ptag 1", b"meshpeer pkey 1"
ANSWERED = 1
"""Flag: the sender's own questions to the address that this goes to come back."""
PROBE_BYTES = _HEAD_BYTES + _BODY.size + SEAL_BYTES
"""The UDP payload of an answer, and of a question that is not made longer."""
PROBE_BYTES_MAX = 65_507
"""Of a question: what an IPv4 packet holds behind its headers."""
_NOWHERE = ipaddress.IPv6Address(0)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ProbeKind(enum.IntEnum):
    QUESTION = 1
    ANSWER = 2


class Probe(NamedTuple):
    """What a probe says."""

    kind: ProbeKind
    number: int
    """Random, of 64 bits; an answer has its question's."""
    stamp: int
    """Rises with each that the sender sends, also beyond a restart (Unix microseconds, or one more)."""
    seen: str = ""
    """In an answer: where the question came from, as ``host:port``."""
    answered: bool = False
    """The sender's own questions to the receiver's address come back."""


def probe_key(mesh: MeshId, mine: WireGuardPrivateKey, theirs: WireGuardKey) -> bytes | None:
    """Returns what a pair's probes are sealed with, the same at both ends; None for a key of low order, which
    agrees on nothing."""
    try:
        shared = nacl.bindings.crypto_box_beforenm(theirs, mine.secret)
    except (nacl.exceptions.CryptoError, ValueError):
        return None
    return hashlib.blake2b(mesh, digest_size=32, key=shared, person=_PERSON_KEY).digest()


def probe_tag(mesh: MeshId, sender: WireGuardKey, receiver: WireGuardKey) -> bytes:
    """Returns the tag of what one says to the other."""
    said = mesh + sender + receiver
    return hashlib.blake2b(said, digest_size=TAG_BYTES, person=_PERSON_TAG).digest()


def tag_of(data: bytes) -> bytes | None:
    """Returns a datagram's tag; None for what is no probe by its length and magic."""
    if not PROBE_BYTES <= len(data) <= PROBE_BYTES_MAX or not data.startswith(MAGIC):
        return None
    return data[len(MAGIC) : len(MAGIC) + TAG_BYTES]


def seal(probe: Probe, tag: bytes, key: bytes, nonce: bytes, size: int = PROBE_BYTES) -> bytes:
    """Returns a probe of ``size`` bytes (the UDP payload). ``nonce``: random, of ``NONCE_BYTES``."""
    host, port = _split(probe.seen)
    flags = ANSWERED if probe.answered else 0
    body = _BODY.pack(probe.kind, flags, probe.number, probe.stamp, host, port)
    body += bytes(max(0, min(size, PROBE_BYTES_MAX) - PROBE_BYTES))
    head = MAGIC + tag
    sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(body, head, nonce, key)
    return head + nonce + sealed


def unseal(data: bytes, key: bytes) -> Probe | None:
    """Returns what a probe says (``tag_of`` found one); None for what was not sealed with this key, or says
    nothing known."""
    head = len(MAGIC) + TAG_BYTES
    try:
        body = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            data[_HEAD_BYTES:], data[:head], data[head:_HEAD_BYTES], key
        )
    except (nacl.exceptions.CryptoError, ValueError):
        return None
    kind, flags, number, stamp, host, port = _BODY.unpack_from(body)
    if kind not in (ProbeKind.QUESTION, ProbeKind.ANSWER):
        return None
    return Probe(ProbeKind(kind), number, stamp, _joined(host, port), bool(flags & ANSWERED))


def split_endpoint(endpoint: str) -> tuple[Address, int] | None:
    """Returns address and port of an endpoint in numbers; None for a name, or what is none."""
    host, _, port = endpoint.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65_535):
        return None
    try:
        return ipaddress.ip_address(host[1:-1] if host.startswith("[") else host), int(port)
    except ValueError:
        return None


def join_endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _split(endpoint: str) -> tuple[bytes, int]:
    parts = split_endpoint(endpoint)
    if parts is None:
        return _NOWHERE.packed, 0
    address, port = parts
    return (b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed), port


def _joined(host: bytes, port: int) -> str:
    if not port:
        return ""
    address = ipaddress.IPv6Address(host)
    return join_endpoint(address.ipv4_mapped or address, port)

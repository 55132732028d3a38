"""Keys: Ed25519 for identity and signatures (RFC 8032), Curve25519 for WireGuard (RFC 7748).

Secrets never show in a repr. A signature covers a context, the mesh id and the body, so that what was
signed for one purpose or one mesh means nothing elsewhere.
"""

from __future__ import annotations

import base64

import nacl.bindings
import nacl.exceptions

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey

SEED_BYTES = 32
_HEADER = "meshpeer key v1"


class SigningKey:
    """An Ed25519 key pair made from a 32-byte seed."""

    __slots__ = ("_secret", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError("an Ed25519 seed has 32 bytes")
        self.seed = seed
        public, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        self.public = NodeId(public)

    def sign(self, context: bytes, mesh: MeshId, body: bytes) -> bytes:
        """Returns the 64-byte signature over ``context || 0 || mesh || body``."""
        return nacl.bindings.crypto_sign(_message(context, mesh, body), self._secret)[:64]

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()[:16]}...)"


class WireGuardPrivateKey:
    """A Curve25519 private key, clamped as ``wg genkey`` does."""

    __slots__ = ("public", "secret")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError("a Curve25519 key has 32 bytes")
        clamped = bytearray(seed)
        clamped[0] &= 248
        clamped[31] = (clamped[31] & 127) | 64
        self.secret = bytes(clamped)
        self.public = WireGuardKey(nacl.bindings.crypto_scalarmult_base(self.secret))

    def __repr__(self) -> str:
        return f"WireGuardPrivateKey(public={self.public.hex()[:16]}...)"


def verify_signature(public: bytes, context: bytes, mesh: MeshId, body: bytes, signature: bytes) -> bool:
    """Says whether ``public`` signed the body for this context and mesh; rubbish is simply False."""
    if len(signature) != 64 or len(public) != 32:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + _message(context, mesh, body), public)
    except (nacl.exceptions.BadSignatureError, ValueError):
        return False
    return True


def encode_key_file(kind: str, seed: bytes) -> str:
    """Returns the text of a key file: a header that names the kind, and the seed in base64."""
    return f"{_HEADER} {kind}\n{base64.b64encode(seed).decode('ascii')}\n"


def decode_key_file(text: str, kind: str, source: str) -> bytes:
    """Returns the seed; raises ``EnvironmentFault`` naming ``source`` where the file is not such a key.

    The error shows nothing of the file: with its line break lost, the header line holds the key.
    """
    restore = "restore it from a backup, or join anew with an invite"
    header, _, rest = text.partition("\n")
    if header.strip() != f"{_HEADER} {kind}":
        raise EnvironmentFault(f"{source} does not hold a {kind} key", restore)
    try:
        seed = base64.b64decode(rest.strip(), validate=True)
    except ValueError as error:
        raise EnvironmentFault(f"{source} is damaged", restore) from error
    if len(seed) != SEED_BYTES:
        raise EnvironmentFault(
            f"{source} is damaged: its key has {len(seed)} bytes, not {SEED_BYTES}", restore
        )
    return seed


def _message(context: bytes, mesh: MeshId, body: bytes) -> bytes:
    return context + b"\0" + mesh + body

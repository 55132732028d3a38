"""The signed envelope: ``[body, signature]``, Ed25519 over the context, the mesh id and the body as received.

The body stays bytes: what was signed is what travels on, also when it holds fields of a later version.
"""

from __future__ import annotations

import hashlib
from typing import TypeVar

import msgspec

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.keys import SigningKey, verify_signature
from meshpeer.core.ids import Digest, MeshId, NodeId
from meshpeer.core.wire import cbor

RECORD_CONTEXT = b"meshpeer/record/v1"
JOB_CONTEXT = b"meshpeer/job/v1"

Body = TypeVar("Body")


class BadSignature(PeerFault):
    """Nobody who follows the protocol sends this: a relaying peer checks before it passes on."""


class Signed(msgspec.Struct, frozen=True, array_like=True):
    """A body and its author's signature; encodes as a CBOR array of two byte strings."""

    body: bytes
    signature: bytes


def sign(key: SigningKey, mesh: MeshId, body: object, *, context: bytes = RECORD_CONTEXT) -> bytes:
    """Returns the encoded envelope of ``body``, signed for one mesh and one context."""
    encoded = cbor.encode(body)
    return cbor.encode(Signed(encoded, key.sign(context, mesh, encoded)))


def body_of(envelope: bytes) -> bytes:
    """Returns the bytes that an envelope of this node's own making says."""
    return cbor.decode(envelope, Signed, bytes_max=len(envelope)).body


def sign_body(key: SigningKey, mesh: MeshId, body: bytes, *, context: bytes = RECORD_CONTEXT) -> bytes:
    """Returns the envelope of a body that is encoded already."""
    return cbor.encode(Signed(body, key.sign(context, mesh, body)))


def open_body(envelope: bytes, kind: type[Body], *, bytes_max: int) -> Body:
    """Reads the body *without* checking the signature: cheap checks come before dear ones. Raises
    ``PeerFault``."""
    signed = cbor.decode(envelope, Signed, bytes_max=bytes_max)
    return cbor.decode(signed.body, kind, bytes_max=bytes_max)


def verify(
    envelope: bytes, author: NodeId, mesh: MeshId, *, bytes_max: int, context: bytes = RECORD_CONTEXT
) -> None:
    """Checks that ``author`` signed the envelope for this mesh and context; raises ``BadSignature``."""
    signed = cbor.decode(envelope, Signed, bytes_max=bytes_max)
    if not verify_signature(author, context, mesh, signed.body, signed.signature):
        raise BadSignature("signature does not verify")


def digest_of(envelope: bytes) -> Digest:
    """Returns the SHA-256 of an envelope: what digests compare and equivocation is settled by."""
    return Digest(hashlib.sha256(envelope).digest())

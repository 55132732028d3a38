"""A node's wish to be an issuer: the public key that it made for that, signed by the node and by that key.

It is what the holder of the root's key signs a certificate for, whether it came over a link or in a file.
Both signatures are needed: the node's says who keeps the key, the key's own says that it is kept there.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.keys import SigningKey, verify_signature
from meshpeer.core.ids import NODE_ID_BYTES, MeshId, NodeId
from meshpeer.core.records import envelope
from meshpeer.core.wire.limits import RECORD_BYTES_MAX

REQUEST_CONTEXT = b"meshpeer/issuer-key/v1"
PROOF_CONTEXT = b"meshpeer/issuer-proof/v1"


class IssuerRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="k", tag="issuer-key"):
    """What a node that is to be an issuer says."""

    node: NodeId
    public: Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
    """Of the key that it made to sign with."""
    issued_at: int
    proof: bytes
    """That key's signature over the node's own."""


def make_request(key: SigningKey, issuer_seed: bytes, mesh: MeshId, now_unix_s: int) -> bytes:
    """Returns the signed request of a node with this key, for the issuer's key that it made."""
    issuer = SigningKey(issuer_seed)
    body = IssuerRequest(
        node=key.public,
        public=issuer.public,
        issued_at=now_unix_s,
        proof=issuer.sign(PROOF_CONTEXT, mesh, key.public),
    )
    return envelope.sign(key, mesh, body, context=REQUEST_CONTEXT)


def read_request(data: bytes, mesh: MeshId) -> IssuerRequest:
    """Reads a request and checks both signatures; raises ``PeerFault``. Whether the node is a member is for
    the caller to ask."""
    body = envelope.open_body(data, IssuerRequest, bytes_max=RECORD_BYTES_MAX)
    envelope.verify(data, body.node, mesh, bytes_max=RECORD_BYTES_MAX, context=REQUEST_CONTEXT)
    if not verify_signature(body.public, PROOF_CONTEXT, mesh, body.node, body.proof):
        raise PeerFault("the issuer's key does not say that its node keeps it")
    return body

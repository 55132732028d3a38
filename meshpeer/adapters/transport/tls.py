"""TLS contexts of a node: 1.3 only, Ed25519, both sides show a chain, the mesh's roots are the only anchors.

OpenSSL judges signatures, CA flags and path lengths; it does not judge times (X509_V_FLAG_NO_CHECK_TIME),
because its refusal could
not name both clocks. ``core.identity.chains`` judges times, and everything else again, at the greeting,
before any other
frame of the link is read. Names and addresses mean nothing here: the identity is the key.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.certificates import public_key_of
from meshpeer.core.ids import NodeId

SHOWN_BEFORE_MAX = 6
"""Contexts remembered beyond the present two."""
NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h; Python's ssl has no name for it."""


class TlsIdentity:
    """This node's side of every handshake."""

    def __init__(self, *, seed: bytes, chain: Sequence[bytes], roots: Sequence[bytes]) -> None:
        self._seed = seed
        self._roots = tuple(roots)
        self._shown: list[tuple[ssl.SSLContext, bytes]] = []
        self._chain: Sequence[bytes] = ()
        self.show(chain)

    def show(self, chain: Sequence[bytes]) -> None:
        """Proves this node's identity with another chain in handshakes from now on."""
        self._chain = chain
        self.client = self._context(ssl.PROTOCOL_TLS_CLIENT, chain)
        self.server = self._context(ssl.PROTOCOL_TLS_SERVER, chain)
        self._shown = [(self.client, chain[0]), (self.server, chain[0]), *self._shown[:SHOWN_BEFORE_MAX]]

    def trust(self, roots: Sequence[bytes]) -> None:
        """Takes other roots for the mesh's in handshakes from now on, founding root first."""
        self._roots = tuple(roots)
        self.show(self._chain)

    def shown_by(self, context: ssl.SSLContext) -> bytes:
        """Returns the leaf that a handshake with this context showed: a handshake may outlast a change of
        chain."""
        return next((leaf for one, leaf in self._shown if one is context), b"")

    def _context(self, protocol: int, chain: Sequence[bytes]) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        # A root that another one signed is an anchor, too: without this flag only self-signed ones are.
        context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME) | ssl.VERIFY_X509_PARTIAL_CHAIN
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0
        context.load_verify_locations(cadata="".join(ssl.DER_cert_to_PEM_cert(root) for root in self._roots))
        # Who was away while a root followed another knows the ones before, and finds its way from there.
        _load_chain(context, (*chain, *reversed(self._roots[1:])), self._seed)
        return context


def peer_of(certificate: bytes | None) -> NodeId:
    """Returns the key that a handshake proved; raises ``PeerFault`` where there is none."""
    try:
        return NodeId(public_key_of(certificate or b""))
    except ValueError as error:
        raise PeerFault("the peer showed no certificate of ours") from error


def _load_chain(context: ssl.SSLContext, chain: Sequence[bytes], seed: bytes) -> None:
    """Hands chain and key over in memory: ``load_cert_chain`` takes paths only, and no key is to touch a disk
    twice."""
    key = Ed25519PrivateKey.from_private_bytes(seed).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    file = os.memfd_create("meshpeer-chain", os.MFD_CLOEXEC)
    try:
        os.write(file, "".join(ssl.DER_cert_to_PEM_cert(one) for one in chain).encode("ascii") + key)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)

"""Judges certificate chains, from handshakes and from gossip alike.

OpenSSL judges a handshake's chain too; a gossiped one has no handshake, and OpenSSL knows nothing of our constraints. Our rules
stand on ``verify_directly_issued_by`` (names and signature) and add, for every certificate: size, validity, CA flag, path
length, key usage, the constraints extension, one mesh, and the order root -> issuer -> (invite ->) leaf. What we accept,
OpenSSL accepts; not the other way round.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.constraints import (
    CONSTRAINTS_BYTES_MAX,
    CONSTRAINTS_OID,
    Capability,
    Constraints,
    Kind,
    intersect,
)
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import CERTIFICATE_BYTES_MAX, CHAIN_LENGTH_MAX

_BELOW = {Kind.ROOT: {Kind.ISSUER}, Kind.ISSUER: {Kind.INVITE, Kind.LEAF}, Kind.INVITE: {Kind.LEAF}, Kind.LEAF: set[Kind]()}


class ChainFault(PeerFault):
    """A chain breaks a rule; the text says which."""


class NotValidNow(ChainFault):
    """A certificate is not valid at this clock; the text names this clock and the validity, since clocks are wrong more often than certificates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedIdentity:
    """What a chain proves."""

    node: NodeId
    durable: bool
    """Signed by an issuer; else provisional, signed by the joiner with an invite's key."""
    capabilities: frozenset[Capability]
    roles: tuple[str, ...]
    """Roles that the node may claim; empty for any."""
    region: str
    """Region that the node must claim; empty for any."""
    routes: tuple[str, ...]
    admitted_at: int
    """Unix seconds. Of a provisional leaf: its own word, which a durable one always beats."""
    invite: bytes
    """The id of the invite behind the leaf; empty for the founder."""
    invite_uses: int
    """How many nodes the invite admits; 0 where the chain does not hold the invite."""
    issuer: bytes
    """The issuer's key id (first 8 bytes of the SHA-256 of its public key)."""
    not_before: int
    not_after: int
    """The end of the chain: the earliest of its certificates' ends."""


def verify_chain(chain: Sequence[bytes], roots: Sequence[bytes], mesh: MeshId, now_unix_s: int) -> VerifiedIdentity:
    """Judges a chain, leaf first, root left out; raises ``ChainFault`` (``NotValidNow`` for times)."""
    if not 2 <= len(chain) <= CHAIN_LENGTH_MAX:
        raise ChainFault(f"chain of {len(chain)} certificates, expected 2 to {CHAIN_LENGTH_MAX}")
    parsed = [_parse(one, mesh) for one in chain]
    signer = _root_of(parsed[-1][0], roots, mesh)
    anchor = signer
    effective = signer[1]
    depth_allowed = 2
    for certificate, constraints in reversed(parsed):
        _check_signed(certificate, signer[0])
        if constraints.kind not in _BELOW[signer[1].kind]:
            raise ChainFault(f"a {constraints.kind.value} can't stand below a {signer[1].kind.value}")
        depth_allowed = _check_authority(certificate, constraints, depth_allowed)
        if not set(constraints.capabilities) <= set(effective.capabilities):
            raise ChainFault(f"the {constraints.kind.value} claims capabilities that its signer can't hand on")
        effective = intersect(effective, constraints)
        signer = (certificate, constraints)
    if signer[1].kind is not Kind.LEAF:
        raise ChainFault("the chain does not end in a leaf")
    for certificate, constraints in (*parsed, anchor):
        _check_time(certificate, constraints.kind, now_unix_s)
    return _identity(parsed, effective)


def _identity(parsed: list[tuple[x509.Certificate, Constraints]], effective: Constraints) -> VerifiedIdentity:
    leaf, constraints = parsed[0]
    above, above_constraints = parsed[1]
    durable = above_constraints.kind is Kind.ISSUER
    issuer = parsed[1 if durable else 2][0]
    not_before = int(leaf.not_valid_before_utc.timestamp())
    invite = constraints.invite if durable else _key_id(above)
    if not durable and constraints.invite != invite:
        raise ChainFault("the leaf names another invite than the one that signed it")
    return VerifiedIdentity(
        node=NodeId(_public(leaf)),
        durable=durable,
        capabilities=frozenset(effective.capabilities),
        roles=effective.roles,
        region=effective.region,
        routes=effective.routes,
        admitted_at=constraints.admitted_at if durable else not_before,
        invite=invite,
        invite_uses=0 if durable else max(1, above_constraints.uses),
        issuer=_key_id(issuer),
        not_before=not_before,
        not_after=int(min(certificate.not_valid_after_utc for certificate, _ in parsed).timestamp()),
    )


def _parse(data: bytes, mesh: MeshId) -> tuple[x509.Certificate, Constraints]:
    if len(data) > CERTIFICATE_BYTES_MAX:
        raise ChainFault(f"certificate of {len(data)} bytes exceeds {CERTIFICATE_BYTES_MAX}")
    try:
        certificate = x509.load_der_x509_certificate(data)
        extensions = certificate.extensions
        extension = extensions.get_extension_for_oid(CONSTRAINTS_OID).value
    except x509.ExtensionNotFound as error:
        raise ChainFault("certificate lacks the constraints of a mesh") from error
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ChainFault(f"certificate can't be parsed: {error}") from error
    unknown = [one.oid.dotted_string for one in extensions if one.critical and isinstance(one.value, x509.UnrecognizedExtension)]
    if unknown or not isinstance(extension, x509.UnrecognizedExtension):
        raise ChainFault(f"certificate has unknown critical extensions {unknown}")
    try:
        constraints = cbor.decode(extension.value, Constraints, bytes_max=CONSTRAINTS_BYTES_MAX)
    except PeerFault as error:
        raise ChainFault(f"certificate has constraints that can't be read: {error.what}") from error
    if constraints.mesh != mesh:
        raise ChainFault("certificate belongs to another mesh")
    return certificate, constraints


def _root_of(top: x509.Certificate, roots: Sequence[bytes], mesh: MeshId) -> tuple[x509.Certificate, Constraints]:
    for data in roots:
        root, constraints = _parse(data, mesh)
        if root.subject == top.issuer and constraints.kind is Kind.ROOT:
            return root, constraints
    raise ChainFault("chain does not lead to a root of this mesh")


def _check_signed(certificate: x509.Certificate, signer: x509.Certificate) -> None:
    try:
        _public(certificate)
        certificate.verify_directly_issued_by(signer)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise ChainFault("certificate is not signed by the one above it") from error


def _check_authority(certificate: x509.Certificate, constraints: Constraints, depth_allowed: int) -> int:
    """Checks CA flag, path length and key usage (RFC 5280, section 6.1.4); returns how many CAs may follow."""
    authority = constraints.kind is not Kind.LEAF
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise ChainFault("certificate lacks basic constraints or key usage") from error
    if basic.ca is not authority:
        raise ChainFault(f"a {constraints.kind.value} has the wrong CA flag")
    if usage.key_cert_sign is not authority or usage.digital_signature is authority:
        raise ChainFault(f"a {constraints.kind.value} has the wrong key usage")
    if not authority:
        return depth_allowed
    if depth_allowed < 1:
        raise ChainFault("chain is longer than its path lengths allow")
    return min(depth_allowed - 1, 2 if basic.path_length is None else basic.path_length)


def _check_time(certificate: x509.Certificate, kind: Kind, now_unix_s: int) -> None:
    now = datetime.datetime.fromtimestamp(now_unix_s, datetime.UTC)
    if certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return
    begin, end = (f"{one:%Y-%m-%d %H:%M:%S}" for one in (certificate.not_valid_before_utc, certificate.not_valid_after_utc))
    what = "has ended" if now > certificate.not_valid_after_utc else "is not valid yet"
    raise NotValidNow(
        f"the {kind.value} certificate {what}: it holds from {begin} to {end} UTC, and this node's clock says {now:%Y-%m-%d %H:%M:%S}",
        "check the clocks of both machines (timedatectl); if they are right, ask for a new invite",
    )


def _public(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ChainFault("certificate has a key that is not Ed25519")
    return key.public_bytes_raw()


def _key_id(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(_public(certificate)).digest()[:8]

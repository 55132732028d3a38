"""Makes certificates: root, issuer, invite, provisional and durable leaf.

X.509 v3 with Ed25519 (RFC 5280, RFC 8410), compact: short names, 8-byte serials, key identifiers of 8 bytes (RFC 5280,
section 4.2.1.2 leaves their length open). Everything is backdated one hour, for clocks that are behind.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.identity.constraints import ALL, CONSTRAINTS_OID, Capability, Constraints, Kind
from meshpeer.core.ids import MeshId, NodeId, key_text
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import CERTIFICATE_BYTES_MAX

BACKDATED_S = 3_600
ROOT_S = 30 * 365 * 86_400
ISSUER_S = 10 * 365 * 86_400
DURABLE_S = 365 * 86_400
SERIAL_BYTES = 8

_PATH_LENGTH = {Kind.ROOT: 2, Kind.ISSUER: 1, Kind.INVITE: 0}


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """A CA certificate and its key: what can sign the next certificate down."""

    seed: bytes
    certificate: bytes

    def __repr__(self) -> str:
        return f"Authority({invite_id_of(self.certificate).hex()})"


def mesh_id_of(root_public: bytes) -> MeshId:
    """Returns the mesh id of a mesh founded with this root key."""
    return MeshId(hashlib.sha256(root_public).digest()[:16])


def make_root(seed: bytes, *, now_unix_s: int, serial: bytes) -> Authority:
    """Makes the self-signed root of a new mesh."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key().public_bytes_raw()
    constraints = Constraints(kind=Kind.ROOT, mesh=mesh_id_of(public), capabilities=_ordered(ALL))
    name = _name("root", public)
    return Authority(seed, _build(key.public_key(), name, name, public, key, constraints, now_unix_s, now_unix_s + ROOT_S, serial))


def make_issuer(root: Authority, seed: bytes, *, now_unix_s: int, serial: bytes) -> Authority:
    """Makes an issuer below the root; it may hand on every capability."""
    above = constraints_of(root.certificate)
    return _sub_authority(root, seed, Constraints(kind=Kind.ISSUER, mesh=above.mesh, capabilities=_ordered(ALL)), now_unix_s, ISSUER_S, serial)


def make_invite(
    issuer: Authority,
    seed: bytes,
    *,
    capabilities: frozenset[Capability],
    roles: tuple[str, ...],
    region: str,
    uses: int,
    expires_s: int,
    now_unix_s: int,
    serial: bytes,
) -> Authority:
    """Makes an invite: a short-lived CA whose key travels in the invite's text."""
    constraints = Constraints(
        kind=Kind.INVITE,
        mesh=constraints_of(issuer.certificate).mesh,
        capabilities=_ordered(capabilities),
        roles=tuple(sorted(set(roles))),
        region=region,
        uses=uses,
    )
    return _sub_authority(issuer, seed, constraints, now_unix_s, expires_s, serial)


def make_provisional_leaf(invite: Authority, node: NodeId, *, now_unix_s: int, serial: bytes) -> bytes:
    """Makes the leaf that a joiner signs for itself; it ends with the invite."""
    above = constraints_of(invite.certificate)
    constraints = Constraints(
        kind=Kind.LEAF,
        mesh=above.mesh,
        capabilities=above.capabilities,
        roles=above.roles,
        region=above.region,
        routes=above.routes,
        invite=invite_id_of(invite.certificate),
    )
    end = int(x509.load_der_x509_certificate(invite.certificate).not_valid_after_utc.timestamp())
    return _leaf(invite, node, constraints, now_unix_s, end, serial)


def make_durable_leaf(
    issuer: Authority,
    node: NodeId,
    *,
    capabilities: frozenset[Capability],
    roles: tuple[str, ...] = (),
    region: str = "",
    routes: tuple[str, ...] = (),
    admitted_at: int,
    invite: bytes = b"",
    now_unix_s: int,
    serial: bytes,
) -> bytes:
    """Makes a node's leaf for a year; ``admitted_at`` is kept through renewals."""
    constraints = Constraints(
        kind=Kind.LEAF,
        mesh=constraints_of(issuer.certificate).mesh,
        capabilities=_ordered(capabilities),
        roles=roles,
        region=region,
        routes=routes,
        admitted_at=admitted_at,
        invite=invite,
    )
    return _leaf(issuer, node, constraints, now_unix_s, now_unix_s + DURABLE_S, serial)


def constraints_of(certificate: bytes) -> Constraints:
    """Reads the extension of a certificate of our own making; chains of others are read by ``chains``."""
    extension = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_oid(CONSTRAINTS_OID).value
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise InvariantBroken("the constraints extension is parsed by nobody but us")
    return cbor.decode(extension.value, Constraints, bytes_max=CERTIFICATE_BYTES_MAX)


def public_key_of(certificate: bytes) -> bytes:
    """Returns the raw Ed25519 public key of a certificate; raises ``ValueError`` for another kind of key."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the certificate's key is not Ed25519")
    return key.public_bytes_raw()


def invite_id_of(certificate: bytes) -> bytes:
    """Returns the first 8 bytes of the SHA-256 of a certificate's public key."""
    return hashlib.sha256(public_key_of(certificate)).digest()[:8]


def _sub_authority(above: Authority, seed: bytes, constraints: Constraints, now: int, lasts_s: int, serial: bytes) -> Authority:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key().public_bytes_raw()
    signer = x509.load_der_x509_certificate(above.certificate)
    return Authority(
        seed,
        _build(
            key.public_key(),
            _name(constraints.kind.value, public),
            signer.subject,
            public_key_of(above.certificate),
            Ed25519PrivateKey.from_private_bytes(above.seed),
            constraints,
            now,
            now + lasts_s,
            serial,
        ),
    )


def _leaf(above: Authority, node: NodeId, constraints: Constraints, now: int, end: int, serial: bytes) -> bytes:
    signer = x509.load_der_x509_certificate(above.certificate)
    return _build(
        Ed25519PublicKey.from_public_bytes(node),
        _name("node", node),
        signer.subject,
        public_key_of(above.certificate),
        Ed25519PrivateKey.from_private_bytes(above.seed),
        constraints,
        now,
        end,
        serial,
    )


def _build(
    public: Ed25519PublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    issuer_public: bytes,
    signer: Ed25519PrivateKey,
    constraints: Constraints,
    now: int,
    end: int,
    serial: bytes,
) -> bytes:
    if len(serial) != SERIAL_BYTES:
        raise InvariantBroken("a serial has 8 bytes")
    authority = constraints.kind is not Kind.LEAF
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(int.from_bytes(serial, "big") >> 1 | 1)
        .not_valid_before(_utc(now - BACKDATED_S))
        .not_valid_after(_utc(end))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=_PATH_LENGTH.get(constraints.kind)), critical=True)
        .add_extension(_usage(authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(_key_id(public.public_bytes_raw())), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(_key_id(issuer_public), None, None), critical=False)
        .add_extension(x509.UnrecognizedExtension(CONSTRAINTS_OID, cbor.encode(constraints)), critical=False)
    )
    return builder.sign(signer, None).public_bytes(Encoding.DER)


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_id(public: bytes) -> bytes:
    return hashlib.sha256(public).digest()[:8]


def _name(kind: str, public: bytes) -> x509.Name:
    """Names differ for every key, so OpenSSL never mixes two authorities of one mesh up."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{kind} {key_text(public)[:10]}")])


def _utc(unix_s: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC)


def _ordered(capabilities: frozenset[Capability]) -> tuple[Capability, ...]:
    return tuple(one for one in Capability if one in capabilities)

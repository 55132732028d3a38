"""Makes certificates: root, issuer, invite, provisional and durable leaf, each in the one form of
``profile``.

Everything is backdated one hour, for clocks that are behind. What a certificate may hand on is checked here
as it is by those who judge: nothing is signed that nobody would believe.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from meshpeer.core.errors import InvariantBroken, LocalFault, PeerFault
from meshpeer.core.identity import profile
from meshpeer.core.identity.constraints import (
    ALL,
    CONSTRAINTS_BYTES_MAX,
    CONSTRAINTS_OID,
    USES_MAX,
    Capability,
    Constraints,
    Kind,
    excess,
    form_fault,
)
from meshpeer.core.identity.profile import SERIAL_BYTES as SERIAL_BYTES
from meshpeer.core.ids import MESH_ID_BYTES, MeshId, NodeId
from meshpeer.core.wire import cbor

BACKDATED_S = 3_600
ROOT_S = 30 * 365 * 86_400
ISSUER_S = 10 * 365 * 86_400
DURABLE_S = 365 * 86_400


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """A CA certificate and the seed of its key: what can sign the next certificate down."""

    seed: bytes
    certificate: bytes

    @property
    def id(self) -> bytes:
        """The key id, 8 bytes: how leaves and revocations name this authority."""
        return invite_id_of(self.certificate)

    def __repr__(self) -> str:
        return f"Authority({self.id.hex()})"


def mesh_id_of(root_public: bytes) -> MeshId:
    """Returns the mesh id of a mesh founded with this root key."""
    return MeshId(hashlib.sha256(root_public).digest()[:MESH_ID_BYTES])


def make_root(seed: bytes, *, now_unix_s: int, serial: bytes, above: Authority | None = None) -> Authority:
    """Makes the self-signed root of a new mesh; with ``above``, the root that follows that one and is signed
    by it."""
    public = _public_of_seed(seed)
    if above is not None:
        followed = msgspec.structs.replace(constraints_of(above.certificate), capabilities=_ordered(ALL))
        return Authority(seed, _sign_below(above, public, followed, now_unix_s, now_unix_s + ROOT_S, serial))
    constraints = Constraints(kind=Kind.ROOT, mesh=mesh_id_of(public), capabilities=_ordered(ALL))
    name = profile.subject(Kind.ROOT, public)
    return Authority(
        seed,
        _sign(
            constraints,
            public=public,
            signer_seed=seed,
            signer_public=public,
            signer_name=name,
            begins_at=now_unix_s - BACKDATED_S,
            ends_at=now_unix_s + ROOT_S,
            serial=serial,
        ),
    )


def make_issuer(
    root: Authority,
    seed: bytes,
    *,
    capabilities: Iterable[Capability] = ALL,
    holder: bytes = b"",
    now_unix_s: int,
    serial: bytes,
) -> Authority:
    """Makes an issuer below the root; it may hand on ``capabilities``."""
    certificate = certify_issuer(
        root,
        _public_of_seed(seed),
        capabilities=capabilities,
        holder=holder,
        now_unix_s=now_unix_s,
        serial=serial,
    )
    return Authority(seed, certificate)


def certify_issuer(
    root: Authority,
    public: bytes,
    *,
    capabilities: Iterable[Capability] = ALL,
    holder: bytes,
    now_unix_s: int,
    serial: bytes,
) -> bytes:
    """Makes the certificate of an issuer whose key another node (its ``holder``) made and keeps."""
    above = constraints_of(root.certificate)
    constraints = Constraints(
        kind=Kind.ISSUER, mesh=above.mesh, capabilities=_ordered(capabilities), holder=holder
    )
    return _sign_below(root, public, constraints, now_unix_s, now_unix_s + ISSUER_S, serial)


def make_invite(
    issuer: Authority,
    seed: bytes,
    *,
    capabilities: Iterable[Capability],
    roles: Iterable[str] = (),
    region: str = "",
    routes: Iterable[str] = (),
    uses: int,
    expires_s: int,
    now_unix_s: int,
    serial: bytes,
) -> Authority:
    """Makes an invite: a short-lived CA whose key travels in the invite's text.

    Raises ``LocalFault`` for what can't be put in one: no uses, no time, a role that is no word, a route
    that is no CIDR.
    """
    if not 1 <= uses <= USES_MAX:
        raise LocalFault(f"an invite can't admit {uses} nodes", f"choose from 1 to {USES_MAX} uses")
    if expires_s <= 0:
        raise LocalFault(
            "an invite that has expired already is of no use", "choose a time to come, such as 24h"
        )
    above = constraints_of(issuer.certificate)
    constraints = Constraints(
        kind=Kind.INVITE,
        mesh=above.mesh,
        capabilities=_ordered(capabilities),
        roles=tuple(sorted(set(roles))),
        region=region,
        routes=tuple(sorted(set(routes))),
        uses=uses,
    )
    end = min(now_unix_s + expires_s, end_of(issuer.certificate))
    return Authority(seed, _sign_below(issuer, _public_of_seed(seed), constraints, now_unix_s, end, serial))


def make_provisional_leaf(invite: Authority, node: NodeId, *, now_unix_s: int, serial: bytes) -> bytes:
    """Makes the leaf that a joiner signs for itself; it takes all that the invite gives and ends with it."""
    above = constraints_of(invite.certificate)
    constraints = Constraints(
        kind=Kind.LEAF,
        mesh=above.mesh,
        capabilities=above.capabilities,
        roles=above.roles,
        region=above.region,
        routes=above.routes,
        uses=above.uses,
        invite=invite.id,
    )
    return _sign_below(invite, node, constraints, now_unix_s, end_of(invite.certificate), serial)


def make_durable_leaf(
    issuer: Authority,
    node: NodeId,
    *,
    capabilities: Iterable[Capability],
    roles: tuple[str, ...] = (),
    region: str = "",
    routes: tuple[str, ...] = (),
    admitted_at: int,
    invite: bytes = b"",
    uses: int = 0,
    now_unix_s: int,
    serial: bytes,
) -> bytes:
    """Makes a node's leaf for a year; ``admitted_at`` is kept through renewals.

    ``invite`` and ``uses`` are those of the invite that the node came with, both empty for a founder.
    """
    constraints = Constraints(
        kind=Kind.LEAF,
        mesh=constraints_of(issuer.certificate).mesh,
        capabilities=_ordered(capabilities),
        roles=roles,
        region=region,
        routes=routes,
        admitted_at=admitted_at,
        invite=invite,
        uses=uses,
    )
    return _sign_below(issuer, node, constraints, now_unix_s, now_unix_s + DURABLE_S, serial)


def constraints_of(certificate: bytes) -> Constraints:
    """Reads the constraints of a certificate that this node made or judged before."""
    extension = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_oid(CONSTRAINTS_OID)
    if not isinstance(extension.value, x509.UnrecognizedExtension):
        raise InvariantBroken("the constraints extension is parsed by nobody but us")
    return cbor.decode(extension.value.value, Constraints, bytes_max=CONSTRAINTS_BYTES_MAX)


def public_key_of(certificate: bytes) -> bytes:
    """Returns the raw Ed25519 public key of a certificate; raises ``ValueError`` for anything else."""
    if profile.section_off(certificate):
        raise ValueError("this is no certificate of a mesh")
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ValueError(f"the certificate can't be read: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the certificate's key is not Ed25519")
    return key.public_bytes_raw()


def invite_id_of(certificate: bytes) -> bytes:
    """Returns the first 8 bytes of the SHA-256 of a certificate's public key."""
    return profile.key_id(public_key_of(certificate))


def begin_of(certificate: bytes) -> int:
    """Returns the first Unix second at which a certificate holds: an hour before it was made."""
    return int(x509.load_der_x509_certificate(certificate).not_valid_before_utc.timestamp())


def end_of(certificate: bytes) -> int:
    """Returns the last Unix second at which a certificate holds."""
    return int(x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp())


def _sign_below(
    above: Authority, public: bytes, constraints: Constraints, now_unix_s: int, ends_at: int, serial: bytes
) -> bytes:
    beyond = excess(constraints_of(above.certificate), constraints)
    if beyond:
        raise LocalFault(
            f"this authority can't hand on {beyond}", "ask for less, or use an issuer that may hand it on"
        )
    signer = x509.load_der_x509_certificate(above.certificate)
    return _sign(
        constraints,
        public=public,
        signer_seed=above.seed,
        signer_public=public_key_of(above.certificate),
        signer_name=signer.subject,
        begins_at=now_unix_s - BACKDATED_S,
        ends_at=ends_at,
        serial=serial,
    )


def _sign(
    constraints: Constraints,
    *,
    public: bytes,
    signer_seed: bytes,
    signer_public: bytes,
    signer_name: x509.Name,
    begins_at: int,
    ends_at: int,
    serial: bytes,
) -> bytes:
    if len(serial) != SERIAL_BYTES:
        raise InvariantBroken(f"a serial has {SERIAL_BYTES} bytes")
    kind = constraints.kind
    builder = (
        x509.CertificateBuilder()
        .subject_name(profile.subject(kind, public))
        .issuer_name(signer_name)
        .public_key(Ed25519PublicKey.from_public_bytes(public))
        .serial_number(int.from_bytes(serial, "big") >> 1 | 1)
        .not_valid_before(_utc(begins_at))
        .not_valid_after(_utc(ends_at))
        .add_extension(profile.basic_constraints(kind), critical=True)
        .add_extension(profile.key_usage(kind), critical=True)
        .add_extension(profile.subject_key_id(public), critical=False)
        .add_extension(profile.authority_key_id(signer_public), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(CONSTRAINTS_OID, _encode_constraints(constraints)), critical=False
        )
    )
    return builder.sign(Ed25519PrivateKey.from_private_bytes(signer_seed), None).public_bytes(Encoding.DER)


def _encode_constraints(constraints: Constraints) -> bytes:
    """Encodes what any judge would accept; raises ``LocalFault`` for the rest."""
    data = cbor.encode(constraints)
    try:
        fault = form_fault(cbor.decode(data, Constraints, bytes_max=CONSTRAINTS_BYTES_MAX))
    except PeerFault as error:
        fault = error.what
    if fault:
        raise LocalFault(
            f"a certificate can't say this: {fault}",
            "roles and regions are letters, digits, dots and dashes; routes are CIDRs such as 10.0.0.0/24",
        )
    return data


def _public_of_seed(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _utc(unix_s: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC)


def _ordered(capabilities: Iterable[Capability]) -> tuple[str, ...]:
    held = frozenset(capabilities)
    return tuple(one.value for one in Capability if one in held)

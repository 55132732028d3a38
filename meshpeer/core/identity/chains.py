"""Judges certificate chains, from handshakes and from gossip alike.

OpenSSL judges a handshake's chain too; a gossiped one has no handshake, and OpenSSL knows nothing of our
constraints. Our rules stand on ``verify_directly_issued_by`` (names and signature) and add, for every
certificate: size, the one form of ``profile`` (extensions, CA flag, path length, key usage, names, key
identifiers), the constraints, one mesh, the order root -> issuer -> (invite ->) leaf, nothing beyond what
the signer may hand on, validity. What we accept, OpenSSL accepts; not the other way round.

Checks go from cheap to dear, and the first one that fails ends it. Nothing here knows who was revoked.
"""

from __future__ import annotations

import datetime
import enum
import functools
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import nacl.bindings
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity import profile
from meshpeer.core.identity.constraints import (
    CONSTRAINTS_BYTES_MAX,
    CONSTRAINTS_OID,
    Capability,
    Constraints,
    Kind,
    excess,
    form_fault,
    inherit,
    known,
)
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import CERTIFICATE_BYTES_MAX, CHAIN_LENGTH_MAX

_SIGNATURES_REMEMBERED = 256
SIGNERS_REMEMBERED = 64
"""Invites and issuers are few, and stand in the chains of all whom they let in."""
"""Authorities whose signature was checked; a mesh of thousands hangs from a handful."""


class Rule(enum.StrEnum):
    """The rule that a chain broke: for counters, tests and logs."""

    LENGTH = "length"
    SIZE = "size"
    FORM = "form"
    EXTENSIONS = "extensions"
    CONSTRAINTS = "constraints"
    MESH = "mesh"
    ROOT = "root"
    ORDER = "order"
    AUTHORITY = "authority"
    """CA flag or path length."""
    KEY_USAGE = "key usage"
    KEY = "key"
    NAMES = "names"
    """Subject, issuer or key identifiers."""
    SIGNATURE = "signature"
    HANDED_ON = "handed on"
    VALIDITY = "validity"


_RULE_OF_SECTION = {
    "issuer": Rule.NAMES,
    "subject": Rule.NAMES,
    "subject key id": Rule.NAMES,
    "authority key id": Rule.NAMES,
    "key": Rule.KEY,
    "CA flag": Rule.AUTHORITY,
    "key usage": Rule.KEY_USAGE,
    "extensions": Rule.EXTENSIONS,
    "constraints": Rule.CONSTRAINTS,
}


class ChainFault(PeerFault):
    """A chain breaks a rule; the text says which, ``rule`` names it."""

    def __init__(self, rule: Rule, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.rule = rule


class NotValidNow(ChainFault):
    """A certificate is not valid at this clock.

    The text names this clock and the validity, since clocks are wrong more often than certificates.
    """

    def __init__(self, kind: Kind, *, now_unix_s: int, not_before: int, not_after: int) -> None:
        self.kind = kind
        self.now_unix_s = now_unix_s
        self.not_before = not_before
        self.not_after = not_after
        what = "has ended" if self.ended else "is not valid yet"
        super().__init__(
            Rule.VALIDITY,
            f"the {kind.value} certificate {what}: it is valid from {utc_text(not_before)} "
            f"to {utc_text(not_after)} UTC, and this node's clock says {utc_text(now_unix_s)}",
            "check the clocks of both machines (timedatectl); if they are right, ask for a new invite",
        )

    @property
    def ended(self) -> bool:
        return self.now_unix_s > self.not_after


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
    """LANs that the node may advertise; empty for none."""
    admitted_at: int
    """Unix seconds. Of a provisional leaf: its own word, no earlier than its invite; a durable one wins."""
    invite: bytes
    """The id of the invite behind the leaf; empty for the founder."""
    invite_uses: int
    """How many nodes that invite admits; 0 for the founder."""
    issuer: bytes
    """The issuer's key id (first 8 bytes of the SHA-256 of its public key)."""
    root: bytes = b""
    """The root's key id."""
    signed_from: int = 0
    """The begin of the leaf itself, Unix seconds: whoever signed it did so an hour later, by its own word."""
    not_before: int
    """The begin of the chain, Unix seconds: the latest of its certificates' begins."""
    not_after: int
    """The end of the chain, Unix seconds: the earliest of its certificates' ends."""


@dataclass(frozen=True, slots=True)
class _Certificate:
    """One certificate that has our form, whoever signed it; what the lazy parser may refuse is read."""

    der: bytes
    parsed: x509.Certificate
    subject: x509.Name
    issuer: x509.Name
    constraints: Constraints
    public: bytes
    not_before: int
    not_after: int

    @property
    def kind(self) -> Kind:
        return self.constraints.kind


def verify_chain(
    chain: Sequence[bytes], roots: Collection[bytes], mesh: MeshId, now_unix_s: int
) -> VerifiedIdentity:
    """Judges a node's chain, leaf first, root left out; raises ``ChainFault`` (``NotValidNow`` for times)."""
    path, effective = _judge(chain, roots, mesh, Kind.LEAF, now_unix_s)
    leaf, above = path[-1], path[-2]
    durable = above.kind is Kind.ISSUER
    issuer = above if durable else path[-3]
    _check_admission(leaf.constraints, above)
    begin = max(one.not_before for one in path)
    # A root or an issuer may be signed anew later: that changes nothing about when somebody came.
    came = max(leaf.not_before, above.not_before)
    return VerifiedIdentity(
        node=NodeId(leaf.public),
        durable=durable,
        capabilities=known(effective.capabilities),
        roles=effective.roles,
        region=effective.region,
        routes=effective.routes,
        admitted_at=leaf.constraints.admitted_at if durable else came,
        invite=leaf.constraints.invite,
        invite_uses=leaf.constraints.uses,
        issuer=profile.key_id(issuer.public),
        root=profile.key_id(path[0].public),
        signed_from=leaf.not_before,
        not_before=begin,
        not_after=min(one.not_after for one in path),
    )


def verify_invite(
    chain: Sequence[bytes], roots: Collection[bytes], mesh: MeshId, now_unix_s: int
) -> Constraints:
    """Judges an invite's chain (invite, issuer) and returns what it gives; raises ``ChainFault``."""
    return _judge(chain, roots, mesh, Kind.INVITE, now_unix_s)[1]


def kind_of(certificate: bytes, mesh: MeshId) -> Kind | None:
    """Returns what a certificate of this mesh says that it is, whoever signed it; None for anything else."""
    try:
        return _read_sized(certificate, mesh).kind
    except ChainFault:
        return None


def verify_issuer(certificate: bytes, roots: Sequence[bytes], mesh: MeshId) -> tuple[bytes, int]:
    """Judges an issuer's certificate whatever its dates; returns its public key and the place of its root
    among ``roots``. Raises ``ChainFault``."""
    issuer = _read_sized(certificate, mesh)
    root = _root_above(issuer, roots, mesh)
    if issuer.kind is not Kind.ISSUER:
        raise ChainFault(Rule.ORDER, f"a {issuer.kind.value} is no issuer")
    _check_order(root, issuer)
    _check_signed(issuer, root)
    return issuer.public, list(roots).index(root.der)


def verify_founding_root(certificate: bytes, mesh: MeshId) -> bytes:
    """Judges a root that signed itself, whatever its dates; returns its public key. Raises ``ChainFault``."""
    _read_sized(certificate, mesh)
    root = _read_root(certificate, mesh)
    if root.issuer != root.subject:
        raise ChainFault(Rule.ROOT, "the founding root is signed by another one")
    _check_anchored(root, (certificate,), mesh)
    return root.public


def verify_follower(certificate: bytes, line: Sequence[bytes], mesh: MeshId) -> int:
    """Judges a root that another one signed, whatever its dates; returns the place of that one in ``line``.
    Raises ``ChainFault``."""
    _read_sized(certificate, mesh)
    root = _read_root(certificate, mesh)
    for place, der in enumerate(line):
        above = _read_root(der, mesh)
        if root.issuer == above.subject != root.subject:
            _check_key_ids(root, above)
            _verify_authority(root.der, above.der)
            return place
    raise ChainFault(Rule.ROOT, "a root is signed by none of this mesh")


def _read_sized(certificate: bytes, mesh: MeshId) -> _Certificate:
    if len(certificate) > CERTIFICATE_BYTES_MAX:
        raise ChainFault(
            Rule.SIZE, f"certificate of {len(certificate)} bytes exceeds {CERTIFICATE_BYTES_MAX}"
        )
    return _read_signer(certificate, mesh)


def utc_text(unix_s: int) -> str:
    """Returns a Unix second as people read it, in UTC: ``2026-11-23 05:30:00``."""
    return f"{datetime.datetime.fromtimestamp(unix_s, datetime.UTC):%Y-%m-%d %H:%M:%S}"


def _judge(
    chain: Sequence[bytes], roots: Collection[bytes], mesh: MeshId, ends_in: Kind, now_unix_s: int
) -> tuple[list[_Certificate], Constraints]:
    """Returns the path from the root down to the chain's first certificate, and what holds for that one."""
    if not 2 <= len(chain) <= CHAIN_LENGTH_MAX:
        raise ChainFault(Rule.LENGTH, f"chain of {len(chain)} certificates, not 2 to {CHAIN_LENGTH_MAX}")
    oversized = [len(one) for one in chain if len(one) > CERTIFICATE_BYTES_MAX]
    if oversized:
        raise ChainFault(Rule.SIZE, f"certificate of {oversized[0]} bytes exceeds {CERTIFICATE_BYTES_MAX}")
    path = [*(_read_signer(one, mesh) for one in reversed(chain[1:])), _read(chain[0], mesh)]
    path.insert(0, _root_above(path[0], roots, mesh))
    if path[-1].kind is not ends_in:
        raise ChainFault(Rule.ORDER, f"the chain ends in a {path[-1].kind.value}, not in a {ends_in.value}")
    effective = path[0].constraints
    for signer, certificate in itertools.pairwise(path):
        _check_order(signer, certificate)
        effective = inherit(effective, certificate.constraints)
    for certificate in path:
        _check_time(certificate, now_unix_s)
    for signer, certificate in itertools.pairwise(path):
        _check_signed(certificate, signer)
    return path, effective


def _read(der: bytes, mesh: MeshId) -> _Certificate:
    """Reads one certificate and holds it against the profile; raises ``ChainFault``, whatever the bytes."""
    off = profile.section_off(der)
    if off:
        raise ChainFault(
            _RULE_OF_SECTION.get(off, Rule.FORM), f"certificate lacks our form: its {off} is off"
        )
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        key = certificate.public_key()
        subject, issuer = certificate.subject, certificate.issuer
        not_before = int(certificate.not_valid_before_utc.timestamp())
        not_after = int(certificate.not_valid_after_utc.timestamp())
    except (
        ValueError,
        TypeError,
        OverflowError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise ChainFault(Rule.FORM, f"certificate can't be parsed: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ChainFault(Rule.KEY, "certificate has a key that is not Ed25519")
    public = key.public_bytes_raw()
    constraints = _read_constraints(extensions, mesh)
    kind = constraints.kind
    if {one.oid: one.critical for one in extensions} != profile.EXTENSIONS:
        raise ChainFault(Rule.EXTENSIONS, f"a {kind.value} certificate has other extensions than ours")
    if extensions.get_extension_for_class(x509.BasicConstraints).value != profile.basic_constraints(kind):
        raise ChainFault(Rule.AUTHORITY, f"a {kind.value} certificate has the wrong CA flag or path length")
    if extensions.get_extension_for_class(x509.KeyUsage).value != profile.key_usage(kind):
        raise ChainFault(Rule.KEY_USAGE, f"a {kind.value} certificate has the wrong key usage")
    identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    if subject != profile.subject(kind, public) or identifier != profile.subject_key_id(public):
        raise ChainFault(Rule.NAMES, f"a {kind.value} certificate is not named after its key")
    return _Certificate(der, certificate, subject, issuer, constraints, public, not_before, not_after)


_read_signer = functools.lru_cache(maxsize=SIGNERS_REMEMBERED)(_read)


def _read_constraints(extensions: x509.Extensions, mesh: MeshId) -> Constraints:
    try:
        extension = extensions.get_extension_for_oid(CONSTRAINTS_OID).value
    except x509.ExtensionNotFound as error:
        raise ChainFault(Rule.CONSTRAINTS, "certificate lacks the constraints of a mesh") from error
    data = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
    try:
        constraints = cbor.decode(data, Constraints, bytes_max=CONSTRAINTS_BYTES_MAX)
    except PeerFault as error:
        raise ChainFault(
            Rule.CONSTRAINTS, f"certificate has constraints that can't be read: {error.what}"
        ) from error
    if constraints.mesh != mesh:
        raise ChainFault(Rule.MESH, "certificate belongs to another mesh")
    fault = form_fault(constraints)
    if fault:
        raise ChainFault(Rule.CONSTRAINTS, f"certificate has constraints that make no sense: {fault}")
    return constraints


def _root_above(top: _Certificate, roots: Collection[bytes], mesh: MeshId) -> _Certificate:
    for der in roots:
        root = _read_root(der, mesh)
        if root.subject == top.issuer:
            _check_anchored(root, roots, mesh)
            return root
    raise ChainFault(Rule.ROOT, "chain does not lead to a root of this mesh")


@functools.lru_cache(maxsize=16)
def _read_root(der: bytes, mesh: MeshId) -> _Certificate:
    root = _read(der, mesh)
    if root.kind is not Kind.ROOT:
        raise ChainFault(Rule.ROOT, f"a {root.kind.value} certificate is no root")
    return root


def _check_anchored(root: _Certificate, roots: Collection[bytes], mesh: MeshId) -> None:
    """Checks that a root is signed by itself, or by another of the roots, which is in turn."""
    for _ in roots:
        if root.issuer == root.subject:
            break
        above = next((one for der in roots if (one := _read_root(der, mesh)).subject == root.issuer), None)
        if above is None:
            raise ChainFault(Rule.ROOT, "a root is signed by none of this mesh")
        _check_key_ids(root, above)
        _verify_authority(root.der, above.der)
        root = above
    if root.issuer != root.subject:
        raise ChainFault(Rule.ROOT, "roots sign each other in a circle")
    _check_key_ids(root, root)
    _verify_authority(root.der, root.der)


def _check_order(signer: _Certificate, certificate: _Certificate) -> None:
    """Checks what needs both certificates but no arithmetic on curves."""
    if certificate.kind not in profile.BELOW[signer.kind]:
        raise ChainFault(Rule.ORDER, f"a {certificate.kind.value} can't stand below a {signer.kind.value}")
    if certificate.issuer != signer.subject:
        raise ChainFault(Rule.NAMES, f"the {certificate.kind.value} certificate names another signer")
    _check_key_ids(certificate, signer)
    beyond = excess(signer.constraints, certificate.constraints)
    if beyond:
        raise ChainFault(
            Rule.HANDED_ON,
            f"the {certificate.kind.value} claims what its {signer.kind.value} can't hand on: {beyond}",
        )


def _check_key_ids(certificate: _Certificate, signer: _Certificate) -> None:
    identifier = certificate.parsed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    if identifier != profile.authority_key_id(signer.public):
        raise ChainFault(Rule.NAMES, f"the {certificate.kind.value} certificate names another signer's key")


def _check_time(certificate: _Certificate, now_unix_s: int) -> None:
    if not certificate.not_before <= now_unix_s <= certificate.not_after:
        raise NotValidNow(
            certificate.kind,
            now_unix_s=now_unix_s,
            not_before=certificate.not_before,
            not_after=certificate.not_after,
        )


def _check_signed(certificate: _Certificate, signer: _Certificate) -> None:
    if certificate.kind is Kind.LEAF:
        _verify(certificate.parsed, signer.parsed)
        _check_point(certificate.public)
    else:
        _verify_authority(certificate.der, signer.der)


@functools.lru_cache(maxsize=_SIGNATURES_REMEMBERED)
def _verify_authority(der: bytes, signer_der: bytes) -> None:
    """Verifies an authority once: a failure raises and is not remembered, so only good ones are."""
    _verify(x509.load_der_x509_certificate(der), x509.load_der_x509_certificate(signer_der))


def _verify(certificate: x509.Certificate, signer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(signer)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise ChainFault(Rule.SIGNATURE, "certificate is not signed by the one above it") from error


def _check_point(public: bytes) -> None:
    """Refuses node keys of small order, with which anybody signs anything (OpenSSL takes them)."""
    if not nacl.bindings.crypto_core_ed25519_is_valid_point(public):
        raise ChainFault(Rule.KEY, "certificate has a key that proves nobody's identity")


def _check_admission(leaf: Constraints, above: _Certificate) -> None:
    """Checks what a leaf says of its admission: an issuer's word is taken, a joiner's is its invite's."""
    if above.kind is Kind.ISSUER:
        if not leaf.admitted_at:
            raise ChainFault(Rule.CONSTRAINTS, "a durable leaf lacks its node's time of admission")
        return
    if leaf.admitted_at:
        raise ChainFault(Rule.CONSTRAINTS, "a provisional leaf claims a time of admission")
    if leaf.invite != profile.key_id(above.public) or leaf.uses != above.constraints.uses:
        raise ChainFault(Rule.CONSTRAINTS, "a provisional leaf names another invite than its signer")

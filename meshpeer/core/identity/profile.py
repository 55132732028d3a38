"""The profile of our certificates: the one form that each kind has, for those who make them and those who
judge them.

X.509 v3 with Ed25519 (RFC 5280, RFC 8410), compact: short names, serials of 8 bytes, key identifiers of 8
bytes (RFC 5280, section 4.2.1.2 leaves their length open), exactly five extensions. The profile is as
narrow as it can be, since whoever holds an invite signs certificates: what has one form gives two readers
(OpenSSL and us) nothing to disagree on.
"""

from __future__ import annotations

import hashlib
import re

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from meshpeer.core.identity.constraints import CONSTRAINTS_OID, Kind
from meshpeer.core.ids import key_text

SERIAL_BYTES = 8
KEY_ID_BYTES = 8

PATH_LENGTHS: dict[Kind, int] = {Kind.ROOT: 2, Kind.ISSUER: 1, Kind.INVITE: 0}
"""CAs that may stand between a CA of this kind and a leaf; a leaf is no CA."""
BELOW: dict[Kind, frozenset[Kind]] = {
    Kind.ROOT: frozenset({Kind.ISSUER}),
    Kind.ISSUER: frozenset({Kind.INVITE, Kind.LEAF}),
    Kind.INVITE: frozenset({Kind.LEAF}),
    Kind.LEAF: frozenset(),
}
"""What may stand directly below what."""
EXTENSIONS: dict[x509.ObjectIdentifier, bool] = {
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
    CONSTRAINTS_OID: False,
}
"""The extensions of every certificate, all of them and no others, and whether each is critical."""

_SUBJECT = {Kind.ROOT: "root", Kind.ISSUER: "issuer", Kind.INVITE: "invite", Kind.LEAF: "node"}

_ED25519 = rb"\x30\x05\x06\x03\x2b\x65\x70"
_HEAD = re.compile(
    rb"\x30(?:\x81.|\x82..)\x30(?:\x81.|\x82..)\xa0\x03\x02\x01\x02"
    rb"\x02(?:\x01[\x01-\x7f]|[\x02-\x08][\x00-\x7f].{1,7})" + _ED25519,
    re.DOTALL,
)
_TAIL = re.compile(_ED25519 + rb"\x03\x41\x00.{64}\Z", re.DOTALL)
_TAIL_BYTES = 74


def key_id(public: bytes) -> bytes:
    """Returns the first 8 bytes of the SHA-256 of a public key: how an authority is named."""
    return hashlib.sha256(public).digest()[:KEY_ID_BYTES]


def subject(kind: Kind, public: bytes) -> x509.Name:
    """Returns the name of a key in certificates; names differ as keys do, so OpenSSL mixes no two up."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{_SUBJECT[kind]} {key_text(public)[:10]}")])


def basic_constraints(kind: Kind) -> x509.BasicConstraints:
    return x509.BasicConstraints(ca=kind is not Kind.LEAF, path_length=PATH_LENGTHS.get(kind))


def key_usage(kind: Kind) -> x509.KeyUsage:
    """Returns the key usage: authorities only sign certificates, leaves only prove themselves."""
    return x509.KeyUsage(
        digital_signature=kind is Kind.LEAF,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=kind is not Kind.LEAF,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def subject_key_id(public: bytes) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier(key_id(public))


def authority_key_id(public: bytes) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(key_id(public), None, None)


def looks_like_ours(der: bytes) -> bool:
    """Says whether the first and last bytes are those of a v3 certificate with a positive serial, signed
    with Ed25519.

    A look at the bytes before a general parser sees them: whatever else may be in X.509, it stays outside.
    """
    return _HEAD.match(der) is not None and _TAIL.search(der, max(0, len(der) - _TAIL_BYTES)) is not None

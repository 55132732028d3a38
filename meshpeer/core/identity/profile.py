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


def _der_oid(oid: x509.ObjectIdentifier) -> bytes:
    """Encodes an object identifier (X.690, section 8.19)."""
    first, second, *rest = (int(part) for part in oid.dotted_string.split("."))
    content = b""
    for number in (first * 40 + second, *rest):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(number & 0x7F | 0x80)
        content += bytes(reversed(digits))
    return b"\x06" + bytes([len(content)]) + content


_SUBJECT = {Kind.ROOT: "root", Kind.ISSUER: "issuer", Kind.INVITE: "invite", Kind.LEAF: "node"}

_LENGTH = rb"(?:[\x00-\x7f]|\x81.|\x82..)"
_ED25519 = rb"\x30\x05\x06\x03\x2b\x65\x70"
_NAME = rb"\x30.\x31.\x30.\x06\x03\x55\x04\x03\x0c.(?:root|issuer|invite|node) [a-z2-7]{10}"
_TIME = rb"(?:\x17\x0d[0-9]{12}Z|\x18\x0f[0-9]{14}Z)"
_LONGER_SERIALS = b"|".join(
    re.escape(bytes([length])) + rb"(?:[\x01-\x7f].|\x00[\x80-\xff]).{%d}" % (length - 2)
    for length in range(2, SERIAL_BYTES + 1)
)
_SECTIONS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (what, re.compile(pattern, re.DOTALL))
    for what, pattern in (
        ("version", rb"\x30" + _LENGTH + rb"\x30" + _LENGTH + rb"\xa0\x03\x02\x01\x02"),
        ("serial", rb"\x02(?:\x01[\x01-\x7f]|" + _LONGER_SERIALS + rb")"),
        ("algorithm", _ED25519),
        ("issuer", _NAME),
        ("validity", rb"\x30." + _TIME + _TIME),
        ("subject", _NAME),
        ("key", rb"\x30\x2a" + _ED25519 + rb"\x03\x21\x00.{32}"),
        ("extensions", rb"\xa3" + _LENGTH + rb"\x30" + _LENGTH),
        (
            "CA flag",
            rb"\x30.\x06\x03\x55\x1d\x13\x01\x01\xff\x04.\x30(?:\x00|\x03\x01\x01\xff|\x06\x01\x01\xff\x02\x01.)",
        ),
        ("key usage", rb"\x30\x0e\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02.."),
        ("subject key id", rb"\x30\x11\x06\x03\x55\x1d\x0e\x04\x0a\x04\x08.{8}"),
        ("authority key id", rb"\x30\x13\x06\x03\x55\x1d\x23\x04\x0c\x30\x0a\x80\x08.{8}"),
        ("constraints", rb"\x30" + _LENGTH + re.escape(_der_oid(CONSTRAINTS_OID)) + rb"\x04" + _LENGTH),
    )
)
_SIGNATURE = re.compile(_ED25519 + rb"\x03\x41\x00.{64}\Z", re.DOTALL)
_SIGNATURE_BYTES = 74


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


def section_off(der: bytes) -> str:
    """Returns the first section of a certificate whose bytes are not of our form; empty where all are.

    A look at the bytes before a general parser sees them: whatever else may be in X.509, it stays outside.
    """
    position = 0
    for what, pattern in _SECTIONS:
        found = pattern.match(der, position)
        if found is None:
            return what
        position = found.end()
    return "" if _SIGNATURE.search(der, max(position, len(der) - _SIGNATURE_BYTES)) else "signature"

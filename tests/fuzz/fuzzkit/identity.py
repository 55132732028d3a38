"""Targets that judge who somebody is: certificates, chains, invites, key files."""

from __future__ import annotations

import base64
import zlib

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from fuzzkit import mesh, mutate
from fuzzkit.target import Target
from meshpeer.core.errors import EnvironmentFault, LocalFault, PeerFault, Refused
from meshpeer.core.identity import profile
from meshpeer.core.identity.certificates import constraints_of, public_key_of
from meshpeer.core.identity.chains import verify_chain, verify_invite
from meshpeer.core.identity.constraints import CONSTRAINTS_OID, Kind
from meshpeer.core.identity.invite_dictionary import DICTIONARY
from meshpeer.core.identity.invites import PREFIX, Invite, decode_invite, encode_invite, id_of_invite
from meshpeer.core.identity.keys import decode_key_file, encode_key_file, verify_signature
from meshpeer.core.membership.carriers import address_over, over_in
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import FRAME_BYTES_MAX

_ROOTS = (mesh.ROOT.certificate,)


def _judge_certificate(der: bytes) -> object:
    """Reads a certificate as the transport does when a handshake showed it."""
    return public_key_of(der)


def _judge_chain(data: bytes) -> object:
    chain = cbor.decode(data, tuple[bytes, ...], bytes_max=FRAME_BYTES_MAX)
    return verify_chain(chain, _ROOTS, mesh.MESH, mesh.NOW)


def _judge_invite_chain(data: bytes) -> object:
    chain = cbor.decode(data, tuple[bytes, ...], bytes_max=FRAME_BYTES_MAX)
    return verify_invite(chain, _ROOTS, mesh.MESH, mesh.NOW)


def _judge_constraints(data: bytes) -> object:
    """Judges a leaf that is right in everything but what it allows: whoever holds an invite can sign one."""
    public = mesh.GUEST.public
    signer = x509.load_der_x509_certificate(mesh.INVITE.certificate)
    built = (
        x509.CertificateBuilder()
        .subject_name(profile.subject(Kind.LEAF, public))
        .issuer_name(signer.subject)
        .public_key(Ed25519PublicKey.from_public_bytes(public))
        .serial_number(1)
        .not_valid_before(signer.not_valid_before_utc)
        .not_valid_after(signer.not_valid_after_utc)
        .add_extension(profile.basic_constraints(Kind.LEAF), critical=True)
        .add_extension(profile.key_usage(Kind.LEAF), critical=True)
        .add_extension(profile.subject_key_id(public), critical=False)
        .add_extension(profile.authority_key_id(public_key_of(mesh.INVITE.certificate)), critical=False)
        .add_extension(x509.UnrecognizedExtension(CONSTRAINTS_OID, data), critical=False)
        .sign(Ed25519PrivateKey.from_private_bytes(mesh.INVITE.seed), None)
    )
    chain = (built.public_bytes(Encoding.DER), mesh.INVITE.certificate, mesh.ISSUER.certificate)
    return verify_chain(chain, _ROOTS, mesh.MESH, mesh.NOW)


def _constraints() -> list[bytes]:
    return [cbor.encode(constraints_of(mesh.GUEST_CHAIN[0]))]


def _invite() -> Invite:
    return Invite(
        authority=mesh.INVITE,
        issuer=mesh.ISSUER.certificate,
        roots=_ROOTS,
        seeds=("203.0.113.7:51821", "[2001:db8::17]:51821"),
        mesh_name="studio",
    )


def _read_invite(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    id_of_invite(text)
    return decode_invite(text, now_unix_s=mesh.NOW)


def _read_invite_body(body: bytes) -> object:
    """Reads an invite whose armour and checksum are right, whatever is in it."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    packed = squeezer.compress(body) + squeezer.flush()
    raw = len(packed).to_bytes(2, "big") + zlib.crc32(packed).to_bytes(4, "big") + packed
    return _read_invite((PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")).encode())


def _invite_bodies() -> list[bytes]:
    text = encode_invite(_invite())[len(PREFIX) :]
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return [zlib.decompressobj(-15, DICTIONARY).decompress(raw[6:])]


def _read_key(data: bytes) -> object:
    return decode_key_file(data.decode("utf-8", "replace"), "node", "node.key")


def _verify(data: bytes) -> object:
    return verify_signature(data[:32], b"context", mesh.MESH, b"body", data[32:])


def _read_over(data: bytes) -> object:
    return over_in("over/" + data.decode("utf-8", "replace"))


TARGETS = (
    Target(
        name="identity.certificate",
        run=_judge_certificate,
        refusals=(ValueError,),
        seeds=lambda: [*mesh.ADMIN_CHAIN, *mesh.GUEST_CHAIN, mesh.ROOT.certificate],
    ),
    Target(
        name="identity.chain",
        run=_judge_chain,
        refusals=(PeerFault,),
        seeds=lambda: [cbor.encode(list(one)) for one in (mesh.ADMIN_CHAIN, mesh.GUEST_CHAIN)],
        mutate=mutate.cbor(),
    ),
    Target(
        name="identity.invited",
        run=_judge_invite_chain,
        refusals=(PeerFault,),
        seeds=lambda: [cbor.encode([mesh.INVITE.certificate, mesh.ISSUER.certificate])],
        mutate=mutate.cbor(),
    ),
    Target(
        name="identity.constraints",
        run=_judge_constraints,
        refusals=(PeerFault,),
        seeds=_constraints,
        mutate=mutate.cbor(),
        bytes_max=600,
    ),
    Target(
        name="identity.invite",
        run=_read_invite,
        refusals=(LocalFault, Refused),
        seeds=lambda: [encode_invite(_invite()).encode()],
        mutate=mutate.text(PREFIX, "meshpeer2.", "\n", '"', "="),
    ),
    Target(
        name="identity.invite-body",
        run=_read_invite_body,
        refusals=(LocalFault, Refused),
        seeds=_invite_bodies,
        mutate=mutate.cbor(),
    ),
    Target(
        name="identity.key-file",
        run=_read_key,
        refusals=(EnvironmentFault,),
        seeds=lambda: [encode_key_file("node", b"k" * 32).encode()],
        mutate=mutate.text("meshpeer key v1", "node", "=", "\r\n"),
        bytes_max=400,
    ),
    Target(
        name="identity.signature",
        run=_verify,
        refusals=(),
        seeds=lambda: [mesh.ADMIN.public + mesh.ADMIN.sign(b"context", mesh.MESH, b"body")],
        bytes_max=128,
    ),
    Target(
        name="identity.over",
        run=_read_over,
        refusals=(),
        seeds=lambda: [address_over(mesh.ADMIN.public, mesh.OTHER.public).removeprefix("over/").encode()],
        mutate=mutate.text("/", "é", "="),
        bytes_max=300,
    ),
)

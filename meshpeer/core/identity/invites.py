"""Invites: a certificate and its key in one line of text.

``meshpeer1.`` + base64url of: a 4-byte checksum, and compressed CBOR with the invite's seed, its chain, the roots and the
seeds. The checksum tells a slip of the clipboard from a forgery; what makes an invite worth anything is its chain. The
compression starts from a dictionary of what all our certificates share, so that the line stays under 1,000 characters.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
import zlib
from dataclasses import dataclass

import msgspec
from cryptography import x509

from meshpeer.core.errors import LocalFault, PeerFault, Refused
from meshpeer.core.identity.certificates import (
    Authority,
    constraints_of,
    invite_id_of,
    make_invite,
    make_issuer,
    make_provisional_leaf,
    make_root,
    mesh_id_of,
    public_key_of,
)
from meshpeer.core.identity.chains import NotValidNow, verify_chain
from meshpeer.core.identity.constraints import INVITE_DEFAULT, Constraints
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import MeshId, key_text
from meshpeer.core.wire import cbor

PREFIX = "meshpeer1."
TEXT_LENGTH_MAX = 4_096
_INFLATED_BYTES_MAX = 16_384
_CHECKSUM_BYTES = 4


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    key: bytes
    invite: bytes
    issuer: bytes
    roots: tuple[bytes, ...]
    seeds: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Invite:
    """What an invite holds: the right to join, and where."""

    authority: Authority
    """The invite's certificate and its key."""
    issuer: bytes
    """The issuer's certificate."""
    roots: tuple[bytes, ...]
    seeds: tuple[str, ...]
    """``host:port`` of members that answer from outside."""

    @property
    def mesh(self) -> MeshId:
        return mesh_id_of(public_key_of(self.roots[0]))

    @property
    def fingerprint(self) -> str:
        """The mesh id as people read it to each other."""
        return key_text(self.mesh)

    @property
    def id(self) -> bytes:
        return invite_id_of(self.authority.certificate)

    @property
    def constraints(self) -> Constraints:
        return constraints_of(self.authority.certificate)

    @property
    def expires_at(self) -> datetime.datetime:
        return x509.load_der_x509_certificate(self.authority.certificate).not_valid_after_utc

    def __repr__(self) -> str:
        return f"Invite(id={self.id.hex()}, seeds={self.seeds})"


def encode_invite(invite: Invite) -> str:
    """Returns the invite as one line of text."""
    body = cbor.encode(
        _Body(
            key=invite.authority.seed,
            invite=invite.authority.certificate,
            issuer=invite.issuer,
            roots=invite.roots,
            seeds=invite.seeds,
        )
    )
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=_dictionary())
    packed = squeezer.compress(body) + squeezer.flush()
    return PREFIX + base64.urlsafe_b64encode(_checksum(packed) + packed).decode("ascii").rstrip("=")


def decode_invite(text: str, *, now_unix_s: int) -> Invite:
    """Reads and judges an invite.

    Raises ``LocalFault`` for what is no invite (cut off, mistyped, of another version), ``Refused`` for one that is of no
    use (expired, not valid yet, altered).
    """
    compact = re.sub(r"\s+", "", text)
    if not compact.startswith(PREFIX):
        if re.match(r"meshpeer\d+\.", compact):
            raise LocalFault("this invite was made by a newer version of meshpeer", "upgrade meshpeer on this machine, then join again")
        raise LocalFault("this is not an invite", f"an invite is one line that starts with {PREFIX} - make one with `meshpeer invite`")
    body = _unpack(compact[len(PREFIX) :])
    try:
        invite = Invite(authority=Authority(body.key, body.invite), issuer=body.issuer, roots=body.roots, seeds=body.seeds)
        mesh = invite.mesh
        if SigningKey(body.key).public != public_key_of(body.invite):
            raise Refused("the invite was altered: its key is not its certificate's", "ask for a new invite")
        probe = make_provisional_leaf(invite.authority, SigningKey(body.key).public, now_unix_s=now_unix_s, serial=bytes(8))
        verify_chain((probe, body.invite, body.issuer), body.roots, mesh, now_unix_s)
    except NotValidNow as error:
        if now_unix_s > invite.expires_at.timestamp():
            now = datetime.datetime.fromtimestamp(now_unix_s, datetime.UTC)
            raise Refused(
                f"the invite expired at {invite.expires_at:%Y-%m-%d %H:%M:%S} UTC (this machine's clock says {now:%Y-%m-%d %H:%M:%S})",
                "ask for a new one: `meshpeer invite` on any issuer of the mesh, the founder for instance",
            ) from error
        raise Refused(error.what, error.hint) from error
    except (PeerFault, ValueError, IndexError, x509.ExtensionNotFound) as error:
        raise Refused(f"the invite was altered: {error}", "ask for a new invite") from error
    return invite


def _unpack(encoded: str) -> _Body:
    cut_off = LocalFault("the invite is cut off or mistyped", "copy the whole line, from meshpeer1. to its end")
    if len(encoded) > TEXT_LENGTH_MAX:
        raise LocalFault("this is too long for an invite", "copy the one line that `meshpeer invite` printed")
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise cut_off from error
    packed = raw[_CHECKSUM_BYTES:]
    if raw[:_CHECKSUM_BYTES] != _checksum(packed):
        raise cut_off
    try:
        inflater = zlib.decompressobj(-15, zdict=_dictionary())
        body = inflater.decompress(packed, _INFLATED_BYTES_MAX)
        if inflater.unconsumed_tail or not inflater.eof:
            raise cut_off
        return cbor.decode(body, _Body, bytes_max=_INFLATED_BYTES_MAX)
    except (zlib.error, PeerFault) as error:
        raise LocalFault("the invite can't be read", "ask for a new invite, and copy the whole line") from error


def _checksum(packed: bytes) -> bytes:
    return zlib.crc32(packed).to_bytes(_CHECKSUM_BYTES, "big")


_DICTIONARY: list[bytes] = []


def _dictionary() -> bytes:
    """Returns what all invites have in common: one made of zeros. Part of the format; it never changes.

    Built from our own certificate code, so it costs no data; a test pins its digest.
    """
    if not _DICTIONARY:
        seed, serial = bytes(32), bytes(8)
        root = make_root(seed, now_unix_s=1_767_225_600, serial=serial)
        issuer = make_issuer(root, seed, now_unix_s=1_767_225_600, serial=serial)
        invite = make_invite(
            issuer,
            seed,
            capabilities=INVITE_DEFAULT,
            roles=("compute",),
            region="",
            uses=1,
            expires_s=86_400,
            now_unix_s=1_767_225_600,
            serial=serial,
        )
        body = _Body(key=seed, invite=invite.certificate, issuer=issuer.certificate, roots=(root.certificate,), seeds=("192.168.1.1:51821",))
        _DICTIONARY.append(cbor.encode(body))
    return _DICTIONARY[0]

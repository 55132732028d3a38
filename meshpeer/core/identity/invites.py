"""Invites: a certificate and its key in one line of text.

``meshpeer1.`` and base64url (RFC 4648, no padding) of: the length of the rest in 2 bytes, its CRC-32 in 4,
and raw DEFLATE (RFC 1951) of canonical CBOR. Length and CRC tell a slip of the clipboard from a forgery;
what makes an invite worth anything is its chain. The compression starts from a fixed dictionary of what all
our certificates share, so that the line stays under 1,000 characters.

An invite is a secret until it is used up: whoever reads it can join. Its repr shows no key.
"""

from __future__ import annotations

import base64
import datetime
import re
import zlib
from dataclasses import dataclass
from typing import Annotated

import msgspec

from meshpeer.core.errors import LocalFault, PeerFault, Refused
from meshpeer.core.identity.certificates import Authority, constraints_of, end_of, mesh_id_of, public_key_of
from meshpeer.core.identity.chains import ChainFault, NotValidNow, Rule, utc_text, verify_invite
from meshpeer.core.identity.constraints import Constraints, Kind
from meshpeer.core.identity.invite_dictionary import DICTIONARY
from meshpeer.core.identity.keys import SEED_BYTES, SigningKey
from meshpeer.core.identity.line import ROOTS_MAX, check_line
from meshpeer.core.ids import MeshId, key_text
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import CERTIFICATE_BYTES_MAX

PREFIX = "meshpeer1."
TEXT_LENGTH_MAX = 4_096
SEEDS_MAX = 8
_INFLATED_BYTES_MAX = 8_192
_LENGTH_BYTES = 2
_CHECKSUM_BYTES = 4
_HEADER_BYTES = _LENGTH_BYTES + _CHECKSUM_BYTES
_WRAPPING = re.compile(r"[\s\u200b\u2060\ufeff\u00ad]+")
"""What mail and chats put into a long line: white space, zero-width space, word joiner, BOM, soft hyphen."""
_QUOTES = "\"'`<>\u2018\u2019\u201c\u201d"

_COPY = "copy the whole line that `meshpeer invite` printed, from meshpeer1. to its end"
_ASK = "ask for a new one: `meshpeer invite` on any issuer of the mesh, the founder for instance"

Certificate = Annotated[bytes, msgspec.Meta(max_length=CERTIFICATE_BYTES_MAX)]
Seed = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+:[0-9]{1,5}\Z", max_length=262)]
_SHORT = {"key": "k", "invite": "v", "issuer": "i", "roots": "r", "seeds": "s", "mesh_name": "n"}


class _Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_SHORT):
    """What the text packs; fields are only ever added, with defaults."""

    key: Annotated[bytes, msgspec.Meta(min_length=SEED_BYTES, max_length=SEED_BYTES)]
    invite: Certificate
    issuer: Certificate
    roots: Annotated[tuple[Certificate, ...], msgspec.Meta(min_length=1, max_length=ROOTS_MAX)]
    seeds: Annotated[tuple[Seed, ...], msgspec.Meta(max_length=SEEDS_MAX)] = ()
    mesh_name: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._-]*\Z", max_length=63)] = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Invite:
    """What an invite holds: the right to join, and where."""

    authority: Authority
    """The invite's certificate and its key."""
    issuer: bytes
    """The issuer's certificate."""
    roots: tuple[bytes, ...]
    """The mesh's roots; the first one is the founder's, whose key the mesh id is made of."""
    seeds: tuple[str, ...]
    """``host:port`` of members that answer from outside."""
    mesh_name: str = ""

    @property
    def chain(self) -> tuple[bytes, bytes]:
        """What stands above a leaf that this invite signs: the invite's certificate and the issuer's."""
        return (self.authority.certificate, self.issuer)

    @property
    def mesh(self) -> MeshId:
        return mesh_id_of(public_key_of(self.roots[0]))

    @property
    def fingerprint(self) -> str:
        """The mesh id as people read it to each other."""
        return key_text(self.mesh)

    @property
    def id(self) -> bytes:
        return self.authority.id

    @property
    def constraints(self) -> Constraints:
        return constraints_of(self.authority.certificate)

    @property
    def expires_at(self) -> datetime.datetime:
        """The last second (UTC) at which the invite lets anybody in."""
        return datetime.datetime.fromtimestamp(end_of(self.authority.certificate), datetime.UTC)

    def __repr__(self) -> str:
        return f"Invite(id={self.id.hex()}, seeds={self.seeds})"


def encode_invite(invite: Invite) -> str:
    """Returns the invite as one line of text; raises ``LocalFault`` where a seed is no ``host:port``."""
    encoded = cbor.encode(
        _Body(
            key=invite.authority.seed,
            invite=invite.authority.certificate,
            issuer=invite.issuer,
            roots=invite.roots,
            seeds=invite.seeds,
            mesh_name=invite.mesh_name,
        )
    )
    try:
        cbor.decode(encoded, _Body, bytes_max=_INFLATED_BYTES_MAX)
    except PeerFault as error:
        raise LocalFault(
            f"an invite can't hold this: {error.what}", f"seeds are host:port, at most {SEEDS_MAX}"
        ) from error
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    packed = squeezer.compress(encoded) + squeezer.flush()
    header = len(packed).to_bytes(_LENGTH_BYTES, "big") + _checksum(packed)
    return PREFIX + base64.urlsafe_b64encode(header + packed).decode("ascii").rstrip("=")


def decode_invite(text: str, *, now_unix_s: int) -> Invite:
    """Reads and judges an invite; line breaks, spaces and quotes around it do no harm.

    Raises ``LocalFault`` for what is no invite (cut off, mistyped, of another version), ``Refused`` for one
    that is of no use (expired, not valid yet, altered).
    """
    invite = _parse(text)
    try:
        mesh = invite.mesh
        if SigningKey(invite.authority.seed).public != public_key_of(invite.authority.certificate):
            raise ChainFault(Rule.KEY, "its key is not its certificate's")
        check_line(invite.roots, mesh)
        verify_invite(invite.chain, invite.roots, mesh, now_unix_s)
    except NotValidNow as error:
        raise _out_of_time(error) from error
    except PeerFault as error:
        raise Refused(f"the invite was altered: {error.what}", _ASK) from error
    except ValueError as error:
        raise Refused(f"the invite was altered: {error}", _ASK) from error
    return invite


def id_of_invite(text: str) -> bytes:
    """Returns the id of an invite, whatever its dates; raises ``LocalFault`` or ``Refused`` for what is no
    invite."""
    try:
        return _parse(text).id
    except ValueError as error:
        raise Refused(f"the invite was altered: {error}", _ASK) from error


def _parse(text: str) -> Invite:
    if len(text) > 4 * TEXT_LENGTH_MAX:
        raise LocalFault("this is too long for an invite", _COPY)
    compact = _WRAPPING.sub("", text).strip(_QUOTES)
    if not compact.startswith(PREFIX):
        if re.match(r"meshpeer[0-9]{1,9}\.", compact):
            raise LocalFault(
                "this invite was made by another version of meshpeer",
                "bring both machines to the same version (`meshpeer --version`), then ask for a new invite",
            )
        if compact and PREFIX.startswith(compact[: len(PREFIX)]):
            raise LocalFault("the invite is cut off", _COPY)
        raise LocalFault(
            "this is not an invite",
            f"an invite is one line that starts with {PREFIX}: make one with `meshpeer invite`",
        )
    body = _unpack(_unarmour(compact[len(PREFIX) :]))
    return Invite(
        authority=Authority(body.key, body.invite),
        issuer=body.issuer,
        roots=body.roots,
        seeds=body.seeds,
        mesh_name=body.mesh_name,
    )


def _unarmour(encoded: str) -> bytes:
    """Undoes base64, and tells by length and CRC what became of the line on its way."""
    if len(encoded) > TEXT_LENGTH_MAX:
        raise LocalFault("this is too long for an invite", _COPY)
    strange = re.search(r"[^A-Za-z0-9_-]", encoded)
    if strange:
        raise LocalFault(f"the invite holds {strange.group()!r}, which no invite does", _COPY)
    whole = encoded[: len(encoded) - 1] if len(encoded) % 4 == 1 else encoded
    raw = base64.urlsafe_b64decode(whole + "=" * (-len(whole) % 4))
    announced = int.from_bytes(raw[:_LENGTH_BYTES], "big")
    packed = raw[_HEADER_BYTES:]
    if len(raw) < _HEADER_BYTES or len(packed) < announced:
        raise LocalFault("the invite is cut off", _COPY)
    if len(packed) > announced or len(whole) != len(encoded):
        raise LocalFault("the invite goes on past its end", _COPY)
    if raw[_LENGTH_BYTES:_HEADER_BYTES] != _checksum(packed):
        raise LocalFault("the invite is mistyped", _COPY)
    return packed


def _unpack(packed: bytes) -> _Body:
    """Inflates and decodes within bounds; what passed the CRC and fails here was never an invite."""
    inflater = zlib.decompressobj(-15, DICTIONARY)
    try:
        encoded = inflater.decompress(packed, _INFLATED_BYTES_MAX)
        if not inflater.eof or inflater.unused_data:
            raise PeerFault("it is too large, or does not end where it should")
        return cbor.decode(encoded, _Body, bytes_max=_INFLATED_BYTES_MAX)
    except zlib.error as error:
        raise Refused(f"the invite can't be read: {error}", _ASK) from error
    except PeerFault as error:
        raise Refused(f"the invite can't be read: {error.what}", _ASK) from error


def _out_of_time(error: NotValidNow) -> Refused:
    clock = f"this machine's clock says {utc_text(error.now_unix_s)}"
    if not error.ended:
        return Refused(
            f"the invite is valid from {utc_text(error.not_before)} UTC on ({clock})",
            "set this machine's clock (timedatectl shows it), then join again",
        )
    subject = "invite" if error.kind is Kind.INVITE else f"{error.kind.value} certificate behind the invite"
    return Refused(f"the {subject} expired at {utc_text(error.not_after)} UTC ({clock})", _ASK)


def _checksum(packed: bytes) -> bytes:
    return zlib.crc32(packed).to_bytes(_CHECKSUM_BYTES, "big")

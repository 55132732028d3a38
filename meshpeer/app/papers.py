"""What is carried by hand between a node that is to be an issuer and the machine that has the root's key: two
lines of text. Neither is a secret."""

from __future__ import annotations

import base64
import re
from typing import TypeVar

from meshpeer.core.errors import LocalFault, PeerFault
from meshpeer.core.identity.chains import verify_chain
from meshpeer.core.identity.line import ROOTS_MAX
from meshpeer.core.ids import MeshId
from meshpeer.core.records.issuer_request import IssuerRequest, read_request
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import CERTIFICATE_BYTES_MAX, CHAIN_LENGTH_MAX

REQUEST_PREFIX = "meshpeer-issuer-request1."
SIGNED_PREFIX = "meshpeer-issuer-signed1."
PAPER_LENGTH_MAX = 32_768
_PAPER_BYTES_MAX = 16_384

Chain = tuple[bytes, ...]
Paper = TypeVar("Paper")


def encode_request(request: bytes, chain: Chain) -> str:
    """Returns a node's request and its own chain as one line."""
    return REQUEST_PREFIX + _armoured(cbor.encode([request, list(chain)]))


def decode_request(text: str) -> tuple[bytes, Chain]:
    """Reads the line; raises ``LocalFault``. Nothing of it is checked."""
    request, chain = _unpacked(
        text, REQUEST_PREFIX, tuple[bytes, tuple[bytes, ...]], "meshpeer issuer request"
    )
    return request, chain[:CHAIN_LENGTH_MAX]


def check_request(
    request: bytes, chain: Chain, *, roots: tuple[bytes, ...], mesh: MeshId, now_unix_s: int
) -> IssuerRequest:
    """Judges a request below the roots of a mesh: a member made it, and keeps the key; else ``PeerFault``."""
    read = read_request(request, mesh)
    identity = verify_chain(chain, roots, mesh, now_unix_s)
    if identity.node != read.node or not identity.durable:
        raise PeerFault("the request is of no node that an issuer has admitted")
    return read


def encode_signed(certificates: tuple[bytes, ...]) -> str:
    """Returns certificates that a root signed, and those of roots that followed the founding one, as one
    line."""
    return SIGNED_PREFIX + _armoured(cbor.encode(list(certificates)))


def decode_signed(text: str) -> tuple[bytes, ...]:
    """Reads the line; raises ``LocalFault``."""
    found = _unpacked(text, SIGNED_PREFIX, tuple[bytes, ...], "meshpeer issuer sign")
    return tuple(one for one in found[: ROOTS_MAX + 1] if len(one) <= CERTIFICATE_BYTES_MAX)


def _armoured(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _unpacked(text: str, prefix: str, kind: type[Paper], command: str) -> Paper:
    compact = re.sub(r"\s+", "", text)
    if not compact.startswith(prefix) or len(compact) > PAPER_LENGTH_MAX:
        raise LocalFault(f"this is not what `{command}` printed", f"it is one line that starts with {prefix}")
    encoded = compact[len(prefix) :]
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        return cbor.decode(data, kind, bytes_max=_PAPER_BYTES_MAX)
    except (ValueError, PeerFault) as error:
        raise LocalFault("the line was cut off or altered", f"copy all that `{command}` printed") from error

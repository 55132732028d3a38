"""What a certificate allows: the private extension that every certificate of a mesh carries.

The extension is not critical, since OpenSSL refuses critical ones that it does not know; we refuse a
certificate that lacks it or whose content we can't read. Its content is canonical CBOR with one-letter
keys: certificates travel in one line of text. A later version adds fields, which this one ignores, and
capabilities, which permit nothing here.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable
from typing import Annotated

import msgspec
from cryptography import x509

from meshpeer.core.ids import MESH_ID_BYTES, NODE_ID_BYTES, MeshId
from meshpeer.core.wire.limits import NAME_LENGTH_MAX, ROLES_MAX

CONSTRAINTS_OID = x509.ObjectIdentifier("2.25.54219703138391871020821963145555801692")
"""Under 2.25 (ITU-T X.667: an OID made from a UUID, no registration needed): UUID
28ca55c1-93ba-4e0f-9bda-9a5b7a80f65c. Fixed for good."""
CONSTRAINTS_BYTES_MAX = 512
INVITE_ID_BYTES = 8
CAPABILITIES_MAX = 32
ROUTES_MAX = 8
USES_MAX = 1_000_000
UNIX_S_MAX = 253_402_300_799
"""The last second of the year 9999, where X.509 ends too."""

_WORD = r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z"
_WORD_OR_NONE = r"\A([A-Za-z0-9][A-Za-z0-9._-]*)?\Z"
Word = Annotated[str, msgspec.Meta(pattern=_WORD, max_length=NAME_LENGTH_MAX)]
"""A role, a region or a capability: printable on any terminal, safe in a file name."""


class Kind(enum.StrEnum):
    ROOT = "root"
    ISSUER = "issuer"
    INVITE = "invite"
    LEAF = "leaf"


class Capability(enum.StrEnum):
    """What a node may do. Roles place and describe; capabilities permit."""

    MEMBER = "member"
    SUBMIT = "submit"
    WORK = "work"
    HUB = "hub"
    RELAY = "relay"
    ISSUER = "issuer"
    ADMIN = "admin"


INVITE_DEFAULT = frozenset(
    {Capability.MEMBER, Capability.SUBMIT, Capability.WORK, Capability.HUB, Capability.RELAY}
)
ALL = frozenset(Capability)

_WORDS = {
    Capability.MEMBER: "have tunnels to every member",
    Capability.SUBMIT: "submit jobs",
    Capability.WORK: "run tasks",
    Capability.HUB: "carry a region's traffic as its hub",
    Capability.RELAY: "relay encrypted packets for pairs that can't meet",
    Capability.ISSUER: "admit new members",
    Capability.ADMIN: "change mesh-wide settings and revoke",
}

_SHORT = {
    "kind": "k",
    "mesh": "m",
    "capabilities": "c",
    "roles": "r",
    "region": "g",
    "routes": "n",
    "uses": "u",
    "admitted_at": "a",
    "invite": "i",
    "holder": "h",
}


class Constraints(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_SHORT):
    """The extension's content. Roles, region and routes stand in invites and leaves only."""

    kind: Kind
    mesh: Annotated[MeshId, msgspec.Meta(min_length=MESH_ID_BYTES, max_length=MESH_ID_BYTES)]
    capabilities: Annotated[tuple[Word, ...], msgspec.Meta(max_length=CAPABILITIES_MAX)] = ()
    """Of a leaf: what the node may do. Of an authority: what it may hand on."""
    roles: Annotated[tuple[Word, ...], msgspec.Meta(max_length=ROLES_MAX)] = ()
    """Roles that the node may claim; empty for any."""
    region: Annotated[str, msgspec.Meta(pattern=_WORD_OR_NONE, max_length=NAME_LENGTH_MAX)] = ""
    """The region that the node must claim; empty for any."""
    routes: Annotated[tuple[str, ...], msgspec.Meta(max_length=ROUTES_MAX)] = ()
    """LANs that the node may advertise, as CIDRs; empty for none."""
    uses: Annotated[int, msgspec.Meta(ge=0, le=USES_MAX)] = 0
    """Of an invite: how many nodes it admits. A leaf repeats its invite's, so that every node can count."""
    admitted_at: Annotated[int, msgspec.Meta(ge=0, le=UNIX_S_MAX)] = 0
    """Of a durable leaf: the Unix second at which an issuer first admitted the node; kept through renewal."""
    invite: Annotated[bytes, msgspec.Meta(max_length=INVITE_ID_BYTES)] = b""
    """Of a leaf: its invite's id, so that revoking the invite finds its leaves; empty for a founder."""
    holder: Annotated[bytes, msgspec.Meta(max_length=NODE_ID_BYTES)] = b""
    """Of an issuer: the node that made its key and keeps it; empty where an earlier version made it."""


def describe(capabilities: Iterable[Capability]) -> str:
    """Returns what the capabilities allow, in words, in a fixed order."""
    held = frozenset(capabilities)
    return ", ".join(_WORDS[one] for one in Capability if one in held) or "do nothing"


def known(words: Iterable[str]) -> frozenset[Capability]:
    """Returns the capabilities among the words; those of a later version permit nothing here."""
    held = frozenset(words)
    return frozenset(one for one in Capability if one.value in held)


def form_fault(constraints: Constraints) -> str:
    """Returns what is off about a certificate's constraints in themselves; empty where nothing is.

    Every kind has one form, so that no field means something in one place and nothing in another.
    """
    kind = constraints.kind
    if kind in (Kind.ROOT, Kind.ISSUER) and (constraints.roles or constraints.region or constraints.routes):
        return f"a {kind.value} places nobody, but names roles, a region or routes"
    if constraints.invite and (kind is not Kind.LEAF or len(constraints.invite) != INVITE_ID_BYTES):
        return f"a {kind.value} names an invite of {len(constraints.invite)} bytes"
    if bool(constraints.uses) != (kind is Kind.INVITE or bool(constraints.invite)):
        return f"a {kind.value} has {constraints.uses} uses"
    if constraints.admitted_at and kind is not Kind.LEAF:
        return f"a {kind.value} has a time of admission"
    if constraints.holder and (kind is not Kind.ISSUER or len(constraints.holder) != NODE_ID_BYTES):
        return f"a {kind.value} names a holder of {len(constraints.holder)} bytes"
    for route in constraints.routes:
        try:
            ipaddress.ip_network(route)
        except ValueError:
            return f"{route[:43]!r} is not a route"
    return ""


def excess(upper: Constraints, lower: Constraints) -> str:
    """Returns what ``lower`` takes beyond what its signer ``upper`` may hand on; empty where nothing is."""
    beyond = sorted(set(lower.capabilities) - set(upper.capabilities))
    if beyond:
        return f"capabilities {', '.join(beyond)}"
    if upper.kind is not Kind.INVITE:
        return ""
    if upper.roles and not set(lower.roles) <= set(upper.roles):
        return f"roles {', '.join(sorted(set(lower.roles) - set(upper.roles)))}"
    if upper.region and lower.region not in ("", upper.region):
        return f"region {lower.region}"
    for route in lower.routes:
        if not any(covers(allowed, route) for allowed in upper.routes):
            return f"route {route}"
    return ""


def inherit(upper: Constraints, lower: Constraints) -> Constraints:
    """Returns what holds for ``lower``: what it leaves open, its signer settles."""
    return msgspec.structs.replace(
        lower, roles=lower.roles or upper.roles, region=lower.region or upper.region
    )


def covers(allowed: str, route: str) -> bool:
    """Says whether a route lies within an allowed one, or is it."""
    inner, outer = ipaddress.ip_network(route), ipaddress.ip_network(allowed)
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False

"""What a certificate allows: the private extension that every certificate of a mesh carries.

The extension is not critical, since OpenSSL refuses critical ones that it does not know; we refuse a certificate that
lacks it or whose content we can't parse. Its content is canonical CBOR.
"""

from __future__ import annotations

import enum

import msgspec
from cryptography import x509

from meshpeer.core.ids import MeshId

CONSTRAINTS_OID = x509.ObjectIdentifier("2.25.142097421562173962713541036187349310861")
"""Under 2.25 (ITU-T X.667: an OID made from a UUID, no registration needed)."""
CONSTRAINTS_BYTES_MAX = 512


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


INVITE_DEFAULT = frozenset({Capability.MEMBER, Capability.SUBMIT, Capability.WORK, Capability.HUB, Capability.RELAY})
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


class Constraints(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The extension's content. Empty ``roles`` and ``region`` allow any."""

    kind: Kind
    mesh: MeshId
    capabilities: tuple[Capability, ...] = ()
    roles: tuple[str, ...] = ()
    region: str = ""
    routes: tuple[str, ...] = ()
    """LANs that the node may advertise, as CIDRs."""
    uses: int = 0
    """Of an invite: how many nodes it admits."""
    admitted_at: int = 0
    """Of a durable leaf: when an issuer first admitted the node; kept through renewal."""
    invite: bytes = b""
    """Of a leaf: the invite's id, so that revoking the invite finds its leaves."""


def describe(capabilities: frozenset[Capability]) -> str:
    """Returns what the capabilities allow, in words, in a fixed order."""
    return ", ".join(_WORDS[one] for one in Capability if one in capabilities)


def intersect(upper: Constraints, lower: Constraints) -> Constraints:
    """Narrows ``lower`` by what its signer may hand on."""
    return msgspec.structs.replace(
        lower,
        capabilities=tuple(one for one in lower.capabilities if one in upper.capabilities),
        roles=upper.roles if not lower.roles else tuple(one for one in lower.roles if not upper.roles or one in upper.roles),
        region=lower.region or upper.region,
        routes=tuple(one for one in lower.routes if one in upper.routes) if upper.kind is Kind.INVITE else lower.routes,
    )

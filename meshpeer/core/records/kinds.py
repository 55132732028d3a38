"""The kinds of record, as shapes. Fields are only ever added, with defaults.

A body is a map whose ``k`` names its kind. Times are whole seconds since the Unix epoch: bodies carry no
floats.
"""

from __future__ import annotations

import msgspec

from meshpeer.core.ids import Digest, NodeId, WireGuardKey


class HubReport(msgspec.Struct, frozen=True, array_like=True):
    """A member's word that a hub carries nothing for it; void as soon as that hub starts anew."""

    node: NodeId
    incarnation: int
    """Of the hub's record: exactly this run of it is meant."""
    kind: str
    """``tunnel`` (nothing comes back from it) or ``forwarding`` (nothing from behind it)."""


class RegionDistance(msgspec.Struct, frozen=True, array_like=True):
    """How far a region is from the node that says so."""

    region: str
    level: int
    """The binary logarithm of the round trip in milliseconds, rounded down; 0 below two."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a node has seen of the mesh's paths, and shows in its record."""

    hubs_failed: tuple[HubReport, ...] = ()
    answers: int = 0
    distances: tuple[RegionDistance, ...] = ()


NOTHING_SEEN = Seen()


class MemberRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="k", tag="member"):
    """What a node says of itself. Only the subject signs and raises (incarnation, sequence)."""

    node: NodeId
    incarnation: int
    """max(stored + 1, Unix seconds) at boot."""
    sequence: int
    """Raised by one on every change within an incarnation."""
    issued_at: int
    ttl_s: int
    """Expiry is absolute: ``issued_at + ttl_s``."""
    name: str
    """The DNS label asked for; a conflict has one winner on every node."""
    region: str
    roles: tuple[str, ...]
    wireguard_key: WireGuardKey
    wireguard_port: int
    """0 for a node without an interface (backend none)."""
    control_endpoints: tuple[str, ...]
    """``host:port``, IPv6 in brackets; best first."""
    wireguard_endpoints: tuple[str, ...]
    ipv4: str = ""
    """The claimed overlay address; empty before the first claim and on nodes without an interface."""
    certificate: Digest
    """SHA-256 of the leaf that the node shows now."""
    hub: str = "allow"
    """``prefer``, ``allow`` or ``never``."""
    configured_endpoint: bool = False
    """The first WireGuard endpoint was configured by a person (a public address or a forwarded port)."""
    mode: str = ""
    """Which way this node derives a mesh of topology ``auto``: ``full`` or ``regional``; empty for large
    meshes."""
    reflected_endpoints: tuple[str, ...] = ()
    """Where other members see this node's tunnel packets come from, where that is none of its own
    addresses."""
    router: str = ""
    """What stands before it: ``none``, ``steady`` (one mapping for all), ``changing`` (another for each);
    empty where nobody can tell."""
    warm: bool = False
    """It is a hub, or stands by, and has the tunnels that this takes."""
    routes: tuple[str, ...] = ()
    """LANs behind the node that it passes on to, as CIDRs."""
    hubs_failed: tuple[HubReport, ...] = ()
    """The hubs that carry nothing for this node, in node id order."""
    answers: int = 0
    """Probes have reached this node through its tunnels, so its silence says something: 1 by IPv4, 2 by IPv6,
    3 by both."""
    distances: tuple[RegionDistance, ...] = ()
    """How far other regions are, in the order of their names; a hub says so, or who has none near."""
    relay: bool = False
    """It lends ports to pairs that can't reach each other."""
    next_wireguard_key: bytes = b""
    """The WireGuard key that it changes to soon; empty for none. Peers let it in beside the one they have."""


class LeaveRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="k", tag="leave"):
    """A tombstone, signed by the node that leaves; it supersedes every record up to its precedence."""

    node: NodeId
    incarnation: int
    sequence: int
    issued_at: int
    ttl_s: int
    name: str = ""
    """What it was called, for people who look for it."""
    ipv4: str = ""
    """The overlay address that it claimed, which nobody should get soon: others still connect to it."""


class CharterRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="k", tag="charter"):
    """The mesh-wide settings, signed by a node of capability ``admin``. The highest version counts."""

    version: int
    issued_at: int
    author: NodeId
    mesh_name: str
    subnet: str
    topology: str = "auto"
    """``auto``, ``full`` or ``regional``."""
    wireguard_port: int = 51820
    keepalive_s: int = 25
    mtu: int = 1420
    away_max_s: int = 7 * 86_400
    """How long a member may be away before its record expires."""
    hubs: int = 1
    """Active hubs per region; one more stands by."""
    idle_s: int = 180
    """How long a pair's own tunnel must have carried nothing before the pair moves to its hubs."""


class RevocationRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="k", tag="revoke"):
    """Shuts somebody out for good, signed by a node of capability ``admin`` or with a root's key.

    It travels and rests apart from records (``revocations``): it is heard before any of them."""

    what: str
    """``node``, ``invite`` or ``issuer``; ``root`` retires one that another has followed."""
    subject: bytes
    """A node's key, or the key id of an invite, issuer or root: all leaves below that go along."""
    author: NodeId
    """The admin's key, or a root's."""
    issued_at: int
    since: int = 0
    """Of an invite or issuer: only leaves of this Unix second or later go along; 0 for all."""
    reason: str = ""
    name: str = ""
    """What the subject was called, for people who look for it."""


class SuspectRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="k", tag="suspect"):
    """An observer's word that it can't reach a node; void as soon as that node publishes anything newer."""

    observer: NodeId
    subject: NodeId
    incarnation: int
    sequence: int
    """Of the subject's record that is doubted: exactly that one."""
    issued_at: int
    closed: bool
    """Somebody is at its address and refused the link: the host is there, the agent is gone."""


Record = MemberRecord | LeaveRecord | CharterRecord | SuspectRecord
"""The closed union that this version understands; other kinds are skipped."""


def precedence(record: MemberRecord | LeaveRecord) -> tuple[int, int]:
    """Returns (incarnation, sequence): the higher one says what holds."""
    return (record.incarnation, record.sequence)


def expires_at(record: MemberRecord | LeaveRecord) -> int:
    """Returns the Unix second from which the record is no longer accepted or passed on."""
    return record.issued_at + record.ttl_s

"""What a record may say, whoever signs it: bounds that need no other fact than the certificate's.

What is in a record ends up in files, terminals and the arguments of programs on every member, so each field
has a form, and a record with one field out of its form is refused whole. Forms are only ever widened: a
record of a later version must not be refused for a word that this version doesn't know.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.identity.constraints import ROUTES_MAX, Capability
from meshpeer.core.records.kinds import CharterRecord, LeaveRecord, MemberRecord, SuspectRecord
from meshpeer.core.records.routes import may_advertise, route_fault
from meshpeer.core.records.subnets import is_usable
from meshpeer.core.wire.limits import ENDPOINTS_MAX, NAME_LENGTH_MAX, ROLES_MAX

AHEAD_MAX_S = 300
"""An issue time or incarnation further ahead than this is refused: nobody pushes a counter to its end."""
TTL_MAX_S = 366 * 86_400
"""No record outlives a durable certificate by more than this: a ghost goes at last."""
PORT_MAX = 65_535
KEEPALIVE_MAX_S = 65_535
"""What WireGuard takes; 0 is off."""
MTU_MIN, MTU_MAX = 1_280, 65_535
"""IPv6 needs 1,280 on every link (RFC 8200, section 5)."""

HUBS_MAX = 8
"""Active hubs per region: each has a tunnel to all others of all regions."""
IDLE_MIN_S, IDLE_MAX_S = 5, 86_400
HUBS_FAILED_MAX = 4
"""Hubs that one member reports: its home, the one that stands by, and two that it had before."""
DISTANCES_MAX = 8
LEVEL_MAX = 31
ANSWERS_MAX = 255

_LABEL = re.compile(rf"[a-z0-9]([a-z0-9-]{{0,{NAME_LENGTH_MAX - 2}}}[a-z0-9])?", re.ASCII)
_ENDPOINT = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})", re.ASCII)


def check_times(record: MemberRecord | LeaveRecord, now_unix_s: float) -> None:
    """Raises ``PeerFault`` for counters and times that no honest clock gives."""
    if record.issued_at > now_unix_s + AHEAD_MAX_S or record.incarnation > now_unix_s + AHEAD_MAX_S:
        ahead = int(max(record.issued_at, record.incarnation) - now_unix_s)
        raise PeerFault(f"record is dated {ahead} s ahead of this node's clock")
    if min(record.sequence, record.incarnation, record.issued_at) < 0 or not 0 < record.ttl_s <= TTL_MAX_S:
        raise PeerFault("record has counters out of range")


def check_suspicion(record: SuspectRecord, now_unix_s: float) -> None:
    """Raises ``PeerFault`` for a time or counters that no honest clock gives."""
    if record.issued_at > now_unix_s + AHEAD_MAX_S:
        raise PeerFault("suspicion is issued in the future")
    if min(record.sequence, record.incarnation, record.issued_at) < 0:
        raise PeerFault("suspicion has counters out of range")


def check_leave(record: LeaveRecord) -> None:
    """Raises ``PeerFault`` where a tombstone's name or address is none."""
    if record.name and not _LABEL.fullmatch(record.name):
        raise PeerFault("record has a name that is no DNS label")
    if record.ipv4 and not _is_ipv4(record.ipv4):
        raise PeerFault("record gives back an address that is no IPv4 address")


def check_member(record: MemberRecord) -> None:
    """Raises ``PeerFault`` where a field is out of its form."""
    kinds = (record.control_endpoints, record.wireguard_endpoints, record.reflected_endpoints)
    endpoints = [one for kind in kinds for one in kind]
    if max(map(len, kinds)) > ENDPOINTS_MAX:
        raise PeerFault(f"record names more than {ENDPOINTS_MAX} endpoints")
    if not all(map(_is_endpoint, endpoints)):
        raise PeerFault("record names an endpoint that is no endpoint: HOST:PORT, IPv6 in brackets")
    if not 0 <= record.wireguard_port <= PORT_MAX:
        raise PeerFault(f"record has {record.wireguard_port} for a port, which is no port")
    labels = (
        record.name,
        *record.roles,
        *filter(None, (record.region, record.hub, record.mode, record.router)),
    )
    if len(record.roles) > ROLES_MAX or not all(map(_LABEL.fullmatch, labels)):
        raise PeerFault("record has a name, roles or a region that are no DNS labels")
    if record.ipv4 and not _is_ipv4(record.ipv4):
        raise PeerFault("record claims an address that is no IPv4 address")
    if len(record.wireguard_key) != 32:
        raise PeerFault("record has a WireGuard key that is not 32 bytes")
    if len(record.next_wireguard_key) not in (0, 32):
        raise PeerFault("record has a next WireGuard key that is not 32 bytes")
    if len(set(record.routes)) != len(record.routes) or len(record.routes) > ROUTES_MAX:
        raise PeerFault(f"record advertises one LAN twice, or more than {ROUTES_MAX}")
    if any(map(route_fault, record.routes)):
        raise PeerFault("record advertises what is no LAN")
    _check_seen(record)


def check_constraints(record: MemberRecord, identity: VerifiedIdentity) -> None:
    """Raises ``PeerFault`` where a record claims more than its certificate gives."""
    if identity.roles and not set(record.roles) <= set(identity.roles):
        raise PeerFault("record claims roles that its certificate does not allow")
    if identity.region and record.region != identity.region:
        raise PeerFault("record claims a region that its certificate does not allow")
    if Capability.MEMBER not in identity.capabilities:
        raise PeerFault("certificate does not allow membership")
    if not all(may_advertise(identity, route) for route in record.routes):
        raise PeerFault("record advertises a LAN that its certificate does not allow")


def check_charter(charter: CharterRecord, now_unix_s: float) -> None:
    """Raises ``PeerFault`` where a setting is out of its form: every node would trip over it at once."""
    if charter.issued_at > now_unix_s + AHEAD_MAX_S:
        raise PeerFault("charter is issued in the future")
    try:
        subnet = ipaddress.IPv4Network(charter.subnet)
    except ValueError as error:
        raise PeerFault("charter has a subnet that is none") from error
    if not is_usable(subnet):
        raise PeerFault("charter has a subnet that no mesh can use")
    if not all(map(_LABEL.fullmatch, (charter.mesh_name, charter.topology))):
        raise PeerFault("charter has a name or topology that is no DNS label")
    if not 0 < charter.version < 2**62:
        raise PeerFault("charter has a version out of range")
    for bound in bounds_of(charter):
        if not bound.low <= bound.value <= bound.high:
            raise PeerFault(f"charter has {bound.setting} {bound.value}, which is out of range")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One number of a charter, and what it may be."""

    setting: str
    value: int
    low: int
    high: int


def bounds_of(charter: CharterRecord) -> tuple[Bound, ...]:
    """Returns every number of a charter that a person sets, with the range that all members accept."""
    return (
        Bound(setting="wireguard_port", value=charter.wireguard_port, low=1, high=PORT_MAX),
        Bound(setting="keepalive_s", value=charter.keepalive_s, low=0, high=KEEPALIVE_MAX_S),
        Bound(setting="mtu", value=charter.mtu, low=MTU_MIN, high=MTU_MAX),
        Bound(setting="away_max_s", value=charter.away_max_s, low=1, high=TTL_MAX_S),
        Bound(setting="hubs", value=charter.hubs, low=1, high=HUBS_MAX),
        Bound(setting="idle_s", value=charter.idle_s, low=IDLE_MIN_S, high=IDLE_MAX_S),
    )


def _check_seen(record: MemberRecord) -> None:
    if len(record.hubs_failed) > HUBS_FAILED_MAX:
        raise PeerFault(f"record reports more than {HUBS_FAILED_MAX} hubs")
    for report in record.hubs_failed:
        if len(report.node) != 32 or report.incarnation < 0 or not _LABEL.fullmatch(report.kind):
            raise PeerFault("record reports a hub in a form that is none")
    if len(record.distances) > DISTANCES_MAX:
        raise PeerFault(f"record names more than {DISTANCES_MAX} distances")
    for one in record.distances:
        if not 0 <= one.level <= LEVEL_MAX or not (not one.region or _LABEL.fullmatch(one.region)):
            raise PeerFault("record names a distance that is none")
    if not 0 <= record.answers <= ANSWERS_MAX:
        raise PeerFault("record has answers out of range")


def is_label(text: str) -> bool:
    """Says whether a word can be a name: one DNS label in lower case."""
    return _LABEL.fullmatch(text) is not None


def _is_endpoint(text: str) -> bool:
    match = _ENDPOINT.fullmatch(text)
    return match is not None and int(match[2]) <= PORT_MAX


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True

"""The roster: the ledger with names and addresses resolved, as every node with the same facts sees it."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, field

from meshpeer.core.addressing.claims import QUARANTINE_S, Claim, resolve_ipv4, resolve_names
from meshpeer.core.addressing.ula import ula_address
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.records.kinds import MemberRecord
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.records.member import Member
from meshpeer.core.wire.limits import MEMBERS_MAX


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listed:
    """One member that is in. Two are equal only where they are the same object."""

    node: NodeId
    record: MemberRecord
    identity: VerifiedIdentity
    name: str
    ipv4: str
    """Empty where it claimed none, or lost it to another."""
    ipv6: str
    quarantined: bool
    """It signed two bodies for one precedence."""

    def claim(self, value: str) -> Claim:
        """Returns this member's claim to something that only one can have."""
        return _claim_of(self.identity, value)

    @property
    def rank(self) -> tuple[bool, int, NodeId]:
        """Orders members as claims are: durable first, then by admission, then by id."""
        return self.claim("").rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """An IPv4 address that a member gave back when it left."""

    node: NodeId
    ipv4: str
    rests_until: int
    """Unix seconds; a new member takes another address until then, where there is one."""


@dataclass(frozen=True, slots=True)
class Roster:
    """Members in node id order."""

    members: tuple[Listed, ...]
    taken: dict[str, NodeId]
    """Who holds each IPv4 address."""
    released: tuple[Released, ...] = ()
    """In the order of who left, by node id."""
    _by_id: dict[NodeId, Listed] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._by_id.update((one.node, one) for one in self.members)

    def get(self, node: NodeId) -> Listed | None:
        return self._by_id.get(node)

    def ahead_of(self, node: NodeId) -> int:
        """Counts the members without an address that are served before ``node``: admitted earlier."""
        waiting = [one for one in self.members if not one.ipv4 and one.record.wireguard_port]
        mine = next((one.rank for one in waiting if one.node == node), None)
        return 0 if mine is None else sum(1 for one in waiting if one.rank < mine)

    def resting(self, me: NodeId, now_unix_s: float) -> dict[str, int]:
        """Returns the addresses that others gave back a short while ago, with the Unix second from which each
        is like any other. What ``me`` gave back itself, it may take again."""
        resting: dict[str, int] = {}
        for one in self.released:
            if one.node != me and one.rests_until > now_unix_s:
                resting[one.ipv4] = max(one.rests_until, resting.get(one.ipv4, 0))
        return resting

    def named(self, text: str) -> Listed | None:
        """Finds a member by name, overlay address, or the first letters of its id."""
        wanted = text.lower()
        for one in self.members:
            if wanted in (one.name, one.ipv4, one.ipv6):
                return one
        return None


def make_roster(ledger: Ledger, *, dead: Collection[NodeId]) -> Roster:
    """Resolves names and addresses of all members that are in. ``dead`` yield their name to a living
    namesake."""
    present = [member for node in ledger.ids if (member := ledger.get(node)) is not None]
    names = [_claim(member, member.record.name) for member in present if member.record]
    addresses = [
        _claim(member, member.record.ipv4) for member in present if member.record and member.record.ipv4
    ]
    subnet = ipaddress.IPv4Network(ledger.charter.subnet) if ledger.charter else None
    name_of = resolve_names(names, gone=dead)
    address_of = resolve_ipv4(addresses, subnet) if subnet else {}
    listed = tuple(
        _listed(member, name_of[member.node], address_of.get(member.node, ""), ledger.mesh)
        for member in present
        if member.record is not None and member.best is not None
    )
    return Roster(listed, {one.ipv4: one.node for one in listed if one.ipv4}, _released(ledger))


@functools.lru_cache(maxsize=MEMBERS_MAX)
def _listed(member: Member, name: str, ipv4: str, mesh: MeshId) -> Listed:
    """Returns one entry: the same object for as long as nothing changes about it."""
    assert member.record is not None
    assert member.best is not None
    return Listed(
        node=member.node,
        record=member.record,
        identity=member.best.identity,
        name=name,
        ipv4=ipv4,
        ipv6=ipv6_of(mesh, member.node),
        quarantined=member.proof is not None,
    )


@functools.lru_cache(maxsize=MEMBERS_MAX)
def ipv6_of(mesh: MeshId, node: NodeId) -> str:
    """Returns a member's overlay address as text."""
    return str(ula_address(mesh, node))


def _released(ledger: Ledger) -> tuple[Released, ...]:
    return tuple(
        Released(node=one.node, ipv4=one.leave.ipv4, rests_until=one.leave.issued_at + QUARANTINE_S)
        for one in ledger
        if one.leave is not None and one.leave.ipv4
    )


def _claim(member: Member, value: str) -> Claim:
    assert member.best is not None
    return _claim_of(member.best.identity, value)


def _claim_of(identity: VerifiedIdentity, value: str) -> Claim:
    return Claim(node=identity.node, value=value, durable=identity.durable, admitted_at=identity.admitted_at)

"""Claims: an IPv4 address or a name that several nodes may ask for, and the one that gets it.

Nobody allocates. A node claims the lowest free value in its signed record and keeps it; where two sides of a
partition (or two joins at one moment) claimed the same, every node names the same winner: the durable
admission before the provisional, the earlier before the later, the lower node id before the higher. The
issuer sets the time of admission, so nobody can backdate itself ahead of others. The loser claims anew.

Who wins depends on the claims alone, never on the order in which they were heard.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from meshpeer.core.addressing.labels import suffixed, suggest_name
from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import NodeId
from meshpeer.core.records.subnets import SUBNET_PREFIX_WIDEST
from meshpeer.core.wire.limits import MEMBERS_MAX

SCHEDULER_ROLE = "scheduler"
COMPUTE_ROLE = "compute"
COMPUTE_START = 10
"""Compute nodes start at .10, where the subnet is large enough for that to leave room."""
COMPUTE_START_SMALL = 2
SMALL_SUBNET_HOSTS = 62
"""Up to a /26 minus its two ends: below, the roles stand close together."""
QUARANTINE_S = 3_600
"""How long the address of a member that left goes to nobody else, where another one is free: resolvers,
hosts files and open connections of others still lead to it, and would reach the wrong machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One node's claim of one value, with what decides a conflict."""

    node: NodeId
    value: str
    durable: bool
    admitted_at: int
    """Unix seconds, set by the issuer."""

    @property
    def rank(self) -> tuple[bool, int, NodeId]:
        """The lower rank wins."""
        return (not self.durable, self.admitted_at, self.node)


def winners(claims: Iterable[Claim]) -> dict[str, NodeId]:
    """Returns who gets each claimed value."""
    best: dict[str, Claim] = {}
    for claim in claims:
        held = best.get(claim.value)
        if held is None or claim.rank < held.rank:
            best[claim.value] = claim
    return {value: claim.node for value, claim in best.items()}


def resolve_names(claims: Iterable[Claim], *, gone: Collection[NodeId] = ()) -> dict[NodeId, str]:
    """Returns each node's name: its own where it won, else ``name-2``, ``name-3`` and so on in rank order.

    Every name that comes out is one DNS label: records come from others, and names end up in hosts files.
    ``gone`` are nodes believed dead: a wiped machine that joins anew takes its name over, and the old entry
    gets the suffix.
    """
    by_value: dict[str, list[Claim]] = {}
    for claim in claims:
        by_value.setdefault(suggest_name(claim.value), []).append(claim)
    names: dict[NodeId, str] = {}
    taken = set(by_value)
    for value in sorted(by_value):
        ordered = sorted(by_value[value], key=lambda claim: (claim.node in gone, claim.rank))
        names[ordered[0].node] = value
        number = 2
        for claim in ordered[1:]:
            while (name := suffixed(value, number)) in taken:
                number += 1
            taken.add(name)
            names[claim.node] = name
    return names


def resolve_ipv4(claims: Iterable[Claim], subnet: ipaddress.IPv4Network) -> dict[NodeId, str]:
    """Returns the address of every node whose claim stands; claims outside the subnet's host addresses
    don't."""
    valid = [claim for claim in claims if _usable(claim.value, subnet)]
    return {node: value for value, node in winners(valid).items()}


def choose_ipv4(
    subnet: ipaddress.IPv4Network,
    roles: Collection[str],
    taken: Collection[str],
    previous: str = "",
    ahead: int = 0,
    resting: Mapping[str, int] | None = None,
) -> str:
    """Returns the address to claim: the previous one where it is free, else the lowest free from the role's
    start.

    Starts in a /24: ``scheduler`` .1, ``compute`` .10 (.2 in subnets smaller than a /26), the rest .128, the
    middle of any subnet. Past the end it goes on at the low end, and takes the first host, the founder's,
    last of all. ``taken`` are the others' addresses. ``ahead`` counts those without one who are served
    before: many that join at one moment take different addresses at once, where each taking the lowest
    would leave one winner a round. ``resting`` are addresses that others gave back, with the time when each
    is like any other again: while they rest they are taken last, the one that rested longest first. Not all
    nodes need to know of the same ones: it is a preference of whoever claims, and no rule for who wins.
    Raises ``LocalFault`` where the subnet is full.
    """
    if previous and previous not in taken and _usable(previous, subnet):
        return previous
    resting = resting or {}
    rested = (one for one in _in_order(subnet, roles) if one not in taken and one not in resting)
    if free := _pick(rested, ahead):
        return free
    usable = [one for one in _in_order(subnet, roles) if one in resting and one not in taken]
    if free := _pick(sorted(usable, key=lambda one: resting[one]), ahead):
        return free
    count = subnet.num_addresses - 2
    raise LocalFault(f"the subnet {subnet} is full: all {count} addresses are claimed", _how_to_grow(subnet))


def _in_order(subnet: ipaddress.IPv4Network, roles: Collection[str]) -> Iterator[str]:
    first, count = int(subnet.network_address) + 1, subnet.num_addresses - 2
    start = _start(roles, count)
    for hosts in (range(start, count), range(min(1, start), start), range(min(1, start))):
        for host in hosts:
            yield str(ipaddress.IPv4Address(first + host))


def _pick(free: Iterable[str], ahead: int) -> str:
    """Returns the address behind those that others take first, or the last one; empty for none."""
    first = list(itertools.islice(free, ahead + 1))
    return first[-1] if first else ""


def _start(roles: Collection[str], count: int) -> int:
    if SCHEDULER_ROLE in roles:
        return 0
    if COMPUTE_ROLE in roles:
        return (COMPUTE_START if count >= SMALL_SUBNET_HOSTS else COMPUTE_START_SMALL) - 1
    return count // 2


def _usable(value: str, subnet: ipaddress.IPv4Network) -> bool:
    address = _number_of(value)
    return address is not None and int(subnet.network_address) < address < int(subnet.broadcast_address)


@functools.lru_cache(maxsize=MEMBERS_MAX)
def _number_of(value: str) -> int | None:
    try:
        return int(ipaddress.IPv4Address(value))
    except ValueError:
        return None


def _how_to_grow(subnet: ipaddress.IPv4Network) -> str:
    wider = max(SUBNET_PREFIX_WIDEST, subnet.prefixlen - 4)
    if wider >= subnet.prefixlen:
        return "let members leave that are not needed"
    return f"let it grow: `meshpeer charter set --subnet {subnet.supernet(new_prefix=wider)}`"

"""Claims: an IPv4 address or a name that several nodes may ask for, and the one that gets it.

Nobody allocates. A node claims the lowest free value in its signed record and keeps it; where two sides of a partition claimed
the same, every node names the same winner: the durable admission before the provisional, the earlier before the later, the
lower node id before the higher. The loser claims anew.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import NodeId
from meshpeer.core.wire.limits import NAME_LENGTH_MAX

SCHEDULER_ROLE = "scheduler"
COMPUTE_ROLE = "compute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One node's claim of one value, with what decides a conflict."""

    node: NodeId
    value: str
    durable: bool
    admitted_at: int

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

    ``gone`` are nodes believed dead: a wiped machine that joins anew takes its name over, and the old entry gets the suffix.
    """
    by_value: dict[str, list[Claim]] = {}
    for claim in claims:
        by_value.setdefault(claim.value, []).append(claim)
    names: dict[NodeId, str] = {}
    taken = set(by_value)
    for value in sorted(by_value):
        ordered = sorted(by_value[value], key=lambda claim: (claim.node in gone, claim.rank))
        names[ordered[0].node] = value
        number = 2
        for claim in ordered[1:]:
            while (name := _suffixed(value, number)) in taken:
                number += 1
            taken.add(name)
            names[claim.node] = name
    return names


def resolve_ipv4(claims: Iterable[Claim], subnet: ipaddress.IPv4Network) -> dict[NodeId, ipaddress.IPv4Address]:
    """Returns the address of every node whose claim stands; claims outside the subnet's host addresses don't."""
    valid = [claim for claim in claims if _usable(claim.value, subnet)]
    return {node: ipaddress.IPv4Address(value) for value, node in winners(valid).items()}


def choose_ipv4(
    subnet: ipaddress.IPv4Network, roles: Collection[str], taken: Mapping[str, NodeId] | Collection[str], previous: str = ""
) -> str:
    """Returns the address to claim: the previous one where it is free, else the lowest free from the role's start.

    Starts: ``scheduler`` at the first host, ``compute`` at the eleventh (the second in subnets under 64 hosts), the rest at
    half of the subnet; past the end it wraps round. Raises ``LocalFault`` where the subnet is full.
    """
    if previous and previous not in taken and _usable(previous, subnet):
        return previous
    count = subnet.num_addresses - 2 if subnet.prefixlen < 31 else subnet.num_addresses
    first = int(subnet.network_address) + (1 if subnet.prefixlen < 31 else 0)
    start = _start(roles, count)
    for offset in range(count):
        address = str(ipaddress.IPv4Address(first + (start + offset) % count))
        if address not in taken:
            return address
    wider = subnet.supernet(new_prefix=max(8, subnet.prefixlen - 4))
    raise LocalFault(
        f"the subnet {subnet} is full: all {count} addresses are claimed",
        f"grow it on an admin's node: meshpeer charter set subnet {wider}",
    )


def check_name(name: str) -> str:
    """Returns the name where it is one DNS label (RFC 1035, section 2.3.1, digits first allowed); else ``LocalFault``."""
    if not 1 <= len(name) <= NAME_LENGTH_MAX or name != suggest_name(name):
        raise LocalFault(
            f"{name!r} can't be a node's name", f"use 1 to 63 lower-case letters, digits and dashes, for example {suggest_name(name)}"
        )
    return name


def suggest_name(hostname: str) -> str:
    """Makes a valid name of a host's name."""
    label = hostname.split(".")[0].lower()
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in label).strip("-")
    return kept[:NAME_LENGTH_MAX].strip("-") or "node"


def _start(roles: Collection[str], count: int) -> int:
    if SCHEDULER_ROLE in roles:
        return 0
    if COMPUTE_ROLE in roles:
        return 10 if count >= 62 else min(1, count - 1)
    return count // 2


def _usable(value: str, subnet: ipaddress.IPv4Network) -> bool:
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        return False
    if address not in subnet:
        return False
    return subnet.prefixlen >= 31 or address not in (subnet.network_address, subnet.broadcast_address)


def _suffixed(name: str, number: int) -> str:
    suffix = f"-{number}"
    return name[: NAME_LENGTH_MAX - len(suffix)] + suffix

"""May this charter follow that one? For the person who asks for a change, before anything is signed.

All that is checked here is a courtesy: what a mesh accepts is ``bounds.check_charter``, which is wider, since
charters of later versions have to pass it. What would do harm and still pass (members that lose their
addresses, a word that nobody knows) is refused here, with what to do instead.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from meshpeer.core.errors import LocalFault
from meshpeer.core.records.bounds import bounds_of, is_label
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.subnets import SUBNET_PREFIX_WIDEST, check_subnet

TOPOLOGIES = ("auto", "full", "regional")
"""Those that this version knows. Any other word is a later version's, and here its mesh is a full one."""
AWAY_MIN_S = 3_600
"""Tombstones last as long as a member may be away: below, an address is given on before others forgot whose
it was."""


def check_successor(old: CharterRecord, new: CharterRecord, addresses: Collection[str] = ()) -> None:
    """Raises ``LocalFault`` with the first reason why ``new`` must not follow ``old``.

    ``addresses`` are the IPv4 addresses that members hold now, to say how many of them would lose theirs.
    """
    _check_version(old, new)
    _check_words(new)
    _check_subnet(old, new, addresses)
    if new.wireguard_port != old.wireguard_port:
        raise LocalFault(
            f"the WireGuard port of a mesh can't be changed: it is {old.wireguard_port}",
            "a node's own port is set when it joins, or for one run: `meshpeer up --listen-port PORT`",
        )
    for bound in bounds_of(new):
        low = AWAY_MIN_S if bound.setting == "away_max_s" else bound.low
        if not low <= bound.value <= bound.high:
            raise LocalFault(
                f"{bound.setting} {bound.value} is out of range", f"use {low:,} to {bound.high:,}"
            )


def _check_version(old: CharterRecord, new: CharterRecord) -> None:
    if new.version != old.version + 1:
        raise LocalFault(
            f"charter {new.version} does not follow charter {old.version}",
            "somebody else changed the charter meanwhile: look at it, and ask again",
        )


def _check_words(new: CharterRecord) -> None:
    if not is_label(new.mesh_name):
        raise LocalFault(
            f"{new.mesh_name!r} can't be a name", "use small letters, digits and inner dashes, 63 at most"
        )
    if new.topology not in TOPOLOGIES:
        raise LocalFault(
            f"{new.topology!r} is no topology of this version", f"use one of {', '.join(TOPOLOGIES)}"
        )


def _check_subnet(old: CharterRecord, new: CharterRecord, addresses: Collection[str]) -> None:
    if new.subnet == old.subnet:
        return
    subnet, before = check_subnet(new.subnet), ipaddress.IPv4Network(old.subnet)
    if before.subnet_of(subnet):
        return
    lost = sum(1 for one in addresses if ipaddress.IPv4Address(one) not in subnet)
    whose = f"{lost} member{'' if lost == 1 else 's'}" if addresses else "members"
    raise LocalFault(
        f"{subnet} does not contain {before}: {whose} would get other addresses", _how_to_grow(before)
    )


def _how_to_grow(subnet: ipaddress.IPv4Network) -> str:
    if subnet.prefixlen <= SUBNET_PREFIX_WIDEST:
        return "a subnet only ever grows, and this one has its full size: leave it as it is"
    wider = subnet.supernet(new_prefix=max(SUBNET_PREFIX_WIDEST, subnet.prefixlen - 4))
    return f"a subnet only ever grows, for example to {wider}"

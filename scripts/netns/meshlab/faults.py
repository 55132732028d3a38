"""What goes wrong between machines, as data, and the bridge rules that make it happen.

Three rules per fault, of which a packet meets one. By port, for machines on one bridge: this covers ARP,
IPv6 and multicast, so that mDNS is cut too. By the target's address where the packet leaves the source, for
what goes through a router. And for a target behind a NAT, whose address the source doesn't know, by the
source's address where the packet arrives. What two nodes behind *two* NATs exchange carries neither's
address: name the routers to cut that. (Naming a router and a node behind it makes a packet pass two dice;
partitions don't mind.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshlab.spec import DropSpec, LabSpec
from meshlab.wiring import Wiring

TABLE = "faults"
_PARTS_PER_PERCENT = 1000


def fault_rules(drops: Iterable[DropSpec], spec: LabSpec, wiring: Wiring) -> str:
    """Returns an nftables script that replaces all faults of a lab at once, with no moment in between."""
    natted = {name for name in spec.nodes if _is_natted(name, spec)}
    chains: list[str] = []
    jumps: list[str] = []
    for number, drop in enumerate(drop for drop in drops if drop.percent > 0):
        rules = "".join(f"    {rule}\n" for rule in _rules(drop, natted, wiring))
        chains.append(f"  chain fault{number} {{\n{rules}  }}\n")
        jumps.append(f"    jump fault{number}\n")
    hook = "    type filter hook forward priority filter\n"
    main = f"  chain forwarding {{\n{hook}{''.join(jumps)}  }}\n"
    # The first line makes the second valid on a fabric that has had no fault yet.
    table = f"table bridge {TABLE}"
    return f"{table}\ndelete {table}\n{table} {{\n{''.join(chains)}{main}}}\n"


def _is_natted(name: str, spec: LabSpec) -> bool:
    behind = {lan for router in spec.routers.values() if router.nat != "none" for lan in router.inside}
    return set(spec.nodes[name].lans) <= behind


def _rules(drop: DropSpec, natted: set[str], wiring: Wiring) -> Iterable[str]:
    parts = round(drop.percent * _PARTS_PER_PERCENT)
    chance = f"numgen random mod {100 * _PARTS_PER_PERCENT} < {parts} " if drop.percent < 100 else ""
    leaving = f"iifname {_ports(drop.sources, wiring)}"
    yield f"{leaving} oifname {_ports(drop.targets, wiring)} {chance}drop"
    yield f"{leaving} oifname {_ports(drop.targets, wiring)} return"
    open_targets = [name for name in drop.targets if name not in natted]
    natted_targets = [name for name in drop.targets if name in natted]
    for version, family in ((4, "ip"), (6, "ip6")):
        if targets := _addresses(open_targets, version, wiring):
            yield f"{leaving} {family} daddr {_set(targets)} {chance}drop"
        sources = _addresses(drop.sources, version, wiring)
        if natted_targets and sources:
            yield f"oifname {_ports(natted_targets, wiring)} {family} saddr {_set(sources)} {chance}drop"


def _ports(names: Sequence[str], wiring: Wiring) -> str:
    return _set([f'"{interface.port}"' for name in names for interface in wiring.of(name)])


def _addresses(names: Sequence[str], version: int, wiring: Wiring) -> list[str]:
    return [
        str(address) for name in names for address in wiring.addresses(name) if address.version == version
    ]


def _set(items: Sequence[str]) -> str:
    return "{ " + ", ".join(dict.fromkeys(items)) + " }"

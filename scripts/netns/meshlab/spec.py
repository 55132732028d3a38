"""What a lab file may say, and its frozen form. Knows nothing of namespaces; ``wiring`` turns it into
addresses.

name = "nat"
[lans.net]                      # a bridge; `mtu` is optional
ipv4 = "10.80.0.0/24"
ipv6 = "fd80::/64"              # either prefix may be left out
[nodes.alpha]
lans = ["home"]
[routers.r1]
outside = "net"                 # left out: it only joins its inside LANs
inside = ["home"]
nat = "masquerade"              # masquerade | symmetric | none
firewall = true                 # drop new inbound traffic; true unless nat is none
block = ["udp"]                 # protocols that it carries in neither direction: udp, tcp, icmp
forwards = [{proto = "udp", port = 51820, to = "alpha"}]      # to_port is optional
[[drops]]                       # percent = 100 (the default) is a partition
from = ["alpha"]
to = ["bravo"]
percent = 5
both_ways = true
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn, cast

from meshlab.errors import LabError

Nat = Literal["masquerade", "symmetric", "none"]

NODES_MAX = 200
MTU_MIN, MTU_MAX = 576, 65_535
_LAN_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
_HOST_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_TOOLS = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "mount": "mount"}
_PROTOCOLS = ("udp", "tcp", "icmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class LanSpec:
    """One Ethernet segment: a bridge, its prefixes, its MTU in bytes."""

    name: str
    ipv4: ipaddress.IPv4Network | None
    ipv6: ipaddress.IPv6Network | None
    mtu: int = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One machine and the LANs that it has an interface on."""

    name: str
    lans: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardSpec:
    """One port of a router's outside address that leads to a node inside."""

    proto: str
    port: int
    to: str
    to_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSpec:
    """A router between LANs. IPv6 is never translated: it is routed, and firewalled as IPv4 is."""

    name: str
    outside: str | None
    inside: tuple[str, ...]
    nat: Nat
    firewall: bool
    forwards: tuple[ForwardSpec, ...] = ()
    block: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DropSpec:
    """Packets from ``sources`` to ``targets`` that never arrive: ``percent`` of them, chosen at random."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    percent: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSpec:
    """A lab file, parsed and checked."""

    name: str
    lans: Mapping[str, LanSpec]
    nodes: Mapping[str, NodeSpec]
    routers: Mapping[str, RouterSpec] = field(default_factory=dict)
    drops: tuple[DropSpec, ...] = ()


def missing_on_this_machine() -> str | None:
    """Says what this machine lacks for a lab, or None when labs can run."""
    if os.geteuid() != 0:
        return "root (network namespaces need it)"
    lacking = [
        f"{tool} (package {package})" for tool, package in _TOOLS.items() if shutil.which(tool) is None
    ]
    return ", ".join(lacking) or None


def parse_lab(source: str | Path) -> LabSpec:
    """Reads a lab from a path, or from TOML text (a string that holds a newline).

    Raises LabError, which names the offending key, for anything that the format doesn't know.
    """
    try:
        text = Path(source).read_text() if isinstance(source, Path) or "\n" not in source else source
        document = cast(dict[str, object], tomllib.loads(text))
    except OSError as error:
        raise LabError(f"can't read {source}: {error.strerror}", "give the path of a lab file") from error
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"not a lab file: {error}", "see scripts/netns/labs/ for examples") from error
    top = _Table("lab", document, {"name", "lans", "nodes", "routers", "drops"})
    lans = {name: _lan(name, table) for name, table in top.tables("lans", {"ipv4", "ipv6", "mtu"})}
    nodes = {name: _node(name, table, lans) for name, table in top.tables("nodes", {"lans"})}
    router_keys = {"outside", "inside", "nat", "firewall", "forwards", "block"}
    routers = {name: _router(name, table, lans, nodes) for name, table in top.tables("routers", router_keys)}
    if not lans or not nodes:
        raise LabError("a lab needs at least one LAN and one node", "add [lans.lan0] and [nodes.alpha]")
    if len(nodes) + len(routers) > NODES_MAX:
        raise LabError(
            f"{len(nodes) + len(routers)} nodes and routers, at most {NODES_MAX}", "make a smaller lab"
        )
    if twice := set(nodes) & set(routers):
        raise LabError(f"{min(twice)} is both a node and a router", "rename one")
    drops = tuple(_drops(top, {*nodes, *routers}))
    name = top.text("name", "lab")
    _check_name(name, _HOST_NAME, "name")
    return LabSpec(name=name, lans=lans, nodes=nodes, routers=routers, drops=drops)


def _lan(name: str, table: _Table) -> LanSpec:
    _check_name(name, _LAN_NAME, f"lans.{name}")
    try:
        ipv4 = ipaddress.IPv4Network(table.text("ipv4")) if table.has("ipv4") else None
        ipv6 = ipaddress.IPv6Network(table.text("ipv6")) if table.has("ipv6") else None
    except ValueError as error:
        raise LabError(f"lans.{name}: {error}", "write a prefix such as 10.77.0.0/24") from error
    if ipv4 is None and ipv6 is None:
        raise LabError(f"lans.{name} has neither ipv4 nor ipv6", "give it a prefix")
    mtu = table.integer("mtu", 1500)
    if not MTU_MIN <= mtu <= MTU_MAX:
        raise LabError(f"lans.{name}.mtu is {mtu}", f"choose {MTU_MIN}..{MTU_MAX}")
    return LanSpec(name=name, ipv4=ipv4, ipv6=ipv6, mtu=mtu)


def _node(name: str, table: _Table, lans: Mapping[str, LanSpec]) -> NodeSpec:
    _check_name(name, _HOST_NAME, f"nodes.{name}")
    return NodeSpec(name=name, lans=_known(f"nodes.{name}.lans", table.texts("lans"), lans))


def _router(
    name: str, table: _Table, lans: Mapping[str, LanSpec], nodes: Mapping[str, NodeSpec]
) -> RouterSpec:
    where = f"routers.{name}"
    _check_name(name, _HOST_NAME, where)
    inside = _known(f"{where}.inside", table.texts("inside"), lans)
    outside = table.text("outside") if table.has("outside") else None
    if outside is not None:
        _known(f"{where}.outside", (outside,), lans)
    nat = table.text("nat", "none")
    if nat not in ("masquerade", "symmetric", "none"):
        raise LabError(f"{where}.nat is {nat!r}", "choose masquerade, symmetric or none")
    if nat != "none" and outside is None:
        raise LabError(f"{where} translates addresses but has no outside", "give it an outside LAN")
    block = table.texts("block")
    for protocol in block:
        if protocol not in _PROTOCOLS:
            raise LabError(f"{where}.block has {protocol!r}", f"choose from {', '.join(_PROTOCOLS)}")
    forwards = []
    for entry in table.list_of_tables("forwards", {"proto", "port", "to", "to_port"}):
        (to,) = _known(f"{where}.forwards.to", (entry.text("to"),), nodes)
        if not set(nodes[to].lans) & set(inside):
            raise LabError(
                f"{where} forwards a port to {to}, which is not inside", "choose a node on its inside LANs"
            )
        port = entry.integer("port")
        forward = ForwardSpec(
            proto=entry.text("proto", "udp"), port=port, to=to, to_port=entry.integer("to_port", port)
        )
        if forward.proto not in ("udp", "tcp") or not 0 < port < 65_536 or not 0 < forward.to_port < 65_536:
            raise LabError(
                f"{where} can't forward {forward.proto} port {port}", "proto is udp or tcp, port 1..65535"
            )
        forwards.append(forward)
    return RouterSpec(
        name=name,
        outside=outside,
        inside=inside,
        nat=cast(Nat, nat),
        firewall=table.boolean("firewall", nat != "none"),
        forwards=tuple(forwards),
        block=block,
    )


def _drops(top: _Table, names: set[str]) -> Iterable[DropSpec]:
    for entry in top.list_of_tables("drops", {"from", "to", "percent", "both_ways"}):
        sources, targets = (_known(f"drops.{key}", entry.texts(key), names) for key in ("from", "to"))
        percent = check_percent(entry.number("percent", 100.0))
        yield DropSpec(sources=sources, targets=targets, percent=percent)
        if entry.boolean("both_ways", True):
            yield DropSpec(sources=targets, targets=sources, percent=percent)


def check_percent(percent: float) -> float:
    """Returns ``percent``; raises LabError outside 0..100."""
    if not 0 <= percent <= 100:
        raise LabError(f"percent is {percent}", "choose 0..100")
    return percent


def _known(where: str, names: tuple[str, ...], known: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise LabError(f"{where}: there is no {name!r}", f"known: {', '.join(sorted(known)) or 'none'}")
    if not names:
        raise LabError(f"{where} is empty", "name at least one")
    return names


def _check_name(name: str, pattern: re.Pattern[str], where: str) -> None:
    if not pattern.fullmatch(name):
        raise LabError(f"{where}: {name!r} is not a usable name", f"it must match {pattern.pattern}")


@dataclass(frozen=True, slots=True)
class _Table:
    """A TOML table whose keys are known, read with the type that each must have."""

    where: str
    values: Mapping[str, object]
    known: set[str]

    def __post_init__(self) -> None:
        for key in self.values:
            if key not in self.known:
                raise LabError(
                    f"{self.where}: unknown key {key!r}", f"known: {', '.join(sorted(self.known))}"
                )

    def has(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        return value if isinstance(value, str) else self._wrong(key, "text")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        return (
            value
            if isinstance(value, int) and not isinstance(value, bool)
            else self._wrong(key, "an integer")
        )

    def number(self, key: str, default: float) -> float:
        value = self._get(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        return self._wrong(key, "a number")

    def boolean(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        return value if isinstance(value, bool) else self._wrong(key, "true or false")

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._get(key, [])
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        return self._wrong(key, "a list of names")

    def tables(self, key: str, known: set[str]) -> Iterable[tuple[str, _Table]]:
        value = self._get(key, {})
        if not isinstance(value, dict):
            self._wrong(key, "a table")
        for name, item in cast(dict[str, object], value).items():
            yield name, self._sub(f"{key}.{name}", item, known)

    def list_of_tables(self, key: str, known: set[str]) -> Iterable[_Table]:
        value = self._get(key, [])
        if not isinstance(value, list):
            self._wrong(key, "a list of tables")
        for number, item in enumerate(cast(list[object], value)):
            yield self._sub(f"{key}[{number}]", item, known)

    def _sub(self, where: str, item: object, known: set[str]) -> _Table:
        if not isinstance(item, dict):
            raise LabError(f"{where} must be a table", "see scripts/netns/labs/ for examples")
        return _Table(where, cast(dict[str, object], item), known)

    def _get(self, key: str, default: object) -> object:
        value = self.values.get(key, default)
        if value is None:
            raise LabError(f"{self.where}: {key} is missing", "add it")
        return value

    def _wrong(self, key: str, expected: str) -> NoReturn:
        raise LabError(f"{self.where}.{key} must be {expected}", f"it is {self.values.get(key)!r}")

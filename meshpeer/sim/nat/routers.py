"""Routers and networks between virtual machines: what becomes of a datagram's source on its way, and whom it
reaches.

A router is described in the terms of RFC 4787: how it maps (one port for all destinations, or another for
each), what it filters by, for how long a mapping lasts without packets, whether it hairpins. A firewall is a
router that keeps addresses. Networks are a tree: a router's inside, its outside, and so on up to the
internet. Homes have equal private addresses, so a datagram may well arrive at the wrong machine.

Knows nothing of WireGuard or of nodes; time is an argument.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

PORT_FIRST, PORT_LAST = 20_000, 59_999
"""Where a router takes the ports from that it does not keep."""
HOPS_MAX = 8


class End(NamedTuple):
    """An address (without brackets) and a UDP port."""

    host: str
    port: int


class Mapping(enum.StrEnum):
    KEPT = "kept"
    """A firewall: addresses and ports stay."""
    ONE = "one"
    """Endpoint-independent: one port for all destinations, the sender's own where it is free."""
    EACH = "each"
    """Address and port-dependent (symmetric): another port for each destination."""


class Filtering(enum.StrEnum):
    NONE = "none"
    """Endpoint-independent: a mapping lets in whoever knows it."""
    PORT = "port"
    """Address and port-dependent: only from where something was sent."""


@dataclass(slots=True)
class _Mapped:
    inner: End
    port: int
    used_s: float
    sent_s: dict[End, float] = field(default_factory=dict)
    """When something was last sent where."""


@dataclass(slots=True, eq=False)
class Router:
    """One router, with one address outside (none for a firewall)."""

    inside: Network
    outside: Network
    address: str
    """Outside; empty for a firewall."""
    mapping: Mapping
    filtering: Filtering
    lasts_s: float
    hairpins: bool
    draw: Callable[[], float]
    """For ports: from 0 to 1."""
    _out: dict[tuple[End, End | None], _Mapped] = field(default_factory=dict)
    _in: dict[int, _Mapped] = field(default_factory=dict)
    _let: dict[tuple[End, End], float] = field(default_factory=dict)
    """Of a firewall: when something last passed between the two."""

    def __post_init__(self) -> None:
        self.inside.uplink = self
        if self.address:
            self.outside.holders[self.address] = self

    def flush(self) -> None:
        """Forgets all, as at a reboot."""
        self._out.clear()
        self._in.clear()
        self._let.clear()

    def renumber(self, address: str) -> None:
        """Gets another address from its provider; all that was mapped ends with the old one."""
        del self.outside.holders[self.address]
        self.address = address
        self.outside.holders[address] = self
        self.flush()

    def going_out(self, source: End, target: End, now_s: float) -> End:
        """Returns the source that a datagram has beyond this router."""
        if self.mapping is Mapping.KEPT:
            self._let[source, target] = now_s
            return source
        key = (source, target if self.mapping is Mapping.EACH else None)
        held = self._out.get(key)
        if held is None or now_s >= held.used_s + self.lasts_s:
            if held is not None:
                self._in.pop(held.port, None)
            held = self._out[key] = _Mapped(source, self._port(source.port, now_s), now_s)
            self._in[held.port] = held
        held.used_s = now_s
        held.sent_s[target] = now_s
        return End(self.address, held.port)

    def coming_in(self, source: End, target: End, now_s: float) -> End | None:
        """Returns where a datagram goes inside; None where it is dropped."""
        if self.mapping is Mapping.KEPT:
            if now_s >= self._let.get((target, source), float("-inf")) + self.lasts_s:
                return None
            self._let[target, source] = now_s
            return target
        held = self._in.get(target.port)
        if held is None or now_s >= held.used_s + self.lasts_s:
            return None
        if self.filtering is Filtering.PORT:
            if now_s >= held.sent_s.get(source, float("-inf")) + self.lasts_s:
                return None
            held.sent_s[source] = now_s
        held.used_s = now_s
        return held.inner

    def _port(self, wanted: int, now_s: float) -> int:
        port = wanted
        if self.mapping is Mapping.EACH or self._is_taken(port, now_s):
            while True:
                port = PORT_FIRST + int(self.draw() * (PORT_LAST - PORT_FIRST + 1))
                if not self._is_taken(port, now_s):
                    break
        return port

    def _is_taken(self, port: int, now_s: float) -> bool:
        held = self._in.get(port)
        return held is not None and now_s < held.used_s + self.lasts_s


@dataclass(slots=True, eq=False)
class Network:
    """One network: whoever has an address on it, and the router that leads out."""

    prefix: str
    """Length of the prefix of addresses on it."""
    uplink: Router | None = None
    isolates: bool = False
    """Machines on it do not reach each other directly, as with carriers."""
    holders: dict[str, Router | Machine] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Machine:
    """Where one node's machine is plugged in."""

    name: str
    place: tuple[float, float] = (0.0, 0.0)
    """For distances, in seconds of delay."""
    udp: bool = True
    """Its network lets UDP out."""
    asleep: bool = False
    v4: tuple[Network, str] | None = None
    v6: tuple[Network, str] | None = None

    def at(self, version: int) -> tuple[Network, str] | None:
        return self.v4 if version == 4 else self.v6

    def plug(self, network: Network, address: str) -> None:
        """Takes an address on a network, instead of the one that it has of this family."""
        self.unplug(6 if ":" in address else 4)
        network.holders[address] = self
        if network.uplink is not None and network.uplink.mapping is Mapping.KEPT:
            network.uplink.outside.holders[address] = network.uplink
        if ":" in address:
            self.v6 = (network, address)
        else:
            self.v4 = (network, address)

    def unplug(self, version: int) -> None:
        held = self.at(version)
        if held is not None:
            network, address = held
            del network.holders[address]
            if network.uplink is not None and network.uplink.mapping is Mapping.KEPT:
                del network.uplink.outside.holders[address]
        if version == 4:
            self.v4 = None
        else:
            self.v6 = None

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(held[1] for held in (self.v4, self.v6) if held is not None)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Returns its addresses with the lengths of their prefixes."""
        return tuple(f"{held[1]}/{held[0].prefix}" for held in (self.v4, self.v6) if held is not None)


class Arrival(NamedTuple):
    machine: Machine
    source: End
    """As the receiver sees it."""
    target: End
    """The receiver's own."""


def carry(sender: Machine, port: int, target: End, now_s: float) -> Arrival | None:
    """Follows a datagram from a machine's port to where it ends; None where it is lost."""
    held = sender.at(6 if ":" in target.host else 4)
    if held is None or not sender.udp or sender.asleep:
        return None
    network, source = held[0], End(held[1], port)
    passed: list[Router] = []
    inbound = False
    for _ in range(HOPS_MAX):
        holder = network.holders.get(target.host)
        if holder is None:
            if network.uplink is None or inbound:
                return None
            passed.append(network.uplink)
            source = network.uplink.going_out(source, target, now_s)
            network = network.uplink.outside
            continue
        if network.isolates and not inbound and holder is not sender:
            return None
        if isinstance(holder, Machine):
            return Arrival(holder, source, target) if holder.udp and not holder.asleep else None
        if holder in passed and not holder.hairpins:
            return None
        inner = holder.coming_in(source, target, now_s)
        if inner is None:
            return None
        network, target, inbound = holder.inside, inner, True
    return None


@functools.lru_cache(maxsize=65_536)
def end_of(endpoint: str) -> End | None:
    """Reads ``host:port``; None for what is none in numbers."""
    host, _, port = endpoint.rpartition(":")
    try:
        return End(str(ipaddress.ip_address(host.strip("[]"))), int(port))
    except ValueError:
        return None


@functools.lru_cache(maxsize=65_536)
def text_of(end: End) -> str:
    return f"[{end.host}]:{end.port}" if ":" in end.host else f"{end.host}:{end.port}"

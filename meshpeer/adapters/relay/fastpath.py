"""The fast path: nftables carries data packets between two ends that are known to be where they are.

A table of our own, at the ingress of the devices that the ends' packets come in by, takes packets of type 4
from exactly an end's address and port to exactly the address and port that it uses here, writes the other
two addresses and ports in, and hands them to the device that leads to the other end (``nft(8)``, ``fwd``).
All else, handshakes above all, goes on to the helper: so it learns new addresses, and this table follows.

This is neither NAT nor routing. There is no connection tracking, whose entries would outlive a rule and take
handshakes along, and the machine forwards nothing else: ``net.ipv4.ip_forward`` stays as it is. Each port's
entry expires by itself, so that an agent that was killed leaves no relay behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.paths.relay_crossing import Way
from meshpeer.core.paths.relay_packets import DATA_BYTES_MIN
from meshpeer.core.wire.unreadable import UNREADABLE

TABLE = "meshpeer_relay"
ENTRY_S = 60
"""How long a port's entry lasts unless the table is written anew."""
REFRESH_S = 20.0
TOOL_S_MAX = 10.0
BURST_S, BURST_BYTES_MIN = 0.1, 131_072.0
"""How much of a second's bytes may come at once, and at the least: some packets come here in bundles of
64 KiB (segmentation offload)."""
_SIOCGIFMTU = 0x8921
"""netdevice(7)."""
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Ports = tuple[int, int]
Carried = tuple[tuple[int, int], tuple[int, int]]
"""Packets and bytes (with their headers), each of the first end and of the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How packets leave for an end."""

    device: str
    hop: str
    """The end's own address, or the router's on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPair:
    """One pair whose ends are known."""

    ports: Ports
    ways: tuple[Way, Way]
    routes: tuple[Route, Route]
    arrivals: tuple[str, str]
    """The devices that the ends' packets come in by."""
    lengths_max: tuple[int | None, int | None] = (None, None)
    """Of UDP, what the way on from an end has room for, where that is less than what may come: nobody would
    fragment it here."""


class FastPath:
    """The table, and what it has carried. ``rate`` (of a pair) and ``total`` are bytes per second."""

    def __init__(self, rate: float, total: float, *, table: str = TABLE) -> None:
        self._rate, self._total = rate, total
        self._table = table
        self._before: dict[Ports, Carried] = {}
        """What tables before this one carried."""
        self._pairs: tuple[FastPair, ...] = ()

    @property
    def pairs(self) -> frozenset[Ports]:
        """Those that it carries now."""
        return frozenset(one.ports for one in self._pairs)

    @property
    def carried(self) -> Sequence[FastPair]:
        return self._pairs

    async def set_pairs(self, settled: Mapping[Ports, tuple[Way, Way]], *, anew: bool = False) -> None:
        """Carries these pairs and no others, as far as that can be; raises ``EnvironmentFault`` where the
        table can't be written, and then it is gone. ``anew``: looks at all routes again."""
        known = {} if anew else {one.ports: one for one in self._pairs if settled.get(one.ports) == one.ways}
        planned = [known.get(ports) or await self._plan(ports, ways) for ports, ways in settled.items()]
        pairs = tuple(one for one in planned if one is not None)
        if not pairs and not self._pairs:
            return
        self._before = {**await self.count()}
        self._pairs = ()
        if not pairs:
            await self.clear()
            return
        rules = render_table(self._table, pairs, rate=self._rate, total=self._total)
        try:
            await _run("nft", "-f", "-", stdin=_without(self._table) + rules)
        except EnvironmentFault:
            await self.clear()
            raise
        self._pairs = pairs

    def forget(self, ports: Ports) -> None:
        """Drops the count of a pair that is over."""
        self._before.pop(ports, None)

    async def clear(self) -> None:
        """Removes the table, whoever left it; raises ``EnvironmentFault``."""
        self._pairs = ()
        await _run("nft", "-f", "-", stdin=_without(self._table))

    async def count(self) -> Mapping[Ports, Carried]:
        """Returns what each pair carried here since it was carried first."""
        try:
            counters = await self._counters() if self._pairs else {}
        except EnvironmentFault:
            # Somebody flushed the table: the next writing restores it.
            counters = {}
        total = dict(self._before)
        for pair in self._pairs:
            first, second = (counters.get(f"c{port}", (0, 0)) for port in pair.ports)
            packets, size = total.get(pair.ports, ((0, 0), (0, 0)))
            total[pair.ports] = (
                (packets[0] + first[0], packets[1] + second[0]),
                (size[0] + first[1], size[1] + second[1]),
            )
        return total

    async def _counters(self) -> dict[str, tuple[int, int]]:
        return counters_in(await _run("nft", "-j", "list", "counters", "table", "netdev", self._table))

    async def _plan(self, ports: Ports, ways: tuple[Way, Way]) -> FastPair | None:
        """Returns how a pair is carried; None where it can't be: its ends are of two families, on this very
        machine, or out of reach just now."""
        if _family(ways[0]) != _family(ways[1]):
            return None
        try:
            first, second = [await _route(way) for way in ways]
            arrivals = [socket.if_indextoname(way.device) for way in ways]
        except (EnvironmentFault, OSError):
            return None
        if first is None or second is None or "lo" in arrivals:
            return None
        try:
            lengths_max = (
                _length_max(arrivals[0], second, ways[0]),
                _length_max(arrivals[1], first, ways[1]),
            )
        except OSError:
            return None
        return FastPair(
            ports=ports,
            ways=ways,
            routes=(first, second),
            arrivals=(arrivals[0], arrivals[1]),
            lengths_max=lengths_max,
        )


def counters_in(printed: str) -> dict[str, tuple[int, int]]:
    """Reads ``nft -j list counters``: packets and bytes by name; raises ``EnvironmentFault`` for anything
    else."""
    try:
        listed = msgspec.json.decode(printed, type=_Listed)
    except UNREADABLE as error:
        raise EnvironmentFault("`nft -j list counters` printed what can't be read") from error
    return {
        one.counter.name: (one.counter.packets, one.counter.bytes) for one in listed.nftables if one.counter
    }


class _Counter(msgspec.Struct, frozen=True):
    name: str
    packets: int
    bytes: int


class _Item(msgspec.Struct, frozen=True):
    counter: _Counter | None = None


class _Listed(msgspec.Struct, frozen=True):
    nftables: tuple[_Item, ...]


def render_table(table: str, pairs: Sequence[FastPair], *, rate: float, total: float) -> str:
    """Returns the table as ``nft -f`` reads it. Values are this machine's own, and addresses and numbers that
    were parsed."""
    devices = sorted({device for pair in pairs for device in pair.arrivals})
    lines = [f"table netdev {table} {{", f"\tlimit total {{ {_limit(total)} }}"]
    for pair in pairs:
        lines.append(f"\tlimit p{pair.ports[0]} {{ {_limit(rate)} }}")
        lines += [line for side in (0, 1) for line in _chain(pair, side)]
    entries = ", ".join(f"{port} timeout {ENTRY_S}s : goto to{port}" for pair in pairs for port in pair.ports)
    named = ", ".join(f'"{device}"' for device in devices)
    lines += [
        "\tmap lent {",
        "\t\ttype inet_service : verdict",
        "\t\tflags timeout",
        f"\t\telements = {{ {entries} }}",
        "\t}",
        "\tchain arriving {",
        f"\t\ttype filter hook ingress devices = {{ {named} }} priority 0; policy accept;",
        "\t\tudp dport vmap @lent",
        "\t}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _chain(pair: FastPair, side: int) -> list[str]:
    """Returns the chain of what an end sends to its port."""
    port, other_port = pair.ports[side], pair.ports[1 - side]
    end, other = pair.ways[side], pair.ways[1 - side]
    route, ip = pair.routes[1 - side], _family(end)
    # A fragment has no ports, and what has options before its ports is nobody's tunnel.
    whole = "ip frag-off & 0x3fff == 0" if ip == "ip" else "ip6 nexthdr udp"
    sent = (
        f'iifname "{pair.arrivals[side]}" {ip} saddr {end.host} {ip} daddr {end.local} udp sport {end.port}'
    )
    highest = pair.lengths_max[side]
    least = 8 + DATA_BYTES_MIN
    length = f"udp length >= {least}" if highest is None else f"udp length {least}-{highest}"
    return [
        f"\tcounter c{port} {{ }}",
        f"\tchain carry{port} {{",
        f'\t\tlimit name "p{pair.ports[0]}" drop',
        '\t\tlimit name "total" drop',
        f'\t\tcounter name "c{port}"',
        f"\t\t{ip} saddr set {other.local} {ip} daddr set {other.host}"
        f" udp sport set {other_port} udp dport set {other.port}"
        f' fwd {ip} to {route.hop} device "{route.device}"',
        "\t}",
        f"\tchain to{port} {{",
        # A data packet: its type after the 8 bytes of the UDP header, at least a header and a tag.
        f"\t\t{sent} {whole} {length} @th,64,32 0x04000000 goto carry{port}",
        "\t}",
    ]


def _without(table: str) -> str:
    """Returns the beginning of a script: the table is gone, whether or not there was one."""
    return f"table netdev {table}\ndelete table netdev {table}\n"


def _limit(rate: float) -> str:
    return f"rate over {int(rate)} bytes/second burst {int(max(rate * BURST_S, BURST_BYTES_MIN))} bytes"


def _length_max(arrival: str, onward: Route, way: Way) -> int | None:
    """Returns the longest UDP that a device has room for, where the other one lets longer ones in; raises
    ``OSError`` where a device is gone."""
    room = _mtu(onward.device)
    return room - (40 if _family(way) == "ip6" else 20) if room < _mtu(arrival) else None


def _mtu(device: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16si12x", device.encode(), 0)
        (mtu,) = struct.unpack_from("i", fcntl.ioctl(any_socket.fileno(), _SIOCGIFMTU, asked), 16)
    return int(mtu)


def _family(way: Way) -> str:
    return "ip6" if ":" in way.host else "ip"


async def _route(way: Way) -> Route | None:
    """Returns how packets to an end leave; None where they stay here. Raises ``EnvironmentFault``."""
    return route_in(await _run("ip", "-json", "route", "get", "to", way.host, "from", way.local), way)


def route_in(printed: str, way: Way) -> Route | None:
    """Reads ``ip -json route get``; raises ``EnvironmentFault`` for what is no JSON."""
    try:
        said: object = json.loads(printed)
    except UNREADABLE as error:
        raise EnvironmentFault("`ip -json route get` printed what can't be read") from error
    match said:
        case [{"dev": str(device), **rest}] if rest.get("type", "unicast") == "unicast" and device != "lo":
            hop = rest.get("gateway", way.host)
            return Route(device=device, hop=hop) if isinstance(hop, str) and hop else None
    return None


async def _run(name: str, *arguments: str, stdin: str = "") -> str:
    """Runs a tool to its end and returns what it printed; raises ``EnvironmentFault`` with what it said."""
    path = shutil.which(name) or shutil.which(name, path=_SYSTEM_FOLDERS)
    if path is None:
        raise EnvironmentFault(f"`{name}` is not installed")
    try:
        with trio.fail_after(TOOL_S_MAX):
            done = await trio.run_process(
                [path, *arguments],
                stdin=stdin.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
    except trio.TooSlowError as error:
        raise EnvironmentFault(f"`{name}` did not end within {TOOL_S_MAX:.0f} s") from error
    except OSError as error:
        raise EnvironmentFault(f"`{name}` could not be run: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise EnvironmentFault(f"`{name}` failed: {said[0] if said else done.returncode}")
    return done.stdout.decode("utf-8", "replace")

"""Nodes with path probes, routers before them, and a clock: what a mesh's underlay does, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.paths.probe_desk import ProbeHeard, SendProbe
from meshpeer.core.paths.probes import PathProbes

MESH = MeshId(b"m" * 32)
PORT = 51820
UNIX_S = 1_800_000_000.0
DELAY_S = 0.01
OPEN, KEEPING, SYMMETRIC = "open", "keeping", "symmetric"


@dataclass
class Host:
    """A node at an address; behind a router its packets have the router's."""

    name: str
    probes: PathProbes
    key: WireGuardPrivateKey
    router: str
    address: str
    outside: str
    mapped: dict[str, str] = field(default_factory=dict)
    """To whom it sent, and from which endpoint that was seen to come."""

    @property
    def node(self) -> NodeId:
        return NodeId(self.name.encode().ljust(32, b"\0"))

    @property
    def candidates(self) -> tuple[str, ...]:
        inner = f"{self.address}:{PORT}"
        return (inner,) if self.router == OPEN else (inner, f"{self.outside}:{PORT}")


class World:
    """Carries probes with a delay, as routers let it (RFC 4787: a port-keeping router maps independently of
    the endpoint, a symmetric one by it; both let in only what answers)."""

    def __init__(self, seed: int = 0, lost: Callable[[], bool] = lambda: False) -> None:
        self.dice = random.Random(seed)
        self.now_s = 1_000.0
        self.lost = lost
        self.hosts: dict[str, Host] = {}
        self.sent: list[tuple[str, SendProbe]] = []
        self._queue: list[tuple[float, int, str, ProbeHeard]] = []
        self._order = itertools.count()
        self._ports = itertools.count(30_000)

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, UNIX_S + self.now_s)

    def host(self, name: str, router: str = OPEN, *, able: bool = True) -> Host:
        number = len(self.hosts) + 1
        key = WireGuardPrivateKey(bytes([number]) * 32)
        probes = PathProbes(mesh=MESH, key=key, entropy=self.dice.randbytes, counters=Counters())
        probes.able = able
        outside = f"203.0.113.{number}"
        address = outside if router == OPEN else f"192.168.{number}.2"
        self.hosts[name] = Host(name, probes, key, router, address, outside)
        for one in self.hosts.values():
            others = [(other.node, other.key.public) for other in self.hosts.values() if other is not one]
            one.probes.know(others, ("10.10.0.0/24",))
        return self.hosts[name]

    def send(self, host: Host, probes: list[SendProbe]) -> None:
        for probe in probes:
            self.sent.append((host.name, probe))
            if not self.lost():
                self._carry(host, probe)

    def _carry(self, host: Host, probe: SendProbe) -> None:
        source = self._source(host, probe.endpoint)
        target = self._behind(probe.endpoint, source)
        if target is not None:
            heard = ProbeHeard(source=source, local=target.address, data=probe.data)
            heapq.heappush(self._queue, (self.now_s + DELAY_S, next(self._order), target.name, heard))

    def _source(self, host: Host, target: str) -> str:
        if host.router == OPEN:
            return f"{host.address}:{PORT}"
        if target not in host.mapped:
            port = PORT if host.router == KEEPING else next(self._ports)
            host.mapped[target] = f"{host.outside}:{port}"
        return host.mapped[target]

    def _behind(self, endpoint: str, source: str) -> Host | None:
        for host in self.hosts.values():
            if host.router == OPEN:
                if endpoint == f"{host.address}:{PORT}":
                    return host
            elif host.mapped.get(source) == endpoint:
                return host
        return None

    def run(self, for_s: float) -> None:
        """Lets time pass: probes arrive, and those that are due are sent."""
        end_s = self.now_s + for_s
        while True:
            due = [deadline.at_s for host in self.hosts.values() if (deadline := host.probes.next_deadline())]
            arrives = [self._queue[0][0]] if self._queue else []
            next_s = min([*due, *arrives, end_s])
            if next_s >= end_s and end_s not in due and end_s not in arrives:
                self.now_s = end_s
                return
            self.now_s = max(self.now_s, next_s)
            while self._queue and self._queue[0][0] <= self.now_s:
                _, _, name, heard = heapq.heappop(self._queue)
                host = self.hosts[name]
                self.send(host, host.probes.on_heard(heard, self.now)[1])
            for host in self.hosts.values():
                self.send(host, host.probes.tick(self.now))

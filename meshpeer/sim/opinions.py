"""Who holds whom for dead: how long a crash takes to be known, and who is declared dead without cause.

Opinions are looked at every 50 ms of virtual time, and only of hosts that said that something about members
changed: what is read is exact to that grain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from meshpeer.core.ids import NodeId
from meshpeer.core.node.node import Node
from meshpeer.sim.host import Host

SAMPLE_S = 0.05
GRACE_S = 20.0
"""After a pause or a partition has ended: what was opened in its course may still run."""
_DEAD = "dead"


@dataclass(slots=True, kw_only=True)
class Mourning:
    """One crash, and until when everybody who runs knew."""

    victims: frozenset[NodeId]
    at_s: float
    took_s: float | None = None
    waiting: dict[int, set[NodeId]] = field(default_factory=dict)
    """By host index: whom it does not hold dead yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseDeath:
    at_s: float
    observer: str
    subject: str


@dataclass(slots=True)
class Opinions:
    """Reads and remembers whom each host holds dead."""

    hosts: dict[NodeId, Host]
    mournings: list[Mourning] = field(default_factory=list)
    false_deaths: list[FalseDeath] = field(default_factory=list)
    _dead: dict[int, frozenset[NodeId]] = field(default_factory=dict)
    _excused: dict[int, float] = field(default_factory=dict)

    def excuse(self, hosts: Iterable[Host], until_s: float) -> None:
        """Until then there is a reason to hold these dead, wrong as it may be."""
        for host in hosts:
            self._excused[host.index] = max(self._excused.get(host.index, 0.0), until_s)

    def mourn(self, victims: list[Host], survivors: Iterable[Host], now_s: float) -> Mourning:
        """Measures from now on until every survivor holds every victim dead."""
        ids = frozenset(host.id for host in victims)
        mourning = Mourning(victims=ids, at_s=now_s)
        for host in survivors:
            left = ids - self._dead.get(host.index, frozenset())
            if left:
                mourning.waiting[host.index] = set(left)
        self.mournings.append(mourning)
        return mourning

    def stopped(self, host: Host, now_s: float) -> None:
        """A host runs no more: nobody waits for its opinion."""
        self._dead.pop(host.index, None)
        for mourning in self.mournings:
            self._strike(mourning, host.index, None, now_s)

    def look(self, host: Host, now_s: float) -> None:
        """Reads what a host thinks now."""
        if host.node is None or host.revoked:
            return
        dead = dead_of(host.node)
        before = self._dead.get(host.index, frozenset())
        if dead == before:
            return
        self._dead[host.index] = dead
        for node in sorted(dead - before):
            subject = self.hosts.get(node)
            if subject is not None and subject.runs and self._excused.get(subject.index, -1.0) < now_s:
                self.false_deaths.append(FalseDeath(at_s=now_s, observer=host.name, subject=subject.name))
        for mourning in self.mournings:
            self._strike(mourning, host.index, dead, now_s)

    def any_running_held_dead(self) -> bool:
        return any(
            (subject := self.hosts.get(node)) is not None and subject.node is not None
            for dead in self._dead.values()
            for node in dead
        )

    @staticmethod
    def _strike(mourning: Mourning, index: int, dead: frozenset[NodeId] | None, now_s: float) -> None:
        waiting = mourning.waiting.get(index)
        if waiting is None:
            return
        left = waiting - dead if dead is not None else set()
        if left:
            mourning.waiting[index] = left
            return
        del mourning.waiting[index]
        if not mourning.waiting:
            mourning.took_s = now_s - mourning.at_s


def dead_of(node: Node) -> frozenset[NodeId]:
    """Returns whom a node holds dead."""
    return frozenset(node.detector.dead)

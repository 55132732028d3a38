"""One virtual machine, and the wires between two: what a world keeps of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from meshpeer.core.effects import Table
from meshpeer.core.identity.certificates import Authority
from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey
from meshpeer.core.ids import LinkId, NodeId, Ticket
from meshpeer.core.node.node import Node
from meshpeer.core.records.ledger import Chain


@dataclass(slots=True)
class Host:
    """One virtual machine: a node, what its disk holds, and whether it answers."""

    name: str
    address: str
    key: SigningKey
    wireguard: WireGuardPrivateKey
    chain: Chain
    roles: tuple[str, ...]
    issuer: Authority | None
    disk: dict[tuple[Table, str], bytes] = field(default_factory=dict)
    node: Node | None = None
    life: int = 0
    """Raised at every start and crash: what was on its way to an earlier life is lost."""
    clock_skew_s: float = 0.0
    paused: bool = False
    waiting: list[tuple[Ticket, Callable[[], None]]] = field(default_factory=list)
    written: set[Ticket] = field(default_factory=set)
    effects: list[object] = field(default_factory=list)
    """What the node wanted that this world does not do: for tests to look at."""

    @property
    def id(self) -> NodeId:
        return self.key.public


@dataclass(slots=True)
class Wire:
    """One simulated TLS connection; each end has its own link number."""

    ends: tuple[tuple[Host, LinkId, int], tuple[Host, LinkId, int]]
    open: bool = True

    def other(self, host: Host) -> tuple[Host, LinkId, int]:
        return self.ends[1] if self.ends[0][0] is host else self.ends[0]

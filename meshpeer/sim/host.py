"""One virtual machine: a node, what its disk holds, and whether it answers."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Table
from meshpeer.core.identity.certificates import Authority
from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey
from meshpeer.core.ids import LinkId, NodeId, Ticket
from meshpeer.core.node.node import Node
from meshpeer.core.records.ledger import Chain
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.sim.heap import Action

if TYPE_CHECKING:
    from meshpeer.sim.network import Lane

NEVER_S = float("inf")
EFFECTS_KEPT = 256

Row = tuple[Table, str]


class Rogue(Protocol):
    """A member that runs a program of its own, by the same two doors as a node."""

    def handle(self, event: object, now: Instant) -> list[object]: ...

    def next_deadline(self) -> Deadline | None: ...


class Disk(MutableMapping[Row, bytes]):
    """The rows of one journal. Those of a warm start lie in a base that all hosts share; what a host writes
    is
    its own."""

    __slots__ = ("_base", "_own")

    def __init__(self, base: Mapping[Row, bytes] | None = None) -> None:
        self._base: Mapping[Row, bytes] = base if base is not None else {}
        self._own: dict[Row, bytes | None] = {}

    def __getitem__(self, row: Row) -> bytes:
        value = self._own[row] if row in self._own else self._base[row]
        if value is None:
            raise KeyError(row)
        return value

    def __setitem__(self, row: Row, value: bytes) -> None:
        self._own[row] = value

    def __delitem__(self, row: Row) -> None:
        self[row]
        if row in self._base:
            self._own[row] = None
        else:
            del self._own[row]

    def __iter__(self) -> Iterator[Row]:
        for row in self._base:
            if row not in self._own:
                yield row
        for row, value in self._own.items():
            if value is not None:
                yield row

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(slots=True, eq=False)
class Host:
    """What a world keeps of one machine."""

    index: int
    """Its place in the order of making, from 0."""
    name: str
    address: str
    key: SigningKey
    wireguard: WireGuardPrivateKey
    """The one on its disk; its interface may hold another for a moment."""
    chain: Chain
    roles: tuple[str, ...]
    issuer: Authority | None
    id: NodeId = field(init=False)
    next_wireguard: WireGuardPrivateKey | None = None
    """What it changes to, as its disk says."""
    region: int = 0
    """Where it stands, for delays."""
    place: str = ""
    """The region that its record names."""
    lans: tuple[str, ...] = ()
    """Networks that it has and that its settings advertise."""
    lends: bool = False
    """It lends ports to pairs."""
    nat: int | None = None
    """Behind which NAT it stands; nobody outside can dial it."""
    clock_skew_s: float = 0.0
    disk: MutableMapping[Row, bytes] = field(default_factory=Disk)
    node: Node | None = None
    rogue: Rogue | None = None
    life: int = 0
    """Raised at every start and crash: what was on its way to an earlier life is lost."""
    gone: bool = False
    """The machine is off, or its cable is cut: nobody is refused, nothing is answered."""
    revoked: bool = False
    """It was shut out: what it holds counts for nothing any more."""
    paused: bool = False
    reads: bool = True
    """Whether it takes what its links bring; one that does not lets its senders wait."""
    inbox: list[tuple[Action, tuple[object, ...]]] = field(default_factory=list)
    """What came while it was paused, in order."""
    lanes: dict[LinkId, Lane] = field(default_factory=dict)
    """Its ends of open links."""
    waiting: dict[Ticket, list[tuple[Action, tuple[object, ...]]]] = field(default_factory=dict)
    """What is held back until a write is on disk."""
    written: set[Ticket] = field(default_factory=set)
    device: DesiredDevice | None = None
    """What its interface holds."""
    deadline_s: float = NEVER_S
    tick_at_s: float = NEVER_S
    """The earliest tick that lies on the heap."""
    effects: collections.deque[object] = field(default_factory=lambda: collections.deque(maxlen=EFFECTS_KEPT))
    """What the node wanted last that this world does not do: for tests to look at."""

    def __post_init__(self) -> None:
        self.id = self.key.public

    @property
    def runs(self) -> bool:
        """Whether a program answers at its address."""
        return self.node is not None or self.rogue is not None

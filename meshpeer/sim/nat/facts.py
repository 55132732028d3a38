"""What membership would tell the nodes of a mix: records with a delay, links, who is dead. Membership itself
is not run: it takes ten times as long as all paths, and is simulated elsewhere.

Nodes hear of a record after one of a few delays, and all with the same delay hold one ledger. A link is up or
down, with the address that it comes from; one that goes over a member has none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.membership.detector import Detector
from meshpeer.core.membership.links import Links
from meshpeer.core.membership.opinions import Opinion, State
from meshpeer.core.node.derived import Derived
from meshpeer.core.records.ledger import Ledger
from meshpeer.sim.heap import EventHeap
from meshpeer.sim.warm import copy_of

DELAYS_S = (0.15, 0.4, 1.0)
"""From when a record is signed until others have it: the quick third of them, and so on."""
BATCH_S = 0.5
"""What comes within this is one piece of news."""
ALIVE = Opinion(state=State.ALIVE, since_unix_s=0.0, because="linked")
DEAD = Opinion(state=State.DEAD, since_unix_s=0.0, because="it answers nobody")


@dataclass(slots=True, eq=False)
class Facts:
    """Of one mesh."""

    heap: EventHeap
    ledgers: tuple[Ledger, ...]
    unix_s: Callable[[], int]
    changed: Callable[[int], None]
    """Told of the ledger (its place) that holds something new."""
    dead: dict[NodeId, None]
    published: int = 0
    waiting: dict[int, None] = field(default_factory=dict)

    @classmethod
    def of(
        cls, ledger: Ledger, heap: EventHeap, unix_s: Callable[[], int], changed: Callable[[int], None]
    ) -> Facts:
        return cls(heap, (ledger, *(copy_of(ledger) for _ in DELAYS_S[1:])), unix_s, changed, {})

    def publish(self, record: bytes) -> None:
        self.published += 1
        for place, delay_s in enumerate(DELAYS_S):
            self.heap.after(delay_s, self._learn, place, record)

    def _learn(self, place: int, record: bytes) -> None:
        self.ledgers[place].merge(record, self.unix_s())
        if place not in self.waiting:
            self.waiting[place] = None
            self.heap.after(BATCH_S, self._tell, place)

    def _tell(self, place: int) -> None:
        del self.waiting[place]
        self.changed(place)


class SimLinks(Links):
    """The links of one node, as the mix has them."""

    def __init__(self) -> None:
        self.up: dict[NodeId, str] = {}
        """To whom, and where that comes from or goes to; empty over a member."""

    @property
    def peers(self) -> list[NodeId]:
        return sorted(self.up)

    def link_to(self, peer: NodeId) -> LinkId | None:
        return LinkId(1) if peer in self.up else None

    def remote_of(self, peer: NodeId) -> str:
        return self.up.get(peer, "")


class SimDetector(Detector):
    """Who is dead, as the mix has it."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def opinion(self, node: NodeId) -> Opinion:
        return DEAD if node in self._facts.dead else ALIVE

    @property
    def unusual(self) -> Collection[NodeId]:
        return self._facts.dead.keys()

    @property
    def dead(self) -> list[NodeId]:
        return sorted(self._facts.dead)

    def rtt_s(self, node: NodeId) -> float | None:
        return None


class SimDerived(Derived):
    """As a node derives it, with doubts from the mix."""

    def doubted(self, now: Instant) -> tuple[set[NodeId], Deadline | None]:
        return set(self.detector.dead), None

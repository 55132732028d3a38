"""Observers: which peers this node asks where they see it, by probes from WireGuard's own port.

Members tell each other so over their links (``reflections``), and a regional mesh has few of them: whoever
sees this node's packets is seldom somebody whom it is linked to. Then nobody tells, its record names no
endpoint beyond its router, and two behind routers never meet. A probe's answer says the same (RFC 8489, a
binding request), and takes no link.

Asked are peers whose tunnels work and lead straight there, two of them, those beyond this machine's networks
first, and only where too few tell by themselves. An address of IPv6 is the same on both sides of a router.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.endpoints import is_public
from meshpeer.core.paths.probe_desk import AnswerSeen, ProbeDesk, SendProbe
from meshpeer.core.paths.reflections import Reflections, SeenAt

WANTED = 2
"""What two of them see alike is where everybody finds this node; what they see differently, nobody."""
EVERY_S = 30.0
"""How often one is asked: a router that started anew maps to another port."""
AGAIN_S = 2.0
UNANSWERED_MAX = 3
"""Questions in a row; then it is another's turn."""
PASSED_OVER_S = 300.0
"""For how long one is not asked that sees nothing of a router."""
SILENT_S = EVERY_S
"""For how long one is not asked that answers nothing. No longer: while the router itself is away nobody
answers, and then this node is seen elsewhere."""


@dataclass(slots=True)
class _Observer:
    endpoint: str
    due_s: float
    number: int = 0
    """Of the question that waits for its answer; 0 for none."""
    unanswered: int = 0
    passed_over_until_s: float = float("-inf")


class Observers:
    """Of one node. Sans-IO."""

    def __init__(self, desk: ProbeDesk, reflections: Reflections, *, salt: bytes) -> None:
        """``salt``: another one at each node, so that not all ask the same peers."""
        self._desk = desk
        self._reflections = reflections
        self._salt = salt
        self._own: tuple[str, ...] = ()
        self._is_public = False
        self._held: dict[NodeId, _Observer] = {}
        """All that could be asked, in the order in which they are."""
        self._ways: dict[NodeId, str] = {}
        self._asked: tuple[NodeId, ...] = ()
        self._by_question: set[NodeId] = set()
        """Whose words that still last were answers."""
        self.has_news = False
        """Somebody sees this node elsewhere than before; for the caller to take back."""

    def on_network(self, own: tuple[str, ...], now: Instant) -> None:
        """Takes this machine's own endpoints: where they changed, all are asked anew."""
        if own == self._own:
            return
        self._own = own
        self._is_public = any(_is_ipv4(one) and is_public(one) for one in own)
        for one in self._held.values():
            one.due_s, one.unanswered, one.passed_over_until_s = now.mono_s, 0, float("-inf")
        self._choose(now)

    def follow(self, ways: Mapping[NodeId, str], now: Instant) -> None:
        """Takes the peers whose tunnels work and lead straight there, and to which endpoint."""
        if ways != self._ways:
            self._ways = dict(ways)
            self._held = {
                node: held
                if (held := self._held.get(node)) is not None and held.endpoint == endpoint
                else _Observer(endpoint, now.mono_s)
                for node, endpoint in sorted(ways.items(), key=self._place)
                if _is_ipv4(endpoint)
            }
        self._choose(now)

    def on_answer(self, fact: AnswerSeen, now: Instant) -> None:
        held = self._held.get(fact.peer)
        if held is None or not held.number or held.number != fact.number:
            return
        held.number, held.unanswered = 0, 0
        self._by_question.add(fact.peer)
        held.due_s = now.mono_s + EVERY_S
        if fact.seen in self._own or not _is_ipv4(fact.seen):
            held.passed_over_until_s = now.mono_s + PASSED_OVER_S
        if self._reflections.on_seen(fact.peer, SeenAt(endpoint=fact.seen), now):
            self.has_news = True
        self._choose(now)

    def tick(self, now: Instant) -> list[SendProbe]:
        """Returns the questions that are due."""
        sent: list[SendProbe] = []
        for node in self._asked:
            held = self._held[node]
            if now.mono_s < held.due_s:
                continue
            if held.unanswered >= UNANSWERED_MAX:
                held.number, held.unanswered = 0, 0
                held.passed_over_until_s = now.mono_s + SILENT_S
                continue
            asked = self._desk.ask(node, held.endpoint, now)
            held.unanswered += 1
            held.due_s = now.mono_s + AGAIN_S
            if asked is not None:
                held.number = asked[0]
                sent.append(asked[1])
        if any(self._held[node].passed_over_until_s > now.mono_s for node in self._asked):
            self._choose(now)
        return sent

    def next_deadline(self) -> Deadline | None:
        if not self._asked:
            return None
        return Deadline(min(self._held[node].due_s for node in self._asked), "ask where this node is seen")

    def _choose(self, now: Instant) -> None:
        """Chooses whom to ask, where too few tell."""
        if self._is_public:
            self._asked = ()
            return
        tell = self._tell(now)
        left = WANTED - len(tell)
        may = [
            node
            for node, one in self._held.items()
            if now.mono_s >= one.passed_over_until_s and node not in tell
        ]
        self._asked = tuple(may[: max(left, 0)])

    def _tell(self, now: Instant) -> Collection[NodeId]:
        """Returns who says unasked that it sees this node elsewhere than at its own addresses."""
        heard = dict(self._reflections.heard(now))
        self._by_question &= heard.keys()
        return {
            node
            for node, endpoint in heard.items()
            if endpoint not in self._own and _is_ipv4(endpoint) and node not in self._by_question
        }

    def _place(self, way: tuple[NodeId, str]) -> tuple[bool, bytes]:
        """Returns a sort key: who is reached over the internet comes first."""
        node, endpoint = way
        return (not is_public(endpoint), hashlib.sha256(self._salt + node).digest())


def _is_ipv4(endpoint: str) -> bool:
    return bool(endpoint) and not endpoint.startswith("[")

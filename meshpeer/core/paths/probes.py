"""Path probes: whether a peer's endpoints lead there and back, asked from WireGuard's own port.

What is true of these packets is true of WireGuard's, since router and firewall can't tell them apart. One
end's question opens its own router's mapping for the other end's; both ask at about the same time, and again
(hole punching, as ICE's connectivity checks, RFC 8445, section 7). An endpoint leads

- *there and back* once this node's question to it is answered from it;
- *both ways* once the other end said so of its own questions to this node as well. Without that, a change of
  endpoints is a leap: WireGuard sends where it heard from last.

Where a question comes from that is no candidate yet (the other end's router made a mapping of its own for
this pair), that is one, too. Whom to probe and what to do about it is for the owner to say (``aim``); asking
goes on until it says otherwise, often at first, and then as often as it takes to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.paths.probe_desk import (
    AnswerSeen,
    ProbeDesk,
    ProbeFact,
    ProbeHeard,
    QuestionSeen,
    SendProbe,
)
from meshpeer.core.paths.relay_bucket import Bucket

GAPS_S = (0.1, 0.2, 0.2, 0.5, 1.0, 1.0, 2.0)
"""Between the first questions to a candidate; then every ``AGAIN_S``. The other end may begin a moment
later, and its router drops what comes before."""
AGAIN_S = 4.0
LASTS_S = 15.0
"""How long an answer vouches for its endpoint: three questions in a row may be lost."""
CANDIDATES_MAX = 8
"""Of one peer, those that its owner named; the best come first."""
HEARD_FROM_MAX = 4
"""Of one peer, those that its questions came from beyond these."""
PEERS_MAX = 64
"""Peers that are probed at once; who comes later waits."""
SENT_PER_S, SENT_BURST = 100.0, 100.0
"""Questions of this node, to whomever."""
TURN_S = 0.05
"""What has to wait for its turn looks again after this long."""
TRIGGER_S = 0.1
"""A question that arrives is followed by one of ours, unless one was sent a moment ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedPath:
    """What is known of one endpoint of a peer."""

    endpoint: str
    sent: int
    """Questions, since it was named."""
    rtt_s: float | None
    """Of the last answer; None: there was none yet."""
    answered_at_s: float | None
    """When the last answer came (monotonic)."""
    back: bool
    """It led there and back within ``LASTS_S``."""
    both: bool
    """And the other end says so of this one's address."""
    seen: str
    """This node's own endpoint, as the peer saw it; empty where it has not said."""
    named: bool
    """Its owner named it; else a question of the peer's came from there."""


@dataclass(slots=True)
class _Candidate:
    endpoint: str
    named: bool
    due_s: float
    sent: int = 0
    sent_at_s: float = float("-inf")
    rtt_s: float | None = None
    answered_at_s: float = float("-inf")
    told_at_s: float = float("-inf")
    """When the other end said last that its own questions come back."""
    heard_at_s: float = float("-inf")
    seen: str = ""

    def is_back(self, now_s: float) -> bool:
        return now_s < self.answered_at_s + LASTS_S

    def is_both(self, now_s: float) -> bool:
        return self.is_back(now_s) and now_s < self.told_at_s + LASTS_S


@dataclass(slots=True)
class _Aim:
    held: dict[str, _Candidate] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    """As the owner named them last; empty: what is usable of them is to be found out."""


class PathProbes:
    """Of one node, to all its peers. Sans-IO."""

    def __init__(
        self,
        *,
        mesh: MeshId,
        key: WireGuardPrivateKey,
        entropy: Callable[[int], bytes],
        counters: Counters,
    ) -> None:
        self.able = False
        """Whether this machine can send and hear probes at all; set once it says so."""
        self.desk = ProbeDesk(mesh=mesh, key=key, entropy=entropy, counters=counters)
        self._aims: dict[NodeId, _Aim] = {}
        self._due_s: float | None = float("inf")
        """When a question is due; None: to be found out. It is asked for at every event, and changes with
        few."""
        self._bucket = Bucket(SENT_PER_S, SENT_BURST)

    # --- what the owner says --------------------------------------------------------------------------------

    def know(self, members: Iterable[tuple[NodeId, WireGuardKey]], inside: Iterable[str]) -> None:
        """Sets the members with whom this node has tunnels, and the prefixes that go into them."""
        if self.desk.know(members, inside):
            for aim in self._aims.values():
                aim.named = ()
        for peer in [one for one in self._aims if not self.desk.knows(one)]:
            self._due_s = None
            del self._aims[peer]

    def aim(self, peer: NodeId, endpoints: Sequence[str], now: Instant) -> None:
        """Probes these endpoints of a peer from now on, best first; none: it is left alone.

        What is known of those that were named before stays. DNS names are passed over: only the interface
        resolves them."""
        before = self._aims.get(peer)
        if before is not None and endpoints and before.named == tuple(endpoints):
            # As every look says it; who was heard long ago is forgotten with the next question.
            return
        self._due_s = None
        if not endpoints or not self.desk.knows(peer):
            self._aims.pop(peer, None)
            return
        if peer not in self._aims and len(self._aims) >= PEERS_MAX:
            return
        aim = self._aims.setdefault(peer, _Aim())
        aim.named = tuple(endpoints)
        usable = [one for one in dict.fromkeys(endpoints) if self.desk.may_carry(one)][:CANDIDATES_MAX]
        for endpoint in usable:
            candidate = aim.held.setdefault(endpoint, _Candidate(endpoint, named=True, due_s=now.mono_s))
            candidate.named = True
        for candidate in aim.held.values():
            candidate.named = candidate.named and candidate.endpoint in usable
        others = [one.endpoint for one in aim.held.values() if one.endpoint not in usable]
        heard = [one for one in others if now.mono_s < aim.held[one].heard_at_s + LASTS_S]
        aim.held = {one: aim.held[one] for one in (*usable, *heard)}

    def is_aimed(self, peer: NodeId) -> bool:
        return peer in self._aims

    def look(self, peer: NodeId, now: Instant) -> tuple[ProbedPath, ...]:
        """Returns what is known of a peer's endpoints: those named, in their order, then the others."""
        aim = self._aims.get(peer)
        held = aim.held.values() if aim else ()
        return tuple(_shown(one, now.mono_s) for one in sorted(held, key=lambda one: not one.named))

    def confirmed(self, peer: NodeId, now: Instant) -> tuple[str, ...]:
        """Returns the endpoints that lead both ways, those that were named first, in their order."""
        return tuple(one.endpoint for one in self.look(peer, now) if one.both)

    # --- what happens ---------------------------------------------------------------------------------------

    def on_heard(self, event: ProbeHeard, now: Instant) -> tuple[ProbeFact | None, list[SendProbe]]:
        """Takes a datagram; returns what it means, and what to send: the answer first."""
        self._due_s = None
        fact, sent = self.desk.on_heard(event, now, lambda peer, at: self._comes_back(peer, at, now))
        match fact:
            case QuestionSeen():
                sent += self._on_question(fact, now)
            case AnswerSeen():
                sent += self._on_answer(fact, now)
        return fact, sent

    def tick(self, now: Instant) -> list[SendProbe]:
        """Returns the questions that are due."""
        sent: list[SendProbe] = []
        if now.mono_s < self._next_s():
            return sent
        self._due_s = None
        for peer, aim in self._aims.items():
            self._forget_strangers(aim, now)
            for candidate in aim.held.values():
                if now.mono_s >= candidate.due_s:
                    sent += self._ask(peer, candidate, now)
        return sent

    def next_deadline(self) -> Deadline | None:
        """Returns when a question is due; None where none will be."""
        due_s = self._next_s()
        return Deadline(due_s, "probe a path") if self.able and due_s < float("inf") else None

    def _next_s(self) -> float:
        if self._due_s is None:
            due = (one.due_s for aim in self._aims.values() for one in aim.held.values())
            self._due_s = min(due, default=float("inf"))
        return self._due_s

    # --- rules ----------------------------------------------------------------------------------------------

    def _on_question(self, fact: QuestionSeen, now: Instant) -> list[SendProbe]:
        aim = self._aims.get(fact.peer)
        if aim is None:
            return []
        candidate = aim.held.get(fact.source)
        if candidate is None:
            strangers = [one for one in aim.held.values() if not one.named]
            if len(strangers) >= HEARD_FROM_MAX:
                # The one that was heard longest ago gives way, so that a real change gets its turn.
                del aim.held[min(strangers, key=lambda one: (one.heard_at_s, one.endpoint)).endpoint]
            candidate = _Candidate(fact.source, named=False, due_s=now.mono_s)
            aim.held[fact.source] = candidate
        candidate.heard_at_s = now.mono_s
        self._take_word(candidate, fact.answered, now)
        if candidate.is_back(now.mono_s) or now.mono_s < candidate.sent_at_s + TRIGGER_S:
            return []
        return self._ask(fact.peer, candidate, now)

    def _on_answer(self, fact: AnswerSeen, now: Instant) -> list[SendProbe]:
        aim = self._aims.get(fact.peer)
        candidate = aim.held.get(fact.endpoint) if aim else None
        if candidate is None:
            return []
        news = not candidate.is_back(now.mono_s)
        candidate.rtt_s, candidate.answered_at_s, candidate.seen = fact.rtt_s, now.mono_s, fact.seen
        self._take_word(candidate, fact.answered, now)
        # The next question carries the news: the other end waits for it.
        return self._ask(fact.peer, candidate, now) if news else []

    @staticmethod
    def _take_word(candidate: _Candidate, answered: bool, now: Instant) -> None:
        if answered:
            candidate.told_at_s = now.mono_s

    def _comes_back(self, peer: NodeId, endpoint: str, now: Instant) -> bool:
        aim = self._aims.get(peer)
        candidate = aim.held.get(endpoint) if aim else None
        return candidate is not None and candidate.is_back(now.mono_s)

    def _ask(self, peer: NodeId, candidate: _Candidate, now: Instant) -> list[SendProbe]:
        if not self.able or not self._bucket.take(1.0, now.mono_s):
            candidate.due_s = now.mono_s + TURN_S
            return []
        answered = candidate.is_back(now.mono_s)
        asked = self.desk.ask(peer, candidate.endpoint, now, answered=answered)
        gap_s = GAPS_S[candidate.sent] if candidate.sent < len(GAPS_S) else AGAIN_S
        candidate.due_s, candidate.sent_at_s = now.mono_s + gap_s, now.mono_s
        candidate.sent += 1
        return [asked[1]] if asked else []

    @staticmethod
    def _forget_strangers(aim: _Aim, now: Instant) -> None:
        gone = [
            one.endpoint
            for one in aim.held.values()
            if not one.named and now.mono_s >= one.heard_at_s + LASTS_S
        ]
        for endpoint in gone:
            del aim.held[endpoint]


def _shown(one: _Candidate, now_s: float) -> ProbedPath:
    return ProbedPath(
        endpoint=one.endpoint,
        sent=one.sent,
        rtt_s=one.rtt_s,
        answered_at_s=one.answered_at_s if one.rtt_s is not None else None,
        back=one.is_back(now_s),
        both=one.is_both(now_s),
        seen=one.seen,
        named=one.named,
    )

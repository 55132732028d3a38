"""The detector beside a naive reference: whatever happens to links and whatever others sign, in any order.

The reference knows three things: who is linked, when each was heard, and who says what of whom. It has no
time-outs of its own; it knows what must hold whichever they are.
"""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.detector import Detector
from meshpeer.core.membership.detector_effects import (
    DetectorEffect,
    LinkIsSilent,
    OpinionChanged,
    SendTo,
    Suspect,
    Tell,
)
from meshpeer.core.membership.local_health import SCORE_MAX
from meshpeer.core.membership.messages import Ping, Pong, ProbeAnswered, ProbeAsked
from meshpeer.core.membership.opinions import State
from meshpeer.core.membership.suspicions import SILENT_FULL_S, SuspicionSeen

ME = NodeId(bytes([5]) * 32)
OTHERS = tuple(NodeId(bytes([number]) * 32) for number in (1, 2, 3, 6, 7, 8))
OUTSIDER = OTHERS[-1]
"""May observe nobody."""
UNIX_S = 1_800_000_000.0
LONGEST_S = SILENT_FULL_S * (1 + SCORE_MAX)
STEPS_MAX = 400
someone = st.sampled_from(OTHERS)
observers = st.sets(someone, min_size=1, max_size=5)


class Rings:
    def observers(self, subject: NodeId) -> tuple[NodeId, ...]:
        return tuple(one for one in sorted((*OTHERS, ME)) if one not in (subject, OUTSIDER))

    def entitled(self, observer: NodeId, subject: NodeId) -> bool:
        return observer in self.observers(subject)


class DetectorBesideAReference(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0
        self.detector = Detector(ME, rings=Rings(), dice=random.Random(1), counters=Counters())
        self.detector.synced(self.now)
        self.linked: dict[NodeId, float] = {}
        """Since when it was heard last."""
        self.said: dict[NodeId, frozenset[NodeId]] = {}
        """Who may say so, and does."""
        self.since_s: dict[NodeId, float] = {}
        """When somebody began to say something of a member, or it was heard after that."""
        self.pings: dict[NodeId, int] = {}
        self.asked: list[tuple[NodeId, ProbeAsked]] = []

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, UNIX_S + self.now_s)

    # --- what happens ---------------------------------------------------------------------------------------

    @rule(peer=someone)
    def link(self, peer: NodeId) -> None:
        if peer in self.linked:
            return
        self.linked[peer] = self.now_s
        self.perform(self.detector.on_up(peer, self.now))
        assert self.state(peer) is State.ALIVE

    @precondition(lambda self: self.linked)
    @rule(
        data=st.data(), reason=st.sampled_from(("silent", "connection reset", "this node has links enough"))
    )
    def unlink(self, data: st.DataObject, reason: str) -> None:
        self.lose(data.draw(st.sampled_from(sorted(self.linked))), reason)

    @precondition(lambda self: self.linked)
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(sorted(self.linked)))
        self.linked[peer] = self.now_s
        self.perform(self.detector.on_heard(peer, self.now))
        assert self.state(peer) is State.ALIVE, "any frame proves life"

    @precondition(lambda self: self.pings)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(sorted(self.pings)))
        if peer in self.linked:
            self.linked[peer] = self.now_s
            self.perform(self.detector.on_heard(peer, self.now))
            self.perform(self.detector.on_pong(peer, Pong(number=self.pings[peer]), self.now))

    @rule(peer=someone, refused=st.booleans())
    def dial_in_vain(self, peer: NodeId, refused: bool) -> None:
        self.perform(self.detector.on_dial_failed(peer, refused, self.now))

    @rule(subject=someone, by=observers, closed=st.booleans())
    def suspect(self, subject: NodeId, by: set[NodeId], closed: bool) -> None:
        seen = [SuspicionSeen(observer=one, closed=closed, issued_at=0) for one in sorted(by - {subject})]
        entitled = frozenset(one.observer for one in seen if one.observer != OUTSIDER)
        if not entitled:
            self.void(subject)
            return
        self.said[subject] = entitled
        self.since_s.setdefault(subject, self.now_s)
        self.perform(self.detector.on_suspicions(subject, seen, self.now))

    @rule(subject=someone)
    def void(self, subject: NodeId) -> None:
        self.said.pop(subject, None)
        self.since_s.pop(subject, None)
        self.perform(self.detector.on_suspicions(subject, [], self.now))

    @rule(subject=someone)
    def forget(self, subject: NodeId) -> None:
        self.said.pop(subject, None)
        self.since_s.pop(subject, None)
        self.perform(self.detector.forget(subject))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), reached=st.booleans())
    def help(self, data: st.DataObject, reached: bool) -> None:
        helper, asked = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        answer = ProbeAnswered(number=asked.number, subject=asked.subject, reached=reached)
        self.perform(self.detector.on_probe_answered(helper, answer, self.now))

    @rule(asker=someone, subject=someone)
    def asked_for_help(self, asker: NodeId, subject: NodeId) -> None:
        self.perform(self.detector.on_probe_asked(asker, ProbeAsked(number=1, subject=subject), self.now))

    @rule(seconds=st.sampled_from((0.2, 1.0, 5.0, 30.0)))
    def wait(self, seconds: float) -> None:
        self.run(seconds)

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def nobody_is_dead_but_by_the_word_of_others(self) -> None:
        for node in self.detector.dead:
            opinion = self.detector.opinion(node)
            assert set(opinion.observers) == self.said.get(node, frozenset()), "named are those who say so"
            assert opinion.observers

    @invariant()
    def what_is_unusual_is_named_once(self) -> None:
        unusual = {one for one in OTHERS if self.state(one) is not State.ALIVE and self.linked}
        assert set(self.detector.unusual) == unusual or not self.linked

    @rule()
    def in_the_end_whoever_is_suspected_is_dead_and_nobody_else(self) -> None:
        """Nothing more is heard of anybody: suspicions run out, links fall silent and are closed."""
        suspected = dict(self.said)
        self.run(4 * LONGEST_S)
        for node in OTHERS:
            if node not in self.linked:
                assert (self.state(node) is State.DEAD) == (node in suspected)

    # --- helpers --------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        for _ in range(STEPS_MAX):
            deadline = self.detector.next_deadline()
            if deadline is None or deadline.at_s > end_s:
                self.now_s = end_s
                return
            self.now_s = max(self.now_s, deadline.at_s)
            self.perform(self.detector.tick(self.now))
        raise AssertionError("the detector spins")

    def lose(self, peer: NodeId, reason: str) -> None:
        heard_s = self.linked.pop(peer)
        self.pings.pop(peer, None)
        if peer in self.since_s:
            self.since_s[peer] = max(self.since_s[peer], heard_s)
        self.perform(self.detector.on_down(peer, reason, self.now))

    def perform(self, effects: list[DetectorEffect]) -> None:
        for effect in effects:
            match effect:
                case SendTo(peer=peer, message=Ping(number=number)):
                    self.pings[peer] = number
                case SendTo(peer=peer, message=ProbeAsked() as asked):
                    assert peer in self.linked, "only who is linked can be asked"
                    assert peer != asked.subject
                    self.asked.append((peer, asked))
                case LinkIsSilent(peer=peer):
                    self.lose(peer, "silent")
                case Suspect(subject=subject):
                    assert Rings().entitled(ME, subject)
                case Tell(subject=subject):
                    assert subject in self.linked
                    assert self.said.get(subject)
                case OpinionChanged(peer=peer, opinion=opinion):
                    assert opinion.because
                    if opinion.state is State.DEAD:
                        assert peer not in self.linked

    def state(self, node: NodeId) -> State:
        return self.detector.opinion(node).state


TestDetectorBesideAReference = DetectorBesideAReference.TestCase
TestDetectorBesideAReference.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)

"""The failure detector: who seems alive, as opinions (``opinions``) with reasons and named observers.

A linked peer is pinged after a silence (``pulse``). A ping without an answer, or a lost link whose redial
fails, puts the peer in doubt (``doubts``): three helpers are asked to reach it (``favours``), and if none
does, this node signs a suspicion, provided that it is among the subject's observers. Suspicions held for the
exact record that a member shows make it dead when enough observers agree, or after a while (``suspicions``).
A node that has a link to the suspected member, and hears it, tells it, so that it refutes (the buddy system
of Lifeguard).

An opinion changes hubs, relays and steal victims. It never removes a WireGuard peer: only leave, expiry and
revocation do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.detector_effects import (
    DetectorEffect,
    DialFor,
    LinkIsSilent,
    OpinionChanged,
    Refute,
    SendTo,
    Suspect,
    Tell,
)
from meshpeer.core.membership.doubts import Doubts, ask_deadline
from meshpeer.core.membership.favours import Favours
from meshpeer.core.membership.local_health import LocalHealth
from meshpeer.core.membership.messages import ENOUGH_LINKS, Ping, Pong, ProbeAnswered, ProbeAsked
from meshpeer.core.membership.opinions import Opinion, Opinions, State
from meshpeer.core.membership.pulse import PING_AFTER_LOWER_S, Pulse
from meshpeer.core.membership.suspicions import QUORUM_MAX, Case, SuspicionSeen, needed_observers


class RingsPort(Protocol):
    """Who may observe whom."""

    def observers(self, subject: NodeId) -> Sequence[NodeId]: ...

    def entitled(self, observer: NodeId, subject: NodeId) -> bool: ...


class Dice(Protocol):
    def random(self) -> float: ...


@dataclass(slots=True)
class Detector:
    """Holds what is unusual about members, and the pulse of linked peers. Sans-IO."""

    me: NodeId
    rings: RingsPort
    dice: Dice
    counters: Counters
    health: LocalHealth = field(default_factory=LocalHealth)
    _links: dict[NodeId, Pulse] = field(default_factory=dict)
    _doubts: Doubts = field(default_factory=Doubts)
    _cases: dict[NodeId, Case] = field(default_factory=dict)
    """Of everybody of whom something is said now."""
    _open: dict[NodeId, Case] = field(default_factory=dict)
    """Those that have not made their subject dead yet."""
    _opinions: Opinions = field(init=False)
    _favours: Favours = field(default_factory=Favours)
    _look_at_s: float = 0.0
    """No link has to be looked at before; whatever is heard only puts it off."""
    _asked_s: float | None = None
    """The deadline last returned."""

    def __post_init__(self) -> None:
        self._opinions = Opinions(self.counters)

    # --- reading --------------------------------------------------------------------------------------------

    def opinion(self, node: NodeId) -> Opinion:
        """Returns what this node thinks of a member."""
        link = self._links.get(node)
        return self._opinions.of(node, link.since_unix_s if link is not None else None)

    @property
    def unusual(self) -> Collection[NodeId]:
        """Members that are suspect or dead."""
        return self._opinions.unusual

    @property
    def dead(self) -> list[NodeId]:
        """Members that this node holds dead, in id order."""
        return self._opinions.dead

    def rtt_s(self, node: NodeId) -> float | None:
        """Returns the smoothed round trip of the link, or None before the first measure."""
        link = self._links.get(node)
        return link.srtt_s if link and link.srtt_s else None

    def heard_at_s(self, node: NodeId) -> float | None:
        link = self._links.get(node)
        return link.heard_at_s if link else None

    def next_deadline(self) -> Deadline | None:
        deadline = earliest(
            Deadline(self._look_at_s, "ping a silent peer") if self._links else None,
            self._doubts.next_deadline(),
            *(
                Deadline(case.dead_at_s, "a suspicion runs out")
                for node, case in self._open.items()
                if node not in self._links
            ),
            *(Deadline(at_s, "answer a probe") for at_s in self._favours.ends_s()),
        )
        self._asked_s = deadline.at_s if deadline else None
        return deadline

    # --- links ----------------------------------------------------------------------------------------------

    def synced(self, now: Instant) -> list[DetectorEffect]:
        """A member has told all it knows: from now on, no news is good news."""
        self._opinions.synced(now)
        return []

    def on_up(self, peer: NodeId, now: Instant) -> list[DetectorEffect]:
        self._opinions.alone(None)
        if not self._links:
            self._look_at_s = now.mono_s + PING_AFTER_LOWER_S
        self._links[peer] = Pulse(now.unix_s, now.mono_s)
        effects = self._proved(peer, now, "linked")
        return [*effects, self._ping(peer, self._links[peer], now)]

    def on_down(self, peer: NodeId, reason: str, now: Instant) -> list[DetectorEffect]:
        """A link ended: it is redialled at once by others, and what comes of that decides."""
        link = self._links.pop(peer, None)
        if not self._links:
            self._opinions.alone(now)
        if link is None:
            return []
        effects: list[DetectorEffect] = []
        if peer in self._cases:
            # It lived while it was heard, whatever others said meanwhile.
            case = self._cases[peer]
            case.opened_at_s = max(case.opened_at_s, link.heard_at_s)
            effects += self._judge(peer, now)
        if reason == ENOUGH_LINKS:
            return effects
        effects += _sends(self._favours.answer(peer, reached=False))
        if self.rings.entitled(self.me, peer):
            self._doubts.begin(peer, f"link closed: {reason}", now)
        return effects

    def on_dial_failed(self, node: NodeId, refused: bool, now: Instant) -> list[DetectorEffect]:
        """Nobody is there: a refusal says that the host is, and the agent is not."""
        effects = _sends(self._favours.answer(node, reached=False))
        if node in self._links or not self.rings.entitled(self.me, node):
            return effects
        because = "its host refuses the link" if refused else "its addresses do not answer"
        if self.opinion(node).state is State.DEAD or not self._doubts.dial_failed(
            node, because, refused, now
        ):
            return effects
        return [*effects, *self._ask_helpers(node, now)]

    def on_heard(self, peer: NodeId, now: Instant) -> list[DetectorEffect]:
        """Any frame proves life."""
        link = self._links.get(peer)
        if link is None:
            return []
        link.heard_at_s = now.mono_s
        if self.health.on_heard(now.mono_s):
            self._look_again()
        if link.in_doubt or peer in self._opinions or peer in self._favours:
            return self._proved(peer, now, "linked")
        return []

    # --- messages -------------------------------------------------------------------------------------------

    def on_ping(self, peer: NodeId, ping: Ping) -> list[DetectorEffect]:
        return [SendTo(peer=peer, message=Pong(number=ping.number))]

    def on_pong(self, peer: NodeId, pong: Pong, now: Instant) -> list[DetectorEffect]:
        link = self._links.get(peer)
        if link is not None and link.answered(pong.number, now.mono_s) and self.health.better():
            self._look_again()
        return []

    def on_probe_asked(self, peer: NodeId, asked: ProbeAsked, now: Instant) -> list[DetectorEffect]:
        """Tries to reach a member for a peer; says no where it can't within a second."""
        subject = asked.subject
        if subject == self.me:
            return [SendTo(peer=peer, message=_answer(asked, reached=True))]
        if self._favours.full:
            self.counters.add(Counter.HELP_REFUSED)
        if self._favours.full or self.opinion(subject).state is State.DEAD:
            return [SendTo(peer=peer, message=_answer(asked, reached=False))]
        self.counters.add(Counter.HELP_GIVEN)
        self._favours.begin(peer, asked, now)
        link = self._links.get(subject)
        return [self._ping(subject, link, now)] if link is not None else [DialFor(subject=subject)]

    def on_probe_answered(self, peer: NodeId, answer: ProbeAnswered, now: Instant) -> list[DetectorEffect]:
        subject = answer.subject
        if not self._doubts.answered(subject, peer, answer.number):
            return []
        if answer.reached:
            self._doubts.settle(subject, now)
            return self._vouched(subject, peer, now)
        self.counters.add(Counter.NACKS_IN)
        self.health.better()
        return self._suspect(subject, now) if self._doubts.all_answered(subject) else []

    # --- suspicions -----------------------------------------------------------------------------------------

    def on_suspicions(
        self, subject: NodeId, seen: Sequence[SuspicionSeen], now: Instant
    ) -> list[DetectorEffect]:
        """Takes all that is said now of the record that a member shows; nothing: it is void."""
        if subject == self.me:
            if not seen:
                return []
            self.health.worse(now.mono_s)
            return [Refute()]
        entitled = [one for one in seen if self.rings.entitled(one.observer, subject)]
        self.counters.add(Counter.SUSPICIONS_REFUSED, len(seen) - len(entitled))
        if not entitled:
            return self._close_case(subject, now)
        case = self._cases.get(subject)
        if case is None:
            case = self._cases[subject] = self._open[subject] = Case(now.mono_s)
        before = case.observers
        case.update(entitled)
        if case.observers == before:
            return []
        self.counters.add(Counter.SUSPICIONS_COUNTED, len(set(case.observers) - set(before)))
        link = self._links.get(subject)
        if link is None:
            return self._judge(subject, now)
        effects: list[DetectorEffect] = [] if link.awaited else [self._ping(subject, link, now)]
        return [*effects, *self._tell(subject, link, now)]

    def on_lag(self, lag_s: float, now: Instant) -> list[DetectorEffect]:
        """This node itself was late: whatever it awaits may be among what it has not read yet."""
        if not self.health.on_lag(lag_s, now.mono_s):
            return []
        for link in self._links.values():
            link.ping_at_s = 0.0
            link.heard_at_s = max(link.heard_at_s, now.mono_s - PING_AFTER_LOWER_S)
        self._look_again()
        self._doubts.postpone(lag_s)
        for case in self._open.values():
            case.opened_at_s += lag_s
            case.dead_at_s += lag_s
        return []

    def forget(self, node: NodeId) -> list[DetectorEffect]:
        """The member is in no more."""
        self._drop_case(node)
        self._opinions.drop(node)
        self._doubts.drop(node)
        return []

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> list[DetectorEffect]:
        late_s = now.mono_s - self._asked_s if self._asked_s is not None else 0.0
        self._asked_s = None
        effects = self.on_lag(late_s, now) if late_s > 0 else []
        if now.mono_s >= self._look_at_s:
            for peer, link in list(self._links.items()):
                if now.mono_s >= self._probe_at(peer, link):
                    effects += self._probe(peer, link, now)
            self._look_again()
        for node in self._doubts.due(now):
            effects += self._run_out(node, now)
        for node, case in list(self._open.items()):
            if node not in self._links and now.mono_s >= case.dead_at_s:
                effects += self._judge(node, now)
        effects += _sends(self._favours.due(now))
        return effects

    def _look_again(self) -> None:
        self._look_at_s = min((self._probe_at(*one) for one in self._links.items()), default=0.0)

    # --- pings ----------------------------------------------------------------------------------------------

    def _probe_at(self, peer: NodeId, link: Pulse) -> float:
        return link.look_at_s(lower=self.me < peer, factor=self.health.factor)

    def _probe(self, peer: NodeId, link: Pulse, now: Instant) -> list[DetectorEffect]:
        if not link.awaited:
            return [self._ping(peer, link, now)]
        self.counters.add(Counter.PINGS_FAILED)
        effects: list[DetectorEffect] = [self._ping(peer, link, now)]
        if link.in_doubt:
            return effects
        link.in_doubt = True
        self._doubts.begin(peer, "a ping went unanswered", now)
        case = self._cases.get(peer)
        if case is not None and len(case.observers) >= QUORUM_MAX:
            # A quorum does not reach it either: helpers would tell nothing new, and it is not this node.
            return [*effects, *self._suspect(peer, now)]
        self.health.worse(now.mono_s)
        return [*effects, *self._ask_helpers(peer, now)]

    def _ping(self, peer: NodeId, link: Pulse, now: Instant) -> SendTo:
        link.ping_number += 1
        link.ping_at_s = now.mono_s
        self._look_at_s = min(self._look_at_s, self._probe_at(peer, link))
        self.counters.add(Counter.PINGS_SENT)
        return SendTo(peer=peer, message=Ping(number=link.ping_number))

    def _proved(self, peer: NodeId, now: Instant, because: str) -> list[DetectorEffect]:
        """A peer lives: doubts end, its opinion is the usual one, and it hears what is said of it."""
        link = self._links[peer]
        link.in_doubt = False
        self._doubts.drop(peer)
        effects = _sends(self._favours.answer(peer, reached=True))
        if self._opinions.drop(peer):
            effects.append(OpinionChanged(peer=peer, opinion=self.opinion(peer)))
        return [*effects, *(self._tell(peer, link, now) if peer in self._cases else ())]

    def _tell(self, peer: NodeId, link: Pulse, now: Instant) -> list[DetectorEffect]:
        return [Tell(subject=peer)] if link.may_tell(now.mono_s) else []

    # --- doubts ---------------------------------------------------------------------------------------------

    def _ask_helpers(self, subject: NodeId, now: Instant) -> list[DetectorEffect]:
        candidates = [one for one in sorted(self._links) if one != subject and not self._links[one].in_doubt]
        number, helpers = self._doubts.ask(
            subject, candidates, self.dice, ask_deadline(now, self.health.factor)
        )
        if not helpers:
            return self._suspect(subject, now)
        self.counters.add(Counter.HELP_ASKED, len(helpers))
        asked = ProbeAsked(number=number, subject=subject)
        return [SendTo(peer=helper, message=asked) for helper in helpers]

    def _run_out(self, subject: NodeId, now: Instant) -> list[DetectorEffect]:
        """What a doubt waited for did not come: the redial, or helpers' answers."""
        silent = self._doubts.silent_helpers(subject)
        if silent is None:
            return self._ask_helpers(subject, now)
        if silent:
            self.counters.add(Counter.NACKS_MISSED, silent)
            self.health.worse(now.mono_s)
        return self._suspect(subject, now)

    def _suspect(self, subject: NodeId, now: Instant) -> list[DetectorEffect]:
        because, closed = self._doubts.give_up(subject)
        effects: list[DetectorEffect] = []
        if subject in self._links:
            effects.append(LinkIsSilent(peer=subject))
        if not self.rings.entitled(self.me, subject):
            return effects
        case = self._cases.get(subject)
        if case is not None and len(case.observers) >= QUORUM_MAX:
            return effects  # Enough have said so; one more would only cost the mesh its spreading.
        if self.opinion(subject).state is State.ALIVE or case is None:
            effects += self._set(subject, State.SUSPECT, now, because)
        return [*effects, Suspect(subject=subject, closed=closed)]

    def _vouched(self, subject: NodeId, helper: NodeId, now: Instant) -> list[DetectorEffect]:
        """A helper reached it: alive, whatever this node's own link to it is like."""
        effects: list[DetectorEffect] = []
        link = self._links.get(subject)
        if link is not None and link.in_doubt:
            effects.append(LinkIsSilent(peer=subject))
        if subject in self._cases:
            return effects
        return [*effects, *self._set(subject, State.ALIVE, now, "another member reaches it", voucher=helper)]

    # --- opinions -------------------------------------------------------------------------------------------

    def _needed(self, subject: NodeId) -> int:
        alive = [
            one for one in self.rings.observers(subject) if one != subject and self._opinions.is_alive(one)
        ]
        return needed_observers(len(alive))

    def _judge(self, subject: NodeId, now: Instant) -> list[DetectorEffect]:
        case = self._cases[subject]
        if subject in self._open:
            case.weigh(self._needed(subject), self.health.factor)
            if now.mono_s >= case.dead_at_s:
                del self._open[subject]
        state = State.SUSPECT if subject in self._open else State.DEAD
        because = "its host refuses links" if case.closed else "it does not answer"
        return self._set(subject, state, now, because, observers=case.observers)

    def _close_case(self, subject: NodeId, now: Instant) -> list[DetectorEffect]:
        """What was said is void: the member showed something newer, so it lived."""
        if not self._drop_case(subject):
            return []
        self._doubts.settle(subject, now)
        if not self._opinions.drop(subject):
            return []
        return [OpinionChanged(peer=subject, opinion=self.opinion(subject))]

    def _drop_case(self, subject: NodeId) -> bool:
        self._open.pop(subject, None)
        return self._cases.pop(subject, None) is not None

    def _set(
        self,
        subject: NodeId,
        state: State,
        now: Instant,
        because: str,
        *,
        voucher: NodeId | None = None,
        observers: tuple[NodeId, ...] = (),
    ) -> list[DetectorEffect]:
        before = self.opinion(subject)
        opinion = Opinion(
            state=state,
            since_unix_s=before.since_unix_s if before.state is state else now.unix_s,
            because=because,
            voucher=voucher,
            observers=observers,
        )
        if not self._opinions.hold(subject, before, opinion):
            return []
        return [OpinionChanged(peer=subject, opinion=opinion)]


def _answer(asked: ProbeAsked, *, reached: bool) -> ProbeAnswered:
    return ProbeAnswered(number=asked.number, subject=asked.subject, reached=reached)


def _sends(answers: Iterable[tuple[NodeId, ProbeAnswered]]) -> list[DetectorEffect]:
    return [SendTo(peer=peer, message=answer) for peer, answer in answers]

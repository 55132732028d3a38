"""Hub probes: what a member finds out about its hub by asking through it.

In quiet times one probe a second goes to a member right behind the hub: its answer shows that the hub's
tunnel and its forwarding work. One that is lost begins an *exam*: for a few seconds the hub, those behind it
and tunnels of this node's own are all asked. Then

- *forwarding* is dead where nothing came back from behind the hub by one family of addresses, while the hub,
  or the other family, answered;
- the *tunnel* is dead where nothing came back from the hub either, and another tunnel answered;
- nothing is known where nothing at all answered: that is this node's own network.

Only silence of members that are known to answer counts (``MemberView.answers``): a firewall may drop probes
and pass all else. How long a report stands is the business of ``report_book``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import AskEcho
from meshpeer.core.ids import NodeId
from meshpeer.core.topology.hub_aims import IPV4, IPV6, NO_AIMS, Aims, Target
from meshpeer.core.topology.hub_reports import FORWARDING, TUNNEL
from meshpeer.core.topology.report_book import STEADY_S, ReportBook

PROBE_EVERY_S = 1.0
NEW_TUNNEL_S = 15.0
"""How long a tunnel may take to shake hands, before its silence is looked into."""
FIND_OUT_EVERY_S = 5.0
"""How often somebody is asked of whom it is not known yet whether it answers."""
REPORTED_EVERY_S = 2.0
"""How often a hub that is reported, and is the home no more, is asked."""
LOST_AFTER_S, LOST_AFTER_MAX_S = 1.0, 3.0
"""How long a probe may be on its way before it is taken for lost: twice as long as the last one, within
this."""
EXAM_S = 2.5
EXAM_EVERY_S = 0.5
EXAM_AGAIN_S = 5.0
"""Pause between two exams of a hub that fails, or of a network that answers nothing."""
ASKED_MAX = 256
"""Probes on their way."""
FORGOTTEN_AFTER_S = 10.0
NUMBER_BYTES, SECRET_BYTES = 8, 32
LATE_S = 0.5
"""A machine that is called so much too late was not let run: what it waits for may lie unread."""


@dataclass(slots=True)
class _Asked:
    node: NodeId
    family: int
    at_s: float
    steady: bool
    """Its loss begins an exam."""


@dataclass(slots=True)
class _Exam:
    since_s: float
    next_at_s: float


@dataclass(slots=True)
class HubProbes:
    """Of one node. Sans-IO: ``tick`` returns probes, ``on_answer`` takes what comes back."""

    entropy: Callable[[int], bytes]
    book: ReportBook = field(default_factory=ReportBook)
    answers: int = 0
    """The families by which members' probes have reached this node."""
    _aims: Aims = NO_AIMS
    _steady: tuple[tuple[Target, int], ...] = ()
    """What is probed in turn while all is well."""
    _unproven: tuple[tuple[Target, int], ...] = ()
    """Of whom is to be found out for the first time whether it answers."""
    _asked: dict[int, _Asked] = field(default_factory=dict)
    _heard_at_s: dict[tuple[NodeId, int], float] = field(default_factory=dict)
    _exam: _Exam | None = None
    _exam_from_s: float = 0.0
    """No exam begins before."""
    _probe_at_s: float = 0.0
    _probes: int = 0
    _find_out_at_s: float = 0.0
    _finds: int = 0
    _lost_after_s: float = LOST_AFTER_S
    _mute: frozenset[NodeId] = frozenset()
    """Who was silent behind two hubs, alone: no proof against a third until it answers."""
    _secret: bytes = field(default=b"", repr=False)
    _count: int = 0
    _expected_s: float | None = None
    """The deadline last returned."""

    def next_deadline(self) -> Deadline | None:
        lost = min((one.at_s for one in self._asked.values() if one.steady), default=None)
        waits = None
        if self._exam is not None:
            waits = Deadline(self._exam.next_at_s, "ask the hub and around it")
        elif lost is not None:
            waits = Deadline(max(lost + self._lost_after_s, self._exam_from_s), "a probe is lost")
        deadline = earliest(
            waits,
            Deadline(self._probe_at_s, "probe what is behind the hub") if self._steady else None,
            Deadline(self._find_out_at_s, "find out who answers") if self._questions() else None,
            self.book.next_deadline(self._home),
        )
        self._expected_s = deadline.at_s if deadline else None
        return deadline

    # --- events ---------------------------------------------------------------------------------------------

    def update(self, aims: Aims, now: Instant) -> None:
        """Takes what the plan says now."""
        before, groups = self._home, self._groups()
        self._aims, self._steady, self._unproven = aims, _steady(aims), _unproven(aims)
        if self._home != before:
            # What was lost behind another hub tells nothing about this one.
            self._asked.clear()
            self._exam, self._exam_from_s = None, now.mono_s
            self._probe_at_s = now.mono_s + (PROBE_EVERY_S if aims.home_is_up else NEW_TUNNEL_S)
            self.book.home_changed()
        elif self._exam is not None and self._groups() != groups:
            # Whoever was not asked from the start would be taken for silent.
            self._exam = _Exam(now.mono_s, now.mono_s)
        if aims.home_is_up:
            self._probe_at_s = min(self._probe_at_s, now.mono_s + PROBE_EVERY_S)
        self.book.follow(aims.members)
        self._heard_at_s = {key: at_s for key, at_s in self._heard_at_s.items() if key[0] in aims.members}

    def on_asked(self, source: str) -> None:
        """A probe came out of a tunnel."""
        family = IPV6 if ":" in source else IPV4
        if not self.answers & family and any(
            source in (one.ipv4, one.ipv6) for one in self._aims.members.values()
        ):
            self.answers |= family

    def on_answer(self, number: int, source: str, now: Instant) -> None:
        """A probe came back: from where it was sent to, or it is none."""
        asked = self._asked.get(number)
        member = self._aims.members.get(asked.node) if asked else None
        if asked is None or member is None or source not in (member.ipv4, member.ipv6):
            return
        del self._asked[number]
        self._heard_at_s[asked.node, asked.family] = now.mono_s
        self._mute -= {asked.node}
        self._lost_after_s = min(LOST_AFTER_MAX_S, max(LOST_AFTER_S, 2 * (now.mono_s - asked.at_s)))
        if asked.node in self.book.nodes and asked.node != self._home:
            self.book.worked(asked.node, now)
        home = self._aims.home
        if home is not None and home.node in self.book.nodes and self._passes(home, now.mono_s - STEADY_S):
            self.book.worked(home.node, now)

    def on_lag(self, now: Instant) -> None:
        """This node was not let run: answers may lie unread."""
        self._asked.clear()
        if self._exam is not None:
            self._exam = _Exam(now.mono_s, now.mono_s)

    def tick(self, now: Instant) -> list[AskEcho]:
        """Returns the probes that are due."""
        if self._expected_s is not None and now.mono_s >= self._expected_s + LATE_S:
            self.on_lag(now)
        self._expected_s = None
        self.book.expire(self._home, now)
        probes: list[AskEcho] = []
        if self._exam is None and self._is_one_lost(now):
            self._exam = _Exam(now.mono_s, now.mono_s)
        if self._exam is not None and now.mono_s >= self._exam.next_at_s:
            probes += self._examine(self._exam, now)
        if self._steady and now.mono_s >= self._probe_at_s:
            self._probe_at_s = now.mono_s + PROBE_EVERY_S
            self._probes += 1
            probes.append(self._ask(*self._steady[self._probes % len(self._steady)], now, steady=True))
        questions = self._questions()
        if questions and now.mono_s >= self._find_out_at_s:
            lost = any(node != self._home for node in self.book.nodes)
            self._find_out_at_s = now.mono_s + (REPORTED_EVERY_S if lost else FIND_OUT_EVERY_S)
            self._finds += 1
            probes.append(self._ask(*questions[self._finds % len(questions)], now))
        return probes

    # --- whom to ask ----------------------------------------------------------------------------------------

    @property
    def _home(self) -> NodeId | None:
        return self._aims.home.node if self._aims.home else None

    def _questions(self) -> Sequence[tuple[Target, int]]:
        """Returns of whom is to be found out whether it answers: for the first time, or again."""
        if not self.book.nodes:
            return self._unproven
        members = self._aims.members
        lost = [members[node] for node in self.book.nodes if node != self._home and node in members]
        return [(one, family) for one in map(Target.of, lost) for family in one.families] or self._unproven

    def _ask(self, target: Target, family: int, now: Instant, *, steady: bool = False) -> AskEcho:
        while len(self._asked) >= ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        self._secret = self._secret or self.entropy(SECRET_BYTES)
        self._count += 1
        keyed = hashlib.blake2b(self._count.to_bytes(8), key=self._secret, digest_size=NUMBER_BYTES)
        number = int.from_bytes(keyed.digest())
        self._asked[number] = _Asked(target.node, family, now.mono_s, steady)
        return AskEcho(number=number, address=target.address(family))

    # --- exams ----------------------------------------------------------------------------------------------

    def _is_one_lost(self, now: Instant) -> bool:
        """Says whether an exam is due; forgets what will not come back."""
        lost = False
        for number, one in list(self._asked.items()):
            if now.mono_s >= one.at_s + FORGOTTEN_AFTER_S:
                del self._asked[number]
            elif one.steady and now.mono_s >= max(one.at_s + self._lost_after_s, self._exam_from_s):
                one.steady = False
                lost = True
        return lost

    def _examine(self, exam: _Exam, now: Instant) -> list[AskEcho]:
        """Asks all around once more, or says how the exam ended."""
        home = self._aims.home
        if home is None or self._passes(home, exam.since_s):
            self._end_exam(now)
            return []
        if now.mono_s >= exam.since_s + EXAM_S:
            self._judge(home, exam.since_s, now)
            self._end_exam(now, EXAM_AGAIN_S)
            return []
        exam.next_at_s = now.mono_s + EXAM_EVERY_S
        around = (home, *self._aims.far, *self._aims.near)
        return [self._ask(one, family, now) for one in around for family in one.families]

    def _end_exam(self, now: Instant, pause_s: float = 0.0) -> None:
        self._exam, self._exam_from_s = None, now.mono_s + pause_s
        for one in self._asked.values():
            one.steady = False

    def _judge(self, home: Target, since_s: float, now: Instant) -> None:
        """Reports the home where that is what failed."""
        hub, far = self._aims.members[home.node], self._aims.far
        if self._heard([home, *far], since_s):
            silent, _ = next(group for group in self._groups() if not self._heard_by(*group, since_s))
            nodes = frozenset(one.node for one in silent)
            if self.book.take_back(nodes, home.node):
                self._mute = nodes
            if nodes != self._mute:
                self.book.add(hub, FORWARDING, nodes, now)
        elif home.proven and self._heard(self._aims.near, since_s):
            self.book.add(hub, TUNNEL, frozenset(), now)

    def _groups(self) -> list[tuple[list[Target], int]]:
        """Returns who must answer from behind the hub, by family: one of each."""
        groups = [
            ([one for one in self._aims.far if family in one.proven], family) for family in (IPV6, IPV4)
        ]
        return [group for group in groups if group[0]]

    def _passes(self, home: Target, since_s: float) -> bool:
        groups = self._groups()
        return (
            all(self._heard_by(*group, since_s) for group in groups)
            if groups
            else self._heard([home], since_s)
        )

    def _heard_by(self, targets: list[Target], family: int, since_s: float) -> bool:
        return any(self._heard_at_s.get((one.node, family), float("-inf")) >= since_s for one in targets)

    def _heard(self, targets: Iterable[Target], since_s: float) -> bool:
        return any(self._heard_by([one], family, since_s) for one in targets for family in (IPV4, IPV6))


def _steady(aims: Aims) -> tuple[tuple[Target, int], ...]:
    far = [(one, family) for one in aims.far for family in one.proven]
    home = aims.home
    return tuple(far or ([(home, family) for family in home.proven] if home else []))


def _unproven(aims: Aims) -> tuple[tuple[Target, int], ...]:
    behind = [aims.home, *aims.far] if aims.home and aims.home_is_up else []
    around = [*behind, *aims.near[:1], *aims.unproven]
    return tuple((one, family) for one in around for family in one.families if family not in one.proven)

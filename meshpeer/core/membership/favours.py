"""Favours: probes on behalf of others (SWIM's ping-req, as the helper sees it), answered within a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.messages import ProbeAnswered, ProbeAsked

HELD_MAX_S = 1.0
"""How long a helper waits for a sign of life before it says no."""
HELP_MAX = 64
"""Probes on behalf of others that are open at once."""

Answers = list[tuple[NodeId, ProbeAnswered]]


@dataclass(slots=True)
class _Favour:
    asker: NodeId
    number: int
    until_s: float


@dataclass(slots=True)
class Favours:
    """Open probes, by whom they are about."""

    _open: dict[NodeId, list[_Favour]] = field(default_factory=dict)

    def __contains__(self, subject: NodeId) -> bool:
        return subject in self._open

    @property
    def full(self) -> bool:
        return sum(map(len, self._open.values())) >= HELP_MAX

    def begin(self, asker: NodeId, asked: ProbeAsked, now: Instant) -> None:
        self._open.setdefault(asked.subject, []).append(_Favour(asker, asked.number, now.mono_s + HELD_MAX_S))

    def answer(self, subject: NodeId, *, reached: bool) -> Answers:
        """Ends all probes of a member."""
        return [
            (one.asker, ProbeAnswered(number=one.number, subject=subject, reached=reached))
            for one in self._open.pop(subject, ())
        ]

    def due(self, now: Instant) -> Answers:
        """Ends those that waited in vain."""
        answers: Answers = []
        for subject in list(self._open):
            for one in [one for one in self._open[subject] if now.mono_s >= one.until_s]:
                self._open[subject].remove(one)
                answers.append((one.asker, ProbeAnswered(number=one.number, subject=subject, reached=False)))
            if not self._open[subject]:
                del self._open[subject]
        return answers

    def ends_s(self) -> Iterator[float]:
        return (one.until_s for favours in self._open.values() for one in favours)

"""Who holds whose current record: what convergence means, counted as it happens.

A subject's record is current from the moment at which the subject itself hands it to its journal; a host
holds it
from when it hands it to its own. Both are seen in the effects of a step, so nothing is ever compared: a
change
costs O(hosts) once, and each host that hears of it O(1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from meshpeer.sim.host import Host

GRAIN_S = 0.01
"""The finest step of the curve of who knows everything."""


@dataclass(slots=True)
class _Subject:
    """One member's current record, and who lacks it (by host index)."""

    record: bytes = b""
    since_s: float = 0.0
    lacking: bytearray | None = None
    missing: int = 0
    """How many running hosts lack it."""
    asked: bool = False
    """Whether a scenario waits for this change."""


@dataclass(slots=True, kw_only=True)
class Spread:
    """How long one change took to reach every host."""

    subject: str
    at_s: float
    took_s: float | None = None


@dataclass(slots=True)
class Knowledge:
    """Counts for every running host whose current records it lacks."""

    spreads: list[Spread] = field(default_factory=list)
    """Changes that somebody asked for."""
    curve: list[tuple[float, float]] = field(default_factory=list)
    """Virtual time, and the share of running hosts that hold everything."""
    _subjects: dict[int, _Subject] = field(default_factory=dict)
    _lacks: dict[int, int] = field(default_factory=dict)
    """Of running hosts, how many current records each lacks."""
    _mute: int = 0
    """Running hosts that have not published yet."""
    _whole: int = 0
    _first_whole: dict[int, float] = field(default_factory=dict)
    """By host index: when it first held everything since ``mark``."""
    _pending: dict[int, Spread] = field(default_factory=dict)

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether every running host holds the current record of every member."""
        return not self._mute and self._whole == len(self._lacks)

    @property
    def share(self) -> float:
        return self._whole / len(self._lacks) if self._lacks else 1.0

    def times(self, since_s: float) -> list[float]:
        """Returns how long after a moment each running host first held everything, since ``mark``; sorted.

        What changes later (a refutation, a new certificate) is no part of a boot: nobody waits for
        them."""
        return sorted(max(0.0, at - since_s) for at in self._first_whole.values())

    def lacking(self) -> list[int]:
        """Returns the running hosts that lack something."""
        return [index for index, lacks in self._lacks.items() if lacks]

    # --- what happens ---------------------------------------------------------------------------------------

    def mark(self, now_s: float) -> None:
        """The boot is over: from now on it counts when a host comes to hold everything."""
        self._first_whole = {index: now_s for index, lacks in self._lacks.items() if not lacks}

    def started(self, host: Host, held: Iterable[bytes], now_s: float) -> None:
        """A host runs; ``held`` are the records on its disk."""
        index, rows = host.index, set(held)
        own = self._subjects.setdefault(index, _Subject())
        self._mute += not own.record
        lacks = 0
        for number, subject in self._subjects.items():
            if subject.record and number != index and subject.record not in rows:
                self._mark(subject, index)
                lacks += 1
        self._lacks[index] = lacks
        if not lacks:
            self._now_whole(index, now_s)
        self._note(now_s)

    def started_whole(self, hosts: list[Host], records: dict[int, bytes], now_s: float) -> None:
        """Hosts run that hold everything of each other."""
        for host in hosts:
            self._subjects[host.index] = _Subject(record=records[host.index], since_s=now_s)
            self._lacks[host.index] = 0
            self._now_whole(host.index, now_s)
        self._note(now_s)

    def stopped(self, host: Host, now_s: float) -> None:
        """A host runs no more; what it published last counts on."""
        lacks = self._lacks.pop(host.index, None)
        if lacks is None:
            return
        own = self._subjects.get(host.index)
        self._mute -= own is not None and not own.record
        self._first_whole.pop(host.index, None)
        self._whole -= not lacks
        for number, subject in self._subjects.items():
            if (
                subject.lacking is not None
                and host.index < len(subject.lacking)
                and subject.lacking[host.index]
            ):
                self._clear(subject, number, host.index, now_s)
        self._note(now_s)

    def forgotten(self, host: Host, now_s: float) -> None:
        """A member is no member any more (it left, or is one that lies): nobody must know of it."""
        subject = self._subjects.pop(host.index, None)
        self._pending.pop(host.index, None)
        if subject is None or subject.lacking is None:
            return
        for index, lacks in enumerate(subject.lacking):
            if lacks and index in self._lacks:
                self._lacks[index] -= 1
                if not self._lacks[index]:
                    self._now_whole(index, now_s)
        self._note(now_s)

    def asked(self, host: Host, now_s: float) -> None:
        """The next record of this host is a change whose spread is measured."""
        spread = Spread(subject=host.name, at_s=now_s)
        self.spreads.append(spread)
        self._pending[host.index] = spread

    def published(self, host: Host, record: bytes, now_s: float) -> None:
        """A host hands a new record of its own to its journal: everybody else lacks it."""
        subject = self._subjects.get(host.index)
        if subject is None or subject.record == record:
            return
        self._mute -= not subject.record
        before = subject.lacking if subject.record else bytearray()
        subject.record, subject.since_s = record, now_s
        subject.lacking, subject.missing = bytearray(max(self._lacks, default=0) + 1), 0
        for index, lacks in self._lacks.items():
            if index == host.index:
                continue
            subject.lacking[index] = 1
            subject.missing += 1
            if before is None or index >= len(before) or not before[index]:
                if not lacks:
                    self._whole -= 1
                self._lacks[index] = lacks + 1
        if not subject.missing:
            subject.lacking = None
        self._note(now_s)

    def learned(self, host: Host, subject: Host, record: bytes, now_s: float) -> None:
        """A host hands another one's record to its journal."""
        known = self._subjects.get(subject.index)
        if known is None or known.record != record or known.lacking is None:
            return
        index = host.index
        if index < len(known.lacking) and known.lacking[index] and index in self._lacks:
            self._lacks[index] -= 1
            if not self._lacks[index]:
                self._now_whole(index, now_s)
            self._clear(known, subject.index, index, now_s)
            self._note(now_s)

    # --- counting -------------------------------------------------------------------------------------------

    def _mark(self, subject: _Subject, index: int) -> None:
        lacking = subject.lacking if subject.lacking is not None else bytearray()
        if index >= len(lacking):
            lacking.extend(bytes(index + 1 - len(lacking)))
        lacking[index] = 1
        subject.lacking = lacking
        subject.missing += 1

    def _clear(self, subject: _Subject, number: int, index: int, now_s: float) -> None:
        assert subject.lacking is not None
        subject.lacking[index] = 0
        subject.missing -= 1
        if not subject.missing:
            subject.lacking = None
            spread = self._pending.get(number)
            if spread is not None and subject.since_s >= spread.at_s:
                spread.took_s = now_s - spread.at_s
                del self._pending[number]

    def _now_whole(self, index: int, now_s: float) -> None:
        self._whole += 1
        self._first_whole.setdefault(index, now_s)

    def _note(self, now_s: float) -> None:
        point = (now_s, self.share)
        if self.curve and now_s - self.curve[-1][0] < GRAIN_S and len(self.curve) > 1:
            self.curve[-1] = (self.curve[-1][0], point[1])
        else:
            self.curve.append(point)

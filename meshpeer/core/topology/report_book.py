"""The reports that one node stands by, and how long: so that a hub which fails now and then does not flap.

While a reported hub is, or is again, the one that carries this node's traffic, it has to do its work for half
a minute. Once it is not, its tunnel is asked on, and must answer steadily for a minute. What it forwards
nobody sees any more: that report ends after half an hour. Each time that a hub is reported anew, these times
double. A hub that starts anew is judged anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.ids import NodeId
from meshpeer.core.records.bounds import HUBS_FAILED_MAX
from meshpeer.core.records.kinds import HubReport
from meshpeer.core.topology.hub_reports import FORWARDING
from meshpeer.core.topology.view import MemberView

HOME_HOLD_S = 30.0
TUNNEL_HOLD_S = 60.0
FORWARDING_HOLD_S = 1_800.0
DOUBLINGS_MAX = 6
STEADY_S = 6.0
"""Answers further apart than this are not steady."""
STRIKES_REMEMBERED = 64


@dataclass(slots=True)
class _Report:
    kind: str
    incarnation: int
    since_s: float
    silent: frozenset[NodeId] = frozenset()
    """Who did not answer behind the hub."""
    good_since_s: float | None = None
    """Since when it has done its work steadily."""
    good_at_s: float = 0.0


@dataclass(slots=True)
class ReportBook:
    """Of one node."""

    _reports: dict[NodeId, _Report] = field(default_factory=dict)
    _strikes: dict[NodeId, tuple[int, int]] = field(default_factory=dict)
    """How often each hub was reported, in which run of it."""

    @property
    def shown(self) -> tuple[HubReport, ...]:
        """Returns what the record says, in node id order."""
        return tuple(
            HubReport(node, one.incarnation, one.kind) for node, one in sorted(self._reports.items())
        )

    @property
    def nodes(self) -> Collection[NodeId]:
        return self._reports.keys()

    def next_deadline(self, home: NodeId | None) -> Deadline | None:
        return earliest(
            *(
                Deadline(ends_s, "a report ends")
                for node, one in self._reports.items()
                if (ends_s := self._ends_s(node, one, home)) is not None
            )
        )

    def resume(self, reports: Collection[HubReport], now: Instant) -> None:
        """Stands by what this node said in its last run: that it starts anew proves nothing about others."""
        for one in reports:
            self._reports[one.node] = _Report(one.kind, one.incarnation, now.mono_s)

    def add(self, hub: MemberView, kind: str, silent: frozenset[NodeId], now: Instant) -> None:
        """Reports a hub, or goes on to."""
        report = self._reports.get(hub.node)
        if report is not None and report.kind == kind:
            report.silent, report.good_since_s = silent, None
            return
        if report is None:
            incarnation, times = self._strikes.pop(hub.node, (hub.incarnation, 0))
            if len(self._strikes) >= STRIKES_REMEMBERED:
                del self._strikes[next(iter(self._strikes))]
            self._strikes[hub.node] = (hub.incarnation, times + 1 if incarnation == hub.incarnation else 1)
            while len(self._reports) >= HUBS_FAILED_MAX:
                del self._reports[min(self._reports, key=lambda node: self._reports[node].since_s)]
        self._reports[hub.node] = _Report(kind, hub.incarnation, now.mono_s, silent)

    def take_back(self, silent: frozenset[NodeId], hub: NodeId) -> bool:
        """Ends the reports of other hubs that rest on the silence of the same one member: silent behind two
        hubs, it is itself what is silent. Says whether there were any."""
        same = [
            node
            for node, one in self._reports.items()
            if node != hub and len(silent) == 1 and one.silent == silent
        ]
        for node in same:
            del self._reports[node]
        return bool(same)

    def worked(self, hub: NodeId, now: Instant) -> None:
        """A reported hub did its work just now."""
        report = self._reports.get(hub)
        if report is None:
            return
        if report.good_since_s is None or now.mono_s > report.good_at_s + STEADY_S:
            report.good_since_s = now.mono_s
        report.good_at_s = now.mono_s

    def home_changed(self) -> None:
        """What counts as work is something else now."""
        for report in self._reports.values():
            report.good_since_s = None

    def follow(self, members: Mapping[NodeId, MemberView]) -> None:
        """Drops what is void: of hubs that left or started anew, and what rests on members that are gone;
        all of it where no hub carries anything, and so nobody is to be probed."""
        for node, report in list(self._reports.items()):
            member = members.get(node)
            gone = report.silent and all(one not in members or members[one].doubted for one in report.silent)
            if member is None or member.incarnation > report.incarnation or gone:
                del self._reports[node]

    def expire(self, home: NodeId | None, now: Instant) -> None:
        """Ends the reports that have stood long enough."""
        for node, report in list(self._reports.items()):
            ends_s = self._ends_s(node, report, home)
            if ends_s is None or now.mono_s < ends_s:
                continue
            if report.good_since_s is not None and now.mono_s > report.good_at_s + STEADY_S:
                report.good_since_s = None
            else:
                del self._reports[node]

    def _ends_s(self, node: NodeId, report: _Report, home: NodeId | None) -> float | None:
        """Returns when a report ends if all stays as it is now; None where it does not."""
        doublings = min(self._strikes.get(node, (0, 1))[1] - 1, DOUBLINGS_MAX)
        if report.kind == FORWARDING and node != home:
            return report.since_s + FORWARDING_HOLD_S * (1 << doublings)
        if report.good_since_s is None:
            return None
        hold_s = HOME_HOLD_S if node == home else TUNNEL_HOLD_S
        return report.good_since_s + hold_s * (1 << doublings)

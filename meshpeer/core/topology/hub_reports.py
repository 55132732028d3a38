"""Reports: members' signed word that a hub carries nothing for them, and when it costs the hub its place.

A report counts for the run of the hub that it names, and only from a member that depends on that hub: that
has it for its home, or would have it if the one before were lost. Half of those that depend on it and one
more have to say so, three at most. So nobody deposes the hubs of a large cell alone; in a small one a liar
can, which gives it nothing that ``hub = "prefer"`` in its own record does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from meshpeer.core.ids import NodeId
from meshpeer.core.records.bounds import HUBS_FAILED_MAX
from meshpeer.core.topology.view import MemberView

TUNNEL, FORWARDING = "tunnel", "forwarding"
QUORUM_MAX = 3

Reporters = Mapping[NodeId, Set[NodeId]]
"""Who reports each hub."""


def reporters_of(members: Iterable[MemberView], hubs: Iterable[MemberView]) -> Reporters:
    """Returns which of the members report which of the hubs, in the run that it is in."""
    runs = {hub.node: hub.incarnation for hub in hubs}
    reporters: dict[NodeId, set[NodeId]] = {}
    for member in members:
        if len(member.reports) >= HUBS_FAILED_MAX:
            # Whoever has as much to say as there is room for says more of itself than of hubs.
            continue
        for report in member.reports:
            if report.node != member.node and runs.get(report.node) == report.incarnation:
                reporters.setdefault(report.node, set()).add(member.node)
    return reporters


def reports_needed(dependents: int) -> int:
    """Returns how many of those that depend on a hub have to report it."""
    return min(QUORUM_MAX, dependents // 2 + 1)

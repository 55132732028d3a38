"""Whom a node probes: its home hub, what lies right behind it, and tunnels that have nothing to do with it.

What lies behind a hub is one hop from it (other regions' hubs; members of its cell): so a probe that comes
back shows that the hub forwards, and of several that are lost the hub is what they have in common. All of it
is read from the plan that is in force.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from meshpeer.core.ids import NodeId
from meshpeer.core.topology.hub_reports import reporters_of
from meshpeer.core.topology.plan import MeshPlan, Routes
from meshpeer.core.topology.view import MemberView

FAR_MAX = 3
"""Members behind the hub that one node probes."""
NEAR_MAX = 3
IPV4, IPV6 = 1, 2
"""Families of addresses, as ``MemberView.answers`` counts them: a firewall may drop one and pass the
other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A member that can be probed."""

    node: NodeId
    ipv4: str
    ipv6: str
    answers: int
    """The families in which its silence says something."""

    @classmethod
    def of(cls, member: MemberView) -> Target:
        return cls(node=member.node, ipv4=member.ipv4, ipv6=member.ipv6, answers=member.answers)

    @property
    def families(self) -> tuple[int, ...]:
        """Returns those that it has an address of."""
        return tuple(one for one in (IPV6, IPV4) if self.address(one))

    @property
    def proven(self) -> tuple[int, ...]:
        """Returns those in which it is known to answer."""
        return tuple(one for one in self.families if self.answers & one)

    def address(self, family: int) -> str:
        return self.ipv6 if family == IPV6 else self.ipv4


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """Whom one node probes."""

    home: Target | None = None
    """The hub that carries this node's traffic."""
    home_is_up: bool = False
    """Its tunnel has shaken hands before."""
    far: tuple[Target, ...] = ()
    """Whose way leads by the home, and is no longer than one more hop. Whether hubs answer is for other hubs
    to find out, which know when their tunnel to them is there."""
    near: tuple[Target, ...] = ()
    """Whose tunnels are this node's own: its answer, where the home's is missing, shows that this node's
    network is up. Those that stand by come first."""
    unproven: tuple[Target, ...] = ()
    """Of whom nobody knows yet whether probes reach them: a hub finds out about other hubs."""
    members: Mapping[NodeId, MemberView]
    addresses: tuple[str, ...] = ()
    """This node's own, to answer on; none where no hub carries anything."""


NO_AIMS = Aims(members={})


def aims_of(routes: Routes, plan: MeshPlan, shaken: Container[NodeId]) -> Aims:
    """Returns whom a node probes under its plan; nobody in a full mesh.

    ``shaken`` are those whose tunnels have shaken hands. A packet into one that has no endpoint yet would
    make it wait for REKEY_TIMEOUT, 5 s (the WireGuard paper, section 6.1)."""
    mine = routes.mine
    if mine is None or not routes.cells:
        return NO_AIMS
    members = {one.node: one for one in (mine, *routes.members)}
    addresses = tuple(one for one in (mine.ipv4, mine.ipv6) if one)
    sound = [one for one in routes.members if not one.doubted]
    hubs = {hub.node for cell in routes.cells.values() for hub in cell.hubs}
    if routes.carries(mine.node):
        others = _drawn(mine.node, [one for one in sound if one.node in hubs and one.node in shaken])
        return Aims(unproven=tuple(map(Target.of, others)), members=members, addresses=addresses)
    home = members[routes.cells[mine.region].home(mine.node).node]
    carriers = {address: peer.node for peer in plan.peers for address in peer.allowed_ips}
    carried_by = {one.node: carriers.get(f"{one.ipv6}/128") for one in sound}
    behind = [
        one
        for one in sound
        if one.node != home.node
        and carried_by[one.node] == home.node
        and (one.answers > 0 if routes.carries(one.node) else routes.home(one) == home.node)
    ]
    reported = reporters_of(members.values(), members.values())
    near = [
        one
        for one in sound
        if carried_by[one.node] == one.node and one.node != home.node and one.node in shaken
    ]
    return Aims(
        home=Target.of(home),
        home_is_up=home.node in shaken,
        far=tuple(map(Target.of, _spread(mine.node, behind, reported))),
        near=tuple(
            map(Target.of, sorted(_drawn(mine.node, near), key=lambda one: one.node not in hubs)[:NEAR_MAX])
        ),
        members=members,
        addresses=addresses,
    )


def _spread(me: NodeId, behind: Iterable[MemberView], reported: Container[NodeId]) -> list[MemberView]:
    """Draws a few: known to answer before others, not reported before reported, of different regions where
    that is possible."""
    drawn = _drawn(me, behind)
    seen: collections.Counter[str] = collections.Counter()
    turns: dict[NodeId, int] = {}
    for one in drawn:
        turns[one.node] = seen[one.region]
        seen[one.region] += 1
    return sorted(drawn, key=lambda one: (not one.answers, one.node in reported, turns[one.node]))[:FAR_MAX]


def _drawn(me: NodeId, members: Iterable[MemberView]) -> list[MemberView]:
    """Returns members in an order of this node's own, so that not all probe the same."""
    return sorted(members, key=lambda one: hashlib.sha256(me + one.node).digest())

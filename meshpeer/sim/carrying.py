"""Links over a member, in the virtual network: which there may be, and which end with a link that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshpeer.core.ids import NodeId
from meshpeer.core.membership.carriers import Over

if TYPE_CHECKING:
    from meshpeer.sim.host import Host
    from meshpeer.sim.network import Lane


def way_over(host: Host, over: Over) -> tuple[Host, Host] | None:
    """Returns carrier and target where links that go straight lead there; None where they don't."""
    carrier = _straight_to(host, over.carrier)
    target = _straight_to(carrier, over.target) if carrier is not None else None
    return (carrier, target) if carrier is not None and target is not None else None


def carried_by(lane: Lane) -> list[Lane]:
    """Returns the sending ends of all links that go over this one."""
    if lane.over is not None:
        return []
    ends = ((lane.host, lane.back.host), (lane.back.host, lane.host))
    mine = [one for host, carrier in ends for one in host.lanes.values() if one.over is carrier]
    return [*mine, *(one.back for one in mine)]


def _straight_to(host: Host, node: NodeId) -> Host | None:
    for lane in host.lanes.values():
        if lane.over is None and lane.back.open and lane.back.host.id == node:
            return lane.back.host
    return None

"""Members and views for tests of plans, and the check that follows packets through all of them."""

from __future__ import annotations

import functools
import random

from topology_packets import check_plans

from meshpeer.core.addressing.ula import ula_address
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.topology.plan import Routes
from meshpeer.core.topology.shape import Shape
from meshpeer.core.topology.view import MemberView, MeshView

MESH = MeshId(bytes(16))


def check(view: MeshView) -> None:
    """Fails unless every pair of the view is connected."""
    shape = Shape(view)
    check_plans(view, {one.node: Routes(shape, one.node).plan() for one in view.members})


@functools.cache
def node(number: int) -> NodeId:
    return NodeId(random.Random(number).randbytes(32))


def member(number: int, **changes: object) -> MemberView:
    fields: dict[str, object] = {
        "node": node(number),
        "name": f"n{number}",
        "region": "",
        "wireguard_key": WireGuardKey(bytes(reversed(node(number)))),
        "ipv4": "",
        "ipv6": str(ula_address(MESH, node(number))),
    }
    return MemberView(**{**fields, **changes})  # type: ignore[arg-type]


def view_of(*members: MemberView) -> MeshView:
    return MeshView(
        subnet="10.10.0.0/16", topology="regional", keepalive_s=25, mtu=1420, members=tuple(members)
    )

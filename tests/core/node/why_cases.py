"""Meshes to explain paths in, and what one node knows of them."""

from __future__ import annotations

import dataclasses
import itertools
import random

from meshpeer.core.addressing.ula import ula_address
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.membership.opinions import Opinion, State
from meshpeer.core.node.looks import Tried, TriedState, TunnelLook
from meshpeer.core.node.why import Explanation, Known, explain
from meshpeer.core.paths.endpoints import Source
from meshpeer.core.topology.plan import MeshPlan, plan_mesh
from meshpeer.core.topology.shape import Shape
from meshpeer.core.topology.view import MemberView, MeshView

MESH = MeshId(bytes(16))
NOW = 1_900_000_000.0
ALIVE = Opinion(state=State.ALIVE, since_unix_s=NOW, because="linked")


def two_regions() -> tuple[MeshView, NodeId, NodeId, tuple[NodeId, ...]]:
    """Returns a mesh, two of its edges, and the path between these: by two hubs."""
    view = view_of(*(member(number, region=("eu", "us")[number % 2]) for number in range(8)))
    for one, other in itertools.permutations(view.members, 2):
        found: Explanation = explain(known(one.node, view), one.node, other.node)
        if len(found.path) == 4:
            return view, one.node, other.node, found.path
    raise AssertionError("no pair of edges")


def known(
    me: NodeId,
    view: MeshView,
    *,
    plan: MeshPlan | None = None,
    topology: str = "",
    works: dict[NodeId, bool] | None = None,
    linked: bool = False,
) -> Known:
    """Returns what a node knows whose tunnels all work, but for those that ``works`` lacks."""
    if topology:
        view = dataclasses.replace(view, topology=topology)
    return Known(
        me=me,
        shape=Shape(view),
        plan=plan or plan_mesh(view, me),
        shown_keys=frozenset(),
        look=lambda who: look_at(who, works=works is None or works.get(who, False)),
        stay=lambda _: None,
        linked=lambda _: linked,
        opinion=lambda _: ALIVE,
        idle_s=180,
        unix_s=NOW,
    )


def look_at(who: NodeId, *, works: bool) -> TunnelLook:
    return TunnelLook(
        node=who,
        installed=True,
        ready=True,
        handshake_unix_s=int(NOW) - 5 if works else 0,
        works=works,
        endpoint="192.0.2.1:51820",
        candidates=(tried(TriedState.WORKING if works else TriedState.GIVEN_UP),),
    )


def tried(state: TriedState) -> Tried:
    return Tried(
        endpoint="192.0.2.1:51820",
        source=Source.NEAR,
        state=state,
        since_unix_s=None if state is TriedState.UNTRIED else NOW - 20,
        handshake_unix_s=None,
    )


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
        subnet="10.10.0.0/16",
        topology="regional",
        keepalive_s=25,
        mtu=1420,
        members=tuple(sorted(members, key=lambda one: one.node)),
    )

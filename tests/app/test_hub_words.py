"""What a person reads of hubs that carry nothing: who says so of whom, and where to look."""

from __future__ import annotations

import pytest

from meshpeer.app.hub_words import UNWATCHED_FOR_S, lines_of, own_troubles, reports_of, unwatched_hubs
from meshpeer.app.views import peer_view, plan_view
from meshpeer.core.node.node import Node
from meshpeer.sim.host import Host
from meshpeer.sim.world import World


@pytest.mark.parametrize(
    ("fault", "said", "hint"),
    [
        ("silent", "its tunnel carries nothing", "drops UDP port 51820"),
        ("stuck", "it passes nothing on from tunnel to tunnel", "drops forwarded packets, such as Docker's"),
    ],
)
def test_a_reported_hub_is_named_with_who_says_so_and_is_told_where_to_look(
    fault: str, said: str, hint: str
) -> None:
    world, hosts = mesh_of(9)
    lost = next(host for host in hosts if host.name in node_of(hosts[0]).tunnels.plan.hubs)
    getattr(world.overlay, fault).append(lost)
    world.run(10)
    others = [host for host in hosts if host is not lost]
    # The edge, and the one that stood by and went by it too.
    by = ", ".join(sorted(host.name for host in others if node_of(host).watch.seen.hubs_failed))
    assert by.count(",") == 1
    now_s = world.instant(lost).unix_s
    for host in others:
        node = node_of(host)
        assert lines_of(node) == [f"hub {lost.name} is reported by {by}: {said}"]
        assert plan_view(node, now_s).reported == tuple(lines_of(node))
        for one in node.roster.members:
            shown = peer_view(node, one, now_s, reports_of(node).get(one.node))
            assert shown.reported == (f"by {by}: {said}" if one.node == lost.id else "")
        assert own_troubles(node) == []
    (trouble,) = own_troubles(node_of(lost))
    assert by in trouble
    assert hint in trouble
    assert lines_of(node_of(lost)) == []


def test_hubs_that_no_probe_reaches_are_said_to_be_unwatched_after_a_while() -> None:
    world, hosts = mesh_of(6)
    now_s = world.instant(hosts[0]).unix_s
    assert unwatched_hubs(node_of(hosts[0]), now_s + UNWATCHED_FOR_S) == []
    closed, deaf = mesh_of(6, probes=False)
    assert unwatched_hubs(node_of(deaf[0]), closed.instant(deaf[0]).unix_s) == []
    closed.run(UNWATCHED_FOR_S)
    (line,) = unwatched_hubs(node_of(deaf[0]), closed.instant(deaf[0]).unix_s)
    assert "UDP port 51821" in line


# --- helpers ----------------------------------------------------------------


def mesh_of(count: int, *, probes: bool = True) -> tuple[World, list[Host]]:
    """Three regions; without ``probes``, a firewall on each host drops them."""
    world = World(1)
    if not probes:
        world.overlay.ask = lambda host, probe: None  # type: ignore[method-assign]
    hosts: list[Host] = []
    for number in range(count):
        host = (
            world.make_joiner(f"n{number}")
            if hosts
            else world.make_founder("n0", subnet="10.10.0.0/24", topology="regional")
        )
        host.place = ("eu", "us", "ap")[number % 3]
        if hosts:
            world.enter(host, hosts[0])
        else:
            world.start(host)
            world.run(0.5)
        hosts.append(host)
    world.run(75)
    return world, hosts


def node_of(host: Host) -> Node:
    assert host.node is not None
    return host.node

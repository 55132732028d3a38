"""Whole nodes of which many can't be dialled: every link that a node wants is there, over members where it
has to be."""

from __future__ import annotations

import pytest

from meshpeer.core.membership.opinions import State
from meshpeer.sim.host import Host
from meshpeer.sim.world import World


def test_nodes_behind_routers_are_linked_over_a_member_and_all_are_alive() -> None:
    _, hosts = mesh(public=1, private=4)
    founder, *rest = hosts
    for host in rest:
        assert straight(host) == {founder.id}
        assert carried(host) == {other.id: founder.id for other in rest if other is not host}


def test_when_the_carrier_is_gone_another_carries() -> None:
    world, hosts = mesh(public=2, private=3)
    first, second, *rest = hosts
    world.crash(first)

    def is_mended() -> bool:
        return all(
            carried(host) == {other.id: second.id for other in rest if other is not host} for host in rest
        )

    assert world.run_until(is_mended, within_s=60)
    world.run(30)
    for host in (second, *rest):
        assert opinion(host, first) is State.DEAD
        assert all(opinion(host, other) is State.ALIVE for other in (second, *rest) if other is not host)


def test_without_anybody_in_between_nobody_is_held_dead_for_it_by_who_has_a_way() -> None:
    world, hosts = mesh(public=1, private=2)
    founder, left, right = hosts
    world.network.part([[founder], [left]])
    assert world.run_until(lambda: not linked(left) and linked(right) == {founder.id}, within_s=90)
    assert opinion(right, founder) is State.ALIVE


@pytest.mark.parametrize(
    ("public", "private", "seed"), [(3, 9, 1), pytest.param(4, 14, 2, marks=pytest.mark.slow)]
)
def test_beyond_a_full_mesh_of_links_every_link_that_a_node_wants_is_there(
    public: int, private: int, seed: int
) -> None:
    world, hosts = mesh(public=public, private=private, seed=seed)

    def is_whole() -> bool:
        return all(set(host.node.overlay.wanted(world.instant(host))) <= linked(host) for host in hosts)  # type: ignore[union-attr]

    assert world.run_until(is_whole, within_s=120)
    for host in hosts:
        assert all(opinion(host, other) is State.ALIVE for other in hosts if other is not host)
        for carrier in carried(host).values():
            assert carrier in straight(host)


def test_a_link_is_kept_on_demand_although_the_first_dial_fails() -> None:
    world, hosts = mesh(public=3, private=9, seed=3)
    one, other = next(
        (one, other)
        for one in hosts[3:]
        for other in hosts[3:]
        if one is not other and other.id not in linked(one)
    )
    assert one.node is not None
    one.node.overlay.need(other.id, world.instant(one))
    one.node._stale = True
    world.run(1)
    assert world.run_until(lambda: other.id in linked(one), within_s=30)
    assert other.id in carried(one)


# --- helpers ------------------------------------------------------------------------------------------------


def mesh(*, public: int, private: int, seed: int = 7) -> tuple[World, list[Host]]:
    """Makes a mesh of which the last ``private`` sit behind routers of their own that let nothing new in."""
    world = World(seed)
    world.spare = True
    founder = world.found("alpha")
    world.run(0.5)
    hosts = [founder]
    for number in range(1, public + private):
        host = world.make_joiner(f"n{number}")
        host.nat = number if number >= public else None
        world.enter(host, founder)
        hosts.append(host)
    count = len(hosts)

    def is_whole() -> bool:
        return all(
            host.node is not None
            and len(host.node.roster.members) == count
            and set(host.node.overlay.wanted(world.instant(host))) <= linked(host)
            for host in hosts
        )

    assert world.run_until(is_whole, within_s=120)
    return world, hosts


def linked(host: Host) -> set[bytes]:
    return set(host.node.links.peers) if host.node else set()


def carried(host: Host) -> dict[bytes, bytes]:
    """Returns who is linked over whom."""
    assert host.node is not None
    links = host.node.links
    over = {peer: links.carrier_of(peer) for peer in links.peers}
    return {peer: carrier for peer, carrier in over.items() if carrier is not None}


def straight(host: Host) -> set[bytes]:
    return linked(host) - carried(host).keys()


def opinion(host: Host, of: Host) -> State:
    assert host.node is not None
    return host.node.detector.opinion(of.id).state

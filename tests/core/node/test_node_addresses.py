"""Whose address is whose, over time: what a member gave back rests, and what two claimed goes to one."""

from __future__ import annotations

import pytest

from meshpeer.core.addressing.claims import QUARANTINE_S
from meshpeer.core.node.messages import LeaveAsked
from meshpeer.sim.host import Host
from meshpeer.sim.world import World


def test_the_address_of_a_member_that_left_rests_before_another_gets_it() -> None:
    world = World(51)
    alpha, _, gone = founded(world, 3)
    given_back = ipv4_of(alpha, gone)
    leave(world, gone, seen_by=alpha)
    early = joined(world, "early", alpha)
    assert ipv4_of(alpha, early) != given_back
    world.run(QUARANTINE_S)
    assert ipv4_of(alpha, early) != given_back, "nobody moves because a better address is free"
    late = joined(world, "late", alpha)
    assert ipv4_of(alpha, late) == given_back


def test_where_nothing_else_is_free_an_address_does_not_rest() -> None:
    world = World(52)
    hosts = founded(world, 6, subnet="10.10.0.0/29")
    alpha, gone = hosts[0], hosts[3]
    given_back = ipv4_of(alpha, gone)
    leave(world, gone, seen_by=alpha)
    assert ipv4_of(alpha, joined(world, "anew", alpha)) == given_back


@pytest.mark.parametrize("others", [0, 1])
def test_who_comes_back_with_its_key_takes_its_own_address_again(others: int) -> None:
    world = World(53)
    alpha, _, gone = founded(world, 3)
    given_back = ipv4_of(alpha, gone)
    leave(world, gone, seen_by=alpha)
    for number in range(others):
        joined(world, f"other-{number}", alpha)
    world.run(1)
    world.start(gone)
    assert world.run_until(lambda: ipv4_of(alpha, gone) == given_back, within_s=20)


@pytest.mark.parametrize("issuer_side", [0, 1])
def test_of_two_that_claimed_one_address_across_a_partition_one_moves_once(issuer_side: int) -> None:
    world = World(54)
    hosts = founded(world, 4)
    sides = [hosts[:2], hosts[2:]] if issuer_side == 0 else [hosts[2:], hosts[:2]]
    joiners = [world.make_joiner(f"joiner-{number}") for number in range(2)]
    world.cut([*sides[0], joiners[0]], [*sides[1], joiners[1]])
    world.run(1)
    for side, joiner in zip(sides, joiners, strict=True):
        world.enter(joiner, side[0])
        assert world.run_until(lambda: bool(ipv4_of(side[1], joiner)), within_s=20)  # noqa: B023
    contested = ipv4_of(sides[0][1], joiners[0])
    assert ipv4_of(sides[1][1], joiners[1]) == contested
    before = {host: ipv4_of(host, host) for host in hosts}
    world.heal()
    # The issuer admitted the one on its side for good, and that goes first.
    winner, loser = joiners[issuer_side], joiners[1 - issuer_side]
    everybody = [*hosts, *joiners]

    def is_settled() -> bool:
        seen = {(ipv4_of(host, winner), ipv4_of(host, loser)) for host in everybody}
        return len(seen) == 1 and all(next(iter(seen)))

    assert world.run_until(is_settled, within_s=60)
    fresh = ipv4_of(loser, loser)
    assert (ipv4_of(loser, winner), fresh) != (contested, contested)
    world.run(60)
    assert is_settled()
    assert (ipv4_of(winner, winner), ipv4_of(loser, loser)) == (contested, fresh)
    assert {host: ipv4_of(host, host) for host in hosts} == before


# --- helpers ------------------------------------------------------------------------------------------------


def founded(world: World, count: int, *, subnet: str = "10.10.0.0/24") -> list[Host]:
    founder = world.found("alpha", subnet=subnet)
    world.run(0.5)
    return [founder, *(joined(world, f"n{number}", founder) for number in range(1, count))]


def joined(world: World, name: str, seed: Host) -> Host:
    host = world.join(name, seed)
    assert world.run_until(lambda: bool(ipv4_of(seed, host) and ipv4_of(host, host)), within_s=20)
    return host


def leave(world: World, host: Host, *, seen_by: Host) -> None:
    held = ipv4_of(host, host)
    world.post(host, LeaveAsked())

    def is_known() -> bool:
        member = seen_by.node.ledger.get(host.id) if seen_by.node else None
        return member is not None and member.leave is not None and member.leave.ipv4 == held

    assert world.run_until(is_known, within_s=5)
    world.crash(host)


def ipv4_of(viewer: Host, host: Host) -> str:
    """Returns the address that one node believes another to have."""
    listed = viewer.node.roster.get(host.id) if viewer.node else None
    return listed.ipv4 if listed else ""

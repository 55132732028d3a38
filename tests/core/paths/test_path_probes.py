"""Path probes: which pairs of routers confirm a path both ways, how soon, and with how many packets."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_world import DELAY_S, KEEPING, OPEN, PORT, SYMMETRIC, Host, World

from meshpeer.core.paths.probe_desk import ProbeHeard
from meshpeer.core.paths.probe_packets import PROBE_BYTES
from meshpeer.core.paths.probes import (
    AGAIN_S,
    CANDIDATES_MAX,
    GAPS_S,
    HEARD_FROM_MAX,
    LASTS_S,
    PEERS_MAX,
    SENT_BURST,
    SENT_PER_S,
)

ROUTERS = (OPEN, KEEPING, SYMMETRIC)
MEET = {
    (OPEN, OPEN): True,
    (OPEN, KEEPING): True,
    (OPEN, SYMMETRIC): True,
    (KEEPING, KEEPING): True,
    (KEEPING, SYMMETRIC): False,
    (SYMMETRIC, SYMMETRIC): False,
}
"""Which routers let two ends meet who ask each other's published endpoints."""


@pytest.mark.parametrize("one", ROUTERS)
@pytest.mark.parametrize("other", ROUTERS)
@pytest.mark.parametrize("late_s", [0.0, 1.3, 30.0])
def test_both_ends_agree_on_a_path_where_routers_allow_one(one: str, other: str, late_s: float) -> None:
    world = World()
    left, right = world.host("left", one), world.host("right", other)
    meets = MEET.get((one, other), MEET.get((other, one)))
    aim(world, left, right)
    world.run(late_s)
    aim(world, right, left)
    world.run(6.0)
    assert bool(confirmed(world, left, right)) is bool(confirmed(world, right, left)) is meets


def test_what_is_said_again_is_probed_no_more_once_the_mesh_goes_there() -> None:
    world = World()
    left, right = world.host("left"), world.host("right")
    ends = (f"{right.address}:{PORT}", "192.168.7.7:51820")
    left.probes.aim(right.node, ends, world.now)
    assert [one.endpoint for one in left.probes.look(right.node, world.now)] == list(ends)
    left.probes.know(((right.node, right.key.public),), ("192.168.7.0/24",))
    left.probes.aim(right.node, ends, world.now)
    assert [one.endpoint for one in left.probes.look(right.node, world.now)] == list(ends[:1])


def test_two_of_one_network_confirm_within_two_round_trips() -> None:
    world = World()
    left, right = world.host("left"), world.host("right")
    aim(world, left, right)
    aim(world, right, left)
    world.run(4 * DELAY_S + 0.001)
    assert confirmed(world, left, right) == (f"{right.address}:{PORT}",)
    assert confirmed(world, right, left) == (f"{left.address}:{PORT}",)
    (path,) = left.probes.look(right.node, world.now)
    assert path.rtt_s == pytest.approx(2 * DELAY_S)
    assert path.seen == f"{left.address}:{PORT}"
    assert path.named


def test_a_path_leads_there_and_back_but_not_both_ways_while_the_other_end_asks_nothing() -> None:
    world = World()
    left, right = world.host("left", KEEPING), world.host("right")
    aim(world, left, right)
    world.run(20.0)
    (path,) = left.probes.look(right.node, world.now)
    assert (path.back, path.both) == (True, False)
    assert path.seen == f"{left.outside}:{PORT}"


def test_where_a_question_comes_from_is_a_candidate_even_if_nobody_named_it() -> None:
    world = World()
    left, right = world.host("left", SYMMETRIC), world.host("right")
    aim(world, left, right)
    right.probes.aim(left.node, (f"198.51.100.9:{PORT}",), world.now)
    world.run(3.0)
    (endpoint,) = confirmed(world, right, left)
    assert endpoint == left.mapped[f"{right.address}:{PORT}"]
    shown = [one.named for one in right.probes.look(left.node, world.now)]
    assert shown == [True, False]


def test_a_path_that_breaks_is_confirmed_no_more() -> None:
    broken = False
    world = World(lost=lambda: broken)
    left, right = world.host("left"), world.host("right")
    aim(world, left, right)
    aim(world, right, left)
    world.run(60.0)
    assert confirmed(world, left, right)
    broken = True
    world.run(LASTS_S + AGAIN_S)
    assert not confirmed(world, left, right)
    assert not any(one.back for one in left.probes.look(right.node, world.now))
    broken = False
    world.run(AGAIN_S + 1.0)
    assert confirmed(world, left, right)


def test_the_pace_is_quick_at_first_and_slow_for_ever() -> None:
    world = World(lost=lambda: True)
    left, right = world.host("left"), world.host("right")
    aim(world, left, right)
    world.run(sum(GAPS_S) + 0.01)
    assert len(world.sent) == len(GAPS_S) + 1
    world.run(10 * AGAIN_S)
    assert len(world.sent) == len(GAPS_S) + 11


def test_a_peer_is_left_alone_once_its_owner_says_so() -> None:
    world = World()
    left, right = world.host("left"), world.host("right")
    aim(world, left, right)
    world.run(1.0)
    left.probes.aim(right.node, (), world.now)
    sent = len(world.sent)
    world.run(60.0)
    assert len(world.sent) == sent
    assert left.probes.next_deadline() is None
    assert left.probes.look(right.node, world.now) == ()


def test_a_node_without_the_port_asks_nothing() -> None:
    world = World()
    left, right = world.host("left", able=False), world.host("right")
    aim(world, left, right)
    world.run(10.0)
    assert world.sent == []
    assert left.probes.next_deadline() is None


def test_what_is_known_of_an_endpoint_outlives_a_new_list() -> None:
    world = World()
    left, right = world.host("left"), world.host("right")
    aim(world, left, right)
    world.run(1.0)
    left.probes.aim(right.node, ("198.51.100.7:51820", *right.candidates), world.now)
    first, second = left.probes.look(right.node, world.now)
    assert (first.endpoint, first.sent, second.back) == ("198.51.100.7:51820", 0, True)


def test_candidates_and_strangers_and_peers_are_bounded() -> None:
    world = World()
    left, right = world.host("left"), world.host("right")
    named = [f"198.51.100.{number}:51820" for number in range(1, 40)]
    left.probes.aim(right.node, (*named, "alpha.example:51820", "10.10.0.7:51820"), world.now)
    assert [one.endpoint for one in left.probes.look(right.node, world.now)] == named[:CANDIDATES_MAX]
    for port in range(1, 40):
        world.now_s += 0.3
        asked = right.probes.desk.ask(left.node, f"{left.address}:{PORT}", world.now)
        assert asked is not None
        heard = ProbeHeard(source=f"198.51.100.99:{port}", local=left.address, data=asked[1].data)
        left.probes.on_heard(heard, world.now)
    shown = left.probes.look(right.node, world.now)
    assert len(shown) == CANDIDATES_MAX + HEARD_FROM_MAX
    assert {one.endpoint for one in shown if not one.named} == {f"198.51.100.99:{p}" for p in range(36, 40)}
    many = [(right.node[:-2] + bytes([1, number]), bytes([number] * 32)) for number in range(100)]
    left.probes.know(many, ())  # type: ignore[arg-type]
    for node, _ in many:
        left.probes.aim(node, ("198.51.100.7:51820",), world.now)  # type: ignore[arg-type]
    aimed = [left.probes.is_aimed(node) for node, _ in many]  # type: ignore[arg-type]
    assert aimed == [True] * PEERS_MAX + [False] * (100 - PEERS_MAX)


def test_a_member_that_is_none_any_more_is_probed_no_more() -> None:
    world = World()
    left, right = world.host("left"), world.host("right")
    aim(world, left, right)
    left.probes.know((), ())
    assert not left.probes.is_aimed(right.node)
    assert left.probes.tick(world.now) == []


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    loss=st.sampled_from([0, 10, 40]),
    routers=st.lists(st.sampled_from(ROUTERS), min_size=2, max_size=5),
)
def test_whatever_is_lost_no_path_is_confirmed_that_routers_shut_and_the_pace_is_kept(
    seed: int, loss: int, routers: list[str]
) -> None:
    dice = random.Random(seed)
    world = World(seed, lost=lambda: dice.random() * 100 < loss)
    hosts = [world.host(f"n{number}", router) for number, router in enumerate(routers)]
    for one in hosts:
        for other in hosts:
            if one is not other and dice.random() < 0.9:
                aim(world, one, other)
    began_s = world.now_s
    world.run(30.0)
    for one in hosts:
        for other in hosts:
            if one is other:
                continue
            key = (one.router, other.router)
            if not MEET.get(key, MEET.get(key[::-1])):
                assert not confirmed(world, one, other)
            for path in one.probes.look(other.node, world.now):
                assert path.back or not path.both
        mine = [probe for name, probe in world.sent if name == one.name]
        answers = sum(len(probe.data) == PROBE_BYTES and bool(probe.local) for probe in mine)
        assert len(mine) - answers <= SENT_BURST + SENT_PER_S * (world.now_s - began_s)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_a_tenth_of_loss_keeps_nobody_apart_who_can_meet(seed: int) -> None:
    dice = random.Random(seed)
    world = World(seed, lost=lambda: dice.random() < 0.1)
    left, right = world.host("left", KEEPING), world.host("right", KEEPING)
    aim(world, left, right)
    aim(world, right, left)
    world.run(12.0)
    assert confirmed(world, left, right)
    assert confirmed(world, right, left)


# --- helpers ------------------------------------------------------------------------------------------------


def aim(world: World, one: Host, other: Host) -> None:
    one.probes.aim(other.node, other.candidates, world.now)


def confirmed(world: World, one: Host, other: Host) -> tuple[str, ...]:
    return one.probes.confirmed(other.node, world.now)

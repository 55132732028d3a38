"""Pairs of a mix rest once their relay has served them for a while, and look closely when something stirs."""

from __future__ import annotations

import pytest

from meshpeer.core.paths.relayed_look import Phase
from meshpeer.sim.nat.rest import AFTER_S, LOOK_S, RENEW_S, STIRRED_S
from meshpeer.sim.nat.run import MixRun

pytestmark = [pytest.mark.sim, pytest.mark.slow]

SETTLED_S = 40.0 + STIRRED_S + AFTER_S


def test_pairs_at_rest_keep_their_relays_and_are_looked_at_now_and_then() -> None:
    run = MixRun(5, 8, 0.334)
    world = run.world
    world.heap.run(SETTLED_S)
    ends = [
        (host, one)
        for host in world.hosts
        if host.mind is not None
        for one in host.mind.tunnels.relayed.values()
        if one.phase is Phase.RELAYED
    ]
    assert ends
    world.heap.run(2 * LOOK_S)
    for host, one in ends:
        assert host.mind is not None
        assert one.peer in host.mind.rest.resting(world.now)
        assert one.used is not None
        assert one.lent.heard_s(one.used) > world.heap.now_s - RENEW_S - 1.0
        assert one.moves == 1


def test_a_relay_that_dies_is_left_as_soon_by_pairs_at_rest() -> None:
    run = MixRun(5, 8, 0.334)
    world = run.world
    world.heap.run(SETTLED_S)
    ways = [one for host in world.hosts if host.mind for one in host.mind.tunnels.relayed.values()]
    one = next(one for one in ways if one.phase is Phase.RELAYED)
    assert one.used is not None
    world.die(world.by_id[one.used])
    before = one.used
    assert world.heap.run_until(
        lambda: one.phase is Phase.RELAYED and one.used not in (None, before), within_s=15
    )

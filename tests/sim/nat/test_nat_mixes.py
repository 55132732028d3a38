"""Small mixes of NATs: every pair gets the best way that theory allows, and stays there."""

from __future__ import annotations

import pytest

from meshpeer.core.paths.reflections import CHANGING, STEADY
from meshpeer.sim.nat.mixes import Kind, Way, best_way, draw_mix
from meshpeer.sim.nat.routers import End
from meshpeer.sim.nat.run import MixRun, run_mix
from meshpeer.sim.nat.verdict import ASK_S, BOOT_BOUND_S, CHANGES_MAX, HEARD_S, Trouble
from meshpeer.sim.nat.world import MixWorld

pytestmark = [pytest.mark.sim, pytest.mark.slow]

NODES, HOURS = 8, 0.334


@pytest.mark.parametrize("seed", [1, 2, 3, 5])
def test_pairs_settle_on_the_best_way_and_do_not_flap(seed: int) -> None:
    result = run_mix(seed, NODES, HOURS)
    assert result.violations == ()
    assert result.late_changes == 0


def test_an_event_excuses_so_many_changes_of_a_pair_and_no_more() -> None:
    run = MixRun(1, NODES, HOURS)
    one, other = run.world.hosts[:2]
    run.verdict.happened(Trouble("the boot", 0.0, frozenset({one.index, other.index})))
    for number in range(CHANGES_MAX + 1):
        run.verdict.heard(one, other, End("192.0.2.1", 1_000 + number))
    assert run.verdict.violations == []
    run.verdict.heard(one, other, End("192.0.2.1", 2_000))
    assert len(run.verdict.violations) == 1


def test_a_pair_that_goes_by_hubs_and_is_not_reached_is_a_violation() -> None:
    run = MixRun(2, 24, HOURS)
    boot = Trouble("the boot", 0.0, frozenset(one.index for one in run.world.hosts))
    run.verdict.happened(boot)
    run.world.heap.run(BOOT_BOUND_S)
    run.verdict.look(boot)
    assert run.verdict.violations == []
    assert run.verdict.carried > 0
    for host in run.world.hosts:
        assert host.interface is not None
        if host.mind is not None and host.mind.tunnels.plan.forwards:
            host.interface.routes.clear()
    run.verdict.look(boot)
    assert any("by no hub" in one for one in run.verdict.violations)


def test_one_seed_is_one_run() -> None:
    runs = [MixRun(9, NODES, HOURS) for _ in range(2)]
    for run in runs:
        run.world.heap.run(30)
    first, second = (run.verdict.changed_s for run in runs)
    assert first == second
    assert runs[0].world.heap.steps == runs[1].world.heap.steps


def test_two_without_a_common_family_go_by_a_relay_that_has_both() -> None:
    """An IPv4-only machine that is open had nothing to try, and so never asked for a relay."""
    run = MixRun(1, NODES, HOURS)
    run.world.heap.run(40)
    hosts = run.world.hosts
    lenders = [one.machine for one in hosts if one.seat.lends]
    six = next(one for one in hosts if one.seat.kind is Kind.V6_HOME)
    apart = [one for one in hosts if one.machine.v6 is None]
    assert apart
    for other in apart:
        assert best_way(six.machine, other.machine, lenders) is Way.RELAY
        assert run.verdict.sources[six.index, other.index].port in range(51830, 51930)
        assert run.verdict.sources[other.index, six.index].port in range(51830, 51930)


def test_nodes_learn_what_their_router_does_without_a_link_to_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In regional meshes of a hundred some had no link to who sees them, and stayed on relays."""
    monkeypatch.setattr(MixWorld, "_link", lambda *_: None)
    run = MixRun(1, NODES, HOURS)
    run.world.heap.run(60)
    behind = [one for one in run.world.hosts if one.seat.router is not None and one.machine.udp]
    found = {one.seat.kind: one.mind.presence.router for one in behind if one.mind is not None}
    assert found == {Kind.KEEPING: STEADY, Kind.SYMMETRIC: CHANGING, Kind.DOUBLE: STEADY}


def test_two_keepalives_of_which_one_end_sends_all_are_no_silence() -> None:
    run = MixRun(1, NODES, HOURS)
    run.world.heap.run(20)
    one = next(host for host in run.world.hosts if run.world.planned(host))
    other = run.world.planned(one)[0]
    run.verdict.heard_s[one.index, other.index] = -HEARD_S
    assert run.verdict.ask()
    run.world.heap.run(ASK_S)
    assert run.verdict.heard_s[one.index, other.index] > 0


def test_a_seed_draws_one_mix() -> None:
    first, second = draw_mix(3, 30), draw_mix(3, 30)
    assert [(one.kind, one.machine.addresses) for one in first.seats] == [
        (one.kind, one.machine.addresses) for one in second.seats
    ]

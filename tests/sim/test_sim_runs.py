"""Whole runs of small meshes: what a scenario says happens, and what it expects is judged."""

from __future__ import annotations

import io

import pytest

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.node.messages import Started
from meshpeer.sim.host import Host
from meshpeer.sim.result import Result
from meshpeer.sim.runner import Run, sweep
from meshpeer.sim.scenario import Scenario, parse_scenario
from meshpeer.sim.watch import Watch
from meshpeer.sim.world import World

pytestmark = pytest.mark.sim


# --- boots --------------------------------------------------------------------------------------------------


def test_cold_boot_ends_with_everybody_knowing_everybody() -> None:
    result = ran("size = 6\nduration_s = 10\n[expect]\nall_know_within_s = 5")
    assert result.failures == ()
    assert result.know_all_s is not None
    assert 0 < result.know_all_s.p50 <= result.know_all_s.max <= 5
    assert result.links.min == result.links.max == 5


def test_warm_start_publishes_nothing_and_links_everybody() -> None:
    world = World(3, wireguard_port=0)
    hosts = world.grow(6)
    before = [ledger_of(host) for host in hosts]
    world.run(10)
    assert [ledger_of(host) for host in hosts] == before
    assert {len(host.lanes) for host in hosts} == {5}
    assert "facts" not in world.meter.messages


def test_warm_hosts_share_their_rows_and_write_their_own() -> None:
    world = World(3, wireguard_port=0)
    left, right, *_ = world.grow(3)
    row = next(iter(left.disk))
    assert left.disk[row] is right.disk[row]
    del left.disk[row]
    assert row not in left.disk
    assert row in right.disk


def test_judge_that_remembers_changes_nothing() -> None:
    assert traced(World(5)) == traced(world_without_memory(5))


def test_change_after_a_boot_is_not_counted_as_the_boot() -> None:
    world = World(3, wireguard_port=0)
    watched = Watch(world, check_every=1_000)
    hosts = world.grow(3)
    watched.grown(hosts)
    knowledge = watched.knowledge
    knowledge.mark(world.now_s)
    knowledge.published(hosts[0], b"newer", 4.0)
    assert sorted(knowledge.lacking()) == [1, 2]
    for host in hosts[1:]:
        knowledge.learned(host, hosts[0], b"newer", 5.0)
    assert knowledge.lacking() == []
    assert knowledge.times(0.0) == [0.0] * 3


# --- what happens -------------------------------------------------------------------------------------------


def test_crash_is_measured_until_every_survivor_knows() -> None:
    result = ran(f"{WARM}{event('crash', 'count = 1')}[expect]\ndead_within_s = 20\nno_false_dead = true")
    assert result.failures == ()
    (crash,) = result.measures
    assert crash.what == "dead"
    assert crash.took_s is not None


def test_silent_crash_takes_longer_than_a_closed_one() -> None:
    closed = ran(f"{WARM}{event('crash', 'count = 1')}").measures[0].took_s
    silent = ran(f"{WARM}{event('crash', 'count = 1', 'silent = true')}").measures[0].took_s
    assert closed is not None
    assert silent is not None
    assert closed < silent


@pytest.mark.parametrize("wipe", ["true", "false"])
def test_host_that_restarts_is_in_again(wipe: str) -> None:
    result = ran(f"{WARM}{event('crash', 'count = 2', f'wipe = {wipe}', 'restart_after_s = 5')}")
    assert result.failures == ()
    assert result.know_share == 1.0
    assert result.links.min == 5


def test_partition_heals_and_removes_nobody() -> None:
    result = ran(
        f"{WARM}{event('partition', 'for_s = 15')}[expect]\nheal_within_s = 30\nno_false_dead = true"
    )
    assert result.failures == ()
    assert [one.what for one in result.measures] == ["heal"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_who_is_revoked_is_out_at_once_and_beyond_a_partition_when_it_heals(seed: int) -> None:
    result = ran(
        f"size = 8\nseed = {seed}\nduration_s = 90\nlatency_ms = 10\n"
        + event("revoke", at_s=5)
        + event("partition", "for_s = 30", "shares = [0.5, 0.5]", at_s=10)
        + event("revoke", at_s=20)
        + "[expect]\nheal_within_s = 10\nrevoked_within_s = 10\nno_false_dead = true"
    )
    assert result.failures == ()
    at_once, after = (one.took_s for one in result.measures if one.what == "revoked")
    assert at_once is not None
    assert at_once < 1
    assert after is not None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_who_joins_a_parted_mesh_is_on_one_side_until_it_heals(seed: int) -> None:
    """Joiners belonged to no side, and carried news across."""
    made = Run(
        scenario(
            f"size = 6\nseed = {seed}\nduration_s = 60\nlatency_ms = 10\n"
            + event("partition", "for_s = 40", "shares = [0.5, 0.5]", at_s=5)
            + event("join", "count = 6", at_s=15)
            + "[expect]\nheal_within_s = 10\nno_false_dead = true"
        )
    )
    apart: list[int] = []
    hosts = made.world.hosts
    made.world.heap.after(44.0, lambda: apart.append(len({ledger_of(one) for one in hosts.values()})))
    assert made.run().failures == ()
    assert apart == [2]


def test_change_reaches_everybody_and_is_timed() -> None:
    result = ran(f"{WARM}{event('change')}[expect]\nchange_known_within_s = 1")
    assert result.failures == ()
    (change,) = result.measures
    assert change.took_s is not None
    assert 0 < change.took_s < 1


def test_members_that_join_and_leave_are_in_and_out_everywhere() -> None:
    run = Run(scenario(f"{WARM}{event('join', 'count = 2')}{event('leave', 'count = 1', at_s=15)}"))
    assert run.run().failures == ()
    nodes = [host.node for host in run.watch.running if host.node is not None]
    rosters = {tuple(sorted(one.name for one in node.roster.members)) for node in nodes}
    assert len(rosters) == 1
    assert len(rosters.pop()) == 6 + 2 - 1


def test_paused_host_reads_what_came_meanwhile_in_order() -> None:
    world = World(7, wireguard_port=0)
    hosts = world.grow(3)
    world.run(5)
    seen: list[object] = []
    world.watchers.append(lambda host, happened, _: seen.append(happened) if host is hosts[1] else None)
    world.pause(hosts[1])
    world.run(6)
    assert seen == []
    waiting = [arguments[-1] for _, arguments in hosts[1].inbox]
    assert waiting
    world.resume(hosts[1])
    assert [one for one in seen if any(one is other for other in waiting)] == waiting


@pytest.mark.parametrize(
    "kind", ["forged", "counters", "equivocation", "replay", "identities", "big-frames", "slow"]
)
def test_rogue_member_is_believed_by_nobody(kind: str) -> None:
    run = Run(
        scenario(
            f"{WARM}{event('rogue', f'kind = {kind!r}', 'for_s = 8', 'per_s = 5')}"
            "[expect]\nno_false_dead = true"
        ),
        check_every=20,
    )
    assert run.run().failures == ()
    assert run.happenings.rogues[0].sent > 0


def test_churn_fells_and_raises_hosts() -> None:
    result = ran(
        f"{WARM}{event('churn', 'per_minute = 30', 'for_s = 10', 'down_s = 4')}"
        "[expect]\nall_know_within_s = 5"
    )
    assert result.failures == ()
    assert result.links.min == 5


# --- what is judged -----------------------------------------------------------------------------------------


def test_expectation_that_fails_is_said_with_what_was_seen() -> None:
    result = ran(f"{WARM}{event('crash', 'count = 1')}[expect]\ndead_within_s = 0.1")
    (failure,) = result.failures
    assert failure.startswith("a crash is known to all after ")
    assert failure.endswith("expected within 0.1 s")


def test_traffic_beyond_its_bound_fails() -> None:
    (failure,) = ran(f"{WARM}[expect]\nbytes_per_node_s_max = 1").failures
    assert failure.endswith("B/s, expected at most 1")


def test_healthy_host_that_is_held_dead_is_found() -> None:
    run = Run(scenario(f"{WARM}[expect]\nno_false_dead = true"))

    # A cut that no event of the scenario accounts for.
    def cut() -> None:
        run.world.cut(run.watch.running[:1], run.watch.running[1:])

    run.world.heap.at(5.0, cut)
    assert any("a healthy host was held dead" in one for one in run.run().failures)


def test_record_that_its_subject_never_signed_breaks_an_invariant() -> None:
    run = Run(scenario(WARM))
    run._boot()
    left, right = run.watch.running[:2]
    with pytest.raises(InvariantBroken, match="n1 never signed"):
        run.watch.invariants.accepted(left, right, b"somebody's bytes", 0.0)


def test_expired_record_and_return_of_one_that_left_break_invariants() -> None:
    run = Run(scenario(f"{WARM}{event('leave', at_s=1)}"))
    run._boot()
    first, left = run.watch.running[0], None
    own = {host.index: record_of(host) for host in run.watch.running}
    with pytest.raises(InvariantBroken, match="had expired"):
        run.watch.invariants.accepted(first, run.watch.running[1], own[1], 4e9)
    run.happenings.schedule()
    run.world.run(10)
    (left,) = [host for host in run.world.hosts.values() if host.node is None]
    with pytest.raises(InvariantBroken, match="took it for a member again"):
        run.watch.invariants.accepted(first, left, own[left.index], 0.0)


def test_node_that_stops_is_a_failure_of_the_run() -> None:
    run = Run(scenario(WARM))

    def stop() -> None:
        raise ZeroDivisionError("a bug")

    run.world.heap.at(5.0, stop)
    (failure,) = run.run().failures
    assert failure == "a node stopped at 5.000 s: ZeroDivisionError: a bug"


# --- determinism, sweeps, size ------------------------------------------------------------------------------


def test_one_seed_gives_one_trace_and_another_seed_another() -> None:
    traces = []
    for seed in (1, 1, 2):
        text = io.StringIO()
        Run(scenario(f"size = 5\nseed = {seed}\nduration_s = 5\nloss = 0.02"), trace=text).run()
        traces.append(text.getvalue())
    assert traces[0] == traces[1] != traces[2]
    assert len(traces[0].splitlines()) > 100


def test_sweep_runs_once_for_every_value() -> None:
    swept = scenario("size = 3\nduration_s = 5\n[sweep]\nover = 'size'\nvalues = [3, 4]")
    found = list(sweep(swept, lambda one: Run(one).run()))
    assert [(value, result.size, result.ok) for value, result in found] == [(3.0, 3, True), (4.0, 4, True)]


@pytest.mark.slow
def test_hundred_hosts_boot_through_one_seed() -> None:
    result = ran("size = 100\nduration_s = 12\n[expect]\nall_know_within_s = 10\nno_false_dead = true")
    assert result.failures == ()


# --- helpers ------------------------------------------------------------------------------------------------

WARM = "size = 6\nseed = 4\nboot = 'warm'\nduration_s = 40\n"


def event(kind: str, *keys: str, at_s: float = 5) -> str:
    return "\n".join(["[[events]]", f"do = '{kind}'", f"at_s = {at_s}", *keys, ""])


def scenario(text: str) -> Scenario:
    return parse_scenario(text, "test.toml")


def ran(text: str) -> Result:
    return Run(scenario(text)).run()


def ledger_of(host: Host) -> bytes:
    assert host.node is not None
    return host.node.ledger.fingerprint


def record_of(host: Host) -> bytes:
    assert host.node is not None
    member = host.node.ledger.get(host.id)
    assert member is not None
    return member.envelope


def world_without_memory(seed: int) -> World:
    from meshpeer.core.records.judge import Judge

    world = World(seed)
    world.judge = Judge()  # type: ignore[assignment]
    return world


def traced(world: World) -> list[str]:
    lines: list[str] = []
    world.watchers.append(
        lambda host, happened, effects: lines.append(f"{world.now_s} {host.name} {happened} {effects}")
    )
    founder = world.found("alpha")
    world.run(0.5)
    for number in range(3):
        world.join(f"n{number}", founder)
    world.run(8)
    assert any(str(Started()) in line for line in lines)
    return lines

"""Hubs whose agents live and whose tunnels do not, in whole meshes in virtual time."""

from __future__ import annotations

import random

import pytest
from topology_packets import check_pairs

from meshpeer.core.effects import AskEcho
from meshpeer.core.node.messages import AnswerEchoes
from meshpeer.core.topology.hub_reports import FORWARDING, TUNNEL
from meshpeer.core.topology.plan import MeshPlan
from meshpeer.core.topology.warmth import HOLD_S
from meshpeer.sim.host import Host
from meshpeer.sim.network import Terrain
from meshpeer.sim.world import World

REPLACED_WITHIN_S = 8.0


@pytest.mark.parametrize("size", [9, 15])
@pytest.mark.parametrize("fault", [FORWARDING, TUNNEL])
def test_a_hub_that_carries_nothing_is_replaced_everywhere_and_stays_so(size: int, fault: str) -> None:
    world, hosts = mesh_of(size)
    lost = hub_of(hosts, hosts[0])
    seen = {host.name: [plan_of(host).hubs] for host in hosts}
    world.watchers.append(lambda host, *_: note(seen[host.name], plan_of(host).hubs))
    broken = world.overlay.stuck if fault == FORWARDING else world.overlay.silent
    broken.append(lost)
    assert world.run_until(lambda: not any(is_hub(lost, host) for host in hosts), within_s=REPLACED_WITHIN_S)
    world.run(120)
    assert {len(plans) for plans in seen.values()} == {2}, "one move, and no way back"
    assert len({(plan_of(host).hubs, plan_of(host).standbys) for host in hosts}) == 1
    check_all(hosts)
    assert is_whole(world, [host for host in hosts if fault == FORWARDING or host is not lost])
    kinds = {report.kind for host in hosts for report in host.node.watch.seen.hubs_failed if host.node}  # type: ignore[union-attr]
    assert kinds == {fault}


@pytest.mark.parametrize("seed", range(4))
def test_whatever_three_members_fail_at_all_others_are_soon_connected_and_stay_so(seed: int) -> None:
    world, hosts = mesh_of(15)
    dice = random.Random(seed)
    broken = dice.sample(hosts, 3)
    world.overlay.silent.append(broken[0])
    world.overlay.stuck += broken[1:]
    sound = [host for host in hosts if host is not broken[0]]
    assert world.run_until(lambda: is_whole(world, sound), within_s=40)
    for _ in range(120):
        world.run(1)
        assert is_whole(world, sound), world.now_s


def test_a_hub_whose_tunnel_works_again_takes_over_once_it_has_for_a_minute() -> None:
    world, hosts = mesh_of(9)
    lost = hub_of(hosts, hosts[0])
    world.overlay.silent.append(lost)
    assert world.run_until(lambda: not any(is_hub(lost, host) for host in hosts), within_s=REPLACED_WITHIN_S)
    world.run(30)
    world.overlay.silent.clear()
    world.run(55)
    assert not any(is_hub(lost, host) for host in hosts)
    # It stands by for a while first: it was no hub, and let go of its tunnels.
    assert world.run_until(lambda: all(is_hub(lost, host) for host in hosts), within_s=15 + HOLD_S)
    assert world.run_until(lambda: is_whole(world, hosts), within_s=2)


def test_a_hub_that_is_started_anew_is_taken_again_once_it_has_its_tunnels() -> None:
    world, hosts = mesh_of(9)
    lost = hub_of(hosts, hosts[0])
    world.overlay.stuck.append(lost)
    assert world.run_until(lambda: not any(is_hub(lost, host) for host in hosts), within_s=REPLACED_WITHIN_S)
    world.overlay.stuck.clear()
    world.crash(lost)
    world.run(5)
    world.start(lost)
    assert world.run_until(lambda: all(is_hub(lost, host) for host in hosts), within_s=60)


def test_members_that_are_cut_off_themselves_report_nobody() -> None:
    world, hosts = mesh_of(9)
    edge = next(host for host in hosts if not plan_of(host).forwards)
    world.overlay.silent.append(edge)
    world.run(60)
    assert all(host.node is not None and not host.node.watch.seen.hubs_failed for host in hosts)


def test_a_lost_agent_leaves_no_report_behind_but_of_itself() -> None:
    """Of those behind a hub one falls silent for good: its silence is no fault of the hub."""
    world, hosts = mesh_of(9)
    lost = hub_of(hosts, hosts[0])
    world.crash(lost, silent=True)
    world.run(60)
    rest = [host for host in hosts if host is not lost]
    reported = {report.node for host in rest if host.node for report in host.node.watch.seen.hubs_failed}
    assert reported <= {lost.id}


def test_a_full_mesh_asks_of_each_tunnel_once_whether_it_answers_and_probes_nothing_more() -> None:
    world = World(1)
    effects: list[object] = []
    world.watchers.append(lambda host, event, done: effects.extend(done))
    founder = world.found("alpha", topology="full")
    world.run(0.5)
    for number in range(1, 5):
        world.join(f"n{number}", founder)
    world.run(30)
    asked = [one for one in effects if isinstance(one, AskEcho)]
    # Both ends of ten tunnels, by one or both families.
    assert 5 * 4 <= len(asked) <= 5 * 4 * 2
    assert any(isinstance(one, AnswerEchoes) for one in effects)
    effects.clear()
    world.run(120)
    assert not [one for one in effects if isinstance(one, AskEcho | AnswerEchoes)]


def test_a_quiet_mesh_publishes_little() -> None:
    world, hosts = mesh_of(9)
    world.run(120)
    before = [sequence(host) for host in hosts]
    world.run(600)
    assert [sequence(host) for host in hosts] == before


def test_a_region_without_hubs_is_carried_by_the_nearest() -> None:
    """Two kilometres or two oceans: links show it, hubs say it, and all derive the same from that."""
    near, far = 0.005, 0.080
    for nearest in ("eu", "us"):
        delays = {
            ("eu", "ap"): near if nearest == "eu" else far,
            ("us", "ap"): near if nearest == "us" else far,
        }
        regions = ("eu", "us", "ap")
        table = tuple(
            tuple(
                0.002 if one == other else delays.get((one, other), delays.get((other, one), far))
                for other in regions
            )
            for one in regions
        )
        world, hosts = mesh_of(8, terrain=Terrain(latency_s=table), hubless="ap")
        world.run(150)
        bare = [host for host in hosts if host.place == "ap"]
        assert {hub_of(hosts, host).place for host in bare} == {nearest}
        check_all(hosts)


# --- helpers ------------------------------------------------------------------------------------------------


def mesh_of(count: int, *, terrain: Terrain | None = None, hubless: str = "") -> tuple[World, list[Host]]:
    """Three regions, all up for a while, each probed member known to answer."""
    regions = ("eu", "us", "ap")
    world = World(1, terrain=terrain)
    hosts: list[Host] = []
    for number in range(count):
        host = (
            world.make_joiner(f"n{number}")
            if hosts
            else world.make_founder("n0", subnet="10.10.0.0/24", topology="regional")
        )
        host.place = regions[number % 3]
        host.region = number % 3 if terrain else 0
        if hosts:
            world.enter(host, hosts[0])
        else:
            world.start(host)
            world.run(0.5)
        assert host.node is not None
        if host.place == hubless:
            host.node.presence.hub = "never"
        hosts.append(host)
    world.run(75)
    assert len({(plan_of(host).hubs, plan_of(host).standbys) for host in hosts}) == 1
    return world, hosts


def hub_of(hosts: list[Host], member: Host) -> Host:
    """Returns the hub that carries a member's region."""
    assert member.node is not None
    routes = member.node.tunnels.routes
    assert routes is not None
    (hub,) = routes.cells[member.place].active
    return next(host for host in hosts if host.id == hub.node)


def is_hub(one: Host, seen_by: Host) -> bool:
    return one.name in plan_of(seen_by).hubs


def note(seen: list[tuple[str, ...]], hubs: tuple[str, ...]) -> None:
    if hubs != seen[-1]:
        seen.append(hubs)


def is_whole(world: World, hosts: list[Host]) -> bool:
    """Says whether a packet passes between every two hosts, as their interfaces are now."""
    addresses = [(host, world.overlay.address_of(host, ipv6=True) or "") for host in hosts]
    return all(
        source is target or world.overlay.target(source, address) is target
        for source in hosts
        for target, address in addresses
    )


def check_all(hosts: list[Host]) -> None:
    addresses: dict[object, str] = {}
    for host in hosts:
        assert host.node is not None
        listed = host.node.roster.get(host.id)
        assert listed is not None
        addresses[host.id] = listed.ipv6
    check_pairs(addresses, {host.id: plan_of(host) for host in hosts})  # type: ignore[arg-type]


def sequence(host: Host) -> int:
    assert host.node is not None
    assert host.node.presence.record is not None
    return host.node.presence.record.sequence


def plan_of(host: Host) -> MeshPlan:
    assert host.node is not None
    return host.node.tunnels.plan

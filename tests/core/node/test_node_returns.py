"""Large meshes agree, and who comes back finds its place: wiped, after long absence, with a wrong clock."""

from __future__ import annotations

from meshpeer.core.effects import Table
from meshpeer.core.membership.opinions import State
from meshpeer.core.node.messages import RenameAsked
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.sim.host import Host
from meshpeer.sim.world import World

DAY_S = 86_400


def test_twelve_that_boot_from_one_seed_know_all_and_plan_alike() -> None:
    world = World(31)
    hosts = founded(world, 12)
    rosters = {
        tuple((one.node, one.name, one.ipv4, one.record) for one in host.node.roster.members)
        for host in hosts
        if host.node
    }
    assert len(rosters) == 1
    assert len({address for _, _, address, _ in next(iter(rosters))}) == 12
    for host in hosts:
        for other in hosts:
            if other is not host:
                # What one lets in from the other is exactly what that one has for addresses.
                assert networks(allowed(host, other)) == networks(device_of(other).addresses)


def test_wiped_machine_takes_its_name_over_and_gets_a_place_of_its_own() -> None:
    world = World(32)
    alpha, beta, old = founded(world, 3)
    world.crash(old)
    assert world.run_until(lambda: state(alpha, old) is state(beta, old) is State.DEAD, within_s=5)
    anew = world.join("anew", alpha)
    assert anew.node is not None
    world.post(anew, RenameAsked(name=old.name))
    assert world.run_until(
        lambda: names(alpha).get(anew.id) == names(beta).get(anew.id) == old.name, within_s=20
    )
    assert names(alpha)[old.id] == f"{old.name}-2"
    claimed = [one.ipv4 for one in alpha.node.roster.members]  # type: ignore[union-attr]
    assert len(set(claimed)) == 4


def test_member_that_was_away_past_its_record_is_in_again_at_once() -> None:
    """Its record expired everywhere, and the others' did for it: certificate and seeds remain."""
    world = World(33)
    alpha, beta, gone = founded(world, 3)
    assert [row for row in gone.disk if row[0] is Table.SEEDS]
    world.crash(gone)
    world.run(10)
    for _ in range(8):
        world.now_s += DAY_S
        world.run(70)
    for host in (alpha, beta):
        assert gone.id not in names(host)
        assert gone.wireguard.public not in {peer.public_key for peer in device_of(host).peers}
        assert state(host, beta if host is alpha else alpha) is State.ALIVE
    world.start(gone)
    hosts = (alpha, beta, gone)
    assert world.run_until(lambda: all(len(names(host)) == 3 for host in hosts), within_s=60)
    world.run(3)
    assert {len(device_of(host).peers) for host in hosts} == {2}


def test_clock_that_fell_back_does_not_hold_a_restarted_node_down() -> None:
    world = World(34)
    alpha, _, host = founded(world, 3)
    world.crash(host)
    before = alpha.node.roster.get(host.id).record  # type: ignore[union-attr]
    host.clock_skew_s = -240.0
    world.run(5)
    world.start(host)

    def is_newer() -> bool:
        listed = alpha.node.roster.get(host.id)  # type: ignore[union-attr]
        return listed is not None and listed.record.incarnation == before.incarnation + 1

    assert world.run_until(is_newer, within_s=20)
    assert world.run_until(lambda: state(alpha, host) is State.ALIVE, within_s=20)


def test_node_far_ahead_of_time_is_refused_and_the_rest_stays_whole() -> None:
    world = World(35)
    alpha, beta, ahead = founded(world, 3)
    world.crash(ahead)
    ahead.clock_skew_s = 3_600.0
    world.run(5)
    held = alpha.node.roster.get(ahead.id).record  # type: ignore[union-attr]
    world.start(ahead)
    world.run(30)
    for host in (alpha, beta):
        assert host.node is not None
        assert host.node.roster.get(ahead.id).record == held  # type: ignore[union-attr]
        assert state(host, beta if host is alpha else alpha) is State.ALIVE


# --- helpers ------------------------------------------------------------------------------------------------


def founded(world: World, count: int) -> list[Host]:
    founder = world.found("alpha")
    world.run(0.5)
    hosts = [founder, *(world.join(f"n{number}", founder) for number in range(1, count))]

    def is_whole() -> bool:
        return all(
            host.node is not None
            and len(host.node.roster.members) == count
            and set(host.node.overlay.wanted(world.instant(host))) <= set(host.node.links.peers)
            and all(one.ipv4 and one.identity.durable for one in host.node.roster.members)
            for host in hosts
        )

    assert world.run_until(is_whole, within_s=60)
    world.run(5)
    return hosts


def names(host: Host) -> dict[bytes, str]:
    return {one.node: one.name for one in host.node.roster.members} if host.node else {}


def state(host: Host, of: Host) -> State | None:
    held = host.node.detector.opinion(of.id) if host.node else None
    return held.state if held else None


def device_of(host: Host) -> DesiredDevice:
    assert host.node is not None
    assert host.node.desired is not None
    return host.node.desired


def allowed(host: Host, other: Host) -> tuple[str, ...]:
    return next(
        peer.allowed_ips for peer in device_of(host).peers if peer.public_key == other.wireguard.public
    )


def networks(addresses: tuple[str, ...]) -> set[str]:
    return {str(address).partition("/")[0] for address in addresses}

"""Whole nodes of a simulated mesh: two that can't meet find a relay, and the next one when it is gone."""

from __future__ import annotations

from meshpeer.core.node.messages import SelfMessage
from meshpeer.core.paths.relay_messages import RelayAble, RelayGranted
from meshpeer.sim.host import Host
from meshpeer.sim.world import World


def parted(seed: int) -> tuple[World, list[Host]]:
    """Returns a mesh of two that lend ports and two that do not meet."""
    world = World(seed)
    one = world.make_founder("one", subnet="10.10.0.0/24")
    joiners = [world.make_joiner(name) for name in ("two", "alpha", "bravo")]
    hosts = [one, *joiners]
    for host in hosts[:2]:
        host.lends = True
    world.apart.part(hosts[2], hosts[3], (hosts[0], hosts[1]))
    world.start(one)
    world.run(0.5)
    for host in joiners:
        world.enter(host, one)
    return world, hosts


def relay_of(host: Host, peer: Host, hosts: list[Host]) -> Host | None:
    assert host.node is not None
    via = host.node.relays.via(peer.id)
    return next((one for one in hosts if one.id == via), None)


def until_relayed(world: World, hosts: list[Host], within_s: float = 40.0) -> Host:
    alpha, bravo = hosts[2:]

    def relayed() -> bool:
        used = relay_of(alpha, bravo, hosts)
        same = used is not None and used is relay_of(bravo, alpha, hosts)
        return same and world.apart.meets(alpha, bravo)

    assert world.run_until(relayed, within_s=within_s)
    found = relay_of(alpha, bravo, hosts)
    assert found is not None
    return found


def test_two_that_do_not_meet_find_a_relay_and_stay_with_it() -> None:
    world, hosts = parted(71)
    relay = until_relayed(world, hosts)
    assert relay in hosts[:2]
    assert relay.node is not None
    assert len(relay.node.relays.desk.reservations) == 1
    assert hosts[2].node is not None
    assert hosts[2].node.relays.via(relay.id) is None
    world.run(50)
    assert until_relayed(world, hosts, 1) is relay


def test_the_next_relay_takes_over_from_one_whose_machine_is_gone() -> None:
    world, hosts = parted(72)
    relay = until_relayed(world, hosts)
    world.run(10)
    world.crash(relay, silent=True)
    assert world.run_until(
        lambda: (
            relay_of(hosts[2], hosts[3], hosts) not in (relay, None) and world.apart.meets(hosts[2], hosts[3])
        ),
        within_s=30,
    )


def test_a_machine_that_can_not_relay_does_not_say_that_it_does() -> None:
    world, hosts = parted(73)
    until_relayed(world, hosts)
    one, alpha = hosts[0].node, hosts[2].node
    assert one is not None
    assert alpha is not None
    shown = alpha.roster.get(one.me)
    assert shown is not None
    assert shown.record.relay
    world.post(hosts[0], RelayAble(fault="no socket"))
    world.run(0.1)
    assert not one.relays.lends
    world.run(5)
    shown = alpha.roster.get(one.me)
    assert shown is not None
    assert not shown.record.relay


def test_what_a_member_grants_that_is_no_relay_changes_nothing() -> None:
    world, hosts = parted(74)
    relay = until_relayed(world, hosts)
    alpha, bravo = hosts[2].node, hosts[3].node
    assert alpha is not None
    assert bravo is not None
    low, high = sorted((alpha.me, bravo.me))
    granted = RelayGranted(pair=(low, high), port=666, lasts_s=120, both=True)
    # As if it came from this very node, which is none of the pair's relays.
    world.post(hosts[2], SelfMessage(message=granted))
    world.run(10)
    assert until_relayed(world, hosts, 1) is relay

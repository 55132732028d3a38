"""Hubs of whole meshes in virtual time: all agree on them, and on who takes over, within moments."""

from __future__ import annotations

import pytest

from meshpeer.core.antientropy.messages import Facts
from meshpeer.core.membership.opinions import State
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.messages import Forward, ForwardingFailed, FrameReceived
from meshpeer.core.node.tunnels import LINGER_S
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import SuspectRecord, precedence
from meshpeer.core.topology.plan import MeshPlan
from meshpeer.core.topology.warmth import HOLD_S, PATIENCE_S
from meshpeer.core.wgconf.forwarding import NOTHING
from meshpeer.sim.host import Host
from meshpeer.sim.world import World


def test_all_agree_on_the_hubs_and_only_those_forward() -> None:
    _, hosts = mesh_of(6)
    plans = [plan_of(host) for host in hosts]
    assert {plan.mode for plan in plans} == {"regional"}
    assert len({(plan.hubs, plan.standbys) for plan in plans}) == 1
    forwarding = {host.name for host, plan in zip(hosts, plans, strict=True) if plan.forwards}
    assert forwarding == {*plans[0].hubs, *plans[0].standbys}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("silent", [False, True])
def test_a_lost_hub_is_replaced_everywhere_as_soon_as_it_is_doubted(seed: int, silent: bool) -> None:
    """The plan follows each suspicion, not only the first: who looked once saw the old hub for 10 s more."""
    world, hosts = mesh_of(6, seed=seed)
    lost = next(host for host in hosts if host.name == plan_of(hosts[0]).hubs[0])
    rest = [host for host in hosts if host is not lost]
    world.crash(lost, silent=silent)
    assert world.run_until(lambda: any(moved(host, lost) for host in rest), within_s=12)
    assert world.run_until(lambda: all(moved(host, lost) for host in rest), within_s=1)
    assert len({plan_of(host).hubs for host in rest}) == 1


def test_a_plan_follows_what_observers_sign_whatever_this_node_hears_itself() -> None:
    """It would differ from the others' else, and both directions of a pair drop while two ends disagree."""
    world, hosts = mesh_of(6)
    hub = next(host for host in hosts if host.name == plan_of(hosts[0]).hubs[0])
    here, *others = [host for host in hosts if host is not hub]
    world.pause(hub)
    for observer in others[:3]:
        say(world, here, others[3], doubt(world, observer, hub))
        assert here.node is not None
        assert here.node.detector.opinion(hub.id).state is State.ALIVE, "it has a link to the hub"
    assert world.run_until(lambda: moved(here, hub), within_s=0.1)


def test_a_hub_that_comes_back_takes_over_again_once_it_has_been_up_for_a_while() -> None:
    world, hosts = mesh_of(6)
    lost = next(host for host in hosts if host.name == plan_of(hosts[0]).hubs[0])
    world.crash(lost)
    world.run(10)
    world.start(lost)
    world.run(20)
    assert all(moved(host, lost) for host in hosts), "it stands by"
    assert world.run_until(lambda: not any(moved(host, lost) for host in hosts), within_s=15)


def test_who_joins_and_ranks_first_carries_nothing_before_it_has_its_tunnels() -> None:
    world, hosts = mesh_of(3, seed=3)
    before = plan_of(hosts[0]).hubs
    hosts += [world.join(f"n{number}", hosts[0]) for number in range(3, 20)]
    assert world.run_until(lambda: all(len(plan_of(host).peers) > 0 for host in hosts), within_s=20)
    for _ in range(20):
        world.run(1)
        assert {plan_of(host).hubs for host in hosts} == {before}
    world.run(HOLD_S + PATIENCE_S)
    (after,) = {plan_of(host).hubs for host in hosts}
    assert after != before, "one of them ranks first, and takes over in its turn"


def test_a_tunnel_that_the_plan_does_without_stays_for_a_while_and_carries_nothing() -> None:
    world, hosts = mesh_of(6, served=3)
    edge = hosts[-1]
    lost = next(host for host in hosts if host.name == plan_of(edge).hub)
    world.crash(lost)
    assert world.run_until(lambda: moved(edge, lost), within_s=20)
    world.run(1)
    (tunnel,) = [peer for peer in plan_of(edge).peers if peer.node == lost.id]
    assert tunnel.allowed_ips == ()
    world.run(LINGER_S)
    assert lost.id not in {peer.node for peer in plan_of(edge).peers}


def test_a_machine_that_can_not_forward_is_no_hub() -> None:
    world, hosts = mesh_of(6)
    unfit = next(host for host in hosts if host.name == plan_of(hosts[0]).hubs[0])
    seen: list[object] = []
    world.watchers.append(lambda host, _, effects: seen.extend(effects) if host is unfit else None)
    world.post(unfit, ForwardingFailed())
    assert world.run_until(lambda: all(moved(host, unfit) for host in hosts), within_s=2)
    assert Forward(forwarding=NOTHING) in seen


# --- helpers ------------------------------------------------------------------------------------------------


def mesh_of(count: int, *, seed: int = 1, served: int = 0) -> tuple[World, list[Host]]:
    """``served``: so many of them live in a region of their own, and none of those wants to be a hub."""
    world = World(seed)
    founder = world.found("alpha", topology="regional")
    world.run(0.5)
    hosts = [founder]
    for number in range(1, count):
        host = world.make_joiner(f"n{number}")
        host.place = "far" if number >= count - served else founder.place
        world.enter(host, founder)
        assert host.node is not None
        host.node.presence.hub = "never" if host.place == "far" else "allow"
        hosts.append(host)
    assert world.run_until(lambda: all(len(plan_of(host).peers) > 0 for host in hosts), within_s=20)
    world.run(35)
    return world, hosts


def doubt(world: World, observer: Host, subject: Host) -> bytes:
    assert observer.node is not None
    member = observer.node.ledger.get(subject.id)
    assert member is not None
    assert member.record is not None
    incarnation, sequence = precedence(member.record)
    body = SuspectRecord(
        observer=observer.id,
        subject=subject.id,
        incarnation=incarnation,
        sequence=sequence,
        issued_at=int(world.instant(observer).unix_s),
        closed=False,
    )
    return envelope.sign(observer.key, world.mesh, body)


def say(world: World, to: Host, by: Host, record: bytes) -> None:
    assert to.node is not None
    link = to.node.links.link_to(by.id)
    assert link is not None
    frame = CODEC.encode(Facts(records=(record,), push=True))
    world.post(to, FrameReceived(link=link, frame=frame))


def moved(host: Host, lost: Host) -> bool:
    return lost.name not in plan_of(host).hubs


def plan_of(host: Host) -> MeshPlan:
    assert host.node is not None
    return host.node.tunnels.plan

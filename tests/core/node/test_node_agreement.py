"""Whole meshes that say from what they derive their plans: they agree soon after every change, and whoever
does not is named with the part."""

from __future__ import annotations

import msgspec
import pytest

from meshpeer.core.antientropy.digests import UNHEARD_S
from meshpeer.core.antientropy.rounds import RECONCILE_INTERVAL_S
from meshpeer.core.node.agreement import DIGEST_PAUSE_PER_MEMBER_S, LASTS_S, AgreementReport
from meshpeer.core.node.messages import CharterSigned, LeaveAsked
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.records.member import Verdict
from meshpeer.sim.host import Host
from meshpeer.sim.world import World

ROUNDS_3_S = 3 * RECONCILE_INTERVAL_S
STAMPED_AGAIN_S = 60 + ROUNDS_3_S
"""By then everybody said again what it derives its plan from, and was heard."""


def test_a_mesh_agrees_within_three_rounds_of_its_boot_and_of_a_change() -> None:
    world, hosts = mesh_of(5)
    assert world.run_until(lambda: all_agree(world, hosts), within_s=ROUNDS_3_S)
    change(world, hosts[0], mtu=1380)
    world.run(0.5)
    assert not all_agree(world, hosts), "others said nothing yet that knows of it"
    assert world.run_until(lambda: all_agree(world, hosts), within_s=ROUNDS_3_S)
    world.run(600)
    assert all_agree(world, hosts)


@pytest.mark.parametrize("topology", ["full", "regional"])
def test_members_with_and_without_interfaces_agree_in_either_mode(topology: str) -> None:
    world = World(3)
    founder = world.found("alpha", topology=topology)
    world.run(0.5)
    hosts = [founder, *(world.join(f"n{number}", founder, place="eu") for number in range(3))]
    world.wireguard_port = 0
    hosts.append(world.join("links-only", founder, place="us"))
    assert world.run_until(lambda: all_agree(world, hosts), within_s=120)
    world.run(120)
    assert all_agree(world, hosts)


@pytest.mark.sim
@pytest.mark.slow
def test_a_mesh_of_thirty_agrees_and_no_news_on_its_way_is_taken_for_more() -> None:
    world = World(4, keep_disks=False)
    hosts = world.grow(30)
    world.run(120)
    assert all_agree(world, hosts)
    change(world, hosts[0], keepalive_s=20)
    for _ in range(9):
        world.run(10)
        assert not any(one.lasts for host in hosts for one in report(world, host).differ)
    assert all_agree(world, hosts)


def test_a_member_that_holds_another_charter_is_named_with_the_part() -> None:
    world, hosts = mesh_of(5)
    world.run(ROUNDS_3_S)
    deaf = hosts[4]
    assert deaf.node is not None
    refuse_charters(deaf.node.ledger)
    change(world, hosts[0], mtu=1380)
    assert world.run_until(
        lambda: named(world, hosts[:4]) == [[(deaf.id, ("charter",))]] * 4, within_s=ROUNDS_3_S
    )
    assert [report(world, host).agree for host in hosts] == [4, 4, 4, 4, 1]
    world.run(LASTS_S + STAMPED_AGAIN_S)
    for host in hosts[:4]:
        (one,) = report(world, host).differ
        assert one.lasts
        assert one.for_s > LASTS_S
    assert all(one.parts == ("charter",) and one.lasts for one in report(world, deaf).differ)


def test_a_dead_member_agrees_with_nobody_and_the_others_agree_that_it_is_doubted() -> None:
    world, hosts = mesh_of(5)
    world.run(ROUNDS_3_S)
    world.crash(hosts[4], silent=True)
    alive = hosts[:4]
    assert world.run_until(
        lambda: all(
            (one.agree, one.total, one.differ, [silent.node for silent in one.unheard])
            == (4, 5, (), [hosts[4].id])
            for one in (report(world, host) for host in alive)
        ),
        within_s=60,
    )
    assert all(report(world, host).unheard[0].said_s is not None for host in alive)
    hosts[4].gone = False
    world.start(hosts[4])
    assert world.run_until(lambda: all_agree(world, hosts), within_s=90)


def test_a_side_that_is_cut_off_is_not_heard_from_and_agrees_again() -> None:
    world, hosts = mesh_of(5)
    world.run(ROUNDS_3_S)
    world.cut(hosts[:3], hosts[3:])
    world.run(UNHEARD_S + ROUNDS_3_S)
    assert {one.node for one in report(world, hosts[0]).unheard} == {hosts[3].id, hosts[4].id}
    assert {one.node for one in report(world, hosts[4]).unheard} == {host.id for host in hosts[:3]}
    assert [report(world, host).agree for host in hosts] == [3, 3, 3, 2, 2]
    world.heal()
    assert world.run_until(lambda: all_agree(world, hosts), within_s=120)


def test_who_joined_or_left_counts_at_once() -> None:
    world, hosts = mesh_of(3)
    world.run(ROUNDS_3_S)
    hosts.append(world.join("late", hosts[0]))
    assert world.run_until(lambda: all_agree(world, hosts), within_s=2 * ROUNDS_3_S)
    world.post(hosts[1], LeaveAsked())
    world.run(1)
    world.crash(hosts.pop(1))
    assert world.run_until(lambda: all_agree(world, hosts), within_s=2 * ROUNDS_3_S)


def test_a_storm_of_news_is_one_digest_a_moment_and_status_is_never_late() -> None:
    """At a thousand members a digest takes a tenth of a second to make."""
    world, hosts = mesh_of(5)
    world.run(ROUNDS_3_S)
    node, now = hosts[0].node, world.instant(hosts[0])
    assert node is not None
    before = node.agreement.say(now)
    change(world, hosts[0], mtu=1380)
    assert node.agreement.say(now) == before
    assert [one.parts for one in report(world, hosts[0]).differ] == [("charter",)] * 4
    assert node.agreement.say(now) != before
    change(world, hosts[0], mtu=1400)
    held = node.agreement.say(now)
    world.run(5 * DIGEST_PAUSE_PER_MEMBER_S)
    assert node.agreement.say(world.instant(hosts[0])) != held


def test_who_has_no_charter_yet_says_nothing_and_believes_nobody() -> None:
    world, hosts = mesh_of(2)
    world.run(ROUNDS_3_S)
    node = hosts[1].node
    assert node is not None
    word = node.agreement.say(world.instant(hosts[1]))
    assert word is not None
    node.ledger.charter = None
    assert node.agreement.say(world.instant(hosts[1])) is None
    assert node.agreement.hear(hosts[0].id, word, world.instant(hosts[1])) is None
    seen = report(world, hosts[1])
    assert (seen.agree, seen.total, seen.differ, len(seen.unheard)) == (0, 2, (), 2)


def test_a_clock_a_minute_off_agrees_and_one_an_hour_off_is_not_heard_from() -> None:
    world, hosts = mesh_of(4)
    hosts[2].clock_skew_s, hosts[3].clock_skew_s = 60.0, -3_600.0
    world.run(UNHEARD_S + STAMPED_AGAIN_S)
    seen = report(world, hosts[0])
    assert (seen.agree, seen.differ, [one.node for one in seen.unheard]) == (3, (), [hosts[3].id])


# --- helpers ------------------------------------------------------------------------------------------------


def mesh_of(count: int) -> tuple[World, list[Host]]:
    world = World(2)
    founder = world.found("alpha")
    world.run(0.5)
    hosts = [founder, *(world.join(f"n{number}", founder) for number in range(1, count))]
    assert world.run_until(lambda: all(len(host.node.ledger.ids) == count for host in hosts), within_s=20)  # type: ignore[union-attr]
    return world, hosts


def report(world: World, host: Host) -> AgreementReport:
    assert host.node is not None
    return host.node.agreement.report(world.instant(host))


def all_agree(world: World, hosts: list[Host]) -> bool:
    whole = AgreementReport(agree=len(hosts), total=len(hosts), differ=(), unheard=())
    return all(report(world, host) == whole for host in hosts)


def named(world: World, hosts: list[Host]) -> list[list[tuple[bytes, tuple[str, ...]]]]:
    return [[(one.node, one.parts) for one in report(world, host).differ] for host in hosts]


def change(world: World, host: Host, **changes: object) -> None:
    assert host.node is not None
    held = host.node.ledger.charter
    assert held is not None
    charter = msgspec.structs.replace(
        held, version=held.version + 1, issued_at=world.unix_s(), author=host.id, **changes
    )
    world.post(host, CharterSigned(envelope=envelope.sign(host.key, world.mesh, charter)))


def refuse_charters(ledger: Ledger) -> None:
    """Makes a ledger that takes no new charter, as one of a version that reads it otherwise would."""
    merge = ledger.merge

    def picky(data: bytes, *rest: object) -> Verdict:
        is_charter = isinstance(ledger.judge.open(data), CharterRecord)
        return Verdict.STALE if is_charter else merge(data, *rest)  # type: ignore[arg-type]

    ledger.merge = picky  # type: ignore[method-assign, assignment]

"""What becomes of who was revoked, and of those around it, in whole simulated meshes."""

from __future__ import annotations

import pytest

from meshpeer.core.antientropy.messages import Revoked
from meshpeer.core.effects import Note
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.messages import Hello
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.messages import FrameReceived, RevocationSigned
from meshpeer.core.node.node import Node
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import RevocationRecord
from meshpeer.sim.host import Host
from meshpeer.sim.world import World

ROUND_S = 1.0
"""Far more than one gossip round in a world of 5 ms, far less than the next reconciliation."""


# --- at once ------------------------------------------------------------------------------------------------


def test_a_revoked_node_is_out_everywhere_within_a_round() -> None:
    world, hosts = mesh_of(1, 7)
    founder, *others, gone = hosts
    revoke(world, founder, "node", gone.id)
    assert world.run_until(lambda: all(is_rid_of(one, gone) for one in (founder, *others)), within_s=ROUND_S)
    world.run(60)
    assert all(is_rid_of(one, gone) for one in (founder, *others))
    assert agree([founder, *others])


def test_the_revoked_node_knows_by_whom_and_why_from_the_proof_itself() -> None:
    world, hosts = mesh_of(2, 4)
    revoke(world, hosts[0], "node", hosts[3].id, reason="laptop stolen")
    world.run(ROUND_S)
    revoked = node_of(hosts[3]).presence.revoked
    assert revoked is not None
    assert (revoked.record.author, revoked.record.reason) == (hosts[0].id, "laptop stolen")
    assert node_of(hosts[3]).links.peers == []
    assert node_of(hosts[3]).ledger.get(hosts[3].id) is None


def test_a_revoked_node_comes_to_rest() -> None:
    """It derives no interface any more; what was due for one must not call it back for ever."""
    world, hosts = mesh_of(2, 4)
    founder, *_, gone = hosts
    revoke(world, founder, "node", gone.id)
    world.run(5)
    due = node_of(gone).derived.deadline
    assert due is not None
    world.run(max(0.0, due.at_s - world.instant(gone).mono_s) + 1)
    before = world.steps
    world.run(2)
    assert world.steps - before < 200


@pytest.mark.parametrize("what", ["issuer", "node"])
def test_an_issuer_comes_to_rest_whether_its_key_was_revoked_or_itself(what: str) -> None:
    world, hosts = mesh_of(3, 3)
    founder, other, _ = hosts
    assert node_of(founder).issuing.authority is not None
    subject = founder.id if what == "node" else world.issuer.id
    revoke_by_root(world, other, subject, what)
    assert world.run_until(
        lambda: node_of(founder).presence.revoked is not None or node_of(founder).issuing.authority is None,
        within_s=ROUND_S,
    )
    world.run(5)
    now = world.instant(founder)
    due = node_of(founder).next_deadline()
    assert due is None or due.at_s > now.mono_s, due


def test_it_can_not_come_back_after_a_restart_of_either_side() -> None:
    world, hosts = mesh_of(3, 5)
    founder, *others, gone = hosts
    revoke(world, founder, "node", gone.id)
    world.run(5)
    for host in hosts:
        world.crash(host)
    for host in hosts:
        world.start(host)
    world.run(90)
    assert all(is_rid_of(one, gone) for one in (founder, *others))
    assert node_of(gone).presence.revoked is not None


@pytest.mark.parametrize("behind_s", [0.0, 1_800.0, 86_400.0])
def test_one_that_was_told_nothing_and_comes_back_wiped_is_refused(behind_s: float) -> None:
    """With its old certificate and its old invite, whatever its clock says."""
    world, hosts = mesh_of(4, 4)
    founder, *others, gone = hosts
    world.crash(gone)
    revoke(world, founder, "node", gone.id)
    world.run(5)
    world.wipe(gone)
    gone.clock_skew_s = -behind_s
    world.start(gone)
    world.run(60)
    assert all(is_rid_of(one, gone) for one in (founder, *others))
    # A day ago the others' certificates were not valid yet, so it takes no word of theirs.
    assert (node_of(gone).presence.revoked is None) is (behind_s == 86_400.0)


def test_a_revoked_hub_gives_its_place_to_the_one_that_stands_by() -> None:
    world = World(14)
    founder = world.found("alpha", topology="regional")
    world.run(0.5)
    hosts = [founder, *(world.join(f"n{number}", founder) for number in range(1, 5))]
    assert world.run_until(lambda: all(len(node_of(one).roster.members) == 5 for one in hosts), within_s=20)
    world.run(60)
    (hub_name,), (standby_name,) = node_of(founder).tunnels.plan.hubs, node_of(founder).tunnels.plan.standbys
    hub = next(one for one in hosts if one.name == hub_name)
    stay = [one for one in hosts if one is not hub]
    revoke_by_root(world, stay[0], hub.id)
    assert world.run_until(
        lambda: all(
            is_rid_of(one, hub) and node_of(one).tunnels.plan.hubs == (standby_name,) for one in stay
        ),
        within_s=10,
    )


# --- partitions and absences --------------------------------------------------------------------------------


def test_what_was_revoked_beyond_a_partition_holds_before_anything_is_believed_after_it() -> None:
    """The far half holds the revoked node until it heals. From the first link to the near half on, each of
    its nodes takes nothing of that one: not for a single step."""
    world, hosts = mesh_of(5, 8)
    near, far = hosts[:4], hosts[4:]
    gone = far[3]
    rest = far[:3]
    world.cut(near, far)
    world.run(20)
    revoke(world, near[0], "node", gone.id)
    world.run(20)
    assert all(is_rid_of(one, gone) for one in near)
    assert all(node_of(one).ledger.is_in(gone.id) for one in rest)
    taken, early = taken_and_early(world, rest, near, gone)
    first: list[float] = []

    def healed() -> bool:
        if not first and any(node_of(one).links.link_to(other.id) for one in rest for other in near):
            first.append(world.now_s)
        return all(is_rid_of(one, gone) for one in rest)

    world.heal()
    assert world.run_until(healed, within_s=60)
    assert world.now_s - first[0] <= ROUND_S
    world.run(30)
    assert taken
    assert early == []
    assert agree([*near, *rest])


def test_two_halves_that_revoked_different_nodes_have_one_set_after_they_meet() -> None:
    world, hosts = mesh_of(6, 8, admins=(4,))
    near, far = hosts[:4], hosts[4:]
    world.cut(near, far)
    world.run(5)
    revoke(world, near[0], "node", near[3].id)
    revoke(world, far[0], "node", far[3].id)
    world.run(5)
    world.heal()
    stay = [*near[:3], *far[:3]]
    assert world.run_until(
        lambda: all(is_rid_of(one, gone) for one in stay for gone in (near[3], far[3])), within_s=60
    )
    assert world.run_until(lambda: agree(stay), within_s=30)


def test_a_node_that_was_away_hears_of_it_before_it_believes_the_revoked_one() -> None:
    world, hosts = mesh_of(7, 5)
    founder, *others, away, gone = hosts
    world.crash(away)
    world.run(1)
    revoke(world, founder, "node", gone.id)
    world.run(5)
    taken, early = taken_and_early(world, [away], [founder, *others], gone)
    world.start(away)
    assert world.run_until(lambda: is_rid_of(away, gone), within_s=20)
    world.run(30)
    assert taken
    assert early == []
    assert agree([founder, *others, away])


def test_who_joins_later_holds_it_too() -> None:
    world, hosts = mesh_of(8, 3)
    revoke(world, hosts[0], "node", hosts[2].id)
    world.run(2)
    late = world.join("late", hosts[1])
    assert world.run_until(lambda: len(node_of(late).links.peers) == 2, within_s=20)
    assert node_of(late).ledger.revocations.of_node(hosts[2].id) is not None
    assert is_rid_of(late, hosts[2])


# --- invites and issuers ------------------------------------------------------------------------------------


def test_a_revoked_invite_lets_nobody_in_by_any_member() -> None:
    world, hosts = mesh_of(9, 4)
    invite = world.make_invite(uses=5)
    revoke(world, hosts[0], "invite", invite.id)
    world.run(2)
    late = [world.join(f"late-{number}", seed, invite=invite) for number, seed in enumerate(hosts)]
    world.run(30)
    assert all(is_rid_of(one, other) for one in hosts for other in late)


@pytest.mark.parametrize("since_later", [False, True], ids=["everybody", "newcomers"])
def test_a_revoked_invite_takes_its_members_along_or_leaves_those_it_had(since_later: bool) -> None:
    world, hosts = mesh_of(10, 3)
    invite = world.make_invite(uses=5)
    member = world.join("member", hosts[0], invite=invite)
    assert world.run_until(
        lambda: node_of(hosts[2]).ledger.is_in(member.id) and len(member.chain) == 2, within_s=20
    )
    world.run(5)
    revoke(world, hosts[0], "invite", invite.id, since=world.unix_s() if since_later else 0)
    world.run(2)
    late = world.join("late", hosts[1], invite=invite)
    world.run(20)
    assert all(is_rid_of(one, late) for one in hosts)
    assert [node_of(one).ledger.is_in(member.id) for one in hosts] == [since_later] * 3


# --- voids --------------------------------------------------------------------------------------------------


def test_whom_a_stolen_admin_key_shut_out_is_back_when_a_root_voids_it() -> None:
    world, hosts = mesh_of(11, 5, admins=(1,))
    founder, thief, *others = hosts
    victim = others[2]
    revoke(world, thief, "node", victim.id)
    world.run(5)
    assert is_rid_of(founder, victim)
    revoke_by_root(world, founder, thief.id)
    world.run(3)
    assert is_rid_of(founder, thief)
    stay = [founder, *others]
    assert world.run_until(
        lambda: all(node_of(one).ledger.is_in(victim.id) for one in stay) and agree(stay), within_s=60
    )


# --- rogues -------------------------------------------------------------------------------------------------


def test_a_forged_revocation_shuts_out_its_sender_and_nobody_else() -> None:
    world, hosts = mesh_of(12, 4)
    founder, forger, victim, other = hosts
    body = record(world, founder.id, "node", victim.id)
    forged = envelope.sign(forger.key, world.mesh, body)
    message = Revoked(chains=(founder.chain,), said=((1, forged),))
    node = node_of(other)
    link = node.links.link_to(forger.id)
    assert link is not None
    world.run(1)
    effects = node.handle(FrameReceived(link=link, frame=CODEC.encode(message)), world.instant(other))
    assert node.ledger.is_in(victim.id)
    assert node.links.link_to(forger.id) is None
    assert not any(isinstance(one, Note) and one.fact == "a member was revoked" for one in effects)
    assert forger.id in node.offences


def test_a_member_without_the_right_revokes_nobody() -> None:
    world, hosts = mesh_of(13, 4)
    revoke(world, hosts[1], "node", hosts[2].id)
    world.run(5)
    assert all(node_of(one).ledger.is_in(hosts[2].id) for one in hosts)


# --- helpers ------------------------------------------------------------------------------------------------


def mesh_of(seed: int, count: int, *, admins: tuple[int, ...] = ()) -> tuple[World, list[Host]]:
    """Returns a settled mesh; ``admins`` are places of hosts that hold every capability, as the founder."""
    world = World(seed)
    founder = world.found("alpha")
    world.run(0.5)
    hosts = [founder]
    for number in range(1, count):
        if number in admins:
            host = world.make_joiner(f"n{number}")
            host.chain = world.office.durable(host.key, founder=True, now_unix_s=world.unix_s())
            world.enter(host, founder)
        else:
            host = world.join(f"n{number}", founder)
        hosts.append(host)

    def settled() -> bool:
        return all(
            len(node_of(one).roster.members) == count and len(node_of(one).links.peers) == count - 1
            for one in hosts
        )

    assert world.run_until(settled, within_s=20)
    world.run(3)
    return world, hosts


def taken_and_early(
    world: World, hosts: list[Host], those_who_know: list[Host], gone: Host
) -> tuple[list[str], list[str]]:
    """Returns two lists of messages that the hosts take of those who know, as they come: all of them, and
    those that were taken by one that still held anything of the revoked node."""
    taken: list[str] = []
    early: list[str] = []
    known = {one.id for one in those_who_know}

    def look(host: Host, event: object, effects: object) -> None:
        if host not in hosts or not isinstance(event, FrameReceived):
            return
        said = CODEC.decode(event.frame)
        if node_of(host).links.peer_of(event.link) not in known or isinstance(said, Hello | Revoked):
            return
        taken.append(type(said).__name__)
        if not is_rid_of(host, gone, device=False):
            early.append(f"{host.name} took {taken[-1]}")

    world.watchers.append(look)
    return taken, early


def node_of(host: Host) -> Node:
    assert host.node is not None
    return host.node


def record(
    world: World, author: NodeId, what: str, subject: bytes, *, reason: str = "", since: int = 0
) -> RevocationRecord:
    return RevocationRecord(
        what=what, subject=subject, author=author, issued_at=world.unix_s(), since=since, reason=reason
    )


def revoke(world: World, by: Host, what: str, subject: bytes, *, reason: str = "", since: int = 0) -> None:
    body = record(world, by.id, what, subject, reason=reason, since=since)
    signed = envelope.sign(by.key, world.mesh, body)
    world.post(by, RevocationSigned(envelope=signed, chain=by.chain))


def revoke_by_root(world: World, through: Host, subject: bytes, what: str = "node") -> None:
    key = SigningKey(world.root.seed)
    signed = envelope.sign(key, world.mesh, record(world, key.public, what, subject))
    world.post(through, RevocationSigned(envelope=signed, chain=()))


def is_rid_of(host: Host, gone: Host, *, device: bool = True) -> bool:
    """Says whether nothing of a node is left on another: no fact, no link, no tunnel. ``device``: what the
    interface holds counts, too, and takes a moment to be applied."""
    node = node_of(host)
    keys = {peer.public_key for peer in (host.device.peers if host.device else ())}
    return (
        node.ledger.get(gone.id) is None
        and node.links.link_to(gone.id) is None
        and node.roster.get(gone.id) is None
        and not (device and gone.wireguard.public in keys)
    )


def agree(hosts: list[Host]) -> bool:
    return len({node_of(one).ledger.fingerprint for one in hosts}) == 1

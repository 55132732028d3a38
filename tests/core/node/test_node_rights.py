"""What a certificate does not allow is believed of nobody, and whoever claims it is named."""

from __future__ import annotations

import msgspec

from meshpeer.core.antientropy.messages import Facts
from meshpeer.core.effects import Send
from meshpeer.core.identity.certificates import make_durable_leaf
from meshpeer.core.identity.constraints import INVITE_DEFAULT, Capability
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.messages import FrameReceived
from meshpeer.core.node.rights import Rights, overreach
from meshpeer.core.paths.relay_messages import RelayAsked, RelayRefused
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import CharterRecord, MemberRecord
from meshpeer.sim.host import Host
from meshpeer.sim.world import World

LESS = INVITE_DEFAULT - {Capability.HUB, Capability.RELAY, Capability.WORK, Capability.SUBMIT}


def test_hub_and_relay_beyond_the_certificate_are_ignored_and_named() -> None:
    world, alpha, beta = two()
    reissue(world, beta, LESS)
    tell(world, beta, alpha, msgspec.structs.replace(record_of(beta), hub="prefer", warm=True, relay=True))
    listed = alpha.node.roster.get(beta.id) if alpha.node else None
    assert listed is not None
    assert overreach(listed) == "a hub and a relay"
    assert alpha.node is not None
    assert alpha.node.ledger.charter is not None
    view = alpha.node.derived.layout(alpha.node.ledger.charter, ()).shape.view
    assert {one.node: one.hub for one in view.members}[beta.id] == "never"
    assert beta.id not in [one.node for one in alpha.node.relays._lenders.all]


def test_node_whose_certificate_is_narrowed_takes_its_claims_back() -> None:
    world, alpha, beta = two()
    assert record_of(beta).hub == "allow"
    reissue(world, beta, LESS)
    assert record_of(beta).hub == "never"
    listed = alpha.node.roster.get(beta.id) if alpha.node else None
    assert listed is not None
    assert overreach(listed) == ""


def test_rights_follow_the_certificate_that_counts() -> None:
    world, alpha, beta = two()
    assert alpha.node is not None
    rights = Rights(alpha.node.ledger, alpha.id)
    assert (rights.may_work(beta.id), rights.may_submit(beta.id)) == (True, True)
    reissue(world, beta, LESS)
    assert (rights.may_work(beta.id), rights.may_submit(beta.id)) == (False, False)
    assert beta.node is not None
    assert not beta.node.scheduler.worker.accepting
    assert not rights.may_work(NodeId(bytes(range(32))))


def test_certificate_without_membership_ends_tunnels_and_place() -> None:
    world, alpha, beta = two()
    assert alpha.node is not None
    assert alpha.node.desired is not None
    key = record_of(beta).wireguard_key
    assert key in [one.public_key for one in alpha.node.desired.peers]
    reissue(world, beta, INVITE_DEFAULT - {Capability.MEMBER})
    assert not alpha.node.ledger.is_in(beta.id)
    assert key not in [one.public_key for one in alpha.node.desired.peers]


def test_who_says_in_its_own_name_what_it_may_not_is_named() -> None:
    world, alpha, beta = two()
    charter = CharterRecord(
        version=9,
        issued_at=int(world.instant(alpha).unix_s),
        author=beta.id,
        mesh_name="mine",
        subnet="10.99.0.0/24",
    )
    say(world, beta, alpha, envelope.sign(beta.key, world.mesh, charter))
    assert alpha.node is not None
    assert alpha.node.offences[beta.id].what == "charter is signed by a node without the capability admin"
    lan = msgspec.structs.replace(record_of(beta), routes=("192.168.7.0/24",))
    tell(world, beta, alpha, lan)
    assert alpha.node.offences[beta.id].times == 2
    assert "LAN" in alpha.node.offences[beta.id].what


def test_ports_are_lent_only_by_who_may_relay() -> None:
    world, alpha, beta = two()
    assert beta.node is not None
    reissue(world, beta, LESS)
    asked = RelayAsked(pair=tuple(sorted((alpha.id, bytes(32)))))  # type: ignore[arg-type]
    answers = beta.node.relays.on_message(alpha.id, asked, world.instant(beta))
    assert [type(one.message) for one in answers if isinstance(one, Send)] == [RelayRefused]
    assert not beta.node.relays.desk.reservations


# --- helpers ------------------------------------------------------------------------------------------------


def two() -> tuple[World, Host, Host]:
    world = World(31)
    alpha = world.found("alpha")
    world.run(0.5)
    beta = world.join("beta", alpha)
    beta.lends = True
    world.run(5)
    assert alpha.node is not None
    assert beta.id in alpha.node.links.peers
    return world, alpha, beta


def reissue(world: World, host: Host, capabilities: frozenset[Capability]) -> None:
    """Lets the mesh's issuer sign a new, longer certificate for a host, and everybody hear of it."""
    now = int(world.instant(host).unix_s) + 60
    leaf = make_durable_leaf(
        world.office.issuer,
        host.key.public,
        capabilities=capabilities,
        roles=("compute",),
        admitted_at=now,
        now_unix_s=now,
        serial=world.entropy(8),
    )
    chain = (leaf, world.office.issuer.certificate)
    for one in world.hosts.values():
        if one.node is not None:
            for effect in one.node._spread([chain], (), world.instant(one)):
                world._perform(one, effect)
    world.run(3)


def record_of(host: Host) -> MemberRecord:
    assert host.node is not None
    assert host.node.presence.record is not None
    return host.node.presence.record


def tell(world: World, liar: Host, to: Host, record: MemberRecord) -> None:
    said = msgspec.structs.replace(record, sequence=record.sequence + 5)
    say(world, liar, to, envelope.sign(liar.key, world.mesh, said))


def say(world: World, liar: Host, to: Host, signed: bytes) -> None:
    assert to.node is not None
    link = to.node.links.link_to(liar.id)
    assert link is not None
    world.post(to, FrameReceived(link=LinkId(link), frame=CODEC.encode(Facts(records=(signed,)))))
    world.run(0.3)

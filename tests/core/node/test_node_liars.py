"""A member that lies: whatever it sends, nobody stops, and it speaks for nobody but itself."""

from __future__ import annotations

import random
import types
import typing

import msgspec
import pytest

from meshpeer.core.antientropy import messages as antientropy
from meshpeer.core.antientropy.facts import facts_about
from meshpeer.core.antientropy.messages import Facts
from meshpeer.core.antientropy.ranges import Reconciler
from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Persist
from meshpeer.core.identity.certificates import make_durable_leaf
from meshpeer.core.identity.constraints import ALL, Capability
from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey
from meshpeer.core.ids import Digest, LinkId, NodeId
from meshpeer.core.membership import messages as membership
from meshpeer.core.membership.messages import CloseLink, Hello, LinkClosed, LinkOpened, Refusal
from meshpeer.core.node import messages as own_messages
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.gossip import Gossip
from meshpeer.core.node.messages import ApplyDevice, FrameReceived, RenameAsked, SendFrame
from meshpeer.core.node.node import BAN_S
from meshpeer.core.paths.relay_messages import RelayAsked, RelayRefused
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import CharterRecord, LeaveRecord, MemberRecord
from meshpeer.core.records.ledger import CHARTER_ID, Chain, Ledger
from meshpeer.core.scheduler import messages as jobs
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.sim.host import Host
from meshpeer.sim.world import EPOCH_S, World

FRAMES = (*membership.FRAMES, *antientropy.FRAMES, *own_messages.FRAMES, *jobs.FRAMES)
NOW = int(EPOCH_S)


# --- any frame ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__struct_config__.tag)
def test_no_frame_of_a_member_stops_a_node(kind: type[msgspec.Struct]) -> None:
    dice = random.Random(str(kind))
    liar = Liar(World(21))
    for _ in range(40):
        message = value_of(kind, dice, liar)
        assert isinstance(message, msgspec.Struct)
        try:
            frame = CODEC.encode(message)
        except ValueError:
            # Wider than CBOR's integers, or longer than a frame: nobody can send it.
            continue
        liar.say(frame)
        liar.check()


def test_no_altered_frame_stops_a_node() -> None:
    dice = random.Random(22)
    liar = Liar(World(22))
    honest: list[msgspec.Struct] = [
        Reconciler(liar.node.ledger).open(),
        *facts_about(liar.node.ledger, [liar.alpha.id, CHARTER_ID]),
        liar.hello(),
    ]
    for _ in range(300):
        altered = bytearray(CODEC.encode(dice.choice(honest)))
        for _ in range(dice.randrange(1, 4)):
            altered[dice.randrange(len(altered))] = dice.randrange(256)
        liar.say(bytes(altered[: len(altered) - dice.choice((0, 0, 1, 50))]))
        liar.check()


@pytest.mark.parametrize("frame", [b"", b"\0", b"\1", b"\0\xa0", b"\0\xff", b"\0" + bytes(65_000)])
def test_rubbish_ends_the_link_with_a_reason(frame: bytes) -> None:
    effects = Liar(World(23)).say(frame)
    sent = [CODEC.decode(one.frame) for one in effects if isinstance(one, SendFrame)]
    assert len([one for one in sent if isinstance(one, Refusal)]) == 1
    assert [one for one in effects if isinstance(one, CloseLink)]


def test_rubbish_that_never_comes_to_core_is_an_offence_too() -> None:
    liar = Liar(World(23))
    link = liar.open()
    ended = LinkClosed(link=link, reason="more than 8 blob requests at once", fault=True)
    liar.node.handle(ended, liar.world.instant(liar.alpha))
    assert liar.node.offences[liar.id].what == "more than 8 blob requests at once"


def test_frame_of_a_later_version_is_passed_over() -> None:
    frame = b"\0" + cbor.encode({"t": "teleport", "where": "home"})
    assert not [one for one in Liar(World(23)).say(frame) if isinstance(one, CloseLink)]


def test_greeting_of_a_foreign_mesh_is_refused_and_changes_nothing() -> None:
    world, foreign = World(25), World(26)
    alpha, stranger = world.found("alpha"), foreign.found("stranger")
    world.run(0.5)
    assert alpha.node is not None
    opened = LinkOpened(
        link=LinkId(900), peer=stranger.id, leaf=stranger.chain[0], remote="192.0.2.66:1", dialled=""
    )
    alpha.node.handle(opened, world.instant(alpha))
    hello = Hello(
        versions=(1,),
        mesh=world.mesh,
        chain=stranger.chain,
        clock_ms=0,
        observed="192.0.2.1:51821",
        control_port=1,
    )
    frame = FrameReceived(link=LinkId(900), frame=CODEC.encode(hello))
    effects = alpha.node.handle(frame, world.instant(alpha))
    sent = [CODEC.decode(one.frame) for one in effects if isinstance(one, SendFrame)]
    assert [type(one) for one in sent] == [Refusal]
    assert [type(one) for one in effects if isinstance(one, CloseLink | ApplyDevice)] == [CloseLink]
    assert alpha.node.ledger.get(stranger.id) is None


# --- facts --------------------------------------------------------------------------------------------------


def test_record_with_somebody_elses_signature_closes_the_link() -> None:
    liar = Liar(World(24))
    effects = liar.tell(msgspec.structs.replace(liar.before, incarnation=liar.before.incarnation + 1))
    assert [one.reason for one in effects if isinstance(one, CloseLink)] == ["signature does not verify"]
    liar.check()


def test_nobody_but_the_subject_ends_a_membership() -> None:
    liar = Liar(World(24))
    body = LeaveRecord(
        node=liar.alpha.id,
        incarnation=liar.before.incarnation,
        sequence=99,
        issued_at=liar.before.issued_at,
        ttl_s=86_400,
    )
    effects = liar.tell(body)
    assert [one.reason for one in effects if isinstance(one, CloseLink)] == ["signature does not verify"]
    liar.check()


def test_charter_of_a_member_without_the_right_changes_nothing() -> None:
    liar = Liar(World(24))
    before = liar.node.ledger.charter
    assert before is not None
    liar.tell(
        CharterRecord(version=99, issued_at=NOW, author=liar.id, mesh_name="mine", subnet="10.99.0.0/24")
    )
    assert liar.node.ledger.charter == before


@pytest.mark.parametrize(
    "claim",
    [
        {"ipv4": "10.10.0.1"},
        {"ipv4": "10.10.0.0"},
        {"ipv4": "10.10.0.255"},
        {"ipv4": "192.0.2.1"},
        {"ipv4": "0.0.0.0"},
        {"name": "alpha"},
        {"wireguard_endpoints": ("10.10.0.1:51820", "127.0.0.1:51820", "224.0.0.1:1", "0.0.0.0:5")},
        {"control_endpoints": ("127.0.0.1:22",) * 8},
        {"wireguard_port": 1},
    ],
)
def test_claim_to_what_is_another_ones_takes_nothing_from_it(claim: dict[str, object]) -> None:
    world, alpha, beta, liar = three(22)
    before = tunnels_of(alpha), tunnels_of(beta)
    publish_as(world, liar, alpha, claim)
    for host, tunnels in zip((alpha, beta), before, strict=True):
        others = {key: allowed for key, allowed in tunnels_of(host).items() if key != liar.wireguard.public}
        assert others
        assert others.items() <= tunnels.items()
        assert host.node is not None
        listed = host.node.roster.get(alpha.id)
        assert listed is not None
        assert (listed.name, listed.ipv4) == ("alpha", "10.10.0.1")


@pytest.mark.parametrize("seed", [23, 24, 25, 26])
def test_member_that_shows_anothers_wireguard_key_does_not_take_over_its_addresses(seed: int) -> None:
    """WireGuard knows peers by key alone: who was admitted first holds it, whatever the ids."""
    world, alpha, beta, liar = three(seed)
    before = tunnels_of(alpha)[beta.wireguard.public]
    publish_as(world, liar, alpha, {"wireguard_key": beta.wireguard.public})
    assert alpha.node is not None
    assert alpha.node.desired is not None
    keys = [peer.public_key for peer in alpha.node.desired.peers]
    assert len(keys) == len(set(keys))
    assert tunnels_of(alpha)[beta.wireguard.public] == before


# --- what is one's own --------------------------------------------------------------------------------------


def test_own_record_that_others_hold_and_this_node_does_not_is_overtaken() -> None:
    """A state folder restored from a backup: others know of later records of this very node."""
    liar = Liar(World(24))
    later = msgspec.structs.replace(liar.before, incarnation=liar.before.incarnation + 50, sequence=7)
    liar.tell(later, key=liar.alpha.key)
    liar.world.run(2)
    assert own_record(liar.alpha).incarnation == liar.before.incarnation + 51
    assert record_of(liar.alpha, liar.alpha) == own_record(liar.alpha)


def test_own_contradiction_that_others_hold_is_ended_by_a_newer_record() -> None:
    """A crash lost the last record that others had heard, and the same counters were used again."""
    liar = Liar(World(24))
    liar.tell(msgspec.structs.replace(liar.before, name="other"), key=liar.alpha.key)
    liar.world.run(2)
    member = liar.node.ledger.get(liar.alpha.id)
    assert member is not None
    assert (member.record, member.proof) == (own_record(liar.alpha), None)
    assert own_record(liar.alpha).incarnation > liar.before.incarnation


def test_own_news_wait_for_the_disk() -> None:
    """A crash between the two would let this node sign two bodies of one precedence."""
    liar = Liar(World(25))
    liar.open()
    liar.world.run(2)
    effects = liar.node.handle(RenameAsked(name="omega"), liar.world.instant(liar.alpha))
    (written,) = [one for one in effects if isinstance(one, Persist)]
    told = [one for one in effects if isinstance(one, SendFrame)]
    assert told
    assert {one.after for one in told} == {written.ticket}


# --- limits -------------------------------------------------------------------------------------------------


def test_bare_records_of_many_members_travel_on_in_frames_that_fit() -> None:
    """A frame may hold sixty records and no chain; whoever passes them on adds the chains they stand on."""
    world = World(24)
    ledger = Ledger(world.mesh, (world.root.certificate,))
    records: list[bytes] = []
    for number in range(80):
        key = SigningKey(number.to_bytes(32, "big"))
        leaf = make_durable_leaf(
            world.issuer, key.public, capabilities=ALL, admitted_at=NOW, now_unix_s=NOW, serial=bytes(8)
        )
        chain: Chain = (leaf, world.issuer.certificate)
        ledger.admit(chain, NOW)
        records.append(envelope.sign(key, world.mesh, long_record(key, chain)))
    source, other = SigningKey(b"s" * 32).public, SigningKey(b"o" * 32).public
    gossip = Gossip(ledger, linked=lambda: [source, other], jitter=world.random, counters=Counters())
    for peer in (source, other):
        gossip.on_up(peer, Instant(0.0, 0.0), opens=False)
    outcome = gossip.on_facts(
        source, Facts(records=tuple(records), push=True), world.instant(world.found("alpha"))
    )
    assert {peer for peer, _ in outcome.sends} == {other}
    frames = [CODEC.encode(message) for _, message in outcome.sends]
    assert max(map(len, frames)) <= FRAME_BYTES_MAX
    passed_on = [one for _, message in outcome.sends if isinstance(message, Facts) for one in message.records]
    assert passed_on == records


@pytest.mark.parametrize("length", [0, 31, 33, 65_440])
def test_a_name_of_any_length_in_a_pair_is_not_repeated_by_who_lends_no_ports(length: int) -> None:
    liar = Liar(World(25))
    assert not liar.node.relays.lends
    frame = CODEC.encode(RelayAsked(pair=(liar.id, NodeId(bytes(length)))))
    assert len(frame) <= FRAME_BYTES_MAX
    assert not [one for one in liar.say(frame) if kind_of(one) is RelayRefused]
    low, high = sorted((liar.id, NodeId(bytes(32))))
    asked = liar.say(CODEC.encode(RelayAsked(pair=(low, high))))
    assert [one for one in asked if kind_of(one) is RelayRefused], "a pair is answered"
    liar.check()


# --- helpers ------------------------------------------------------------------------------------------------


class Liar:
    """A member without a node: it says to alpha whatever a test wants, each time on a link of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alpha = world.found("alpha")
        world.run(2)
        assert self.alpha.node is not None
        self.node = self.alpha.node
        self.key = SigningKey(b"l" * 32)
        self.id = self.key.public
        leaf = make_durable_leaf(
            world.issuer,
            self.id,
            capabilities={Capability.MEMBER, Capability.SUBMIT, Capability.WORK},
            admitted_at=NOW,
            now_unix_s=NOW,
            serial=bytes(8),
        )
        self.chain: Chain = (leaf, world.issuer.certificate)
        self.before = own_record(self.alpha)
        self._link = 10_000

    def hello(self) -> Hello:
        return Hello(
            versions=(1,),
            mesh=self.world.mesh,
            chain=self.chain,
            clock_ms=0,
            observed="192.0.2.1:51821",
            control_port=1,
        )

    def open(self) -> LinkId:
        """Opens a link and greets."""
        self._link += 1
        link = LinkId(self._link)
        now = self.world.instant(self.alpha)
        opened = LinkOpened(link=link, peer=self.id, leaf=self.chain[0], remote="192.0.2.66:1", dialled="")
        self.node.handle(opened, now)
        self.node.handle(FrameReceived(link=link, frame=CODEC.encode(self.hello())), now)
        assert self.node.links.peer_of(link) == self.id
        return link

    def say(self, frame: bytes) -> list[object]:
        """Sends one frame on a new link, and returns what alpha does about it; then the link closes."""
        link = self.open()
        effects = self.node.handle(FrameReceived(link=link, frame=frame), self.world.instant(self.alpha))
        for effect in effects:
            self.world._perform(self.alpha, effect)
        self.world.post(self.alpha, LinkClosed(link=link, reason="the liar is done"))
        self.world.run(0.05)
        if self.id in self.node.links.banned(self.world.instant(self.alpha)):
            self.world.run(BAN_S)
        return list(effects)

    def tell(self, body: object, *, key: SigningKey | None = None) -> list[object]:
        """Says a record, signed by the liar, or by somebody whose key it has."""
        record = envelope.sign(key or self.key, self.world.mesh, body)
        return self.say(CODEC.encode(Facts(records=(record,))))

    def check(self) -> None:
        """Raises where alpha was harmed."""
        self.node.links.check()
        assert own_record(self.alpha) == self.before
        assert record_of(self.alpha, self.alpha) == self.before
        assert {one.node for one in self.node.ledger} <= {self.alpha.id, self.id}


def three(seed: int) -> tuple[World, Host, Host, Host]:
    """The founder and two members, all linked; the last one is to lie."""
    world = World(seed)
    alpha = world.found("alpha")
    world.run(0.5)
    beta = world.join("beta", alpha)
    world.run(2.5)
    liar = world.join("liar", alpha)
    hosts = [alpha, beta, liar]
    assert world.run_until(lambda: all(len(links_of(one)) == 2 for one in hosts), within_s=20)
    world.run(3)
    return world, alpha, beta, liar


def publish_as(world: World, liar: Host, to: Host, claim: dict[str, object]) -> None:
    """Lets the liar sign what no node would say of itself, and tell it to one that passes it on."""
    held = own_record(liar)
    said = msgspec.structs.replace(held, sequence=held.sequence + 5, **claim)
    frame = CODEC.encode(Facts(records=(envelope.sign(liar.key, world.mesh, said),)))
    assert to.node is not None
    link = to.node.links.link_to(liar.id)
    assert link is not None
    world.post(to, FrameReceived(link=link, frame=frame))
    assert record_of(to, liar) == said
    world.run(0.5)


def kind_of(effect: object) -> type | None:
    """Returns the kind of message of a frame to send."""
    return type(CODEC.decode(effect.frame)) if isinstance(effect, SendFrame) else None


def links_of(host: Host) -> list[bytes]:
    return list(host.node.links.peers) if host.node else []


def own_record(host: Host) -> MemberRecord:
    assert host.node is not None
    assert host.node.presence.record is not None
    return host.node.presence.record


def record_of(host: Host, of: Host) -> MemberRecord | None:
    """Returns what a host holds of another."""
    assert host.node is not None
    member = host.node.ledger.get(of.id)
    return member.record if member else None


def tunnels_of(host: Host) -> dict[bytes, tuple[str, ...]]:
    assert host.node is not None
    assert host.node.desired is not None
    return {peer.public_key: tuple(map(str, peer.allowed_ips)) for peer in host.node.desired.peers}


def long_record(key: SigningKey, chain: Chain) -> MemberRecord:
    endpoints = tuple(f"{'h' * 28}{number}.example:51820" for number in range(8))
    return MemberRecord(
        node=key.public,
        incarnation=NOW,
        sequence=1,
        issued_at=NOW,
        ttl_s=86_400,
        name="node",
        region="",
        roles=(),
        wireguard_key=WireGuardPrivateKey(key.seed).public,
        wireguard_port=51820,
        control_endpoints=endpoints,
        wireguard_endpoints=endpoints[:3],
        certificate=Digest(envelope.digest_of(chain[0])),
    )


def value_of(hint: object, dice: random.Random, liar: Liar) -> object:
    """Draws a value of a field's type; ids and facts that exist are among them."""
    if isinstance(hint, typing.NewType):
        return value_of(hint.__supertype__, dice, liar)
    if hint is int:
        return dice.choice((dice.randrange(-3, 4), dice.randrange(-(2**63), 2**63), 2**64 - 1))
    if hint is bool:
        return dice.random() < 0.5
    if hint is bytes:
        known = [liar.id, liar.alpha.id, *liar.alpha.disk.values(), *liar.chain, bytes(32), b""]
        return dice.choice((dice.choice(known), dice.randbytes(dice.randrange(40))))
    if hint is str:
        return dice.choice(("", "alpha", "10.10.0.1", "\x1b[31m", "é" * dice.randrange(9)))
    if hint is type(None):
        return None
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and arguments[-1] is Ellipsis:
        return tuple(value_of(arguments[0], dice, liar) for _ in range(dice.randrange(4)))
    if origin is tuple:
        return tuple(value_of(one, dice, liar) for one in arguments)
    if origin in (typing.Union, types.UnionType):
        return value_of(dice.choice(arguments), dice, liar)
    assert isinstance(hint, type), hint
    assert issubclass(hint, msgspec.Struct), hint
    hints = typing.get_type_hints(hint)
    return hint(**{name: value_of(hints[name], dice, liar) for name in hint.__struct_fields__})

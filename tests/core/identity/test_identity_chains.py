"""Chains under our rules and under OpenSSL's, side by side: a table of forgeries, and mutations at random."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.identity import profile
from meshpeer.core.identity.certificates import (
    Authority,
    constraints_of,
    make_durable_leaf,
    make_issuer,
    make_root,
    public_key_of,
)
from meshpeer.core.identity.chains import ChainFault, NotValidNow, Rule, verify_chain, verify_invite
from meshpeer.core.identity.constraints import (
    ALL,
    CONSTRAINTS_OID,
    INVITE_DEFAULT,
    Capability,
    Constraints,
    Kind,
)
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import MeshId
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import CERTIFICATE_BYTES_MAX

NO_CHECK_TIME = 0x200000
NOW = 1_800_000_000
HOUR, DAY, YEAR = 3_600, 86_400, 365 * 86_400
Chain = tuple[bytes, ...]


class World(Protocol):
    """The shared mesh of ``conftest``."""

    now: int
    root: Authority
    issuer: Authority
    invite: Authority
    node: SigningKey
    provisional: Chain
    durable: Chain

    @property
    def mesh(self) -> MeshId: ...
    @property
    def roots(self) -> Chain: ...


# --- what is accepted ---


def test_a_provisional_chain_proves_what_its_invite_gives(world: World) -> None:
    identity = verify_chain(world.provisional, world.roots, world.mesh, world.now)
    assert identity.node == world.node.public
    assert not identity.durable
    assert identity.capabilities == INVITE_DEFAULT
    assert (identity.roles, identity.region, identity.routes) == (
        ("compute", "storage"),
        "eu-west",
        ("10.20.0.0/16",),
    )
    assert (identity.invite, identity.invite_uses) == (world.invite.id, 2)
    assert identity.issuer == world.issuer.id
    assert (identity.not_before, identity.not_after) == (world.now - HOUR, world.now + DAY)


def test_a_durable_chain_keeps_what_the_invite_gave_and_outlives_it(world: World) -> None:
    provisional = verify_chain(world.provisional, world.roots, world.mesh, world.now)
    identity = verify_chain(world.durable, world.roots, world.mesh, world.now + 30 * DAY)
    assert identity.durable
    assert identity.admitted_at == world.now + 60
    assert identity.not_after == world.now + 60 + YEAR
    for field in ("node", "capabilities", "roles", "region", "routes", "invite", "invite_uses", "issuer"):
        assert getattr(identity, field) == getattr(provisional, field)


def test_a_joiner_backdates_its_admission_no_further_than_its_invite(world: World) -> None:
    leaf = forge_leaf(world, Twist(begins_at=world.now - 10 * YEAR))
    identity = verify_chain((leaf, *world.provisional[1:]), world.roots, world.mesh, world.now)
    assert identity.admitted_at == world.now - HOUR


def test_a_leaf_may_take_less_than_its_invite_gives(world: World) -> None:
    chain = claims(roles=("storage",), routes=("10.20.7.0/24",))(world, world)
    identity = verify_chain(chain, world.roots, world.mesh, world.now)
    assert identity.capabilities == {Capability.MEMBER}
    assert (identity.roles, identity.region, identity.routes) == (("storage",), "eu-west", ("10.20.7.0/24",))


def test_capabilities_of_a_later_version_permit_nothing_and_break_nothing(world: World) -> None:
    later = (*constraints_of(world.root.certificate).capabilities, "teleport")
    root, issuer = (
        msgspec.structs.replace(constraints_of(one.certificate), capabilities=later)
        for one in (world.root, world.issuer)
    )
    claimed = msgspec.structs.replace(durable_constraints(world), capabilities=("member", "teleport"))
    chain = (
        forge(Kind.LEAF, world.node.seed, world.issuer, claimed),
        forge(Kind.ISSUER, world.issuer.seed, world.root, issuer),
    )
    roots = (forge(Kind.ROOT, world.root.seed, None, root),)
    identity = verify_chain(chain, roots, world.mesh, world.now)
    assert identity.capabilities == {Capability.MEMBER}


def test_a_chain_is_found_under_any_of_several_roots(world: World) -> None:
    second = forge(Kind.ROOT, seed_of("second root"), None, constraints_of(world.root.certificate))
    second_root = Authority(seed_of("second root"), second)
    issuer = make_issuer(second_root, seed_of("second issuer"), now_unix_s=world.now, serial=bytes(8))
    roots = (world.root.certificate, second)
    assert verify_chain(world.durable, roots, world.mesh, world.now).issuer == world.issuer.id
    leaf = forge(Kind.LEAF, world.node.seed, issuer, durable_constraints(world))
    assert verify_chain((leaf, issuer.certificate), roots, world.mesh, world.now).issuer == issuer.id
    with refused(Rule.ROOT):
        verify_chain((leaf, issuer.certificate), world.roots, world.mesh, world.now)


def test_an_invites_chain_is_judged_by_the_same_rules(world: World) -> None:
    chain = world.provisional[1:]
    assert verify_invite(chain, world.roots, world.mesh, world.now).uses == 2
    with refused(Rule.ORDER):
        verify_invite(world.durable, world.roots, world.mesh, world.now)
    with refused(Rule.ORDER):
        verify_chain(chain, world.roots, world.mesh, world.now)


# --- what is refused, and by whom ---

Forger = Callable[[World, World], Chain]


@dataclass(frozen=True, kw_only=True)
class Twist:
    """How a forged certificate differs from one of ours."""

    ca: bool | None = None
    path_length: int | None = -1
    """-1 for the usual one."""
    signs: bool | None = None
    signer_seed: bytes | None = None
    public: bytes | None = None
    subject: str | None = None
    issuer: str | None = None
    authority_key: bytes | None = None
    without: x509.ObjectIdentifier | None = None
    code_signing: bool = False
    raw_constraints: bytes | None = None
    constraints_critical: bool = False
    begins_at: int = NOW - HOUR
    ends_at: int = NOW + DAY
    serial: int = 77


def leaf(**twists: object) -> Forger:
    """A provisional chain whose leaf the joiner made with tools of its own."""
    return lambda world, _: (forge_leaf(world, twist(twists)), *world.provisional[1:])


def claims(**changes: object) -> Forger:
    """A provisional chain whose leaf says something else of the node."""
    return lambda world, _: (
        forge(Kind.LEAF, world.node.seed, world.invite, leaf_constraints(world, **changes)),
        *world.provisional[1:],
    )


def durable(**twists: object) -> Forger:
    def forger(world: World, _: World) -> Chain:
        forged = forge(Kind.LEAF, world.node.seed, world.issuer, durable_constraints(world), twist(twists))
        return (forged, world.issuer.certificate)

    return forger


def invite(**twists: object) -> Forger:
    return lambda world, _: (
        world.provisional[0],
        forge_authority(world.invite, world.issuer, twist(twists)),
        world.provisional[2],
    )


def issuer(**twists: object) -> Forger:
    return lambda world, _: (
        *world.provisional[:2],
        forge_authority(world.issuer, world.root, twist(twists)),
    )


def invite_below_invite(world: World, _: World) -> Chain:
    lower = below(world.invite, constraints_of(world.invite.certificate))
    forged = forge(Kind.LEAF, world.node.seed, lower, leaf_constraints(world, invite=lower.id))
    return (forged, lower.certificate, *world.provisional[1:])


def issuer_below_issuer(world: World, _: World) -> Chain:
    lower = below(world.issuer, constraints_of(world.issuer.certificate))
    forged = forge(Kind.LEAF, world.node.seed, lower, durable_constraints(world))
    return (forged, lower.certificate, world.issuer.certificate)


def leaf_below_leaf(world: World, _: World) -> Chain:
    lower = Authority(world.node.seed, world.durable[0])
    forged = forge(Kind.LEAF, seed_of("lower"), lower, leaf_constraints(world, invite=lower.id))
    return (forged, *world.durable)


def leaf_below_root(world: World, _: World) -> Chain:
    forged = forge(Kind.LEAF, world.node.seed, world.root, durable_constraints(world))
    return (forged, world.root.certificate)


def issuer_that_calls_itself_a_root(world: World, _: World) -> Chain:
    constraints = msgspec.structs.replace(constraints_of(world.issuer.certificate), kind=Kind.ROOT)
    return (*world.provisional[:2], forge(Kind.ISSUER, world.issuer.seed, world.root, constraints))


def issuer_of_a_stranger(world: World, _: World) -> Chain:
    """A whole chain below a stranger's issuer that claims our root's name and key id."""
    constraints = constraints_of(world.issuer.certificate)
    stranger = Twist(signer_seed=seed_of("stranger"))
    lower = Authority(
        seed_of("lower"), forge(Kind.ISSUER, seed_of("lower"), world.root, constraints, stranger)
    )
    forged = forge(Kind.LEAF, world.node.seed, lower, durable_constraints(world))
    return (forged, lower.certificate)


BOTH, ONLY_US = False, True

FORGERIES: dict[str, tuple[Forger, Rule, bool]] = {
    # whose signature it is
    "a chain of another mesh": (lambda _, other: other.provisional, Rule.MESH, BOTH),
    "an issuer of a stranger in our root's name": (issuer_of_a_stranger, Rule.SIGNATURE, BOTH),
    "a leaf signed by a stranger": (leaf(signer_seed=b"s" * 32), Rule.SIGNATURE, BOTH),
    "a durable leaf signed by a stranger": (durable(signer_seed=b"s" * 32), Rule.SIGNATURE, BOTH),
    "an invite signed by a stranger": (invite(signer_seed=b"s" * 32), Rule.SIGNATURE, BOTH),
    "an issuer signed by a stranger": (issuer(signer_seed=b"s" * 32), Rule.SIGNATURE, BOTH),
    "a chain without its invite": (lambda world, _: world.provisional[::2], Rule.NAMES, BOTH),
    "a chain without its issuer": (lambda world, _: world.provisional[:2], Rule.ROOT, BOTH),
    "a leaf alone": (lambda world, _: world.durable[:1], Rule.LENGTH, BOTH),
    # what a certificate may sign
    "an invite without the CA flag": (invite(ca=False, path_length=None), Rule.AUTHORITY, BOTH),
    "an invite that may not sign": (invite(signs=False), Rule.KEY_USAGE, BOTH),
    "an issuer without the CA flag": (issuer(ca=False, path_length=None), Rule.AUTHORITY, BOTH),
    "an issuer whose path length bars invites": (issuer(path_length=0), Rule.AUTHORITY, BOTH),
    "an issuer without a path length": (issuer(path_length=None), Rule.AUTHORITY, ONLY_US),
    "an invite that may sign CAs": (invite(path_length=1), Rule.AUTHORITY, ONLY_US),
    "an invite below an invite": (invite_below_invite, Rule.ORDER, BOTH),
    "an issuer below an issuer": (issuer_below_issuer, Rule.ORDER, ONLY_US),
    "a leaf below a leaf": (leaf_below_leaf, Rule.ORDER, BOTH),
    "a leaf below the root": (leaf_below_root, Rule.ORDER, ONLY_US),
    "a leaf with the CA flag": (leaf(ca=True), Rule.AUTHORITY, ONLY_US),
    "a leaf that may sign certificates": (leaf(signs=True), Rule.KEY_USAGE, BOTH),
    "an issuer that calls itself a root": (issuer_that_calls_itself_a_root, Rule.AUTHORITY, ONLY_US),
    # the order
    "a chain in the wrong order": (lambda world, _: swapped(world.provisional), Rule.ROOT, ONLY_US),
    "a chain with its root": (lambda world, _: (*world.durable, *world.roots), Rule.ORDER, ONLY_US),
    "a chain too long": (lambda world, _: world.provisional + world.durable[1:] * 2, Rule.LENGTH, ONLY_US),
    # the extensions
    "a leaf without constraints": (leaf(without=CONSTRAINTS_OID), Rule.CONSTRAINTS, ONLY_US),
    "an invite without constraints": (invite(without=CONSTRAINTS_OID), Rule.CONSTRAINTS, ONLY_US),
    "constraints that aren't CBOR": (leaf(raw_constraints=b"\xff"), Rule.CONSTRAINTS, ONLY_US),
    "constraints that are empty": (leaf(raw_constraints=b""), Rule.CONSTRAINTS, ONLY_US),
    "constraints of no kind": (leaf(raw_constraints=cbor.encode({"k": "x"})), Rule.CONSTRAINTS, ONLY_US),
    "constraints too large": (leaf(raw_constraints=cbor.encode(bytes(600))), Rule.CONSTRAINTS, ONLY_US),
    "constraints that are critical": (leaf(constraints_critical=True), Rule.CONSTRAINTS, BOTH),
    "an extension more": (leaf(code_signing=True), Rule.EXTENSIONS, BOTH),
    "a leaf without basic constraints": (leaf(without=x509.BasicConstraints.oid), Rule.AUTHORITY, ONLY_US),
    "a leaf without key usage": (leaf(without=x509.KeyUsage.oid), Rule.KEY_USAGE, ONLY_US),
    # what is handed on
    "a leaf of another mesh below our invite": (claims(mesh=b"m" * 16), Rule.MESH, ONLY_US),
    "a leaf that helps itself to admin": (claims(capabilities=("admin",)), Rule.HANDED_ON, ONLY_US),
    "a leaf with a role too many": (claims(roles=("compute", "boss")), Rule.HANDED_ON, ONLY_US),
    "a leaf with another role": (claims(roles=("boss",)), Rule.HANDED_ON, ONLY_US),
    "a leaf of another region": (claims(region="us-east"), Rule.HANDED_ON, ONLY_US),
    "a leaf with another route": (claims(routes=("10.21.0.0/16",)), Rule.HANDED_ON, ONLY_US),
    "a leaf with a wider route": (claims(routes=("10.0.0.0/8",)), Rule.HANDED_ON, ONLY_US),
    "a leaf with a route of the other family": (claims(routes=("::/0",)), Rule.HANDED_ON, ONLY_US),
    "a leaf with a route that is none": (claims(routes=("10.20.0.0/33",)), Rule.CONSTRAINTS, ONLY_US),
    "a leaf with a role that is no word": (claims(roles=("a\x1b[2J",)), Rule.CONSTRAINTS, ONLY_US),
    "a leaf that dates its own admission": (claims(admitted_at=1_700_000_000), Rule.CONSTRAINTS, ONLY_US),
    "a leaf with more uses": (claims(uses=99), Rule.CONSTRAINTS, ONLY_US),
    "a leaf of another invite": (claims(invite=b"12345678"), Rule.CONSTRAINTS, ONLY_US),
    # names
    "a leaf that bears another's name": (leaf(subject="node aaaaaaaaaa"), Rule.NAMES, ONLY_US),
    "a leaf that names another signer": (leaf(issuer="invite aaaaaaaaaa"), Rule.NAMES, BOTH),
    "a leaf that names another signer's key": (leaf(authority_key=b"12345678"), Rule.NAMES, BOTH),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused_by_its_rule_and_openssl_is_never_stricter(
    name: str, world: World, other_world: World
) -> None:
    forger, rule, openssl_accepts = FORGERIES[name]
    chain = forger(world, other_world)
    with refused(rule):
        verify_chain(chain, world.roots, world.mesh, world.now)
    for side in ("client", "server"):
        assert openssl_accepts_chain(world, chain, side, other_world) is openssl_accepts, side


@pytest.mark.parametrize("kind", ["provisional", "durable"])
def test_openssl_accepts_our_chains_in_both_directions(world: World, kind: str) -> None:
    chain: Chain = getattr(world, kind)
    verify_chain(chain, world.roots, world.mesh, world.now)
    assert openssl_accepts_chain(world, chain, "client")
    assert openssl_accepts_chain(world, chain, "server")


def test_openssl_lets_nobody_in_without_a_certificate(world: World) -> None:
    assert not openssl_accepts_chain(world, None, "client")


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_tampered_byte_is_refused_by_both(world: World, position: int) -> None:
    for at in (-1, -60, 100):
        data = bytearray(world.provisional[position])
        data[at] ^= 1
        chain = (*world.provisional[:position], bytes(data), *world.provisional[position + 1 :])
        with pytest.raises(ChainFault):
            verify_chain(chain, world.roots, world.mesh, world.now)
        assert not openssl_accepts_chain(world, chain, "client")


def test_a_node_key_of_small_order_proves_nothing(world: World) -> None:
    for point in (bytes([1]) + bytes(31), bytes(32)):
        forged = forge_leaf(world, Twist(public=point))
        with refused(Rule.KEY):
            verify_chain((forged, *world.provisional[1:]), world.roots, world.mesh, world.now)


def test_size_is_judged_before_anything_is_parsed(world: World) -> None:
    with refused(Rule.SIZE):
        verify_chain(
            (bytes(CERTIFICATE_BYTES_MAX + 1), *world.provisional[1:]), world.roots, world.mesh, world.now
        )
    with refused(Rule.LENGTH):
        verify_chain([], world.roots, world.mesh, world.now)


def test_what_is_no_root_anchors_nothing(world: World) -> None:
    with refused(Rule.ROOT):
        verify_chain(world.provisional[:2], (world.issuer.certificate,), world.mesh, world.now)
    with refused(Rule.ROOT):
        verify_chain(world.durable, (), world.mesh, world.now)
    constraints = constraints_of(world.root.certificate)
    forged = forge(Kind.ROOT, world.root.seed, None, constraints, Twist(signer_seed=b"y" * 32))
    with refused(Rule.SIGNATURE):
        verify_chain(world.durable, (forged,), world.mesh, world.now)


# --- time ---


def test_time_is_ours_to_judge_and_openssl_leaves_it_alone(world: World) -> None:
    past = Twist(begins_at=world.now - 2 * YEAR, ends_at=world.now - YEAR)
    chain = (forge_leaf(world, past), *world.provisional[1:])
    assert openssl_accepts_chain(world, chain, "client")
    assert openssl_accepts_chain(world, chain, "server")
    with pytest.raises(NotValidNow):
        verify_chain(chain, world.roots, world.mesh, world.now)


def test_an_ended_invite_names_itself_and_both_times(world: World) -> None:
    with pytest.raises(NotValidNow) as caught:
        verify_chain(world.provisional, world.roots, world.mesh, world.now + DAY + 1)
    fault = caught.value
    assert (fault.kind, fault.ended, fault.rule) == (Kind.INVITE, True, Rule.VALIDITY)
    assert (fault.now_unix_s, fault.not_before, fault.not_after) == (
        world.now + DAY + 1,
        world.now - HOUR,
        world.now + DAY,
    )
    assert fault.what == (
        "the invite certificate has ended: it is valid from 2027-01-15 07:00:00 to 2027-01-16 08:00:00 UTC, "
        "and this node's clock says 2027-01-16 08:00:01"
    )
    assert "timedatectl" in fault.hint


def test_a_clock_that_is_behind_by_more_than_an_hour_is_named(world: World) -> None:
    verify_chain(world.provisional, world.roots, world.mesh, world.now - HOUR)
    with pytest.raises(NotValidNow) as caught:
        verify_chain(world.provisional, world.roots, world.mesh, world.now - HOUR - 1)
    assert not caught.value.ended
    assert "is not valid yet" in caught.value.what


@pytest.mark.parametrize(
    ("after", "kind"), [(YEAR + 61, Kind.LEAF), (11 * YEAR, Kind.ISSUER), (31 * YEAR, Kind.ROOT)]
)
def test_the_highest_certificate_out_of_time_is_named(world: World, after: int, kind: Kind) -> None:
    with pytest.raises(NotValidNow) as caught:
        verify_chain(world.durable, world.roots, world.mesh, world.now + after)
    assert caught.value.kind is kind


# --- properties ---


def test_no_single_bit_of_a_chain_can_be_changed(world: World) -> None:
    for position, certificate in enumerate(world.provisional):
        for at in range(len(certificate)):
            data = bytearray(certificate)
            data[at] ^= 1 << (at % 8)
            chain = (*world.provisional[:position], bytes(data), *world.provisional[position + 1 :])
            with pytest.raises(ChainFault):
                verify_chain(chain, world.roots, world.mesh, world.now)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_mutated_chains_are_refused_and_nothing_else_is_raised(world: World, data: st.DataObject) -> None:
    chain = list(data.draw(st.sampled_from([world.provisional, world.durable])))
    position = data.draw(st.integers(0, len(chain) - 1))
    original = chain[position]
    start = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(start, min(start + 8, len(original))))
    chain[position] = original[:start] + data.draw(st.binary(max_size=8)) + original[end:]
    if chain[position] == original:
        return
    with pytest.raises(ChainFault):
        verify_chain(chain, world.roots, world.mesh, world.now)


@given(
    serial=st.binary(min_size=8, max_size=8)
    | st.sampled_from([bytes(8), b"\xff" * 8, b"\x80\x00\x30\x05\x06\x03\x2b\x65", b"\0" * 6 + b"\x02\x01"]),
    seed=st.binary(min_size=32, max_size=32),
    now=st.sampled_from([NOW, NOW - 300_000_000, 2_524_607_000, 2_600_000_000]),
)
@settings(max_examples=100, deadline=None)
def test_whatever_the_key_serial_and_time_our_certificates_have_our_form(
    serial: bytes, seed: bytes, now: int
) -> None:
    root = make_root(seed, now_unix_s=now, serial=serial)
    issuer = make_issuer(root, seed[::-1], now_unix_s=now, serial=serial)
    node = SigningKey(hashlib.sha256(seed).digest())
    chain = (
        make_durable_leaf(
            issuer, node.public, capabilities=ALL, admitted_at=now, now_unix_s=now, serial=serial
        ),
        issuer.certificate,
    )
    mesh = constraints_of(root.certificate).mesh
    assert verify_chain(chain, [root.certificate], mesh, now).node == node.public


def test_the_key_of_any_changed_certificate_is_read_or_refused(world: World) -> None:
    for at in range(len(world.durable[0])):
        data = bytearray(world.durable[0])
        data[at] ^= 1 << (at % 8)
        with contextlib.suppress(ValueError):
            assert len(public_key_of(bytes(data))) == 32


@given(chain=st.lists(st.binary(max_size=80), max_size=5))
@settings(max_examples=50, deadline=None)
def test_rubbish_is_refused_and_nothing_else_is_raised(world: World, chain: list[bytes]) -> None:
    with pytest.raises(ChainFault):
        verify_chain(chain, world.roots, world.mesh, world.now)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_we_accept_openssl_accepts_and_what_only_signatures_bar_both_refuse(
    world: World, data: st.DataObject
) -> None:
    """Deviations at random in all three certificates, most of them harmless to one of the judges."""
    chain = (
        forge_leaf(world, data.draw(twists(most=2))),
        forge_authority(world.invite, world.issuer, data.draw(twists(most=1))),
        forge_authority(world.issuer, world.root, data.draw(twists(most=1))),
    )
    rule: Rule | None = None
    try:
        verify_chain(chain, world.roots, world.mesh, world.now)
    except ChainFault as fault:
        rule = fault.rule
    accepted = openssl_accepts_chain(world, chain, "client")
    if rule is None:
        assert accepted
    if rule is Rule.SIGNATURE:
        assert not accepted


def twists(most: int) -> st.SearchStrategy[Twist]:
    options: dict[str, st.SearchStrategy[object]] = {
        "path_length": st.sampled_from([None, 0, 1, 2, 3]),
        "ca": st.booleans(),
        "signs": st.booleans(),
        "signer_seed": st.just(b"s" * 32),
        "subject": st.sampled_from(["node aaaaaaaaaa", "invite aaaaaaaaaa"]),
        "authority_key": st.just(b"12345678"),
        "without": st.sampled_from(list(profile.EXTENSIONS)),
        "code_signing": st.just(True),
        "begins_at": st.sampled_from([1_600_000_000, 1_799_999_999]),
        "serial": st.sampled_from([1, 2**63 - 1]),
    }
    names = st.lists(st.sampled_from(list(options)), max_size=most, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: options[name] for name in chosen})).map(
        twist
    )


# --- helpers ---


@contextlib.contextmanager
def refused(rule: Rule) -> Iterator[None]:
    with pytest.raises(ChainFault) as caught:
        yield
    assert caught.value.rule is rule, caught.value


def seed_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def twist(changes: dict[str, object]) -> Twist:
    return dataclasses.replace(Twist(), **changes)  # type: ignore[arg-type]


def swapped(chain: Chain) -> Chain:
    return (chain[0], chain[2], chain[1])


def leaf_constraints(world: World, **changes: object) -> Constraints:
    plain = Constraints(
        kind=Kind.LEAF, mesh=world.mesh, capabilities=("member",), uses=2, invite=world.invite.id
    )
    return msgspec.structs.replace(plain, **changes)


def durable_constraints(world: World) -> Constraints:
    return Constraints(kind=Kind.LEAF, mesh=world.mesh, capabilities=("member",), admitted_at=world.now)


def below(above: Authority, constraints: Constraints) -> Authority:
    return Authority(seed_of("lower"), forge(constraints.kind, seed_of("lower"), above, constraints))


def forge_leaf(world: World, twist: Twist) -> bytes:
    return forge(Kind.LEAF, world.node.seed, world.invite, leaf_constraints(world), twist)


def forge_authority(like: Authority, above: Authority, twist: Twist) -> bytes:
    constraints = constraints_of(like.certificate)
    return forge(constraints.kind, like.seed, above, constraints, twist)


def forge(
    kind: Kind, seed: bytes, above: Authority | None, constraints: Constraints, twist: Twist | None = None
) -> bytes:
    """Makes a certificate of our form but for the twist; without an authority above it signs itself."""
    twist = twist or Twist()
    public = twist.public or SigningKey(seed).public
    above_public = public if above is None else public_key_of(above.certificate)
    above_kind = kind if above is None else constraints_of(above.certificate).kind
    signer_seed = twist.signer_seed or (seed if above is None else above.seed)
    usual = profile.basic_constraints(kind)
    ca = usual.ca if twist.ca is None else twist.ca
    path_length = usual.path_length if twist.path_length == -1 else twist.path_length
    content = cbor.encode(constraints) if twist.raw_constraints is None else twist.raw_constraints
    signs = kind is not Kind.LEAF if twist.signs is None else twist.signs
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca, path_length if ca else None), True),
        (profile.key_usage(Kind.ISSUER if signs else Kind.LEAF), True),
        (profile.subject_key_id(public), False),
        (x509.AuthorityKeyIdentifier(twist.authority_key or profile.key_id(above_public), None, None), False),
        (x509.UnrecognizedExtension(CONSTRAINTS_OID, content), twist.constraints_critical),
    ]
    if twist.code_signing:
        extensions.append((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False))
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(twist.subject) or profile.subject(kind, public))
        .issuer_name(named(twist.issuer) or profile.subject(above_kind, above_public))
        .public_key(Ed25519PublicKey.from_public_bytes(public))
        .serial_number(twist.serial)
        .not_valid_before(datetime.datetime.fromtimestamp(twist.begins_at, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(twist.ends_at, datetime.UTC))
    )
    for extension, critical in extensions:
        if extension.oid != twist.without:
            builder = builder.add_extension(extension, critical)
    return builder.sign(Ed25519PrivateKey.from_private_bytes(signer_seed), None).public_bytes(Encoding.DER)


def named(text: str | None) -> x509.Name | None:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) if text else None


def openssl_accepts_chain(
    world: World, chain: Chain | None, side: str, other_world: World | None = None
) -> bool:
    """Says whether a TLS 1.3 handshake in memory comes up with the chain under test on one side."""
    key = next((seed for seed in known_seeds(world, other_world) if chain and owns(seed, chain[0])), None)
    try:
        tested = context(side, world, chain, key or world.node.seed)
    except ssl.SSLError:
        return False  # OpenSSL can't even show it
    honest = context("server" if side == "client" else "client", world, world.durable, world.node.seed)
    client, server = (tested, honest) if side == "client" else (honest, tested)
    return handshake(client, server)


def known_seeds(world: World, other_world: World | None) -> list[bytes]:
    return [world.node.seed, seed_of("lower"), *([other_world.node.seed] if other_world else [])]


def owns(seed: bytes, certificate: bytes) -> bool:
    return certificate.find(SigningKey(seed).public) >= 0


def context(side: str, world: World, chain: Chain | None, key_seed: bytes) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side == "client" else ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    made.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(world.root.certificate))
    if chain is not None:
        key = Ed25519PrivateKey.from_private_bytes(key_seed).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        file = os.memfd_create("chain", os.MFD_CLOEXEC)
        try:
            os.write(file, "".join(map(ssl.DER_cert_to_PEM_cert, chain)).encode() + key)
            made.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)
    return made


def handshake(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> bool:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
            waiting.remove(end)
        if not waiting:
            return True
    return False

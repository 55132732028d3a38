"""Roots that follow each other: what is a line, and what OpenSSL makes of chains below it."""

from __future__ import annotations

import hashlib
import itertools
import ssl
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.adapters.transport import TlsIdentity
from meshpeer.core.errors import PeerFault
from meshpeer.core.identity import certificates, profile
from meshpeer.core.identity.certificates import (
    Authority,
    certify_issuer,
    make_issuer,
    make_root,
    public_key_of,
)
from meshpeer.core.identity.chains import ChainFault, verify_chain, verify_issuer
from meshpeer.core.identity.constraints import Capability, Constraints, Kind
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.identity.line import ROOTS_MAX, check_line, with_follower
from meshpeer.core.ids import MeshId

Chain = tuple[bytes, ...]
YEAR = 365 * 86_400


class World(Protocol):
    """The shared mesh of ``conftest``."""

    now: int
    root: Authority
    issuer: Authority
    node: SigningKey
    provisional: Chain
    durable: Chain

    @property
    def mesh(self) -> MeshId: ...
    @property
    def roots(self) -> Chain: ...


# --- lines --------------------------------------------------------------------------------------------------


def test_a_root_follows_another_by_being_signed_by_it(world: World) -> None:
    second = follower(world.root, "second", world)
    third = follower(second, "third", world)
    line = (world.root.certificate, second.certificate, third.certificate)
    check_line(line, world.mesh)
    assert with_follower(line[:2], third.certificate, world.mesh) == line
    assert with_follower(line, second.certificate, world.mesh) == line, "it is known"


def test_what_is_no_line_is_refused(world: World, other_world: World) -> None:
    second, third = (follower(world.root, name, world) for name in ("second", "third"))
    stranger = follower(other_world.root, "second", other_world)
    for roots in (
        (),
        (second.certificate,),
        (second.certificate, world.root.certificate),
        (world.root.certificate, second.certificate, third.certificate),
        (world.root.certificate, other_world.root.certificate),
        (world.root.certificate, stranger.certificate),
        (world.root.certificate, world.issuer.certificate),
        (other_world.root.certificate,),
        (b"rubbish",),
        (world.root.certificate,) * (ROOTS_MAX + 1),
    ):
        with pytest.raises(PeerFault):
            check_line(roots, world.mesh)


def test_a_root_that_signed_itself_follows_nobody(world: World) -> None:
    """Whoever makes up a root can write this mesh's id into it."""
    forged = self_signed(seed_of("forger"), world.mesh, world.now)
    with pytest.raises(ChainFault, match="signed by none of this mesh"):
        with_follower(world.roots, forged, world.mesh)


def test_a_root_never_follows_itself(world: World) -> None:
    second = follower(world.root, "second", world)
    back = make_root(world.root.seed, now_unix_s=world.now, serial=bytes(8), above=second)
    with pytest.raises(PeerFault, match="follows itself"):
        with_follower((world.root.certificate, second.certificate), back.certificate, world.mesh)


def test_a_line_has_an_end(world: World) -> None:
    line, last = world.roots, world.root
    for number in range(ROOTS_MAX - 1):
        last = follower(last, f"root {number}", world)
        line = with_follower(line, last.certificate, world.mesh)
    with pytest.raises(PeerFault, match=f"has had {ROOTS_MAX} roots"):
        with_follower(line, follower(last, "one more", world).certificate, world.mesh)


@given(order=st.permutations(range(5)))
@settings(max_examples=40, deadline=None)
def test_of_two_followers_every_order_of_hearing_leaves_the_same(world: World, order: list[int]) -> None:
    left, right = (follower(world.root, name, world) for name in ("left", "right"))
    all_of_them = (left, right, follower(left, "a", world), follower(right, "b", world), world.root)
    line = world.roots
    # What its signer is not known yet for is told again: each greeting tells the whole line.
    for _, place in itertools.product(range(3), order):
        try:
            line = with_follower(line, all_of_them[place].certificate, world.mesh)
        except ChainFault:
            continue
    lower = min((left, right), key=lambda one: hashlib.sha256(one.certificate).digest())
    assert line[1] == lower.certificate
    assert len(line) == 3


def test_the_follower_of_a_retired_root_stands(world: World) -> None:
    ours, forged = sorted(
        (follower(world.root, name, world).certificate for name in ("left", "right")),
        key=lambda one: hashlib.sha256(one).digest(),
        reverse=True,
    )
    line = (world.root.certificate, ours)
    assert with_follower(line, forged, world.mesh)[1] == forged
    assert with_follower(line, forged, world.mesh, settled=1) == line


# --- chains below it ----------------------------------------------------------------------------------------


def test_one_leaf_stands_below_every_root_that_signed_its_issuer(world: World) -> None:
    second = follower(world.root, "second", world)
    line = (world.root.certificate, second.certificate)
    anew = signed_anew(world, second)
    before = verify_chain(world.durable, line, world.mesh, world.now + 60)
    after = verify_chain((world.durable[0], anew), line, world.mesh, world.now + 60)
    assert (before.root, after.root) == (world.root.id, second.id)
    for field in (
        "node",
        "capabilities",
        "admitted_at",
        "invite",
        "issuer",
        "signed_from",
        "roles",
        "region",
    ):
        assert getattr(before, field) == getattr(after, field), field
    assert verify_issuer(anew, line, world.mesh) == (public_key_of(world.issuer.certificate), 1)
    with pytest.raises(ChainFault):
        verify_chain((world.durable[0], anew), world.roots, world.mesh, world.now + 60)


def test_a_root_whose_signer_is_not_held_anchors_nothing(world: World) -> None:
    second = follower(world.root, "second", world)
    chain = (world.durable[0], signed_anew(world, second))
    with pytest.raises(ChainFault, match="signed by none"):
        verify_chain(chain, (second.certificate,), world.mesh, world.now + 60)


@pytest.mark.parametrize("kind", ["provisional", "durable"])
def test_openssl_finds_its_way_to_a_root_that_it_knows(world: World, kind: str) -> None:
    """Below the new root, below the old one, both ways; and from the line before a rotation, too."""
    second = follower(world.root, "second", world)
    line = (world.root.certificate, second.certificate)
    old: Chain = getattr(world, kind)
    new = (*old[:-1], signed_anew(world, second))
    knows, lacks = line, world.roots
    assert shake_hands(world, (old, knows), (new, knows))
    assert shake_hands(world, (new, knows), (old, knows))
    # Of an issuer, an invite and a root that followed another, path length 2 of the first root bears two.
    assert shake_hands(world, (new, knows), (world.durable, lacks)) is (kind == "durable")
    assert shake_hands(world, (world.durable, lacks), (new, knows)) is (kind == "durable")


def test_openssl_refuses_what_a_stranger_signed_in_the_name_of_a_root(
    world: World, other_world: World
) -> None:
    strange = follower(other_world.root, "stranger", other_world)
    chain = (world.durable[0], signed_anew(world, strange))
    roots = (world.root.certificate, follower(world.root, "second", world).certificate)
    assert not shake_hands(world, (chain, roots), (world.durable, roots))
    with pytest.raises(ChainFault):
        verify_chain(chain, roots, world.mesh, world.now)


# --- helpers ---


def seed_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def follower(above: Authority, name: str, world: World) -> Authority:
    seed = seed_of(name)
    return make_root(seed, now_unix_s=world.now, serial=seed[:8], above=above)


def self_signed(seed: bytes, mesh: MeshId, now: int) -> bytes:
    """Returns a root of another key, in our one form, that says it is of this mesh."""
    public = SigningKey(seed).public
    return certificates._sign(
        Constraints(kind=Kind.ROOT, mesh=mesh, capabilities=tuple(Capability)),
        public=public,
        signer_seed=seed,
        signer_public=public,
        signer_name=profile.subject(Kind.ROOT, public),
        begins_at=now,
        ends_at=now + YEAR,
        serial=bytes(8),
    )


def signed_anew(world: World, root: Authority) -> bytes:
    public = public_key_of(world.issuer.certificate)
    return certify_issuer(
        root, public, holder=world.node.public, now_unix_s=world.now, serial=bytes(range(8))
    )


def shake_hands(world: World, left: tuple[Chain, Chain], right: tuple[Chain, Chain]) -> bool:
    """Says whether two ends, each with its chain and the roots that it knows, let each other in."""
    ends = [TlsIdentity(seed=world.node.seed, chain=chain, roots=roots) for chain, roots in (left, right)]
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    waiting = [
        ends[0].client.wrap_bio(to_client, to_server),
        ends[1].server.wrap_bio(to_server, to_client, server_side=True),
    ]
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


def test_an_issuer_of_no_root_is_no_issuer(world: World) -> None:
    lone = make_issuer(
        make_root(seed_of("lone"), now_unix_s=world.now, serial=bytes(8)),
        seed_of("x"),
        now_unix_s=world.now,
        serial=bytes(8),
    )
    for certificate in (lone.certificate, world.durable[0], b"rubbish", bytes(5_000)):
        with pytest.raises(ChainFault):
            verify_issuer(certificate, world.roots, world.mesh)

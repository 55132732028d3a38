from __future__ import annotations

import dataclasses
import hashlib
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import LocalFault
from meshpeer.core.identity.admission import UsesSpent, admitted_too_late, issue_durable, judge_admission
from meshpeer.core.identity.certificates import (
    DURABLE_S,
    Authority,
    make_durable_leaf,
    make_invite,
    make_issuer,
    make_provisional_leaf,
)
from meshpeer.core.identity.chains import VerifiedIdentity, verify_chain
from meshpeer.core.identity.constraints import ALL, INVITE_DEFAULT, Capability
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import MeshId, NodeId

DAY = 86_400


class World(Protocol):
    """The shared mesh of ``conftest``."""

    now: int
    root: Authority
    issuer: Authority
    invite: Authority
    node: SigningKey
    provisional: tuple[bytes, ...]
    durable: tuple[bytes, ...]

    @property
    def mesh(self) -> MeshId: ...
    @property
    def roots(self) -> tuple[bytes, ...]: ...


def test_an_invite_admits_up_to_its_uses(world: World) -> None:
    first, second, third = (joiner(world, name) for name in ("first", "second", "third"))
    assert judge_admission(first, []) is None
    assert judge_admission(second, [admitted(first, 1)]) is None
    assert judge_admission(third, [admitted(second, 2), admitted(first, 1)]) == UsesSpent(
        invite=world.invite.id, uses=2, admitted=(first.node, second.node)
    )


def test_a_node_that_holds_a_place_keeps_it(world: World) -> None:
    first, second = joiner(world, "first"), joiner(world, "second")
    durable = [admitted(first, 1), admitted(second, 2)]
    assert judge_admission(first, durable) is None
    assert judge_admission(durable[1], durable) is None


def test_two_leaves_of_one_node_are_one_use(world: World) -> None:
    first, second = joiner(world, "first"), joiner(world, "second")
    assert judge_admission(second, [admitted(first, 1), admitted(first, 9)]) is None


def test_other_invites_and_provisional_nodes_take_no_place(world: World) -> None:
    other = dataclasses.replace(admitted(joiner(world, "other"), 1), invite=b"otherone")
    provisional = joiner(world, "provisional")
    founder = dataclasses.replace(admitted(joiner(world, "founder"), 1), invite=b"", invite_uses=0)
    assert judge_admission(joiner(world, "first"), [other, provisional, founder, provisional]) is None
    assert judge_admission(founder, [founder]) is None


def test_of_two_issuers_that_admitted_at_once_the_earlier_wins(world: World) -> None:
    first, second, third = (joiner(world, name) for name in ("first", "second", "third"))
    durable = [admitted(third, 30), admitted(first, 10), admitted(second, 20)]
    spent = UsesSpent(invite=world.invite.id, uses=2, admitted=(first.node, second.node))
    assert admitted_too_late(durable) == ((third.node, spent),)
    assert judge_admission(third, durable) == spent
    assert admitted_too_late(durable[1:]) == ()


@given(
    admissions=st.lists(
        st.tuples(st.integers(0, 6), st.integers(1, 4), st.sampled_from([b"a" * 8, b"b" * 8]))
    ),
    shuffle=st.randoms(use_true_random=False),
)
@settings(max_examples=80, deadline=None)
def test_every_order_of_hearing_gives_the_same_places(
    admissions: list[tuple[int, int, bytes]], shuffle: st.DataObject
) -> None:
    durable = [plain(number, at, invite) for number, at, invite in admissions]
    late = admitted_too_late(durable)
    shuffled = list(durable)
    shuffle.shuffle(shuffled)  # type: ignore[attr-defined]
    assert admitted_too_late(shuffled) == late
    for invite in (b"a" * 8, b"b" * 8):
        nodes = {one.node for one in durable if one.invite == invite}
        refused = {node for node, spent in late if spent.invite == invite}
        assert len(nodes - refused) == min(2, len(nodes))
        for one in durable:
            if one.invite == invite:
                assert (judge_admission(one, durable) is None) is (one.node not in refused)


def test_a_durable_leaf_is_short_to_hear_of_and_says_all_that_counts(world: World) -> None:
    asks = verify_chain(world.provisional, world.roots, world.mesh, world.now)
    chain = issue_durable(world.issuer, asks, now_unix_s=world.now + 5, serial=b"12345678")
    assert chain[1] == world.issuer.certificate
    given_to = verify_chain(chain, world.roots, world.mesh, world.now + 5)
    assert given_to == dataclasses.replace(
        asks,
        durable=True,
        admitted_at=world.now + 5,
        signed_from=world.now + 5 - 3_600,
        not_before=given_to.not_before,
        not_after=world.now + 5 + DURABLE_S,
    )


def test_renewal_keeps_the_time_of_admission(world: World) -> None:
    held = verify_chain(world.durable, world.roots, world.mesh, world.now + 200 * DAY)
    chain = issue_durable(world.issuer, held, now_unix_s=world.now + 200 * DAY, serial=b"12345678")
    renewed = verify_chain(chain, world.roots, world.mesh, world.now + 400 * DAY)
    assert renewed.admitted_at == held.admitted_at == world.now + 60
    assert renewed.not_after == world.now + 200 * DAY + DURABLE_S
    assert judge_admission(renewed, [held]) is None


def test_any_issuer_of_the_mesh_can_admit_and_leaves_out_what_it_may_not_hand_on(world: World) -> None:
    second = make_issuer(
        world.root,
        b"second issuer of the mesh, seed.",
        capabilities={Capability.MEMBER, Capability.WORK},
        now_unix_s=world.now,
        serial=bytes(8),
    )
    asks = verify_chain(world.provisional, world.roots, world.mesh, world.now)
    chain = issue_durable(second, asks, now_unix_s=world.now, serial=bytes(8))
    identity = verify_chain(chain, world.roots, world.mesh, world.now)
    assert identity.capabilities == {Capability.MEMBER, Capability.WORK}
    assert identity.issuer == second.id
    with pytest.raises(LocalFault, match="can't hand on capabilities admin"):
        founder_leaf(second, world)


def test_the_founder_holds_every_capability_and_no_invite(world: World) -> None:
    chain = (founder_leaf(world.issuer, world), world.issuer.certificate)
    identity = verify_chain(chain, world.roots, world.mesh, world.now)
    assert identity.capabilities == ALL
    assert (identity.invite, identity.invite_uses, identity.durable) == (b"", 0, True)
    assert (identity.roles, identity.region) == ((), "")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"uses": 0}, "0 nodes"),
        ({"uses": -1}, "-1 nodes"),
        ({"uses": 10**7}, "10000000 nodes"),
        ({"expires_s": 0}, "expired already"),
        ({"roles": ["no word"]}, "can't say this"),
        ({"region": "\x1b[2J"}, "can't say this"),
        ({"routes": ["10.0.0.0/99"]}, "'10.0.0.0/99' is not a route"),
        ({"routes": ["10.0.0.1/24"]}, "'10.0.0.1/24' is not a route"),
        ({"roles": [f"role-{number}" for number in range(17)]}, "can't say this"),
    ],
)
def test_what_no_invite_can_say_is_refused_when_it_is_made(
    world: World, change: dict[str, int], why: str
) -> None:
    plain = {
        "capabilities": INVITE_DEFAULT,
        "uses": 1,
        "expires_s": 60,
        "now_unix_s": world.now,
        "serial": bytes(8),
    }
    with pytest.raises(LocalFault) as caught:
        make_invite(world.issuer, b"i" * 32, **{**plain, **change})  # type: ignore[arg-type]
    assert why in caught.value.what
    assert caught.value.hint


# --- helpers ---


def joiner(world: World, name: str) -> VerifiedIdentity:
    key = SigningKey(hashlib.sha256(name.encode()).digest())
    leaf = make_provisional_leaf(world.invite, key.public, now_unix_s=world.now, serial=bytes(8))
    return verify_chain((leaf, *world.provisional[1:]), world.roots, world.mesh, world.now)


def admitted(identity: VerifiedIdentity, at: int) -> VerifiedIdentity:
    return dataclasses.replace(identity, durable=True, admitted_at=at)


def plain(number: int, at: int, invite: bytes) -> VerifiedIdentity:
    return VerifiedIdentity(
        node=NodeId(bytes([number]) * 32),
        durable=True,
        capabilities=INVITE_DEFAULT,
        roles=(),
        region="",
        routes=(),
        admitted_at=at,
        invite=invite,
        invite_uses=2,
        issuer=b"issuer--",
        not_before=0,
        not_after=100,
    )


def founder_leaf(issuer: Authority, world: World) -> bytes:
    return make_durable_leaf(
        issuer,
        world.node.public,
        capabilities=ALL,
        admitted_at=world.now,
        now_unix_s=world.now,
        serial=bytes(8),
    )

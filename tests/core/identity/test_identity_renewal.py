"""When a leaf is renewed, and by whom."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.identity.admission import issue_durable
from meshpeer.core.identity.certificates import BACKDATED_S, DURABLE_S, ISSUER_S, Authority, make_issuer
from meshpeer.core.identity.chains import VerifiedIdentity, verify_chain
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.identity.renewal import RENEW_AFTER_S, SPREAD_S, TURN_S, can_renew, renewal_at
from meshpeer.core.ids import MeshId, NodeId

DAY = 86_400
ISSUERS = st.sets(st.binary(min_size=8, max_size=8), min_size=1, max_size=6)
NODES = st.binary(min_size=32, max_size=32).map(NodeId)


class World(Protocol):
    """The shared mesh of ``conftest``."""

    now: int
    root: Authority
    issuer: Authority
    durable: tuple[bytes, ...]

    @property
    def mesh(self) -> MeshId: ...
    @property
    def roots(self) -> tuple[bytes, ...]: ...


@given(node=NODES, issuers=ISSUERS)
@settings(max_examples=80, deadline=None)
def test_each_issuer_has_a_day_of_its_own_from_the_thirtieth_on(node: NodeId, issuers: set[bytes]) -> None:
    held = plain(node)
    turns = sorted(renewal_at(held, one, issuers) for one in issuers)
    first = held.signed_from + BACKDATED_S + RENEW_AFTER_S
    assert first <= turns[0] < first + SPREAD_S
    assert turns == [turns[0] + number * TURN_S for number in range(len(issuers))]
    assert turns[-1] < held.signed_from + DURABLE_S


@given(node=NODES, issuers=ISSUERS, shuffle=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_is_the_same_for_whoever_computes_it(
    node: NodeId, issuers: set[bytes], shuffle: st.DataObject
) -> None:
    shuffled = sorted(issuers)
    shuffle.shuffle(shuffled)  # type: ignore[attr-defined]
    for one in issuers:
        assert renewal_at(plain(node), one, shuffled) == renewal_at(plain(node), one, sorted(issuers))


def test_the_work_is_spread_over_issuers_and_over_time() -> None:
    issuers = [bytes([number]) * 8 for number in range(3)]
    nodes = [NodeId(hashlib.sha256(bytes([number])).digest()) for number in range(200)]
    firsts = [min(issuers, key=lambda one: renewal_at(plain(node), one, issuers)) for node in nodes]
    assert min(firsts.count(one) for one in issuers) > 40
    assert len({renewal_at(plain(node), issuers[0], issuers[:1]) // 3_600 for node in nodes}) > 40


@pytest.mark.parametrize(
    ("capabilities", "after", "can"),
    [
        (None, 40 * DAY, True),
        ({Capability.MEMBER}, 40 * DAY, False),
        (None, DAY // 2, False),
        (None, ISSUER_S - 300 * DAY, True),
    ],
    ids=["later", "an issuer that may hand on less", "nothing to be gained", "its last year"],
)
def test_an_issuer_renews_what_it_may_hand_on_and_what_then_lasts_longer(
    world: World, capabilities: set[Capability] | None, after: int, can: bool
) -> None:
    issuer = world.issuer
    if capabilities is not None:
        issuer = make_issuer(
            world.root, b"i" * 32, capabilities=capabilities, now_unix_s=world.now, serial=bytes(8)
        )
    held = verify_chain(world.durable, world.roots, world.mesh, world.now + 60)
    assert can_renew(issuer, held, world.now + 60 + after) is can


def test_an_issuer_that_ends_itself_renews_nothing_for_less(world: World) -> None:
    end = world.now + ISSUER_S
    held = dataclasses.replace(
        verify_chain(world.durable, world.roots, world.mesh, world.now + 60), not_after=end
    )
    assert not can_renew(world.issuer, held, end - 100 * DAY)


@given(days=st.lists(st.integers(31, 330), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_whatever_the_pauses_a_renewed_node_keeps_its_admission_and_never_ends(
    world: World, days: list[int]
) -> None:
    now, held = world.now + 60, verify_chain(world.durable, world.roots, world.mesh, world.now + 60)
    came = held.admitted_at
    for pause in days:
        now += pause * DAY
        if now > world.now + ISSUER_S - DURABLE_S:
            break
        assert now < held.not_after
        chain = issue_durable(world.issuer, held, now_unix_s=now, serial=bytes(8))
        renewed = verify_chain(chain, world.roots, world.mesh, now)
        assert (renewed.admitted_at, renewed.signed_from) == (came, now - BACKDATED_S)
        assert renewed.not_after == now + DURABLE_S > held.not_after
        held = renewed


def test_the_leaf_of_a_node_that_the_root_named_an_issuer_says_so(world: World) -> None:
    held = verify_chain(world.durable, world.roots, world.mesh, world.now + 60)
    assert Capability.ISSUER not in held.capabilities
    chain = issue_durable(world.issuer, held, now_unix_s=world.now + 60, serial=bytes(8), holder=True)
    named = verify_chain(chain, world.roots, world.mesh, world.now + 60)
    assert named.capabilities == held.capabilities | {Capability.ISSUER}


# --- helpers ---


def plain(node: NodeId) -> VerifiedIdentity:
    return VerifiedIdentity(
        node=node,
        durable=True,
        capabilities=frozenset({Capability.MEMBER}),
        roles=(),
        region="",
        routes=(),
        admitted_at=1,
        invite=b"",
        invite_uses=0,
        issuer=b"issuer--",
        signed_from=1_000_000,
        not_before=1_000_000,
        not_after=1_000_000 + DURABLE_S,
    )

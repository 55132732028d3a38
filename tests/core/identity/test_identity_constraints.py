from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.constraints import (
    ALL,
    CONSTRAINTS_BYTES_MAX,
    INVITE_DEFAULT,
    Capability,
    Constraints,
    Kind,
    describe,
    excess,
    form_fault,
    inherit,
    known,
)
from meshpeer.core.ids import MeshId
from meshpeer.core.wire import cbor

MESH = MeshId(bytes(16))
WORDS = st.sampled_from(["compute", "storage", "scheduler"])
LISTS = st.lists(WORDS, unique=True).map(tuple)
REGIONS = st.sampled_from(["", "eu", "us"])
CAPABILITIES = st.lists(st.sampled_from(["member", "work", "admin", "of-later"]), unique=True).map(tuple)


def test_capabilities_are_described_in_words_in_a_fixed_order() -> None:
    assert describe([Capability.WORK, Capability.MEMBER]) == "have tunnels to every member, run tasks"
    assert describe(INVITE_DEFAULT) == (
        "have tunnels to every member, submit jobs, run tasks, carry a region's traffic as its hub, "
        "relay encrypted packets for pairs that can't meet"
    )
    assert describe([]) == "do nothing", "an invite says it in words, whatever it permits"


def test_an_invite_gives_neither_issuer_nor_admin_by_default() -> None:
    assert frozenset({Capability.ISSUER, Capability.ADMIN}) == ALL - INVITE_DEFAULT


def test_words_of_a_later_version_are_no_capabilities_here() -> None:
    assert known(["member", "teleport"]) == {Capability.MEMBER}


def test_keys_are_one_letter_and_stay_so() -> None:
    full = Constraints(
        kind=Kind.LEAF,
        mesh=MESH,
        capabilities=("member",),
        roles=("a",),
        region="b",
        routes=("10.0.0.0/8",),
        uses=1,
        admitted_at=2,
        invite=bytes(8),
    )
    plain = cbor.decode_plain(cbor.encode(full), bytes_max=CONSTRAINTS_BYTES_MAX)
    assert plain == {
        "k": "leaf", "m": MESH, "c": ["member"], "r": ["a"], "g": "b", "n": ["10.0.0.0/8"], "u": 1, "a": 2,
        "i": bytes(8),
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        {"k": "leaf"},
        {"k": "leaf", "m": bytes(15)},
        {"k": "leaf", "m": bytes(17)},
        {"k": "boss", "m": MESH},
        {"k": "leaf", "m": MESH, "r": ["two words"]},
        {"k": "leaf", "m": MESH, "r": ["line\n"]},
        {"k": "leaf", "m": MESH, "r": [""]},
        {"k": "leaf", "m": MESH, "r": ["x" * 64]},
        {"k": "leaf", "m": MESH, "r": [f"r{number}" for number in range(17)]},
        {"k": "leaf", "m": MESH, "c": [f"c{number}" for number in range(33)]},
        {"k": "leaf", "m": MESH, "g": "\x1b[2J"},
        {"k": "leaf", "m": MESH, "u": -1},
        {"k": "leaf", "m": MESH, "u": True},
        {"k": "leaf", "m": MESH, "a": 2**62},
        {"k": "leaf", "m": MESH, "i": bytes(9)},
        ["leaf", MESH],
    ],
)
def test_content_out_of_bounds_is_refused(content: object) -> None:
    with pytest.raises(PeerFault):
        cbor.decode(cbor.encode(content), Constraints, bytes_max=CONSTRAINTS_BYTES_MAX)


def test_fields_of_a_later_version_are_ignored() -> None:
    data = cbor.encode({"k": "root", "m": MESH, "z": ["later"]})
    assert cbor.decode(data, Constraints, bytes_max=CONSTRAINTS_BYTES_MAX) == Constraints(
        kind=Kind.ROOT, mesh=MESH
    )


@pytest.mark.parametrize(
    ("constraints", "fault"),
    [
        (Constraints(kind=Kind.ROOT, mesh=MESH), ""),
        (Constraints(kind=Kind.INVITE, mesh=MESH, uses=1), ""),
        (Constraints(kind=Kind.LEAF, mesh=MESH, uses=1, invite=bytes(8)), ""),
        (Constraints(kind=Kind.LEAF, mesh=MESH, admitted_at=1), ""),
        (Constraints(kind=Kind.ROOT, mesh=MESH, roles=("a",)), "places nobody"),
        (Constraints(kind=Kind.ISSUER, mesh=MESH, region="a"), "places nobody"),
        (Constraints(kind=Kind.ISSUER, mesh=MESH, routes=("::/0",)), "places nobody"),
        (Constraints(kind=Kind.INVITE, mesh=MESH), "0 uses"),
        (Constraints(kind=Kind.ISSUER, mesh=MESH, uses=1), "1 uses"),
        (Constraints(kind=Kind.LEAF, mesh=MESH, uses=1), "1 uses"),
        (Constraints(kind=Kind.LEAF, mesh=MESH, invite=bytes(8)), "0 uses"),
        (Constraints(kind=Kind.LEAF, mesh=MESH, uses=1, invite=bytes(7)), "invite of 7 bytes"),
        (Constraints(kind=Kind.INVITE, mesh=MESH, uses=1, invite=bytes(8)), "invite of 8 bytes"),
        (Constraints(kind=Kind.INVITE, mesh=MESH, uses=1, admitted_at=1), "time of admission"),
        (Constraints(kind=Kind.LEAF, mesh=MESH, routes=("everywhere",)), "not a route"),
    ],
)
def test_every_kind_has_one_form(constraints: Constraints, fault: str) -> None:
    assert fault in form_fault(constraints)
    assert bool(form_fault(constraints)) is bool(fault)


@given(CAPABILITIES, CAPABILITIES, LISTS, LISTS, REGIONS, REGIONS)
@settings(max_examples=150, deadline=None)
def test_what_is_not_in_excess_inherits_no_more_than_the_invite_gives(
    upper_capabilities: tuple[str, ...],
    lower_capabilities: tuple[str, ...],
    upper_roles: tuple[str, ...],
    lower_roles: tuple[str, ...],
    upper_region: str,
    lower_region: str,
) -> None:
    upper = Constraints(
        kind=Kind.INVITE,
        mesh=MESH,
        capabilities=upper_capabilities,
        roles=upper_roles,
        region=upper_region,
        uses=1,
    )
    lower = Constraints(
        kind=Kind.LEAF, mesh=MESH, capabilities=lower_capabilities, roles=lower_roles, region=lower_region
    )
    if excess(upper, lower):
        return
    effective = inherit(upper, lower)
    assert set(effective.capabilities) <= set(upper.capabilities)
    for role in ("compute", "storage", "scheduler"):
        assert may_claim(effective.roles, role) <= may_claim(upper.roles, role)
    if upper.region:
        assert effective.region == upper.region


def may_claim(roles: tuple[str, ...], role: str) -> bool:
    return not roles or role in roles

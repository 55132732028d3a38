"""A digest of a plan's inputs: equal for equal facts, and different in the part that a fact belongs to."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.ids import Digest, NodeId, WireGuardKey
from meshpeer.core.topology.digest import PART_BYTES, PARTS, MemberRow, differing, digest_of
from meshpeer.core.topology.shape import Shape
from meshpeer.core.topology.view import MemberView, MeshView

CHARTER = Digest(b"c" * 32)


def test_equal_facts_have_one_digest_of_a_few_bytes_a_part() -> None:
    assert made() == made()
    assert len(made()) == len(PARTS) * PART_BYTES
    assert differing(made(), made()) == ()


def test_how_the_bytes_are_made_is_part_of_the_protocol() -> None:
    """Agents of two versions compare them: this value never changes."""
    assert made(topology="regional").hex() == "ce0b25f8ad6fe8dfd8e3b0c4e3075b510ae1"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"charter": Digest(b"d" * 32)}, ("charter",)),
        ({"record_of_2": b"x"}, ("members",)),
        ({"without_3": True}, ("members", "addresses")),
        ({"ipv4": "10.10.0.9"}, ("addresses",)),
        ({"wireguard_key": WireGuardKey(b"k" * 32)}, ("addresses",)),
        ({"doubted": True}, ("doubts",)),
        ({"name": "other"}, ()),
    ],
)
def test_each_fact_belongs_to_a_part(change: dict[str, object], parts: tuple[str, ...]) -> None:
    assert differing(made(), made(**change)) == parts
    assert differing(made(**change), made()) == parts


def test_another_mode_and_other_hubs_are_named() -> None:
    assert differing(made(), made(topology="regional")) == ("mode", "hubs")
    assert differing(made(topology="regional"), made(topology="regional", hub="never")) == ("hubs",)
    assert differing(made(), made(hub="never")) == (), "a full mesh has no hubs"


def test_what_nobody_else_knows_of_is_not_in_it() -> None:
    """Names follow each node's opinion of who is dead: tunnels do not depend on them."""
    assert made(name="n2") == made(name="n2-2")


def test_parts_of_a_later_version_are_not_compared() -> None:
    later = made() + b"new"
    assert differing(made(), later) == differing(later, made()) == ()


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=4), st.data())
def test_rows_never_run_together(rows: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    """Where two lists of members differ, their digests do."""
    other = data.draw(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=4))
    digests = [digest_of(Shape(view()), CHARTER, [_row(*row) for row in one]) for one in (rows, other)]
    assert (digests[0] == digests[1]) is (rows == other)


def test_many_members_are_one_digest_whatever_their_number() -> None:
    dice = random.Random(1)
    rows = [_row(dice.randbytes(32), dice.randbytes(32)) for _ in range(1_000)]
    assert len(digest_of(Shape(view()), CHARTER, rows)) == len(PARTS) * PART_BYTES


# --- helpers ------------------------------------------------------------------------------------------------


def _row(node: bytes, record: bytes) -> MemberRow:
    return NodeId(node), Digest(record), Digest(b"leaf")


def member(number: int) -> MemberView:
    return MemberView(
        node=NodeId(bytes([number]) * 32),
        name=f"n{number}",
        region="eu",
        wireguard_key=WireGuardKey(bytes([number]) * 32),
        ipv4=f"10.10.0.{number}",
        ipv6=f"fd00::{number}",
    )


def view(*members: MemberView, topology: str = "full") -> MeshView:
    return MeshView(subnet="10.10.0.0/24", topology=topology, keepalive_s=25, mtu=1420, members=members)


def made(
    *,
    topology: str = "full",
    charter: Digest = CHARTER,
    record_of_2: bytes = b"r",
    without_3: bool = False,
    **of_member_2: object,
) -> bytes:
    """Returns the digest of a mesh of three, changed in these ways."""
    two = dataclasses.replace(member(2), **of_member_2)  # type: ignore[arg-type]
    members = [member(1), two, *([] if without_3 else [member(3)])]
    rows = [_row(one.node, record_of_2 if one is two else b"r") for one in members]
    return digest_of(Shape(view(*members, topology=topology)), charter, rows)

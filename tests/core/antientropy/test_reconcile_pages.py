"""Digests in pages, against the naive reference: the union, the newer of two winning.

Members here are made without keys: what is exchanged is decided on digests alone, and who believes a fact is
the ledger's business (its tests exchange real ones).
"""

from __future__ import annotations

import dataclasses
import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.antientropy import reconcile
from meshpeer.core.antientropy.messages import Digest, Entry, Want
from meshpeer.core.antientropy.reconcile import ENTRIES_MAX, FACTS_BYTES_MAX, WANT_MAX
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import Digest as Sha256
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.records.kinds import CharterRecord, MemberRecord
from meshpeer.core.records.ledger import Ledger, Member
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import CERTIFICATE_BYTES_MAX, FRAME_BYTES_MAX, RECORD_BYTES_MAX

MESH = MeshId(b"m" * 16)
Versions = dict[NodeId, int]


@pytest.mark.parametrize("count", [0, 1, ENTRIES_MAX, ENTRIES_MAX + 1, 3 * ENTRIES_MAX - 1])
def test_pages_cover_every_member_once_and_leave_no_gap(count: int) -> None:
    ledger = ledger_of({node(number): 1 for number in range(count)})
    pages = reconcile.digests(ledger)
    assert [entry.node for page in pages for entry in page.entries] == [member.node for member in ledger]
    assert len(pages) == max(1, -(-count // ENTRIES_MAX))
    assert [page.low for page in pages] == [b"", *(page.high for page in pages[:-1])]
    assert pages[-1].high == b""
    for page in pages:
        assert all(page.low <= entry.node < (page.high or b"\xff" * 33) for entry in page.entries)


def test_the_largest_page_and_the_largest_want_fit_a_frame() -> None:
    entry = {"incarnation": 2**62, "sequence": 2**62, "record": b"r" * 8, "leaf": b"l" * 8, "proof": True}
    entries = tuple(Entry(node=node(number), **entry) for number in range(ENTRIES_MAX))  # type: ignore[arg-type]
    page = Digest(low=node(0), high=node(1), entries=entries, charter_version=2**62, charter=b"c" * 8)
    want = Want(nodes=tuple(node(number) for number in range(WANT_MAX)), charter=True)
    assert max(len(cbor.encode(page)), len(cbor.encode(want))) < FRAME_BYTES_MAX - 100


@given(seed=st.integers(0, 2**32), common=st.integers(0, 900), differing=st.integers(0, 60))
@settings(max_examples=25, deadline=None)
def test_two_ledgers_become_their_union_in_one_round_each_way(seed: int, common: int, differing: int) -> None:
    dice = random.Random(seed)
    left = {node(number): 1 for number in range(common)}
    right = dict(left)
    for number in range(differing):
        side = left if dice.random() < 0.5 else right
        side[node(dice.randrange(2 * common + 10))] = dice.randrange(1, 4) if number else 3
    union = {one: max(left.get(one, 0), right.get(one, 0)) for one in {*left, *right}}
    moved = exchange(left, right)
    assert left == right == union
    assert moved <= 2 * differing
    assert exchange(left, right) == 0
    assert exchange(right, left) == 0


def test_identical_ledgers_of_many_pages_have_nothing_to_say() -> None:
    versions = {node(number): 1 for number in range(2 * ENTRIES_MAX + 5)}
    mine, theirs = ledger_of(versions), ledger_of(versions)
    assert [reconcile.compare(mine, page) for page in reconcile.digests(theirs)] == [([], None)] * 3


def test_more_news_than_one_want_takes_come_in_several_rounds() -> None:
    left: Versions = {}
    right = {node(number): 1 for number in range(2 * WANT_MAX + 10)}
    rounds = 0
    while exchange(left, right):
        rounds += 1
        assert rounds <= 5
    assert left == right


@pytest.mark.parametrize("numbers", [(1, 0), (0, 0), (0, 2, 1)])
def test_unsorted_digest_is_refused(numbers: tuple[int, ...]) -> None:
    ordered = sorted(node(number) for number in range(3))
    with pytest.raises(PeerFault, match="not sorted"):
        reconcile.compare(ledger_of({}), page_of([ordered[number] for number in numbers]))


def test_digest_of_more_entries_than_a_page_has_is_refused() -> None:
    nodes = sorted(node(number) for number in range(ENTRIES_MAX + 1))
    with pytest.raises(PeerFault, match="too long"):
        reconcile.compare(ledger_of({}), page_of(nodes))


def test_digest_with_entries_outside_its_range_is_refused() -> None:
    nodes = sorted(node(number) for number in range(3))
    for low, high in ((nodes[1], b""), (b"", nodes[2])):
        with pytest.raises(PeerFault, match="outside its range"):
            reconcile.compare(ledger_of({}), page_of(nodes, low=low, high=high))


def test_page_speaks_of_its_own_range_only() -> None:
    nodes = sorted(node(number) for number in range(6))
    mine = ledger_of(dict.fromkeys(nodes, 1))
    push, want = reconcile.compare(mine, page_of([], low=nodes[2], high=nodes[4]))
    assert (push, want) == (nodes[2:4], None)


@pytest.mark.parametrize(
    ("mine", "theirs", "push", "pull"),
    [
        ((2, 1, b"a", False), (1, 9, b"b", False), True, False),
        ((1, 9, b"a", False), (2, 1, b"b", False), False, True),
        ((1, 2, b"a", False), (1, 1, b"b", False), True, False),
        ((1, 1, b"a", False), (1, 1, b"a", False), False, False),
        ((1, 1, b"a", False), (1, 1, b"b", False), True, True),
        ((1, 1, b"a", True), (1, 1, b"b", True), True, True),
        ((1, 1, b"a", True), (1, 1, b"a", False), True, False),
        ((1, 1, b"a", True), (1, 1, b"a", True), False, False),
        ((2, 1, b"a", False), (1, 1, b"b", True), True, False),
        ((1, 1, b"a", False), (0, 0, b"", False), True, False),
    ],
)
def test_who_has_news_for_whom(
    mine: tuple[int, int, bytes, bool], theirs: tuple[int, int, bytes, bool], push: bool, pull: bool
) -> None:
    """Precedence first; of equal precedence other bytes go both ways, since they are the proof."""
    ledger = ledger_of({})
    incarnation, sequence, digest, proof = mine
    member = member_of(node(1), incarnation, sequence, digest)
    member = dataclasses.replace(member, proof=(b"one", b"two") if proof else None)
    ledger._members[member.node] = member
    entry = Entry(node(1), *theirs[:2], theirs[2], b"", theirs[3])
    pushed, want = reconcile.compare(ledger, page_of([], entries=(entry,)))
    assert (bool(pushed), want is not None) == (push, pull)


@pytest.mark.parametrize(
    ("mine", "theirs", "asks"), [(1, 2, True), (2, 1, False), (2, 2, False), (0, 1, True), (0, 0, False)]
)
def test_newer_charter_is_asked_for(mine: int, theirs: int, asks: bool) -> None:
    ledger, other = ledger_of({}, charter=mine), ledger_of({}, charter=theirs)
    _, want = reconcile.compare(ledger, reconcile.digests(other)[0])
    assert (want is not None and want.charter) is asks


def test_two_charters_of_one_version_are_both_sent() -> None:
    ledger, other = ledger_of({}, charter=2), ledger_of({}, charter=2)
    other.charter_digest = Sha256(b"x" * 32)
    for one, two in ((ledger, other), (other, ledger)):
        _, want = reconcile.compare(one, reconcile.digests(two)[0])
        assert want == Want(nodes=(), charter=True)


@given(
    groups=st.lists(
        st.tuples(st.integers(0, 7), st.integers(1, 4), st.integers(0, 2), st.integers(0, 1024)), max_size=80
    )
)
@settings(max_examples=60, deadline=None)
def test_frames_of_facts_keep_order_and_fit(groups: list[tuple[int, int, int, int]]) -> None:
    """Groups of the largest kind that a member can cause: several chains of full size, two records."""
    content = [
        (
            [(bytes(min(size, CERTIFICATE_BYTES_MAX)),) * length] * chains,
            [bytes([number % 256]) * size] * records,
        )
        for number, (chains, length, records, size) in enumerate(groups)
    ]
    frames = list(reconcile.in_frames(content))
    assert [one for frame in frames for one in frame.chains] == [
        one for chains, _ in content for one in chains
    ]
    assert [one for frame in frames for one in frame.records] == [
        one for _, records in content for one in records
    ]
    for frame in frames:
        assert len(cbor.encode(frame)) < FRAME_BYTES_MAX - 10
    total = sum(len(cbor.encode(frame)) for frame in frames)
    assert len(frames) <= 1 + 2 * total // FACTS_BYTES_MAX
    assert max((size for *_, size in groups), default=0) <= RECORD_BYTES_MAX


# --- helpers ------------------------------------------------------------------------------------------------


def node(number: int) -> NodeId:
    return NodeId(hashlib.sha256(number.to_bytes(4, "big")).digest())


def member_of(one: NodeId, incarnation: int, sequence: int, digest: bytes) -> Member:
    record = MemberRecord(
        node=one,
        incarnation=incarnation,
        sequence=sequence,
        issued_at=0,
        ttl_s=1,
        name="n",
        region="",
        roles=(),
        wireguard_key=WireGuardKey(bytes(32)),
        wireguard_port=0,
        control_endpoints=(),
        wireguard_endpoints=(),
        certificate=Sha256(bytes(32)),
    )
    return Member(one, record=record, envelope=digest, digest=Sha256(digest))


def ledger_of(versions: Versions, *, charter: int = 0) -> Ledger:
    ledger = Ledger(MESH, ())
    for one, version in versions.items():
        ledger._members[one] = member_of(one, 1, version, hashlib.sha256(one + bytes([version])).digest())
    if charter:
        ledger.charter = CharterRecord(
            version=charter, issued_at=0, author=node(0), mesh_name="m", subnet="10.0.0.0/24"
        )
        ledger.charter_digest = Sha256(bytes([charter]) * 32)
    return ledger


def page_of(
    nodes: list[NodeId], *, low: bytes = b"", high: bytes = b"", entries: tuple[Entry, ...] = ()
) -> Digest:
    made = tuple(Entry(one, 1, 1, b"r" * 8, b"") for one in nodes)
    return Digest(low=low, high=high, entries=made + entries, charter_version=0, charter=b"")


def exchange(left: Versions, right: Versions) -> int:
    """``left`` sends its digest; what ``right`` pushes and wants is moved. Returns how many facts moved."""
    mine, theirs = ledger_of(left), ledger_of(right)
    moved = 0
    for page in reconcile.digests(mine):
        push, want = reconcile.compare(theirs, page)
        for one in push:
            left[one] = max(left.get(one, 0), right[one])
        for one in want.nodes if want else ():
            right[one] = max(right.get(one, 0), left[one])
        moved += len(push) + len(want.nodes if want else ())
    return moved

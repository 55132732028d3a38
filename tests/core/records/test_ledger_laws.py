"""The merge laws over random sets of real signed facts, and what breaks them if a rule is careless.

Random facts hold all that hurts: several bodies of one precedence, newer ones after them, several leaves of
one node, tombstones and charters. Whatever way facts take to two nodes, anti-entropy must make them equal.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.antientropy.facts import facts_about
from meshpeer.core.antientropy.messages import Compare, Facts, Synced
from meshpeer.core.antientropy.ranges import Reconciler
from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.certificates import (
    make_durable_leaf,
    make_invite,
    make_issuer,
    make_provisional_leaf,
    make_root,
    mesh_id_of,
    public_key_of,
)
from meshpeer.core.identity.constraints import ALL, INVITE_DEFAULT
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import Digest, NodeId, WireGuardKey
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import (
    CharterRecord,
    HubReport,
    LeaveRecord,
    MemberRecord,
    RegionDistance,
    SuspectRecord,
)
from meshpeer.core.records.ledger import Chain, Ledger, Verdict
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import FRAME_BYTES_MAX

NOW, DAY = 1_800_000_000, 86_400
SERIAL = bytes(range(8))
ROOT = make_root(b"r" * 32, now_unix_s=NOW, serial=SERIAL)
ISSUER = make_issuer(ROOT, b"i" * 32, now_unix_s=NOW, serial=SERIAL)
MESH = mesh_id_of(public_key_of(ROOT.certificate))
INVITE = make_invite(
    ISSUER,
    b"v" * 32,
    capabilities=INVITE_DEFAULT,
    roles=("compute", "storage"),
    uses=9,
    expires_s=DAY,
    now_unix_s=NOW,
    serial=SERIAL,
)
FOUNDER, OTHER, JOINER = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
Fact = Chain | bytes


def durable(key: SigningKey, *, roles: tuple[str, ...] = (), now: int = NOW) -> Chain:
    leaf = make_durable_leaf(
        ISSUER, key.public, capabilities=ALL, roles=roles, admitted_at=NOW, now_unix_s=now, serial=SERIAL
    )
    return (leaf, ISSUER.certificate)


def provisional(key: SigningKey, number: int = 0) -> Chain:
    leaf = make_provisional_leaf(INVITE, key.public, now_unix_s=NOW, serial=bytes([number]) * 8)
    return (leaf, INVITE.certificate, ISSUER.certificate)


def member(key: SigningKey, chain: Chain, incarnation: int, sequence: int, **changes: object) -> bytes:
    fields: dict[str, object] = {
        "node": key.public,
        "incarnation": incarnation,
        "sequence": sequence,
        "issued_at": NOW,
        "ttl_s": DAY,
        "name": "node",
        "region": "",
        "roles": ("compute",),
        "wireguard_key": WireGuardKey(bytes(32)),
        "wireguard_port": 51820,
        "control_endpoints": (),
        "wireguard_endpoints": (),
        "certificate": Digest(envelope.digest_of(chain[0])),
    }
    return envelope.sign(key, MESH, MemberRecord(**{**fields, **changes}))  # type: ignore[arg-type]


def leave(key: SigningKey, incarnation: int, sequence: int, *, name: str = "") -> bytes:
    body = LeaveRecord(
        node=key.public, incarnation=incarnation, sequence=sequence, issued_at=NOW, ttl_s=DAY, name=name
    )
    return envelope.sign(key, MESH, body)


def charter(key: SigningKey, version: int, name: str) -> bytes:
    body = CharterRecord(
        version=version, issued_at=NOW, author=key.public, mesh_name=name, subnet="10.0.0.0/24"
    )
    return envelope.sign(key, MESH, body)


def suspect(observer: SigningKey, subject: SigningKey, incarnation: int, sequence: int, at: int) -> bytes:
    body = SuspectRecord(
        observer=observer.public,
        subject=subject.public,
        incarnation=incarnation,
        sequence=sequence,
        issued_at=at,
        closed=False,
    )
    return envelope.sign(observer, MESH, body)


CHAINS: dict[bytes, list[Chain]] = {
    FOUNDER.public: [durable(FOUNDER)],
    OTHER.public: [durable(OTHER), durable(OTHER, now=NOW + 60), provisional(OTHER)],
    JOINER.public: [provisional(JOINER), provisional(JOINER, 1), provisional(JOINER, 2)],
}
FACTS: list[Fact] = [
    *itertools.chain.from_iterable(CHAINS.values()),
    *(
        member(key, chain, NOW + incarnation, sequence, name=name)
        for key in (FOUNDER, OTHER, JOINER)
        for chain in CHAINS[key.public][:2]
        for incarnation, sequence in ((0, 1), (0, 2), (1, 1))
        for name in ("one", "two")
    ),
    leave(FOUNDER, NOW, 2),
    leave(OTHER, NOW + 1, 1),
    leave(JOINER, NOW, 2),
    *(
        suspect(observer, subject, NOW + incarnation, sequence, NOW + at)
        for observer, subject in ((FOUNDER, OTHER), (FOUNDER, JOINER), (OTHER, JOINER), (JOINER, OTHER))
        for incarnation, sequence in ((0, 2), (1, 1))
        for at in (0, 5)
    ),
    *(charter(key, version, name) for key in (FOUNDER, OTHER) for version in (1, 2) for name in ("a", "b")),
]
SOME_FACTS = st.lists(st.sampled_from(range(len(FACTS))), max_size=14)


# --- laws ---------------------------------------------------------------------------------------------------


@given(numbers=SOME_FACTS, data=st.data())
@settings(max_examples=250, deadline=None)
def test_one_set_of_facts_is_one_ledger_in_any_order_any_number_of_times(
    numbers: list[int], data: st.DataObject
) -> None:
    """Commutative, associative and idempotent at once, every node's chains being there before its records."""
    other = data.draw(st.permutations(numbers))
    again = data.draw(st.lists(st.sampled_from(numbers), max_size=5)) if numbers else []
    straight, shuffled = empty(), empty()
    for ledger, order in ((straight, numbers), (shuffled, [*other, *again])):
        offer_all(ledger, [FACTS[number] for number in order if isinstance(FACTS[number], tuple)])
        offer_all(ledger, [FACTS[number] for number in order if isinstance(FACTS[number], bytes)])
        # A record that names one provisional leaf settles which of them stay, so leaves come once more.
        offer_all(ledger, [FACTS[number] for number in order if isinstance(FACTS[number], tuple)])
    reconcile_until_still(straight, shuffled)
    assert content(straight) == content(shuffled)


@given(left=SOME_FACTS, right=SOME_FACTS)
@settings(max_examples=250, deadline=None)
def test_two_nodes_that_heard_different_things_agree_after_three_rounds(
    left: list[int], right: list[int]
) -> None:
    one, two = empty(), empty()
    offer_all(one, [FACTS[number] for number in left])
    offer_all(two, [FACTS[number] for number in right])
    assert reconcile_until_still(one, two) <= 3
    assert content(one) == content(two)


@given(left=SOME_FACTS, right=SOME_FACTS)
@settings(max_examples=150, deadline=None)
def test_what_two_reconciled_nodes_hold_is_what_one_would_that_heard_it_all(
    left: list[int], right: list[int]
) -> None:
    one, two, union = empty(), empty(), empty()
    for ledger, numbers in ((one, left), (two, right), (union, [*left, *right])):
        chains_first = sorted(numbers, key=lambda number: isinstance(FACTS[number], bytes))
        offer_all(ledger, [FACTS[number] for number in chains_first])
    reconcile_until_still(one, two)
    for held in union:
        got = one.get(held.node)
        if got is None or not got.item:
            # A provisional leaf alone is not told, and a record without it is refused.
            assert held.durable is None
            continue
        # A record whose chain only the other side had was refused; its holder keeps the one before it.
        assert precedence_of(got.envelope) <= precedence_of(held.envelope)
        assert (got.best is None) == (held.best is None)


@pytest.mark.parametrize("gone", ["observer", "subject"])
def test_a_suspicion_that_is_void_for_one_is_void_for_all_in_any_order(gone: str) -> None:
    """Two ledgers that differ in it exchange it for ever: one sends it, the other never takes it."""
    said_of = suspect(OTHER, JOINER, NOW, 2, NOW)
    subject = member(JOINER, provisional(JOINER), NOW, 2)
    void = leave(OTHER, NOW + 2, 1)
    if gone == "subject":
        # Of two bodies of one precedence the lower digest holds.
        tombstones = (leave(JOINER, NOW, 2, name=f"j{number}") for number in range(1_000))
        void = next(one for one in tombstones if envelope.digest_of(one) < envelope.digest_of(subject))
    ledgers: list[Ledger] = []
    for order in itertools.permutations([member(OTHER, durable(OTHER), NOW + 1, 1), subject, said_of, void]):
        ledger = with_chains(OTHER)
        offer_all(ledger, CHAINS[JOINER.public])
        offer_all(ledger, order)
        ledgers.append(ledger)
    for ledger in ledgers[1:]:
        reconcile_until_still(ledgers[0], ledger)
        assert content(ledger) == content(ledgers[0])


# --- equivocation -------------------------------------------------------------------------------------------

BODIES = [member(FOUNDER, durable(FOUNDER), NOW, 1, name=name) for name in ("one", "two", "three")]


def test_three_bodies_of_one_precedence_leave_the_lowest_and_the_lowest_two_as_proof() -> None:
    by_digest = sorted(BODIES, key=envelope.digest_of)
    for order in itertools.permutations(BODIES):
        ledger = with_chains(FOUNDER)
        offer_all(ledger, list(order))
        held = ledger.get(FOUNDER.public)
        assert held is not None
        assert held.envelope == by_digest[0]
        assert held.proof == tuple(by_digest[:2])


def test_newer_record_ends_a_contradiction_whichever_came_first() -> None:
    newer = member(FOUNDER, durable(FOUNDER), NOW, 2)
    for order in itertools.permutations([*BODIES[:2], newer]):
        ledger = with_chains(FOUNDER)
        offer_all(ledger, list(order))
        held = ledger.get(FOUNDER.public)
        assert held is not None
        assert (held.envelope, held.proof) == (newer, None)


def test_who_joins_later_hears_of_a_contradiction_and_of_what_follows() -> None:
    for facts in (BODIES, [*BODIES, member(FOUNDER, durable(FOUNDER), NOW, 2)]):
        old, new = with_chains(FOUNDER), empty()
        offer_all(old, facts)
        assert reconcile_until_still(old, new) <= 2
        assert content(old) == content(new)


def test_record_and_tombstone_of_one_precedence_contradict_each_other() -> None:
    pair = [BODIES[0], leave(FOUNDER, NOW, 1)]
    for order in itertools.permutations(pair):
        ledger = with_chains(FOUNDER)
        assert [ledger.merge(one, NOW) for one in order] == [Verdict.ACCEPTED, Verdict.EQUIVOCATION]
        held = ledger.get(FOUNDER.public)
        assert held is not None
        assert held.envelope == min(pair, key=envelope.digest_of)


# --- certificates that take back what a record claims -------------------------------------------------------


def test_durable_leaf_that_allows_less_ends_a_record_that_claims_more() -> None:
    strict, bold = (
        durable(JOINER, roles=("compute",)),
        member(JOINER, provisional(JOINER), NOW, 1, roles=("storage",)),
    )
    first, second = empty(), empty()
    assert [first.admit(provisional(JOINER), NOW), first.merge(bold, NOW)] == [Verdict.ACCEPTED] * 2
    first.admit(strict, NOW)
    second.admit(strict, NOW)
    with pytest.raises(PeerFault, match="roles"):
        second.merge(bold, NOW)
    assert first.present(NOW) == second.present(NOW) == []
    assert reconcile_until_still(first, second) <= 1


# --- time ---------------------------------------------------------------------------------------------------


def test_expired_record_is_forgotten_and_offered_to_nobody() -> None:
    ledger = with_chains(FOUNDER, OTHER)
    short = member(FOUNDER, durable(FOUNDER), NOW, 1, ttl_s=100)
    offer_all(ledger, [short, member(OTHER, durable(OTHER), NOW, 1)])
    assert ledger.forget_expired(NOW + 99) == []
    assert ledger.forget_expired(NOW + 100) == [FOUNDER.public]
    frames = list(facts_about(ledger, [FOUNDER.public, OTHER.public]))
    assert [record for frame in frames for record in frame.records] == [ledger.get(OTHER.public).envelope]  # type: ignore[union-attr]
    assert ledger.merge(short, NOW + 100) is Verdict.STALE


def test_ghost_does_not_come_back_from_a_node_that_has_not_forgotten() -> None:
    quick, slow = with_chains(FOUNDER), with_chains(FOUNDER)
    short = member(FOUNDER, durable(FOUNDER), NOW, 1, ttl_s=100)
    for ledger in (quick, slow):
        ledger.merge(short, NOW)
    quick.forget_expired(NOW + 100)
    for frame in facts_about(slow, [FOUNDER.public]):
        assert frame.records
        for record in frame.records:
            assert quick.merge(record, NOW + 100) is Verdict.STALE
    assert quick.present(NOW + 100) == slow.present(NOW + 100) == []


def test_tombstone_outlives_the_records_that_it_supersedes() -> None:
    ledger = with_chains(FOUNDER)
    offer_all(ledger, [BODIES[0], leave(FOUNDER, NOW, 2)])
    ledger.forget_expired(NOW + DAY - 1)
    assert ledger.merge(BODIES[0], NOW + DAY - 1) is Verdict.STALE
    assert ledger.forget_expired(NOW + DAY) == [FOUNDER.public]
    assert ledger.merge(BODIES[0], NOW + DAY) is Verdict.STALE


@pytest.mark.parametrize("field", ["incarnation", "issued_at"])
def test_five_minutes_ahead_is_a_clock_and_more_is_an_attack(field: str) -> None:
    ledger = with_chains(FOUNDER)
    with pytest.raises(PeerFault, match="301 s ahead of this node's clock"):
        ledger.merge(
            member(FOUNDER, durable(FOUNDER), **{"incarnation": NOW, "sequence": 1, field: NOW + 301}), NOW
        )  # type: ignore[arg-type]
    assert (
        ledger.merge(
            member(FOUNDER, durable(FOUNDER), **{"incarnation": NOW, "sequence": 1, field: NOW + 300}), NOW
        )  # type: ignore[arg-type]
        is Verdict.ACCEPTED
    )


# --- what no record may say ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"control_endpoints": tuple(f"192.0.2.{n}:1" for n in range(9))}, "more than 8 endpoints"),
        ({"wireguard_endpoints": tuple(f"192.0.2.{n}:1" for n in range(9))}, "more than 8 endpoints"),
        ({"control_endpoints": ("192.0.2.1:1\nrm",)}, "no endpoint"),
        ({"wireguard_endpoints": ("h" * 300 + ":1",)}, "no endpoint"),
        ({"wireguard_endpoints": ("192.0.2.1",)}, "no endpoint"),
        ({"control_endpoints": ("192.0.2.1:65536",)}, "no endpoint"),
        ({"wireguard_key": b"short"}, "not 32 bytes"),
        ({"wireguard_port": -1}, "no port"),
        ({"wireguard_port": 65_536}, "no port"),
        ({"roles": tuple(f"r{n}" for n in range(17))}, "no DNS labels"),
        ({"ipv4": "10.0.0.256"}, "no IPv4 address"),
        ({"roles": ("Compute",)}, "no DNS labels"),
        ({"region": "eu west"}, "no DNS labels"),
        ({"hub": "al ways"}, "no DNS labels"),
        ({"hubs_failed": (HubReport(NodeId(bytes(32)), 1, "tunnel"),) * 5}, "more than 4 hubs"),
        ({"hubs_failed": (HubReport(NodeId(bytes(31)), 1, "tunnel"),)}, "a form that is none"),
        ({"hubs_failed": (HubReport(NodeId(bytes(32)), -1, "tunnel"),)}, "a form that is none"),
        ({"hubs_failed": (HubReport(NodeId(bytes(32)), 1, "\x1b[31m"),)}, "a form that is none"),
        ({"distances": tuple(RegionDistance(f"r{n}", 1) for n in range(9))}, "more than 8 distances"),
        ({"distances": (RegionDistance("eu west", 1),)}, "a distance that is none"),
        ({"distances": (RegionDistance("eu", 32),)}, "a distance that is none"),
        ({"answers": -1}, "answers out of range"),
        ({"answers": 256}, "answers out of range"),
        ({"ttl_s": 0}, "stale"),
        ({"sequence": -1}, "out of range"),
        ({"issued_at": -1, "ttl_s": 2**62}, "out of range"),
    ],
)
def test_record_with_a_field_out_of_bounds_is_refused_whole(changes: dict[str, object], fault: str) -> None:
    ledger = with_chains(FOUNDER)
    data = member(FOUNDER, durable(FOUNDER), **{"incarnation": NOW, "sequence": 1, **changes})  # type: ignore[arg-type]
    if fault == "stale":
        assert ledger.merge(data, NOW) is Verdict.STALE
    else:
        with pytest.raises(PeerFault, match=fault):
            ledger.merge(data, NOW)
    assert content(ledger) == content(with_chains(FOUNDER))


def test_record_above_its_size_is_refused_before_it_is_read() -> None:
    ledger = with_chains(FOUNDER)
    data = member(FOUNDER, durable(FOUNDER), NOW, 1, control_endpoints=("h" * 200 + ".example:1",) * 5)
    with pytest.raises(PeerFault, match="exceeds"):
        ledger.merge(data, NOW)


@given(at=st.integers(0, 10**6), value=st.integers(1, 255))
@settings(max_examples=80, deadline=None)
def test_no_altered_byte_gets_in(at: int, value: int) -> None:
    data = bytearray(BODIES[0])
    data[at % len(data)] ^= value
    ledger = with_chains(FOUNDER, OTHER)
    try:
        verdict = ledger.merge(bytes(data), NOW)
    except PeerFault:
        verdict = Verdict.STALE
    assert verdict is not Verdict.ACCEPTED
    assert content(ledger) == content(with_chains(FOUNDER, OTHER))


@given(data=st.binary(max_size=200))
@settings(max_examples=80, deadline=None)
def test_rubbish_is_a_fault_of_the_peer_and_nothing_else(data: bytes) -> None:
    ledger = with_chains(FOUNDER)
    with pytest.raises(PeerFault):
        ledger.merge(data, NOW)
    with pytest.raises(PeerFault):
        ledger.admit((data,), NOW)


def test_kinds_of_a_later_version_are_skipped_without_a_fault() -> None:
    body = cbor.encode({"k": "teleport", "node": FOUNDER.public})
    future = cbor.encode(envelope.Signed(body, FOUNDER.sign(envelope.RECORD_CONTEXT, MESH, body)))
    assert with_chains(FOUNDER).merge(future, NOW) is Verdict.UNKNOWN


# --- helpers ------------------------------------------------------------------------------------------------


def empty() -> Ledger:
    return Ledger(MESH, (ROOT.certificate,))


def with_chains(*keys: SigningKey) -> Ledger:
    ledger = empty()
    for key in keys:
        ledger.admit(CHAINS[key.public][0], NOW)
    return ledger


def offer_all(ledger: Ledger, facts: list[Fact] | list[bytes] | list[Chain]) -> None:
    for fact in facts:
        try:
            if isinstance(fact, tuple):
                ledger.admit(fact, NOW)
            else:
                ledger.merge(fact, NOW)
        except PeerFault:
            pass


def content(ledger: Ledger) -> list[object]:
    """All that counts: leaves kept in reserve may differ, which two of three bodies are the proof, and who
    showed a provisional leaf and has said nothing yet."""
    members = [
        (
            one.node,
            one.best.leaf if one.best else None,
            one.envelope,
            one.proof is not None,
            [suspicion.digest for suspicion in one.suspicions],
        )
        for one in ledger
        if one.item
    ]
    return [members, ledger.charter_envelope]


def precedence_of(data: bytes) -> tuple[int, int]:
    if not data:
        return (0, 0)
    body = envelope.open_body(data, MemberRecord | LeaveRecord, bytes_max=2_000)  # type: ignore[arg-type]
    return (body.incarnation, body.sequence)  # type: ignore[attr-defined]


def reconcile_until_still(left: Ledger, right: Ledger) -> int:
    """Lets two nodes exchange digests in turn until neither has anything to say; returns the rounds."""
    for rounds in range(8):
        sent = exchange(left, right) + exchange(right, left)
        if not sent:
            return rounds
    raise AssertionError("two ledgers exchange the same facts for ever")


def exchange(asker: Ledger, answerer: Ledger) -> int:
    """One round that ``asker`` begins; returns the frames of facts."""
    sides = [(asker, Reconciler(asker)), (answerer, Reconciler(answerer))]
    message: Compare | Synced = sides[0][1].open()
    frames, turn = 0, 1
    while isinstance(message, Compare):
        ledger, reconciler = sides[turn]
        answer = reconciler.on_compare(message)
        frames += deliver(sides[1 - turn][0], list(facts_about(ledger, answer.push)))
        message, turn = answer.reply, 1 - turn
    return frames


def deliver(ledger: Ledger, frames: list[Facts]) -> int:
    for facts in frames:
        assert len(cbor.encode(facts)) < FRAME_BYTES_MAX
        offer_all(ledger, list(facts.chains))
        offer_all(ledger, list(facts.records))
    return len(frames)

"""The ledger's rules, on real keys, certificates and signatures."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.antientropy.facts import facts_about
from meshpeer.core.antientropy.messages import Compare, Synced
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
from meshpeer.core.ids import Digest, WireGuardKey
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import CharterRecord, LeaveRecord, MemberRecord
from meshpeer.core.records.ledger import Chain, Ledger, Verdict
from meshpeer.core.wire import cbor

NOW = 1_800_000_000
SERIAL = bytes(range(8))
ROOT = make_root(bytes([1]) * 32, now_unix_s=NOW, serial=SERIAL)
ISSUER = make_issuer(ROOT, bytes([2]) * 32, now_unix_s=NOW, serial=SERIAL)
MESH = mesh_id_of(public_key_of(ROOT.certificate))
INVITE = make_invite(
    ISSUER,
    bytes([3]) * 32,
    capabilities=INVITE_DEFAULT,
    roles=("compute",),
    region="",
    uses=5,
    expires_s=86_400,
    now_unix_s=NOW,
    serial=SERIAL,
)
KEYS = [SigningKey(bytes([10 + number]) * 32) for number in range(4)]


def durable(key: SigningKey, *, routes: tuple[str, ...] = (), invite: bytes = b"", uses: int = 0) -> Chain:
    leaf = make_durable_leaf(
        ISSUER,
        key.public,
        capabilities=ALL,
        routes=routes,
        invite=invite,
        uses=uses,
        admitted_at=NOW,
        now_unix_s=NOW,
        serial=SERIAL,
    )
    return (leaf, ISSUER.certificate)


def provisional(key: SigningKey) -> Chain:
    leaf = make_provisional_leaf(INVITE, key.public, now_unix_s=NOW, serial=SERIAL)
    return (leaf, INVITE.certificate, ISSUER.certificate)


def record_of(key: SigningKey, chain: Chain, **changes: object) -> MemberRecord:
    fields: dict[str, object] = {
        "node": key.public,
        "incarnation": NOW,
        "sequence": 1,
        "issued_at": NOW,
        "ttl_s": 86_400,
        "name": "node",
        "region": "",
        "roles": ("compute",),
        "wireguard_key": WireGuardKey(bytes(32)),
        "wireguard_port": 51820,
        "control_endpoints": (),
        "wireguard_endpoints": (),
        "certificate": Digest(envelope.digest_of(chain[0])),
    }
    return MemberRecord(**{**fields, **changes})  # type: ignore[arg-type]


def signed(key: SigningKey, body: object) -> bytes:
    return envelope.sign(key, MESH, body)


def empty() -> Ledger:
    return Ledger(MESH, (ROOT.certificate,))


def admitted(*keys: SigningKey) -> Ledger:
    ledger = empty()
    for key in keys:
        assert ledger.admit(durable(key), NOW) is Verdict.ACCEPTED
    return ledger


def charter_of(key: SigningKey, version: int, name: str = "m") -> bytes:
    body = CharterRecord(
        version=version, issued_at=NOW, author=key.public, mesh_name=name, subnet="10.0.0.0/24"
    )
    return signed(key, body)


def content(ledger: Ledger) -> list[object]:
    members = [(one.node, sorted(one.admissions), one.envelope, one.proof) for one in ledger if one.item]
    return [members, ledger.charter_envelope]


CHARTER = signed(
    KEYS[0],
    CharterRecord(version=1, issued_at=NOW, author=KEYS[0].public, mesh_name="m", subnet="10.0.0.0/24"),
)
CHARTER_2 = signed(
    KEYS[1],
    CharterRecord(version=2, issued_at=NOW, author=KEYS[1].public, mesh_name="m", subnet="10.0.0.0/24"),
)
CHARTER_2B = signed(
    KEYS[0],
    CharterRecord(version=2, issued_at=NOW, author=KEYS[0].public, mesh_name="x", subnet="10.1.0.0/24"),
)
FACTS: list[tuple[str, object]] = [
    *(("chain", durable(key)) for key in KEYS),
    ("chain", provisional(KEYS[3])),
    *(
        ("record", signed(key, record_of(key, durable(key), sequence=number)))
        for key in KEYS[:3]
        for number in (1, 2)
    ),
    ("record", signed(KEYS[3], record_of(KEYS[3], provisional(KEYS[3])))),
    ("record", signed(KEYS[0], record_of(KEYS[0], durable(KEYS[0]), sequence=2, name="other"))),
    (
        "record",
        signed(
            KEYS[2],
            LeaveRecord(node=KEYS[2].public, incarnation=NOW, sequence=3, issued_at=NOW, ttl_s=86_400),
        ),
    ),
    ("record", CHARTER),
    ("record", CHARTER_2),
    ("record", CHARTER_2B),
]


def offer(ledger: Ledger, fact: tuple[str, object]) -> Verdict:
    kind, value = fact
    return ledger.admit(value, NOW) if kind == "chain" else ledger.merge(value, NOW)  # type: ignore[arg-type]


def offer_until_still(ledger: Ledger, facts: list[tuple[str, object]]) -> None:
    """Offers all again until none is news: a record before its certificate comes again by reconciliation."""
    for _ in range(len(facts)):
        if all(offer(ledger, fact) not in (Verdict.ACCEPTED,) for fact in facts):
            return


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(range(len(FACTS))), again=st.lists(st.sampled_from(range(len(FACTS))), max_size=8)
)
def test_merge_gives_one_ledger_in_any_order_any_number_of_times(order: list[int], again: list[int]) -> None:
    straight, shuffled = empty(), empty()
    offer_until_still(straight, FACTS)
    offer_until_still(shuffled, [FACTS[number] for number in (*order, *again)])
    assert content(shuffled) == content(straight)


def test_higher_precedence_wins_and_lower_is_stale() -> None:
    ledger = admitted(KEYS[0])
    old, new = (signed(KEYS[0], record_of(KEYS[0], durable(KEYS[0]), sequence=number)) for number in (1, 2))
    assert ledger.merge(new, NOW) is Verdict.ACCEPTED
    assert ledger.merge(old, NOW) is Verdict.STALE
    assert ledger.merge(new, NOW) is Verdict.KNOWN


def test_record_before_its_certificate_waits_for_it() -> None:
    ledger = empty()
    record = signed(KEYS[0], record_of(KEYS[0], durable(KEYS[0])))
    assert ledger.merge(record, NOW) is Verdict.UNADMITTED
    ledger.admit(durable(KEYS[0]), NOW)
    assert ledger.merge(record, NOW) is Verdict.ACCEPTED


def test_nobody_speaks_for_another() -> None:
    ledger = admitted(KEYS[0], KEYS[1])
    with pytest.raises(envelope.BadSignature):
        ledger.merge(signed(KEYS[1], record_of(KEYS[0], durable(KEYS[0]))), NOW)
    leave = LeaveRecord(node=KEYS[0].public, incarnation=NOW, sequence=9, issued_at=NOW, ttl_s=60)
    with pytest.raises(envelope.BadSignature):
        ledger.merge(signed(KEYS[1], leave), NOW)


def test_signature_for_another_mesh_or_context_is_refused() -> None:
    ledger = admitted(KEYS[0])
    body = record_of(KEYS[0], durable(KEYS[0]))
    for forged in (
        envelope.sign(KEYS[0], MESH, body, context=envelope.JOB_CONTEXT),
        envelope.sign(KEYS[0], type(MESH)(bytes(16)), body),
    ):
        with pytest.raises(envelope.BadSignature):
            ledger.merge(forged, NOW)


@pytest.mark.parametrize("changes", [{"issued_at": NOW + 400}, {"incarnation": NOW + 400}])
def test_nobody_pushes_a_counter_to_its_end(changes: dict[str, int]) -> None:
    ledger = admitted(KEYS[0])
    with pytest.raises(PeerFault, match="ahead of this node's clock"):
        ledger.merge(signed(KEYS[0], record_of(KEYS[0], durable(KEYS[0]), **changes)), NOW)


def test_expired_record_is_never_accepted_and_is_forgotten() -> None:
    ledger = admitted(KEYS[0])
    record = signed(KEYS[0], record_of(KEYS[0], durable(KEYS[0]), ttl_s=100))
    assert ledger.merge(record, NOW + 100) is Verdict.STALE
    assert ledger.merge(record, NOW + 99) is Verdict.ACCEPTED
    assert ledger.present(NOW + 99)
    assert not ledger.present(NOW + 100)
    assert ledger.forget_expired(NOW + 100) == [KEYS[0].public]
    assert ledger.get(KEYS[0].public).current is None  # type: ignore[union-attr]


def test_leave_beats_every_record_before_it_and_yields_to_a_later_one() -> None:
    ledger = admitted(KEYS[0])
    leave = LeaveRecord(node=KEYS[0].public, incarnation=NOW, sequence=5, issued_at=NOW, ttl_s=86_400)
    assert ledger.merge(signed(KEYS[0], leave), NOW) is Verdict.ACCEPTED
    assert (
        ledger.merge(signed(KEYS[0], record_of(KEYS[0], durable(KEYS[0]), sequence=4)), NOW) is Verdict.STALE
    )
    assert ledger.present(NOW) == []
    back = signed(KEYS[0], record_of(KEYS[0], durable(KEYS[0]), incarnation=NOW + 1))
    assert ledger.merge(back, NOW) is Verdict.ACCEPTED
    assert [one.node for one in ledger.present(NOW)] == [KEYS[0].public]


def test_equivocation_keeps_the_lower_digest_and_the_proof_on_every_node() -> None:
    bodies = [signed(KEYS[0], record_of(KEYS[0], durable(KEYS[0]), name=name)) for name in ("one", "two")]
    for order in itertools.permutations(bodies):
        ledger = admitted(KEYS[0])
        assert [ledger.merge(body, NOW) for body in order] == [Verdict.ACCEPTED, Verdict.EQUIVOCATION]
        member = ledger.get(KEYS[0].public)
        assert member is not None
        assert member.envelope == min(bodies, key=envelope.digest_of)
        assert member.proof == tuple(sorted(bodies, key=envelope.digest_of))
        assert {ledger.merge(body, NOW) for body in bodies} == {Verdict.KNOWN}


def test_record_beyond_its_certificate_is_refused() -> None:
    ledger = empty()
    ledger.admit(provisional(KEYS[0]), NOW)
    with pytest.raises(PeerFault, match="roles"):
        ledger.merge(signed(KEYS[0], record_of(KEYS[0], provisional(KEYS[0]), roles=("boss",))), NOW)


@pytest.mark.parametrize("lan", ["192.168.6.0/24", "192.168.0.0/16", "fd05::/64"])
def test_record_that_leads_to_a_lan_beyond_its_certificate_is_refused_and_changes_nothing(lan: str) -> None:
    ledger = empty()
    chain = durable(KEYS[0], routes=("192.168.5.0/24",), invite=bytes(8), uses=1)
    ledger.admit(chain, NOW)
    within = record_of(KEYS[0], chain, routes=("192.168.5.0/24", "192.168.5.128/25"))
    assert ledger.merge(signed(KEYS[0], within), NOW) is Verdict.ACCEPTED
    beyond = record_of(KEYS[0], chain, sequence=2, routes=("192.168.5.0/24", lan))
    with pytest.raises(PeerFault, match="a LAN that its certificate does not allow"):
        ledger.merge(signed(KEYS[0], beyond), NOW)
    member = ledger.get(KEYS[0].public)
    assert member is not None
    assert member.record == within


@pytest.mark.parametrize(
    "lans",
    [("0.0.0.0/0",), ("127.0.0.0/8",), ("192.168.5.1/24",), ("x",), ("192.168.5.0/24",) * 2,
     tuple(f"192.168.{one}.0/24" for one in range(9))],
)  # fmt: skip
def test_what_is_no_lan_is_refused_of_anybody(lans: tuple[str, ...]) -> None:
    ledger = admitted(KEYS[0])
    with pytest.raises(PeerFault):
        ledger.merge(signed(KEYS[0], record_of(KEYS[0], durable(KEYS[0]), routes=lans)), NOW)


def test_a_founder_leads_to_any_lan() -> None:
    ledger = admitted(KEYS[0])
    body = record_of(KEYS[0], durable(KEYS[0]), routes=("192.168.5.0/24", "fd05::/64"))
    assert ledger.merge(signed(KEYS[0], body), NOW) is Verdict.ACCEPTED


@pytest.mark.parametrize(
    "name", ["", "a" * 64, "under_score", "two words", "new\nline", "-edge", "UPPER", "\x1b[31m"]
)
def test_name_that_is_no_label_is_refused(name: str) -> None:
    ledger = admitted(KEYS[0])
    with pytest.raises(PeerFault):
        ledger.merge(signed(KEYS[0], record_of(KEYS[0], durable(KEYS[0]), name=name)), NOW)


def test_fields_of_a_later_version_survive_in_the_bytes() -> None:
    ledger = admitted(KEYS[0])
    import msgspec

    plain = {**msgspec.to_builtins(record_of(KEYS[0], durable(KEYS[0])), builtin_types=(bytes,)), "zeta": 7}
    body = cbor.encode(plain)
    future = cbor.encode(envelope.Signed(body, KEYS[0].sign(envelope.RECORD_CONTEXT, MESH, body)))
    assert ledger.merge(future, NOW) is Verdict.ACCEPTED
    assert ledger.get(KEYS[0].public).envelope == future  # type: ignore[union-attr]


@pytest.mark.parametrize("ipv4", ["10.10.0.300", "fd00::1", "10.10.0.1/24", "x", "10.10.0.1 mine.mesh"])
def test_tombstone_that_gives_back_no_address_is_refused(ipv4: str) -> None:
    ledger = admitted(KEYS[0])
    leave = LeaveRecord(
        node=KEYS[0].public, incarnation=NOW, sequence=1, issued_at=NOW, ttl_s=86_400, ipv4=ipv4
    )
    with pytest.raises(PeerFault, match="no IPv4 address"):
        ledger.merge(signed(KEYS[0], leave), NOW)


def test_tombstone_of_an_older_version_names_no_address() -> None:
    import msgspec

    ledger = admitted(KEYS[0])
    leave = LeaveRecord(node=KEYS[0].public, incarnation=NOW, sequence=1, issued_at=NOW, ttl_s=86_400)
    plain = msgspec.to_builtins(leave, builtin_types=(bytes,))
    del plain["ipv4"]
    body = cbor.encode(plain)
    old = cbor.encode(envelope.Signed(body, KEYS[0].sign(envelope.RECORD_CONTEXT, MESH, body)))
    assert ledger.merge(old, NOW) is Verdict.ACCEPTED
    assert ledger.get(KEYS[0].public).leave == leave  # type: ignore[union-attr]


def test_charter_needs_an_admin_and_the_highest_version_counts() -> None:
    ledger = empty()
    ledger.admit(provisional(KEYS[3]), NOW)
    forged = CharterRecord(
        version=9, issued_at=NOW, author=KEYS[3].public, mesh_name="m", subnet="10.0.0.0/24"
    )
    with pytest.raises(PeerFault, match="admin"):
        ledger.merge(signed(KEYS[3], forged), NOW)
    for key in KEYS[:2]:
        ledger.admit(durable(key), NOW)
    assert ledger.merge(CHARTER_2, NOW) is Verdict.ACCEPTED
    assert ledger.merge(CHARTER, NOW) is Verdict.STALE


def test_leaf_that_another_made_for_a_node_does_not_push_its_own_aside() -> None:
    ledger = empty()
    for number in range(3):
        foreign = make_provisional_leaf(
            INVITE, KEYS[0].public, now_unix_s=NOW - number, serial=bytes([number]) * 8
        )
        ledger.admit((foreign, INVITE.certificate, ISSUER.certificate), NOW)
    own = provisional(KEYS[0])
    ledger.admit(own, NOW)
    assert ledger.merge(signed(KEYS[0], record_of(KEYS[0], own)), NOW) is Verdict.ACCEPTED
    assert ledger.get(KEYS[0].public).best.chain == own  # type: ignore[union-attr]


def test_invite_key_cannot_fill_the_ledger() -> None:
    ledger = empty()
    verdicts = []
    for number in range(30):
        key = SigningKey(bytes([100 + number]) * 32)
        try:
            verdicts.append(ledger.admit(provisional(key), NOW))
        except PeerFault:
            break
    assert len(verdicts) == 5 + 8


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(min_value=0, max_value=10**6))
def test_two_ledgers_are_equal_after_they_reconcile(seed: int) -> None:
    dice = random.Random(seed)
    left, right = empty(), empty()
    for ledger in (left, right):
        offer_until_still(ledger, dice.sample(FACTS, dice.randrange(len(FACTS) + 1)))
    for _ in range(4):
        exchange(left, right)
        exchange(right, left)
    assert content(left) == content(right)
    # And equal ledgers have nothing more to say to each other.
    assert exchange(left, right) == 0


def exchange(asker: Ledger, answerer: Ledger) -> int:
    """One round that ``asker`` begins; returns how many members were pushed."""
    sides = [(asker, Reconciler(asker)), (answerer, Reconciler(answerer))]
    message: Compare | Synced = sides[0][1].open()
    pushed, turn = 0, 1
    while isinstance(message, Compare):
        ledger, reconciler = sides[turn]
        answer = reconciler.on_compare(message)
        deliver(sides[1 - turn][0], facts_about(ledger, answer.push))
        pushed += len(answer.push)
        message, turn = answer.reply, 1 - turn
    return pushed


def deliver(ledger: Ledger, frames: object) -> None:
    for facts in frames:  # type: ignore[attr-defined]
        for chain in facts.chains:
            ledger.admit(chain, NOW)
        for record in facts.records:
            ledger.merge(record, NOW)

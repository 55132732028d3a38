"""The gate: each limit driven past its end, what it counts, and that nobody else waits for it."""

from __future__ import annotations

import random

import pytest

from meshpeer.core.antientropy.messages import Facts, Want
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Delete
from meshpeer.core.identity.certificates import make_durable_leaf
from meshpeer.core.identity.constraints import ALL
from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey
from meshpeer.core.ids import Digest, NodeId, key_text
from meshpeer.core.node import gate
from meshpeer.core.node.gossip import Gossip
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import MemberRecord, SuspectRecord
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.core.records.places import PROVISIONAL_SPARE
from meshpeer.sim.world import EPOCH_S, World

A, B = (NodeId(bytes([number]) * 32) for number in (1, 2))
NOW = int(EPOCH_S)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


# --- what a link may bring ----------------------------------------------------------------------------------


def test_a_link_brings_no_more_records_than_its_burst_and_200_a_second(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LINK_FACTS_BURST", 10.0)
    mesh = Mesh()
    keys = [mesh.admit(number) for number in range(220)]
    records = [mesh.record(key) for key in keys]
    assert mesh.bring(A, records=records[:12], at_s=0) == 10
    assert mesh.counters.get(Counter.RECORDS_RATE_LIMITED) == 2
    assert mesh.bring(B, records=records[10:12], at_s=0) == 2, "another link waits for nobody"
    assert mesh.bring(A, records=records[12:], at_s=1) == 10, "the bucket holds no more than its burst"
    mesh.gossip.on_up(A, at(1), opens=False)
    assert mesh.bring(A, records=records[22:32], at_s=1) == 10, "a new link begins with a full burst"


def test_a_peer_is_told_of_no_more_members_than_its_burst_and_200_a_second_on_whatever_links(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "LINK_ASKS_BURST", 10.0)
    mesh = Mesh()
    asked = Want(nodes=tuple(mesh.admit(number).public for number in range(5)))
    assert mesh.gossip.on_message(A, asked, at(0)).sends
    assert mesh.gossip.on_message(A, asked, at(0)).sends
    mesh.gossip.on_up(A, at(0), opens=False)
    assert mesh.gossip.on_message(A, asked, at(0)).sends == [], "a new link brings no new burst"
    assert mesh.gossip.on_message(A, mesh.gossip._reconciler.open(), at(0)).sends == []
    assert mesh.counters.get(Counter.ASKS_RATE_LIMITED) == 2
    assert mesh.gossip.on_message(B, asked, at(0)).sends, "another peer waits for nobody"
    assert mesh.gossip.on_message(A, asked, at(1)).sends


def test_a_link_brings_no_more_certificates_than_its_burst_and_200_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "LINK_FACTS_BURST", 10.0)
    mesh = Mesh()
    chains = [mesh.durable(SigningKey(number.to_bytes(32, "big"))) for number in range(12)]
    assert mesh.bring(A, chains=chains, at_s=0) == 10
    assert mesh.counters.get(Counter.RECORDS_RATE_LIMITED) == 2
    assert mesh.bring(B, chains=chains, at_s=0) == 2


# --- what an author may say ---------------------------------------------------------------------------------


def test_a_member_changes_five_times_at_once_and_then_once_a_second(mesh: Mesh) -> None:
    loud, calm = mesh.admit(1), mesh.admit(2)
    assert mesh.bring(A, records=[mesh.record(loud)], at_s=0) == 1
    changes = [mesh.record(loud, sequence=number) for number in range(2, 20)]
    assert mesh.bring(A, records=changes[:8], at_s=0) == 5
    assert mesh.counters.get(Counter.ORIGINS_RATE_LIMITED) == 3
    assert mesh.bring(A, records=[mesh.record(calm), mesh.record(calm, sequence=2)], at_s=0) == 2
    assert mesh.bring(B, records=changes[8:10], at_s=1) == 1, "whoever passes it on"
    assert mesh.bring(B, records=changes[10:12], at_s=3) == 2


def test_an_observer_suspects_64_at_once_and_then_two_a_second(mesh: Mesh) -> None:
    observer, other = mesh.admit(0), mesh.admit(1)
    subjects = [mesh.admit(number) for number in range(2, 80)]
    everybody = [mesh.record(key) for key in (observer, other, *subjects)]
    mesh.bring(A, records=everybody, at_s=0)
    said = [mesh.suspicion(observer, key) for key in subjects]
    assert mesh.bring(A, records=said, at_s=0) == 64
    assert mesh.counters.get(Counter.ORIGINS_RATE_LIMITED) == 78 - 64
    assert mesh.bring(A, records=[mesh.suspicion(other, subjects[0])], at_s=0) == 1
    assert mesh.bring(B, records=said[64:], at_s=1) == 2


# --- what an invite may bring -------------------------------------------------------------------------------


def test_an_invite_lets_in_its_uses_and_eight_more_until_an_issuer_has_judged() -> None:
    mesh = Mesh(uses=5)
    chains = [mesh.provisional(number) for number in range(40)]
    assert mesh.bring(A, chains=chains[:30], at_s=0) == 5 + PROVISIONAL_SPARE
    assert mesh.counters.get(Counter.INVITES_FULL) == 30 - 5 - PROVISIONAL_SPARE
    assert mesh.bring(B, chains=chains[30:], at_s=0) == 0, "whoever brings them"
    admitted = [mesh.durable(SigningKey(bytes([number]) * 32)) for number in range(20)]
    assert mesh.bring(A, chains=admitted, at_s=1) == 20, "those whom issuers admitted wait for nobody"


def test_whoever_is_left_when_all_places_are_given_is_dropped_and_named() -> None:
    mesh = Mesh(uses=2)
    keys = [SigningKey(number.to_bytes(32, "big")) for number in range(4)]
    chains = [mesh.provisional(number) for number in range(4)]
    mesh.bring(
        A,
        chains=chains,
        records=[mesh.record(key, chain) for key, chain in zip(keys, chains, strict=True)],
        at_s=0,
    )
    assert len(mesh.ledger.ids) == 4
    invite = mesh.ledger.identify(chains[0], NOW).invite
    places = [mesh.durable(key, invite=invite, uses=2) for key in keys[2:]]
    outcome = mesh.gossip.on_facts(A, Facts(chains=tuple(places)), at(1))
    assert set(mesh.ledger.ids) == {key.public for key in keys[2:]}
    assert set(mesh.ledger.places.excess[invite]) == {key.public for key in keys[:2]}
    gone = {change.key for change in outcome.changes if isinstance(change, Delete)}
    assert gone == {key_text(key.public) for key in keys[:2]}, "the journal forgets them too"
    assert mesh.bring(B, chains=chains[:2], at_s=2) == 0


def test_a_node_that_hears_of_the_admitted_first_checks_one_more_of_the_invite_at_most() -> None:
    mesh = Mesh(uses=1)
    chains = [mesh.provisional(number) for number in range(20)]
    invite = mesh.ledger.identify(chains[0], NOW).invite
    mesh.bring(A, chains=[mesh.durable(SigningKey(bytes(32)), invite=invite, uses=1)], at_s=0)
    mesh.bring(A, chains=chains, at_s=1)
    assert mesh.counters.get(Counter.INVITES_FULL) == 19


def test_a_provisional_leaf_alone_is_nobodys_news() -> None:
    """Whoever holds an invite makes as many as it likes: only what speaks for itself travels."""
    mesh = Mesh(uses=100)
    before = mesh.ledger.fingerprint
    outcome = mesh.gossip.on_facts(A, Facts(chains=(mesh.provisional(1),), push=True), at(0))
    assert (outcome.sends, outcome.changes, mesh.ledger.fingerprint) == ([], [], before)
    record = mesh.record(SigningKey((1).to_bytes(32, "big")), mesh.provisional(1))
    outcome = mesh.gossip.on_facts(A, Facts(records=(record,), push=True), at(1))
    (frame,) = [one for peer, one in outcome.sends if peer == B]
    assert isinstance(frame, Facts)
    assert (len(frame.chains), frame.records) == (1, (record,))


def test_a_chain_whose_signature_does_not_hold_ends_the_link(mesh: Mesh) -> None:
    """Each one costs a signature: nobody honest passes it on."""
    leaf, *above = mesh.durable(SigningKey(b"x" * 32))
    forged = leaf[:-1] + bytes([leaf[-1] ^ 1])
    outcome = mesh.gossip.on_facts(A, Facts(chains=((forged, *above),)), at(0))
    assert outcome.fault
    assert mesh.counters.get(Counter.SIGNATURES_BAD) == 1


# --- helpers ------------------------------------------------------------------------------------------------


class Mesh:
    """One node's gossip, with an office that makes members for it."""

    def __init__(self, *, uses: int = 20_000) -> None:
        self.world = World(1)
        self.invite = self.world.make_invite(uses=uses)
        self.ledger = Ledger(self.world.mesh, (self.world.root.certificate,))
        self.counters = Counters()
        self.gossip = Gossip(
            self.ledger, linked=lambda: [A, B], jitter=random.Random(1), counters=self.counters
        )
        self._made: dict[int, Chain] = {}
        for peer in (A, B):
            self.gossip.on_up(peer, at(0), opens=False)

    def durable(self, key: SigningKey, *, invite: bytes = b"", uses: int = 0) -> Chain:
        leaf = make_durable_leaf(
            self.world.issuer,
            key.public,
            capabilities=ALL,
            admitted_at=NOW,
            now_unix_s=NOW,
            serial=bytes(8),
            invite=invite,
            uses=uses,
        )
        return (leaf, self.world.issuer.certificate)

    def provisional(self, number: int) -> Chain:
        key = SigningKey(number.to_bytes(32, "big"))
        chain = self._made.get(number)
        if chain is None:
            chain = self._made[number] = self.world.office.provisional(key, self.invite, now_unix_s=NOW)
        return chain

    def admit(self, number: int) -> SigningKey:
        key = SigningKey(number.to_bytes(32, "big"))
        self.ledger.admit(self.durable(key), NOW)
        return key

    def record(self, key: SigningKey, chain: Chain | None = None, *, sequence: int = 1) -> bytes:
        body = MemberRecord(
            node=key.public,
            incarnation=NOW,
            sequence=sequence,
            issued_at=NOW,
            ttl_s=86_400,
            name="node",
            region="",
            roles=("compute",) if chain else (),
            wireguard_key=WireGuardPrivateKey(key.seed).public,
            wireguard_port=51820,
            control_endpoints=(),
            wireguard_endpoints=(),
            certificate=Digest(envelope.digest_of((chain or self.durable(key))[0])),
        )
        return envelope.sign(key, self.world.mesh, body)

    def suspicion(self, observer: SigningKey, subject: SigningKey) -> bytes:
        body = SuspectRecord(
            observer=observer.public,
            subject=subject.public,
            incarnation=NOW,
            sequence=1,
            issued_at=NOW,
            closed=True,
        )
        return envelope.sign(observer, self.world.mesh, body)

    def bring(
        self,
        peer: NodeId,
        *,
        chains: list[Chain] | None = None,
        records: list[bytes] | None = None,
        at_s: float,
    ) -> int:
        """Lets a peer bring facts; returns how many were taken."""
        before = self.counters.get(Counter.RECORDS_ACCEPTED)
        facts = Facts(chains=tuple(chains or ()), records=tuple(records or ()))
        outcome = self.gossip.on_facts(peer, facts, at(at_s))
        assert not outcome.fault
        return self.counters.get(Counter.RECORDS_ACCEPTED) - before


def at(seconds: float) -> Instant:
    return Instant(seconds, NOW + seconds)

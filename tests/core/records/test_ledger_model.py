"""The ledger beside a naive reference: of all that a node signed and that was offered, the highest counters
hold, and of equal ones the lowest digest.

The reference keeps everything it was offered in one list and looks through it each time.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshpeer.core.identity.certificates import (
    make_durable_leaf,
    make_issuer,
    make_root,
    mesh_id_of,
    public_key_of,
)
from meshpeer.core.identity.constraints import ALL
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import Digest, WireGuardKey
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import LeaveRecord, MemberRecord, SuspectRecord, precedence
from meshpeer.core.records.ledger import Ledger, Verdict

NOW, DAY = 1_800_000_000, 86_400
SERIAL = bytes(range(8))
ROOT = make_root(b"r" * 32, now_unix_s=NOW, serial=SERIAL)
ISSUER = make_issuer(ROOT, b"i" * 32, now_unix_s=NOW, serial=SERIAL)
MESH = mesh_id_of(public_key_of(ROOT.certificate))
KEYS = tuple(SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
LEAVES = tuple(
    make_durable_leaf(ISSUER, key.public, capabilities=ALL, admitted_at=NOW, now_unix_s=NOW, serial=SERIAL)
    for key in KEYS
)
Body = MemberRecord | LeaveRecord
who = st.integers(0, len(KEYS) - 1)
counters = st.tuples(st.integers(0, 2), st.integers(1, 3))


class LedgerBesideAReference(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(MESH, (ROOT.certificate,))
        for leaf in LEAVES:
            self.ledger.admit((leaf, ISSUER.certificate), NOW)
        self.offered: dict[int, list[tuple[Body, bytes]]] = {number: [] for number in range(len(KEYS))}
        self.said: dict[int, list[tuple[SuspectRecord, bytes]]] = {number: [] for number in range(len(KEYS))}

    # --- what is offered ------------------------------------------------------------------------------------

    @rule(number=who, at=counters, name=st.sampled_from(("one", "two", "three")))
    def publish(self, number: int, at: tuple[int, int], name: str) -> None:
        self.offer(
            number,
            MemberRecord(
                node=KEYS[number].public,
                incarnation=NOW + at[0],
                sequence=at[1],
                issued_at=NOW,
                ttl_s=DAY,
                name=name,
                region="",
                roles=(),
                wireguard_key=WireGuardKey(bytes(32)),
                wireguard_port=51820,
                control_endpoints=(),
                wireguard_endpoints=(),
                certificate=Digest(envelope.digest_of(LEAVES[number])),
            ),
        )

    @rule(number=who, at=counters, name=st.sampled_from(("", "one", "two")))
    def leave(self, number: int, at: tuple[int, int], name: str) -> None:
        self.offer(
            number,
            LeaveRecord(
                node=KEYS[number].public,
                incarnation=NOW + at[0],
                sequence=at[1],
                issued_at=NOW,
                ttl_s=DAY,
                name=name,
            ),
        )

    @rule(observer=who, subject=who, at=counters, when=st.integers(0, 2))
    def suspect(self, observer: int, subject: int, at: tuple[int, int], when: int) -> None:
        if observer == subject:
            return
        body = SuspectRecord(
            observer=KEYS[observer].public,
            subject=KEYS[subject].public,
            incarnation=NOW + at[0],
            sequence=at[1],
            issued_at=NOW + when,
            closed=False,
        )
        data = envelope.sign(KEYS[observer], MESH, body)
        if self.ledger.merge(data, NOW) is Verdict.ACCEPTED:
            self.said[subject].append((body, data))

    def offer(self, number: int, body: Body) -> None:
        data = envelope.sign(KEYS[number], MESH, body)
        before = self.reference(number)
        verdict = self.ledger.merge(data, NOW)
        self.offered[number].append((body, data))
        after = self.reference(number)
        if before != after:
            assert verdict in (Verdict.ACCEPTED, Verdict.EQUIVOCATION), "what holds now was told as news"

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def the_best_of_all_that_was_offered_holds(self) -> None:
        for number, key in enumerate(KEYS):
            member = self.ledger.get(key.public)
            assert member is not None
            assert member.envelope == self.reference(number)
            assert member.is_in == isinstance(member.current, MemberRecord)

    @invariant()
    def two_bodies_of_the_precedence_that_holds_are_a_proof(self) -> None:
        for number, key in enumerate(KEYS):
            member = self.ledger.get(key.public)
            assert member is not None
            if member.current is not None:
                bodies = {
                    data
                    for body, data in self.offered[number]
                    if precedence(body) == precedence(member.current)
                }
                assert (member.proof is not None) == (len(bodies) > 1)

    @invariant()
    def suspicions_are_about_the_record_that_holds_and_by_members(self) -> None:
        for number, key in enumerate(KEYS):
            member = self.ledger.get(key.public)
            assert member is not None
            known = {data for _, data in self.said[number]}
            for suspicion in member.suspicions:
                assert suspicion.envelope in known
                assert self.ledger.is_in(suspicion.observer)
                assert member.record is not None

    @invariant()
    def ids_are_those_that_are_in(self) -> None:
        assert set(self.ledger.ids) == {key.public for key in KEYS if self.ledger.is_in(key.public)}

    def reference(self, number: int) -> bytes:
        """Returns the envelope that holds: highest counters, then lowest digest."""
        offered = self.offered[number]
        highest = max((precedence(body) for body, _ in offered), default=None)
        bodies = [data for body, data in offered if precedence(body) == highest]
        return min(bodies, key=envelope.digest_of, default=b"")


TestLedgerBesideAReference = LedgerBesideAReference.TestCase
TestLedgerBesideAReference.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

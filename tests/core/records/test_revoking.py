"""What a wish to shut somebody out comes to, and what it has to say first."""

from __future__ import annotations

import pytest
from revocation_cases import (
    GUEST,
    INVITE,
    ISSUER,
    JUNIOR,
    MESH,
    MIDDLE,
    NOW,
    OTHER_INVITE,
    PLAIN,
    ROOT,
    ROOT_KEY,
    SECOND_ISSUER,
    SENIOR,
    chain_of,
    durable,
    of_node,
    provisional,
    revocation,
)

from meshpeer.core.errors import LocalFault
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import Digest, NodeId, WireGuardKey
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import CharterRecord, LeaveRecord, MemberRecord, SuspectRecord
from meshpeer.core.records.ledger import Chain, Ledger, Verdict
from meshpeer.core.records.revocation import Revocation, ShutOut
from meshpeer.core.records.revoking import Author, Decision, Wish, decide

NAMES = {SENIOR.public: "senior", JUNIOR.public: "junior", PLAIN.public: "plain", GUEST.public: "guest"}

# --- wishes -------------------------------------------------------------------------------------------------


def test_a_node_is_shut_out_by_one_signature() -> None:
    ledger = ledger_of(SENIOR, PLAIN)
    ledger.merge(member(PLAIN), NOW)
    decision = asked(ledger, Wish(what="node", subject=PLAIN.public, name="plain", reason="stolen"))
    assert decision.members == (PLAIN.public,)
    apply(ledger, decision)
    assert ledger.get(PLAIN.public) is None


def test_what_holds_already_signs_nothing() -> None:
    ledger = ledger_of(SENIOR, PLAIN)
    ledger.revoke(of_node(JUNIOR, PLAIN))
    decision = asked(ledger, Wish(what="node", subject=PLAIN.public))
    assert decision.done
    assert decision.signed == ()
    assert decision.revocation.record.author == JUNIOR.public


def test_the_invite_that_a_node_came_with_is_closed_along_with_it() -> None:
    """Its machine would else be in again under a new key, where the invite has a use left."""
    ledger = ledger_of(SENIOR)
    ledger.admit(durable(GUEST, by=INVITE, admitted_at=NOW - 60), NOW)
    ledger.admit(durable(PLAIN, by=INVITE, admitted_at=NOW - 60), NOW)
    kept = asked(ledger, Wish(what="node", subject=GUEST.public, keep_invite=True))
    assert (len(kept.signed), kept.invite) == (1, b"")
    decision = asked(ledger, Wish(what="node", subject=GUEST.public))
    assert (len(decision.signed), decision.invite) == (2, INVITE.id)
    apply(ledger, decision)
    assert ledger.get(PLAIN.public) is not None, "an issuer had admitted it before"
    with pytest.raises(ShutOut, match="its invite was revoked"):
        ledger.admit(provisional(JUNIOR), NOW)
    again = asked(ledger, Wish(what="node", subject=PLAIN.public))
    assert (len(again.signed), again.invite) == (1, b""), "it is closed already"


def test_an_invite_with_members_needs_a_word_on_them() -> None:
    ledger = ledger_of(SENIOR)
    ledger.admit(durable(GUEST, by=INVITE, admitted_at=NOW - 60), NOW)
    with pytest.raises(LocalFault, match="guest is in by this invite") as refused:
        asked(ledger, Wish(what="invite", subject=INVITE.id))
    assert "--with-members" in refused.value.hint
    assert (
        asked(ledger, Wish(what="invite", subject=INVITE.id, members="keep")).revocation.record.since == NOW
    )
    assert (
        asked(ledger, Wish(what="invite", subject=INVITE.id, members="revoke")).revocation.record.since == 0
    )
    assert asked(ledger, Wish(what="invite", subject=OTHER_INVITE.id)).revocation.record.since == 0


def test_an_invite_that_spared_its_members_can_take_them_along_later() -> None:
    ledger = ledger_of(SENIOR)
    ledger.admit(durable(GUEST, by=INVITE, admitted_at=NOW - 60), NOW)
    apply(ledger, asked(ledger, Wish(what="invite", subject=INVITE.id, members="keep")))
    assert ledger.get(GUEST.public) is not None
    assert asked(ledger, Wish(what="invite", subject=INVITE.id, members="keep")).done
    apply(ledger, asked(ledger, Wish(what="invite", subject=INVITE.id, members="revoke")))
    assert ledger.get(GUEST.public) is None


def test_an_issuer_takes_along_whom_it_admitted_since() -> None:
    ledger = ledger_of(SENIOR)
    ledger.admit(durable(PLAIN, SECOND_ISSUER, now=NOW - 100), NOW)
    ledger.admit(durable(GUEST, SECOND_ISSUER, now=NOW - 10), NOW)
    apply(ledger, asked(ledger, Wish(what="issuer", subject=SECOND_ISSUER.id, since=NOW - 50)))
    assert ledger.get(PLAIN.public) is not None
    assert ledger.get(GUEST.public) is None


def test_nobody_shuts_itself_out_by_mistake() -> None:
    ledger = ledger_of(SENIOR, PLAIN)
    with pytest.raises(LocalFault, match="this very node"):
        asked(ledger, Wish(what="issuer", subject=ISSUER.id, members="revoke"))


def test_an_admin_that_has_shut_others_out_needs_a_word_on_them() -> None:
    ledger = ledger_of(SENIOR, JUNIOR)
    ledger.revoke(of_node(JUNIOR, PLAIN))
    wish = {"what": "node", "subject": JUNIOR.public, "name": "junior"}
    with pytest.raises(LocalFault, match="junior has shut out 1 itself: plain") as refused:
        asked(ledger, Wish(**wish))  # type: ignore[arg-type]
    assert "--keep-revocations" in refused.value.hint
    void = asked(ledger, Wish(**wish, theirs="void"))  # type: ignore[arg-type]
    keep = asked(ledger, Wish(**wish, theirs="keep"))  # type: ignore[arg-type]
    assert (len(void.signed), void.kept, len(keep.signed), keep.kept) == (1, 0, 2, 1)
    apply(ledger, keep)
    assert ledger.revocations.of_node(PLAIN.public) is not None


@pytest.mark.parametrize("reason", ["x" * 201, "two\nlines"])
def test_a_reason_is_one_short_line(reason: str) -> None:
    with pytest.raises(LocalFault, match="a reason is one line"):
        asked(ledger_of(SENIOR, PLAIN), Wish(what="node", subject=PLAIN.public, reason=reason))


def test_a_root_signs_without_a_certificate() -> None:
    ledger = ledger_of(SENIOR, JUNIOR)
    decision = asked(ledger, Wish(what="node", subject=JUNIOR.public), by=ROOT_KEY)
    assert decision.signed[0][1] == ()
    apply(ledger, decision)
    assert ledger.get(JUNIOR.public) is None


# --- the ledger ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["revocation", "facts"])
def test_nothing_of_a_revoked_node_is_held_whatever_came_first(first: str) -> None:
    ledger, shut_out = ledger_of(SENIOR), of_node(SENIOR, PLAIN)
    if first == "revocation":
        ledger.revoke(shut_out)
    for chain in (durable(PLAIN), durable(PLAIN, SECOND_ISSUER)):
        if first == "revocation":
            with pytest.raises(ShutOut, match=r"this node was revoked at .*: stolen"):
                ledger.admit(chain, NOW)
        else:
            ledger.admit(chain, NOW)
    verdict = ledger.merge(member(PLAIN), NOW)
    assert verdict is (Verdict.STALE if first == "revocation" else Verdict.ACCEPTED)
    ledger.revoke(shut_out)
    assert ledger.get(PLAIN.public) is None
    assert ledger.fingerprint == with_revocation(ledger_of(SENIOR), shut_out).fingerprint


@pytest.mark.parametrize("first", ["revocation", "tombstone"])
def test_a_tombstone_of_a_revoked_node_is_held_by_nobody_whatever_came_first(first: str) -> None:
    """It outlives the certificate that it stood on."""
    ledger, shut_out = ledger_of(SENIOR, PLAIN), of_node(SENIOR, PLAIN)
    body = LeaveRecord(node=PLAIN.public, incarnation=NOW, sequence=2, issued_at=NOW, ttl_s=366 * 86_400)
    left = envelope.sign(PLAIN, MESH, body)
    if first == "tombstone":
        assert ledger.merge(left, NOW) is Verdict.ACCEPTED
        ledger.forget_expired(NOW + 365 * 86_400 + 1)
        assert ledger.get(PLAIN.public).leave is not None  # type: ignore[union-attr]
    ledger.revoke(shut_out)
    assert ledger.merge(left, NOW) is Verdict.STALE
    assert ledger.get(PLAIN.public) is None


def test_a_member_with_another_certificate_stays_on_that_one() -> None:
    ledger = ledger_of(SENIOR)
    ledger.admit(durable(PLAIN, SECOND_ISSUER), NOW)
    ledger.admit(durable(PLAIN, now=NOW + 60), NOW + 60)
    ledger.revoke(revocation(SENIOR, "issuer", SECOND_ISSUER.id))
    held = ledger.get(PLAIN.public)
    assert held is not None
    assert held.best is not None
    assert held.best.identity.issuer == ISSUER.id


def test_the_charter_of_a_revoked_admin_gives_way_to_any_other() -> None:
    """A thief could else sign one with a version that nobody can pass."""
    ledger = ledger_of(SENIOR, JUNIOR)
    assert ledger.merge(charter(JUNIOR, 2**62 - 1), NOW) is Verdict.ACCEPTED
    assert ledger.merge(charter(SENIOR, 5), NOW) is Verdict.STALE
    ledger.revoke(of_node(SENIOR, JUNIOR))
    assert ledger.merge(charter(SENIOR, 5), NOW) is Verdict.ACCEPTED
    assert ledger.merge(charter(JUNIOR, 2**62 - 1), NOW) is Verdict.UNADMITTED


def test_what_a_revoked_node_said_of_others_is_void() -> None:
    ledger = ledger_of(SENIOR, PLAIN, MIDDLE)
    for key in (PLAIN, MIDDLE):
        ledger.merge(member(key), NOW)
    doubt = SuspectRecord(
        observer=PLAIN.public, subject=MIDDLE.public, incarnation=NOW, sequence=1, issued_at=NOW, closed=True
    )
    assert ledger.merge(envelope.sign(PLAIN, MESH, doubt), NOW) is Verdict.ACCEPTED
    ledger.revoke(of_node(SENIOR, PLAIN))
    held = ledger.get(MIDDLE.public)
    assert held is not None
    assert held.suspicions == ()


# --- helpers ------------------------------------------------------------------------------------------------


def ledger_of(*keys: SigningKey) -> Ledger:
    ledger = Ledger(MESH, (ROOT.certificate,))
    ledger.authorize((ISSUER.certificate, SECOND_ISSUER.certificate), NOW)
    for key in keys:
        ledger.admit(durable(key), NOW)
    return ledger


def with_revocation(ledger: Ledger, one: Revocation) -> Ledger:
    ledger.revoke(one)
    return ledger


def asked(ledger: Ledger, wish: Wish, by: SigningKey = SENIOR) -> Decision:
    me = ledger.identify(durable(SENIOR), NOW)
    author = Author(node=by.public, chain=chain_of(by), sign=lambda body: envelope.sign(by, MESH, body))
    return decide(wish, ledger, author, me=me, name_of=lambda who: NAMES.get(who, who.hex()), now_unix_s=NOW)


def apply(ledger: Ledger, decision: Decision) -> None:
    for data, chain in decision.signed:
        ledger.revoke(ledger.revocations.read(data, chain))


def member(key: SigningKey, chain: Chain | None = None) -> bytes:
    body = MemberRecord(
        node=key.public,
        incarnation=NOW,
        sequence=1,
        issued_at=NOW,
        ttl_s=86_400,
        name="node",
        region="",
        roles=("compute",),
        wireguard_key=WireGuardKey(bytes(32)),
        wireguard_port=51820,
        control_endpoints=(),
        wireguard_endpoints=(),
        certificate=Digest(envelope.digest_of((chain or durable(key))[0])),
    )
    return envelope.sign(key, MESH, body)


def charter(key: SigningKey, version: int) -> bytes:
    body = CharterRecord(
        version=version, issued_at=NOW, author=NodeId(key.public), mesh_name="m", subnet="10.0.0.0/24"
    )
    return envelope.sign(key, MESH, body)

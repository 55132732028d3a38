"""What an issuer does by itself: whom it renews and when, and how a node becomes one."""

from __future__ import annotations

import msgspec
import pytest
from revocation_cases import (
    DAY,
    ISSUER,
    MESH,
    NOW,
    PLAIN,
    ROOT,
    ROOT_KEY,
    SECOND_ISSUER,
    SENIOR,
    SERIAL,
    durable,
    revocation,
    signed,
)

from meshpeer.core.antientropy.messages import Revoked
from meshpeer.core.antientropy.telling import told_in_frames
from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.certificates import (
    Authority,
    certify_issuer,
    make_root,
    public_key_of,
)
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.identity.line import ROOTS_MAX
from meshpeer.core.identity.renewal import TURN_S, renewal_at
from meshpeer.core.ids import Digest, LinkId, MeshId, NodeId, WireGuardKey
from meshpeer.core.node.handover import (
    HandOver,
    IssuerAsked,
    IssuerKeyKept,
    IssuerKeyLost,
    IssuerKeyShown,
    IssuerKeyWanted,
    IssuerShown,
    KeepIssuerKey,
)
from meshpeer.core.node.issuing import BATCH_MAX, BATCH_PAUSE_S, FIRST_LOOK_S, LOOK_S, Issuing
from meshpeer.core.node.revoking import Revoking
from meshpeer.core.records import envelope
from meshpeer.core.records.authorities import ISSUERS_MAX
from meshpeer.core.records.issuer_request import REQUEST_CONTEXT, IssuerRequest, make_request, read_request
from meshpeer.core.records.kinds import MemberRecord
from meshpeer.core.records.ledger import Ledger

MANY = [SigningKey(bytes([number]) * 32) for number in range(60, 60 + BATCH_MAX + 4)]


# --- renewal ------------------------------------------------------------------------------------------------


def test_nobody_is_renewed_before_the_thirtieth_day_and_everybody_soon_after_it() -> None:
    ledger = ledger_of(PLAIN)
    issuing = issuer_of(ledger)
    assert issuing.tick(at(29)) == []
    early = issuing.next_deadline()
    assert early is not None
    assert early.at_s <= at(29).mono_s + LOOK_S
    (chain,) = issuing.tick(at(32.1))
    renewed = ledger.identify(chain, at(32.1).unix_s)
    held = ledger.get(PLAIN.public)
    assert held is not None
    assert held.best is not None
    assert renewed.admitted_at == held.best.identity.admitted_at
    assert renewed.not_after > held.best.identity.not_after
    ledger.admit(chain, at(32.1).unix_s)
    issuing.look_soon(at(32.2))
    assert issuing.tick(at(32.2)) == [], "it was renewed just now"


def test_the_next_issuer_waits_its_turn() -> None:
    ledger = ledger_of(PLAIN)
    ledger.authorize([SECOND_ISSUER.certificate], NOW)
    both = [issuer_of(ledger, one) for one in (ISSUER, SECOND_ISSUER)]
    held = ledger.get(PLAIN.public)
    assert held is not None
    assert held.best is not None
    ids = [ISSUER.id, SECOND_ISSUER.id]
    first, second = sorted(renewal_at(held.best.identity, one, ids) for one in ids)
    assert second - first == TURN_S
    assert sorted(len(one.tick(at((first - NOW) / DAY))) for one in both) == [0, 1]
    for one in both:
        one.look_soon(at((second - NOW) / DAY))
    assert all(one.tick(at((second - NOW) / DAY)) for one in both), "the first one is gone"


def test_many_are_renewed_in_batches() -> None:
    issuing = issuer_of(ledger_of(*MANY))
    now = at(33)
    assert len(issuing.tick(now)) == BATCH_MAX
    deadline = issuing.next_deadline()
    assert deadline is not None
    assert deadline.at_s == now.mono_s + BATCH_PAUSE_S


def test_a_look_waits_until_others_were_heard_of_after_a_start() -> None:
    issuing = issuer_of(ledger_of(PLAIN), started=at(40))
    assert issuing.tick(at(40)) == []
    assert len(issuing.tick(Instant(at(40).mono_s + FIRST_LOOK_S, at(40).unix_s))) == 1


def test_a_node_that_keeps_a_key_which_no_root_signed_issues_nothing() -> None:
    ledger = ledger_of(PLAIN)
    issuing = Issuing(b"k" * 32, ledger, bytes, at(0))
    assert (issuing.authority, issuing.tick(at(40)), issuing.next_deadline()) == (None, [], None)
    public = SigningKey(b"k" * 32).public
    made = certify_issuer(ROOT, public, holder=SENIOR.public, now_unix_s=NOW, serial=SERIAL)
    ledger.authorize([made], NOW)
    assert issuing.authority == Authority(b"k" * 32, made)


def test_an_issuer_that_was_revoked_has_nothing_to_come_back_for() -> None:
    ledger = ledger_of(PLAIN, SENIOR)
    issuing = issuer_of(ledger)
    assert issuing.next_deadline() is not None
    ledger.revoke(revocation(ROOT_KEY, "issuer", ISSUER.id))
    issuing.look_soon(at(1))
    assert (issuing.authority, issuing.tick(at(1)), issuing.next_deadline()) == (None, [], None)


def test_the_leaf_of_a_new_issuer_says_so_at_once() -> None:
    ledger = ledger_of(PLAIN)
    issuing = issuer_of(ledger)
    assert issuing.tick(at(0.1)) == []
    mine = certify_issuer(
        ROOT, SigningKey(b"k" * 32).public, holder=PLAIN.public, now_unix_s=NOW, serial=SERIAL
    )
    ledger.authorize([mine], NOW)
    named: list[tuple[bytes, ...]] = []
    for minutes in range(5):
        issuing.look_soon(at(0.2 + minutes / 1_440))
        named += issuing.tick(at(0.2 + minutes / 1_440))
    assert Capability.ISSUER in ledger.identify(named[0], at(0.2).unix_s).capabilities


def test_an_issuer_below_a_retired_root_is_none_and_rests() -> None:
    ledger = ledger_of(*MANY)
    late, stays = (issuer_of(ledger, one) for one in (SECOND_ISSUER, ISSUER))
    ledger.authorize([SECOND_ISSUER.certificate, SECOND.certificate, signed_anew(ISSUER)], NOW)
    assert [one.id for one in stays.issuers] == sorted_ids(ISSUER, SECOND_ISSUER)
    retired = signed(SigningKey(SECOND.seed), "root", ROOT.id)
    ledger.revoke(ledger.revocations.read(retired, ()))
    assert [one.id for one in stays.issuers] == [ISSUER.id]
    assert stays.authority is not None
    assert (late.authority, late.tick(at(33)), late.next_deadline()) == (None, [], None)


def test_a_revoked_issuer_rests() -> None:
    ledger = ledger_of(SENIOR, *MANY)
    issuing = issuer_of(ledger)
    ledger.revoke(ledger.revocations.read(signed(SigningKey(ROOT.seed), "issuer", ISSUER.id), ()))
    assert (issuing.tick(at(33)), issuing.next_deadline()) == ([], None)


# --- becoming one -------------------------------------------------------------------------------------------


def test_an_admins_word_makes_a_node_keep_one_key_and_show_it_once_it_is_kept() -> None:
    ledger = ledger_of(SENIOR, PLAIN)
    theirs = Issuing(b"", ledger, bytes, at(0))
    node = HandOver(PLAIN, ledger, theirs, lambda length: b"k" * length)
    (kept,) = node.on_message(SENIOR.public, IssuerAsked(), at(0))
    assert kept == KeepIssuerKey(seed=b"k" * 32)
    assert "kkkk" not in repr(kept)
    assert node.on_message(SENIOR.public, IssuerAsked(), at(0)) == [], "it is being written"
    ((to, shown),) = node.on_event(IssuerKeyKept(seed=b"k" * 32), at(0))  # type: ignore[misc]
    assert to == SENIOR.public
    assert isinstance(shown, IssuerShown)
    body = read_request(shown.request, MESH)
    assert (body.node, body.public) == (PLAIN.public, SigningKey(b"k" * 32).public)
    assert len(node.on_message(SENIOR.public, IssuerAsked(), at(1))) == 1, "asked again, it shows the same"


def test_a_key_that_could_not_be_kept_is_made_anew_for_whoever_asks_again() -> None:
    ledger = ledger_of(SENIOR, PLAIN)
    seeds = iter((b"k" * 32, b"l" * 32))
    node = HandOver(PLAIN, ledger, Issuing(b"", ledger, bytes, at(0)), lambda _: next(seeds))
    assert node.on_message(SENIOR.public, IssuerAsked(), at(0)) == [KeepIssuerKey(seed=b"k" * 32)]
    assert node.on_event(IssuerKeyLost(), at(0)) == []
    assert node.on_message(SENIOR.public, IssuerAsked(), at(1)) == [KeepIssuerKey(seed=b"l" * 32)]
    assert len(node.on_event(IssuerKeyKept(seed=b"l" * 32), at(1))) == 1


def test_whoever_is_no_admin_makes_nobody_keep_a_key() -> None:
    ledger = ledger_of(SENIOR, PLAIN)
    node = HandOver(SENIOR, ledger, Issuing(b"", ledger, bytes, at(0)), bytes)
    assert node.on_message(PLAIN.public, IssuerAsked(), at(0)) == []


def test_what_nobody_asked_for_is_not_shown_to_a_person() -> None:
    ledger = ledger_of(SENIOR, PLAIN)
    desk = HandOver(SENIOR, ledger, Issuing(b"", ledger, bytes, at(0)), bytes)
    shown = IssuerShown(request=b"whatever")
    assert desk.on_message(PLAIN.public, shown, at(0)) == []
    assert desk.on_event(IssuerKeyWanted(node=PLAIN.public), at(0)) == [(PLAIN.public, IssuerAsked())]
    assert desk.on_message(PLAIN.public, shown, at(0)) == [
        IssuerKeyShown(node=PLAIN.public, request=b"whatever")
    ]


@pytest.mark.parametrize("spoilt", ["another's key", "another mesh", "rubbish"])
def test_a_request_needs_both_signatures(spoilt: str) -> None:
    good = make_request(PLAIN, b"k" * 32, MESH, NOW)
    body = envelope.open_body(good, IssuerRequest, bytes_max=1_024)
    forged = {
        "another's key": envelope.sign(
            PLAIN, MESH, msgspec.structs.replace(body, public=SENIOR.public), context=REQUEST_CONTEXT
        ),
        "another mesh": make_request(PLAIN, b"k" * 32, MeshId(b"m" * 16), NOW),
        "rubbish": good[:-9],
    }[spoilt]
    with pytest.raises(PeerFault):
        read_request(forged, MESH)


# --- on links -----------------------------------------------------------------------------------------------

LINK, PEER, OTHER = LinkId(1), NodeId(b"p" * 32), NodeId(b"o" * 32)
SECOND = make_root(b"2" * 32, now_unix_s=NOW, serial=SERIAL, above=ROOT)


def test_roots_of_a_greeting_are_taken_before_its_chain_is_judged_and_passed_on() -> None:
    away = Revoking(ledger_of(PLAIN), lambda: [OTHER], Counters())
    anew = certify_issuer(
        SECOND, public_key_of(ISSUER.certificate), holder=b"", now_unix_s=NOW, serial=SERIAL
    )
    chain = (durable(SENIOR)[0], anew)
    with pytest.raises(PeerFault):
        away.ledger.identify((durable(SENIOR, SECOND_ISSUER)[0], anew), NOW)
    away.hear_roots((SECOND.certificate,), at(0))
    outcome = away.take_greeted_with()
    assert outcome is not None
    assert outcome.sends == [(OTHER, Revoked(signers=(SECOND.certificate,)))]
    assert len(outcome.changes) == 1
    away.ledger.admit(chain, NOW)
    assert away.ledger.roots == (ROOT.certificate, SECOND.certificate)
    assert away.roots == (SECOND.certificate,)
    away.hear_roots((SECOND.certificate,), at(1))
    assert away.take_greeted_with() is None


def test_a_greeting_or_frame_with_too_many_is_refused() -> None:
    end = Revoking(ledger_of(), list, Counters())
    with pytest.raises(PeerFault, match="more than"):
        end.hear_roots((b"x",) * (ROOTS_MAX + 1), at(0))
    with pytest.raises(PeerFault, match="more than"):
        end.on_frame(LINK, PEER, Revoked(signers=(b"x",) * (ROOTS_MAX + ISSUERS_MAX + 1)), at(0))


def test_rubbish_for_an_issuer_is_counted_and_changes_nothing() -> None:
    end = Revoking(ledger_of(PLAIN), lambda: [OTHER], Counters())
    before = end.ledger.fingerprint
    outcome = end.on_frame(LINK, PEER, Revoked(signers=(b"rubbish", durable(PLAIN)[0])), at(0))
    assert outcome is not None
    assert (outcome.sends, outcome.changes, outcome.revoked) == ([], [], False)
    assert len(outcome.notes) == 2
    assert end.ledger.fingerprint == before


def test_ends_that_know_other_issuers_tell_each_other_first() -> None:
    knows, lacks = (Revoking(ledger_of(PLAIN), list, Counters()) for _ in range(2))
    knows.ledger.authorize([SECOND_ISSUER.certificate], NOW)
    words = knows.say(LINK), lacks.say(LINK)
    lacks.hear(LINK, words[0])
    knows.hear(LINK, words[1])
    for frame in knows.on_up(LINK):
        lacks.on_frame(LINK, PEER, frame, at(0))
    assert lacks.ledger.first_word == knows.ledger.first_word
    assert next(told_in_frames((), last=False, signers=lacks.ledger.authorities)).signers


# --- helpers ------------------------------------------------------------------------------------------------


def signed_anew(issuer: Authority) -> bytes:
    return certify_issuer(
        SECOND, public_key_of(issuer.certificate), holder=b"", now_unix_s=NOW, serial=SERIAL
    )


def sorted_ids(*issuers: Authority) -> list[bytes]:
    return [one.id for one in sorted(issuers, key=lambda one: public_key_of(one.certificate))]


def at(days: float) -> Instant:
    return Instant(1_000.0 + days * DAY, NOW + days * DAY)


def issuer_of(ledger: Ledger, issuer: Authority = ISSUER, *, started: Instant | None = None) -> Issuing:
    return Issuing(issuer.seed, ledger, bytes, started or at(-1))


def ledger_of(*keys: SigningKey) -> Ledger:
    """A ledger of members whose records last for long."""
    ledger = Ledger(MESH, (ROOT.certificate,))
    ledger.authorize([ISSUER.certificate], NOW)
    for key in keys:
        ledger.admit(durable(key), NOW)
        ledger.merge(record_of(key), NOW)
    return ledger


def record_of(key: SigningKey) -> bytes:
    body = MemberRecord(
        node=key.public,
        incarnation=NOW,
        sequence=1,
        issued_at=NOW,
        ttl_s=366 * DAY,
        name="node",
        region="",
        roles=("compute",),
        wireguard_key=WireGuardKey(bytes(32)),
        wireguard_port=0,
        control_endpoints=(),
        wireguard_endpoints=(),
        certificate=Digest(envelope.digest_of(durable(key)[0])),
    )
    return envelope.sign(key, MESH, body)

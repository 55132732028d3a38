"""Roots that follow and retire each other, issuers that are signed anew, and places that several issuers gave
away: what a ledger makes of them, in whatever order it hears."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from revocation_cases import (
    DAY,
    GUEST,
    INVITE,
    ISSUER,
    JUDGE,
    JUNIOR,
    MESH,
    NOW,
    PLAIN,
    ROOT,
    ROOT_KEY,
    SECOND_ISSUER,
    SENIOR,
    SERIAL,
    durable,
    provisional,
    signed,
)

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.admission import admitted_too_late
from meshpeer.core.identity.certificates import (
    ISSUER_S,
    Authority,
    certify_issuer,
    constraints_of,
    make_durable_leaf,
    make_invite,
    make_root,
    public_key_of,
)
from meshpeer.core.identity.chains import VerifiedIdentity, verify_chain
from meshpeer.core.identity.constraints import INVITE_DEFAULT
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import Digest, NodeId, WireGuardKey
from meshpeer.core.records import envelope
from meshpeer.core.records.authorities import ISSUERS_MAX, Authorities
from meshpeer.core.records.kinds import MemberRecord
from meshpeer.core.records.ledger import Ledger, Verdict
from meshpeer.core.records.revocation import ROOT as A_ROOT
from meshpeer.core.records.revocation import Chain, Revocation, ShutOut, read_revocation
from meshpeer.core.records.revoking import Author, Wish, decide

SECOND = make_root(b"2" * 32, now_unix_s=NOW, serial=SERIAL, above=ROOT)
THIRD = make_root(b"3" * 32, now_unix_s=NOW, serial=SERIAL, above=SECOND)
SECOND_KEY, THIRD_KEY = SigningKey(SECOND.seed), SigningKey(THIRD.seed)
LINE = (ROOT.certificate, SECOND.certificate, THIRD.certificate)


def anew(issuer: Authority = ISSUER, root: Authority = SECOND, *, now: int = NOW) -> bytes:
    public = public_key_of(issuer.certificate)
    return certify_issuer(root, public, holder=SENIOR.public, now_unix_s=now, serial=SERIAL)


# --- which certificate of an issuer counts ------------------------------------------------------------------


@given(order=st.permutations(range(6)))
@settings(max_examples=40, deadline=None)
def test_the_same_certificate_counts_in_whatever_order_they_come(order: list[int]) -> None:
    offered = (
        SECOND.certificate,
        THIRD.certificate,
        ISSUER.certificate,
        anew(now=NOW + 9),
        anew(root=THIRD),
        anew(SECOND_ISSUER, ROOT),
    )
    held = Authorities(MESH, LINE[:1])
    for one in order:
        held.take([offered[one]])
    held.take(offered)
    assert held.line == LINE
    assert [one.certificate for one in held.issuers] == sorted(
        (anew(root=THIRD), anew(SECOND_ISSUER, ROOT)), key=public_key_of
    )
    whole = Authorities(MESH, LINE[:1])
    whole.take(reversed(offered))
    assert held.fingerprint == whole.fingerprint


def test_below_one_root_the_certificate_that_lasts_longest_counts() -> None:
    held = Authorities(MESH, LINE[:1])
    assert held.take([ISSUER.certificate]).news == [ISSUER.certificate]
    assert held.fingerprint == b"", "every chain shows the only issuer"
    later = anew(root=ROOT, now=NOW + 100)
    taken = held.take([later])
    assert (taken.news, taken.gone) == ([later], [ISSUER.certificate])
    assert held.take([ISSUER.certificate, later]).news == []
    (issuer,) = held.issuers
    assert (issuer.id, issuer.holder, issuer.ends_at) == (ISSUER.id, SENIOR.public, NOW + 100 + ISSUER_S)


def test_what_no_root_signed_is_left_out_and_said_why() -> None:
    stranger = make_root(b"s" * 32, now_unix_s=NOW, serial=SERIAL)
    held = Authorities(MESH, LINE[:1])
    taken = held.take([anew(root=stranger), stranger.certificate, INVITE.certificate, b"rubbish", anew()])
    assert (taken.news, list(held)) == ([], [])
    assert len(taken.refused) == 5


def test_issuers_are_bounded_and_the_same_ones_stay_in_whatever_order_they_come() -> None:
    publics = [SigningKey(hashlib.sha256(bytes([number])).digest()).public for number in range(66)]
    offered = [
        certify_issuer(ROOT, one, holder=one, now_unix_s=NOW, serial=SERIAL) for one in sorted(publics)
    ]
    up, down, at_once = (Authorities(MESH, LINE[:1]) for _ in range(3))
    refused = [bool(up.take([one]).refused) for one in offered]
    assert refused == [False] * ISSUERS_MAX + [True] * 2
    gone = [one for certificate in reversed(offered) for one in down.take([certificate]).gone]
    assert gone == [offered[65], offered[64]]
    taken = at_once.take(reversed(offered))
    assert list(up) == list(down) == list(at_once) == offered[:ISSUERS_MAX]
    assert up.fingerprint == down.fingerprint == at_once.fingerprint
    assert sorted(taken.news) == sorted(offered[:ISSUERS_MAX])


# --- rotation -----------------------------------------------------------------------------------------------


def test_members_stay_while_their_issuer_is_signed_anew_below_another_root() -> None:
    ledger = ledger_of(durable(PLAIN), provisional(JUNIOR))
    before = ledger.get(PLAIN.public)
    ledger.authorize([SECOND.certificate, anew()], NOW)
    member = ledger.get(PLAIN.public)
    assert member is not None
    assert before is not None
    assert member.best is not None
    assert member.best.chain == (durable(PLAIN)[0], anew())
    assert member.best.identity.root == SECOND.id
    assert member.item == before.item, "nothing to reconcile: the leaf is the same"
    assert ledger.identify(durable(PLAIN), NOW).root == SECOND.id, "an old chain is read with what counts"


def test_a_retired_root_takes_along_what_stands_on_it_alone() -> None:
    ledger = ledger_of(durable(PLAIN), durable(JUNIOR, SECOND_ISSUER))
    ledger.authorize([SECOND.certificate, anew()], NOW)
    ledger.revoke(retire(SECOND_KEY, ROOT))
    assert ledger.retired == 1
    assert ledger.get(PLAIN.public) is not None
    assert ledger.get(JUNIOR.public) is None, "nobody signed its issuer anew"
    with pytest.raises(ShutOut, match="its root was retired"):
        ledger.identify(durable(JUNIOR, SECOND_ISSUER), NOW)
    ledger.authorize([anew(SECOND_ISSUER)], NOW)
    assert ledger.admit(durable(JUNIOR, SECOND_ISSUER), NOW) is Verdict.ACCEPTED


def test_only_a_root_that_came_later_retires_one() -> None:
    for author, subject in ((ROOT_KEY, SECOND), (SECOND_KEY, SECOND), (SECOND_KEY, THIRD), (SENIOR, ROOT)):
        with pytest.raises(PeerFault, match="nobody may revoke a root"):
            retire(author, subject)
    assert retire(THIRD_KEY, SECOND).covers(identity(durable(PLAIN), anew()))


def test_what_a_retired_root_says_counts_no_more_and_what_its_follower_says_does() -> None:
    ledger = ledger_of(durable(SENIOR), durable(PLAIN))
    ledger.authorize([SECOND.certificate, anew()], NOW)
    retired = retire(SECOND_KEY, ROOT)
    by_root, by_admin = (
        read(signed(ROOT_KEY, "node", PLAIN.public), ()),
        read(signed(SENIOR, "node", JUNIOR.public), durable(SENIOR)),
    )
    ledger.revoke(by_root, by_admin)
    assert set(ledger.revocations.voided_by(retired)) == {by_root, by_admin}
    ledger.revoke(retired, read(signed(SECOND_KEY, "node", PLAIN.public, at=NOW + 1), ()))
    assert ledger.revocations.of_node(PLAIN.public) is not None
    assert ledger.revocations.of_node(PLAIN.public).place == 1  # type: ignore[union-attr]
    assert ledger.revocations.of_node(JUNIOR.public) is None


def test_whoever_has_a_retired_roots_key_puts_no_other_line_in_its_place() -> None:
    others = [
        make_root(bytes([number]) * 32, now_unix_s=NOW, serial=SERIAL, above=ROOT) for number in range(40, 60)
    ]
    ledger = ledger_of(durable(PLAIN))
    ledger.authorize([SECOND.certificate, anew()], NOW)
    ledger.revoke(retire(SECOND_KEY, ROOT))
    ledger.authorize([one.certificate for one in others], NOW)
    assert ledger.roots == LINE[:2]
    assert ledger.get(PLAIN.public) is not None


def test_a_root_that_was_signed_twice_leaves_every_ledger_alike() -> None:
    other = make_root(b"o" * 32, now_unix_s=NOW, serial=SERIAL, above=ROOT)
    lower, higher = sorted((SECOND, other), key=lambda one: hashlib.sha256(one.certificate).digest())
    ledgers = []
    for order in ((lower, higher), (higher, lower)):
        ledger = ledger_of(durable(PLAIN), durable(JUNIOR, SECOND_ISSUER))
        for root in order:
            ledger.authorize([root.certificate], NOW)
            ledger.authorize([anew(ISSUER if root is lower else SECOND_ISSUER, root)], NOW)
        ledger.authorize([ISSUER.certificate, SECOND_ISSUER.certificate], NOW)
        assert ledger.roots == (ROOT.certificate, lower.certificate)
        assert ledger.get(PLAIN.public) is not None
        ledgers.append(ledger.first_word)
    assert ledgers[0] == ledgers[1]


def test_what_stands_on_a_root_that_gave_way_goes_whatever_was_judged_before() -> None:
    other = make_root(b"o" * 32, now_unix_s=NOW, serial=SERIAL, above=ROOT)
    lower, higher = sorted((SECOND, other), key=lambda one: hashlib.sha256(one.certificate).digest())
    chains = [(durable(one, SECOND_ISSUER)[0], anew(SECOND_ISSUER, higher)) for one in (SENIOR, PLAIN)]
    ledgers = [ledger_of(durable(GUEST)) for _ in range(2)]
    for ledger, order in zip(ledgers, ((lower, higher), (higher, lower)), strict=True):
        for root in order:
            ledger.authorize([root.certificate, anew(SECOND_ISSUER, higher)], NOW)
            for chain in chains if ledger.roots[1] == higher.certificate else ():
                ledger.admit(chain, NOW)
            if ledger.roots[1] == higher.certificate:
                said = ledger.revocations.read(signed(SENIOR, "node", JUNIOR.public), chains[0])
                ledger.revoke(said)
                assert (len(ledger), len(ledger.revocations)) == (3, 1)
    assert [len(one.lost) for one in ledgers] == [0, 1]
    assert [[one.node for one in ledger] for ledger in ledgers] == [[GUEST.public]] * 2
    assert ledgers[0].fingerprint == ledgers[1].fingerprint


# --- places that several issuers gave away ------------------------------------------------------------------

ONE_USE = make_invite(
    ISSUER, b"1" * 32, capabilities=INVITE_DEFAULT, uses=1, expires_s=DAY, now_unix_s=NOW, serial=SERIAL
)


def test_of_two_that_used_a_one_use_invite_the_earlier_stays_and_the_later_is_named() -> None:
    first, second = leaf_on(PLAIN, NOW + 5), leaf_on(JUNIOR, NOW + 7, SECOND_ISSUER)
    for order in ((first, second), (second, first)):
        ledger = ledger_of()
        ledger.admit(order[0], NOW + 10)
        if order[1] is second:
            with pytest.raises(PeerFault, match="the invite was used 1 of 1 times already"):
                ledger.admit(second, NOW + 10)
            assert ledger.take_dropped() == []
        else:
            ledger.admit(first, NOW + 10)
            assert ledger.take_dropped() == [JUNIOR.public]
        assert [one.node for one in ledger] == [PLAIN.public]
        assert list(ledger.places.excess[ONE_USE.id]) == [JUNIOR.public]


def test_who_came_too_late_does_not_get_the_place_of_whoever_is_revoked() -> None:
    """A thief that used a one-use invite twice, through two issuers, is out with both keys."""
    ledger = ledger_of(durable(SENIOR))
    ledger.admit(leaf_on(PLAIN, NOW + 5), NOW + 10)
    late = leaf_on(JUNIOR, NOW + 7, SECOND_ISSUER)
    with pytest.raises(PeerFault, match="was used 1 of 1"):
        ledger.admit(late, NOW + 10)
    decision = decide(
        Wish(what="node", subject=PLAIN.public),
        ledger,
        Author(
            node=SENIOR.public,
            chain=durable(SENIOR),
            sign=lambda body: envelope.sign(SENIOR, MESH, body),
        ),
        me=ledger.identify(durable(SENIOR), NOW),
        name_of=lambda who: who.hex(),
        now_unix_s=NOW + 10,
    )
    ledger.revoke(*(ledger.revocations.read(*one) for one in decision.signed))
    with pytest.raises(ShutOut, match="its invite was revoked"):
        ledger.admit(late, NOW + 10)


def test_who_came_too_late_itself_still_holds_its_own_facts_and_knows() -> None:
    ledger = ledger_of()
    ledger.me = JUNIOR.public
    ledger.admit(leaf_on(JUNIOR, NOW + 7), NOW + 10)
    ledger.admit(leaf_on(PLAIN, NOW + 5), NOW + 10)
    mine = ledger.get(JUNIOR.public)
    assert mine is not None
    assert mine.best is not None
    assert ledger.places.late(mine.best.identity) == (JUNIOR.public,)


@given(
    came=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=9, unique=True),
    uses=st.integers(1, 3),
    shuffle=st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_every_ledger_keeps_those_who_came_first(
    came: list[tuple[int, int]], uses: int, shuffle: st.DataObject
) -> None:
    invite = make_invite(
        ISSUER,
        b"u" * 32,
        capabilities=INVITE_DEFAULT,
        uses=uses,
        expires_s=DAY,
        now_unix_s=NOW,
        serial=SERIAL,
    )
    by_node = dict(reversed(came))
    chains = [
        leaf_on(SigningKey(bytes([node + 40]) * 32), NOW + at, invite=invite) for node, at in by_node.items()
    ]
    identities = [verify_chain(chain, LINE[:1], MESH, NOW + 10) for chain in chains]
    late = {node for node, _ in admitted_too_late(identities)}
    for _ in range(2):
        shuffle.shuffle(chains)  # type: ignore[attr-defined]
        ledger = ledger_of()
        for chain in chains:
            try:
                ledger.admit(chain, NOW + 10)
            except PeerFault as fault:
                assert "was used" in fault.what  # noqa: PT017
        assert {one.node for one in ledger} == {one.node for one in identities} - late


def test_a_member_whose_last_certificate_ends_is_told_of() -> None:
    """So that its link is closed: an expired invite's leaf is refused by everybody."""
    chain = provisional(PLAIN)
    ledger = ledger_of(chain)
    assert ledger.merge(record_of(PLAIN, chain), NOW) is Verdict.ACCEPTED
    assert ledger.forget_expired(NOW + DAY - 1) == []
    assert ledger.forget_expired(NOW + DAY + 1) == [PLAIN.public]
    assert not ledger.is_in(PLAIN.public)
    with pytest.raises(PeerFault, match="has ended"):
        ledger.admit(chain, NOW + DAY + 1)


# --- helpers ------------------------------------------------------------------------------------------------


def ledger_of(*chains: Chain) -> Ledger:
    ledger = Ledger(MESH, LINE[:1])
    for chain in chains:
        ledger.admit(chain, NOW)
    return ledger


def read(data: bytes, chain: Chain) -> Revocation:
    return read_revocation(data, chain, mesh=MESH, roots=LINE, judge=JUDGE)


def retire(author: SigningKey, root: Authority) -> Revocation:
    chain = durable(author) if author is SENIOR else ()
    return read(signed(author, A_ROOT, root.id), chain)


def identity(chain: Chain, issuer: bytes) -> VerifiedIdentity:
    return verify_chain((chain[0], issuer), LINE, MESH, NOW)


def leaf_on(key: SigningKey, at: int, issuer: Authority = ISSUER, *, invite: Authority = ONE_USE) -> Chain:
    leaf = make_durable_leaf(
        issuer,
        NodeId(key.public),
        capabilities=INVITE_DEFAULT,
        admitted_at=at,
        invite=invite.id,
        uses=constraints_of(invite.certificate).uses,
        now_unix_s=at,
        serial=SERIAL,
    )
    return (leaf, issuer.certificate)


def record_of(key: SigningKey, chain: Chain) -> bytes:
    body = MemberRecord(
        node=key.public,
        incarnation=NOW,
        sequence=1,
        issued_at=NOW,
        ttl_s=9 * DAY,
        name="node",
        region="",
        roles=("compute",),
        wireguard_key=WireGuardKey(bytes(32)),
        wireguard_port=0,
        control_endpoints=(),
        wireguard_endpoints=(),
        certificate=Digest(envelope.digest_of(chain[0])),
    )
    return envelope.sign(key, MESH, body)

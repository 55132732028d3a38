"""Who may revoke whom, which revocations count, and the laws that make every node hold the same ones."""

from __future__ import annotations

import msgspec
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
    read,
    revocation,
    signed,
)

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.certificates import public_key_of
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.identity.profile import key_id
from meshpeer.core.records import envelope
from meshpeer.core.records.envelope import BadSignature
from meshpeer.core.records.kinds import RevocationRecord
from meshpeer.core.records.revocation import REASON_LENGTH_MAX, Chain, Revocation
from meshpeer.core.records.revocations import Revocations

# --- who may ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("author", [ROOT_KEY, SENIOR, JUNIOR], ids=["root", "senior", "junior"])
def test_a_root_and_an_admin_may_revoke(author: SigningKey) -> None:
    assert of_node(author, PLAIN).covers(who(durable(PLAIN)))


def test_a_member_without_that_right_may_not() -> None:
    with pytest.raises(PeerFault, match="without the capability admin"):
        of_node(PLAIN, GUEST)


def test_whoever_is_only_provisional_may_not() -> None:
    with pytest.raises(PeerFault, match="without the capability admin"):
        read(signed(GUEST, "node", PLAIN.public), provisional(GUEST))


@pytest.mark.parametrize("chain", [durable(SENIOR), ()], ids=["another's certificate", "none"])
def test_a_revocation_needs_its_own_authors_certificate(chain: Chain) -> None:
    with pytest.raises(PeerFault):
        read(signed(MIDDLE, "node", PLAIN.public), chain)


def test_a_forged_signature_is_told_from_all_else() -> None:
    """Nobody honest passes it on, so it costs the sender its link."""
    for forged, chain in (
        (signed(PLAIN, "node", GUEST.public, claims=SENIOR.public), durable(SENIOR)),
        (signed(PLAIN, "node", GUEST.public, claims=ROOT_KEY.public), ()),
    ):
        with pytest.raises(BadSignature):
            read(forged, chain)


def test_nobody_may_revoke_a_root() -> None:
    root = public_key_of(ROOT.certificate)
    for what, subject in (("node", root), ("issuer", key_id(root)), ("invite", key_id(root))):
        for author in (SENIOR, ROOT_KEY):
            with pytest.raises(PeerFault, match="nobody may revoke a root"):
                revocation(author, what, subject)


@pytest.mark.parametrize("at", [NOW - DAY - 7_200, NOW + 366 * DAY])
def test_it_must_be_dated_while_its_authors_certificate_held(at: int) -> None:
    with pytest.raises(PeerFault):
        of_node(SENIOR, PLAIN, at=at)


def test_it_holds_whatever_this_nodes_clock_says() -> None:
    """``read`` knows no time: neither a clock that is set back nor a year later changes what it finds."""
    assert of_node(SENIOR, PLAIN, at=NOW + 300 * DAY).covers(who(durable(PLAIN)))


@pytest.mark.parametrize(
    "body",
    [
        {"what": "mesh"},
        {"subject": b"short"},
        {"subject": bytes(8)},
        {"what": "invite", "subject": bytes(32)},
        {"issued_at": 0},
        {"since": NOW},
        {"what": "issuer", "subject": bytes(8), "since": -1},
        {"reason": "x" * (REASON_LENGTH_MAX + 1)},
        {"reason": "two\nlines"},
        {"reason": "\x1b[31mred"},
        {"name": "no label"},
    ],
)
def test_a_field_out_of_its_form_refuses_the_whole(body: dict[str, object]) -> None:
    good = envelope.open_body(signed(SENIOR, "node", PLAIN.public), RevocationRecord, bytes_max=1_024)
    bad = msgspec.structs.replace(good, **body)  # type: ignore[arg-type]
    with pytest.raises(PeerFault, match="revocation"):
        read(envelope.sign(SENIOR, MESH, bad), durable(SENIOR))


# --- whom it covers -----------------------------------------------------------------------------------------


def test_a_node_is_covered_by_its_key_whatever_it_shows() -> None:
    one = of_node(SENIOR, PLAIN)
    for chain in (
        durable(PLAIN),
        durable(PLAIN, SECOND_ISSUER),
        provisional(PLAIN),
        durable(PLAIN, now=NOW + 60),
    ):
        assert one.covers(who(chain))
    assert not one.covers(who(durable(JUNIOR)))


def test_an_invite_takes_its_leaves_along() -> None:
    one = revocation(SENIOR, "invite", INVITE.id)
    assert one.covers(who(provisional(GUEST)))
    assert one.covers(who(durable(GUEST, by=INVITE)))
    assert not one.covers(who(provisional(GUEST, OTHER_INVITE)))
    assert not one.covers(who(durable(GUEST, by=OTHER_INVITE)))


def test_an_invite_may_leave_those_whom_an_issuer_admitted_before() -> None:
    """A provisional leaf is dated by its joiner, so it goes along whatever it says."""
    one = revocation(SENIOR, "invite", INVITE.id, since=NOW)
    assert one.covers(who(provisional(GUEST)))
    assert one.covers(who(durable(GUEST, by=INVITE, admitted_at=NOW)))
    assert not one.covers(who(durable(GUEST, by=INVITE, admitted_at=NOW - 1)))


def test_an_issuer_takes_along_what_it_signed_from_a_time_on() -> None:
    everything = revocation(SENIOR, "issuer", SECOND_ISSUER.id)
    later = revocation(SENIOR, "issuer", SECOND_ISSUER.id, since=NOW)
    before, after = durable(PLAIN, SECOND_ISSUER, now=NOW - 1), durable(PLAIN, SECOND_ISSUER, now=NOW)
    assert [everything.covers(who(one)) for one in (before, after)] == [True, True]
    assert [later.covers(who(one)) for one in (before, after)] == [False, True]
    assert not everything.covers(who(durable(PLAIN, ISSUER)))


# --- which of them count ------------------------------------------------------------------------------------


def test_a_root_voids_all_that_a_stolen_admin_key_ever_signed() -> None:
    """Whatever dates its thief puts on it."""
    held = collected(
        of_node(MIDDLE, PLAIN),
        of_node(MIDDLE, SENIOR, at=NOW - 1_900),
        of_node(ROOT_KEY, MIDDLE, at=NOW + DAY),
    )
    assert subjects(held) == {MIDDLE.public}
    assert {one.record.subject for one in held.void} == {PLAIN.public, SENIOR.public}


def test_of_two_admins_that_revoke_each_other_the_one_admitted_earlier_stays() -> None:
    held = collected(of_node(JUNIOR, SENIOR, at=NOW - 900), of_node(SENIOR, JUNIOR))
    assert subjects(held) == {JUNIOR.public}


def test_a_junior_admin_may_revoke_a_senior_one_and_undoes_nothing_that_it_signed() -> None:
    held = collected(of_node(SENIOR, PLAIN), of_node(JUNIOR, SENIOR))
    assert subjects(held) == {PLAIN.public, SENIOR.public}


def test_what_a_void_revocation_said_of_an_author_voids_nothing() -> None:
    """Root voids the senior admin, whose word against the middle one is void, whose word counts."""
    held = collected(of_node(ROOT_KEY, SENIOR), of_node(SENIOR, MIDDLE), of_node(MIDDLE, PLAIN))
    assert subjects(held) == {SENIOR.public, PLAIN.public}


def test_an_issuers_revocation_voids_what_the_admins_below_it_signed() -> None:
    theirs = read(signed(JUNIOR, "node", PLAIN.public), durable(JUNIOR, SECOND_ISSUER))
    held = collected(theirs, revocation(SENIOR, "issuer", SECOND_ISSUER.id))
    assert subjects(held) == {SECOND_ISSUER.id}


def test_a_person_is_told_beforehand_what_would_be_void() -> None:
    held = collected(of_node(JUNIOR, PLAIN), of_node(MIDDLE, GUEST))
    assert [one.record.subject for one in held.voided_by(of_node(SENIOR, JUNIOR))] == [PLAIN.public]
    assert held.voided_by(of_node(SENIOR, PLAIN)) == []


# --- laws ---------------------------------------------------------------------------------------------------

AUTHORS = (ROOT_KEY, SENIOR, MIDDLE, JUNIOR)
ALL_OF_THEM: list[Revocation] = [
    *(
        of_node(author, key, at=NOW + at)
        for author in AUTHORS
        for key in (SENIOR, MIDDLE, JUNIOR, PLAIN)
        for at in (0, 7)
    ),
    *(
        revocation(author, what, subject, since=since)
        for author in AUTHORS
        for what, subject in (
            ("invite", INVITE.id),
            ("invite", OTHER_INVITE.id),
            ("issuer", SECOND_ISSUER.id),
        )
        for since in (0, NOW)
    ),
    # One statement shown with several certificates of its author.
    *(
        read(signed(JUNIOR, "node", GUEST.public), chain)
        for chain in (
            durable(JUNIOR, admitted_at=NOW - 10),
            durable(JUNIOR, admitted_at=NOW - 2_500),
            durable(JUNIOR, SECOND_ISSUER),
            durable(JUNIOR, SECOND_ISSUER, now=NOW + 9),
        )
    ),
]
SOME = st.lists(st.sampled_from(ALL_OF_THEM), max_size=24)


@given(some=SOME, most=st.integers(1, 12), each=st.integers(1, 6), data=st.data())
@settings(max_examples=300, deadline=None)
def test_one_set_of_revocations_is_one_set_in_any_order_any_number_of_times(
    some: list[Revocation], most: int, each: int, data: st.DataObject
) -> None:
    """Commutative and idempotent, bounds included: of too many the same ones stay."""
    again = data.draw(st.lists(st.sampled_from(some), max_size=5)) if some else []
    shuffled = data.draw(st.permutations([*some, *again]))
    assert content(collected(*some, most=most, each=each)) == content(
        collected(*shuffled, most=most, each=each)
    )


@given(one=SOME, two=SOME, three=SOME, most=st.integers(1, 12), each=st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_it_does_not_matter_who_told_whom_first(
    one: list[Revocation], two: list[Revocation], three: list[Revocation], most: int, each: int
) -> None:
    """Associative: (one + two) + three is one + (two + three)."""

    def merged(*parts: list[Revocation]) -> list[Revocation]:
        return list(collected(*(each_one for part in parts for each_one in part), most=most, each=each))

    assert merged(merged(one, two), three) == merged(one, merged(two, three))


@given(some=SOME)
@settings(max_examples=200, deadline=None)
def test_what_counts_is_signed_by_whom_nothing_senior_that_counts_shuts_out(some: list[Revocation]) -> None:
    """The definition, held against the one pass that computes it."""
    held = collected(*some)
    void = {one.digest for one in held.void}
    for one in held:
        senior = [
            other
            for other in held
            if one.identity
            and other.rank < one.rank
            and other.digest not in void
            and other.covers(one.identity)
        ]
        assert bool(senior) == (one.digest in void)


@given(some=SOME)
@settings(max_examples=100, deadline=None)
def test_it_only_grows(some: list[Revocation]) -> None:
    held = collected()
    for one in some:
        before = {(each.record.what, each.record.subject, each.record.author) for each in held}
        held.merge(one)
        assert before <= {(each.record.what, each.record.subject, each.record.author) for each in held}


# --- helpers ------------------------------------------------------------------------------------------------


def who(chain: Chain) -> VerifiedIdentity:
    return JUDGE.identify(chain, (ROOT.certificate,), MESH, NOW + 1)


def collected(*some: Revocation, most: int = 4_096, each: int = 1_024) -> Revocations:
    made = Revocations(MESH, (ROOT.certificate,), JUDGE, most=most, most_per_author=each)
    for one in some:
        made.merge(one)
    return made


def subjects(held: Revocations) -> set[bytes]:
    return {one.record.subject for one in held.counting}


def content(held: Revocations) -> tuple[object, ...]:
    everybody = [who(chain_of(key)) for key in (SENIOR, MIDDLE, JUNIOR, PLAIN)]
    covers = [one.digest if one else b"" for one in map(held.cover, everybody)]
    return [one.digest for one in held], [one.digest for one in held.void], covers, held.fingerprint

"""What two ends of a link say of revocations, and in what order they take it."""

from __future__ import annotations

import pytest
from revocation_cases import MESH, NOW, PLAIN, ROOT, SENIOR, durable, of_node, signed

from meshpeer.core.antientropy.messages import Facts, Revoked
from meshpeer.core.antientropy.telling import told_in_frames
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.node.revoking import LINK_REVOCATIONS_BURST, Revoking
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.records.revocation import ShutOut

LINK, PEER, OTHER = LinkId(1), NodeId(b"p" * 32), NodeId(b"o" * 32)
FACTS = Facts()


def test_ends_that_hold_the_same_say_nothing_and_hear_each_other() -> None:
    one, other = revoking(), revoking()
    greet(one, other)
    assert one.on_up(LINK) == []
    assert one.on_frame(LINK, PEER, FACTS, at(0)) is None


def test_ends_that_differ_say_all_first_and_hear_nothing_before_that() -> None:
    knows, lacks = revoking(), revoking()
    knows.ledger.revoke(of_node(SENIOR, PLAIN))
    greet(knows, lacks)
    assert [frame.last for frame in knows.on_up(LINK)] == [True]
    assert lacks.on_up(LINK) == [Revoked(last=True)], "it holds none, and says so"
    for end in (knows, lacks):
        with pytest.raises(PeerFault, match="before it had said who was revoked"):
            end.on_frame(LINK, PEER, FACTS, at(0))
    for frame in told_in_frames(knows.ledger.revocations, last=True):
        lacks.on_frame(LINK, PEER, frame, at(0))
    knows.on_frame(LINK, PEER, Revoked(last=True), at(0))
    assert all(end.on_frame(LINK, PEER, FACTS, at(0)) is None for end in (knows, lacks))
    assert lacks.ledger.revocations.of_node(PLAIN.public) is not None


def test_all_is_said_once_a_link_and_again_on_the_next() -> None:
    knows, lacks = revoking(), revoking()
    knows.ledger.revoke(of_node(SENIOR, PLAIN))
    greet(knows, lacks)
    assert knows.on_up(LINK)
    assert knows.on_up(LINK) == [], "a spare that is taken into use again"
    knows.over(LINK)
    lacks.over(LINK)
    greet(knows, lacks)
    assert knows.on_up(LINK)


def test_what_came_between_greeting_and_use_is_said_although_the_greetings_were_equal() -> None:
    one, other = revoking(), revoking()
    greet(one, other)
    one.ledger.revoke(of_node(SENIOR, PLAIN))
    assert [frame.last for frame in one.on_up(LINK)] == [True]
    assert one.on_frame(LINK, PEER, FACTS, at(0)) is None, "the peer has nothing to add"


def test_a_peer_of_an_earlier_version_is_heard_as_before() -> None:
    one = revoking()
    one.ledger.revoke(of_node(SENIOR, PLAIN))
    one.say(LINK)
    one.hear(LINK, b"")
    assert one.on_up(LINK) == []
    assert one.on_frame(LINK, PEER, FACTS, at(0)) is None


def test_news_goes_to_every_other_link_and_to_disk_and_says_whom_it_drops() -> None:
    one = revoking(linked=[PEER, OTHER])
    one.ledger.admit(durable(PLAIN), NOW)
    (frame,) = told_in_frames([of_node(SENIOR, PLAIN)], last=False)
    outcome = one.on_frame(LINK, PEER, frame, at(0))
    assert outcome is not None
    assert outcome.sends == [(OTHER, frame)]
    assert outcome.revoked
    assert outcome.touched == [PLAIN.public]
    assert [node for node, _ in outcome.shut_out] == [PLAIN.public]
    assert [type(change).__name__ for change in outcome.changes] == ["Put", "Delete", "Delete"]
    again = one.on_frame(LINK, OTHER, frame, at(0))
    assert again is not None
    assert (again.sends, again.changes, again.revoked) == ([], [], False)


def test_a_forged_one_is_worth_no_link_and_a_wrong_one_is_refused_and_counted() -> None:
    one = revoking(linked=[PEER, OTHER])
    forged = signed(PLAIN, "node", OTHER, claims=SENIOR.public)
    outcome = one.on_frame(LINK, PEER, Revoked(chains=(durable(SENIOR),), said=((1, forged),)), at(0))
    assert outcome is not None
    assert outcome.fault
    wrong = signed(PLAIN, "node", OTHER)
    outcome = one.on_frame(LINK, PEER, Revoked(chains=(durable(PLAIN),), said=((1, wrong),)), at(0))
    assert outcome is not None
    assert (outcome.fault, outcome.sends, outcome.changes) == ("", [], [])
    assert one.counters.get(Counter.REVOCATIONS_REFUSED) == 1
    assert one.counters.get(Counter.SIGNATURES_BAD) == 1


def test_what_one_peer_brings_is_bounded() -> None:
    one = revoking()
    wrong = Revoked(
        chains=(durable(PLAIN),), said=tuple((1, signed(PLAIN, "node", OTHER)) for _ in range(100))
    )
    for _ in range(int(LINK_REVOCATIONS_BURST) // 100 + 2):
        one.on_frame(LINK, PEER, wrong, at(0))
    assert one.counters.get(Counter.REVOCATIONS_REFUSED) == int(LINK_REVOCATIONS_BURST)
    assert one.counters.get(Counter.RECORDS_RATE_LIMITED) > 0


def test_who_is_refused_is_shown_the_proof_and_nobody_else_is() -> None:
    one, shut_out = revoking(), of_node(SENIOR, PLAIN)
    (proof,) = one.proof(ShutOut(shut_out))
    assert isinstance(proof, Revoked)
    assert proof.said[0][1] == shut_out.envelope
    assert not proof.last
    assert one.proof(PeerFault("something else")) == ()


# --- helpers ------------------------------------------------------------------------------------------------


def revoking(linked: list[NodeId] | None = None) -> Revoking:
    return Revoking(Ledger(MESH, (ROOT.certificate,)), lambda: linked or [], Counters())


def greet(one: Revoking, other: Revoking) -> None:
    words = one.say(LINK), other.say(LINK)
    one.hear(LINK, words[1])
    other.hear(LINK, words[0])


def at(mono_s: float) -> Instant:
    return Instant(mono_s, NOW + mono_s)

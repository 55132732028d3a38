"""No two results of one register are ever told, and none is lost: every state within a budget is looked at.

Each rule that this rests on is taken away in turn, and the checker then finds how that goes wrong.
"""

from __future__ import annotations

import msgspec
import pytest
from modelcheck import CANCELLED, Budget, Checker, Rules

from meshpeer.core.effects import TicketCounter
from meshpeer.core.ids import JobId, NodeId, Ticket
from meshpeer.core.scheduler.consensus.acceptor import Acceptor
from meshpeer.core.scheduler.consensus.leader import Leader
from meshpeer.core.scheduler.consensus.messages import (
    Accept,
    Accepted,
    Chosen,
    ConsensusEffect,
    Keep,
    Prepare,
    Promise,
    Say,
)
from meshpeer.core.scheduler.consensus.values import Ballot, Key, Membership, Replica, Row, Written

FOURTH = {"nodes": 4, "changes": ((0, 1, 3),)}
"""A job whose third replica gives way to a fourth node."""
BACK = {"voters": 1, "changes": ((0, 1, 2),), "goes_back": True}
"""A job with one replica that is to have three, and may go back on it."""


@pytest.mark.parametrize(
    "budget",
    [
        pytest.param(Budget(campaigns=1), id="false suspicion"),
        pytest.param(Budget(campaigns=1, restarts=1), id="restart"),
        pytest.param(Budget(campaigns=1, wipes=1, candidates=(2,)), id="wipe"),
        pytest.param(Budget(campaigns=1, candidates=(0, 1), cancels=True), id="cancellation"),
        pytest.param(
            Budget(campaigns=1, candidates=(1,), drafts=True), id="failed attempts", marks=pytest.mark.slow
        ),
        pytest.param(Budget(campaigns=0, lapses=1), id="grants"),
        pytest.param(
            Budget(campaigns=1, restarts=1, candidates=(0,), own_words_wait=True), id="own words late"
        ),
        pytest.param(Budget(campaigns=0, **FOURTH), id="joint change", marks=pytest.mark.slow),
    ],
)
def test_no_reachable_state_acknowledges_two_results(budget: Budget) -> None:
    result = Checker(budget).run()

    assert not result.violation, "\n".join([result.violation, *result.story])
    assert result.whole
    assert result.told


@pytest.mark.parametrize(
    "budget",
    [
        pytest.param(Budget(campaigns=1, candidates=(1,), states_max=6_000, **BACK), id="taken back"),
        pytest.param(Budget(campaigns=2, states_max=6_000), id="three ballots"),
        pytest.param(Budget(campaigns=1, candidates=(1,), tasks=2, states_max=6_000), id="two tasks"),
        pytest.param(Budget(campaigns=1, candidates=(2, 3), states_max=6_000, **FOURTH), id="joint change"),
        pytest.param(Budget(campaigns=2, restarts=1, wipes=1, cancels=True, states_max=6_000), id="all"),
    ],
)
def test_the_first_states_of_a_larger_search_acknowledge_no_two_results(budget: Budget) -> None:
    result = Checker(budget).run()

    assert not result.violation, "\n".join([result.violation, *result.story])


def test_a_cancel_competes_with_results_and_only_one_is_told() -> None:
    result = Checker(Budget(campaigns=0, cancels=True)).run()

    assert not result.violation
    assert {value for _, value in result.told} == {b"result1", CANCELLED}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "budget",
    [
        pytest.param(Budget(campaigns=2, candidates=(0, 1)), id="three ballots"),
        pytest.param(Budget(campaigns=1, wipes=1), id="wipe"),
        pytest.param(Budget(campaigns=1, wipes=1, restarts=1, candidates=(1, 2)), id="wipe and restart"),
    ],
)
def test_no_reachable_state_of_a_large_search_acknowledges_two_results(budget: Budget) -> None:
    result = Checker(budget).run()

    assert not result.violation, "\n".join([result.violation, *result.story])
    assert result.whole


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("candidate", [1, 2, 3])
def test_a_takeover_during_a_joint_change_acknowledges_no_two_results(candidate: int) -> None:
    result = Checker(Budget(campaigns=1, candidates=(candidate,), states_max=60_000, **FOURTH)).run()

    assert not result.violation, "\n".join([result.violation, *result.story])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
def test_long_random_histories_acknowledge_no_two_results(seed: int) -> None:
    budget = Budget(
        nodes=5,
        campaigns=6,
        restarts=3,
        wipes=1,
        cancels=True,
        drafts=True,
        tasks=2,
        candidates=(0, 1, 2, 3, 4),
        changes=((0, 1, 3), (1, 3, 4)),
    )

    result = Checker(budget).walk(seed, 3_000)

    assert not result.violation, "\n".join([result.violation, *result.story])


# --- the rules, taken away one at a time ------------------------------------------------------------------


class AnswersBeforeItsDisk(Acceptor):
    def _backed(self) -> Ticket | None:
        return None


class TakesLowerWrites(Acceptor):
    def on_accept(self, peer: NodeId, message: Accept) -> list[ConsensusEffect]:
        promised = self.vote.promised
        self.vote = msgspec.structs.replace(self.vote, promised=min(promised, message.ballot))
        effects = super().on_accept(peer, message)
        self.vote = msgspec.structs.replace(self.vote, promised=max(promised, message.ballot))
        return effects


class PromisesLowerBallots(Acceptor):
    def _refuses(self, generation: int, ballot: Ballot) -> bool:
        return False


class LetsOlderRowsWin(Acceptor):
    def _is_newer(self, row: Written) -> bool:
        return True


class ReadsAlone(Leader):
    def _has_read(self) -> bool:
        return True


class TakesUpTheOldest(Leader):
    def _take_up(self, row: Written) -> None:
        present = self.rows.get(row.key)
        if present is None or present.stamp > row.stamp:
            self.rows[row.key] = row


class TellsWhatOneReplicaHas(Leader):
    def _is_chosen(self, voters: set[Replica]) -> bool:
        return bool(voters)


class WritesOverWhatIsDecided(Leader):
    def may_write(self, key: Key) -> bool:
        return True


class CountsTheNewAlone(Leader):
    def _has_read(self) -> bool:
        whole = {one for one, reading in self._readings.items() if reading.whole}
        return Membership(0, self.membership.members).is_quorum(whole)

    def _is_chosen(self, voters: set[Replica]) -> bool:
        return Membership(0, self.membership.members).is_quorum(voters)


class GoesByItsOwnMembership(Leader):
    def _go_by_newest(self, message: Promise) -> None:
        pass


class LeavesWithoutATransfer(Leader):
    def _transfer(self) -> list[ConsensusEffect]:
        effects = self._add(())
        self._joint_ends_at = self._sequence
        return effects


class TakesBackWhatAnotherBegan(Leader):
    @property
    def may_go_back(self) -> bool:
        return self.is_leading and self.membership.old == (self.ballot.replica,)


class GrantsWithoutALease(Leader):
    def may_grant(self, now_s: float) -> bool:
        return self.is_leading


@pytest.mark.parametrize(
    ("rules", "budget"),
    [
        pytest.param(
            Rules(acceptor=AnswersBeforeItsDisk), Budget(campaigns=1, restarts=1), id="disk before answer"
        ),
        pytest.param(Rules(acceptor=TakesLowerWrites), Budget(campaigns=1), id="fence on writes"),
        pytest.param(Rules(acceptor=PromisesLowerBallots), Budget(campaigns=1), id="fence"),
        pytest.param(Rules(leader=ReadsAlone), Budget(campaigns=1), id="read quorum"),
        pytest.param(Rules(leader=TellsWhatOneReplicaHas), Budget(campaigns=1), id="write quorum"),
        pytest.param(
            Rules(leader=WritesOverWhatIsDecided), Budget(campaigns=0, cancels=True), id="decided for good"
        ),
        pytest.param(Rules(wiped_is_another=False), Budget(campaigns=1, wipes=1), id="store id"),
        pytest.param(Rules(leader=GrantsWithoutALease), Budget(campaigns=0, lapses=1), id="grant lease"),
        pytest.param(
            Rules(acceptor=LetsOlderRowsWin),
            Budget(campaigns=1, candidates=(1,), drafts=True),
            id="later batches win",
        ),
        pytest.param(
            Rules(leader=TakesUpTheOldest),
            Budget(campaigns=2, candidates=(1, 2)),
            id="newest is taken up",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Rules(leader=CountsTheNewAlone),
            Budget(campaigns=1, candidates=(2,), **FOURTH),
            id="majority of the old",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Rules(leader=GoesByItsOwnMembership),
            Budget(campaigns=1, candidates=(2,), **FOURTH),
            id="newest membership",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Rules(leader=LeavesWithoutATransfer),
            Budget(campaigns=1, candidates=(1, 3), **FOURTH),
            id="rows before leaving",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Rules(leader=TakesBackWhatAnotherBegan),
            Budget(campaigns=2, candidates=(0, 2), restarts=1, **BACK),
            id="who takes it back",
            marks=[pytest.mark.slow, pytest.mark.timeout(300)],
        ),
        pytest.param(
            Rules(new_life_new_ballot=False),
            Budget(campaigns=2, restarts=1, candidates=(0, 1), own_words_wait=True),
            id="new life, new ballot",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_without_any_one_rule_the_checker_finds_how_it_goes_wrong(rules: Rules, budget: Budget) -> None:
    result = Checker(budget, rules).run()

    assert result.violation
    assert result.story


# --- parts -------------------------------------------------------------------------------------------------

JOB = JobId("jaaaaaaaaaaaaaaaaaaa")
ALICE, BOB, CAROL = (Replica(NodeId(bytes([number]) * 32), b"store") for number in (1, 2, 3))
BALLOT = Ballot(1, ALICE)
THREE = Membership(1, (ALICE, BOB, CAROL))


def test_an_answer_names_the_newest_write_of_its_replica() -> None:
    bob = acceptor(BOB)

    keep, accepted = bob.on_accept(ALICE.node, accept(1, Row(0, 1, True, b"x")))
    (again,) = bob.on_accept(ALICE.node, accept(0))

    assert isinstance(keep, Keep)
    assert isinstance(accepted, Say)
    assert isinstance(again, Say)
    assert accepted.after == again.after == keep.ticket


def test_a_promise_shows_all_rows_in_pages_that_fit_a_frame() -> None:
    bob = acceptor(BOB)
    for task in range(30):
        bob.on_accept(ALICE.node, accept(task + 1, Row(task, 1, True, bytes(5_000))))
    candidate = leader(Ballot(2, CAROL))
    shown = [*candidate.start()]
    carol = acceptor(CAROL)
    carol.on_accept(ALICE.node, accept(0))
    pages = 0

    while not candidate.is_leading:
        (ask, *_) = [one for one in shown if isinstance(one, Say) and one.to != ALICE.node]
        who = bob if ask.to == BOB.node else carol
        assert isinstance(ask.message, Prepare)
        *_, answer = who.on_prepare(CAROL.node, ask.message)
        assert isinstance(answer, Say)
        assert isinstance(answer.message, Promise)
        assert sum(len(row.value) for row in answer.message.rows) <= 40 * 1024
        pages += 1
        shown = candidate.on_promise(who.me.node, answer.message, 0.0)

    assert pages > 4
    assert sorted(candidate.rows) == [(task, 1) for task in range(30)]


def test_a_replica_that_was_let_go_gets_no_promise() -> None:
    bob = acceptor(BOB)
    two = Membership(3, (ALICE, BOB))
    bob.on_accept(ALICE.node, msgspec.structs.replace(accept(1), membership=two))
    candidate = leader(Ballot(7, CAROL))
    prepare = Prepare(job=JOB, generation=1, ballot=candidate.ballot, membership=THREE, told_by=BALLOT)

    assert bob.on_prepare(CAROL.node, prepare) == []


def test_a_later_generation_begins_without_the_rows_of_the_one_before() -> None:
    bob = acceptor(BOB)
    bob.on_accept(ALICE.node, accept(1, Row(0, 1, True, b"x")))

    keep, _ = bob.on_accept(
        BOB.node,
        Accept(
            job=JOB, generation=2, ballot=Ballot(1, BOB), membership=Membership(1, (BOB,)), sequence=0, beat=1
        ),
    )

    assert isinstance(keep, Keep)
    assert keep.gone == ((0, 1),)
    assert bob.rows == {}
    assert bob.vote.membership == Membership(1, (BOB,))


def test_a_leader_that_is_denied_by_a_higher_ballot_tells_nothing_any_more() -> None:
    bob, alice = acceptor(BOB), leader(BALLOT)
    alice.found(0.0)
    bob.on_prepare(
        CAROL.node,
        Prepare(job=JOB, generation=1, ballot=Ballot(2, CAROL), membership=THREE, told_by=BALLOT),
    )

    (denied,) = bob.on_accept(ALICE.node, accept(1))
    assert isinstance(denied, Say)
    alice.on_denied(BOB.node, denied.message)  # type: ignore[arg-type]

    assert not alice.is_leading
    assert not alice.may_grant(0.0)


def test_rows_gather_while_a_batch_is_on_its_way_and_leave_as_one() -> None:
    alice = leader(BALLOT)
    alice.found(0.0)

    first = alice.propose([Row(0, 1, True, b"x")])
    gathered = [*alice.propose([Row(1, 1, True, b"x")]), *alice.propose([Row(2, 1, True, b"x")])]
    assert alice.sequence == 2
    alice.on_accepted(ALICE.node, accepted(ALICE, 1))
    chosen, *second = alice.on_accepted(BOB.node, accepted(BOB, 1))

    assert len(first) == len(second) == 3
    assert gathered == []
    assert chosen == Chosen(ballot=BALLOT, sequence=1)
    sent = [one.message for one in second if isinstance(one, Say)]
    assert [[row.task for row in one.rows] for one in sent if isinstance(one, Accept)] == [[1, 2]] * 3


def accepted(replica: Replica, sequence: int) -> Accepted:
    return Accepted(
        job=JOB, generation=1, ballot=BALLOT, replica=replica, sequence=sequence, beat=1, membership=1
    )


def acceptor(me: Replica) -> Acceptor:
    return Acceptor(job=JOB, me=me, tickets=TicketCounter())


def leader(ballot: Ballot) -> Leader:
    return Leader(job=JOB, generation=1, ballot=ballot, membership=THREE, told_by=BALLOT)


def accept(sequence: int, *rows: Row) -> Accept:
    return Accept(
        job=JOB, generation=1, ballot=BALLOT, membership=THREE, sequence=sequence, beat=1, rows=rows
    )

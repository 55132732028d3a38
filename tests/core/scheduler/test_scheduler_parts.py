"""The scheduler's parts, each for itself: tables, book, leases, backlog, seats, offers, rows, frames."""

from __future__ import annotations

import msgspec
import pytest
from fixtures import ALICE, BOB, JOB, ME, FairDice, result, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.effects import Put, Send
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import JobId, TaskIndex, Ticket
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import Array, JobSpec, Need, TaskSpec
from meshpeer.core.scheduler.backlog import Backlog
from meshpeer.core.scheduler.book import NOTHING, TaskBook
from meshpeer.core.scheduler.fitting import PLAIN, Profile
from meshpeer.core.scheduler.holdings import Holding, Known, renewals
from meshpeer.core.scheduler.leases import LEASE_S, Lease, Leases
from meshpeer.core.scheduler.messages import (
    FRAMES,
    Attempt,
    Blob,
    Epoch,
    Grant,
    Granted,
    Input,
    Renew,
    batches,
)
from meshpeer.core.scheduler.offers import Offers
from meshpeer.core.scheduler.rows import (
    GivenRow,
    ResultRow,
    TaskRow,
    Try,
    delete_given,
    delete_seat,
    put_given,
    put_seat,
    read_grants,
)
from meshpeer.core.scheduler.seats import Seats
from meshpeer.core.scheduler.tables import (
    ATTEMPT_MOVES,
    TASK_MOVES,
    AttemptState,
    TaskState,
    check_attempt_move,
)
from meshpeer.core.wire.frames import Channel, Codec

# --- tables ---------------------------------------------------------------------------------------------


def test_every_state_has_its_row() -> None:
    assert set(TASK_MOVES) == set(TaskState)
    assert set(ATTEMPT_MOVES) == set(AttemptState)


def test_no_result_changes_but_by_a_new_round() -> None:
    ends = {TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED}
    assert all(TASK_MOVES[state] <= {TaskState.READY, TaskState.WAITING} for state in ends)


def test_forbidden_move_of_a_task_tells_its_story() -> None:
    book = TaskBook(JOB, Graph.of(spec(2)))
    with pytest.raises(InvariantBroken, match=rf"{JOB} t\[1\] round 1 .* from waiting to leased"):
        book.move(TaskIndex(1), TaskState.LEASED)


def test_forbidden_move_of_an_attempt_tells_its_story() -> None:
    with pytest.raises(InvariantBroken, match="number 7: an attempt can't go from granted to stored"):
        check_attempt_move("number 7", AttemptState.GRANTED, AttemptState.STORED)


# --- book ----------------------------------------------------------------------------------------------


def test_book_makes_ready_what_its_needs_allow() -> None:
    book = TaskBook(JOB, Graph.of(pipeline(2)))
    assert book.take_ready() == [0]
    book.commit(TaskIndex(0), row("succeeded"))
    assert book.take_ready() == [1, 2]
    assert book.commit(TaskIndex(1), row("failed")) == (3,)
    assert book.counts[TaskState.SKIPPED] == 1
    book.check()


def test_new_round_takes_back_what_hung_on_the_old() -> None:
    book = TaskBook(JOB, Graph.of(pipeline(2)))
    for task in (0, 1):
        book.take_ready()
        book.commit(TaskIndex(task), row("succeeded"))
    assert book.reopen([TaskIndex(0)]) == [0]
    assert [state.value for state in book.states] == ["ready", "succeeded", "waiting", "waiting"]
    assert book.round_of(TaskIndex(0)) == 2
    assert not book.may_run(TaskIndex(2))
    book.check()
    book.commit(TaskIndex(0), msgspec.structs.replace(row("succeeded"), round=2))
    assert book.take_ready() == [2]
    book.check()


def test_new_round_that_fails_skips_only_what_has_no_result_yet() -> None:
    book = TaskBook(JOB, Graph.of(pipeline(2)))
    for task in (0, 1):
        book.take_ready()
        book.commit(TaskIndex(task), row("succeeded"))
    book.reopen([TaskIndex(0)])
    assert book.commit(TaskIndex(0), msgspec.structs.replace(row("failed"), round=2)) == (2, 3)
    restored = TaskBook(JOB, Graph.of(pipeline(2)))
    restored.restore(list(book.results.items()))
    assert restored.states == book.states
    restored.check()


def test_new_round_skips_what_is_leased_where_its_need_can_not_run_any_more() -> None:
    tasks = (
        TaskSpec(name="d", argv=("x",)),
        TaskSpec(name="e", argv=("x",), needs=(Need(task="d", when="failed"),)),
        TaskSpec(name="g", argv=("x",), array=Array(size=2), needs=(Need(task="e"),)),
    )
    book = TaskBook(JOB, Graph.of(JobSpec(name="job", tasks=tasks)))
    book.take_ready()
    book.commit(TaskIndex(0), row("failed"))
    book.take_ready()
    book.commit(TaskIndex(1), row("succeeded"))
    assert book.take_ready() == [2, 3]
    book.move(TaskIndex(2), TaskState.LEASED)
    book.reopen([TaskIndex(0)])
    book.commit(TaskIndex(0), msgspec.structs.replace(row("succeeded"), round=2))
    assert book.states[1] is TaskState.SUCCEEDED
    assert book.reopen([TaskIndex(1)]) == []
    assert [one.value for one in book.states] == ["succeeded", "skipped", "skipped", "skipped"]
    book.check()


@given(order=st.permutations(range(10)), fails=st.sets(st.integers(0, 9)))
def test_journal_replays_in_any_order(order: list[int], fails: set[int]) -> None:
    book = TaskBook(JOB, Graph.of(pipeline(4)))
    rows = {}
    while ready := book.take_ready():
        for task in ready:
            rows[task] = row("failed" if task in fails else "succeeded")
            book.commit(task, rows[task])
    restored = TaskBook(JOB, Graph.of(pipeline(4)))
    restored.restore([(TaskIndex(task), rows[TaskIndex(task)]) for task in order if task in rows])
    assert restored.states == book.states
    assert restored.done_on == book.done_on
    restored.check()


# --- leases --------------------------------------------------------------------------------------------


def test_renewed_lease_runs_out_a_lease_after_its_last_renewal() -> None:
    leases = Leases(JOB, Seats(ME, Profile(slots=2)))
    lease = Lease(Attempt(0, 1, 1), ALICE, PLAIN.amounts, renewed_at_s=0.0)
    leases.add(lease)
    lease.renewed_at_s = 10.0
    assert leases.expired(LEASE_S) == []
    assert leases.next_expiry_s() == 10.0 + LEASE_S
    leases.check()
    assert leases.expired(10.0 + LEASE_S) == [[lease]]


def test_released_leases_leave_no_deadline() -> None:
    leases = Leases(JOB, Seats(ME, Profile(slots=2)))
    lease = Lease(Attempt(0, 1, 1), ALICE, PLAIN.amounts, renewed_at_s=0.0)
    leases.add(lease)
    leases.release(lease)
    assert leases.next_expiry_s() is None
    assert leases.expired(1e9) == []


def test_expired_leases_come_by_worker_in_the_order_of_their_grants() -> None:
    leases = Leases(JOB, Seats(ME, Profile(slots=2)))
    for task, node, at_s in ((3, ALICE, 2.0), (1, BOB, 0.0), (2, ALICE, 1.0)):
        leases.add(Lease(Attempt(task, 1, 1), node, PLAIN.amounts, renewed_at_s=at_s))
    found = [[lease.task for lease in part] for part in leases.expired(100.0)]
    assert found == [[1], [3, 2]]


# --- backlog -------------------------------------------------------------------------------------------


def test_line_drops_what_is_not_ready_any_more() -> None:
    ready = {0, 2}
    backlog = Backlog(lambda task: task in ready)
    backlog.add(map(TaskIndex, range(3)), Ticket(5))
    assert backlog.first() == (0, 5)
    backlog.pop()
    assert backlog.first() == (2, 5)


def test_withheld_tasks_are_freed_when_the_last_suspect_has_spoken() -> None:
    backlog = Backlog(lambda task: True)
    backlog.withhold([TaskIndex(0)], [ALICE, BOB], until_s=15.0)
    backlog.heard(ALICE)
    assert backlog.first() is None
    assert backlog.suspects == (BOB,)
    backlog.heard(BOB)
    assert backlog.first() == (0, None)
    assert backlog.next_deadline() is None


# --- seats ---------------------------------------------------------------------------------------------


def test_least_loaded_worker_is_this_node_where_loads_are_equal() -> None:
    seats = Seats(ME, Profile(slots=2))
    seats.offer(ALICE, Profile(slots=2))
    assert [pick(seats) for _ in range(4)] == [ME, ALICE, ME, ALICE]


@given(st.lists(st.tuples(st.sampled_from("tgdou"), st.integers(0, 4)), max_size=120))
def test_least_always_finds_the_least_loaded_with_room(steps: list[tuple[str, int]]) -> None:
    nodes = [ME, ALICE, BOB, type(ME)(bytes([4]) * 32), type(ME)(bytes([5]) * 32)]
    seats = Seats(ME, Profile(slots=2))
    for number, node in enumerate(nodes):
        seats.offer(node, Profile(slots=number + 1))
    for step, number in steps:
        seat = seats.of(nodes[number])
        if step == "t":
            seats.take(seat.node, PLAIN.amounts)
        elif step == "g" and seat.held:
            seats.give_back(seat.node, PLAIN.amounts)
        elif step == "d":
            seats.down(seat.node, 1.0)
        elif step == "o":
            seats.offer(seat.node, Profile(slots=seat.slots))
        elif step == "u":
            seat.silent = True
            seats.heard(seat.node, 1.0)
        room = [one for one in seats if one.has_room(PLAIN, 1_000)]
        found = seats.least(1_000)
        expected = min(room, key=lambda one: (one.load, one.order), default=None)
        assert (found and found.node) == (expected and expected.node)


def test_giving_back_more_than_was_taken_is_a_bug() -> None:
    with pytest.raises(InvariantBroken, match="gave back more"):
        Seats(ME, Profile(slots=2)).give_back(ME, PLAIN.amounts)


def test_holder_that_was_never_heard_of_is_gone_since_this_agent_started() -> None:
    seats = Seats(ME, Profile(slots=2))
    seats.started_at_s = 100.0
    assert seats.gone_for_s(ALICE, 103.0) == 3.0
    seats.offer(ALICE, Profile(slots=1))
    assert seats.gone_for_s(ALICE, 200.0) == 0.0
    seats.down(ALICE, 200.0)
    assert seats.gone_for_s(ALICE, 205.0) == 5.0


# --- offers --------------------------------------------------------------------------------------------


def test_forgotten_offer_is_not_due() -> None:
    offers = Offers(FairDice())
    offers.add(ResultRow(owner=ALICE, offer=result(0, node=ME)), 0.0)
    offers.add(ResultRow(owner=ALICE, offer=result(1, node=ME)), 0.5)
    assert offers.forget((JOB, Attempt(0, 1, 1))) is not None
    assert [one.row.offer.attempt.task for one in offers.take_due(60.0)] == [1]
    assert offers.forget((JOB, Attempt(0, 1, 1))) is None


# --- rows and frames -----------------------------------------------------------------------------------


def test_grants_table_holds_seats_and_handovers() -> None:
    given_row = GivenRow(
        job=JOB,
        generation=1,
        epoch=Epoch(1, ALICE),
        record=NOTHING,
        granted=Granted(Attempt(3, 1, 2)),
        thief=BOB,
    )
    puts = (put_seat(JOB, ALICE), put_given(given_row))
    assert read_grants((one.key, one.value) for one in puts) == ({JOB: [ALICE]}, [given_row])
    assert [one.key for one in puts] == [delete_seat(JOB, ALICE).key, delete_given(JOB, Attempt(3, 1, 2)).key]
    assert all(isinstance(one, Put) for one in puts)


def test_largest_frames_fit() -> None:
    codec = Codec(Channel.CONTROL, FRAMES)
    inputs = tuple(Input(99_999, Blob(ALICE, 2**40), BOB, "into/" * 8) for _ in range(64))  # type: ignore[arg-type]
    share = [Granted(Attempt(task, 9, 99), inputs if task % 2 else ()) for task in range(90_000, 90_400)]
    frames = [
        Grant(job=JOB, generation=1, epoch=Epoch(9, ALICE), record=NOTHING, tasks=batch)
        for batch in batches(share)
    ]
    assert sum(len(frame.tasks) for frame in frames) == len(share)
    assert max(len(codec.encode(frame)) for frame in frames) <= 60 * 1024


@given(
    count=st.integers(0, 5_000),
    jobs=st.sampled_from([1, 7, 5_000]),
    stolen=st.booleans(),
    running=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_renewals_fit_and_name_everything_once(count: int, jobs: int, stolen: bool, running: bool) -> None:
    codec = Codec(Channel.CONTROL, FRAMES)
    holdings = [
        Holding(
            JobId(f"j{number % jobs:019d}"),
            ALICE,
            Granted(Attempt(99_999 - number, 99, 999)),
            state=AttemptState.RUNNING if running else AttemptState.GRANTED,
            stolen_from=BOB if stolen else None,
        )
        for number in range(count)
    ]
    known = {one.job: Known(2**31, Epoch(2**31, ALICE), None) for one in holdings}
    effects = renewals(bytes(8), ALICE, holdings, (), known, whole=True)
    named = []
    for effect in effects:
        assert isinstance(effect, Send)
        assert isinstance(effect.message, Renew)
        assert effect.message.whole == (len(effects) == 1)
        assert len(codec.encode(effect.message)) <= 60 * 1024
        named += [(held.job, one) for held in effect.message.jobs for one in held.open]
    assert sorted(named, key=str) == sorted((one.key for one in holdings), key=str)


# --- helpers -------------------------------------------------------------------------------------------


def pipeline(width: int) -> JobSpec:
    return JobSpec(
        name="pipeline",
        tasks=(
            TaskSpec(name="split", argv=("x",)),
            TaskSpec(name="work", argv=("x",), array=Array(size=width), needs=(Need(task="split"),)),
            TaskSpec(name="join", argv=("x",), needs=(Need(task="work"),)),
        ),
    )


def row(state: str) -> TaskRow:
    return TaskRow(
        round=1,
        state=state,
        node=ALICE,
        tries=(Try(number=1, node=ALICE, state=state),),
        exit_code=0,
        error="",
        stdout=NOTHING,
        stderr=NOTHING,
        manifest=NOTHING,
        outputs=0,
    )


def pick(seats: Seats) -> bytes | None:
    seat = seats.least(8)
    if seat is not None:
        seats.take(seat.node, PLAIN.amounts)
    return seat.node if seat else None

"""The owner, effect by effect."""

from __future__ import annotations

import msgspec
from fixtures import (
    ALICE,
    BOB,
    JOB,
    ME,
    NOW,
    capacity,
    hear,
    later,
    record,
    result,
    scheduler,
    spec,
    submitted,
)

from meshpeer.core.effects import Delete, Note, Persist, Put, Send, Table, Tick
from meshpeer.core.ids import NodeId, TaskIndex, Ticket, key_text
from meshpeer.core.jobs.model import Array, JobSpec, Need, TaskSpec
from meshpeer.core.scheduler import views
from meshpeer.core.scheduler.explaining import Explainer
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    Ack,
    Attempt,
    CancelAsked,
    Epoch,
    FetchJob,
    Grant,
    Held,
    JobChanged,
    JobLearned,
    Lost,
    PeerDown,
    PeersChanged,
    PeerView,
    Renew,
    StartAttempt,
    Stolen,
    Stop,
    StoreBlob,
    Unknown,
)
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.rows import ROW_BYTES_MAX, JobRow, TaskRow, put_seat
from meshpeer.core.scheduler.tables import TaskState
from meshpeer.core.wire import cbor

EPOCH = Epoch(1, ME)


def test_job_is_journalled_before_anything_is_granted() -> None:
    machine = scheduler(slots=0)
    hear(machine, ALICE, capacity(2))
    persist, changed, seat, sent = machine.handle(submitted(record(spec(2))), NOW)
    assert isinstance(persist, Persist)
    assert [one.table for one in persist.changes] == [Table.JOBS]
    assert changed == JobChanged(job=JOB)
    assert seat == Persist(ticket=Ticket(2), changes=(put_seat(JOB, ALICE),))
    assert isinstance(sent, Send)
    assert (sent.peer, sent.after) == (ALICE, persist.ticket)
    assert machine.owned[JOB].accept_ticket == persist.ticket
    machine.check()


def test_same_id_again_is_the_same_job() -> None:
    machine, _ = owning(spec(2))
    assert machine.handle(submitted(record(spec(5))), NOW) == []


def test_first_share_is_even_by_slots() -> None:
    machine = scheduler(slots=2)
    hear(machine, ALICE, capacity(4))
    hear(machine, BOB, capacity(2))
    effects = machine.handle(submitted(record(spec(16))), NOW)
    assert {node: len(tasks) for node, tasks in granted(effects).items()} == {ME: 4, ALICE: 8, BOB: 4}
    machine.check()


def test_worker_is_not_given_more_than_a_few_tasks_a_slot_while_times_are_unknown() -> None:
    machine, effects = owning(spec(1_000))
    assert {node: len(tasks) for node, tasks in granted(effects).items()} == {ALICE: 16, BOB: 16}
    machine.check()


def test_result_is_committed_then_acknowledged() -> None:
    machine, _ = owning(spec(2))
    effects = hear(machine, ALICE, offer(0))
    persist, changed, ack = effects
    assert isinstance(persist, Persist)
    assert [(one.table, one.key) for one in persist.changes] == [(Table.TASKS, f"{JOB}/000000")]
    assert changed == JobChanged(job=JOB)
    assert ack == Send(peer=ALICE, message=acked(0), after=persist.ticket)
    machine.check()


def test_duplicate_is_acknowledged_again_and_not_committed_again() -> None:
    machine, _ = owning(spec(2))
    hear(machine, ALICE, offer(0))
    assert hear(machine, ALICE, offer(0)) == [
        Send(peer=ALICE, message=acked(0), after=machine.owned[JOB].last_ticket)
    ]


def test_second_result_is_superseded() -> None:
    machine, _ = owning(spec(2))
    hear(machine, ALICE, offer(0))
    late = msgspec.structs.replace(offer(0, number=2), node=BOB)
    message = msgspec.structs.replace(acked(0, number=2), superseded=True)
    assert sends(hear(machine, BOB, late)) == [(BOB, message)]
    assert machine.owned[JOB].results[TaskIndex(0)].node == ALICE


def test_result_of_another_than_its_sender_is_refused() -> None:
    machine, _ = owning(spec(2))
    assert hear(machine, BOB, offer(0)) == []


def test_loser_is_stopped_when_another_attempt_was_first() -> None:
    machine, _ = owning(spec(2))
    hear(machine, BOB, msgspec.structs.replace(offer(0), node=BOB))
    machine.check()
    lease_of_0 = Stop(
        job=JOB, generation=1, epoch=EPOCH, attempts=(Attempt(1, 1, 1),), reason="another attempt was first"
    )
    other = msgspec.structs.replace(offer(1), node=ALICE)
    assert (BOB, lease_of_0) in sends(hear(machine, ALICE, other))
    machine.check()


def test_failed_task_is_tried_again_after_a_pause() -> None:
    machine, _ = owning(spec(1, retries=2))
    effects = hear(machine, ALICE, offer(0, succeeded=False))
    assert [type(one) for one in effects] == [Persist, JobChanged, Send]
    deadline = machine.next_deadline()
    assert deadline is not None
    assert (deadline.at_s, deadline.reason) == (NOW.mono_s + 0.5, "try a task again")
    again = granted(machine.handle(Tick(), later(0.5)))
    assert list(again.values()) == [[Attempt(0, 1, 2)]]
    machine.check()


def test_same_failure_twice_counts_once() -> None:
    machine, _ = owning(spec(1, retries=1))
    hear(machine, ALICE, offer(0, succeeded=False))
    assert sends(hear(machine, ALICE, offer(0, succeeded=False))) == [(ALICE, acked(0))]
    assert machine.owned[JOB].states[0] is TaskState.READY


def test_lease_is_kept_by_naming_the_attempt_and_by_nothing_else() -> None:
    machine, _ = owning(spec(2))
    for seconds in (5, 10, 15):
        hear(machine, ALICE, renew(Attempt(0, 1, 1)), later(seconds))
    effects = machine.handle(Tick(), later(15))
    assert granted(effects) == {ALICE: [Attempt(1, 1, 2)]}
    assert machine.owned[JOB].leases[TaskIndex(0)].node == ALICE
    machine.check()


def test_silent_worker_is_given_nothing_until_it_speaks() -> None:
    machine = scheduler(slots=0)
    hear(machine, ALICE, capacity(2))
    machine.handle(submitted(record(spec(1))), NOW)
    machine.next_deadline()
    assert granted(machine.handle(Tick(), later(15))) == {}
    assert granted(hear(machine, ALICE, renew(), later(16))) == {ALICE: [Attempt(0, 1, 2)]}
    machine.check()


def test_whole_report_takes_back_at_once_what_it_does_not_name() -> None:
    machine, _ = owning(spec(4))
    effects = hear(machine, ALICE, renew(Attempt(0, 1, 1), whole=True), later(1))
    assert [one for tasks in granted(effects).values() for one in tasks] == [Attempt(2, 1, 2)]
    assert machine.owned[JOB].book.tries_of(TaskIndex(2)) == []
    machine.check()


def test_report_of_another_boot_blames_what_may_have_been_running() -> None:
    machine, _ = owning(spec(20))
    hear(machine, ALICE, renew(*(Attempt(task, 1, 1) for task in range(0, 20, 2)), whole=True))
    effects = hear(machine, ALICE, renew(whole=True, boot=b"2"), later(1))
    assert sum(isinstance(one, Note) for one in effects) == 2
    blamed = [task for task in range(20) if machine.owned[JOB].book.tries_of(TaskIndex(task))]
    assert blamed == [0, 2]
    machine.check()


def test_thief_takes_the_lease_over_and_the_victim_is_remembered() -> None:
    machine, _ = owning(spec(2))
    attempt = Attempt(0, 1, 1)
    stolen = (Stolen(attempt, ALICE),)
    held = Held(job=JOB, generation=1, epoch=EPOCH, open=(attempt,), stolen=stolen)
    assert hear(machine, BOB, Renew(jobs=(held,), boot=b"1", whole=False)) == []
    lease = machine.owned[JOB].leases[TaskIndex(0)]
    assert (lease.node, lease.stolen_from, lease.attempt) == (BOB, ALICE, Attempt(0, 1, 1))
    machine.check()


def test_attempt_without_a_lease_is_stopped_where_another_has_the_task() -> None:
    machine, _ = owning(spec(2))
    [(peer, message)] = sends(hear(machine, BOB, renew(Attempt(0, 1, 7))))
    assert peer == BOB
    assert isinstance(message, Stop)
    assert message.attempts == (Attempt(0, 1, 7),)


def test_declining_worker_is_asked_again_after_a_minute_or_on_another_link() -> None:
    machine, _ = owning(spec(2))
    effects = hear(machine, ALICE, gone(0, declined=True))
    assert granted(effects) == {BOB: [Attempt(0, 1, 2)]}
    hear(machine, BOB, gone(0, number=2, declined=True))
    assert granted(hear(machine, BOB, gone(1, declined=True))) == {}
    assert why(machine, 0).startswith("no node takes it now; ")
    assert granted(hear(machine, ALICE, capacity(2))) == {ALICE: [Attempt(1, 1, 2), Attempt(0, 1, 3)]}
    hear(machine, ALICE, gone(0, number=3, declined=True))
    assert granted(machine.handle(Tick(), later(59))) == {}
    machine.check()


def test_worker_that_can_not_run_a_task_rests_from_the_job() -> None:
    machine, _ = owning(spec(2))
    assert list(granted(hear(machine, ALICE, gone(0)))) == [BOB]
    assert machine.owned[JOB].book.tries_of(TaskIndex(0)) == []
    machine.check()


def test_nothing_is_granted_without_a_link() -> None:
    machine = scheduler(slots=0)
    hear(machine, ALICE, capacity(2))
    machine.handle(PeerDown(peer=ALICE), NOW)
    effects = machine.handle(submitted(record(spec(2))), NOW)
    assert granted(effects) == {}
    assert list(granted(hear(machine, ALICE, capacity(2)))) == [ALICE]


def test_dead_workers_tasks_go_to_others_at_once() -> None:
    machine, _ = owning(spec(4))
    machine.handle(PeerDown(peer=ALICE), NOW)
    views_ = (PeerView(node=ALICE, alive=False, linked=False, region="", dead=True),)
    effects = machine.handle(PeersChanged(peers=views_), NOW)
    assert granted(effects) == {BOB: [Attempt(0, 1, 2), Attempt(2, 1, 2)]}
    machine.check()


def test_cancel_is_written_before_workers_are_told() -> None:
    machine, _ = owning(spec(4))
    effects = machine.handle(CancelAsked(job=JOB), NOW)
    persist = effects[0]
    assert isinstance(persist, Persist)
    stop = Stop(job=JOB, generation=1, epoch=EPOCH, attempts=(), reason="cancelled")
    assert effects[1:] == [
        Send(peer=ALICE, message=stop, after=persist.ticket),
        Send(peer=BOB, message=stop, after=persist.ticket),
        JobChanged(job=JOB),
    ]
    assert views.job_state(machine.owned[JOB]) == "cancelled"
    assert machine.handle(CancelAsked(job=JOB), NOW) == []
    machine.check()


def test_finished_job_forgets_who_worked_for_it() -> None:
    machine, _ = owning(spec(2))
    hear(machine, ALICE, offer(0))
    effects = hear(machine, BOB, msgspec.structs.replace(offer(1), node=BOB))
    persist = [one for one in effects if isinstance(one, Persist)][-1]
    assert [type(one) for one in persist.changes] == [Put, Delete, Delete]
    assert views.job_state(machine.owned[JOB]) == "succeeded"
    deadline = machine.next_deadline()
    assert deadline is not None
    assert deadline.reason == "forget jobs that are long over"
    machine.check()


def test_dependent_waits_for_the_write_that_made_it_ready() -> None:
    tasks = (TaskSpec(name="a", argv=("x",)), TaskSpec(name="b", argv=("x",), needs=(Need(task="a"),)))
    machine, _ = owning(JobSpec(name="chain", tasks=tasks))
    effects = hear(machine, ALICE, offer(0))
    ticket = next(one.ticket for one in effects if isinstance(one, Persist))
    grants = [one for one in effects if isinstance(one, Send) and isinstance(one.message, Grant)]
    assert [one.after for one in grants] == [ticket]


def test_many_inputs_travel_as_a_blob() -> None:
    tasks = (
        TaskSpec(name="a", argv=("x",), array=Array(size=65)),
        TaskSpec(name="b", argv=("x",), needs=(Need(task="a", into="in"),)),
    )
    machine = scheduler(slots=0)
    hear(machine, ALICE, capacity(64))
    machine.handle(submitted(record(JobSpec(name="gather", tasks=tasks))), NOW)
    effects = [
        one
        for task in range(65)
        for one in hear(machine, ALICE, msgspec.structs.replace(offer(task), outputs=1))
    ]
    stored = next(one for one in effects if isinstance(one, StoreBlob))
    grant = next(one.message for one in effects if isinstance(one, Send) and isinstance(one.message, Grant))
    assert grant.tasks[0].inputs == ()
    assert grant.tasks[0].inputs_blob is not None
    assert (grant.tasks[0].inputs_blob.digest, grant.tasks[0].inputs_blob.size) == (
        stored.digest,
        len(stored.data),
    )


def test_restarted_owner_takes_a_new_epoch_before_it_grants() -> None:
    machine, row = restarted(workers=())
    assert machine.owned[JOB].epoch == Epoch(4, ME)
    [effect] = row
    assert isinstance(effect, Persist)
    [sent] = [one for one in hear(machine, ALICE, capacity(2)) if isinstance(one, Send)]
    assert sent.after == effect.ticket
    assert isinstance(sent.message, Grant)
    assert sent.message.epoch == Epoch(4, ME)
    machine.check()


def test_restarted_owner_adopts_what_runs_and_grants_the_rest_once_all_have_spoken() -> None:
    machine, _ = restarted(workers=(ALICE, BOB))
    hear(machine, BOB, capacity(2))
    assert granted(hear(machine, ALICE, renew(Attempt(1, 1, 4), whole=True))) == {}
    assert (
        why(machine, 0) == f"its owner was started again and waits to hear what {key_text(BOB)[:4]} may run"
    )
    effects = hear(machine, BOB, renew(whole=True))
    assert granted(effects) == {BOB: [Attempt(0, 1, 1), Attempt(2, 1, 1)]}
    lease = machine.owned[JOB].leases[TaskIndex(1)]
    assert (lease.node, lease.attempt) == (ALICE, Attempt(1, 1, 4))
    machine.check()


def test_restarted_owner_waits_a_lease_for_the_silent() -> None:
    machine, _ = restarted(workers=(BOB,))
    assert granted(hear(machine, ALICE, capacity(2))) == {}
    assert granted(machine.handle(Tick(), later(14.9))) == {}
    assert list(granted(machine.handle(Tick(), later(15)))) == [ALICE]


def test_owner_that_restarts_alone_grants_to_its_own_worker_again() -> None:
    event = submitted(record(spec(3)))
    row = JobRow(signed=event.signed, epoch=Epoch(3, ME), accepted_at_us=1)
    machine = scheduler(slots=1)
    effects = machine.restore([(event.record, event.digest, row)], {JOB: {}}, [], NOW)
    own = [one for one in effects if isinstance(one, Send)]
    assert own
    assert {one.peer for one in own} == {ME}
    # The new epoch comes first: whoever carries these words waits for it.
    assert all(one.after is not None for one in own)
    followed = [effect for one in own for effect in hear(machine, ME, one.message)]
    assert [one.job for one in followed if isinstance(one, FetchJob)] == [JOB]
    started = machine.handle(JobLearned(job=JOB, record=event.record), NOW)
    assert [one.granted.attempt.task for one in started if isinstance(one, StartAttempt)] == [0]
    machine.check()


def test_finished_task_is_not_run_again_after_a_restart() -> None:
    machine, _ = owning(spec(3))
    effects = hear(machine, ALICE, offer(0))
    row = next(one for one in effects if isinstance(one, Persist)).changes[0]
    assert isinstance(row, Put)
    task = cbor.decode(row.value, TaskRow, bytes_max=ROW_BYTES_MAX)
    again, _ = restarted(workers=(), tasks={0: task})
    assert [one.task for tasks in granted(hear(again, ALICE, capacity(2))).values() for one in tasks] == [
        1,
        2,
    ]
    assert again.owned[JOB].done_on == {ALICE: 1}


def test_word_about_a_job_that_is_not_owned_here_is_answered_so() -> None:
    assert hear(scheduler(), ALICE, offer(0)) == [Send(peer=ALICE, message=Unknown(job=JOB))]


def test_words_of_a_later_owner_change_nothing_here() -> None:
    machine, _ = owning(spec(2))
    assert hear(machine, ALICE, msgspec.structs.replace(offer(0), epoch=Epoch(2, BOB))) == []
    assert machine.owned[JOB].states[0] is TaskState.LEASED


def test_owner_of_a_higher_generation_stops_what_belongs_to_a_lower() -> None:
    machine = scheduler(slots=0)
    machine.handle(submitted(record(spec(2), generation=2)), NOW)
    [(peer, message)] = sends(hear(machine, ALICE, offer(0)))
    assert peer == ALICE
    assert isinstance(message, Stop)
    assert message.generation == 2


def test_counts_are_those_that_people_see() -> None:
    machine, _ = owning(spec(4))
    hear(machine, ALICE, renew(Attempt(0, 1, 1), Attempt(2, 1, 1), running=(Attempt(0, 1, 1),)))
    hear(machine, BOB, msgspec.structs.replace(offer(1), node=BOB))
    counts = views.task_counts(machine.owned[JOB])
    assert {key: value for key, value in counts.items() if value} == {
        "total": 4,
        "ready": 2,
        "running": 1,
        "succeeded": 1,
    }
    assert [views.task_state(machine.owned[JOB], TaskIndex(task)) for task in range(3)] == [
        "running",
        "succeeded",
        "ready",
    ]
    assert why(machine, 0) == f"runs on {key_text(ALICE)[:4]}"


# --- losses that come together --------------------------------------------------------------------------


def test_attempt_that_is_lost_twice_in_one_message_is_lost_once() -> None:
    machine, _ = owning(spec(8))
    hear(machine, ALICE, gone(0, 0))
    machine.check()
    hear(machine, ALICE, msgspec.structs.replace(gone(2, 2), missing=(5,)))
    machine.check()


def test_lost_outputs_that_end_the_job_take_back_what_else_was_lost_with_them() -> None:
    tasks = (
        TaskSpec(name="a", argv=("x",), crash_limit=1),
        TaskSpec(
            name="b",
            argv=("x",),
            array=Array(size=4),
            needs=(Need(task="a"),),
            on_failure="fail-fast",
            crash_limit=1,
        ),
    )
    machine, _ = owning(JobSpec(name="fast", tasks=tasks))
    hear(machine, ALICE, offer(0))
    mine = [one.attempt for one in machine.owned[JOB].leases.values() if one.node == BOB]
    assert len(mine) == 2
    hear(machine, ALICE, gone(9))
    machine.handle(PeerDown(peer=ALICE), NOW)
    word = Lost(job=JOB, generation=1, epoch=EPOCH, attempts=tuple(mine), reason="no inputs", missing=(0,))
    hear(machine, BOB, word, later(12))
    machine.check()
    assert machine.owned[JOB].finished
    assert machine.owned[JOB].counts[TaskState.FAILED] == 1


def test_two_workers_that_fall_silent_in_one_tick_are_lost_though_the_first_ends_the_job() -> None:
    tasks = (
        TaskSpec(name="vital", argv=("x",), on_failure="fail-fast", crash_limit=1),
        TaskSpec(name="rest", argv=("x",), array=Array(size=3)),
    )
    machine, _ = owning(JobSpec(name="fast", tasks=tasks))
    assert {one.node for one in machine.owned[JOB].leases.values()} == {ALICE, BOB}
    machine.handle(Tick(), later(1))
    for seconds in range(4, 21, 4):
        machine.handle(Tick(), later(seconds))
    machine.check()
    assert machine.owned[JOB].finished
    assert machine.owned[JOB].counts[TaskState.CANCELLED] == 3


# --- helpers -------------------------------------------------------------------------------------------


def owning(of: JobSpec) -> tuple[Scheduler, list[object]]:
    """Returns a node without slots that owns a job, and what followed: Alice and Bob have two slots each."""
    machine = scheduler(slots=0)
    hear(machine, ALICE, capacity(2))
    hear(machine, BOB, capacity(2))
    return machine, list(machine.handle(submitted(record(of)), NOW))


def restarted(
    *, workers: tuple[NodeId, ...], tasks: dict[int, TaskRow] | None = None
) -> tuple[Scheduler, list[object]]:
    """Returns a node that found a job of three tasks in its journal, in the third epoch."""
    event = submitted(record(spec(3)))
    row = JobRow(signed=event.signed, epoch=Epoch(3, ME), accepted_at_us=1)
    seats = [put_seat(JOB, node) for node in workers]
    machine = scheduler(slots=0)
    effects = machine.restore(
        [(event.record, event.digest, row)],
        {JOB: tasks or {}},
        [],
        NOW,
        [(one.key, one.value) for one in seats],
    )
    return machine, list(effects)


def offer(task: int, *, number: int = 1, succeeded: bool = True):  # type: ignore[no-untyped-def]
    return result(task, node=ALICE, number=number, succeeded=succeeded, epoch=EPOCH)


def acked(task: int, *, number: int = 1) -> Ack:
    return Ack(job=JOB, generation=1, epoch=EPOCH, attempt=Attempt(task, 1, number))


def gone(*tasks: int, number: int = 1, declined: bool = False) -> Lost:
    attempts = tuple(Attempt(task, 1, number) for task in tasks)
    return Lost(job=JOB, generation=1, epoch=EPOCH, attempts=attempts, reason="no room", declined=declined)


def renew(
    *attempts: Attempt, running: tuple[Attempt, ...] = (), whole: bool = False, boot: bytes = b"1"
) -> Renew:
    held = Held(job=JOB, generation=1, epoch=EPOCH, open=attempts, running=running)
    return Renew(jobs=(held,) if attempts else (), boot=boot, whole=whole)


def granted(effects: object) -> dict[NodeId, list[Attempt]]:
    found: dict[NodeId, list[Attempt]] = {}
    for one in effects:  # type: ignore[attr-defined]
        if isinstance(one, Send) and isinstance(one.message, Grant):
            found.setdefault(one.peer, []).extend(task.attempt for task in one.message.tasks)
    return found


def sends(effects: object) -> list[tuple[NodeId, msgspec.Struct]]:
    return [(one.peer, one.message) for one in effects if isinstance(one, Send)]  # type: ignore[attr-defined]


def why(machine: Scheduler, task: int) -> str:
    owner: JobOwner = machine.owned[JOB]
    explainer = Explainer(owner, (), machine.seats, lambda node: key_text(node)[:4], NOW.mono_s)
    return explainer.explain(TaskIndex(task)).text

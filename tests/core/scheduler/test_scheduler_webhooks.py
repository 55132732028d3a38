"""Attempts whose work a service does: when it is called, what its word counts, what outlives a restart."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import pytest
from fixtures import ALICE, JOB, ME, NOW, grant, hear, later, record, result, scheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Delete, Persist, Put, Send, Table, Tick
from meshpeer.core.ids import Digest, NodeId
from meshpeer.core.jobs.model import Array, JobRecord, JobSpec, TaskSpec, Webhook
from meshpeer.core.scheduler.book import NOTHING
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    Ack,
    Attempt,
    AttemptFinished,
    AttemptRunning,
    AttemptUnstageable,
    Epoch,
    JobLearned,
    Offer,
    SchedulerEffect,
    SchedulerEvent,
    StartAttempt,
    Stop,
    StopAttempt,
)
from meshpeer.core.scheduler.rows import JobRow, ResultRow
from meshpeer.core.scheduler.tables import WEBHOOK_MOVES, WebhookState
from meshpeer.core.scheduler.webhook_messages import (
    AnswerCallback,
    CallbackReceived,
    CallWebhook,
    EndWebhook,
    ResumeWebhook,
    WebhookAnswered,
    WebhookReady,
)
from meshpeer.core.scheduler.webhooks import CALLS_FOR_S, KEEP_S, SETTLED_MAX, SWEEP_S, TOKENS_MAX
from meshpeer.core.wire import cbor

ATTEMPT = Attempt(0, 1, 1)
RESULT = b'{"score":7}'


def test_nothing_is_sent_before_the_attempt_is_on_disk() -> None:
    it = Bench()
    effects = it.ready()
    persist, call = effects
    assert isinstance(persist, Persist)
    assert call == CallWebhook(job=JOB, attempt=ATTEMPT, number=1, after=persist.ticket)
    (put,) = persist.changes
    assert isinstance(put, Put)
    assert b"token-0" not in put.value
    assert token("token-0") in put.value


def test_an_answer_of_2xx_is_the_result() -> None:
    it = Bench()
    it.ready()
    effects = it.answer(200, body=RESULT)
    assert [type(one) for one in effects] == [Persist, EndWebhook]
    assert it.ended == [(True, "", RESULT)]


def test_202_waits_for_the_call_back() -> None:
    it = Bench()
    it.ready()
    assert [type(one) for one in it.answer(202)] == [Persist]
    assert it.ended == []
    persist, end, answer = it.call_back()
    assert isinstance(persist, Persist)
    assert isinstance(end, EndWebhook)
    assert answer == AnswerCallback(asked=1, known=True, after=persist.ticket)
    assert it.ended == [(True, "", RESULT)]


def test_call_back_before_the_202_counts_and_the_202_does_not() -> None:
    it = Bench()
    it.ready()
    assert it.call_back()[-1] == AnswerCallback(asked=1, known=True, after=it.last_ticket)
    assert it.answer(202) == []
    assert it.answer(500) == []
    assert it.ended == [(True, "", RESULT)]


def test_call_back_that_comes_twice_is_answered_twice_and_counts_once() -> None:
    it = Bench()
    it.ready()
    it.answer(202)
    it.call_back()
    again = it.call_back(result=b"other")
    assert again == [AnswerCallback(asked=1, known=True, after=it.last_ticket)]
    it.finish()
    assert it.call_back()[-1].known  # type: ignore[union-attr]
    it.acknowledge()
    it.pass_time(SWEEP_S + 1)
    assert it.call_back() == [AnswerCallback(asked=1, known=True, after=it.machine_ticket())]
    assert it.ended == [(True, "", RESULT)]


def test_failed_call_back_is_the_services_failure() -> None:
    it = Bench()
    it.ready()
    it.answer(202)
    it.call_back(succeeded=False, error="no model", result=b"null")
    assert it.ended == [(False, "no model", b"null")]


@pytest.mark.parametrize("name", ["guess", "token-1", ""])
def test_token_that_is_nobodys_is_unknown(name: str) -> None:
    it = Bench()
    it.ready()
    it.answer(202)
    assert it.call_back(name) == [AnswerCallback(asked=1, known=False, after=None)]
    assert it.ended == []


def test_call_back_after_the_time_is_up_is_unknown() -> None:
    it = Bench()
    it.ready()
    it.answer(202)
    it.pass_time(60)
    assert it.ended == [(False, "timed out after 60 s", b"")]
    assert it.call_back() == [AnswerCallback(asked=1, known=False, after=None)]


def test_call_back_of_a_stopped_attempt_is_unknown() -> None:
    it = Bench()
    it.ready()
    it.answer(202)
    effects = it.stop()
    assert StopAttempt(job=JOB, attempt=ATTEMPT) in effects
    assert it.rows == {}
    assert it.call_back() == [AnswerCallback(asked=1, known=False, after=None)]


@pytest.mark.parametrize(
    ("status", "again"),
    [
        (None, True),
        (408, True),
        (425, True),
        (429, True),
        (500, True),
        (503, True),
        (301, False),
        (307, False),
        (400, False),
        (401, False),
        (404, False),
        (422, False),
        (600, False),
    ],
)
def test_what_may_pass_is_tried_again_and_other_answers_are_final(status: int | None, again: bool) -> None:
    it = Bench()
    it.ready()
    it.answer(status, error="no connection" if status is None else "", body=b"the reason")
    assert bool(it.ended) == (not again)
    if not again:
        assert it.ended == [(False, f"the service answered {status}: the reason", b"")]
        return
    calls = it.pass_time(1)
    assert calls == [CallWebhook(job=JOB, attempt=ATTEMPT, number=2, after=None)]


def test_pauses_between_calls_grow_to_a_bound() -> None:
    it = Bench(timeout_s=0)
    it.ready()
    pauses = []
    for _ in range(9):
        it.answer(503)
        deadline = it.machine.webhooks.next_deadline()
        assert deadline
        pauses.append(deadline.at_s - it.now.mono_s)
        it.pass_time(pauses[-1])
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_retry_after_is_honoured() -> None:
    it = Bench()
    it.ready()
    it.answer(429, retry_after_s=20)
    assert it.pass_time(19.9) == []
    assert it.pass_time(0.2) == [CallWebhook(job=JOB, attempt=ATTEMPT, number=2, after=None)]


def test_time_that_runs_out_between_calls_names_the_last_trouble() -> None:
    it = Bench()
    it.ready()
    it.answer(429, retry_after_s=100, body=b"busy\x1b[31m")
    it.pass_time(60)
    assert it.ended == [(False, "timed out after 60 s: the service answered 429: busy [31m", b"")]


def test_service_that_never_takes_the_work_is_given_up() -> None:
    it = Bench(timeout_s=0)
    it.ready()
    it.now = later(CALLS_FOR_S)
    it.answer(None, error="connection refused")
    assert it.ended == [(False, "given up after 60 min: connection refused", b"")]


def test_answer_to_an_earlier_call_is_of_no_use() -> None:
    it = Bench()
    it.ready()
    it.answer(503)
    it.pass_time(1)
    assert it.answer(200, number=1, body=RESULT) == []
    it.answer(200, number=2, body=RESULT)
    assert it.ended == [(True, "", RESULT)]


def test_202_without_a_port_for_the_call_back_fails_at_once() -> None:
    it = Bench()
    it.ready(may_call_back=False)
    it.answer(202)
    assert it.ended == [(False, "the service answered 202, and this node has no port for its call-back", b"")]


def test_stopped_before_its_request_was_made_is_not_sent() -> None:
    it = Bench()
    it.stop()
    assert it.ready() == []


# --- restarts -----------------------------------------------------------------------------------------------


def test_taken_work_is_waited_for_after_a_restart() -> None:
    it = Bench()
    it.ready()
    it.answer(202)
    assert it.restart() == []
    assert it.machine.worker.busy == 1
    it.call_back()
    assert it.ended == [(True, "", RESULT)]
    it.finish()
    assert it.machine.worker.busy == 0


def test_work_that_may_not_have_reached_the_service_is_sent_again_after_a_restart() -> None:
    it = Bench()
    it.ready()
    (resume,) = it.restart()
    assert isinstance(resume, ResumeWebhook)
    assert (resume.job, resume.granted.attempt, resume.owner) == (JOB, ATTEMPT, ALICE)
    it.ready("token-1")
    # The service had it: it calls the first token back.
    assert it.call_back("token-0")[-1] == AnswerCallback(asked=1, known=True, after=it.last_ticket)
    assert it.ended == [(True, "", RESULT)]
    assert it.call_back("token-1")[-1].known  # type: ignore[union-attr]


def test_call_back_between_restart_and_second_call_counts() -> None:
    it = Bench()
    it.ready()
    it.restart()
    it.call_back()
    assert it.ended == [(True, "", RESULT)]
    assert it.ready("token-1") == []


def test_own_job_knows_its_own_work_after_a_restart_that_came_before_anything_else_was_written() -> None:
    it = Bench(owner=ME)
    it.ready()
    it.answer(202)
    it.rows = {key: row for key, row in it.rows.items() if key.startswith("webhook/")}
    assert not [one for one in it.restart(own=True) if isinstance(one, Send | StopAttempt)]
    it.call_back()
    assert it.ended == [(True, "", RESULT)]


def test_result_that_was_answered_for_outlives_a_restart() -> None:
    it = Bench()
    it.ready()
    it.answer(202)
    it.call_back()
    (end,) = it.restart()
    assert isinstance(end, EndWebhook)
    assert (end.succeeded, end.result) == (True, RESULT)
    offer = it.finish()
    assert offer.succeeded


def test_result_that_awaits_its_owner_is_not_stored_twice() -> None:
    it = Bench()
    it.ready()
    it.answer(200, body=RESULT)
    it.finish()
    assert it.restart() == []
    assert it.machine.worker.unacknowledged == 1
    it.acknowledge()
    it.pass_time(SWEEP_S + 1)
    assert it.call_back()[-1].known  # type: ignore[union-attr]


def test_attempt_whose_request_can_not_be_made_anew_is_let_go() -> None:
    it = Bench()
    it.ready()
    it.restart()
    it.do(AttemptUnstageable(job=JOB, attempt=ATTEMPT, reason="its record is gone"))
    assert it.rows == {}
    assert not it.call_back()[-1].known  # type: ignore[union-attr]


def test_attempt_that_fails_before_its_second_call_ends_there_through_restarts() -> None:
    it = Bench()
    it.ready()
    it.restart()
    it.refuse_to_call()
    assert it.rows == {}
    assert not it.call_back()[-1].known  # type: ignore[union-attr]
    assert it.restart() == []
    it.machine.check()
    it.acknowledge()
    it.pass_time(SWEEP_S + 1)
    assert (it.rows, it.results) == ({}, {})


def test_row_that_a_result_without_an_answer_left_behind_is_dropped() -> None:
    it = Bench()
    it.ready()
    it.restart()
    left = dict(it.rows)
    it.refuse_to_call()
    it.rows = left
    assert [type(one) for one in it.restart()] == [Persist]
    it.machine.check()
    assert it.rows == {}
    assert not it.call_back()[-1].known  # type: ignore[union-attr]
    it.acknowledge()
    it.pass_time(SWEEP_S + 1)


def test_time_goes_on_while_the_agent_is_away() -> None:
    it = Bench()
    it.ready()
    it.answer(202)
    # The clock that counts through suspend begins anew with the machine, the wall clock does not.
    it.now = Instant(mono_s=5.0, unix_s=it.now.unix_s + 50)
    it.restart()
    it.pass_time(9)
    assert it.ended == []
    it.pass_time(1.5)
    assert it.ended == [(False, "timed out after 60 s", b"")]


def test_attempt_without_a_slot_after_a_restart_is_let_go() -> None:
    it = Bench()
    it.ready()
    it.answer(202)
    effects = it.restart(slots=0)
    assert [type(one) for one in effects] == [Persist]
    assert it.rows == {}
    assert not it.call_back()[-1].known  # type: ignore[union-attr]


def test_owner_that_restarts_with_its_worker_grants_no_second_attempt() -> None:
    it = Bench(owner=ME)
    it.ready()
    it.answer(202)
    effects = it.restart(own=True)
    assert not [one for one in effects if isinstance(one, StartAttempt)]
    assert it.machine.worker.busy == 1
    it.call_back()
    it.finish()
    assert it.machine.owned[JOB].finished


def test_old_tokens_are_forgotten_in_their_turn() -> None:
    it = Bench()
    it.ready()
    it.answer(202)
    it.call_back()
    it.finish()
    it.acknowledge()
    it.pass_time(SWEEP_S + 1)
    it.now = Instant(it.now.mono_s + KEEP_S, it.now.unix_s + KEEP_S)
    it.do(Tick())
    it.pass_time(KEEP_S / 24)
    assert it.rows == {}
    assert not it.call_back()[-1].known  # type: ignore[union-attr]
    assert it.machine.webhooks.next_deadline() is None


def test_an_attempt_has_a_bounded_number_of_tokens() -> None:
    it = Bench()
    for number in range(TOKENS_MAX + 5):
        it.ready(f"token-{number}")
    assert not it.call_back("token-4")[-1].known  # type: ignore[union-attr]
    assert it.call_back("token-5")[-1].known  # type: ignore[union-attr]
    assert SETTLED_MAX >= 1_000


def test_machine_without_webhooks_has_nothing_to_wait_for() -> None:
    assert scheduler().webhooks.next_deadline() is None
    assert not scheduler().webhooks


# --- laws ---------------------------------------------------------------------------------------------------

steps = st.sampled_from(
    [
        "ready",
        "202",
        "200",
        "503",
        "none",
        "404",
        "call back",
        "failed call back",
        "other token",
        "guess",
        "tick",
        "wait",
        "finish",
        "ack",
        "stop",
        "restart",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=25))
def test_whatever_comes_one_result_counts_and_none_that_was_answered_for_is_lost(walk: list[str]) -> None:
    it = Bench()
    answered_for: bytes | None = None
    tokens = 0
    for number, step in enumerate(walk):
        result = b"%d" % number
        effects: list[SchedulerEffect] = []
        match step:
            case "ready":
                effects = it.ready(f"token-{tokens}")
                tokens += 1
            case "202" | "200" | "503" | "404":
                it.answer(int(step), number=it.calls, body=result)
            case "none":
                it.answer(None, number=it.calls)
            case "call back":
                effects = it.call_back(result=result)
            case "failed call back":
                effects = it.call_back(succeeded=False, result=result)
            case "other token":
                effects = it.call_back(f"token-{tokens - 1}", result=result)
            case "guess":
                assert it.call_back("guess") == [AnswerCallback(asked=1, known=False, after=None)]
            case "tick":
                it.pass_time(0.1)
            case "wait":
                it.pass_time(20)
            case "finish" if it.ended and not it.offers:
                it.finish()
            case "ack" if it.offers:
                it.acknowledge()
            case "stop":
                it.stop()
            case "restart":
                it.restart()
        for effect in effects:
            if isinstance(effect, AnswerCallback) and effect.known and answered_for is None:
                # Told 200: from here on this is the result, whatever comes.
                assert it.ended
                answered_for = it.ended[0][2]
        it.machine.check()
    assert len({(ok, result) for ok, _, result in it.ended}) <= 1
    if answered_for is not None:
        assert it.ended[0][2] == answered_for


def test_every_move_of_the_table_is_between_its_states() -> None:
    assert set(WEBHOOK_MOVES) == set(WebhookState)
    assert WEBHOOK_MOVES[WebhookState.SETTLED] == frozenset()


# --- helpers ------------------------------------------------------------------------------------------------


def token(name: str) -> Digest:
    return Digest(hashlib.sha256(name.encode()).digest())


def job(owner: NodeId) -> JobRecord:
    task = TaskSpec(name="t", array=Array(size=1), webhook=Webhook(url="http://127.0.0.1:1/x"))
    return record(JobSpec(name="job", tasks=(task,)), submitter=owner)


@dataclass
class Bench:
    """A worker of one running attempt, its journal, and what it wanted done."""

    timeout_s: float = 60.0
    owner: NodeId = ALICE
    now: Instant = NOW
    rows: dict[str, bytes] = field(default_factory=dict)
    results: dict[str, bytes] = field(default_factory=dict)
    tasks: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, bytes] = field(default_factory=dict)
    ended: list[tuple[bool, str, bytes]] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)
    calls: int = 0
    last_ticket: object = None

    def __post_init__(self) -> None:
        self.machine = scheduler(1)
        self.record = job(self.owner)
        if self.owner == ME:
            from fixtures import submitted

            self.do(submitted(self.record))
        self.take(hear(self.machine, self.owner, grant(self.record, 0), self.now))
        self.do(JobLearned(job=JOB, record=self.record))
        self.do(AttemptRunning(job=JOB, attempt=ATTEMPT))

    def do(self, event: SchedulerEvent) -> list[SchedulerEffect]:
        return self.take(self.machine.handle(event, self.now))

    def take(self, effects: list[SchedulerEffect]) -> list[SchedulerEffect]:
        tables = {
            Table.GRANTS: self.rows,
            Table.RESULTS: self.results,
            Table.TASKS: self.tasks,
            Table.JOBS: self.jobs,
        }
        for effect in effects:
            if isinstance(effect, Persist):
                self.last_ticket = effect.ticket
                for change in effect.changes:
                    if isinstance(change, Put):
                        tables[change.table][change.key] = change.value
                    elif isinstance(change, Delete):
                        tables[change.table].pop(change.key, None)
            elif isinstance(effect, EndWebhook):
                self.ended.append((effect.succeeded, effect.error, effect.result))
            elif isinstance(effect, CallWebhook):
                self.calls = effect.number
        return effects

    def ready(self, name: str = "token-0", *, may_call_back: bool = True) -> list[SchedulerEffect]:
        return self.do(
            WebhookReady(
                job=JOB,
                attempt=ATTEMPT,
                token=token(name),
                timeout_s=self.timeout_s,
                may_call_back=may_call_back,
            )
        )

    def answer(
        self,
        status: int | None,
        *,
        number: int | None = None,
        error: str = "",
        retry_after_s: float | None = None,
        body: bytes = b"",
    ) -> list[SchedulerEffect]:
        return self.do(
            WebhookAnswered(
                job=JOB,
                attempt=ATTEMPT,
                number=self.calls if number is None else number,
                status=status,
                error=error,
                retry_after_s=retry_after_s,
                body=body,
            )
        )

    def call_back(
        self, name: str = "token-0", *, succeeded: bool = True, result: bytes = RESULT, error: str = ""
    ) -> list[SchedulerEffect]:
        return self.do(
            CallbackReceived(asked=1, token=token(name), succeeded=succeeded, result=result, error=error)
        )

    def finish(self) -> Offer:
        """What the runtime does with ``EndWebhook``."""
        succeeded, error, _ = self.ended[-1]
        offer = Offer(
            job=JOB,
            attempt=ATTEMPT,
            succeeded=succeeded,
            exit_code=None,
            error=error,
            started_us=1,
            finished_us=2,
            stdout=NOTHING,
            stderr=NOTHING,
            manifest=NOTHING,
            outputs=0,
        )
        for effect in self.do(AttemptFinished(offer=offer)):
            message = getattr(effect, "message", None)
            if isinstance(message, Offer):
                self.offers.append(message)
                if self.owner == ME:
                    self.take(hear(self.machine, ME, message, self.now))
        return offer

    def refuse_to_call(self) -> None:
        """What the runtime does where this node's rules forbid the call by now."""
        refused = result(0, node=None, succeeded=False)
        self.do(AttemptFinished(offer=refused))

    def acknowledge(self) -> None:
        ack = Ack(job=JOB, generation=1, epoch=Epoch(1, self.owner), attempt=ATTEMPT)
        self.take(hear(self.machine, self.owner, ack, self.now))

    def stop(self) -> list[SchedulerEffect]:
        message = Stop(job=JOB, generation=1, epoch=Epoch(1, self.owner), attempts=(ATTEMPT,), reason="x")
        return self.take(hear(self.machine, self.owner, message, self.now))

    def pass_time(self, seconds: float) -> list[SchedulerEffect]:
        """Returns the calls that came of it."""
        self.now = Instant(self.now.mono_s + seconds, self.now.unix_s + seconds)
        return [one for one in self.do(Tick()) if isinstance(one, CallWebhook)]

    def machine_ticket(self) -> object:
        return self.machine.webhooks._by_token[token("token-0")].ticket

    def restart(self, *, slots: int = 1, own: bool = False) -> list[SchedulerEffect]:
        """A new agent takes up the journal; returns what it wants done at once."""
        self.machine: Scheduler = scheduler(slots)
        owned = [
            (self.record, Digest(b"d" * 32), cbor.decode(row, JobRow, bytes_max=10**6))
            for row in self.jobs.values()
            if own
        ]
        results = [cbor.decode(row, ResultRow, bytes_max=10**6) for row in self.results.values()]
        effects = self.machine.restore(owned, {}, results, self.now, list(self.rows.items()))
        return self.take(effects)

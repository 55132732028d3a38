"""What the end of a job is told to: when, how often, and what a restart knows of it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec
import pytest
from fixtures import ALICE, JOB, NOW, capacity, hear, later, record, result, scheduler, spec, submitted

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Note, Persist, Put, Table, Tick
from meshpeer.core.ids import Digest
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import CancelAsked, SchedulerEffect
from meshpeer.core.scheduler.outbox import GIVE_UP_S
from meshpeer.core.scheduler.rows import JobRow, TaskRow
from meshpeer.core.scheduler.webhook_messages import Delivered, DeliverMessage
from meshpeer.core.wire import cbor

URL, OTHER = "http://127.0.0.1:9000/ended", "http://127.0.0.1:9000/failed"


def test_end_is_told_once_it_is_on_disk() -> None:
    it = Bench()
    effects = it.end()
    (message,) = messages(effects)
    persists = [one for one in effects if isinstance(one, Persist)]
    assert message.after == persists[-1].ticket
    assert (message.event, message.url, message.number) == ("on_complete", URL, 1)
    said = json.loads(message.body)
    assert said["type"] == "job.completed"
    assert said["timestamp"] == said["data"]["finished_at"] == "2027-01-15T08:00:00.000000Z"
    assert (said["data"]["id"], said["data"]["state"]) == (JOB, "succeeded")
    assert said["data"]["tasks"]["succeeded"] == 1


def test_failure_is_told_to_both() -> None:
    it = Bench()
    told = messages(it.end(succeeded=False))
    assert [(one.event, one.url) for one in told] == [("on_complete", URL), ("on_failure", OTHER)]
    assert json.loads(told[1].body)["type"] == "job.failed"


def test_cancelled_job_has_ended_and_not_failed() -> None:
    it = Bench()
    told = messages(it.do(it.machine.handle(CancelAsked(job=JOB), NOW)))
    assert [one.event for one in told] == ["on_complete"]
    assert json.loads(told[0].body)["data"]["state"] == "cancelled"


def test_job_that_names_nobody_tells_nobody() -> None:
    it = Bench(on_complete="", on_failure="")
    assert messages(it.end(succeeded=False)) == []
    assert it.machine.outbox.next_deadline() is None


def test_2xx_ends_it() -> None:
    it = Bench()
    it.end()
    it.delivered(204)
    assert it.states() == {"on_complete": ("delivered", "")}
    assert it.machine.outbox.next_deadline() is None


@pytest.mark.parametrize("status", [None, 408, 425, 429, 500, 503])
def test_what_may_pass_is_sent_again_the_same(status: int | None) -> None:
    it = Bench()
    (first,) = messages(it.end())
    it.delivered(status, error="no connection" if status is None else "")
    assert it.states()["on_complete"][0] == "waiting"
    (again,) = messages(it.tick(later(1)))
    assert again == DeliverMessage(
        job=JOB, event="on_complete", number=2, url=URL, body=first.body, after=None
    )


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410])
def test_final_answers_give_it_up_and_say_so(status: int) -> None:
    it = Bench()
    it.end()
    effects = it.delivered(status)
    assert it.states() == {"on_complete": ("given_up", f"it answered {status}")}
    (note,) = [one for one in effects if isinstance(one, Note)]
    assert (note.level, dict(note.fields)["reason"]) == ("warning", f"it answered {status}")


def test_address_that_the_nodes_rules_forbid_is_given_up_at_once() -> None:
    it = Bench()
    it.end()
    it.delivered(None, error="this node lets no job call http://10.0.0.1:80", forbidden=True)
    assert it.states()["on_complete"] == ("given_up", "this node lets no job call http://10.0.0.1:80")


def test_pauses_grow_to_a_bound_and_retry_after_is_honoured() -> None:
    it = Bench()
    it.end()
    pauses = []
    for _ in range(10):
        it.delivered(503)
        deadline = it.machine.outbox.next_deadline()
        assert deadline
        pauses.append(deadline.at_s - it.now.mono_s)
        it.tick(Instant(deadline.at_s, it.now.unix_s))
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    it.delivered(503, retry_after_s=1_000)
    deadline = it.machine.outbox.next_deadline()
    assert deadline
    assert deadline.at_s == it.now.mono_s + 1_000


def test_a_day_is_enough() -> None:
    it = Bench()
    it.end()
    it.now = later(GIVE_UP_S)
    it.delivered(None, error="no connection")
    assert it.states()["on_complete"] == ("given_up", "no connection")


def test_answer_to_an_earlier_sending_is_of_no_use() -> None:
    it = Bench()
    it.end()
    it.delivered(503)
    it.tick(later(1))
    it.delivered(200, number=1)
    assert it.states()["on_complete"][0] == "waiting"


def test_what_waits_is_sent_after_a_restart_and_what_ended_is_not() -> None:
    it = Bench()
    it.end(succeeded=False)
    it.delivered(200, event="on_failure")
    assert messages(it.restart()) == []
    (again,) = messages(it.tick(later(2)))
    assert (again.event, again.number, bool(again.body)) == ("on_complete", 1, True)
    assert it.states()["on_failure"] == ("delivered", "")


def test_end_whose_message_was_lost_with_the_machine_is_told_at_the_next_start() -> None:
    it = Bench()
    it.end()
    it.rows[Table.GRANTS].clear()
    (message,) = messages(it.restart())
    assert (message.event, json.loads(message.body)["data"]["state"]) == ("on_complete", "succeeded")


# --- helpers ------------------------------------------------------------------------------------------------


def messages(effects: Iterable[SchedulerEffect]) -> list[DeliverMessage]:
    return [one for one in effects if isinstance(one, DeliverMessage)]


class Bench:
    """An owner of one job of one task, and its journal."""

    def __init__(self, on_complete: str = URL, on_failure: str = OTHER) -> None:
        self.now = NOW
        self.rows: dict[Table, dict[str, bytes]] = {table: {} for table in Table}
        self.machine: Scheduler = scheduler(0)
        told = msgspec.structs.replace(spec(1), on_complete=on_complete, on_failure=on_failure)
        self.record: JobRecord = record(told)
        self.do(hear(self.machine, ALICE, capacity(1)))
        self.do(self.machine.handle(submitted(self.record), NOW))

    def do(self, effects: list[SchedulerEffect]) -> list[SchedulerEffect]:
        for effect in effects:
            for change in effect.changes if isinstance(effect, Persist) else ():
                if isinstance(change, Put):
                    self.rows[change.table][change.key] = change.value
        return effects

    def end(self, *, succeeded: bool = True) -> list[SchedulerEffect]:
        offer = result(0, succeeded=succeeded, node=ALICE)
        return self.do(hear(self.machine, ALICE, offer, self.now))

    def delivered(
        self,
        status: int | None,
        *,
        number: int | None = None,
        event: str = "on_complete",
        error: str = "",
        forbidden: bool = False,
        retry_after_s: float | None = None,
    ) -> list[SchedulerEffect]:
        waiting = self.machine.outbox._waiting[JOB, event]
        return self.do(
            self.machine.handle(
                Delivered(
                    job=JOB,
                    event=event,
                    number=waiting.number if number is None else number,
                    status=status,
                    error=error,
                    forbidden=forbidden,
                    retry_after_s=retry_after_s,
                ),
                self.now,
            )
        )

    def tick(self, now: Instant) -> list[SchedulerEffect]:
        self.now = now
        return self.do(self.machine.handle(Tick(), now))

    def states(self) -> dict[str, tuple[str, str]]:
        return {one.event: (one.state, one.trouble) for one in self.machine.outbox.of(JOB)}

    def restart(self) -> list[SchedulerEffect]:
        self.machine = scheduler(0)
        jobs = [
            (self.record, Digest(b"d" * 32), cbor.decode(row, JobRow, bytes_max=10**6))
            for row in self.rows[Table.JOBS].values()
        ]
        tasks = {
            JOB: {
                int(key.partition("/")[2]): cbor.decode(row, TaskRow, bytes_max=10**6)
                for key, row in self.rows[Table.TASKS].items()
            }
        }
        grants = list(self.rows[Table.GRANTS].items())
        return self.do(self.machine.restore(jobs, tasks, (), self.now, grants))

"""What the ends of owned jobs are told to: ``on_complete`` and ``on_failure``, from an outbox in the journal.

A message is made when its job has ended, for a job with replicas when a quorum has the end, and sent once it
is on disk, again and again with growing pauses until somebody answers 2xx; not at all where the answer is
final, or this node's rules forbid the address, and no longer than ``GIVE_UP_S``. Every sending has the same
body and ``webhook-id``, so that a reader can tell that it has it. The row stays with its job and says how it
went. A journal that has the job's end and no row (the machine died between) gets the row at the next start: a
message may come twice, and is never forgotten. Of a job with replicas its own row says until then that the
end is untold: another replica takes it over, and tells it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Note, Persist, TicketCounter
from meshpeer.core.ids import JobId
from meshpeer.core.jobs.callbacks import one_line
from meshpeer.core.scheduler.messages import JobChanged, SchedulerEffect
from meshpeer.core.scheduler.offers import Dice
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.rows import OutboxRow, outbox_key, put_outbox
from meshpeer.core.scheduler.views import job_state, task_counts
from meshpeer.core.scheduler.webhook_messages import Delivered, DeliverMessage
from meshpeer.core.scheduler.webhooks import RETRY_AFTER_MAX_S, may_pass

SEND_FIRST_S, SEND_MAX_S = 1.0, 300.0
GIVE_UP_S = 24 * 3_600.0
_Key = tuple[JobId, str]


class DeliveryState(StrEnum):
    """How far a message is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(slots=True)
class _Message:
    row: OutboxRow
    number: int = 0
    """Sendings in this run of the agent."""
    send_at_s: float | None = None
    """When the next is due; None while one is under way."""


class Outbox:
    """The messages of one owner's jobs. Sans-IO; ``machine.Scheduler`` calls it."""

    def __init__(self, *, tickets: TicketCounter, dice: Dice) -> None:
        self._tickets = tickets
        self._dice = dice
        self._rows: dict[JobId, dict[str, OutboxRow]] = {}
        self._waiting: dict[_Key, _Message] = {}
        self._ended: list[JobOwner] = []
        self._told: list[JobId] = []

    @property
    def has_news(self) -> bool:
        """Whether jobs ended whose messages are to be made."""
        return bool(self._ended)

    def of(self, job: JobId) -> tuple[OutboxRow, ...]:
        """Returns how the messages of a job went, by event."""
        return tuple(self._rows.get(job, {}).values())

    # --- start --------------------------------------------------------------------------------------------

    def restore(self, rows: Iterable[OutboxRow], now: Instant) -> None:
        """Takes up what the journal held; what waits is sent anew."""
        for row in rows:
            self._rows.setdefault(row.job, {})[row.event] = row
            if row.state == DeliveryState.WAITING:
                self._waiting[row.job, row.event] = _Message(row, send_at_s=now.mono_s + SEND_FIRST_S)

    # --- events -------------------------------------------------------------------------------------------

    def note_end(self, owner: JobOwner) -> None:
        """Remembers that a job ended; ``take_news`` makes its messages."""
        if owner.untold:
            self._ended.append(owner)

    def is_waiting(self, job: JobId) -> bool:
        """Says whether a job's end is still to be told."""
        return any(one.job == job for one in self._ended) or self._is_sending(job)

    def forget(self, job: JobId) -> list[str]:
        """Forgets a job whose end was told; returns the keys of its rows."""
        return [outbox_key(job, event) for event in self._rows.pop(job, ())]

    def take_told(self) -> list[JobId]:
        """Returns the jobs of which nobody waits for word any more, since this was asked last."""
        told, self._told = self._told, []
        return [job for job in dict.fromkeys(told) if not self._is_sending(job)]

    def take_news(
        self,
        now: Instant,
        *,
        owns: Callable[[JobOwner], bool] = lambda owner: True,
        is_chosen: Callable[[JobId], bool] = lambda job: True,
    ) -> list[SchedulerEffect]:
        """Writes the messages of jobs that ended, and sends each once it is on disk.

        One whose end no quorum has waits: another owner may end the job otherwise. That one tells of it, so
        the news of an owner that gave way is dropped, as is that of a job which was opened again.
        """
        effects: list[SchedulerEffect] = []
        ended, self._ended = self._ended, []
        for owner in ended:
            if not owner.finished or not owns(owner):
                continue
            if not is_chosen(owner.job):
                self._ended.append(owner)
                continue
            spec, state = owner.record.spec, job_state(owner)
            wanted = [("on_complete", spec.on_complete)]
            wanted += [("on_failure", spec.on_failure)] if state == "failed" else []
            for event, url in wanted:
                if not url or event in self._rows.get(owner.job, {}):
                    continue
                body = _body(owner, event, state)
                row = OutboxRow(job=owner.job, event=event, url=url, body=body, made_us=int(now.unix_s * 1e6))
                message = self._waiting[owner.job, event] = _Message(row)
                self._rows.setdefault(owner.job, {})[event] = row
                persist = Persist(ticket=self._tickets.take(), changes=(put_outbox(row),))
                effects += [persist, self._send(message, persist)]
            self._told.append(owner.job)
        return effects

    def on_delivered(self, event: Delivered, now: Instant) -> list[SchedulerEffect]:
        """Takes what came of the latest sending."""
        message = self._waiting.get((event.job, event.event))
        if message is None or event.number != message.number:
            return []
        status = event.status
        if status is not None and 200 <= status <= 299:
            return self._end(message, DeliveryState.DELIVERED, "")
        trouble = one_line(event.error) if status is None else f"it answered {status}"
        late = now.unix_s - message.row.made_us / 1e6 >= GIVE_UP_S
        if event.forbidden or late or (status is not None and not may_pass(status)):
            return self._end(message, DeliveryState.GIVEN_UP, trouble)
        pause_s = min(SEND_MAX_S, SEND_FIRST_S * 2.0 ** min(message.number - 1, 16))
        pause_s *= 0.75 + 0.5 * self._dice.random()
        if event.retry_after_s is not None:
            pause_s = max(pause_s, min(event.retry_after_s, RETRY_AFTER_MAX_S))
        message.send_at_s = now.mono_s + pause_s
        # Told, and not written: what a restart forgets it finds out again.
        self._tell(message, msgspec.structs.replace(message.row, trouble=trouble))
        return [JobChanged(job=event.job)]

    # --- time ---------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> list[SchedulerEffect]:
        due = [
            one for one in self._waiting.values() if one.send_at_s is not None and now.mono_s >= one.send_at_s
        ]
        return [self._send(one, None) for one in due]

    def next_deadline(self) -> Deadline | None:
        if not self._waiting:
            return None
        times = (one.send_at_s for one in self._waiting.values())
        return earliest(*(Deadline(at_s, "tell a job's end again") for at_s in times if at_s is not None))

    # --- rules --------------------------------------------------------------------------------------------

    def _send(self, message: _Message, persist: Persist | None) -> DeliverMessage:
        message.number += 1
        message.send_at_s = None
        row = message.row
        return DeliverMessage(
            job=row.job,
            event=row.event,
            number=message.number,
            url=row.url,
            body=row.body,
            after=persist.ticket if persist is not None else None,
        )

    def _end(self, message: _Message, state: DeliveryState, trouble: str) -> list[SchedulerEffect]:
        self._tell(
            message, msgspec.structs.replace(message.row, state=state.value, trouble=trouble, body=b"")
        )
        row = message.row
        del self._waiting[row.job, row.event]
        self._told.append(row.job)
        effects: list[SchedulerEffect] = [
            Persist(ticket=self._tickets.take(), changes=(put_outbox(row),)),
            JobChanged(job=row.job),
        ]
        if state is DeliveryState.GIVEN_UP:
            fields = (("job", row.job), ("event", row.event), ("reason", trouble))
            effects.append(Note(level="warning", fact="a job's webhook is given up", fields=fields))
        return effects

    def _is_sending(self, job: JobId) -> bool:
        return any((job, event) in self._waiting for event in self._rows.get(job, ()))

    def _tell(self, message: _Message, row: OutboxRow) -> None:
        message.row = row
        self._rows[row.job][row.event] = row


def _body(owner: JobOwner, event: str, state: str) -> bytes:
    """Returns a message in the form that Standard Webhooks recommends: type, timestamp, data."""
    ended = _time_text(owner.finished_at_us)
    document = {
        "type": "job.failed" if event == "on_failure" else "job.completed",
        "timestamp": ended,
        "data": {
            "id": owner.job,
            "name": owner.record.spec.name,
            "state": state,
            "tasks": task_counts(owner),
            "submitted_at": _time_text(owner.record.submitted_at_us),
            "finished_at": ended,
        },
    }
    return json.dumps(document, ensure_ascii=False).encode("utf-8")


def _time_text(unix_us: int) -> str:
    try:
        moment = datetime.fromtimestamp(unix_us / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

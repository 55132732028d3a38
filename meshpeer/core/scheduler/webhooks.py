"""Attempts whose work a service does: called until it takes the work, then waited for until it calls back.

    DISPATCHED -> ACCEPTED -> ANSWERED -> SETTLED            (``tables.WEBHOOK_MOVES``)

For the rest of the worker such an attempt is one that runs. What is beside that is here: which token stands
for which attempt, when a call is made again, and how long the whole may last. A token authorises, so the
journal knows it by its SHA-256 alone.

The journal has a row before the first call. A restart of the agent therefore ends no such attempt: one that
the service has taken is waited for, one that may not have reached it is called again, with the same
``webhook-id`` and ``Idempotency-Key`` and a token of its own, and the tokens of before stay good. A result is
in the row before the call-back is answered, and the row stays, without the result, for a day, so that a
call-back that comes twice is told the same twice.

A call-back may come before the answer to the call; it counts, and the answer does not any more. What comes
after the attempt was ended here (its time was up, its owner stopped it) is as unknown as a guess.

Once a call failed in a way that may pass (no connection, 408, 425, 429, 5xx; RFC 9110 section 15) it is made
again with growing pauses, no sooner than Retry-After says. Other answers are final.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Change, Persist, TicketCounter
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import Digest, JobId, Ticket
from meshpeer.core.jobs.callbacks import RESULT_BYTES_MAX, one_line
from meshpeer.core.jobs.endings import timed_out_error
from meshpeer.core.scheduler.messages import Attempt, SchedulerEffect, StopAttempt
from meshpeer.core.scheduler.offers import Dice, Key
from meshpeer.core.scheduler.rows import WebhookRow, delete_webhook, put_webhook
from meshpeer.core.scheduler.tables import WebhookState, check_webhook_move
from meshpeer.core.scheduler.webhook_messages import (
    AnswerCallback,
    CallbackReceived,
    CallWebhook,
    EndWebhook,
    ResumeWebhook,
    WebhookAnswered,
    WebhookReady,
)
from meshpeer.core.scheduler.worker import JobWorker

CALL_FIRST_S, CALL_MAX_S = 0.5, 30.0
"""The pause after a call that failed, which doubles."""
RETRY_AFTER_MAX_S = 3_600.0
"""A longer Retry-After counts as this."""
CALLS_FOR_S = 3_600.0
"""How long a service that never takes the work is called, where the attempt has no time-out."""
TOKENS_MAX = 16
"""Tokens of one attempt: one for each start of the agent under which it was being sent."""
SWEEP_S = 30.0
"""How often attempts that ended are looked at: is their result acknowledged?"""
KEEP_S = 24 * 3_600.0
"""How long a call-back that comes again is known."""
SETTLED_MAX = 10_000
"""How many of these are known; the oldest are forgotten first."""
_PASSING = frozenset({408, 425, 429})
_OPEN = (WebhookState.DISPATCHED, WebhookState.ACCEPTED)


@dataclass(slots=True)
class _Call:
    """One attempt, and what of it the journal need not know."""

    row: WebhookRow
    state: WebhookState
    ends_at_s: float | None = None
    number: int = 0
    """Calls so far, in this run of the agent; 0 until the request is made."""
    call_at_s: float | None = None
    """When the next call is due; None while one is under way."""
    may_call_back: bool = True
    trouble: str = ""
    """How the last call failed."""
    ticket: Ticket | None = None
    """The write of the result."""

    @property
    def key(self) -> Key:
        return (self.row.job, self.row.granted.attempt)

    def move(self, after: WebhookState) -> None:
        check_webhook_move(f"{self.row.job} {self.row.granted.attempt}", self.state, after)
        self.state = after


class Webhooks:
    """All such attempts of one node. Sans-IO; ``machine.Scheduler`` calls it."""

    def __init__(self, *, worker: JobWorker, tickets: TicketCounter, dice: Dice) -> None:
        self._worker = worker
        self._tickets = tickets
        self._dice = dice
        self._open: dict[Key, _Call] = {}
        self._answered: dict[Key, _Call] = {}
        self._settled: dict[Key, _Call] = {}
        """Oldest first."""
        self._by_token: dict[Digest, _Call] = {}
        self._sweep_at_s: float | None = None

    def __bool__(self) -> bool:
        return bool(self._open or self._answered)

    @property
    def waiting(self) -> int:
        """Attempts that a service was called for and has not ended."""
        return len(self._open)

    @property
    def taken(self) -> int:
        """Attempts that a service has said that it has."""
        return sum(1 for one in self._open.values() if one.state is WebhookState.ACCEPTED)

    # --- start --------------------------------------------------------------------------------------------

    def restore(self, rows: Iterable[WebhookRow], now: Instant) -> list[SchedulerEffect]:
        """Takes up what the journal held; what this node can't run any more is let go, and its owner learns
        so from what the worker names."""
        effects: list[SchedulerEffect] = []
        for row in sorted(rows, key=lambda one: one.settled_us):
            call = _Call(row, WebhookState(row.state), ends_at_s=_ends_at_s(row, now))
            if call.state is WebhookState.SETTLED:
                self._file(call, self._settled)
                continue
            answered = call.state is WebhookState.ANSWERED
            if answered and self._worker.has(*call.key):
                self._file(call, self._answered)
                continue
            # A result that no answer brought about is the worker's own: the service has no part in it.
            if self._worker.has(*call.key) or not self._worker.restore_running(row, now):
                effects.append(self._persist(delete_webhook(row)))
                continue
            self._file(call, self._answered if answered else self._open)
            if answered:
                effects.append(self._end(call))
            elif call.state is WebhookState.DISPATCHED:
                effects.append(
                    ResumeWebhook(job=row.job, record=row.record, owner=row.owner, granted=row.granted)
                )
        self._sweep_at_s = now.mono_s + SWEEP_S if self or self._settled else None
        return effects

    # --- events -------------------------------------------------------------------------------------------

    def on_ready(self, event: WebhookReady, now: Instant) -> list[SchedulerEffect]:
        """Writes the attempt and its token down; calls once that is on disk."""
        key = (event.job, event.attempt)
        call = self._open.get(key)
        if call is None:
            if key in self._answered:
                return []
            row = self._worker.describe(event.job, event.attempt, now)
            if row is None:
                return []
            if event.timeout_s:
                row = msgspec.structs.replace(row, ends_us=int((now.unix_s + event.timeout_s) * 1e6))
            call = _Call(row, WebhookState.DISPATCHED, ends_at_s=_ends_at_s(row, now))
        elif call.state is not WebhookState.DISPATCHED:
            return []
        tokens = (*call.row.tokens, event.token)
        for old in tokens[:-TOKENS_MAX]:
            self._by_token.pop(old, None)
        call.row = msgspec.structs.replace(call.row, tokens=tokens[-TOKENS_MAX:])
        call.may_call_back = event.may_call_back
        self._file(call, self._open)
        persist = self._persist(put_webhook(call.row))
        return [persist, self._call(call, persist.ticket)]

    def on_answered(self, event: WebhookAnswered, now: Instant) -> list[SchedulerEffect]:
        """Takes the answer to the latest call; any other is of no use any more."""
        call = self._open.get((event.job, event.attempt))
        if call is None or call.state is not WebhookState.DISPATCHED or event.number != call.number:
            return []
        status = event.status
        if status is None or may_pass(status):
            return self._call_later(call, event, now)
        if status == 202:
            if not call.may_call_back:
                return self._fail(
                    call, "the service answered 202, and this node has no port for its call-back", now
                )
            call.move(WebhookState.ACCEPTED)
            call.row = msgspec.structs.replace(call.row, state=call.state.value)
            return [self._persist(put_webhook(call.row))]
        if 200 <= status <= 299:
            if event.error or len(event.body) > RESULT_BYTES_MAX:
                return self._fail(call, event.error or "the service's answer is too large", now)
            return self._answer(call, now, succeeded=True, error="", result=event.body)
        return self._fail(call, _refusal(event), now)

    def on_callback(self, event: CallbackReceived, now: Instant) -> list[SchedulerEffect]:
        """Takes the result, and answers once it is on disk; answers the same to one that comes again."""
        call = self._by_token.get(event.token)
        if call is None:
            return [AnswerCallback(asked=event.asked, known=False, after=None)]
        effects: list[SchedulerEffect] = []
        if call.state in _OPEN:
            error = "" if event.succeeded else event.error or "the service says that it failed"
            effects = self._answer(call, now, succeeded=event.succeeded, error=error, result=event.result)
        return [*effects, AnswerCallback(asked=event.asked, known=True, after=call.ticket)]

    def follow(self, effects: Iterable[SchedulerEffect], now: Instant) -> list[SchedulerEffect]:
        """Lets go of the attempts that the worker was told to stop."""
        stopped = [(one.job, one.attempt) for one in effects if isinstance(one, StopAttempt)]
        done: list[SchedulerEffect] = []
        for key in stopped:
            if key in self._open:
                done.append(self._drop(self._open[key]))
            elif key in self._answered:
                done.append(self._settle(self._answered[key], now))
        return done

    def on_ended(self, job: JobId, attempt: Attempt) -> list[SchedulerEffect]:
        """Lets go of an attempt that ended without an answer: its request could not be made."""
        call = self._open.get((job, attempt))
        return [self._drop(call)] if call is not None else []

    # --- time ---------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> list[SchedulerEffect]:
        effects: list[SchedulerEffect] = []
        for call in list(self._open.values()):
            if call.ends_at_s is not None and now.mono_s >= call.ends_at_s:
                limit_s = (call.row.ends_us - call.row.started_us) / 1e6
                trouble = f": {call.trouble}" if call.trouble else ""
                effects += self._fail(call, timed_out_error(round(limit_s, 3)) + trouble, now)
            elif call.call_at_s is not None and now.mono_s >= call.call_at_s:
                effects.append(self._call(call, None))
        if self._sweep_at_s is not None and now.mono_s >= self._sweep_at_s:
            effects += self._sweep(now)
        return effects

    def next_deadline(self) -> Deadline | None:
        first = earliest(*(self._deadline(one) for one in self._open.values())) if self._open else None
        if self._sweep_at_s is None:
            return first
        return earliest(first, Deadline(self._sweep_at_s, "look at webhooks that ended"))

    @staticmethod
    def _deadline(call: _Call) -> Deadline | None:
        return earliest(
            Deadline(call.ends_at_s, "a webhook's time is up") if call.ends_at_s is not None else None,
            Deadline(call.call_at_s, "call a service again") if call.call_at_s is not None else None,
        )

    def _sweep(self, now: Instant) -> list[SchedulerEffect]:
        """Settles what is acknowledged, lets go of what the worker has not any more, forgets what is old."""
        gone = [one for one in self._open.values() if not self._worker.has(*one.key)]
        done = [one for one in self._answered.values() if not self._worker.has(*one.key)]
        effects: list[SchedulerEffect] = [self._drop(one) for one in gone]
        effects += [self._settle(one, now) for one in done]
        spare = len(self._settled) - SETTLED_MAX
        old = [
            call
            for place, call in enumerate(self._settled.values())
            if place < spare or call.row.settled_us / 1e6 <= now.unix_s - KEEP_S
        ]
        effects += [self._drop(call) for call in old]
        pause_s = SWEEP_S if self._answered or self._open else KEEP_S / 24
        self._sweep_at_s = now.mono_s + pause_s if self or self._settled else None
        return effects

    # --- rules --------------------------------------------------------------------------------------------

    def _call(self, call: _Call, after: Ticket | None) -> CallWebhook:
        call.number += 1
        call.call_at_s = None
        return CallWebhook(
            job=call.row.job, attempt=call.row.granted.attempt, number=call.number, after=after
        )

    def _call_later(self, call: _Call, event: WebhookAnswered, now: Instant) -> list[SchedulerEffect]:
        call.trouble = one_line(event.error) if event.status is None else _refusal(event)
        if call.ends_at_s is None and now.unix_s - call.row.started_us / 1e6 >= CALLS_FOR_S:
            return self._fail(call, f"given up after {CALLS_FOR_S / 60:g} min: {call.trouble}", now)
        pause_s = min(CALL_MAX_S, CALL_FIRST_S * 2.0 ** min(call.number - 1, 10))
        pause_s *= 0.75 + 0.5 * self._dice.random()
        if event.retry_after_s is not None:
            pause_s = max(pause_s, min(event.retry_after_s, RETRY_AFTER_MAX_S))
        call.call_at_s = now.mono_s + pause_s
        return []

    def _fail(self, call: _Call, error: str, now: Instant) -> list[SchedulerEffect]:
        """Ends an attempt by this node's own judgement: nobody is owed an answer for it any more."""
        for token in call.row.tokens:
            self._by_token.pop(token, None)
        call.row = msgspec.structs.replace(call.row, tokens=())
        return self._answer(call, now, succeeded=False, error=error, result=b"")

    def _answer(
        self, call: _Call, now: Instant, *, succeeded: bool, error: str, result: bytes
    ) -> list[SchedulerEffect]:
        call.move(WebhookState.ANSWERED)
        call.row = msgspec.structs.replace(
            call.row, state=call.state.value, succeeded=succeeded, error=error, result=result
        )
        persist = self._persist(put_webhook(call.row))
        call.ticket = persist.ticket
        self._file(call, self._answered)
        if self._sweep_at_s is None or self._sweep_at_s > now.mono_s + SWEEP_S:
            self._sweep_at_s = now.mono_s + SWEEP_S
        return [persist, self._end(call)]

    def _end(self, call: _Call) -> EndWebhook:
        row = call.row
        return EndWebhook(
            job=row.job,
            attempt=row.granted.attempt,
            succeeded=row.succeeded,
            error=row.error,
            result=row.result,
            started_us=row.started_us,
        )

    def _settle(self, call: _Call, now: Instant) -> Persist:
        """Keeps the tokens of an attempt and nothing else; one without any is forgotten."""
        if not call.row.tokens:
            return self._drop(call)
        call.move(WebhookState.SETTLED)
        call.row = msgspec.structs.replace(
            call.row, state=call.state.value, result=b"", settled_us=int(now.unix_s * 1e6)
        )
        self._file(call, self._settled)
        return self._persist(put_webhook(call.row))

    def _drop(self, call: _Call) -> Persist:
        for token in call.row.tokens:
            self._by_token.pop(token, None)
        for table in (self._open, self._answered, self._settled):
            table.pop(call.key, None)
        return self._persist(delete_webhook(call.row))

    def _file(self, call: _Call, where: dict[Key, _Call]) -> None:
        for table in (self._open, self._answered, self._settled):
            if table is not where:
                table.pop(call.key, None)
        where[call.key] = call
        for token in call.row.tokens:
            self._by_token[token] = call

    def _persist(self, change: Change) -> Persist:
        return Persist(ticket=self._tickets.take(), changes=(change,))

    def check(self) -> None:
        """Raises ``InvariantBroken`` where tables disagree."""
        for name, table, states in (
            ("open", self._open, _OPEN),
            ("answered", self._answered, (WebhookState.ANSWERED,)),
            ("settled", self._settled, (WebhookState.SETTLED,)),
        ):
            for key, call in table.items():
                if call.key != key or call.state not in states or call.row.state != call.state.value:
                    raise InvariantBroken(f"{key} is filed as {name}, and is {call.state}")
                if any(self._by_token.get(token) is not call for token in call.row.tokens):
                    raise InvariantBroken(f"{key} has a token that leads elsewhere")
        filed = {*self._open, *self._answered, *self._settled}
        if any(call.key not in filed for call in self._by_token.values()):
            raise InvariantBroken("a token leads to what is not filed")


def may_pass(status: int) -> bool:
    """Says whether an answer means that the same call may succeed later."""
    return status in _PASSING or 500 <= status <= 599


def _ends_at_s(row: WebhookRow, now: Instant) -> float | None:
    """Returns when a row's time is up by the clock that does not jump; it may have passed."""
    return now.mono_s + (row.ends_us / 1e6 - now.unix_s) if row.ends_us else None


def _refusal(event: WebhookAnswered) -> str:
    said = one_line(event.body[:2_048].decode("utf-8", "replace"))
    return f"the service answered {event.status}" + (f": {said}"[:200] if said else "")

"""Performs what the scheduler wants done about services: make a request, send it, keep its result, take
call-backs.

The token of a call-back is made here and leaves for the service alone; the scheduler and its journal know it
by its digest. Who calls back is looked at here (``webhook_signatures``), whether anybody waits for it is the
scheduler's word, and the answer waits for the journal.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from meshpeer import __version__
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError
from meshpeer.core.ids import Digest, JobId, NodeId, TaskIndex
from meshpeer.core.jobs.callbacks import RESULT_BYTES_MAX, read_callback
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.expand import idempotency_key
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.jobs.rules import Fault
from meshpeer.core.jobs.webhook import body_of
from meshpeer.core.jobs.webhook_urls import refusal
from meshpeer.core.scheduler.book import NOTHING
from meshpeer.core.scheduler.messages import (
    Attempt,
    AttemptFinished,
    AttemptRunning,
    AttemptUnstageable,
    Blob,
    Granted,
    Offer,
    StartAttempt,
    StopAttempt,
)
from meshpeer.core.scheduler.webhook_messages import (
    AnswerCallback,
    CallbackReceived,
    CallWebhook,
    EndWebhook,
    ResumeWebhook,
    WebhookAnswered,
    WebhookReady,
)
from meshpeer.core.wire.retry_after import retry_after_s
from meshpeer.core.wire.webhook_signatures import forgery, sign
from meshpeer.runtime.ports import Blobs, Clock

TOKEN_BYTES = 16
CALLBACK_PATH = "/v1/callbacks/"
_Key = tuple[JobId, Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """What a service answered; headers by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    error: str = ""
    """What is wrong with the body: too large, in an encoding that nobody asked for."""


class Caller(Protocol):
    """Sends requests to services."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, bytes_max: int) -> HttpAnswer:
        """Sends one POST and follows no redirect; raises ``EnvironmentFault`` where no answer comes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    url: str
    body: bytes
    message: str
    headers: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class WebhookRules:
    """What this node's own settings say about services."""

    allow: Sequence[str]
    keys: Callable[[], Sequence[bytes]]
    """The secrets, the newest first; none where there is no file of them. Raises ``LocalFault``."""
    own_ports: Callable[[], Collection[int]]
    callback_base: Callable[[], Awaitable[str]]
    """Where services call back, without a last slash; waits for the port, returns nothing where there is
    none."""


@dataclass(slots=True, kw_only=True)
class Webhooks:
    """Calls services for this node."""

    rules: WebhookRules
    caller: Caller
    blobs: Blobs
    clock: Clock
    entropy: Callable[[int], bytes]
    record_of: Callable[[JobId, Blob, tuple[NodeId, ...]], Awaitable[JobRecord]]
    post: Callable[[object], None]
    nursery: trio.Nursery
    tally: Counters
    keep: Callable[[JobId, Attempt, Digest], Awaitable[None]] | None = None
    """Keeps a result from going, before anybody is told of it."""
    _requests: dict[_Key, _Request] = field(default_factory=dict)
    _scopes: dict[_Key, trio.CancelScope] = field(default_factory=dict)
    """What is under way for an attempt: making its request, or sending it."""
    _asked: int = 0
    _answers: dict[int, Callable[[int], None]] = field(default_factory=dict)

    # --- effects --------------------------------------------------------------------------------------------

    def start(self, effect: StartAttempt) -> None:
        """Makes the request of an attempt."""
        self._begin(
            (effect.job, effect.granted.attempt), self._start, effect.job, effect.graph, effect.granted
        )

    def resume(self, effect: ResumeWebhook) -> None:
        """Makes it anew after a restart, from the job's record."""
        self._begin((effect.job, effect.granted.attempt), self._resume, effect)

    def call(self, effect: CallWebhook) -> None:
        self._begin((effect.job, effect.attempt), self._call, effect)

    def end(self, effect: EndWebhook) -> None:
        self._forget((effect.job, effect.attempt))
        self.nursery.start_soon(self._end, effect)

    def stop(self, effect: StopAttempt) -> None:
        self._forget((effect.job, effect.attempt))

    def answer(self, effect: AnswerCallback) -> None:
        self._tell(effect.asked, 200 if effect.known else 404)

    def give_up(self, effect: AnswerCallback) -> None:
        """The journal failed: the service shall call again."""
        self._tell(effect.asked, 503)

    # --- call-backs -----------------------------------------------------------------------------------------

    async def receive(self, token: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Takes a call-back; returns the status to answer it with, and why where that is no success."""
        status, why = await self._receive(token, headers, body)
        if status < 500:
            self.tally.add(Counter.CALLBACKS_KEPT if status == 200 else Counter.CALLBACKS_REFUSED)
        return status, why

    async def _receive(self, token: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        try:
            keys = self.rules.keys()
        except LocalFault as fault:
            return 503, fault.what
        if keys:
            forged = forgery(keys, headers, body, self.clock.now().unix_s)
            if forged:
                return 401, forged
        said = read_callback(body)
        if isinstance(said, Fault):
            return 400, said.what
        self._asked += 1
        asked, status, told = self._asked, 503, trio.Event()

        def tell(answer: int) -> None:
            nonlocal status
            status = answer
            told.set()

        self._answers[asked] = tell
        try:
            self.post(
                CallbackReceived(
                    asked=asked,
                    token=_digest(token),
                    succeeded=said.succeeded,
                    result=said.result,
                    error=said.error,
                )
            )
            await told.wait()
        finally:
            self._answers.pop(asked, None)
        return status, {404: "nobody waits for this call-back", 503: "it can't be kept now"}.get(status, "")

    def _tell(self, asked: int, status: int) -> None:
        tell = self._answers.get(asked)
        if tell is not None:
            tell(status)

    # --- tasks ----------------------------------------------------------------------------------------------

    def _begin(self, key: _Key, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        # Made here, not in the task: a stop may follow before the task's first step.
        scope = self._scopes[key] = trio.CancelScope()

        async def run() -> None:
            with scope:
                await work(*arguments)
            if self._scopes.get(key) is scope:
                del self._scopes[key]

        self.nursery.start_soon(run)

    def _forget(self, key: _Key) -> None:
        self._requests.pop(key, None)
        scope = self._scopes.pop(key, None)
        if scope is not None:
            scope.cancel()

    async def _start(self, job: JobId, graph: Graph, granted: Granted) -> None:
        self.post(AttemptRunning(job=job, attempt=granted.attempt))
        await self._prepare(job, graph, granted.attempt)

    async def _resume(self, effect: ResumeWebhook) -> None:
        attempt = effect.granted.attempt
        try:
            record = await self.record_of(effect.job, effect.record, (effect.owner,))
        except MeshpeerError as fault:
            self.post(AttemptUnstageable(job=effect.job, attempt=attempt, reason=fault.what))
            return
        await self._prepare(effect.job, Graph.of(record.spec), attempt)

    async def _prepare(self, job: JobId, graph: Graph, attempt: Attempt) -> None:
        index = TaskIndex(attempt.task)
        spec, element, task = graph.spec_of(index), graph.element_of(index), graph.id_of(index)
        assert spec.webhook is not None
        base = await self.rules.callback_base()
        token = base64.urlsafe_b64encode(self.entropy(TOKEN_BYTES)).rstrip(b"=").decode("ascii")
        try:
            refused = refusal(spec.webhook.url, self.rules.allow, self.rules.own_ports())
            if refused:
                raise LocalFault(refused, "add it to allow under [webhooks] on that node")
            self.rules.keys()
            body = body_of(spec, element, job, task, attempt.number)
        except LocalFault as fault:
            self.post(AttemptFinished(offer=self._offer(job, attempt, error=fault.what)))
            return
        headers = {
            "content-type": "application/json",
            "user-agent": f"meshpeer/{__version__}",
            "idempotency-key": idempotency_key(job, task),
        }
        if base:
            headers["meshpeer-callback"] = f"{base}{CALLBACK_PATH}{token}"
        self._requests[job, attempt] = _Request(
            url=spec.webhook.url,
            body=body,
            message=f"{job}:{attempt.task}:{attempt.round}:{attempt.number}",
            headers=headers,
        )
        self.post(
            WebhookReady(
                job=job,
                attempt=attempt,
                token=_digest(token),
                timeout_s=spec.timeout_ms / 1000,
                may_call_back=bool(base),
            )
        )

    async def _call(self, effect: CallWebhook) -> None:
        request = self._requests.get((effect.job, effect.attempt))
        if request is None:
            return
        try:
            now = self.clock.now()
            signed = sign(self.rules.keys(), request.message, int(now.unix_s), request.body)
            answer = await self.caller.post(
                request.url, {**request.headers, **signed}, request.body, bytes_max=RESULT_BYTES_MAX
            )
        except (EnvironmentFault, LocalFault) as fault:
            said = WebhookAnswered(
                job=effect.job, attempt=effect.attempt, number=effect.number, status=None, error=fault.what
            )
        else:
            wait = answer.headers.get("retry-after", "")
            said = WebhookAnswered(
                job=effect.job,
                attempt=effect.attempt,
                number=effect.number,
                status=answer.status,
                error=answer.error,
                retry_after_s=retry_after_s(wait, self.clock.now().unix_s) if wait else None,
                body=answer.body,
            )
        self.post(said)

    async def _end(self, effect: EndWebhook) -> None:
        try:
            kept = await self.blobs.add_bytes(effect.result) if effect.result else None
            if kept is not None and self.keep is not None:
                await self.keep(effect.job, effect.attempt, kept.digest)
        except EnvironmentFault as fault:
            self.post(AttemptUnstageable(job=effect.job, attempt=effect.attempt, reason=fault.what))
            return
        stdout = Blob(kept.digest, kept.size) if kept is not None else NOTHING
        error = "" if effect.succeeded else effect.error
        self.post(
            AttemptFinished(
                offer=self._offer(
                    effect.job, effect.attempt, error=error, stdout=stdout, started_us=effect.started_us
                )
            )
        )

    def _offer(
        self, job: JobId, attempt: Attempt, *, error: str, stdout: Blob = NOTHING, started_us: int = 0
    ) -> Offer:
        now_us = int(self.clock.now().unix_s * 1e6)
        return Offer(
            job=job,
            attempt=attempt,
            succeeded=not error,
            exit_code=None,
            error=error,
            started_us=started_us or now_us,
            finished_us=now_us,
            stdout=stdout,
            stderr=NOTHING,
            manifest=NOTHING,
            outputs=0,
        )


def _digest(token: str) -> Digest:
    return Digest(hashlib.sha256(token.encode("utf-8", "replace")).digest())

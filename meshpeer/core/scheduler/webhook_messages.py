"""What happens to attempts whose work a service does, and what they want done; see ``webhooks``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshpeer.core.ids import Digest, JobId, NodeId, Ticket

if TYPE_CHECKING:
    from meshpeer.core.scheduler.messages import Attempt, Blob, Granted

# --- events -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookReady:
    """The request of a started (or resumed) attempt is made, and this node lets jobs send it."""

    job: JobId
    attempt: Attempt
    token: Digest
    """SHA-256 of the token that its call-back will name."""
    timeout_s: float
    """0 for none."""
    may_call_back: bool
    """This node has an address that the service can call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAnswered:
    """A call ended, one way or another."""

    job: JobId
    attempt: Attempt
    number: int
    """Of the call, as ``CallWebhook`` said it."""
    status: int | None
    """Of HTTP; None where no answer came."""
    error: str = ""
    """Why none came, or what is wrong with it."""
    retry_after_s: float | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackReceived:
    """Somebody named a token; what else authorises them was looked at."""

    asked: int
    """Which request ``AnswerCallback`` is to answer."""
    token: Digest
    succeeded: bool
    result: bytes
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What came of sending a message of the outbox."""

    job: JobId
    event: str
    number: int
    status: int | None
    """Of HTTP; None where no answer came."""
    error: str = ""
    forbidden: bool = False
    """This node's rules let nobody call that address."""
    retry_after_s: float | None = None


WebhookEvent = WebhookReady | WebhookAnswered | CallbackReceived | Delivered

# --- effects ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWebhook:
    """Send the request, report ``WebhookAnswered``; ``EndWebhook`` or ``StopAttempt`` breaks it off."""

    job: JobId
    attempt: Attempt
    number: int
    after: Ticket | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndWebhook:
    """Break off what is left of a call; store the result, report ``AttemptFinished``."""

    job: JobId
    attempt: Attempt
    succeeded: bool
    error: str
    result: bytes
    started_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeWebhook:
    """Make the request anew of an attempt that was being sent when the agent stopped: report
    ``WebhookReady``."""

    job: JobId
    record: Blob
    owner: NodeId
    granted: Granted


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCallback:
    """Answer a call-back: 200, or 404 where nobody waits for it."""

    asked: int
    known: bool
    after: Ticket | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverMessage:
    """Send a message of the outbox, report ``Delivered``."""

    job: JobId
    event: str
    number: int
    url: str
    body: bytes
    after: Ticket | None


WebhookEffect = CallWebhook | EndWebhook | ResumeWebhook | AnswerCallback | DeliverMessage

"""Sends the messages of the outbox, by the rules of this node for webhooks."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from meshpeer import __version__
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.jobs.webhook_urls import refusal
from meshpeer.core.scheduler.webhook_messages import Delivered, DeliverMessage
from meshpeer.core.wire.retry_after import retry_after_s
from meshpeer.core.wire.webhook_signatures import sign
from meshpeer.runtime.webhooks import Webhooks

ANSWER_S = 30.0
"""How long a reader has to answer: nobody works on a message before they say that they have it."""
ANSWER_BYTES_MAX = 64 * 1024
AT_ONCE_MAX = 16


@dataclass(slots=True)
class Deliveries:
    """Sends messages with what calls services, and reports ``Delivered``."""

    webhooks: Webhooks
    limiter: trio.CapacityLimiter

    def send(self, effect: DeliverMessage) -> None:
        self.webhooks.nursery.start_soon(self._send, effect)

    async def _send(self, effect: DeliverMessage) -> None:
        hooks = self.webhooks
        status, wait, error, forbidden = None, "", f"no answer within {ANSWER_S:g} s", False
        refused = refusal(effect.url, hooks.rules.allow, hooks.rules.own_ports())
        if refused:
            error, forbidden = refused, True
        else:
            headers = {"content-type": "application/json", "user-agent": f"meshpeer/{__version__}"}
            message = f"{effect.job}:{effect.event}"
            try:
                async with self.limiter:
                    with trio.move_on_after(ANSWER_S):
                        now = hooks.clock.now()
                        signed = sign(hooks.rules.keys(), message, int(now.unix_s), effect.body)
                        answer = await hooks.caller.post(
                            effect.url, {**headers, **signed}, effect.body, bytes_max=ANSWER_BYTES_MAX
                        )
                        status, wait = answer.status, answer.headers.get("retry-after", "")
            except (EnvironmentFault, LocalFault) as fault:
                error = fault.what
        hooks.post(
            Delivered(
                job=effect.job,
                event=effect.event,
                number=effect.number,
                status=status,
                error=error,
                forbidden=forbidden,
                retry_after_s=retry_after_s(wait, hooks.clock.now().unix_s) if wait else None,
            )
        )

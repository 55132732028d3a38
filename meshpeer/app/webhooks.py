"""Puts together what calls services for this node, by its own settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from meshpeer.adapters.webhooks import read_keys
from meshpeer.app.config import WebhookSettings
from meshpeer.core.ids import TaskIndex
from meshpeer.core.scheduler.messages import StartAttempt
from meshpeer.runtime.webhooks import WebhookRules, Webhooks

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent


def calls_service(effect: StartAttempt) -> bool:
    """Says whether an attempt is a service's work rather than a program's."""
    return effect.graph.spec_of(TaskIndex(effect.granted.attempt.task)).webhook is not None


def callback_hosts(settings: WebhookSettings) -> tuple[str, ...]:
    """Returns the name under which a proxy passes call-backs on, where one is set."""
    host = urlsplit(settings.callback_base).hostname if settings.callback_base else None
    return (host,) if host else ()


def webhooks_of(agent: Agent, nursery: trio.Nursery) -> Webhooks:
    """Returns what calls services for an agent; expects its attempts, driver and blobs."""
    settings = agent.settings.file.webhooks

    def keys() -> Sequence[bytes]:
        return read_keys(Path(settings.secret_file)) if settings.secret_file else ()

    def own_ports() -> tuple[int, ...]:
        return (agent.transport.port, agent.chores.pages_port, agent.settings.file.control.web_port)

    async def callback_base() -> str:
        await agent.pages_opened.wait()
        port = agent.chores.pages_port
        return (settings.callback_base or f"http://127.0.0.1:{port}") if port else ""

    return Webhooks(
        rules=WebhookRules(allow=settings.allow, keys=keys, own_ports=own_ports, callback_base=callback_base),
        caller=agent.caller,
        blobs=agent.blobs,
        clock=agent.clock,
        entropy=os.urandom,
        record_of=agent.attempts.record_of,
        keep=agent.files.keep_result,
        post=agent.driver.post,
        nursery=nursery,
        tally=agent.counters,
    )

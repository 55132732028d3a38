"""Quotas of submitters by this node's settings, and what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshpeer.app.config import QuotaSettings
from meshpeer.app.views import name_of
from meshpeer.core.errors import Refused
from meshpeer.core.ids import NodeId
from meshpeer.core.jobs.model import JobSpec
from meshpeer.core.scheduler.quotas import Excess, Quota, QuotaOf, boundless

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

EVERYBODY = "*"


def quota_of(agent: Agent) -> QuotaOf:
    """Returns how a submitter's quota is looked up: what stands under its name or id, and for what that does
    not say what stands under ``*``."""
    quotas = agent.settings.file.jobs.quotas
    if not quotas:
        return boundless
    others = quotas.get(EVERYBODY, QuotaSettings())

    def of(submitter: NodeId) -> Quota:
        named = next((quotas[one] for one in sorted(agent.names_of(submitter)) if one in quotas), others)
        return Quota(
            slots=named.slots or others.slots,
            tasks=named.tasks or others.tasks,
            bytes=named.bytes or others.bytes,
        )

    return of


def check_quota(agent: Agent, submitter: NodeId, spec: JobSpec) -> None:
    """Raises ``Refused`` where a new job would bring its submitter above what this node gives it."""
    excess = agent.node.scheduler.excess_of(submitter, spec)
    if excess is not None:
        raise Refused(words_of(name_of(agent.node, submitter), excess), _HINT)


_HINT = "wait until some have ended, cancel one, or raise it under [jobs.quotas] on that node"


def words_of(submitter: str, excess: Excess) -> str:
    """Says what a job is too much by."""
    most, there, more = f"{excess.most:,}", f"{excess.there:,}", f"{excess.more:,}"
    if excess.what == "tasks":
        return f"this node keeps {most} open tasks of {submitter}; {there} are open, and this job has {more}"
    return f"this node keeps {most} bytes of open jobs of {submitter}; it has {there}, and this job {more}"

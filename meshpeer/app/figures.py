"""What an agent's figures are now: for whoever watches many nodes over time."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from meshpeer import __version__
from meshpeer.adapters.web.snapshot import Snapshot, WorkFigures
from meshpeer.app.agreement import agreement_figures
from meshpeer.app.issuer_words import last_heard
from meshpeer.app.views import count_members, peer_view, relayed_by
from meshpeer.core.deadline import Instant
from meshpeer.core.ids import JobId
from meshpeer.core.node.node import Node
from meshpeer.core.scheduler.views import task_counts

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

PATHS = ("direct", "hub", "relay", "link", "none")
TASK_STATES = ("waiting", "ready", "running", "succeeded", "failed", "skipped", "cancelled")
JOB_STATES = ("going", "paused", "blocked")


def figures_of(agent: Agent) -> Snapshot:
    """Returns the figures of now."""
    node, now = agent.node, agent.clock.now()
    counts = count_members(node)
    own = node.ledger.get(node.me)
    best = own.best if own else None
    void = len(node.ledger.revocations.void)
    return Snapshot(
        version=__version__,
        counters=agent.counters,
        members={
            "alive": counts.alive,
            "suspect": counts.suspect,
            "dead": counts.dead,
            "left": counts.left,
            "revoked": counts.revoked,
        },
        paths=_paths(node, now),
        revocations={"counting": len(node.ledger.revocations) - void, "void": void},
        links=len(node.links.peers),
        event_loop_lag_s=agent.driver.lag_s,
        local_health=node.detector.health.score,
        agreement=agreement_figures(node, now),
        relayed_tunnels=sum(relayed_by(node).values()),
        relayed_pairs=len(node.relays.desk.reservations),
        relayed_bytes=sum(sum(one.bytes) for one in agent.relayer.pairs),
        certificate_ends_unix_s=best.identity.not_after if best else None,
        issuer_heard_unix_s=last_heard(node, now.unix_s),
        work=_work(agent, now),
    )


def _paths(node: Node, now: Instant) -> dict[str, int]:
    """Counts living members by how this node reaches them."""
    found = collections.Counter(
        view.path
        for one in node.roster.members
        if one.node != node.me and (view := peer_view(node, one, now.unix_s)).state == "alive"
    )
    return {path: found[path] for path in PATHS}


def _work(agent: Agent, now: Instant) -> WorkFigures:
    """Counts jobs that this node owns and that have not ended, and what it works on itself."""
    scheduler = agent.node.scheduler
    tasks = dict.fromkeys(TASK_STATES, 0)
    jobs: collections.Counter[str] = collections.Counter()

    def state_of(job: JobId, paused: bool) -> str:
        if scheduler.replicas.durability(job, now) == "blocked":
            return "blocked"
        return "paused" if paused else "going"

    for owner in scheduler.owned.values():
        if not owner.finished:
            jobs[state_of(owner.job, owner.paused)] += 1
            counts = task_counts(owner)
            tasks = {state: number + counts[state] for state, number in tasks.items()}
    worker = scheduler.worker
    return WorkFigures(
        jobs={state: jobs[state] for state in JOB_STATES},
        tasks=tasks,
        slots=agent.executor.slots if worker.accepting else 0,
        slots_busy=worker.busy,
        attempts_waiting=worker.queued,
        results_waiting=len(worker.offers),
    )

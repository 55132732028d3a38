"""What a node's figures are at one moment, as plain values; imported by the agent before anybody asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshpeer.core.counters import Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementFigures:
    """Who derives its plan from the same facts."""

    members: Mapping[str, int]
    """How many agree (this node included), differ, and are unknown."""
    parts: Mapping[str, int]
    """How many differ in each part of the facts."""
    longest_s: float
    """How long the oldest difference lasts; 0 where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFigures:
    """What of the mesh's work is this node's."""

    jobs: Mapping[str, int]
    """Jobs that it owns and that have not ended: going, paused, blocked (no quorum)."""
    tasks: Mapping[str, int]
    """Tasks of these jobs by state, those that ended included."""
    slots: int
    slots_busy: int
    attempts_waiting: int
    """Attempts that wait here for a slot."""
    results_waiting: int
    """Results of tasks that ran here and whose owners have not acknowledged them."""


NO_WORK = WorkFigures(jobs={}, tasks={}, slots=0, slots_busy=0, attempts_waiting=0, results_waiting=0)
NO_FIGURES = AgreementFigures(members={}, parts={}, longest_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at a node."""

    version: str
    counters: Counters
    members: Mapping[str, int]
    """By state: alive (this node included), suspect, dead, left, revoked."""
    links: int
    event_loop_lag_s: float
    local_health: int
    """0 (well) to 7."""
    agreement: AgreementFigures = NO_FIGURES
    relayed_tunnels: int = 0
    """Tunnels of this node that go by a relay."""
    relayed_pairs: int = 0
    """Pairs of others that this node relays."""
    relayed_bytes: int = 0
    """What crossed for those that it relays now."""
    paths: Mapping[str, int] = field(default_factory=dict)
    """Members that live, by how this node reaches them: direct, hub, relay, link, none."""
    certificate_ends_unix_s: float | None = None
    """None for a node whose certificate is not known yet."""
    issuer_heard_unix_s: float | None = None
    """When the issuer that was heard of last was; None where nothing is held of any."""
    work: WorkFigures = NO_WORK
    revocations: Mapping[str, int] = field(default_factory=dict)
    """How many count, and how many are void since their author was revoked itself."""

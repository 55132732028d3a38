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
    revocations: Mapping[str, int] = field(default_factory=dict)
    """How many count, and how many are void since their author was revoked itself."""

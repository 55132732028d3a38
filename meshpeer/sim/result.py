"""What a run came to, as values."""

from __future__ import annotations

import msgspec


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what ``--json`` prints; fields are only ever added."""


class Spread(Table, frozen=True, kw_only=True):
    """How long something took on the hosts of a mesh, seconds of virtual time."""

    p50: float
    p90: float
    max: float


class Price(Table, frozen=True, kw_only=True):
    """What one kind of message costs."""

    kind: str
    messages_per_node_s: float
    bytes_per_node_s: float


class Measure(Table, frozen=True, kw_only=True):
    """One thing that was waited for: how long it took, or that it did not come to pass."""

    what: str
    """``dead``, ``change``, ``heal`` or ``revoked``."""
    at_s: float
    took_s: float | None


class Links(Table, frozen=True, kw_only=True):
    min: int
    mean: float
    max: int


class Result(Table, frozen=True, kw_only=True):
    """One run of one scenario."""

    scenario: str
    seed: int
    size: int
    failures: tuple[str, ...]
    """What was expected and did not come to pass, or the invariant that broke; empty where all is well."""
    know_all_s: Spread | None
    """How long after the last start each host held everybody's record; None where not all came to."""
    know_share: float
    """Of running hosts that hold everything in the end."""
    measures: tuple[Measure, ...]
    false_deaths: int
    prices: tuple[Price, ...]
    bytes_per_node_s: float
    links: Links
    steps: int
    virtual_s: float
    wall_s: float
    memory_mib: int
    """The largest that this process has been."""
    curve: tuple[tuple[float, float], ...]
    """Seconds since the last start, and the share of running hosts that hold everything."""

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def steps_per_s(self) -> float:
        return self.steps / self.wall_s if self.wall_s else 0.0


def spread_of(values: list[float]) -> Spread | None:
    """Returns the quantiles of values in rising order."""
    if not values:
        return None
    last = len(values) - 1
    return Spread(p50=values[last // 2], p90=values[round(last * 0.9)], max=values[last])

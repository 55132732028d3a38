"""How long a suspicion lasts, by who says so and how well this node is."""

from __future__ import annotations

import pytest

from meshpeer.core.ids import NodeId
from meshpeer.core.membership.local_health import CALM_S, SCORE_MAX, LocalHealth
from meshpeer.core.membership.suspicions import (
    CLOSED_FLOOR_S,
    CLOSED_FULL_S,
    QUORUM_FACTOR_MAX,
    QUORUM_MAX,
    SILENT_FLOOR_S,
    SILENT_FULL_S,
    Case,
    SuspicionSeen,
    needed_observers,
)

WORST = 1.0 + SCORE_MAX


@pytest.mark.parametrize(
    ("observers", "needed", "closed", "factor", "lasts_s"),
    [
        (1, 3, True, 1.0, CLOSED_FULL_S),
        (1, 3, False, 1.0, SILENT_FULL_S),
        (3, 3, True, 1.0, CLOSED_FLOOR_S),
        (9, 3, False, 1.0, SILENT_FLOOR_S),
        (1, 1, True, 1.0, CLOSED_FULL_S),
        # A node that is unwell waits longer where it stands alone...
        (1, 3, True, WORST, WORST * CLOSED_FULL_S),
        (1, 1, True, WORST, WORST * CLOSED_FULL_S),
        (2, 2, False, WORST, WORST * SILENT_FLOOR_S),
        # ... and not where a quorum says so: the last of fifty agreed after eight seconds in place of one.
        (3, 3, True, WORST, QUORUM_FACTOR_MAX * CLOSED_FLOOR_S),
        (4, 3, False, WORST, QUORUM_FACTOR_MAX * SILENT_FLOOR_S),
    ],
)
def test_how_long_a_suspicion_lasts(
    observers: int, needed: int, closed: bool, factor: float, lasts_s: float
) -> None:
    case = Case(100.0)
    case.update(
        [
            SuspicionSeen(observer=NodeId(bytes([number]) * 32), closed=closed, issued_at=0)
            for number in range(observers)
        ]
    )
    case.weigh(needed, factor)
    assert case.dead_at_s == pytest.approx(100.0 + lasts_s)


@pytest.mark.parametrize(("others", "needed"), [(0, 1), (1, 1), (2, 2), (3, 3), (40, QUORUM_MAX)])
def test_how_many_observers_end_the_wait(others: int, needed: int) -> None:
    assert needed_observers(others) == needed


def test_health_comes_back_with_what_is_heard_and_not_while_the_loop_lags() -> None:
    """Pings that are rare where health is low left it low for a minute after a busy boot."""
    health = LocalHealth()
    health.on_lag(3.0, 10.0)
    assert health.score == 4
    assert not health.on_heard(10.0 + CALM_S / 2)
    health.on_lag(0.2, 10.0 + CALM_S)
    assert not health.on_heard(10.0 + CALM_S)
    now_s, falls = 10.0 + CALM_S, 0
    while health.score:
        now_s += 0.25
        falls += health.on_heard(now_s)
    assert falls == 5
    assert now_s == 10.0 + CALM_S + 5 * CALM_S

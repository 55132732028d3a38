"""Jobs of 500 tasks on a mesh of five, under faults that are drawn from seeds.

A handful of seeds, whose jobs run at once; ``scripts/chaos`` runs as many as one asks for.
"""

from __future__ import annotations

from pathlib import Path

import chaosplan
import chaosrun
import pytest
from chaoslab import mesh_of_five

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(420)]

SEEDS = (1, 6, 10, 11)
"""Between them they draw every kind of fault."""


def test_every_job_ends_with_one_result_for_each_task_whatever_befalls_the_nodes(tmp_path: Path) -> None:
    with mesh_of_five(tmp_path) as mesh:
        outcome = chaosrun.run(mesh, [chaosplan.draw(seed) for seed in SEEDS])
    print(outcome.words())
    assert not outcome.problems, outcome.story()


def test_a_seed_draws_the_same_plan_every_time() -> None:
    for seed in range(50):
        assert chaosplan.draw(seed) == chaosplan.draw(seed)


def test_plans_that_run_at_once_lose_the_state_of_one_node_at_most() -> None:
    for first in range(0, 200, 4):
        faults = chaosplan.laid_over([chaosplan.draw(seed) for seed in range(first, first + 4)])
        assert sum(fault.kind == "wipe" for fault in faults) <= 1
        assert not any(fault.kind == "wipe" and fault.node == chaosplan.ISSUER for fault in faults)

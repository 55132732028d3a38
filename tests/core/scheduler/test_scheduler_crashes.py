"""An agent dies at a write of its journal: nothing acknowledged is lost, and nothing acknowledged twice.

A sample of the writes; ``crashes.py`` goes through all of them.
"""

from __future__ import annotations

import pytest
from crashes import When, see_through
from world import array, diamond


@pytest.mark.parametrize("wipe", [False, True], ids=["disk kept", "disk lost"])
@pytest.mark.parametrize("when", When)
def test_job_with_replicas_survives_a_crash_at_a_write(when: When, wipe: bool) -> None:
    for number in range(1, 40, 9):
        see_through(number, when, 0.3, array(8), seed=1, wipe=wipe)


@pytest.mark.parametrize("when", When)
def test_job_with_replicas_survives_a_takeover_after_a_crash_at_a_write(when: When) -> None:
    for number in range(3, 60, 19):
        see_through(number, when, 8.0, diamond(4), seed=2)

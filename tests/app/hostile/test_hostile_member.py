"""A hostile member tries every line of the threat model that is about members; what it gets is a page."""

from __future__ import annotations

import os
from pathlib import Path

import hostile_facts
import hostile_frames
import hostile_jobs
import pytest
from hostile_mesh import open_mesh
from hostile_stage import ATTEMPTS, Row, page, play

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "hostile.md"
WRITE = "MESHPEER_WRITE_HOSTILE"
"""Set by ``scripts/reference_hostile``: writes the page instead of holding it against the tries."""

MODULES = (hostile_facts, hostile_frames, hostile_jobs)
"""Each has enlisted its tries."""


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_hostile_member_harms_nobody_and_the_page_says_how() -> None:
    rows: list[Row] = []
    only = os.environ.get("MESHPEER_HOSTILE_ONLY", "")
    async with open_mesh() as mesh:
        for attempt in [one for one in ATTEMPTS if only in one.run.__name__]:
            rows.append(await play(mesh, attempt))  # noqa: PERF401 - one after the other
        await mesh.runs_a_job()
    if only:
        print(page(rows))
        return
    if os.environ.get(WRITE):
        PAGE.write_text(page(rows), "utf-8")
    assert PAGE.read_text("utf-8") == page(rows), "run scripts/reference_hostile"

"""A machine joins while a thousand strangers stand at the only member's door, and come again once cut."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))

from strangers import Mesh, flood

STRANGERS = 1_000


@pytest.mark.slow
def test_a_machine_joins_through_a_thousand_half_open_connections(tmp_path: Path) -> None:
    with Mesh(tmp_path) as mesh, flood(mesh.port, STRANGERS) as strangers:
        mesh.join()
        assert "alpha" in mesh.run("node1", "peers")
        # Whoever says nothing is cut after two seconds, if not to make room.
        strangers.wait_until_cut()

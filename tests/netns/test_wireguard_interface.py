"""The port's contract, and what only a real interface shows, inside a machine of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from meshlab import Node

if TYPE_CHECKING:
    from conftest import MakeLab

pytestmark = pytest.mark.netns

_TESTS = Path(__file__).resolve().parents[1]


def test_every_backend_that_this_machine_has_keeps_the_contract(
    make_lab: MakeLab, record_property: pytest.RecordProperty
) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    backends = ["userspace", *(["kernel"] if _kernel_has_wireguard(alpha) else [])]
    record_property("wireguard_backends", " ".join(backends))
    argv = [sys.executable, "-m", "pytest", str(_TESTS / "adapters" / "wireguard"), "-q"]
    for backend in backends:
        env = {"MESHPEER_TEST_WIREGUARD": backend}
        done = alpha.run(argv, env=env, cwd=_TESTS.parent, check=False, timeout=50)
        assert done.returncode == 0, f"{backend}:\n{done.stdout}"


def _kernel_has_wireguard(node: Node) -> bool:
    made = node.run(["ip", "link", "add", "dev", "probe", "type", "wireguard"], check=False)
    return made.returncode == 0 and node.run(["ip", "link", "delete", "dev", "probe"]).returncode == 0

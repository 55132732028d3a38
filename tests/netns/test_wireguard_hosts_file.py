"""The hosts file of a container is a mount of its own: it can't be swapped, and is written in place."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import MakeLab

pytestmark = pytest.mark.netns

_WRITE = """
from meshpeer.adapters.hosts import HostsFile, render_block
assert HostsFile().write(render_block("home", [("gamma", ("10.10.0.3",))]))
assert not HostsFile().write(render_block("home", [("gamma", ("10.10.0.3",))]))
"""
_REMOVE = """
from meshpeer.adapters.hosts import HostsFile
assert HostsFile().write("")
"""


@pytest.mark.parametrize("mounted", [False, True])
def test_names_resolve_from_the_block_and_go_with_it(make_lab: MakeLab, mounted: bool) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    if mounted:
        alpha.run(["sh", "-c", "cp /etc/hosts /run/hosts && mount --bind /run/hosts /etc/hosts"])
    before = alpha.run(["cat", "/etc/hosts"]).stdout
    alpha.run([sys.executable, "-c", _WRITE])
    for name in ("gamma.home.internal", "gamma.mesh"):
        assert alpha.run(["getent", "hosts", name]).stdout.split()[0] == "10.10.0.3"
    alpha.run([sys.executable, "-c", _REMOVE])
    assert alpha.run(["cat", "/etc/hosts"]).stdout == before

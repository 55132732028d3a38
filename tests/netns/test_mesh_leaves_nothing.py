"""A mesh, however it ends, leaves nothing: no process, no interface, no namespace, no file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import meshkit
import pytest

if TYPE_CHECKING:
    from conftest import MakeLab

pytestmark = pytest.mark.netns


def test_down_leaves_a_machine_with_its_state_folder_alone(make_lab: MakeLab) -> None:
    lab = make_lab(meshkit.lan("alpha", "bravo"))
    alpha, bravo = lab.node("alpha"), lab.node("bravo")
    before = without_state(meshkit.footprint(bravo))
    meshkit.found_mesh(lab, "alpha", "bravo")
    meshkit.submit(alpha, '{"name": "a", "tasks": {"a": {"array": "0-9", "run": "sleep 30"}}}')
    meshkit.until(lambda: bool(bravo.pgrep("sleep 30")), "bravo runs a task")
    meshkit.meshpeer(bravo, "down")
    meshkit.until(lambda: not bravo.pgrep("."), "everything of bravo has ended, its tasks too")
    assert without_state(meshkit.footprint(bravo)) == before


def test_a_lab_takes_a_running_mesh_with_it(make_lab: MakeLab) -> None:
    before = machine()
    lab = make_lab(meshkit.lan("alpha", "bravo"))
    meshkit.found_mesh(lab, "alpha", "bravo")
    homes = {pid_namespace(str(node.init_pid)) for node in lab.nodes.values()}
    inside = {pid for pid in machine()["processes"] if pid_namespace(pid) in homes}
    assert len(inside) > 2 * len(lab.nodes), "an init, an agent and an interface's program on each"
    lab.close()
    assert not [pid for pid in inside if pid_namespace(pid) in homes]
    assert machine()["interfaces"] == before["interfaces"]
    assert machine()["namespaces"] <= before["namespaces"]


# --- helpers ------------------------------------------------------------


def without_state(left: dict[str, str]) -> dict[str, str]:
    return {what: how for what, how in left.items() if not what.startswith(f"{meshkit.STATE_DIR}/")}


def machine() -> dict[str, set[str]]:
    """Returns what the machine itself has: its processes, its interfaces, and namespaces that have a name."""
    named = Path("/run/netns")
    return {
        "processes": {path.name for path in Path("/proc").iterdir() if path.name.isdigit()},
        "interfaces": {path.name for path in Path("/sys/class/net").iterdir()},
        "namespaces": {path.name for path in named.iterdir()} if named.exists() else set(),
    }


def pid_namespace(pid: str) -> str:
    """Returns the PID namespace of a process; empty where it is gone, or none of ours."""
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink().name
    except OSError:
        return ""

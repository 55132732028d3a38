"""Where groups for tasks are made: on real hierarchies, as far as this machine has them free."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshpeer.adapters.executor.groups import (
    AGENT_GROUP,
    Bases,
    SlotGroup,
    find_bases,
    make_groups,
    own_hierarchies,
    remove_group,
)
from meshpeer.core.jobs.cgroups import Hierarchy

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

CLAIM = """
import sys
from pathlib import Path
from meshpeer.adapters.executor.groups import find_bases, own_hierarchies

print(Path("/proc/self/cgroup").read_text().splitlines()[-1].partition("::")[2])
for _ in range(2):
    second = tuple(one for one in own_hierarchies() if one.version == 2)
    bases = find_bases(second, needed=(sys.argv[1],))
    print(bases.folders.get(sys.argv[1], "none"))
print(Path("/proc/self/cgroup").read_text().splitlines()[-1].partition("::")[2])
"""


@pytest.fixture
def second() -> Iterator[tuple[Path, str]]:
    """A fresh group of version 2 to play with, and a controller that it may divide."""
    found = [one for one in own_hierarchies() if one.version == 2]
    root = Path(found[0].top) if found else Path("/nonexistent")
    free = _words(root / "cgroup.controllers")
    if not free or (root / "cgroup.type").exists() or Path("/run/systemd/system").exists():
        pytest.skip("no hierarchy of version 2 here has a controller to spare")
    name, used = free[0], _words(root / "cgroup.subtree_control")
    group = root / f"meshpeer-test-{os.getpid()}"
    group.mkdir()
    (root / "cgroup.subtree_control").write_text(f"+{name}")
    yield group, name
    remove_group(group)
    if name not in used:
        (root / "cgroup.subtree_control").write_text(f"-{name}")


def test_agent_moves_aside_to_divide_its_group_and_finds_it_divided_the_next_time(
    second: tuple[Path, str],
) -> None:
    group, controller = second

    before, first, again, after = claim(group, controller)

    assert (first, again) == (str(group), str(group))
    assert after == f"{before.rstrip('/')}/{AGENT_GROUP}"
    assert controller in _words(group / "cgroup.subtree_control")


def test_slot_of_version_2_holds_and_ends_processes(second: tuple[Path, str]) -> None:
    group, controller = second
    slot = SlotGroup("slot-0", Bases(version={controller: 2}, folders={controller: group}))
    slot.make()
    with subprocess.Popen(["sleep", "600"]) as process:
        slot.enter(process.pid)
        assert (group / "slot-0" / "cgroup.procs").read_text().split() == [str(process.pid)]
        slot.kill()
        assert process.wait(10) == -9
    slot.remove()

    assert not (group / "slot-0").exists()


def test_group_without_what_is_needed_is_not_touched(second: tuple[Path, str]) -> None:
    group, _ = second

    *_, first, _, after = claim(group, "nothing")

    assert first == "none"
    assert not after.endswith(AGENT_GROUP)
    assert not (group / AGENT_GROUP).exists()


def test_version_1_serves_where_version_2_lacks_a_controller() -> None:
    bases = find_bases(own_hierarchies())
    if bases.missing or 1 not in bases.version.values():
        pytest.skip("this machine has no hierarchies of version 1")

    assert {bases.version[name] for name in ("memory", "pids")} == {1}


def test_groups_that_nobody_holds_are_swept_where_they_are_empty() -> None:
    held = make_groups(f"meshpeer-held-{os.getpid()}", 1, 0, own_hierarchies())
    if held.gap is not None:
        pytest.skip(held.gap.what)
    base = find_bases(own_hierarchies()).folders["pids"]
    stale, used = (base / f"meshpeer-{word}-{os.getpid()}" for word in ("stale", "used"))
    for folder in (stale, used):
        (folder / "slot-0").mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as process:
        (used / "slot-0" / "cgroup.procs").write_text(str(process.pid))

        make_groups(f"meshpeer-new-{os.getpid()}", 1, 0, own_hierarchies()).remove()

        assert process.poll() is None
        assert (used / "slot-0").exists()
        assert not stale.exists()
        assert (base / f"meshpeer-held-{os.getpid()}" / "slot-0").exists()
        remove_group(used)
    held.remove()


def test_without_any_hierarchy_there_is_a_gap_that_says_what_to_do(tmp_path: Path) -> None:
    nowhere = Hierarchy(version=1, controllers=frozenset({"memory"}), folder="/nonexistent", top="/")
    for hierarchies in ((), (nowhere,)):
        groups = make_groups("x", 2, 0, hierarchies)

        assert [slot.held for slot in groups.slots] == [frozenset()] * 2
        assert groups.gap is not None
        assert "meshpeer service install" in groups.gap.hint


def test_hierarchy_that_can_not_be_used_is_a_gap_and_leaves_nothing(tmp_path: Path) -> None:
    """A folder that no kernel fills has no control files."""
    fake = Hierarchy(
        version=1, controllers=frozenset({"memory", "pids"}), folder=str(tmp_path), top=str(tmp_path)
    )

    groups = make_groups("x", 1, 0, (fake,))

    assert groups.gap is not None
    assert "memory.limit_in_bytes" in groups.gap.what
    assert list(tmp_path.iterdir()) == []


def claim(group: Path, controller: str) -> list[str]:
    """Lets a process in the group claim it; returns what it says."""
    command = ["/bin/sh", "-c", 'read go; exec "$@"', "sh", sys.executable, "-c", CLAIM, controller]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        (group / "cgroup.procs").write_text(str(process.pid))
        said, _ = process.communicate("go\n", timeout=100)
    return said.splitlines()


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []

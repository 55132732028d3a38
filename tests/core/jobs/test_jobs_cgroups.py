"""Where a process stands among control groups, as kernels of all ages print it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.jobs.cgroups import Hierarchy, counted, find_hierarchies, tasks_memory

V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "37 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct\n"
)


def test_version_2_has_one_folder() -> None:
    found = find_hierarchies("0::/system.slice/meshpeer.service\n", V2)
    assert found == (hierarchy("/sys/fs/cgroup/system.slice/meshpeer.service", top="/sys/fs/cgroup"),)


def test_version_1_has_one_for_each_mount() -> None:
    found = find_hierarchies("9:name=systemd:/x\n4:memory:/a/b\n1:cpu,cpuacct:/\n", V1)
    cpu, memory = found
    assert (cpu.folder, cpu.controllers) == ("/sys/fs/cgroup/cpu,cpuacct", {"cpu", "cpuacct"})
    assert (memory.folder, memory.controllers) == ("/sys/fs/cgroup/memory/a/b", {"memory"})


def test_both_are_found_and_version_2_comes_first() -> None:
    mounts = V1 + "41 31 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    found = find_hierarchies("4:memory:/\n0::/x\n", mounts)
    assert [(one.version, one.folder) for one in found] == [
        (2, "/sys/fs/cgroup/unified/x"),
        (1, "/sys/fs/cgroup/memory"),
    ]


def test_part_of_a_hierarchy_that_is_mounted_alone_is_seen_from_there() -> None:
    mounts = "29 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
    (found,) = find_hierarchies("0::/docker/abc/init\n", mounts)
    assert (found.folder, found.top) == ("/sys/fs/cgroup/init", "/sys/fs/cgroup")


@pytest.mark.parametrize("path", ["/docker/other", "/../x", "/docker/abcd"])
def test_group_that_can_not_be_seen_is_left_out(path: str) -> None:
    mounts = "29 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
    assert find_hierarchies(f"0::{path}\n", mounts) == ()


def test_blanks_in_a_mount_point_are_read() -> None:
    (found,) = find_hierarchies("0::/\n", V2.replace("/sys/fs/cgroup", "/my\\040groups"))
    assert found.folder == "/my groups"


@given(st.text(), st.text())
def test_any_text_is_read_to_its_end(membership: str, mounts: str) -> None:
    find_hierarchies(membership, mounts)


def test_counts_are_read_by_their_word() -> None:
    text = "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"
    assert (counted(text, "oom_kill"), counted(text, "oom"), counted(text, "max")) == (2, 3, 0)
    assert counted("max -1\nmax x\nmax", "max") == 0


@pytest.mark.parametrize(
    ("total_mib", "asked_mib", "given_mib"),
    [(256, 0, 128), (512, 0, 384), (8192, 0, 7168), (8192, 1024, 1024)],
)
def test_some_memory_stays_for_the_agent(total_mib: int, asked_mib: int, given_mib: int) -> None:
    assert tasks_memory(total_mib << 20, asked_mib << 20) == given_mib << 20


def hierarchy(folder: str, *, top: str) -> Hierarchy:
    return Hierarchy(version=2, controllers=frozenset(), folder=folder, top=top)

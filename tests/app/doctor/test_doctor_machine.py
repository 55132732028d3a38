"""What the doctor makes of a machine: programs, disk, ports, names, the clock without an agent."""

from __future__ import annotations

import pytest

from meshpeer.app.doctor.machine import (
    Programs,
    judge_absence,
    judge_backend,
    judge_clock_alone,
    judge_disk,
    judge_hosts,
    judge_lookups,
    judge_ports,
    judge_tools,
    names_of,
)
from meshpeer.runtime.doctor import Finding

GIB, MIB = 1024**3, 1024**2
ALL = ("wg", "ip", "nft", "wireguard-go")


@pytest.mark.parametrize(
    ("installed", "forwards", "expected"),
    [
        (ALL, True, ["ok"]),
        (("ip", "nft"), False, ["bad `wg` apt install wireguard-tools"]),
        (("nft",), False, ["bad `wg` apt install wireguard-tools", "bad `ip` apt install iproute2"]),
        (("wg", "ip"), True, ["bad `nft` apt install nftables"]),
        (("wg", "ip"), False, ["ok", "warning `nft` apt install nftables"]),
    ],
)
def test_what_is_missing_is_named_with_its_package(
    installed: tuple[str, ...], forwards: bool, expected: list[str]
) -> None:
    found = judge_tools(Programs(installed=installed, kernel=True, tun=True, forwards=forwards))
    shown = [
        one.level
        if one.level == "ok"
        else f"{one.level} {one.text.split()[0]} {one.todo[0].partition(',')[0]}"
        for one in found
    ]
    assert shown == expected


@pytest.mark.parametrize(
    ("kernel", "installed", "tun", "backend", "level"),
    [
        (True, (), False, "auto", "ok"),
        (False, ALL, True, "auto", "ok"),
        (False, ALL, False, "auto", "bad"),
        (False, ("wg",), True, "auto", "bad"),
        (False, ALL, True, "kernel", "bad"),
        (True, ("wg",), True, "userspace", "bad"),
        (True, ALL, True, "userspace", "ok"),
    ],
)
def test_a_tunnel_needs_the_kernels_wireguard_or_a_program_and_tun(
    kernel: bool, installed: tuple[str, ...], tun: bool, backend: str, level: str
) -> None:
    seen = Programs(installed=installed, kernel=kernel, tun=tun, backend=backend)
    assert levels(judge_backend(seen)) == [level]


def test_a_node_without_an_interface_needs_none_of_that() -> None:
    seen = Programs(installed=(), kernel=False, tun=False, tunnels=False)
    assert levels([*judge_tools(seen), *judge_backend(seen)]) == ["ok"]


@pytest.mark.parametrize(
    ("free", "total", "level"),
    [
        (50 * GIB, 100 * GIB, "ok"),
        (4 * GIB, 100 * GIB, "warning"),
        (63 * MIB, 100 * GIB, "bad"),
        (63 * MIB, 100 * MIB, "bad"),
        (0, 0, "bad"),
    ],
)
def test_a_disk_that_is_nearly_full_is_told(free: int, total: int, level: str) -> None:
    assert judge_disk("/var/lib/meshpeer", free, total).level == level


def test_ports_that_are_taken_are_bad_each() -> None:
    assert levels(judge_ports([], "UDP 51820 and TCP 51821")) == ["ok"]
    (found,) = judge_ports([("UDP port 51820 is in use", "ss -lunp")], "")
    assert (found.level, found.todo) == ("bad", ("ss -lunp",))


@pytest.mark.parametrize(
    ("block", "resolved", "kept", "level"),
    [
        ({}, {}, False, "ok"),
        ({}, {}, True, "warning"),
        ({"a.mesh": ("10.10.0.1", "fd00::1")}, {"a.mesh": ("10.10.0.1",)}, True, "ok"),
        ({"a.mesh": ("10.10.0.1",)}, {"a.mesh": ()}, True, "bad"),
        ({"a.mesh": ("10.10.0.1",)}, {"a.mesh": ("192.0.2.1",)}, True, "bad"),
    ],
)
def test_names_are_right_where_the_system_finds_what_the_block_says(
    block: dict[str, tuple[str, ...]], resolved: dict[str, tuple[str, ...]], kept: bool, level: str
) -> None:
    assert judge_hosts(block, resolved, kept=kept).level == level


def test_a_seed_whose_name_is_unknown_is_named() -> None:
    assert judge_lookups({}) == []
    assert levels(judge_lookups({"home.example": ("192.0.2.1",)})) == ["ok"]
    (found,) = judge_lookups({"home.example": (), "b.example": ("192.0.2.1",)})
    assert (found.level, found.text) == ("warning", "home.example does not resolve")


def test_names_are_told_from_addresses() -> None:
    addresses = ["203.0.113.9:1", "[2001:db8::1]:1", "2001:db8::1", "home.example:51821", "b.example", ":1"]
    assert names_of(addresses) == ["home.example", "b.example"]


def test_no_agent_is_bad_on_a_node_and_nothing_to_mend_elsewhere() -> None:
    assert judge_absence(is_node=False, why="nobody answers").level == "unknown"
    found = judge_absence(is_node=True, why="nobody answers")
    assert (found.level, found.todo[0].partition(";")[0]) == ("bad", "meshpeer up --detach")
    assert found.text == "nobody answers; there are no tunnels"
    left = judge_absence(is_node=True, why="nobody answers", interface="wg0")
    assert "wg0 stays as it is" in left.text


@pytest.mark.parametrize(("newest", "level"), [(0.0, "unknown"), (1_030.0, "unknown"), (4_600.0, "bad")])
def test_a_clock_before_ones_own_files_is_behind(newest: float, level: str) -> None:
    assert judge_clock_alone(newest, 1_000.0).level == level


def levels(found: list[Finding]) -> list[str]:
    assert all(one.todo for one in found if one.level in ("bad", "warning")), "each says what to do"
    return [one.level for one in found]

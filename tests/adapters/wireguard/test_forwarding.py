"""A hub's forwarding, on the real kernel of a namespace and on a folder that plays an older one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from meshpeer.adapters.wireguard.forwarding import ALL_IPV6, Forwarding, render_table
from meshpeer.adapters.wireguard.tools import require_tool
from meshpeer.core.errors import EnvironmentFault

PREFIXES = ("10.10.0.0/24", "fd00:1:2:3::/64")
INTERFACE = "wg-test0"
TABLE = "meshpeer_wg_test0"


@pytest.fixture
def sysctl(tmp_path: Path) -> Path:
    """The settings of a kernel before 6.17: no switch of IPv6 forwarding per interface."""
    settings = tmp_path / "net"
    for name, value in {
        ALL_IPV6: "0",
        f"ipv4/conf/{INTERFACE}/forwarding": "0",
        f"ipv6/conf/{INTERFACE}/accept_ra": "0",
        "ipv6/conf/all/accept_ra": "1",
        "ipv6/conf/eth0/accept_ra": "1",
    }.items():
        (settings / name).parent.mkdir(parents=True, exist_ok=True)
        (settings / name).write_text(f"{value}\n")
    return settings


@pytest.fixture
def nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that keeps one table in a file, and says no to any other."""
    folder = tmp_path / "bin"
    folder.mkdir()
    table = tmp_path / "table"
    program = folder / "nft"
    program.write_text(
        f"""#!/bin/sh
case "$1" in
  list) [ -f {table} ] && cat {table} ;;
  delete) rm {table} ;;
  -f) sed -n '/^\\t/p;/^table.*{{$/p;/^}}$/p' > {table} ;;
esac
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return table


# --- on an older kernel -------------------------------------------------------------------------------------


async def test_one_switch_for_all_is_put_back_as_it_was(sysctl: Path, nft: Path, tmp_path: Path) -> None:
    before = tmp_path / "before.json"
    forwarding = Forwarding(INTERFACE, before, settings=sysctl)
    assert await forwarding.ensure(PREFIXES)
    assert text(sysctl / ALL_IPV6) == "1"
    assert text(sysctl / "ipv6/conf/eth0/accept_ra") == "2", "it still listens to its router"
    assert "meta nfproto ipv6 drop" in text(nft), "what was not forwarded before is not now"
    assert json.loads(text(before))[ALL_IPV6] == "0"
    assert not await forwarding.ensure(PREFIXES), "nothing to do the second time"
    again = Forwarding(INTERFACE, before, settings=sysctl)
    assert not await again.ensure(PREFIXES), "nor for the agent that comes after"
    assert await again.ensure(())
    assert text(sysctl / ALL_IPV6) == "0"
    assert text(sysctl / "ipv6/conf/eth0/accept_ra") == "1"
    assert text(sysctl / f"ipv4/conf/{INTERFACE}/forwarding") == "0"
    assert not text(nft)
    assert not text(before)
    assert not await again.ensure(())


async def test_a_machine_that_forwards_already_goes_on_to(sysctl: Path, nft: Path, tmp_path: Path) -> None:
    put(sysctl / ALL_IPV6, "1")
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    await forwarding.ensure(PREFIXES)
    assert "meta nfproto ipv6 drop" not in text(nft)
    await forwarding.ensure(())
    assert text(sysctl / ALL_IPV6) == "1"


async def test_a_machine_that_routes_already_is_left_to_and_gets_its_answers(
    sysctl: Path, nft: Path, tmp_path: Path
) -> None:
    """Containers on a hub reach the mesh through it: that is their owner's will, not ours to end."""
    own = sysctl / f"ipv4/conf/{INTERFACE}/forwarding"
    put(own, "1")
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    assert not await forwarding.ensure(()), "no hub: nothing of it is ours"
    assert text(own) == "1"
    await forwarding.ensure(PREFIXES)
    assert "ct state established,related accept" in text(nft)
    await forwarding.ensure(())
    assert text(own) == "1"


async def test_rules_that_somebody_flushed_are_set_again(sysctl: Path, nft: Path, tmp_path: Path) -> None:
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    await forwarding.ensure(PREFIXES)
    remove(nft)
    assert await forwarding.ensure(PREFIXES)
    assert text(nft)


async def test_a_missing_interface_is_said(sysctl: Path, nft: Path, tmp_path: Path) -> None:
    forwarding = Forwarding("wg-absent", tmp_path / "before.json", settings=sysctl)
    with pytest.raises(EnvironmentFault, match="no interface wg-absent"):
        await forwarding.ensure(PREFIXES)


async def test_a_machine_without_nft_can_not_be_a_hub_and_needs_none_to_be_no_hub(
    sysctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshpeer.adapters.wireguard.tools.SYSTEM_FOLDERS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    with pytest.raises(EnvironmentFault, match="`nft` is not installed"):
        forwarding.check()
    assert not await forwarding.ensure(())


# --- on this one --------------------------------------------------------------------------------------------


@pytest.mark.netns
def test_nft_prints_the_table_as_it_is_written() -> None:
    """Else it would be set anew at each look."""
    rules = render_table(TABLE, INTERFACE, PREFIXES, answers=True, ipv6_closed=True)
    script = f"nft -f - && nft list table inet {TABLE}"
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        input=rules,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{Path(require_tool('nft')).parent}:/usr/bin:/bin"},
    )
    assert done.stdout == rules


# --- helpers ------------------------------------------------------------------------------------------------


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def put(path: Path, value: str) -> None:
    path.write_text(value)


def remove(path: Path) -> None:
    path.unlink()

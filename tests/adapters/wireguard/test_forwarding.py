"""A hub's forwarding, on the real kernel of a namespace and on a folder that plays an older one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from meshpeer.adapters.wireguard.forwarding import ALL_IPV6, Forwarding
from meshpeer.adapters.wireguard.forwarding_table import render_table
from meshpeer.adapters.wireguard.tools import require_tool
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.wgconf.forwarding import NOTHING, DesiredForwarding, LanExit

HUB = DesiredForwarding(mesh=("10.10.0.0/24", "fd00:1:2:3::/64"), hub=True)
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
  -f) sed -n '/^$/p;/^\\t/p;/^table.*{{$/p;/^}}$/p' > {table} ;;
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
    assert await forwarding.ensure(HUB)
    assert text(sysctl / ALL_IPV6) == "1"
    assert text(sysctl / "ipv6/conf/eth0/accept_ra") == "2", "it still listens to its router"
    assert "meta nfproto ipv6 drop" in text(nft), "what was not forwarded before is not now"
    assert json.loads(text(before))[ALL_IPV6] == "0"
    assert not await forwarding.ensure(HUB), "nothing to do the second time"
    again = Forwarding(INTERFACE, before, settings=sysctl)
    assert not await again.ensure(HUB), "nor for the agent that comes after"
    assert await again.ensure(NOTHING)
    assert text(sysctl / ALL_IPV6) == "0"
    assert text(sysctl / "ipv6/conf/eth0/accept_ra") == "1"
    assert text(sysctl / f"ipv4/conf/{INTERFACE}/forwarding") == "0"
    assert not text(nft)
    assert not text(before)
    assert not await again.ensure(NOTHING)


async def test_a_machine_that_forwards_already_goes_on_to(sysctl: Path, nft: Path, tmp_path: Path) -> None:
    put(sysctl / ALL_IPV6, "1")
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    await forwarding.ensure(HUB)
    assert "meta nfproto ipv6 drop" not in text(nft)
    await forwarding.ensure(NOTHING)
    assert text(sysctl / ALL_IPV6) == "1"


async def test_a_machine_that_routes_already_is_left_to_and_gets_its_answers(
    sysctl: Path, nft: Path, tmp_path: Path
) -> None:
    """Containers on a hub reach the mesh through it: that is their owner's will, not ours to end."""
    own = sysctl / f"ipv4/conf/{INTERFACE}/forwarding"
    put(own, "1")
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    assert not await forwarding.ensure(NOTHING), "no hub: nothing of it is ours"
    assert text(own) == "1"
    await forwarding.ensure(HUB)
    assert "ct state established,related accept" in text(nft)
    await forwarding.ensure(NOTHING)
    assert text(own) == "1"


async def test_rules_that_somebody_flushed_are_set_again(sysctl: Path, nft: Path, tmp_path: Path) -> None:
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    await forwarding.ensure(HUB)
    remove(nft)
    assert await forwarding.ensure(HUB)
    assert text(nft)


async def test_a_missing_interface_is_said(sysctl: Path, nft: Path, tmp_path: Path) -> None:
    forwarding = Forwarding("wg-absent", tmp_path / "before.json", settings=sysctl)
    with pytest.raises(EnvironmentFault, match="no interface wg-absent"):
        await forwarding.ensure(HUB)


async def test_a_machine_without_nft_can_not_be_a_hub_and_needs_none_to_be_no_hub(
    sysctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshpeer.adapters.wireguard.tools.SYSTEM_FOLDERS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    with pytest.raises(EnvironmentFault, match="`nft` is not installed"):
        forwarding.check()
    assert not await forwarding.ensure(NOTHING)


# --- to a LAN -----------------------------------------------------------------------------------------------

LAN = DesiredForwarding(mesh=HUB.mesh, exits=(LanExit(prefix="192.168.5.0/24", devices=("eth1",)),))


@pytest.fixture
def eth1(sysctl: Path) -> Path:
    """The switch of the interface that leads to the LAN: off."""
    switch = sysctl / "ipv4/conf/eth1/forwarding"
    switch.parent.mkdir(parents=True)
    put(switch, "0")
    return switch


async def test_an_interface_towards_a_lan_forwards_answers_and_nothing_else(
    sysctl: Path, eth1: Path, nft: Path, tmp_path: Path
) -> None:
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    assert await forwarding.ensure(LAN)
    assert text(eth1) == "1"
    assert text(sysctl / ALL_IPV6).strip() == "0", "no LAN of IPv6: nothing of it is touched"
    there = "ip saddr 10.10.0.0/24 ip daddr 192.168.5.0/24"
    back = "ip saddr 192.168.5.0/24 ip daddr 10.10.0.0/24"
    assert rules_of(nft) == [
        f'iifname "{INTERFACE}" oifname "eth1" {there} accept',
        f'iifname "eth1" oifname "{INTERFACE}" {back} ct state established,related accept',
        f'iifname "{INTERFACE}" drop',
        f'oifname "{INTERFACE}" ip saddr 192.168.5.0/24 drop',
        'iifname "eth1" meta nfproto ipv4 drop',
        f'oifname "eth1" {there} masquerade',
    ]
    assert not await forwarding.ensure(LAN)
    assert await forwarding.ensure(NOTHING)
    assert (text(eth1), text(nft)) == ("0", "")


async def test_a_router_goes_on_routing_its_lan(sysctl: Path, eth1: Path, nft: Path, tmp_path: Path) -> None:
    put(eth1, "1")
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    await forwarding.ensure(LAN)
    assert 'iifname "eth1" meta' not in text(nft)
    await forwarding.ensure(NOTHING)
    assert text(eth1) == "1"


async def test_a_machine_that_is_made_a_router_meanwhile_stays_one(
    sysctl: Path, eth1: Path, nft: Path, tmp_path: Path
) -> None:
    """Docker does so when it starts: what it publishes comes in by the interface towards the LAN."""
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    await forwarding.ensure(LAN)
    (sysctl / "ipv4/conf/all").mkdir()
    put(sysctl / "ipv4/conf/all/forwarding", "1")
    assert await forwarding.ensure(LAN)
    assert 'iifname "eth1" meta' not in text(nft)
    await forwarding.ensure(NOTHING)
    assert text(eth1) == "1"


async def test_a_hub_that_leads_to_a_lan_no_more_takes_back_only_that(
    sysctl: Path, eth1: Path, nft: Path, tmp_path: Path
) -> None:
    before = tmp_path / "before.json"
    forwarding = Forwarding(INTERFACE, before, settings=sysctl)
    await forwarding.ensure(dataclasses.replace(LAN, hub=True))
    assert (text(eth1), text(sysctl / ALL_IPV6)) == ("1", "1")
    assert await forwarding.ensure(HUB)
    assert (text(eth1), text(sysctl / ALL_IPV6)) == ("0", "1")
    assert "eth1" not in text(nft)
    assert "eth1" not in text(before)
    await forwarding.ensure(NOTHING)
    assert (text(sysctl / ALL_IPV6), text(sysctl / "ipv6/conf/eth0/accept_ra")) == ("0", "1")


async def test_hosts_on_a_lan_see_who_asks_where_their_owner_wants_that(
    sysctl: Path, eth1: Path, nft: Path, tmp_path: Path
) -> None:
    forwarding = Forwarding(INTERFACE, tmp_path / "before.json", settings=sysctl)
    await forwarding.ensure(dataclasses.replace(LAN, masquerade=False))
    assert "masquerade" not in text(nft)


# --- on this one --------------------------------------------------------------------------------------------


@pytest.mark.netns
@pytest.mark.parametrize("masquerade", [True, False])
@pytest.mark.parametrize("hub", [True, False])
def test_nft_prints_the_table_as_it_is_written(hub: bool, masquerade: bool) -> None:
    """Else it would be set anew at each look."""
    wanted = DesiredForwarding(
        mesh=HUB.mesh,
        hub=hub,
        lans=("192.168.7.0/24", "192.168.8.9/32", "fd07::/64") if hub else (),
        exits=(
            LanExit(prefix="192.168.5.0/24", devices=("eth1", "eth2.5")),
            LanExit(prefix="192.168.6.1/32", devices=("eth1",)),
            LanExit(prefix="fd05::/64", devices=("eth1",)),
            LanExit(prefix="fd06::1/128", devices=("eth1",)),
        ),
        masquerade=masquerade,
    )
    closed = [("eth1", "ipv6"), ("eth1", "ipv4")]
    rules = render_table(TABLE, INTERFACE, wanted, answers=True, ipv6_closed=True, closed=closed)
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


def rules_of(table: Path) -> list[str]:
    """Returns the table's rules, without where they hang."""
    lines = [line.strip() for line in text(table).splitlines() if line.startswith("\t\t")]
    return [line for line in lines if not line.startswith("type ")]


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def put(path: Path, value: str) -> None:
    path.write_text(value)


def remove(path: Path) -> None:
    path.unlink()

"""A lab file is read strictly, and turned into addresses, routes and rules without touching a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshlab import LabError, parse_lab
from meshlab.faults import fault_rules
from meshlab.network import router_rules
from meshlab.spec import DropSpec
from meshlab.wiring import plan_wiring

_LABS = Path(__file__).resolve().parents[2] / "scripts" / "netns" / "labs"
_LAN = "[lans.lan0]\nipv4 = '10.9.0.0/24'\nipv6 = 'fd09::/64'\n"
_NODE = "[nodes.alpha]\nlans = ['lan0']\n"


@pytest.mark.parametrize("path", sorted(_LABS.glob("*.toml")), ids=lambda path: path.name)
def test_shipped_labs_are_good(path: Path) -> None:
    spec = parse_lab(path)
    assert spec.name == path.stem
    plan_wiring(spec)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = \n", "not a lab file"),
        ("colour = 'red'\n", "unknown key 'colour'"),
        ("name = 'x'\n", "at least one LAN"),
        (_LAN, "at least one LAN and one node"),
        (_LAN + "[nodes.alpha]\nlans = ['lan9']\n", "nodes.alpha.lans: there is no 'lan9'"),
        (_LAN + "[nodes.alpha]\nlans = []\n", "nodes.alpha.lans is empty"),
        (_LAN + "[nodes.alpha]\nlans = 'lan0'\n", "nodes.alpha.lans must be a list of names"),
        (_LAN + "[nodes.Alpha_1]\nlans = ['lan0']\n", "not a usable name"),
        ("[lans.lan0]\n" + _NODE, "neither ipv4 nor ipv6"),
        ("[lans.lan0]\nipv4 = '10.9.0.1/24'\n" + _NODE, "has host bits set"),
        (_LAN + "mtu = 70000\n" + _NODE, "lans.lan0.mtu is 70000"),
        (_LAN + "mtu = true\n" + _NODE, "mtu must be an integer"),
        ("[lans.averyverylong]\nipv4 = '10.9.0.0/24'\n" + _NODE, "not a usable name"),
        (_LAN + _NODE + "[routers.r1]\ninside = ['lan0']\nnat = 'cone'\n", "nat is 'cone'"),
        (_LAN + _NODE + "[routers.r1]\ninside = ['lan0']\nnat = 'masquerade'\n", "has no outside"),
        (_LAN + _NODE + "[routers.alpha]\ninside = ['lan0']\n", "both a node and a router"),
        (_LAN + _NODE + "[[drops]]\nfrom = ['alpha']\nto = ['zulu']\n", "there is no 'zulu'"),
        (_LAN + _NODE + "[[drops]]\nfrom = ['alpha']\nto = ['alpha']\npercent = 101\n", "percent is 101"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(LabError, match=said):
        parse_lab(text)


def test_a_prefix_without_room_is_refused() -> None:
    spec = parse_lab("[lans.lan0]\nipv4 = '10.9.0.0/29'\n" + _NODE)
    with pytest.raises(LabError, match="no room for host 11 in"):
        plan_wiring(spec)


def test_nodes_count_from_eleven_and_routers_from_one() -> None:
    wiring = plan_wiring(parse_lab(_LAN + _NODE + "[nodes.bravo]\nlans = ['lan0']\n" + _router()))
    assert [str(a) for a in wiring.addresses("alpha")] == ["10.9.0.11", "fd09::b"]
    assert [str(a) for a in wiring.addresses("bravo")] == ["10.9.0.12", "fd09::c"]
    assert [str(a) for a in wiring.addresses("r1")] == ["10.9.0.1", "fd09::1"]


def test_a_router_that_blocks_icmp_says_nothing_of_packets_that_are_too_big() -> None:
    router = "[routers.r1]\ninside = ['lan0']\nblock = ['icmp']\n"
    spec = parse_lab(_LAN + _NODE + router)
    rules = router_rules(spec.routers["r1"], plan_wiring(spec))
    assert "type filter hook output" in rules
    assert "icmp type destination-unreachable drop" in rules
    assert "icmpv6 type packet-too-big drop" in rules


def test_a_router_that_only_routes_has_no_rules() -> None:
    spec = parse_lab(_LAN + _NODE + _router())
    assert router_rules(spec.routers["r1"], plan_wiring(spec)) == ""


def test_a_lost_share_is_thrown_for_once_and_then_returns() -> None:
    spec = parse_lab(_LAN + _NODE + "[nodes.bravo]\nlans = ['lan0']\n")
    drop = DropSpec(sources=("alpha",), targets=("bravo",), percent=2.5)
    rules = [line.strip() for line in fault_rules([drop], spec, plan_wiring(spec)).splitlines()]
    assert 'iifname { "p0" } oifname { "p1" } numgen random mod 100000 < 2500 drop' in rules
    assert 'iifname { "p0" } oifname { "p1" } return' in rules


def _router() -> str:
    return "[routers.r1]\ninside = ['lan0']\n"

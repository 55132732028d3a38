"""Advertised LANs: what is one, who leads to it, and what of this machine stands in the way."""

from __future__ import annotations

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.addressing.claims import Claim
from meshpeer.core.addressing.lans import LANS_MAX, conflict_of, devices_towards, resolve_lans
from meshpeer.core.addressing.overlap import Route
from meshpeer.core.errors import LocalFault
from meshpeer.core.identity.constraints import ROUTES_MAX
from meshpeer.core.ids import NodeId
from meshpeer.core.records.routes import check_routes, route_fault

MESH = (ipaddress.ip_network("10.10.0.0/24"), ipaddress.ip_network("fd01:2:3::/64"))


# --- what is a LAN ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["192.168.5.0/24", "10.0.0.0/8", "172.16.3.9/32", "203.0.113.0/24", "fd05::/64", "2001:db8::/32"]
)
def test_a_network_behind_a_node_is_a_lan(text: str) -> None:
    assert route_fault(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "8.0.0.0/7", "::/0", "8000::/1", "2000::/3",
        "127.0.0.0/8", "127.0.0.1/32", "169.254.0.0/16", "169.254.169.254/32", "168.0.0.0/7", "224.0.0.0/8",
        "255.255.255.255/32", "0.0.0.0/8", "::1/128", "::ffff:0:0/96", "fe80::/64", "ff02::/16",
        "192.168.5.1/24", "192.168.5.0", "192.168.5.0/33", "192.168.5.0/255.255.255.0", "192.168.05.0/24",
        "FD05::/64", "fd05:0::/64", "lan", "", " 192.168.5.0/24", "1" * 5_000,
    ],
)  # fmt: skip
def test_what_means_something_else_everywhere_is_none(text: str) -> None:
    assert route_fault(text)


@given(st.text(max_size=50) | st.binary(max_size=20).map(repr))
def test_any_text_is_judged(text: str) -> None:
    if not route_fault(text):
        assert str(ipaddress.ip_network(text)) == text


def test_settings_become_canonical() -> None:
    given = ["FD05::/64", "192.168.5.0/255.255.255.0", "192.168.5.0/24"]
    assert check_routes(given, "here") == ("192.168.5.0/24", "fd05::/64")


@pytest.mark.parametrize(
    ("routes", "what", "hint"),
    [
        (["192.168.5.7/24"], "here: 192.168.5.7/24 has host bits", "did you mean 192.168.5.0/24?"),
        (["office"], "here: 'office' can't be advertised", "for example 192.168.5.0/24"),
        (["192.168.5.0"], "ADDRESS/LENGTH", "for example"),
        (["0.0.0.0/0"], "as wide as a default route", "for example"),
        (["127.0.0.0/8"], "loopback, link-local", "for example"),
        ([f"192.168.{one}.0/24" for one in range(ROUTES_MAX + 1)], "9 routes are too many", "up to 8"),
    ],
)
def test_a_wrong_setting_says_what_and_what_to_do(routes: list[str], what: str, hint: str) -> None:
    with pytest.raises(LocalFault) as caught:
        check_routes(routes, "here")
    assert what in caught.value.what
    assert hint in caught.value.hint


# --- who leads there ----------------------------------------------------------------------------------------

claims = st.builds(
    lambda number, lan, durable, at: Claim(
        node=NodeId(bytes([number]) * 32), value=lan, durable=durable, admitted_at=at
    ),
    st.integers(0, 5),
    st.sampled_from(("192.168.5.0/24", "192.168.0.0/16", "fd05::/64", "10.10.0.0/25", "10.0.0.0/8")),
    st.booleans(),
    st.integers(0, 2),
)


@given(st.lists(claims, max_size=12), st.sets(st.integers(0, 5)), st.randoms(use_true_random=False))
def test_each_lan_has_one_holder_in_whatever_order_and_none_is_the_meshs_own(
    crowd: list[Claim], gone: set[int], dice: random.Random
) -> None:
    doubted = [NodeId(bytes([one]) * 32) for one in sorted(gone)]
    found = resolve_lans(crowd, mesh=MESH, doubted=doubted)
    shuffled = list(crowd)
    dice.shuffle(shuffled)
    assert resolve_lans(shuffled, mesh=MESH, doubted=doubted) == found
    assert list(found) == sorted({one.value for one in crowd} - {"10.10.0.0/25", "10.0.0.0/8"})
    for lan, holder in found.items():
        best = min((one.node in doubted, one.rank) for one in crowd if one.value == lan)
        assert holder == best[1][2]


def test_who_was_admitted_first_leads_until_it_is_doubted() -> None:
    first, second = claim(9, admitted_at=1), claim(1, admitted_at=2)
    assert resolve_lans([first, second], mesh=(), doubted=()) == {first.value: first.node}
    assert resolve_lans([first, second], mesh=(), doubted=[first.node]) == {first.value: second.node}
    assert resolve_lans([first, second], mesh=(), doubted=[first.node, second.node]) == {
        first.value: first.node
    }


def test_of_too_many_lans_those_of_the_earliest_members_count() -> None:
    early = [claim(1, lan=f"10.{one // 256}.{one % 256}.0/24", admitted_at=5) for one in range(LANS_MAX)]
    late = claim(2, lan="10.200.0.0/24", admitted_at=6)
    first = claim(3, lan="10.201.0.0/24", admitted_at=4)
    found = resolve_lans([late, *early, first], mesh=(), doubted=())
    assert len(found) == LANS_MAX
    assert first.value in found
    assert late.value not in found


# --- this machine's own -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "met"),
    [
        ("192.168.5.0/24", True), ("192.168.5.128/25", True), ("192.168.5.7/32", True),
        ("192.168.0.0/16", True), ("192.168.6.0/24", False), ("0.0.0.0/0", False), ("128.0.0.0/1", False),
        ("::/0", False), ("fd05::/64", False),
    ],
)  # fmt: skip
def test_an_equal_inner_or_outer_network_is_a_conflict_and_a_default_route_is_none(
    prefix: str, met: bool
) -> None:
    route = Route(prefix=prefix, device="eth1", on_link=False)
    assert conflict_of("192.168.5.0/24", [route]) == (route if met else None)
    assert devices_towards("192.168.5.0/24", [route]) == (("eth1",) if met else ())


def test_an_attached_network_is_named_first() -> None:
    routed = Route(prefix="192.168.0.0/16", device="eth0", on_link=False)
    attached = Route(prefix="192.168.5.0/24", device="eth1", on_link=True)
    assert conflict_of("192.168.5.0/24", [routed, attached]) == attached
    assert devices_towards("192.168.5.0/24", [attached, routed, attached]) == ("eth0", "eth1")


# --- helpers ------------------------------------------------------------------------------------------------


def claim(number: int, *, lan: str = "192.168.5.0/24", admitted_at: int) -> Claim:
    return Claim(node=NodeId(bytes([number]) * 32), value=lan, durable=True, admitted_at=admitted_at)

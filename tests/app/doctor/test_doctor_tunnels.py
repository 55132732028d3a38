"""What the doctor makes of the interface, tunnels, routers, forwarding and routes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshpeer.app.doctor.tunnels import (
    InterfaceSeen,
    TunnelSeen,
    WidthSeen,
    judge_forwarding,
    judge_interface,
    judge_router,
    judge_routes,
    judge_tunnels,
    judge_widths,
)
from meshpeer.core.paths.reflections import CHANGING, NONE, STEADY, UNKNOWN
from meshpeer.runtime.doctor import Finding

WELL = InterfaceSeen(
    name="wg0", backend="kernel", there=True, up=True, mtu=1420, mtu_wanted=1420, steps=(), drift=("a peer",)
)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (WELL, ["interface ok", "mtu ok"]),
        (replace(WELL, backend="none", there=False), ["interface ok"]),
        (replace(WELL, fault=("no wg", "install it")), ["interface bad"]),
        (replace(WELL, there=False), ["interface bad"]),
        (replace(WELL, up=False), ["interface bad", "mtu ok"]),
        (replace(WELL, steps=("SetPeer",)), ["interface warning", "mtu ok"]),
        (replace(WELL, mtu=1280), ["interface ok", "mtu warning"]),
        (replace(WELL, drift_ago_s=60.0), ["interface ok", "mtu ok", "drift warning"]),
        (replace(WELL, drift_ago_s=700.0), ["interface ok", "mtu ok"]),
    ],
)
def test_an_interface_against_its_plan(seen: InterfaceSeen, expected: list[str]) -> None:
    assert shown(judge_interface(seen)) == expected


def width(mtu: int, underlay_bytes: int) -> WidthSeen:
    return WidthSeen(name="bravo", mtu=mtu, underlay_bytes=underlay_bytes)


@pytest.mark.parametrize(
    ("widths", "expected", "says"),
    [
        ([], [], ""),
        ([width(1420, 1500), width(8960, 9020)], ["widths ok"], "2 of 2 paths"),
        ([width(1420, 1500), width(1412, 1492)], ["widths ok"], "bravo (MTU 1412: packets of 1492 bytes)"),
        ([width(1220, 1280)], ["widths warning"], "UDP over IPv6"),
    ],
)
def test_narrow_paths_are_named_and_what_suffers_there(
    widths: list[WidthSeen], expected: list[str], says: str
) -> None:
    found = judge_widths(widths, 1420)
    assert shown(found) == expected
    assert all(says in one.text for one in found)


def test_a_node_that_may_not_probe_is_told_why_and_what_to_do() -> None:
    (found,) = judge_widths([], 1420, ("Operation not permitted", "run as root"))
    assert (found.level, found.todo) == ("warning", ("run as root",))


def tunnel(name: str, ago_s: float | None, *, alive: bool = True) -> TunnelSeen:
    return TunnelSeen(name=name, handshake_ago_s=ago_s, alive=alive)


@pytest.mark.parametrize(
    ("tunnels", "uptime_s", "expected"),
    [
        ([], 99, ["handshakes ok"]),
        ([tunnel("bravo", 5), tunnel("charlie", 179)], 99, ["handshakes ok"]),
        ([tunnel("bravo", 5), tunnel("charlie", 181)], 99, ["handshakes ok", "handshakes warning"]),
        ([tunnel("bravo", 400), tunnel("charlie", None)], 99, ["handshakes bad"]),
        ([tunnel("bravo", None)], 5, ["handshakes unknown"]),
        ([tunnel("bravo", 400)], 5, ["handshakes bad"]),
        ([tunnel("bravo", 400, alive=False)], 99, ["lost warning"]),
        ([tunnel("bravo", 5), tunnel("charlie", None, alive=False)], 99, ["handshakes ok", "lost warning"]),
        ([tunnel("bravo", -3_600)], 99, ["handshakes bad"]),
    ],
)
def test_tunnels_by_their_handshakes(tunnels: list[TunnelSeen], uptime_s: float, expected: list[str]) -> None:
    assert shown(judge_tunnels(tunnels, 51820, uptime_s)) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((None, None), []),
        ((True, None), ["pings ok"]),
        ((True, False), ["pings warning"]),
        ((False, False), ["pings warning"]),
    ],
)
def test_pings_tell_what_a_handshake_does_not_say_yet(
    answers: tuple[bool | None, ...], expected: list[str]
) -> None:
    tunnels = [replace(tunnel(name, 5), answers=one) for name, one in zip("ab", answers, strict=True)]
    assert shown(judge_tunnels(tunnels, 51820, 99)) == ["handshakes ok", *expected]


def test_tunnels_that_fail_are_named_since_when_and_with_what_explains_them() -> None:
    (found,) = judge_tunnels([tunnel("bravo", 400), tunnel("charlie", None)], 51820, 99)
    assert "UDP 51820" in found.text
    assert "bravo (since 6 min 40 s) and charlie (never)" in found.text
    assert found.todo[-1] == "meshpeer why bravo"


@pytest.mark.parametrize(
    ("router", "named", "level"),
    [
        (NONE, False, "ok"),
        (STEADY, False, "ok"),
        (CHANGING, False, "warning"),
        (CHANGING, True, "ok"),
        (UNKNOWN, False, "unknown"),
    ],
)
def test_a_router_by_what_members_see_of_it(router: str, named: bool, level: str) -> None:
    assert shown(judge_router(router, 51820, fresh=True, has_endpoint=named)) == [f"router {level}"]


def test_who_forwards_nothing_has_nothing_to_be_judged() -> None:
    assert judge_forwarding(hub=False, lans=(), fault=None, said=()) == []


def test_forwarding_that_fails_or_that_others_miss_is_bad() -> None:
    assert shown(judge_forwarding(hub=True, lans=("192.168.5.0/24",), fault=None, said=())) == [
        "forwarding ok"
    ]
    said = ["this node is no good hub, say bravo: it passes nothing on (look for a firewall)"]
    found = judge_forwarding(hub=True, lans=(), fault=("no nft", "install it"), said=said)
    assert shown(found) == ["forwarding bad", "hub bad"]
    assert found[1].todo == ("look for a firewall",)


def test_routes_that_meet_the_mesh_are_named() -> None:
    assert shown(judge_routes("10.10.0.0/24", [], [])) == ["subnet ok"]
    overlaps = [("10.10.0.0/25", "eth0", True), ("10.0.0.0/8", "eth1", False)]
    left_out = [("192.168.5.0/24 behind bravo is not routed here: own network", "rename it")]
    assert shown(judge_routes("10.10.0.0/24", overlaps, left_out)) == [
        "subnet bad",
        "subnet warning",
        "lan warning",
    ]


def shown(found: list[Finding]) -> list[str]:
    assert all(one.todo for one in found if one.level in ("bad", "warning")), "each says what to do"
    return [f"{one.check} {one.level}" for one in found]

"""``meshpeer why`` on real nodes: a tunnel of their own, a way by hubs, a third node's view, and UDP that is
dropped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import meshkit
import pytest
from meshlab import Lab, Node

from meshpeer.runtime.control import Why

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

REGIONS = {"eu": ("alpha", "bravo", "charlie"), "us": ("delta", "echo", "golf", "foxtrot")}
NAMES = tuple(itertools.chain.from_iterable(REGIONS.values()))
CUT_OFF = "foxtrot"
"""Never a hub: others' way must not depend on it."""
NO_UDP = """
table inet cut {
  chain in { type filter hook input priority 0; udp dport 51820 drop; }
  chain out { type filter hook output priority 0; udp dport 51820 drop; }
}
"""


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        founder = lab.node("alpha")
        meshkit.found(founder, "--topology", "regional", "--region", "eu")
        text = meshkit.invite(founder, "--uses", str(len(NAMES) - 2))
        cut_off = meshkit.invite(founder, "--deny", "hub")
        lab.node(CUT_OFF).run(["nft", "-f", "-"], input=NO_UDP)
        for region, names in REGIONS.items():
            for name in names:
                if name != "alpha":
                    meshkit.join(lab.node(name), cut_off if name == CUT_OFF else text, "--region", region)
        # One is never reached: whoever stands by for it waits for a minute before it takes over.
        meshkit.until(lambda: meshkit.hubs_are_settled(lab, NAMES), "all agree on the hubs", 150)
        yield lab


def test_a_tunnel_of_ones_own_is_told_with_its_rule_and_its_endpoint(lab: Lab) -> None:
    node = lab.node("alpha")
    meshkit.until(lambda: why(node, "bravo").verdict == "direct", "alpha reaches bravo", 30)
    found = why(node, "bravo")
    assert found.path == ("alpha", "bravo")
    assert [one.code for one in found.rule] == ["mode_chosen", "pair_region"]
    assert (found.unknown, found.todo) == ((), ())
    (tunnel,) = found.tunnels
    assert (tunnel.to, tunnel.works) == ("bravo", True)
    working = [one.endpoint for one in found.candidates if one.state == "working"]
    assert working == [tunnel.endpoint]


def test_a_way_by_hubs_is_the_way_of_the_plan_and_the_same_from_a_third_node(lab: Lab) -> None:
    hubs, standbys = plan_of(lab, "alpha")
    one, other = (edge(names, {*hubs, *standbys}) for names in REGIONS.values())
    node = lab.node(one)
    near, far = hub_of(hubs, one), hub_of(hubs, other)
    found = why(node, other)
    assert found.path == (one, near, far, other)
    assert [tunnel.to for tunnel in found.tunnels] == [near]
    codes = [one.code for one in found.rule]
    assert codes[:2] == ["mode_chosen", "pair_apart"]
    assert sum(code in ("hub_warm", "hub_drawn") for code in codes) == 2
    meshkit.until(lambda: meshkit.pings(node, f"{other}.mesh"), f"{one} pings {other}", 30)
    assert why(node, other).verdict == "hubs"
    third = lab.node(edge(REGIONS["eu"], {one, near}))
    seen = why(third, one, other)
    assert (seen.path, seen.verdict, seen.tunnels) == (found.path, "planned", ())
    assert f"run `meshpeer why {other}` on {one}" in seen.unknown[0]


def test_a_pair_whose_udp_is_dropped_says_what_was_tried_and_what_to_open(lab: Lab) -> None:
    node = lab.node(CUT_OFF)
    peer = edge(REGIONS["us"], {CUT_OFF})

    def given_up() -> bool:
        return any(one.state == "given_up" for one in why(node, peer).candidates)

    meshkit.until(given_up, "an endpoint was given up", 30)
    found = why(node, peer)
    assert (found.verdict, found.path) == ("link", (CUT_OFF, peer))
    assert "has never had a handshake" in found.answer
    assert {one.state for one in found.candidates} <= {"given_up", "trying", "untried"}
    assert found.todo[0].startswith(f"open UDP 51820 on {peer} or on {CUT_OFF}")
    shown = meshkit.meshpeer(node, "why", peer).splitlines()
    assert max(map(len, shown)) <= 80
    assert {"Why", f"The tunnel to {peer}: no handshake yet", "What to do"} <= {*shown}


def test_what_is_no_path_is_refused_with_what_to_do(lab: Lab) -> None:
    node = lab.node("alpha")
    assert meshkit.fails(node, 2, "why", "alpha").what == "alpha has no path to itself"
    assert meshkit.fails(node, 2, "why", "bravoo").hint == "did you mean 'bravo'?"


def test_a_member_that_left_is_told_so(lab: Lab) -> None:
    node = lab.node("alpha")
    gone = edge(REGIONS["eu"], {"alpha", *plan_of(lab, "alpha")[0]})
    meshkit.meshpeer(lab.node(gone), "leave")
    meshkit.until(lambda: meshkit.peers(node)[gone].state == "left", f"alpha hears that {gone} left", 30)
    assert f"{gone} has left the mesh for good" in meshkit.fails(node, 2, "why", gone).what


# --- helpers ------------------------------------------------------------------------------------------------


def why(node: Node, *names: str) -> Why:
    return meshkit.ask(node, Why, "why", *names)


def plan_of(lab: Lab, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    plan = meshkit.plan(lab.node(name))
    return plan.hubs, plan.standbys


def edge(names: tuple[str, ...], but: set[str]) -> str:
    """Returns the first member of a region that is none of these."""
    return next(name for name in names if name not in but)


def hub_of(hubs: tuple[str, ...], name: str) -> str:
    region = next(names for names in REGIONS.values() if name in names)
    return next(hub for hub in hubs if hub in region)

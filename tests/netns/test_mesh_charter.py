"""A charter that is changed while the mesh runs: topology there and back under traffic, a wider subnet,
refusals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import meshkit
import pytest
from meshlab import Lab, Node

pytestmark = [pytest.mark.netns, pytest.mark.slow]

REGIONS = {"eu": ("alpha", "bravo", "charlie"), "us": ("delta", "echo", "foxtrot")}
NAMES = tuple(itertools.chain.from_iterable(REGIONS.values()))


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        founder = lab.node("alpha")
        meshkit.found(founder, "--topology", "full", "--region", "eu")
        text = meshkit.invite(founder, "--uses", str(len(NAMES) - 1))
        for region, names in REGIONS.items():
            for name in names:
                if name != "alpha":
                    meshkit.join(lab.node(name), text, "--region", region)
        all_ping(lab)
        yield lab


def test_a_mesh_goes_regional_and_full_again_while_it_runs(lab: Lab) -> None:
    """Pairs that are idle move to hubs, one that has traffic keeps its tunnel; back, all have their own."""
    founder = lab.node("alpha")
    meshkit.meshpeer(founder, "charter", "set", "--topology", "regional", "--idle", "5s")
    meshkit.until(lambda: modes(lab) == {"regional"}, "all are regional", 30)
    meshkit.until(lambda: all(len(meshkit.plan(lab.node(name)).hubs) == 2 for name in NAMES), "two hubs", 60)
    plan = meshkit.plan(founder)
    edges = [name for name in NAMES if name not in {*plan.hubs, *plan.standbys}]
    one, other = next(pair for pair in itertools.permutations(edges, 2) if apart(*pair))
    meshkit.until(lambda: path(lab, one, other) == path(lab, other, one) == "hub", "they move", 90)
    all_ping(lab)
    meshkit.meshpeer(founder, "charter", "set", "--topology", "full")
    meshkit.until(lambda: modes(lab) == {"full"}, "all are full", 30)
    meshkit.until(
        lambda: all(path(lab, a, b) == "direct" for a, b in itertools.permutations(NAMES, 2)),
        "all pairs have tunnels of their own",
        90,
    )
    all_ping(lab)


def test_a_subnet_grows_and_nobody_gets_another_address(lab: Lab) -> None:
    founder = lab.node("alpha")
    before = {name: meshkit.status(lab.node(name)).node.ipv4 for name in NAMES}
    meshkit.meshpeer(founder, "charter", "set", "--subnet", "10.10.0.0/20")
    for name in NAMES:
        node = lab.node(name)
        wanted = f"{before[name]}/20"
        meshkit.until(lambda: wanted in addresses(node), f"{name} has {wanted}", 30)  # noqa: B023
        assert f"{before[name]}/24" not in addresses(node)
    assert {name: meshkit.status(lab.node(name)).node.ipv4 for name in NAMES} == before
    all_ping(lab)


def test_what_no_mesh_can_be_and_whoever_may_not_is_refused(lab: Lab) -> None:
    founder, member = lab.node("alpha"), lab.node("delta")
    version = shown_version(founder)
    foreign = founder.run(["meshpeer", "charter", "set", "--subnet", "10.99.0.0/24"], check=False)
    assert foreign.returncode == 2
    assert "does not contain" in foreign.stderr
    refused = member.run(["meshpeer", "charter", "set", "--mtu", "1380"], check=False)
    assert refused.returncode == 4
    assert "does not allow `admin`" in refused.stderr
    narrow = founder.run(["meshpeer", "charter", "set", "--mtu", "500"], check=False)
    assert narrow.returncode == 2
    assert shown_version(founder) == version


# --- helpers ------------------------------------------------------------------------------------------------


def apart(one: str, other: str) -> bool:
    return not any({one, other} <= set(names) for names in REGIONS.values())


def path(lab: Lab, one: str, other: str) -> str:
    return meshkit.peers(lab.node(one))[other].path


def modes(lab: Lab) -> set[str]:
    return {meshkit.plan(lab.node(name)).mode for name in NAMES}


def addresses(node: Node) -> str:
    return node.run(["ip", "-br", "-4", "address", "show", "wg0"]).stdout


def shown_version(node: Node) -> str:
    return meshkit.meshpeer(node, "charter", "show", "--json").split('"version":')[1].split(",")[0].strip()


def all_ping(lab: Lab) -> None:
    for one, other in itertools.permutations(NAMES, 2):
        node = lab.node(one)
        meshkit.until(lambda: meshkit.pings(node, f"{other}.mesh"), f"{one} pings {other}", 30)  # noqa: B023

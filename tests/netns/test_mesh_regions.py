"""Three regions of three machines: traffic between regions goes by hubs, which forward nothing else, and a
hub that dies, or whose agent lives and carries nothing, is replaced."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from xml.etree import ElementTree

import meshkit
import pytest
from meshlab import Lab, Node

from meshpeer.app.cli.map_model import MeshMap

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

REGIONS = {
    "eu": ("alpha", "bravo", "charlie"),
    "us": ("delta", "echo", "foxtrot"),
    "ap": ("golf", "hotel", "india"),
}
NAMES = tuple(itertools.chain.from_iterable(REGIONS.values()))
SETTLED_WITHIN_S = 120.0
"""One that stands by waits for half a minute before it takes over, a minute where tunnels can't be made."""
REPLACED_WITHIN_S = 15.0
HELD_PINGS = ["ping", "-n", "-q", "-c", "200", "-i", "0.1"]
"""Twenty seconds of them: a hub that comes and goes would lose some."""
FAULTS = {
    # First what is not taken back soon: a hub that comes back moves traffic while the next test looks.
    "it passes nothing on": """table inet fault {
  chain f { type filter hook forward priority 0; policy drop; }
}""",
    "its tunnel carries nothing": """table inet fault {
  chain i { type filter hook input priority 0; udp dport 51820 drop; }
  chain o { type filter hook output priority 0; udp sport 51820 drop; }
}""",
}
TABLE = ["nft", "list", "table", "inet", "meshpeer_wg0"]


@pytest.fixture(scope="module")
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        founder = lab.node("alpha")
        meshkit.found(founder, "--topology", "regional", "--region", "eu")
        text = meshkit.invite(founder, "--uses", str(len(NAMES) - 1))
        for region, names in REGIONS.items():
            for name in names:
                if name != "alpha":
                    meshkit.join(lab.node(name), text, "--region", region)
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Lab:
    """The mesh with every region carried by one hub that all agree on, and every pair connected.

    Who ranks first takes over from whoever was there before, so hubs change until all have been up for a
    while.
    """
    meshkit.until(
        lambda: meshkit.hubs_are_settled(shared_lab, NAMES), "all agree on the hubs", SETTLED_WITHIN_S
    )
    for one, other in itertools.permutations(NAMES, 2):
        node = shared_lab.node(one)
        meshkit.until(lambda: meshkit.pings(node, f"{other}.mesh"), f"{one} pings {other}", 30)  # noqa: B023
    return shared_lab


def test_traffic_between_regions_goes_by_hubs(lab: Lab) -> None:
    (hubs,) = hubs_seen(lab)
    assert len(hubs) == len(REGIONS)
    for name in NAMES:
        node = lab.node(name)
        mine = region_of(name)
        keeps = meshkit.plan(node).keeps
        for other, peer in meshkit.peers(node).items():
            # Who was a hub a moment ago, and had traffic, keeps its tunnel until that is idle.
            direct = peer.region == mine or {name, other} <= set(hubs) or other in keeps
            assert peer.path == ("direct" if direct else "hub"), (name, other)
            if not direct:
                assert region_of(peer.via) == (peer.region if name in hubs else mine), (name, other)


def test_a_map_shows_regions_hubs_and_this_nodes_own_paths(lab: Lab) -> None:
    (hubs,) = hubs_seen(lab)
    for name in ("alpha", hubs[-1]):
        node = lab.node(name)

        def agrees(node: Node = node) -> bool:
            peers = meshkit.peers(node)
            found = meshkit.ask(node, MeshMap, "map")
            return {one.target: (one.path, one.via) for one in found.paths} == {
                other: (peer.path, peer.via) for other, peer in peers.items()
            }

        meshkit.until(agrees, f"the map of {name} shows the paths that its peers shows")
        found = meshkit.ask(node, MeshMap, "map")
        assert {one.name: set(one.members) for one in found.regions} == {
            region: set(names) for region, names in REGIONS.items()
        }
        assert sorted(hub for one in found.regions for hub in one.hubs) == sorted(hubs)
        between = {frozenset((one.source, one.target)) for one in found.planned}
        assert {frozenset(pair) for pair in itertools.combinations(hubs, 2) if name not in pair} <= between
        assert not any(name in pair for pair in between)
        lines = meshkit.meshpeer(node, "map").splitlines()
        assert max(map(len, lines)) <= 80
        assert all(any(f" {other} " in line for line in lines) for other in NAMES)
        ElementTree.fromstring(meshkit.meshpeer(node, "map", "--svg", "-"))


def test_a_hub_forwards_within_the_mesh_and_nowhere_else(lab: Lab) -> None:
    for name in NAMES:
        node = lab.node(name)
        plan = meshkit.plan(node)
        assert plan.forwards is (name in plan.hubs or name in plan.standbys)
        listed = node.run(TABLE, check=False)
        assert (listed.returncode == 0) is plan.forwards, name
        assert setting(node, "all") == "0", "no router for others"
        wanted = "1" if plan.forwards else "0"
        assert setting(node, "wg0") == wanted, name


def test_a_hub_whose_machine_dies_is_replaced_and_comes_back_quietly(lab: Lab) -> None:
    (hubs,) = hubs_seen(lab)
    lost = next(hub for hub in hubs if region_of(hub) != "eu")
    near = next(name for name in REGIONS[region_of(lost)] if name != lost)
    far = next(name for name in REGIONS["eu"] if name not in hubs and name not in standbys(lab))
    node = lab.node(near)
    lab.unplug(lost)
    meshkit.until(lambda: meshkit.pings(node, f"{far}.mesh"), f"{near} pings {far} again", 30)
    others = tuple(name for name in NAMES if name != lost)
    meshkit.until(lambda: lost not in next(iter(hubs_seen(lab, others))), "another hub has taken over", 30)
    lab.plug(lost)
    meshkit.until(lambda: meshkit.pings(lab.node(lost), f"{far}.mesh"), f"{lost} pings {far}", 60)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_that_carries_nothing_is_replaced_while_its_agent_lives_and_stays_so(
    lab: Lab, fault: str
) -> None:
    (hubs,) = hubs_seen(lab)
    spare = {*hubs, *standbys(lab)}
    lost = next(hub for hub in hubs if region_of(hub) != "eu")
    near = next(name for name in REGIONS[region_of(lost)] if name not in spare)
    far = next(name for name in NAMES if region_of(name) != region_of(lost) and name not in spare)
    node, hub = lab.node(near), lab.node(lost)
    meshkit.until(
        lambda: all(peer.probed for name, peer in meshkit.peers(node).items() if name in spare),
        "all hubs are known to answer",
        60,
    )
    hub.run(["nft", "-f", "-"], input=FAULTS[fault])
    try:
        meshkit.until(lambda: lost not in meshkit.plan(node).hubs, f"{lost} is replaced", REPLACED_WITHIN_S)
        meshkit.until(lambda: meshkit.pings(node, f"{far}.mesh"), f"{near} pings {far} again", 10)
        others = tuple(name for name in NAMES if name != lost)
        meshkit.until(lambda: len(hubs_seen(lab, others)) == 1, "all others agree", 10)
        said = f"hub {lost} is reported by "
        for line in (*meshkit.plan(lab.node(far)).reported, *meshkit.status(lab.node(far)).warnings):
            assert not line.startswith(said) or (near in line and fault in line)
        assert any(line.startswith(said) for line in meshkit.plan(lab.node(far)).reported)
        reported = meshkit.peers(lab.node(far))[lost].reported
        assert near in reported
        assert f": {fault}" in reported
        assert any("look for a firewall" in line for line in meshkit.status(hub).warnings)
        with meshkit.pinging(node, f"{far}.mesh"):
            node.run([*HELD_PINGS, f"{far}.mesh"])
        assert lost not in meshkit.plan(node).hubs
    finally:
        hub.run(["nft", "delete", "table", "inet", "fault"])


# --- helpers ------------------------------------------------------------


def region_of(name: str) -> str:
    return next(region for region, names in REGIONS.items() if name in names)


def hubs_seen(lab: Lab, names: tuple[str, ...] = NAMES) -> set[tuple[str, ...]]:
    """Returns the sets of active hubs that members believe in: one where they agree."""
    return {meshkit.plan(lab.node(name)).hubs for name in names}


def standbys(lab: Lab) -> tuple[str, ...]:
    return meshkit.plan(lab.node("alpha")).standbys


def setting(node: Node, interface: str) -> str:
    return node.run(["cat", f"/proc/sys/net/ipv4/conf/{interface}/forwarding"]).stdout.strip()

"""A mesh outlives killed agents, hands on the interface, partitions, and members that go and come."""

from __future__ import annotations

import json
from collections.abc import Iterator

import meshkit
import pytest
from meshlab import Lab, Node

pytestmark = [pytest.mark.netns, pytest.mark.slow]

NAMES = ("alpha", "bravo", "charlie")
IPV4 = {"alpha": "10.10.0.1", "bravo": "10.10.0.10", "charlie": "10.10.0.11"}


@pytest.fixture(scope="module")
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        meshkit.found_mesh(lab, *NAMES)
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Lab:
    """The mesh, whole: every member alive, and reached by a tunnel, for every other."""
    meshkit.wait_until_whole(shared_lab, *NAMES)
    return shared_lab


def test_a_killed_agent_leaves_its_tunnels_and_comes_back_as_it_was(lab: Lab) -> None:
    alpha, bravo, charlie = (lab.node(name) for name in NAMES)
    before = meshkit.status(charlie).node
    keys = {node.name: meshkit.interface_keys(node) for node in (alpha, bravo, charlie)}
    with (
        meshkit.pinging(bravo, IPV4["charlie"]),
        meshkit.pinging(charlie, IPV4["alpha"]),
        meshkit.pinging(alpha, IPV4["bravo"]),
    ):
        meshkit.kill_agent(charlie)
        assert meshkit.fails(charlie, 3, "status").hint == "start it with `meshpeer up`"
        meshkit.until(lambda: meshkit.peers(alpha)["charlie"].state == "dead", "alpha takes charlie for dead")
        assert "tunnel up" in meshkit.peers(alpha)["charlie"].because
        assert {node.name: meshkit.interface_keys(node) for node in (alpha, bravo, charlie)} == keys
        meshkit.meshpeer(charlie, "up", "--detach")
        meshkit.wait_until_whole(lab, *NAMES)
    after = meshkit.status(charlie).node
    for fact in ("id", "name", "ipv4", "ipv6", "public_key", "port", "admission"):
        assert getattr(after, fact) == getattr(before, fact)


def test_a_deleted_interface_is_made_again_and_reported(lab: Lab) -> None:
    bravo = lab.node("bravo")
    bravo.run(["ip", "link", "del", meshkit.INTERFACE])
    meshkit.until(lambda: meshkit.has_interface(bravo) and meshkit.pings(bravo, IPV4["alpha"]), "wg0 is back")
    meshkit.until(lambda: meshkit.pings(lab.node("charlie"), IPV4["bravo"]), "bravo is reached again")
    assert repairs(lab, "bravo") == "interface wg0 was gone"


def test_a_removed_peer_is_put_back_and_reported(lab: Lab) -> None:
    charlie = lab.node("charlie")
    keys = meshkit.interface_keys(charlie)
    key = meshkit.status(lab.node("alpha")).node.public_key
    charlie.run(["wg", "set", meshkit.INTERFACE, "peer", key, "remove"])
    meshkit.until(lambda: meshkit.interface_keys(charlie) == keys, "the peer is back")
    meshkit.until(lambda: meshkit.pings(charlie, IPV4["alpha"]), "alpha is reached again")
    meshkit.until(lambda: "alpha" in repairs(lab, "charlie"), "status says so")


def test_down_and_up_keep_a_member_what_it_is(lab: Lab) -> None:
    bravo, alpha = lab.node("bravo"), lab.node("alpha")
    before = meshkit.status(bravo).node
    meshkit.meshpeer(bravo, "down")
    meshkit.until(lambda: not bravo.pgrep("."), "everything of bravo has ended")
    assert not meshkit.has_interface(bravo)
    assert not meshkit.pings(alpha, IPV4["bravo"])
    # For the others it is still a member: only its own people may say otherwise.
    assert meshkit.status(alpha).members.total == 3
    assert before.public_key in meshkit.interface_keys(alpha)
    meshkit.meshpeer(bravo, "up", "--detach")
    after = meshkit.status(bravo).node
    assert (after.id, after.ipv4, after.public_key) == (before.id, before.ipv4, before.public_key)


def test_a_partition_removes_no_tunnel_and_heals(lab: Lab) -> None:
    keys = {name: meshkit.interface_keys(lab.node(name)) for name in NAMES}
    lab.partition(["alpha"], ["bravo", "charlie"])
    meshkit.until(
        lambda: all(meshkit.peers(lab.node(one))["alpha"].state == "dead" for one in ("bravo", "charlie")),
        "those that are two take the other for dead",
        40,
    )
    # Who is alone can't know: it calls nobody alive, and takes its time before it calls anybody dead.
    meshkit.until(
        lambda: all(meshkit.peers(lab.node("alpha"))[other].state != "alive" for other in NAMES[1:]),
        "alpha calls nobody alive",
        90,
    )
    assert meshkit.status(lab.node("alpha")).health == "alone"
    assert {name: meshkit.interface_keys(lab.node(name)) for name in NAMES} == keys
    assert meshkit.pings(lab.node("bravo"), IPV4["charlie"])
    assert not meshkit.pings(lab.node("bravo"), IPV4["alpha"])
    lab.heal()
    meshkit.wait_until_whole(lab, *NAMES)
    assert {name: meshkit.interface_keys(lab.node(name)) for name in NAMES} == keys
    assert {name: meshkit.status(lab.node(name)).node.ipv4 for name in NAMES} == IPV4


def test_a_member_that_leaves_is_gone_everywhere_and_may_join_anew(lab: Lab) -> None:
    alpha, bravo, charlie = (lab.node(name) for name in NAMES)
    before = meshkit.status(charlie).node
    said = meshkit.meshpeer(charlie, "leave")
    assert "2 members confirmed it" in said
    meshkit.until(lambda: not charlie.pgrep("."), "everything of charlie has ended")
    assert not meshkit.has_interface(charlie)
    for node in (alpha, bravo):
        wait_until_left(node, "charlie", before.public_key)
        assert (meshkit.status(node).members.total, meshkit.status(node).members.left) == (2, 1)
    failure = meshkit.fails(charlie, 2, "up", "--detach")
    assert "no node of a mesh" in failure.what
    meshkit.join(charlie, meshkit.invite(alpha))
    after = meshkit.status(charlie).node
    assert after.id != before.id
    assert after.name == "charlie"
    for target in ("alpha.mesh", "bravo.mesh"):
        charlie.run(["ping", "-c1", "-W2", target])
    documents = json.loads(meshkit.meshpeer(alpha, "peers", "--json"))
    states = sorted((one["name"], one["state"]) for one in documents)
    assert states == [("bravo", "alive"), ("charlie", "alive"), ("charlie", "left")]


def test_the_last_issuer_does_not_leave_by_accident(lab: Lab) -> None:
    alpha = lab.node("alpha")
    failure = meshkit.fails(alpha, 4, "leave")
    assert "last issuer" in failure.what
    assert "--force" in failure.hint
    assert meshkit.status(alpha).members.total == 3


# --- helpers ------------------------------------------------------------


def wait_until_left(node: Node, name: str, key: str) -> None:
    meshkit.until(lambda: meshkit.peers(node)[name].state == "left", f"{node.name} knows that {name} left")
    meshkit.until(lambda: key not in meshkit.interface_keys(node), f"{name} is off {node.name}'s interface")
    hosts = node.path("/etc/hosts")
    meshkit.until(lambda: f"{name}.mesh" not in hosts.read_text(), f"{node.name} forgot {name}'s address")


def repairs(lab: Lab, name: str) -> str:
    """Returns what a machine's status says was repaired last; empty where nothing was."""
    notices = [one for one in meshkit.status(lab.node(name)).warnings if one.startswith("repaired at ")]
    return notices[-1].split(": ", 1)[1] if notices else ""

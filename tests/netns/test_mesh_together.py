"""Three machines, two commands: they found and join, see each other, reach each other by address and name."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator

import meshkit
import pytest
from meshlab import Lab

from meshpeer.runtime.control import Agreement

pytestmark = pytest.mark.netns

NAMES = ("alpha", "bravo", "charlie")
IPV4 = {"alpha": "10.10.0.1", "bravo": "10.10.0.10", "charlie": "10.10.0.11"}
_STATUS_KEYS = {
    "": {"mesh", "node", "members", "health", "warnings"},
    "mesh": {"id", "name", "subnet", "topology", "topology_mode"},
    "node": {
        "id", "name", "region", "roles", "ipv4", "ipv6", "public_key", "backend", "interface", "port", "mtu",
    },
    "members": {"total", "alive", "suspect", "dead", "left"},
}  # fmt: skip
_PEER_KEYS = {
    "id", "name", "region", "roles", "ipv4", "ipv6", "state", "link", "path", "via", "endpoint",
    "last_handshake_s", "rtt_ms", "rx_bytes", "tx_bytes",
}  # fmt: skip
_PLAN_KEYS = {"mode", "hub", "hubs", "peers", "routes"}
_PLAN_PEER_KEYS = {"name", "public_key", "endpoint", "allowed_ips", "keepalive_s"}


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        yield lab


@pytest.fixture(scope="module")
def said(lab: Lab) -> dict[str, str]:
    """Founds the mesh; returns what each machine's first command printed."""
    alpha, bravo, charlie = (lab.node(name) for name in NAMES)
    printed = {"alpha": meshkit.found(alpha)}
    text = meshkit.invite(alpha, "--uses", "2")
    printed["bravo"] = meshkit.join(bravo, text)
    # The tunnel works as soon as join returns, in both directions.
    bravo.run(["ping", "-c1", "-W2", IPV4["alpha"]])
    alpha.run(["ping", "-c1", "-W2", IPV4["bravo"]])
    printed["charlie"] = meshkit.join(charlie, text, "-v")
    return printed


def test_a_first_command_prints_the_name_addresses_and_what_is_next(lab: Lab, said: dict[str, str]) -> None:
    for count, name in enumerate(NAMES, 1):
        first, *rest = said[name].splitlines()
        members = "1 member" if count == 1 else f"{count} members"
        assert first == f"{name} is ready in the mesh {meshkit.status(lab.node(name)).mesh.name} ({members})"
        assert rest[0].split()[:2] == ["addresses", IPV4[name]]
        assert ipaddress.ip_address(rest[0].split()[2]).version == 6
        assert "Next:" in rest
    assert any(line.startswith("Ready after ") for line in said["charlie"].splitlines())


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("name", NAMES)
def test_status_says_what_the_interface_promises(lab: Lab, name: str) -> None:
    node = lab.node(name)
    meshkit.until(lambda: meshkit.status(node).health == "ok", f"{name} is well")
    document = json.loads(meshkit.meshpeer(node, "status", "--json"))
    for part, keys in _STATUS_KEYS.items():
        assert keys <= set(document[part] if part else document)
    said = meshkit.status(node)
    assert said.mesh.subnet == "10.10.0.0/24"
    assert (said.mesh.topology, said.mesh.topology_mode) == ("auto", "full")
    assert (said.node.name, said.node.ipv4, said.node.port) == (name, IPV4[name], 51820)
    assert set(said.node.roles) == ({"scheduler", "compute"} if name == "alpha" else {"compute"})
    assert said.node.interface == meshkit.INTERFACE
    assert said.node.backend in ("kernel", "userspace")
    assert said.node.public_key == node.run(["wg", "show", "wg0", "public-key"]).stdout.strip()
    assert (said.members.total, said.members.alive) == (3, 3)


@pytest.mark.usefixtures("said")
def test_all_members_agree_soon_and_status_says_so(lab: Lab) -> None:
    whole = Agreement(agree=len(NAMES), total=len(NAMES))
    for name in NAMES:
        node = lab.node(name)
        meshkit.until(lambda: meshkit.status(node).agreement == whole, f"{name} agrees with all", 60)  # noqa: B023
        assert "  agreement  3/3" in meshkit.meshpeer(node, "status").splitlines()


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("name", NAMES)
def test_peers_says_what_the_interface_promises(lab: Lab, name: str) -> None:
    node, others = lab.node(name), set(NAMES) - {name}
    for other in others:
        node.run(["ping", "-c1", "-W2", IPV4[other]])
    meshkit.until(meshkit.sees_alive(node, *others), f"{name} has tunnels to {others}")
    for document in json.loads(meshkit.meshpeer(node, "peers", "--json")):
        assert set(document) >= _PEER_KEYS
    for peer in meshkit.peers(node).values():
        assert peer.ipv4 == IPV4[peer.name]
        assert peer.endpoint.endswith(":51820")
        assert peer.last_handshake_s is not None
        assert peer.rx_bytes > 0
        assert peer.tx_bytes > 0


@pytest.mark.usefixtures("said")
def test_every_pair_pings_by_address_and_by_name(lab: Lab) -> None:
    ipv6 = {name: meshkit.status(lab.node(name)).node.ipv6 for name in NAMES}
    mesh = meshkit.status(lab.node("alpha")).mesh.name
    for name in NAMES:
        for other in set(NAMES) - {name}:
            for target in (IPV4[other], ipv6[other], f"{other}.mesh", f"{other}.{mesh}.internal"):
                lab.node(name).run(["ping", "-c1", "-W2", target])


@pytest.mark.usefixtures("said")
def test_meshpeer_ping_goes_through_the_tunnel(lab: Lab) -> None:
    answer = json.loads(meshkit.meshpeer(lab.node("charlie"), "ping", "bravo", "--json"))
    assert (answer["node"], answer["address"], answer["over"]) == ("bravo", IPV4["bravo"], "tunnel")
    assert answer["rtt_ms"]
    assert all(rtt is not None for rtt in answer["rtt_ms"])
    failure = meshkit.fails(lab.node("charlie"), 2, "ping", "zulu")
    assert failure.what == "there is no member 'zulu'"
    assert set(failure.hint.removeprefix("members are: ").split(", ")) == set(NAMES)


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("name", NAMES)
def test_a_provisional_member_becomes_durable(lab: Lab, name: str) -> None:
    node = lab.node(name)
    meshkit.until(lambda: meshkit.status(node).node.admission == "durable", f"{name} is admitted")
    assert not [word for word in meshkit.status(node).warnings if "provisional" in word]


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("name", NAMES)
def test_a_settled_plan_changes_nothing(lab: Lab, name: str) -> None:
    node = lab.node(name)
    meshkit.until(lambda: not meshkit.plan(node).changes, f"the plan of {name} is settled")
    document = json.loads(meshkit.meshpeer(node, "plan", "--json"))
    assert set(document) >= _PLAN_KEYS
    assert all(set(peer) >= _PLAN_PEER_KEYS for peer in document["peers"])
    planned = meshkit.plan(node)
    assert (planned.mode, planned.hub, planned.hubs) == ("full", None, ())
    assert {peer.name for peer in planned.peers} == set(NAMES) - {name}
    for peer in planned.peers:
        assert f"{IPV4[peer.name]}/32" in peer.allowed_ips
        assert peer.keepalive_s == 25
    assert {peer.public_key for peer in planned.peers} == meshkit.interface_keys(node)


@pytest.mark.usefixtures("said")
def test_wg_quick_accepts_what_export_prints(lab: Lab) -> None:
    bravo = lab.node("bravo")
    bravo.put_file("/run/export/wg0.conf", meshkit.meshpeer(bravo, "export", "wg-quick"), mode=0o600)
    stripped = bravo.run(["wg-quick", "strip", "/run/export/wg0.conf"]).stdout
    assert stripped.count("[Peer]") == 2
    assert "ListenPort = 51820" in stripped
    for name in ("alpha", "charlie"):
        assert f"{IPV4[name]}/32" in stripped


@pytest.mark.usefixtures("said")
def test_down_takes_interface_names_and_processes_with_it_and_up_brings_them_back(lab: Lab) -> None:
    charlie = lab.node("charlie")
    before = charlie.path("/etc/hosts").read_text()
    assert f"{IPV4['bravo']}" in before
    meshkit.meshpeer(charlie, "down")
    meshkit.until(lambda: not charlie.pgrep("."), "every process of charlie has ended")
    assert not meshkit.has_interface(charlie)
    assert "mesh" not in charlie.path("/etc/hosts").read_text()
    failure = meshkit.fails(charlie, 3, "status")
    assert failure.hint == "start it with `meshpeer up`"
    meshkit.meshpeer(charlie, "up", "--detach")
    assert meshkit.status(charlie).node.ipv4 == IPV4["charlie"]
    for other in ("alpha", "bravo"):
        charlie.run(["ping", "-c1", "-W2", f"{other}.mesh"])
    meshkit.until(lambda: charlie.path("/etc/hosts").read_text() == before, "the names are back")

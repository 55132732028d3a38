"""Ways in: through any member, many at once, and with no address at all."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import meshkit
import pytest
from meshlab import Node

if TYPE_CHECKING:
    from conftest import MakeLab

pytestmark = [pytest.mark.netns, pytest.mark.slow]


def test_joins_at_one_moment_through_different_seeds_get_different_addresses(make_lab: MakeLab) -> None:
    old, new = ("alpha", "bravo"), ("charlie", "delta", "echo", "foxtrot")
    lab = make_lab(meshkit.lan(*old, *new))
    meshkit.found_mesh(lab, *old)
    text = meshkit.invite(lab.node("alpha"), "--uses", str(len(new)))
    joining = [start_join(lab.node(one), lab.node(old[number % 2]), text) for number, one in enumerate(new)]
    for process in joining:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    names = (*old, *new)
    meshkit.wait_until_whole(lab, *names)
    addresses = {name: meshkit.status(lab.node(name)).node.ipv4 for name in names}
    assert addresses["alpha"] == "10.10.0.1"
    assert sorted(addresses[name] for name in names[1:]) == [f"10.10.0.{n}" for n in range(10, 15)]
    for name in names:
        seen = {peer.name: peer.ipv4 for peer in meshkit.peers(lab.node(name)).values()}
        assert seen == {other: address for other, address in addresses.items() if other != name}
        shown = lab.node(name).run(["ip", "-4", "-o", "addr", "show", "dev", meshkit.INTERFACE]).stdout
        assert f" {addresses[name]}/24 " in shown
        assert meshkit.status(lab.node(name)).node.admission == "durable"


def test_joins_at_one_moment_under_one_name_are_told_apart_everywhere(make_lab: MakeLab) -> None:
    lab = make_lab(meshkit.lan("alpha", "bravo", "charlie"))
    meshkit.found(lab.node("alpha"))
    text = meshkit.invite(lab.node("alpha"), "--uses", "2")
    twins = (lab.node("bravo"), lab.node("charlie"))
    joining = [start_join(twin, lab.node("alpha"), text, name="twin") for twin in twins]
    outcomes = [(process.communicate(timeout=60)[1], process.returncode) for process in joining]
    # Either the second was told in time that the name is taken, or the mesh told the two apart by itself.
    if [code for _, code in outcomes].count(0) == 1:
        assert [code for _, code in outcomes if code] == [4]
        assert any("the name 'twin' is in use" in errors for errors, _ in outcomes)
        return
    assert [code for _, code in outcomes] == [0, 0], outcomes
    meshkit.until(lambda: len(meshkit.peers(lab.node("alpha"))) == 2, "alpha knows two names")
    names = set(meshkit.peers(lab.node("alpha")))
    assert "twin" in names
    for twin in twins:
        meshkit.until(lambda: meshkit.status(twin).node.name in names, "a twin knows its name")  # noqa: B023
    assert {meshkit.status(twin).node.name for twin in twins} == names


def test_a_node_joins_with_no_address_at_all_on_a_lan(make_lab: MakeLab) -> None:
    lab = make_lab(meshkit.lan("alpha", "bravo", "zulu"))
    alpha, bravo, zulu = (lab.node(name) for name in ("alpha", "bravo", "zulu"))
    before = meshkit.footprint(bravo)
    # Another mesh on the same network is none of ours.
    meshkit.found(zulu)
    meshkit.found(alpha)
    text = meshkit.invite(alpha)
    meshkit.meshpeer(alpha, "stop")
    meshkit.until(lambda: not meshkit.agents(alpha), "alpha announces nothing")
    failure = meshkit.fails(bravo, 5, "join", "lan", "--invite", text, "--detach", "--quiet")
    assert failure.what == "no member of this mesh announces itself on the local network"
    assert meshkit.footprint(bravo) == before
    meshkit.meshpeer(alpha, "up", "--detach")
    bravo.run(["meshpeer", "join", "lan", "--detach", "--name", "bravo"], env={"MESHPEER_INVITE": text})
    bravo.run(["ping", "-c1", "-W2", "alpha.mesh"])
    assert meshkit.status(bravo).mesh == meshkit.status(alpha).mesh
    assert set(meshkit.peers(bravo)) == {"alpha"}


def test_an_invite_may_come_from_a_file_or_standard_input(make_lab: MakeLab) -> None:
    lab = make_lab(meshkit.lan("alpha", "bravo", "charlie"))
    alpha, bravo, charlie = (lab.node(name) for name in ("alpha", "bravo", "charlie"))
    meshkit.found(alpha)
    text = meshkit.invite(alpha, "--uses", "2")
    bravo.put_file("/run/invite.txt", f"{text[:300]}\n{text[300:]}\n", mode=0o600)
    meshkit.meshpeer(bravo, "join", "/run/invite.txt", "--name", "bravo", "--detach")
    charlie.run(["meshpeer", "join", "-", "--name", "charlie", "--detach"], input=f"{text}\n")
    meshkit.wait_until_whole(lab, "alpha", "bravo", "charlie")


# --- helpers ------------------------------------------------------------


def start_join(node: Node, seed: Node, text: str, *, name: str = "") -> subprocess.Popen[str]:
    where = [f"{seed.address()}:51821", "--invite", text]
    argv = ["meshpeer", "join", *where, "--name", name or node.name, "--detach"]
    return node.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_join_ends_admitted_and_waits_for_nothing_in_vain(make_lab: MakeLab) -> None:
    """Whoever joins finds its issuer by the invite's address and by mDNS at once, so several links open in
    one moment. One join in five was provisional for 8 s; and each waited 2 s for a tunnel to itself."""
    for _ in range(3):
        lab = make_lab(meshkit.lan("alpha", "bravo"))
        meshkit.found(lab.node("alpha"))
        text = meshkit.invite(lab.node("alpha"))
        done = lab.node("bravo").run(["meshpeer", "-v", "join", text, "--name", "bravo", "--detach"])
        assert "agreeing on tunnels" in done.stdout, done.stdout
        assert "warning" not in done.stdout, done.stdout
        assert meshkit.status(lab.node("bravo")).node.admission == "durable"
        lab.close()


def test_an_address_that_comes_or_goes_is_offered_or_not_at_once(make_lab: MakeLab) -> None:
    """The kernel tells; looking every minute is for what it could not."""
    alpha = make_lab(meshkit.lan("alpha")).node("alpha")
    meshkit.found(alpha)

    def is_offered() -> bool:
        made = json.loads(alpha.run(["meshpeer", "invite", "--json"]).stdout)
        return "192.168.77.211:51821" in made["seeds"]

    assert not is_offered()
    alpha.run(["ip", "address", "add", "192.168.77.211/24", "dev", "lan0"])
    meshkit.until(is_offered, "the new address is offered")
    alpha.run(["ip", "address", "del", "192.168.77.211/24", "dev", "lan0"])
    meshkit.until(lambda: not is_offered(), "the old address is offered no more")

"""From a view to packets: two machines derive their interfaces, and reach each other through them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from meshlab import Node

if TYPE_CHECKING:
    from conftest import Eventually, MakeLab

pytestmark = pytest.mark.netns

_SETTLE = str(Path(__file__).with_name("wireguard_settle.py"))


def test_a_peer_without_endpoint_answers_one_that_has_it(make_lab: MakeLab) -> None:
    lab = make_lab("two-nodes")
    alpha, bravo = lab.node("alpha"), lab.node("bravo")
    members = ["alpha", "bravo"]
    settle(alpha, members, {})
    far = settle(bravo, members, {"alpha": f"{alpha.address('lan0')}:51820"})
    for target in ("10.10.0.1", "10.10.0.2"):
        bravo.run(["ping", "-c1", "-W5", target])
    alpha.run(["ping", "-c1", "-W5", "10.10.0.2"])
    alpha.run(["ping", "-c1", "-W5", far["ipv6"]])


def test_a_working_tunnel_is_left_where_it_roamed_to(make_lab: MakeLab, eventually: Eventually) -> None:
    lab = make_lab("two-nodes")
    alpha, bravo = lab.node("alpha"), lab.node("bravo")
    members = ["alpha", "bravo"]
    wrong = {"bravo": f"{alpha.address('lan0')}:9"}
    settle(alpha, members, wrong)
    settle(bravo, members, {"alpha": f"{alpha.address('lan0')}:51820"})
    working = f"{bravo.address('lan0')}:51820"
    eventually(
        lambda: working in alpha.run(["wg", "show", "wg0", "endpoints"]).stdout, "alpha roamed to bravo"
    )
    eventually(lambda: " 0" not in handshakes(alpha), "the handshake is done")
    assert settle(alpha, members, wrong)["steps"] == 0
    assert working in alpha.run(["wg", "show", "wg0", "endpoints"]).stdout


def test_one_more_member_leaves_the_traffic_of_the_others_alone(make_lab: MakeLab) -> None:
    lab = make_lab("lan3")
    nodes = {name: lab.node(name) for name in ("alpha", "bravo", "charlie")}
    endpoints = {name: f"{node.address('lan0')}:51820" for name, node in nodes.items()}
    for name in ("alpha", "bravo"):
        settle(nodes[name], ["alpha", "bravo"], endpoints)
    nodes["alpha"].run(["ping", "-c1", "-W5", "10.10.0.2"])
    before = handshakes(nodes["alpha"])
    for name, node in nodes.items():
        grown = settle(node, ["alpha", "bravo", "charlie"], endpoints)
        assert name == "charlie" or grown["steps"] == 1, "one peer more is one step"
    assert before.split("\n")[0] in handshakes(nodes["alpha"])
    for node in nodes.values():
        for number in (1, 2, 3):
            node.run(["ping", "-c1", "-W7", f"10.10.0.{number}"])


def settle(node: Node, members: list[str], endpoints: dict[str, str]) -> dict[str, str]:
    """Brings a machine's interface in step with the mesh, as an agent would; returns what it said."""
    asked = {"me": node.name, "members": members, "endpoints": endpoints}
    said: dict[str, str] = json.loads(node.run([sys.executable, _SETTLE, json.dumps(asked)]).stdout)
    return said


def handshakes(node: Node) -> str:
    return node.run(["wg", "show", "wg0", "latest-handshakes"]).stdout.replace("\t", " ")

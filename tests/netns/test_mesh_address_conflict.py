"""Two sides of a partition give one IPv4 address to two nodes; when they meet, one gets another, and nothing
else stands still."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import meshkit
import pytest
from meshlab import Node

if TYPE_CHECKING:
    from conftest import MakeLab

pytestmark = [pytest.mark.netns, pytest.mark.slow]

OLD = (("alpha", "bravo"), ("charlie", "delta"))
NEW = ("echo", "foxtrot")
NAMES = (*OLD[0], *OLD[1], *NEW)


def test_the_loser_of_an_address_has_another_one_and_ipv6_never_stood_still(make_lab: MakeLab) -> None:
    lab = make_lab(meshkit.lan(*NAMES))
    sides = [tuple(map(lab.node, side)) for side in OLD]
    winner, loser = (lab.node(name) for name in NEW)
    meshkit.found_mesh(lab, *OLD[0], *OLD[1])
    text = meshkit.invite(sides[0][0], "--uses", "2")
    meshkit.wait_until_whole(lab, *OLD[0], *OLD[1])
    lab.partition([*OLD[0], NEW[0]], [*OLD[1], NEW[1]])
    for joiner, side in ((winner, sides[0]), (loser, sides[1])):
        join_by(joiner, side[0], text)
    # The issuer is on one side only: what is durable goes before what is not, whoever came first.
    meshkit.until(
        lambda: meshkit.status(winner).node.admission == "durable", "an issuer has admitted the winner"
    )
    contested = meshkit.status(winner).node.ipv4
    assert meshkit.status(loser).node.ipv4 == contested
    assert meshkit.status(loser).node.admission == "provisional"

    with contextlib.ExitStack() as traffic:
        for node, peer in within(sides[0], winner) + within(sides[1], loser):
            target = meshkit.status(peer).node.ipv6
            meshkit.until(lambda: meshkit.pings(node, target), f"{node.name} reaches {peer.name}")  # noqa: B023
            traffic.enter_context(meshkit.pinging(node, target, every_s=0.02))
        lab.heal()
        meshkit.until(
            lambda: meshkit.status(loser).node.ipv4 not in ("", contested), "the loser has a new address", 60
        )
        meshkit.wait_until_whole(lab, *NAMES)

    fresh = meshkit.status(loser).node.ipv4
    assert meshkit.status(winner).node.ipv4 == contested
    for node in lab.nodes.values():
        if node is not loser:
            meshkit.until(lambda: meshkit.pings(node, fresh), f"{node.name} reaches the new address")  # noqa: B023
            assert {peer.name: peer.ipv4 for peer in meshkit.peers(node).values()}["foxtrot"] == fresh
        if node is not winner:
            assert meshkit.pings(node, contested)
    for node, held in ((winner, contested), (loser, fresh)):
        shown = node.run(["ip", "-4", "-o", "addr", "show", "dev", meshkit.INTERFACE]).stdout
        assert shown.count(" inet ") == 1
        assert f" {held}/24 " in shown


def join_by(joiner: Node, seed: Node, text: str) -> None:
    where = [f"{seed.address()}:51821", "--invite", text]
    joiner.run(["meshpeer", "join", *where, "--name", joiner.name, "--detach"], timeout=60)


def within(side: tuple[Node, ...], joiner: Node) -> list[tuple[Node, Node]]:
    """Returns pairs whose traffic a partition does not touch, in both directions of the one that joined."""
    return [(side[0], side[1]), (side[0], joiner), (joiner, side[1])]

"""A WireGuard tunnel, made by hand between two nodes, works as on two machines. No meshpeer runs here.

When this fails the lab or the machine is at fault; when only tests above it fail, meshpeer is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from meshlab import Node

if TYPE_CHECKING:
    from conftest import Eventually, MakeLab

pytestmark = pytest.mark.netns


def test_a_tunnel_made_by_hand_carries_pings_between_two_nodes(
    make_lab: MakeLab, eventually: Eventually, record_property: Callable[[str, object], None]
) -> None:
    lab = make_lab("two-nodes")
    alpha, bravo = lab.node("alpha"), lab.node("bravo")
    # Both call it wg0: their sockets would collide under one /var/run/wireguard.
    backends = {_make_interface(node, eventually) for node in (alpha, bravo)}
    assert len(backends) == 1
    record_property("wireguard_backend", backends.pop())
    keys = {node.name: _make_key(node) for node in (alpha, bravo)}
    for node, peer, own in ((alpha, bravo, "10.99.0.1"), (bravo, alpha, "10.99.0.2")):
        other = "10.99.0.2" if own == "10.99.0.1" else "10.99.0.1"
        endpoint = f"{peer.address('lan0')}:51820"
        ours = ["listen-port", "51820", "private-key", "/run/key"]
        theirs = ["peer", keys[peer.name], "allowed-ips", f"{other}/32", "endpoint", endpoint]
        node.run(["wg", "set", "wg0", *ours, *theirs])
        node.run(["ip", "addr", "add", f"{own}/24", "dev", "wg0"])
        node.run(["ip", "link", "set", "wg0", "up"])
    alpha.run(["ping", "-c3", "-i0.05", "-W5", "10.99.0.2"])
    assert alpha.run(["wg", "show", "wg0", "latest-handshakes"]).stdout.split()[1] != "0"
    assert bravo.run(["wg", "show", "wg0", "endpoints"]).stdout.split() == [
        keys["alpha"],
        f"{alpha.address('lan0')}:51820",
    ]


def _make_interface(node: Node, eventually: Eventually) -> str:
    """Makes wg0 and returns which backend it has: the kernel's where there is one, else wireguard-go."""
    if node.run(["ip", "link", "add", "wg0", "type", "wireguard"], check=False).returncode == 0:
        return "kernel"
    node.run(["wireguard-go", "wg0"])
    eventually(lambda: node.run(["wg", "show", "wg0"], check=False).returncode == 0, "wireguard-go answers")
    return "wireguard-go"


def _make_key(node: Node) -> str:
    node.run(["sh", "-c", "umask 077; wg genkey > /run/key"])
    return node.run(["sh", "-c", "wg pubkey < /run/key"]).stdout.strip()

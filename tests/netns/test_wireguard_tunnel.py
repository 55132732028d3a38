"""From a view to packets: two machines derive their interfaces, and reach each other through them."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import meshkit
import pytest
from meshlab import Node

if TYPE_CHECKING:
    from conftest import Eventually, MakeLab

pytestmark = pytest.mark.netns

_SETTLE = str(Path(__file__).with_name("wireguard_settle.py"))
_ECHO_SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], 0))
print(listener.getsockname()[1])
connection = listener.accept()[0]
while word := connection.recv(4096):
    connection.sendall(word)
"""
_ECHO_CLIENT = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
answers = connection.makefile()
for word in sys.stdin:
    connection.sendall(word.encode())
    print(answers.readline(), end="")
"""


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


@pytest.mark.parametrize(("old", "new"), [(24, 20), (20, 24)])
def test_a_subnet_that_grows_or_shrinks_interrupts_nothing(make_lab: MakeLab, old: int, new: int) -> None:
    lab = make_lab("two-nodes")
    nodes = [lab.node("alpha"), lab.node("bravo")]
    alpha, bravo = nodes
    members = [node.name for node in nodes]
    endpoints = {node.name: f"{node.address('lan0')}:51820" for node in nodes}
    for node in nodes:
        settle(node, members, endpoints, prefix=old)
    alpha.run(["ping", "-c1", "-W5", "10.10.0.2"])
    before = [(handshakes(node), routes(node)) for node in nodes]
    with (
        meshkit.pinging(alpha, "10.10.0.2", every_s=0.02),
        meshkit.pinging(bravo, "10.10.0.1", every_s=0.02),
        echoing(alpha, bravo, "10.10.0.2") as echo,
    ):
        for prefix in (new, old, new, old, new):
            for node in nodes:
                assert settle(node, members, endpoints, prefix=prefix)["steps"] == 2, "no peer is touched"
                echo()
    for node, (shaken, _) in zip(nodes, before, strict=True):
        assert handshakes(node) == shaken, "tunnels went on as they were"
        assert f"10.10.0.0/{new} proto kernel scope link" in routes(node)
        # Nothing of the old subnet is left: its last address would be taken for a broadcast.
        assert f"10.10.0.0/{old}" not in routes(node)
        assert routes(node).count("broadcast 10.10.") == 1
    # And the way back to what it was, by the same two steps, leaves nothing behind.
    for node, (_, routed) in zip(nodes, before, strict=True):
        settle(node, members, endpoints, prefix=old)
        assert routes(node) == routed


@pytest.mark.parametrize(("old", "new"), [(24, 20), (20, 24)])
def test_an_address_is_never_gone_while_its_prefix_changes(
    make_lab: MakeLab, eventually: Eventually, tmp_path: Path, old: int, new: int
) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    settle(alpha, ["alpha"], {}, prefix=old)
    with (
        (tmp_path / "said").open("w+") as said,
        alpha.popen(["ip", "-4", "-o", "monitor", "address", "route"], stdout=said) as monitor,
    ):

        def shows(route: str) -> bool:
            for change in ("add", "delete"):
                alpha.run(["ip", "route", change, "blackhole", route])
            return route in (tmp_path / "said").read_text()

        try:
            eventually(lambda: shows("192.0.2.1"), "the monitor listens")
            settle(alpha, ["alpha"], {}, prefix=new)
            eventually(lambda: shows("192.0.2.2"), "the monitor has said all")
        finally:
            monitor.kill()
    lines = [line for line in (tmp_path / "said").read_text().splitlines() if "10.10.0.1" in line]
    came = next(at for at, line in enumerate(lines) if f"inet 10.10.0.1/{new} " in line)
    went = next(at for at, line in enumerate(lines) if f"inet 10.10.0.1/{old} " in line)
    assert came < went
    assert "Deleted" in lines[went]
    assert not [line for line in lines if "Deleted local 10.10.0.1 " in line], lines


@contextlib.contextmanager
def echoing(client: Node, server: Node, address: str) -> Iterator[Callable[[], None]]:
    """Opens one TCP connection that ends with the context; yields what sends a word over it and gets it
    back."""
    listening = [sys.executable, "-u", "-c", _ECHO_SERVER, address]
    with server.popen(listening, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        port = listener.stdout.readline().strip()
        dialling = [sys.executable, "-u", "-c", _ECHO_CLIENT, address, port]
        with client.popen(dialling, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as dialler:
            assert dialler.stdin is not None
            assert dialler.stdout is not None
            words, answers = dialler.stdin, dialler.stdout
            sent = itertools.count()

            def echo() -> None:
                word = f"{next(sent)}\n"
                words.write(word)
                words.flush()
                assert answers.readline() == word

            echo()
            yield echo
            echo()
            words.close()


def routes(node: Node) -> str:
    return node.run(["ip", "-4", "route", "show", "table", "all", "dev", "wg0"]).stdout


def settle(node: Node, members: list[str], endpoints: dict[str, str], *, prefix: int = 24) -> dict[str, str]:
    """Brings a machine's interface in step with the mesh, as an agent would; returns what it said."""
    asked = {"me": node.name, "members": members, "endpoints": endpoints, "prefix": prefix}
    said: dict[str, str] = json.loads(node.run([sys.executable, _SETTLE, json.dumps(asked)]).stdout)
    return said


def handshakes(node: Node) -> str:
    return node.run(["wg", "show", "wg0", "latest-handshakes"]).stdout.replace("\t", " ")

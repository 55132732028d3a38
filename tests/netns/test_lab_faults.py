"""Partitions, one-way partitions, loss and pulled cables do exactly what they say, and heal."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from meshlab import Lab, LabError, Node

if TYPE_CHECKING:
    from conftest import MakeLab

pytestmark = pytest.mark.netns

_ROUTED = """
    [lans.net]
    ipv4 = "198.51.100.0/24"
    [lans.home]
    ipv4 = "192.168.1.0/24"
    [nodes.public]
    lans = ["net"]
    [nodes.other]
    lans = ["net"]
    [nodes.inside]
    lans = ["home"]
    [routers.r1]
    outside = "net"
    inside = ["home"]
    nat = "masquerade"
    forwards = [{proto = "tcp", port = 7000, to = "inside"}]
"""


def test_a_partition_cuts_both_ways_and_heals(make_lab: MakeLab) -> None:
    lab = make_lab("lan3")
    lab.partition(["alpha"], ["bravo", "charlie"])
    assert not _pings(lab, "alpha", "bravo")
    assert not _pings(lab, "charlie", "alpha")
    assert not _pings(lab, "alpha", "charlie", family=6)
    assert _pings(lab, "bravo", "charlie")
    lab.heal()
    assert _pings(lab, "alpha", "bravo", attempts=10)
    assert _pings(lab, "charlie", "alpha", family=6, attempts=10)


def test_a_partition_on_a_lan_cuts_broadcast_too(make_lab: MakeLab) -> None:
    lab = make_lab("two-nodes")
    lab.partition(["alpha"], ["bravo"])
    alpha = lab.node("alpha")
    alpha.run(["ping", "-c1", "-W1", lab.node("bravo").address()], check=False)
    neighbours = alpha.run(["ip", "neigh", "show", lab.node("bravo").address()]).stdout
    assert "lladdr" not in neighbours


def test_one_way_drops_only_that_direction(make_lab: MakeLab) -> None:
    lab = make_lab("two-nodes")
    assert _pings(lab, "alpha", "bravo")
    lab.one_way(["alpha"], ["bravo"])
    assert not _datagram_arrives(lab, "alpha", "bravo")
    assert _datagram_arrives(lab, "bravo", "alpha")


def test_a_partition_reaches_through_a_nat_in_both_directions(make_lab: MakeLab) -> None:
    lab = make_lab(_ROUTED)
    lab.partition(["inside"], ["public"])
    assert not _pings(lab, "inside", "public")
    assert _pings(lab, "inside", "other")
    lab.heal()
    # Only the forwarded port leads in, and its packets carry the router's address until it translates.
    lab.one_way(["public"], ["inside"])
    assert not _connects(lab.node("public"), lab.node("inside"), lab.node("r1").address("net"))
    assert _connects(lab.node("other"), lab.node("inside"), lab.node("r1").address("net"))


def test_loss_drops_its_share_and_no_more(make_lab: MakeLab) -> None:
    lab = make_lab("lan3")
    # Broadcasts are lost too: with the neighbour known, only pings are counted.
    assert _pings(lab, "alpha", "bravo")
    lab.loss(50, ["alpha"], ["bravo"])
    received = _received_of_200(lab, "alpha", "bravo")
    # A ping passes twice, so a quarter answers: 50 of 200, and 17 or 91 are further than six deviations away.
    assert 17 < received < 91
    assert _received_of_200(lab, "alpha", "charlie") == 200
    lab.loss(0, ["alpha"], ["bravo"])
    assert _received_of_200(lab, "alpha", "bravo") == 200


def test_loss_is_counted_once_through_a_nat(make_lab: MakeLab) -> None:
    lab = make_lab(_ROUTED)
    lab.loss(50, ["public"], ["inside"])
    assert 17 < _received_of_200(lab, "inside", "public") < 91


def test_faults_can_stand_in_the_file(make_lab: MakeLab) -> None:
    lab = make_lab("""
        [lans.lan0]
        ipv4 = "10.9.0.0/24"
        [nodes.alpha]
        lans = ["lan0"]
        [nodes.bravo]
        lans = ["lan0"]
        [[drops]]
        from = ["alpha"]
        to = ["bravo"]
    """)
    assert not _pings(lab, "alpha", "bravo")
    lab.heal()
    assert _pings(lab, "alpha", "bravo", attempts=10)


def test_a_pulled_cable_is_seen_by_its_node_alone(make_lab: MakeLab) -> None:
    lab = make_lab("lan3")
    lab.unplug("bravo")
    assert "NO-CARRIER" in lab.node("bravo").run(["ip", "link", "show", "lan0"]).stdout
    assert "NO-CARRIER" not in lab.node("alpha").run(["ip", "link", "show", "lan0"]).stdout
    assert not _pings(lab, "alpha", "bravo")
    lab.plug("bravo")
    assert _pings(lab, "alpha", "bravo", attempts=10)
    assert _pings(lab, "alpha", "bravo", family=6, attempts=10)


def test_delay_holds_packets_or_says_that_the_kernel_can_not(make_lab: MakeLab) -> None:
    lab = make_lab("two-nodes")
    if not lab.has_delay():
        with pytest.raises(LabError, match="this kernel has no netem"):
            lab.delay(20, ["bravo"])
        return
    lab.delay(20, ["bravo"])
    shown = lab.node("alpha").run(["ping", "-c3", "-i0.05", lab.node("bravo").address()]).stdout
    (fastest,) = re.findall(r"= ([0-9.]+)/", shown)
    assert float(fastest) >= 20
    lab.delay(0, ["bravo"])


def test_a_fault_for_an_unknown_node_is_refused(make_lab: MakeLab) -> None:
    lab = make_lab("two-nodes")
    with pytest.raises(LabError, match="there is no node 'zulu'"):
        lab.partition(["alpha"], ["zulu"])
    assert _pings(lab, "alpha", "bravo")


def _pings(lab: Lab, source: str, target: str, *, family: int = 4, attempts: int = 1) -> bool:
    """Says whether one of some pings is answered; after a cut, address resolution may need the first ones."""
    argv = ["ping", "-c1", "-W1", lab.node(target).address(family=family)]
    return any(lab.node(source).run(argv, check=False).returncode == 0 for _ in range(attempts))


def _received_of_200(lab: Lab, source: str, target: str) -> int:
    argv = ["ping", "-q", "-c200", "-i0.002", "-W0.2", lab.node(target).address()]
    shown = lab.node(source).run(argv, check=False).stdout
    (received,) = re.findall(r"(\d+) received", shown)
    return int(received)


def _datagram_arrives(lab: Lab, source: str, target: str) -> bool:
    program = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 7000)); s.settimeout(1)
print("bound", flush=True)
try: print(s.recv(100).decode())
except TimeoutError: print("nothing")
"""
    python = ["python3", "-I", "-c", program]
    with lab.node(target).popen(python, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "bound\n"
        sending = f"echo -n hello > /dev/udp/{lab.node(target).address()}/7000"
        lab.node(source).run(["bash", "-c", sending])
        return listener.stdout.readline() == "hello\n"


def _connects(source: Node, target: Node, address: str) -> bool:
    program = """
import socket
s = socket.create_server(("", 7000)); print("bound", flush=True); s.accept()
"""
    with target.popen(["python3", "-I", "-c", program], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "bound\n"
        connecting = ["timeout", "1", "bash", "-c", f": > /dev/tcp/{address}/7000"]
        done = source.run(connecting, check=False)
        server.kill()
        return done.returncode == 0

"""Routers of a lab behave as the NATs that they are named after (RFC 4787's terms in the names)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from meshlab import Lab, Node

if TYPE_CHECKING:
    from conftest import MakeLab

pytestmark = pytest.mark.netns

# Usage: udp.py PORT TARGET:PORT... Sends to each target every 20 ms for 1 s, prints whom it heard first.
_UDP = """
import socket, sys, time
port, targets = int(sys.argv[1]), [(h, int(p)) for h, p in (a.rsplit(":", 1) for a in sys.argv[2:])]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", port)); s.settimeout(0.02)
print("bound", flush=True)
end = time.monotonic() + (1 if targets else 30)
while time.monotonic() < end:
    for target in targets: s.sendto(b"hello", target)
    try: _, (host, source) = s.recvfrom(100)
    except TimeoutError: continue
    print(f"{host}:{source}", flush=True)
    for _ in range(5): s.sendto(b"hello", (host, source))
    break
else: print("nobody", flush=True)
"""


@pytest.fixture
def udp(tmp_path: Path) -> str:
    """Returns the path of the small program that these tests send datagrams with."""
    path = tmp_path / "udp.py"
    path.write_text(_UDP)
    return str(path)


def test_masquerade_maps_one_socket_to_one_port_for_all(make_lab: MakeLab, udp: str) -> None:
    lab = make_lab(_homes("masquerade", "masquerade"))
    assert _mappings(lab, udp) == {"198.51.100.1:40000"}


def test_symmetric_maps_one_socket_to_a_port_for_each_destination(make_lab: MakeLab, udp: str) -> None:
    lab = make_lab(_homes("symmetric", "symmetric"))
    mappings = _mappings(lab, udp)
    assert {mapping.split(":")[0] for mapping in mappings} == {"198.51.100.1"}
    assert len(mappings) == 2


def test_new_inbound_traffic_is_refused_and_answers_pass(make_lab: MakeLab, udp: str) -> None:
    lab = make_lab(_homes("masquerade", "masquerade"))
    with _listening(lab.node("a"), udp, 40000) as inside:
        assert _exchange(lab.node("public1"), udp, 7000, "198.51.100.1:40000") == "nobody"
        inside.kill()
    with _listening(lab.node("public1"), udp, 7000):
        assert _exchange(lab.node("a"), udp, 40000, "198.51.100.11:7000") == "198.51.100.11:7000"


def test_punching_works_between_masquerading_routers(make_lab: MakeLab, udp: str) -> None:
    lab = make_lab(_homes("masquerade", "masquerade"))
    assert _punch(lab, udp) == ("198.51.100.2:40000", "198.51.100.1:40000")


def test_punching_fails_between_symmetric_routers(make_lab: MakeLab, udp: str) -> None:
    lab = make_lab(_homes("symmetric", "symmetric"))
    assert _punch(lab, udp) == ("nobody", "nobody")


def test_a_forwarded_port_leads_in(make_lab: MakeLab, udp: str) -> None:
    lab = make_lab("nat-founder")
    with _listening(lab.node("open"), udp, 51820):
        address = f"{lab.node('r2').address('net')}:51820"
        assert _exchange(lab.node("public"), udp, 7000, address) == address


def test_a_router_carries_no_blocked_protocol(make_lab: MakeLab, udp: str) -> None:
    lab = make_lab(
        _homes("masquerade", "masquerade").replace("[routers.r1]", '[routers.r1]\nblock = ["udp"]')
    )
    a, target = lab.node("a"), lab.node("public1").address()
    with _listening(lab.node("public1"), udp, 7000) as listener:
        assert _exchange(a, udp, 40000, f"{target}:7000") == "nobody"
        listener.kill()
    a.run(["ping", "-c1", "-W5", target])


def test_a_router_without_nat_routes_both_ways(make_lab: MakeLab) -> None:
    lab = make_lab("""
        [lans.net]
        ipv4 = "198.51.100.0/24"
        ipv6 = "fd00:100::/64"
        [lans.site]
        ipv4 = "10.1.0.0/24"
        ipv6 = "fd00:1::/64"
        [nodes.public]
        lans = ["net"]
        [nodes.inside]
        lans = ["site"]
        [routers.r1]
        outside = "net"
        inside = ["site"]
    """)
    for family in (4, 6):
        for source, target in (("public", "inside"), ("inside", "public")):
            lab.node(source).run(["ping", "-c1", "-W5", lab.node(target).address(family=family)])


def test_a_nat_behind_a_nat_still_reaches_out(make_lab: MakeLab) -> None:
    lab = make_lab("""
        [lans.net]
        ipv4 = "198.51.100.0/24"
        [lans.carrier]
        ipv4 = "100.64.0.0/24"
        [lans.home]
        ipv4 = "192.168.1.0/24"
        [nodes.public]
        lans = ["net"]
        [nodes.inside]
        lans = ["home"]
        [routers.cgn]
        outside = "net"
        inside = ["carrier"]
        nat = "symmetric"
        [routers.r1]
        outside = "carrier"
        inside = ["home"]
        nat = "masquerade"
    """)
    lab.node("inside").run(["ping", "-c1", "-W5", lab.node("public").address()])


def _homes(nat1: str, nat2: str) -> str:
    """Two public nodes, and node ``a`` and ``b`` each behind a router of its own."""
    return f"""
[lans.net]
ipv4 = "198.51.100.0/24"
[lans.home1]
ipv4 = "192.168.1.0/24"
[lans.home2]
ipv4 = "192.168.1.0/24"
[nodes.public1]
lans = ["net"]
[nodes.public2]
lans = ["net"]
[nodes.a]
lans = ["home1"]
[nodes.b]
lans = ["home2"]
[routers.r1]
outside = "net"
inside = ["home1"]
nat = "{nat1}"
[routers.r2]
outside = "net"
inside = ["home2"]
nat = "{nat2}"
"""


def _mappings(lab: Lab, udp: str) -> set[str]:
    """The endpoints that two public nodes see of one socket of ``a``."""
    with _listening(lab.node("public1"), udp, 7000) as one, _listening(lab.node("public2"), udp, 7000) as two:
        targets = [f"{lab.node(name).address()}:7000" for name in ("public1", "public2")]
        _exchange(lab.node("a"), udp, 40000, *targets)
        return {_line(one), _line(two)}


def _punch(lab: Lab, udp: str) -> tuple[str, str]:
    """Whom ``a`` and ``b`` hear when each sends to the other's outside address, both from port 40000."""
    targets = (f"{lab.node('r2').address('net')}:40000", f"{lab.node('r1').address('net')}:40000")
    with (
        _listening(lab.node("a"), udp, 40000, targets[0]) as a,
        _listening(lab.node("b"), udp, 40000, targets[1]) as b,
    ):
        return _line(a), _line(b)


def _listening(node: Node, udp: str, port: int, *targets: str) -> subprocess.Popen[str]:
    process = node.popen(["python3", "-I", udp, str(port), *targets], stdout=subprocess.PIPE)
    assert _line(process) == "bound"
    return process


def _exchange(node: Node, udp: str, port: int, *targets: str) -> str:
    """Whom a node hears first when it sends from ``port`` to ``targets``."""
    return node.run(["python3", "-I", udp, str(port), *targets]).stdout.splitlines()[-1]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()

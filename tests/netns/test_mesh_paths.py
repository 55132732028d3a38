"""Which way two members find to each other, by what stands between them: a lab for each.

Where no direct way exists, that is what is tested: not what takes its place.
"""

from __future__ import annotations

import meshkit
import pytest
from conftest import MakeLab
from meshlab import Lab, Node

pytestmark = [pytest.mark.netns, pytest.mark.slow]

WORDS_HEARD_S = 30.0


def test_two_at_one_home_use_their_lan_and_another_home_with_the_same_prefix_is_told_apart(
    make_lab: MakeLab,
) -> None:
    lab = make_lab("same-nat")
    found(lab, "public", "left", "right", "neighbour")
    left, right, neighbour = (lab.node(name) for name in ("left", "right", "neighbour"))
    assert left.address() == neighbour.address(), "both homes count alike"
    reaches(left, "right")
    reaches(left, "neighbour")
    reaches(neighbour, "right")
    assert endpoint(left, "right") == f"{right.address()}:51820"
    assert endpoint(right, "left") == f"{left.address()}:51820"
    homes = {name: lab.node(name).address("net") for name in ("r1", "r2")}
    assert endpoint(left, "neighbour") == f"{homes['r2']}:51820"
    assert endpoint(neighbour, "right").startswith(f"{homes['r1']}:")
    # It stays so once both are known at their router's address, too.
    meshkit.until(lambda: f"{homes['r1']}:" in text_of(left, "right"), "right is seen", WORDS_HEARD_S)
    assert endpoint(left, "right") == f"{right.address()}:51820"


def test_a_home_behind_two_routers_meets_another_home(make_lab: MakeLab) -> None:
    lab = make_lab("double-nat")
    found(lab, "public", "inside", "other")
    inside, other = lab.node("inside"), lab.node("other")
    reaches(inside, "other")
    assert endpoint(inside, "other") == f"{lab.node('r2').address('net')}:51820"
    assert endpoint(other, "inside") == f"{lab.node('outer').address('net')}:51820"


def test_two_homes_of_one_carrier_without_hairpin_have_no_direct_way_and_go_by_a_relay(
    make_lab: MakeLab,
) -> None:
    lab = make_lab("carrier-nat")
    found(lab, "public", "left", "right")
    left = lab.node("left")
    reaches(left, "public")
    outside = lab.node("cgn").address("net")
    meshkit.until(lambda: f"{outside}:" in text_of(left, "right"), "right is seen outside", WORDS_HEARD_S)
    goes_by_relay(left, "right")


def test_symmetric_nat_reaches_who_is_open_and_is_known_for_what_it_is(make_lab: MakeLab) -> None:
    lab = make_lab("symmetric-public")
    found(lab, "public", "second", "inside", "other")
    inside, other = lab.node("inside"), lab.node("other")
    for name in ("public", "second"):
        reaches(inside, name)
    ports = {endpoint(lab.node(name), "inside").rpartition(":")[2] for name in ("public", "second")}
    assert len(ports) == 2
    meshkit.until(
        lambda: all(port in text_of(other, "inside") for port in ports), "both are told", WORDS_HEARD_S
    )
    goes_by_relay(inside, "other")


def test_where_udp_is_blocked_a_link_is_left_and_is_named_as_the_path(make_lab: MakeLab) -> None:
    lab = make_lab("udp-blocked")
    found(lab, "public", "second", "inside")
    reaches(lab.node("second"), "public")
    inside = lab.node("inside")
    for name in ("public", "second"):
        meshkit.until(lambda: meshkit.peers(inside)[name].path == "link", f"{name} by a link", 20)  # noqa: B023
        assert meshkit.peers(inside)[name].state == "alive"


def test_ipv6_alone_joins_by_ipv6_meets_who_has_both_and_goes_to_ipv4_alone_by_a_relay(
    make_lab: MakeLab,
) -> None:
    lab = make_lab("families")
    found(lab, "both", "dual", "sixonly", "fouronly")
    six, four = lab.node("sixonly"), lab.node("fouronly")
    for node, family in ((six, 6), (four, 4)):
        for name in ("both", "dual"):
            reaches(node, name)
            expected = {lab.node(name).address(family=family)}
            assert endpoint(node, name).rpartition(":")[0].strip("[]") in expected
    reaches(lab.node("dual"), "sixonly")
    goes_by_relay(six, "fouronly")


def test_addresses_that_lead_nowhere_are_shown_to_nobody_and_a_changed_one_at_once(make_lab: MakeLab) -> None:
    lab = make_lab("nat-public")
    inside, public = lab.node("inside"), lab.node("public")
    inside.run(["sh", "-ec", CONTAINERS])
    found(lab, "public", "second", "inside")
    reaches(public, "inside")
    own = f"{inside.address()}:51820"
    meshkit.until(lambda: own in text_of(public, "inside"), "its own address is shown")
    assert "172.17." not in text_of(public, "inside")
    assert "10.99." not in text_of(public, "inside")

    def routed_in_and_not_shown() -> bool:
        # What somebody routes into the tunnel by hand carries none; the agent soon takes such a route out.
        public.run(["ip", "route", "replace", "192.168.1.0/24", "dev", meshkit.INTERFACE])
        return own not in text_of(public, "inside")

    meshkit.until(routed_in_and_not_shown, "no tunnel in a tunnel", 20)
    public.run(["ip", "route", "del", "192.168.1.0/24", "dev", meshkit.INTERFACE], check=False)
    inside.run(["ip", "address", "add", "192.168.1.123/24", "dev", "home"])
    meshkit.until(lambda: "192.168.1.123:51820" in text_of(public, "inside"), "a new address is shown", 20)
    reaches(public, "inside")


def test_jumbo_frames_pass_where_the_network_takes_them(make_lab: MakeLab) -> None:
    lab = make_lab("jumbo")
    alpha, bravo = lab.node("alpha"), lab.node("bravo")
    assert carries(alpha, bravo.address(), 9040)
    assert not carries(alpha, bravo.address(), 9041)


def test_a_narrow_way_takes_what_fits_and_nothing_larger(make_lab: MakeLab) -> None:
    lab = make_lab("narrow")
    alpha, bravo, outside = lab.node("alpha"), lab.node("bravo"), lab.node("r2").address("net")
    listen = bravo.popen(["python3", "-c", LISTEN])
    try:
        assert arrives(alpha, outside, 1280)
        assert not arrives(alpha, outside, 1281)
    finally:
        listen.kill()
        listen.wait()


# --- helpers ------------------------------------------------------------------------------------------------

CONTAINERS = """
ip link add docker0 type bridge
ip address add 172.17.0.1/16 dev docker0
ip link set docker0 up
ip link add internal type bridge
ip address add 10.99.0.1/24 dev internal
ip link set internal up
ip link add guest type veth peer name guest0
ip link set guest master internal up
ip link set guest0 up
"""
LISTEN = """
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 51820))
while True:
    data, source = udp.recvfrom(65535)
    udp.sendto(b"%d" % len(data), source)
"""
ASK = """
import contextlib, socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE: never in fragments
udp.settimeout(0.3)
for _ in range(5):
    with contextlib.suppress(OSError):  # A router's word of the last one may come with this one.
        udp.sendto(bytes(int(sys.argv[2]) - 28), (sys.argv[1], 51820))
    try:
        sys.exit(0 if udp.recv(99) else 1)
    except TimeoutError:
        pass
sys.exit(1)
"""


def found(lab: Lab, *names: str) -> None:
    first, *others = (lab.node(name) for name in names)
    meshkit.found(first)
    invite = meshkit.invite(first, "--uses", str(len(others)))
    for node in others:
        meshkit.join(node, invite)


def reaches(node: Node, other: str) -> None:
    meshkit.until(lambda: meshkit.pings(node, f"{other}.mesh"), f"{node.name} reaches {other}", 30)
    meshkit.until(lambda: meshkit.peers(node)[other].path == "direct", "by a tunnel of their own")


def goes_by_relay(node: Node, other: str) -> None:
    meshkit.until(lambda: meshkit.pings(node, f"{other}.mesh"), f"{node.name} reaches {other}", 30)
    meshkit.until(lambda: meshkit.peers(node)[other].path == "relay", f"{node.name} knows the way", 20)


def endpoint(node: Node, other: str) -> str:
    return meshkit.peers(node)[other].endpoint


def text_of(node: Node, other: str) -> str:
    """Returns the endpoints at which a node would look for another, in one line."""
    found = meshkit.why(node, node.name, other)
    return " ".join(one.endpoint for one in found.candidates if one.known_since)


def carries(node: Node, address: str, size: int) -> bool:
    ping = ["ping", "-c1", "-W1", "-M", "do", "-s", str(size - 28), address]
    return node.run(ping, check=False).returncode == 0


def arrives(node: Node, address: str, size: int) -> bool:
    return node.run(["python3", "-c", ASK, address, str(size)], check=False).returncode == 0

"""Each peer has the MTU that its path carries: jumbo frames are used, and narrow paths pass large packets."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import meshkit
import pytest
from meshlab import Node

if TYPE_CHECKING:
    from conftest import Eventually, MakeLab

pytestmark = [pytest.mark.netns, pytest.mark.slow]

_WIRE = str(Path(__file__).parent / "fragment_wire.py")
_LANS = {
    "bravo": ("four", 4, 9_020, 8_960),
    "charlie": ("six", 6, 9_040, 8_960),
    "delta": ("four9k", 4, 9_000, 8_940),
    "echo": ("six9k", 6, 9_000, 8_920),
    "foxtrot": ("plain", 6, 1_500, 1_420),
}
"""Of each member beside alpha: its LAN, what that has, how wide it is, and the MTU that this allows."""
_HUB = """
name = "mesh"
[lans.net]
ipv4 = "203.0.113.0/24"
[lans.thin]
ipv4 = "198.51.100.0/24"
mtu = 1280
[nodes.alpha]
lans = ["net"]
[nodes.hub]
lans = ["net", "thin"]
[nodes.bravo]
lans = ["thin"]
"""
_NO_ICMP = """
table inet silent {
  chain clamp { type filter hook forward priority -150; tcp flags syn tcp option maxseg size set 1220; }
  chain output { type filter hook output priority 0; meta l4proto { icmp, ipv6-icmp } drop; }
  chain forward { type filter hook forward priority 0; meta l4proto { icmp, ipv6-icmp } drop; }
}
"""
"""What routers at home do for TCP, and what careless firewalls do to everything else."""
MEGABYTE = 1024 * 1024
_TAKE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.create_server((sys.argv[1], 7007), family=family) as server:
    print("ready", flush=True)
    came, _ = server.accept()
    with came:
        print(sum(iter(lambda: len(came.recv(65536)), 0)))
"""
_GIVE = """
import socket, sys
with socket.create_connection((sys.argv[1], 7007), timeout=30) as there:
    there.sendall(bytes(int(sys.argv[2])))
    there.shutdown(socket.SHUT_WR)
    there.recv(1)
"""


@pytest.mark.parametrize("names", [("bravo", "charlie", "foxtrot"), ("delta", "echo")])
def test_each_peer_has_the_mtu_of_its_path_and_nothing_is_fragmented(
    make_lab: MakeLab, eventually: Eventually, names: tuple[str, ...]
) -> None:
    lab = make_lab(wide_lab(names))
    alpha = lab.node("alpha")
    meshkit.found_mesh(lab, "alpha", *names)
    pads = meshkit.status(alpha).node.backend == "userspace"
    largest = max(_LANS[name][3] for name in names)
    for name in names:
        mtu = _LANS[name][3]
        # Whose only wide path is this one has just that; beside wider ones a program pads more.
        there = mtu if mtu == largest or not pads else mtu - mtu % 16
        eventually(lambda: device_mtu(lab.node(name)) == mtu, f"the interface of {name}", 30)  # noqa: B023
        eventually(lambda: meshkit.peers(alpha)[name].mtu == there, f"the route to {name}", 30)  # noqa: B023
    assert device_mtu(alpha) == meshkit.status(alpha).node.mtu == largest
    assert meshkit.status(alpha).node.mtu_differs
    with listening(alpha, *(_LANS[name][0] for name in names)) as heard:
        for name in names:
            mtu = meshkit.peers(alpha)[name].mtu
            assert large_pings(alpha, meshkit.peers(alpha)[name].ipv4, mtu - 28), name
            assert large_pings(lab.node(name), meshkit.peers(lab.node(name))["alpha"].ipv4, mtu - 28), name
            assert large_pings(alpha, meshkit.peers(alpha)[name].ipv6, mtu - 48), name
            assert received(alpha, lab.node(name), meshkit.peers(alpha)[name].ipv4) == MEGABYTE, name
    assert heard["fragments"] == 0, heard
    assert heard["udp"] > 30
    wide = max(_LANS[name][2] for name in names)
    assert heard["longest"] == wide, "jumbo frames are used to the last byte"
    said = meshkit.meshpeer(alpha, "why", names[0])
    assert f"its path carries packets of {_LANS[names[0]][2]} bytes" in said


def test_large_packets_pass_a_narrow_path_on_which_icmp_is_dropped(
    make_lab: MakeLab, eventually: Eventually
) -> None:
    lab = make_lab("narrow")
    alpha, bravo = lab.node("alpha"), lab.node("bravo")
    for router in ("r1", "r2"):
        lab.node(router).run(["nft", "-f", "-"], input=_NO_ICMP)
    meshkit.found(bravo, "--endpoint", lab.node("r2").address("net"))
    meshkit.join(alpha, meshkit.invite(bravo))
    pads = meshkit.status(alpha).node.backend == "userspace"
    mtu = 1_216 if pads else 1_220
    for node, other in ((alpha, "bravo"), (bravo, "alpha")):
        eventually(lambda: meshkit.peers(node)[other].mtu == mtu, f"{node.name} knows", 40)  # noqa: B023
    for family in (4, 6):
        peer = meshkit.peers(alpha)["bravo"]
        assert received(alpha, bravo, peer.ipv4 if family == 4 else peer.ipv6) >= MEGABYTE, family
        peer = meshkit.peers(bravo)["alpha"]
        assert received(bravo, alpha, peer.ipv4 if family == 4 else peer.ipv6) >= MEGABYTE, family
    shown = alpha.run(["meshpeer", "doctor"], check=False).stdout
    assert "narrow paths" in shown
    assert device_mtu(alpha) == 1_420


def test_large_packets_pass_a_hub_on_their_way_to_a_narrow_path(
    make_lab: MakeLab, eventually: Eventually
) -> None:
    lab = make_lab(_HUB)
    alpha, hub, bravo = (lab.node(name) for name in ("alpha", "hub", "bravo"))
    meshkit.found(hub, "--topology", "regional", "--region", "eu")
    meshkit.join(alpha, meshkit.invite(hub, "--deny", "hub"), "--region", "eu")
    meshkit.join(bravo, meshkit.invite(hub, "--deny", "hub"), "--region", "us")
    narrow = 1_216 if meshkit.status(hub).node.backend == "userspace" else 1_220
    eventually(lambda: meshkit.peers(hub)["bravo"].mtu == narrow, "the hub knows", 40)
    eventually(lambda: meshkit.peers(bravo)["alpha"].mtu == narrow, "bravo knows what is behind it", 40)
    eventually(lambda: meshkit.pings(alpha, "bravo.mesh"), "alpha reaches bravo", 30)
    there, back = meshkit.peers(alpha)["bravo"], meshkit.peers(bravo)["alpha"]
    assert (there.path, there.via, there.mtu) == ("hub", "hub", 1_420)
    with listening(bravo, "thin") as heard:
        assert received(alpha, bravo, there.ipv4) >= MEGABYTE, "the hub tells alpha"
        assert received(alpha, bravo, there.ipv6) >= MEGABYTE, "bravo asks for segments that fit"
        assert received(bravo, alpha, back.ipv4) >= MEGABYTE
    assert heard["fragments"] == 0, heard


def test_a_machine_whose_network_gets_wider_uses_it(make_lab: MakeLab, eventually: Eventually) -> None:
    lab = make_lab("jumbo")
    bravo = lab.node("bravo")
    bravo.run(["ip", "link", "set", "lan0", "mtu", "1500"])
    meshkit.found_mesh(lab, "alpha", "bravo")
    eventually(lambda: device_mtu(bravo) == 1_420, "bravo's own way out is as wide as that", 20)
    bravo.run(["ip", "link", "set", "lan0", "mtu", "9040"])
    bravo.run(["ip", "addr", "add", "192.0.2.99/24", "dev", "lan0"])
    eventually(lambda: device_mtu(bravo) == 8_960, "a change of the network makes it look again", 20)


# --- helpers ------------------------------------------------------------------------------------------------


def wide_lab(names: Sequence[str]) -> str:
    lans = [
        f"[lans.{lan}]\nmtu = {wide}\n"
        + (f'ipv4 = "192.0.{number}.0/24"\n' if family == 4 else f'ipv6 = "fd77:{number}::/64"\n')
        for number, (lan, family, wide, _) in enumerate((_LANS[name] for name in names), 2)
    ]
    every = ", ".join(f'"{lan}"' for lan, *_ in map(_LANS.__getitem__, names))
    nodes = [f'[nodes.{name}]\nlans = ["{_LANS[name][0]}"]\n' for name in names]
    return 'name = "mesh"\n' + "".join(lans) + f"[nodes.alpha]\nlans = [{every}]\n" + "".join(nodes)


def device_mtu(node: Node) -> int:
    (shown,) = json.loads(node.run(["ip", "-json", "link", "show", "dev", meshkit.INTERFACE]).stdout)
    return int(shown["mtu"])


def large_pings(node: Node, target: str, size: int) -> bool:
    ping = ["ping", "-M", "do", "-s", str(size), "-c3", "-i0.1", "-W2", target]
    return " 0% packet loss" in node.run(ping, check=False).stdout


def received(client: Node, server: Node, address: str) -> int:
    """Sends a megabyte over TCP through the tunnel; returns how much arrived."""
    with server.popen([sys.executable, "-c", _TAKE, address], stdout=subprocess.PIPE) as taking:
        assert taking.stdout is not None
        assert taking.stdout.readline() == "ready\n"
        client.run([sys.executable, "-c", _GIVE, address, str(MEGABYTE)], timeout=40)
        return int(taking.stdout.readline())


@contextlib.contextmanager
def listening(node: Node, *wires: str) -> Iterator[dict[str, int]]:
    """Counts fragments on a machine's wires while the context lives; what it yields is filled at its end."""
    found: dict[str, int] = {}
    argv = [sys.executable, "-u", _WIRE, *wires]
    with node.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield found
        process.stdin.close()
        found |= json.loads(process.stdout.readline())

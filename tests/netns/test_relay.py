"""Two machines that can't reach each other have a WireGuard tunnel through a third, which can't read it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meshkit
import pytest
from meshlab import Lab, Node

if TYPE_CHECKING:
    from conftest import Eventually, MakeLab

pytestmark = pytest.mark.netns

_HERE = Path(__file__).parent
_DRIVER, _WIRE = str(_HERE / "relay_driver.py"), str(_HERE / "relay_wire.py")
_CAPTURED = "/run/captured"
_OVERLAY = ("10.99.0.1", "10.99.0.2")
_MARK = "6d657368706565722d706c61696e"
"""Every ping carries it in the clear."""
_PORTS = (51830, 51831)
_NATS = meshkit.two_homes("symmetric", "symmetric", "relay", "mallory")
_FIREWALL = """
table inet fw {
  chain input { type filter hook input priority filter; policy drop
    iif lo accept
    meta l4proto { icmp, ipv6-icmp } accept
    ct state established accept
    udp dport 51830-51929 accept
  }
  chain forward { type filter hook forward priority filter; policy drop; }
}
"""


@dataclass
class Relayed:
    """A pair of machines with a relay between them, and a stranger."""

    lab: Lab
    ends: tuple[Node, Node]
    relay: Node
    stranger: Node
    keys: list[str]
    family: int
    say: Callable[[str], dict[str, Any]]

    @property
    def address(self) -> str:
        return self.relay.address(None, self.family)

    def pair(self) -> dict[str, Any]:
        (pair,) = self.say("look")["pairs"]
        assert isinstance(pair, dict)
        return pair

    def pings(self, wait_s: float = 1.0) -> bool:
        ping = ["ping", "-c1", f"-W{wait_s}", "-p", _MARK, _OVERLAY[1]]
        return self.ends[0].run(ping, check=False).returncode == 0

    def captured(self) -> list[tuple[int, int, bytes]]:
        lines = [line.split(" ") for line in self.relay.path(_CAPTURED).read_text().splitlines()]
        return [(int(source), int(target), bytes.fromhex(said)) for source, target, said in lines]


@pytest.mark.parametrize(("way", "family"), [("process", 4), ("fast", 4), ("fast", 6), ("process", 6)])
def test_a_relay_carries_what_it_can_not_read_and_nothing_of_strangers(
    make_lab: MakeLab, eventually: Eventually, way: str, family: int
) -> None:
    with relayed(make_lab, eventually, way, family) as one:
        carries_ciphertext_on_the_two_ports_alone(one, eventually, fast=way == "fast")
        is_not_moved_by_strangers(one, fast=way == "fast")
        follows_an_end_that_roams(one, eventually, fast=way == "fast")
        stands_still_while_frozen(one, eventually, fast=way == "fast")
        ends_with_who_leaves(one)
    tables = one.relay.run(["nft", "list", "tables"]).stdout
    assert tables.split("\n") == ["table inet fw", ""], "nothing is left behind"
    assert one.relay.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout.strip() == "0"


@pytest.mark.parametrize("way", ["process", "fast"])
def test_two_machines_behind_symmetric_nats_are_relayed(
    make_lab: MakeLab, eventually: Eventually, way: str
) -> None:
    with relayed(make_lab, eventually, way, 4, _NATS) as one:
        eventually(lambda: one.pings() and one.pair()["fast"] is (way == "fast"), "the relay carries it", 20)
        routers = [one.lab.node(name).address("net") for name in ("r1", "r2")]
        assert [host for host, _ in one.pair()["ways"]] == routers
        ping = ["ping", "-c10", "-i0.05", "-W2", "-s", "1392", _OVERLAY[1]]
        assert " 0% packet loss" in one.ends[0].run(ping).stdout
        is_not_moved_by_strangers(one, fast=way == "fast")


def test_a_table_that_a_killed_relay_left_behind_ends_by_itself_and_by_the_next_one(
    make_lab: MakeLab, eventually: Eventually
) -> None:
    with relayed(make_lab, eventually, "fast", 4) as one:
        eventually(lambda: one.pings() and one.pair()["fast"], "the kernel carries the pair", 20)
        listed = one.relay.run(["nft", "list", "table", "netdev", "meshpeer_relay"]).stdout
        assert listed.count("timeout 1m expires") == 2, listed
        for pattern in ("relay_driver", r"relay\.helper"):
            for pid in one.relay.pgrep(pattern):
                one.relay.run(["sh", "-c", f"kill -9 {pid}"], check=False)
        assert "meshpeer_relay" in one.relay.run(["nft", "list", "tables"]).stdout
        assert one.pings(), "until then the tunnel works on"
        with driving(one.relay, one.keys, "fast"):
            eventually(
                lambda: "meshpeer_relay" not in one.relay.run(["nft", "list", "tables"]).stdout,
                "the table is gone",
            )
            assert not one.pings()


def carries_ciphertext_on_the_two_ports_alone(one: Relayed, eventually: Eventually, *, fast: bool) -> None:
    eventually(one.pings, "a ping through the relay", 20)
    eventually(lambda: one.pair()["fast"] is fast, "the kernel carries it, or not")
    if fast:
        before = one.pair()["packets"]
        with meshkit.pinging(one.ends[0], _OVERLAY[1]):
            eventually(lambda: one.pair()["packets"][1] >= before[1] + 20, "what the kernel carries counts")
    ping = ["ping", "-c10", "-i0.05", "-W2", "-s", "1392", "-p", _MARK, _OVERLAY[1]]
    assert " 0% packet loss" in one.ends[0].run(ping).stdout
    captured = one.captured()
    assert len(captured) > 20
    for source, target, said in captured:
        assert bytes.fromhex(_MARK) not in said, "the relay sees the plain text"
        assert {source, target} & set(_PORTS), (source, target)
        assert said[0] in (1, 2, 3, 4)
        assert said[1:4] == b"\0\0\0"
    for number, end in enumerate(one.ends):
        (endpoint,) = end.run(["wg", "show", "wg0", "endpoints"]).stdout.split()[1:]
        host = f"[{one.address}]" if one.family == 6 else one.address
        assert endpoint == f"{host}:{_PORTS[number]}"
        assert end.run(["ping", "-c1", "-W1", other_address(one, number)], check=False).returncode != 0


def is_not_moved_by_strangers(one: Relayed, *, fast: bool) -> None:
    before = one.pair()
    handshakes = sorted({said.hex() for _, _, said in one.captured() if said[0] in (1, 2)})
    assert handshakes
    rubbish = [
        "00",
        "04000000" + "11" * 28,
        "0400000012345678" + "00" * 24,
        "ff" * 148,
        "01000000" + "22" * 144,
    ]
    with meshkit.pinging(one.ends[0], _OVERLAY[1]):
        sent = "\n".join([*handshakes, *rubbish]) + "\n"
        words = [sys.executable, _WIRE, "send", one.address, *map(str, _PORTS)]
        came = one.stranger.run(words, input=sent).stdout.strip()
    # One that was lost before it arrived is new when a stranger brings it, and is answered, to no avail.
    assert int(came) <= len(handshakes)
    after = one.pair()
    assert after["ways"] == before["ways"]
    assert after["fast"] is fast
    assert sum(after["drops"].values()) >= sum(before["drops"].values()) + 2 * len(rubbish)


def follows_an_end_that_roams(one: Relayed, eventually: Eventually, *, fast: bool) -> None:
    one.ends[1].run(["wg", "set", "wg0", "listen-port", "51999"])
    # Its next packet tells; until the kernel is told, too, answers go to where it was.
    for number, answered in enumerate((not fast, True, True)):
        ping = ["ping", "-c1", "-W1", _OVERLAY[0]]
        assert one.ends[1].run(ping, check=False).returncode == 0 or not answered, number
    eventually(lambda: one.pair()["ways"][1][1] == 51999, "the relay follows")
    eventually(lambda: one.pair()["fast"] is fast, "and so does the kernel")
    assert one.pings()


def stands_still_while_frozen(one: Relayed, eventually: Eventually, *, fast: bool) -> None:
    one.say("freeze 0")
    one.say("freeze 1")
    eventually(lambda: one.pair()["frozen"], "the agreed instant")
    assert not one.pings()
    assert not one.pair()["fast"]
    crossed = one.pair()["packets"]
    assert not one.pings()
    assert one.pair()["packets"] == crossed
    one.say("wake 1")
    eventually(one.pings, "it goes on when it is woken")
    eventually(lambda: one.pair()["fast"] is fast, "by the kernel, or not")


def ends_with_who_leaves(one: Relayed) -> None:
    answer = one.say("leave 1")
    assert answer["said"] == [[0, "RelayFreed", "an end is no member any more"]]
    assert answer["pairs"] == []
    assert not one.pings()


@contextlib.contextmanager
def relayed(
    make_lab: MakeLab, eventually: Eventually, way: str, family: int, labs: str = ""
) -> Iterator[Relayed]:
    lab = make_lab(labs or meshkit.lan("alpha", "bravo", "relay", "mallory"))
    if not labs:
        lab.partition(["alpha"], ["bravo"])
    ends, relay = (lab.node("alpha"), lab.node("bravo")), lab.node("relay")
    relay.run(["nft", "-f", "-"], input=_FIREWALL)
    for end in ends:
        make_interface(end, eventually)
    keys = [make_key(end) for end in ends]
    with capturing(relay), driving(relay, keys, way) as say:
        assert say("ask 1")["said"] == [[0, "RelayGranted", _PORTS[0]], [1, "RelayGranted", _PORTS[1]]]
        assert say("ask 0")["said"] == [[0, "RelayGranted", _PORTS[0]], [1, "RelayGranted", _PORTS[1]]]
        host = relay.address(None, family)
        for number, end in enumerate(ends):
            endpoint = f"[{host}]:{_PORTS[number]}" if family == 6 else f"{host}:{_PORTS[number]}"
            # A relay knows where an end is once it has spoken: so both must.
            theirs = ["peer", keys[1 - number], "allowed-ips", f"{_OVERLAY[1 - number]}/32"]
            theirs += ["persistent-keepalive", "25"]
            ours = ["listen-port", "51820", "private-key", "/run/key"]
            end.run(["wg", "set", "wg0", *ours, *theirs, "endpoint", endpoint])
            end.run(["ip", "addr", "add", f"{_OVERLAY[number]}/24", "dev", "wg0"])
            end.run(["ip", "link", "set", "wg0", "up"])
        yield Relayed(lab, ends, relay, lab.node("mallory"), keys, family, say)


@contextlib.contextmanager
def driving(relay: Node, keys: list[str], way: str) -> Iterator[Callable[[str], dict[str, Any]]]:
    argv = [sys.executable, "-u", _DRIVER, *keys, way]
    with relay.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        words, answers = driver.stdin, driver.stdout

        def say(line: str) -> dict[str, Any]:
            words.write(line + "\n")
            words.flush()
            answer = json.loads(answers.readline())
            assert isinstance(answer, dict)
            assert answer["fault"] == "", answer
            return answer

        yield say
        with contextlib.suppress(BrokenPipeError):
            words.close()


@contextlib.contextmanager
def capturing(relay: Node) -> Iterator[None]:
    argv = [sys.executable, "-u", _WIRE, "capture", _CAPTURED]
    with relay.popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.kill()


def make_interface(node: Node, eventually: Eventually) -> None:
    if node.run(["ip", "link", "add", "wg0", "type", "wireguard"], check=False).returncode != 0:
        node.run(["wireguard-go", "wg0"])
        eventually(
            lambda: node.run(["wg", "show", "wg0"], check=False).returncode == 0, "wireguard-go answers"
        )


def make_key(node: Node) -> str:
    node.run(["sh", "-c", "umask 077; wg genkey > /run/key"])
    return node.run(["sh", "-c", "wg pubkey < /run/key"]).stdout.strip()


def other_address(one: Relayed, number: int) -> str:
    return one.ends[1 - number].address(None, one.family)
